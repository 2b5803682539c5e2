//! Storing the increments of one epoch, and reading them back, before the epoch may commit (invariant I2).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::durability::snapshot::{End, IncrementRef, PackId, TaskIncrement, pack, read_end};
use crate::ids::TaskId;
use crate::planted::{Bug, planted};
use crate::state::{Overlay, StateMeta};

use super::error::SnapshotError;
use super::repository::Repository;

/// The increment of one task, to be stored.
pub struct PersistTask {
    pub task: TaskId,
    pub meta: StateMeta,
    /// Names of the task's stores.
    pub stores: Vec<String>,
    pub increment: Arc<Overlay>,
    pub links: Vec<IncrementRef>,
    pub depth: u64,
    pub after_base: (u64, u64),
}

impl PersistTask {
    /// As it is packed.
    pub(super) fn increment(&self) -> TaskIncrement<'_> {
        TaskIncrement {
            task: self.task,
            meta: &self.meta,
            stores: self.stores.clone(),
            increment: &*self.increment,
            links: self.links.clone(),
            depth: self.depth,
            after_base: self.after_base,
        }
    }
}

/// The increments of one epoch of a worker, to be stored as one object.
pub struct PersistJob {
    pub pack: PackId,
    pub plan: String,
    pub tasks: Vec<PersistTask>,
    pub cancelled: Arc<AtomicBool>,
}

/// What was stored.
#[derive(Debug)]
pub struct Persisted {
    pub pack: PackId,
    /// Per task, the bytes of its increment.
    pub tasks: Vec<(TaskId, u64)>,
    pub bytes: u64,
}

/// One attempt after the other to store a pack.
pub struct Persist {
    repository: Arc<Repository>,
    job: PersistJob,
    bytes: Vec<u8>,
    is_written: bool,
}

impl Persist {
    pub fn new(repository: Arc<Repository>, job: PersistJob) -> Self {
        Self {
            repository,
            job,
            bytes: Vec::new(),
            is_written: false,
        }
    }

    /// Writes, or reads back; the outcome once the pack is there and as it was written.
    pub fn step(&mut self) -> Option<Result<Persisted, SnapshotError>> {
        if self.job.cancelled.load(Ordering::Relaxed) {
            return Some(Err(SnapshotError::Cancelled));
        }
        if self.bytes.is_empty() {
            match self.packed() {
                Ok(bytes) => self.bytes = bytes,
                Err(error) => return Some(Err(error)),
            }
        }
        let object = self.job.pack.object();
        if planted(Bug::CommitBeforeStored) {
            return Some(self.persisted());
        }
        if !self.is_written {
            match self.repository.store.create(&object, &self.bytes) {
                Ok(()) => {
                    self.is_written = true;
                    return None;
                }
                Err(error) => return self.failed(error.into()),
            }
        }
        match self.repository.store.read(&object) {
            Ok(bytes) if bytes == self.bytes => Some(self.persisted()),
            Ok(_) => self.failed(SnapshotError::NotAsWritten { object }),
            Err(error) => self.failed(error.into()),
        }
    }

    /// Whatever may have come of the attempt, the next one has a name of its own (invariant I10).
    fn failed(&mut self, error: SnapshotError) -> Option<Result<Persisted, SnapshotError>> {
        if !error.is_passing() && !error.is_damage() {
            return Some(Err(error));
        }
        tracing::warn!(%error, "an increment is not stored yet; trying again");
        self.is_written = false;
        self.job.pack.attempt = self.repository.attempt();
        None
    }

    fn packed(&self) -> Result<Vec<u8>, SnapshotError> {
        let tasks = self.job.tasks.iter().map(PersistTask::increment);
        Ok(pack(&self.job.plan, &tasks.collect::<Vec<_>>())?)
    }

    fn persisted(&self) -> Result<Persisted, SnapshotError> {
        let object = self.job.pack.object();
        let End::Footer(footer) = read_end(&self.bytes, &object)? else {
            return Err(SnapshotError::NotAsWritten { object });
        };
        let tasks = self.job.tasks.iter();
        Ok(Persisted {
            pack: self.job.pack.clone(),
            tasks: tasks
                .filter_map(|task| Some((task.task, footer.of(task.task)?.bytes)))
                .collect(),
            bytes: self.bytes.len() as u64,
        })
    }
}
