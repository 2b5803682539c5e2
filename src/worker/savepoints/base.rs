//! A base snapshot that begins a lineage: for whoever puts state in place of which nothing is committed yet.

use std::sync::Arc;

use crate::durability::snapshot::SnapshotId;
use crate::ids::{Lineage, TaskId};
use crate::state::{StateBackend, StoreSpec};

use super::super::snapshots::{Repository, SnapshotError, SnapshotJob, Upload};

/// One attempt to store a database as the first base snapshot of a lineage.
pub struct BaseSnapshot(Upload);

impl BaseSnapshot {
    /// Begins; nothing is stored before the first step. The database must say of itself that it is of `lineage`.
    pub fn begin(
        repository: Arc<Repository>,
        task: TaskId,
        lineage: Lineage,
        backend: Arc<dyn StateBackend>,
        stores: Vec<StoreSpec>,
        plan: &str,
    ) -> Self {
        let job = SnapshotJob {
            task,
            lineage,
            backend,
            hashes: Arc::default(),
            stores,
            plan: plan.to_owned(),
            writer: repository.instance.clone(),
            parent: None,
            increments: Arc::default(),
            cancelled: Arc::default(),
        };
        Self(Upload::new(repository, job))
    }

    /// One step; the snapshot once it is stored and was read back. It is nobody's before a commit names it.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn step(&mut self) -> Option<Result<SnapshotId, SnapshotError>> {
        Some(self.0.step()?.map(|made| made.id))
    }
}
