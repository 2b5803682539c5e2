//! Freezing a task that stands still, and saying so.

use std::sync::Arc;

use crate::durability::savepoint::{Marker, Request};
use crate::planted::{Bug, planted};
use crate::state::{Checkpoint, StateBackend, StoreSpec};

use super::super::snapshots::{Repository, SnapshotError};

/// A task whose epoch is committed and on its disk.
pub struct FreezeJob {
    pub repository: Arc<Repository>,
    pub request: Request,
    pub marker: Marker,
    /// Its database; `None` for a task without stores.
    pub backend: Option<Arc<dyn StateBackend>>,
    pub stores: Vec<StoreSpec>,
}

/// A task as it stood still.
#[derive(Clone)]
pub struct FrozenTask {
    pub marker: Marker,
    pub copy: Option<Arc<dyn Checkpoint>>,
    pub stores: Vec<StoreSpec>,
}

/// Freezes, then publishes the marker.
pub struct Freeze {
    job: FreezeJob,
    frozen: Option<FrozenTask>,
}

impl Freeze {
    pub fn new(job: FreezeJob) -> Self {
        Self { job, frozen: None }
    }

    /// One step; the outcome once the marker is there.
    ///
    /// # Errors
    /// [`SnapshotError`]; what is passing may be tried again.
    pub fn step(&mut self) -> Option<Result<FrozenTask, SnapshotError>> {
        let Some(frozen) = self.frozen.clone() else {
            return match self.freeze() {
                Ok(frozen) => {
                    self.frozen = Some(frozen);
                    None
                }
                Err(error) => Some(Err(error)),
            };
        };
        let object = self.job.request.folder().marker(self.job.marker.task);
        let created = self.job.repository.store.create(&object, &self.job.marker.to_json());
        // Where another owner of the task has said that it stands still at another epoch, nothing can come of the attempt.
        Some(created.map(|()| frozen).map_err(SnapshotError::from))
    }

    fn freeze(&self) -> Result<FrozenTask, SnapshotError> {
        let copy = self
            .job
            .backend
            .as_ref()
            .map(|backend| backend.checkpoint())
            .transpose()?;
        let marker = self.job.marker;
        let is_other = |copy: &dyn Checkpoint| {
            let meta = copy.meta();
            (meta.lineage, meta.epoch) != (marker.lineage, marker.epoch)
        };
        if copy.as_deref().is_some_and(is_other) && !planted(Bug::SavepointBeforeCommit) {
            return Err(SnapshotError::Cancelled);
        }
        Ok(FrozenTask {
            marker,
            copy: copy.map(Arc::from),
            stores: self.job.stores.clone(),
        })
    }
}
