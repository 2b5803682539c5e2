//! Where databases are put together that are looked at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::instance::ScratchStates;
use crate::time::Millis;

/// A directory that goes when this does; databases in memory go, too.
pub struct Scratch {
    /// The databases.
    pub states: ScratchStates,
    directory: PathBuf,
}

impl Scratch {
    /// A place below `parent`, or below the directory for temporary files. The directory is made when something needs it.
    pub fn new(parent: Option<&Path>, now_ms: Millis) -> Arc<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tidegate-{}-{now_ms}-{number}", std::process::id());
        let directory = parent.map_or_else(std::env::temp_dir, Path::to_owned).join(name);
        Arc::new(Self {
            states: ScratchStates::new(directory.clone()),
            directory,
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.directory.exists() {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::warn!(path = %self.directory.display(), %error, "a temporary directory stays");
        }
    }
}
