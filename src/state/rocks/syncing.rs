//! Making files durable while others are still being written.

use std::fs::File;
use std::io;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded};

/// Files that may wait for the disk; then whoever writes waits, too.
const QUEUED: usize = 4;

/// Waits for the disk in a thread of its own, file after file, so that whoever writes the next one does not.
pub(super) struct Syncing {
    files: Sender<File>,
    thread: JoinHandle<io::Result<()>>,
}

impl Syncing {
    /// # Errors
    /// Where the system gives no thread.
    pub(super) fn begin() -> io::Result<Self> {
        let (files, written) = bounded::<File>(QUEUED);
        let thread = std::thread::Builder::new().name("state-sync".to_owned());
        // What one descriptor is told about a failed write is not told to the next one, so the first failure is kept.
        let thread = thread.spawn(move || written.iter().map(|file| file.sync_all()).fold(Ok(()), io::Result::and))?;
        Ok(Self { files, thread })
    }

    /// Hands over a file to which nothing more is written.
    pub(super) fn add(&self, file: File) {
        let sent = self.files.send(file);
        debug_assert!(sent.is_ok(), "the thread ends only after its channel");
    }

    /// Waits until all of them are durable.
    ///
    /// # Errors
    /// The first that there was.
    pub(super) fn finish(self) -> io::Result<()> {
        drop(self.files);
        let ended = self.thread.join();
        ended.unwrap_or_else(|_| Err(io::Error::other("a thread that syncs files has panicked")))
    }
}
