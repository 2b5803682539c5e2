//! What the service can see of a running instance.

use std::sync::{Arc, OnceLock};

use crate::ids::TaskId;
use crate::metrics::{Sample, Source};

/// How far the restore of one task has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restore {
    /// The task.
    pub task: TaskId,
    /// Offsets worked off so far.
    pub restored: u64,
    /// Offsets to work off in all; on a compacted topic an upper bound.
    pub target: u64,
}

/// How an instance is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether the process does its work, or may yet; when false it should be restarted.
    pub live: bool,
    /// Whether the instance has joined its group and all of its tasks process.
    pub ready: bool,
    /// The reason, for people.
    pub detail: String,
    /// Tasks that are being restored.
    pub restores: Vec<Restore>,
}

/// Something whose metrics and health can be asked for from any thread.
pub trait Observed: Send + Sync {
    /// Where its metrics come from.
    fn metrics(&self) -> Arc<dyn Source>;
    /// How it is now.
    fn health(&self) -> Health;
}

/// A place for the instance, which is observed as "starting" until it is there.
#[derive(Default)]
pub struct Place(OnceLock<(Arc<dyn Observed>, Arc<dyn Source>)>);

impl Place {
    /// Puts the instance into its place; a second one is not taken.
    pub fn put(&self, observed: Arc<dyn Observed>) {
        let metrics = observed.metrics();
        let _ = self.0.set((observed, metrics));
    }

    /// How the instance is.
    pub fn health(&self) -> Health {
        let starting = || Health {
            live: true,
            ready: false,
            detail: "starting".to_owned(),
            restores: Vec::new(),
        };
        self.0.get().map_or_else(starting, |(observed, _)| observed.health())
    }
}

impl Source for Place {
    fn samples(&self, out: &mut Vec<Sample>) {
        if let Some((_, metrics)) = self.0.get() {
            metrics.samples(out);
        }
    }
}
