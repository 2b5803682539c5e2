//! Where tasks' databases come from: one directory per task, or memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ids::TaskId;
use crate::state::{MemoryBackend, RocksBackend, RocksShared, StateBackend, StateDirectory, StateResult, StoreSpec};
use crate::worker::StateProvider;

/// What an instance keeps between two starts.
#[derive(Clone)]
pub struct Disk {
    /// Its tasks' databases.
    pub states: Arc<dyn StateProvider>,
    /// The name that its transactional ids are made of.
    pub identity: String,
}

/// RocksDB databases under one state directory.
pub(super) struct RocksStates {
    pub(super) directory: Arc<StateDirectory>,
    pub(super) shared: RocksShared,
}

impl StateProvider for RocksStates {
    fn open(&self, task: TaskId, stores: &[StoreSpec]) -> StateResult<Arc<dyn StateBackend>> {
        let path = self.directory.task_path(task);
        Ok(Arc::new(RocksBackend::open(&path, stores, &self.shared)?))
    }

    fn clear(&self, task: TaskId) -> StateResult<()> {
        RocksBackend::destroy(&self.directory.task_path(task))
    }
}

/// Databases in memory. They outlive a task that is given up, so that it needs only the difference when it comes back.
#[derive(Default)]
pub(super) struct MemoryStates {
    tasks: Mutex<BTreeMap<TaskId, Arc<MemoryBackend>>>,
}

impl StateProvider for MemoryStates {
    fn open(&self, task: TaskId, stores: &[StoreSpec]) -> StateResult<Arc<dyn StateBackend>> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let backend = tasks
            .entry(task)
            .or_insert_with(|| Arc::new(MemoryBackend::new(stores.len())));
        Ok(Arc::<MemoryBackend>::clone(backend))
    }

    fn clear(&self, task: TaskId) -> StateResult<()> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).remove(&task);
        Ok(())
    }
}
