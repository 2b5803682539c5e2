//! Where tasks' databases come from: one directory per task, or memory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::ids::TaskId;
use crate::state::entries::Entries;
use crate::state::entry_copies::{EntryInstallation, Place, Unfinished};
use crate::state::{
    Fetching, Installation, MemoryBackend, RocksBackend, RocksShared, StateBackend, StateDirectory, StateError,
    StateMeta, StateResult, StoreSpec,
};
use crate::worker::StateProvider;

const SCRATCH_BLOCK_CACHE_BYTES: usize = 8 << 20;
const SCRATCH_WRITE_BUFFER_BYTES: usize = 64 << 20;

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

    fn install(&self, task: TaskId, stores: &[StoreSpec]) -> StateResult<Box<dyn Installation>> {
        RocksBackend::install(&self.directory.task_path(task), stores, &self.shared)
    }

    fn resume(&self, task: TaskId, stores: &[StoreSpec], fetching: Fetching) -> StateResult<Arc<dyn StateBackend>> {
        let path = self.directory.task_path(task);
        Ok(Arc::new(RocksBackend::resume(&path, stores, &self.shared, fetching)?))
    }
}

/// Databases in memory. They outlive a task that is given up, so that it needs only the difference when it comes back.
#[derive(Default)]
pub(super) struct MemoryStates {
    databases: Arc<Shelf>,
    unfinished: Unfinished,
}

#[derive(Default)]
struct Shelf(Mutex<BTreeMap<TaskId, Arc<MemoryBackend>>>);

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskId, Arc<MemoryBackend>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What errors call the database of a task.
fn name(task: TaskId) -> PathBuf {
    PathBuf::from(format!("memory/{task}"))
}

impl StateProvider for MemoryStates {
    fn open(&self, task: TaskId, stores: &[StoreSpec]) -> StateResult<Arc<dyn StateBackend>> {
        let mut databases = self.databases.lock();
        let backend = databases
            .entry(task)
            .or_insert_with(|| Arc::new(MemoryBackend::new(stores.len())));
        if backend.meta()?.is_some() {
            self.unfinished.discard(task);
        }
        Ok(Arc::<MemoryBackend>::clone(backend))
    }

    fn clear(&self, task: TaskId) -> StateResult<()> {
        if !self.unfinished.discard(task) {
            return Err(StateError::Locked { path: name(task) });
        }
        self.databases.lock().remove(&task);
        Ok(())
    }

    fn install(&self, task: TaskId, stores: &[StoreSpec]) -> StateResult<Box<dyn Installation>> {
        let former = self.databases.lock().get(&task).cloned();
        let former = match former {
            Some(former) if former.meta()?.is_some() => Some(former.copy()?),
            _ => None,
        };
        let place = MemoryPlace {
            task,
            databases: Arc::clone(&self.databases),
        };
        let at = (task, &*name(task));
        let begun = EntryInstallation::begin(at, &self.unfinished, former, stores.len(), Box::new(place))?;
        Ok(Box::new(begun))
    }
}

/// Databases that are needed for a moment: below a directory that is theirs alone, or in memory.
pub struct ScratchStates {
    directory: PathBuf,
    rocks: OnceLock<Arc<RocksStates>>,
    memory: Arc<MemoryStates>,
}

impl ScratchStates {
    /// Databases below `directory`, which is made when it is needed.
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            rocks: OnceLock::new(),
            memory: Arc::default(),
        }
    }

    /// Databases of a kind, as checkpoints name it: `rocksdb` or `entries`.
    ///
    /// # Errors
    /// [`StateError::Foreign`] for any other; [`StateError::Locked`], [`StateError::Io`] as the directory says.
    pub fn databases(&self, kind: &str) -> StateResult<Arc<dyn StateProvider>> {
        match kind {
            "entries" => Ok(Arc::clone(&self.memory) as Arc<dyn StateProvider>),
            "rocksdb" => Ok(self.rocks()? as Arc<dyn StateProvider>),
            other => Err(StateError::Foreign {
                path: self.directory.clone(),
                reason: format!("a database of kind {other:?} cannot be made"),
            }),
        }
    }

    fn rocks(&self) -> StateResult<Arc<RocksStates>> {
        if let Some(rocks) = self.rocks.get() {
            return Ok(Arc::clone(rocks));
        }
        let rocks = Arc::new(RocksStates {
            directory: Arc::new(StateDirectory::open(&self.directory, "scratch", "scratch")?),
            shared: RocksShared::new(SCRATCH_BLOCK_CACHE_BYTES, SCRATCH_WRITE_BUFFER_BYTES),
        });
        Ok(Arc::clone(self.rocks.get_or_init(|| rocks)))
    }
}

/// Where a task's database is kept in memory.
struct MemoryPlace {
    task: TaskId,
    databases: Arc<Shelf>,
}

impl Place for MemoryPlace {
    fn admit(&self) -> StateResult<()> {
        Ok(())
    }

    fn replace(self: Box<Self>, meta: StateMeta, stores: Vec<Entries>) -> StateResult<Arc<dyn StateBackend>> {
        let mut databases = self.databases.lock();
        if databases
            .get(&self.task)
            .is_some_and(|former| Arc::strong_count(former) > 1)
        {
            return Err(StateError::Locked { path: name(self.task) });
        }
        let backend = Arc::new(MemoryBackend::of(meta, stores));
        databases.insert(self.task, Arc::<MemoryBackend>::clone(&backend));
        Ok(backend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::conformance::copies::{self, Databases};
    use crate::state::conformance::stores;

    impl Databases for MemoryStates {
        fn open(&self, task: TaskId) -> StateResult<Arc<dyn StateBackend>> {
            StateProvider::open(self, task, &stores())
        }

        fn clear(&self, task: TaskId) -> StateResult<()> {
            StateProvider::clear(self, task)
        }

        fn install(&self, task: TaskId) -> StateResult<Box<dyn Installation>> {
            StateProvider::install(self, task, &stores())
        }
    }

    /// An instance's databases on disk, for as long as a test runs.
    struct OnDisk {
        states: RocksStates,
        _directory: tempfile::TempDir,
    }

    impl OnDisk {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let states = RocksStates {
                directory: Arc::new(StateDirectory::open(directory.path(), "app", "one").expect("it is new")),
                shared: RocksShared::new(4 << 20, 8 << 20),
            };
            Self {
                states,
                _directory: directory,
            }
        }
    }

    impl Databases for OnDisk {
        fn open(&self, task: TaskId) -> StateResult<Arc<dyn StateBackend>> {
            self.states.open(task, &stores())
        }

        fn clear(&self, task: TaskId) -> StateResult<()> {
            self.states.clear(task)
        }

        fn install(&self, task: TaskId) -> StateResult<Box<dyn Installation>> {
            self.states.install(task, &stores())
        }
    }

    #[test]
    fn copies_of_databases_in_memory_conform() {
        copies::run(&|| Box::new(MemoryStates::default()));
    }

    #[test]
    fn copies_of_databases_on_disk_conform() {
        copies::run(&|| Box::new(OnDisk::new()));
    }
}
