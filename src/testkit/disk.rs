//! The disk of an instance as a test sees it: it outlives the process, and something may happen to it.
//!
//! It keeps the contract that RocksDB is used under: a batch is atomic, what was applied survives the process, and a machine that loses
//! power loses a suffix of whole batches (`RocksBackend` with its write-ahead log on and not synced).

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use crate::ids::{StoreId, TaskId};
use crate::state::entries::{self, Entries};
use crate::state::{SortedIncrement, StateBackend, StateError, StateMeta, StateResult, StoreSpec};
use crate::worker::StateProvider;

use super::seed::Seed;

/// Batches of a database that a power failure may take; older ones were synced.
const UNSYNCED: usize = 6;

/// See the [module documentation](self).
#[derive(Debug, Default)]
pub(super) struct SimulatedDisk {
    full: Arc<AtomicBool>,
    databases: Mutex<BTreeMap<TaskId, Arc<Database>>>,
    open: Mutex<BTreeMap<TaskId, Weak<Handle>>>,
}

impl SimulatedDisk {
    fn databases(&self) -> MutexGuard<'_, BTreeMap<TaskId, Arc<Database>>> {
        self.databases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on writing fails, or no more.
    pub(super) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    /// Everything is gone.
    pub(super) fn wipe(&self) {
        self.databases().clear();
    }

    /// The power fails: each database loses some of its last batches. Answers how many in all.
    pub(super) fn lose_power(&self, seed: &Seed) -> usize {
        let databases = self.databases();
        let lose = |database: &Arc<Database>| database.write().lose(seed.below(UNSYNCED as u64 + 1) as usize);
        databases.values().map(lose).sum()
    }

    /// The database of `task`: its metadata and the entries of each store; `None` where nothing was ever written.
    pub(super) fn contents(&self, task: TaskId) -> Option<(StateMeta, Vec<Entries>)> {
        let databases = self.databases();
        let contents = databases.get(&task)?.read();
        Some((contents.meta.clone()?, contents.stores.clone()))
    }

    /// The metadata of the database of `task`.
    pub(super) fn meta(&self, task: TaskId) -> Option<StateMeta> {
        self.databases().get(&task)?.read().meta.clone()
    }

    /// A value as the database of `task` has it, with the metadata of the database; `None` where there is no such database.
    pub(super) fn read(&self, task: TaskId, store: StoreId, key: &[u8]) -> Option<(StateMeta, Option<Vec<u8>>)> {
        let databases = self.databases();
        let contents = databases.get(&task)?.read();
        let value = contents.stores[store.0 as usize].get(key);
        Some((contents.meta.clone()?, value.map(|value| value.to_vec())))
    }
}

impl StateProvider for SimulatedDisk {
    fn open(&self, task: TaskId, stores: &[StoreSpec]) -> StateResult<Arc<dyn StateBackend>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let path = PathBuf::from(task.to_string());
        if open.get(&task).is_some_and(|handle| handle.strong_count() > 0) {
            return Err(StateError::Locked { path });
        }
        let mut databases = self.databases();
        let database = databases.entry(task).or_insert_with(|| Database::new(stores.len()));
        let handle = Arc::new(Handle {
            path,
            full: Arc::clone(&self.full),
            database: Arc::clone(database),
        });
        open.insert(task, Arc::downgrade(&handle));
        Ok(handle)
    }

    fn clear(&self, task: TaskId) -> StateResult<()> {
        self.databases().remove(&task);
        Ok(())
    }
}

/// One task's database.
#[derive(Debug)]
struct Database(RwLock<Contents>);

#[derive(Debug)]
struct Contents {
    stores: Vec<Entries>,
    meta: Option<StateMeta>,
    /// What the last batches have overwritten, oldest first.
    undo: VecDeque<Batch>,
}

#[derive(Debug)]
struct Batch {
    meta: Option<StateMeta>,
    entries: Vec<(StoreId, Box<[u8]>, Option<Box<[u8]>>)>,
}

impl Database {
    fn new(stores: usize) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Contents {
            stores: vec![Entries::default(); stores],
            meta: None,
            undo: VecDeque::new(),
        })))
    }

    fn read(&self) -> RwLockReadGuard<'_, Contents> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Contents> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn put(&mut self, store: StoreId, key: &[u8], value: Option<&[u8]>) -> Option<Box<[u8]>> {
        entries::put(&mut self.stores[store.0 as usize], key, value)
    }

    /// Takes back as many of the last batches, or as many as there are.
    fn lose(&mut self, batches: usize) -> usize {
        let mut lost = 0;
        while lost < batches
            && let Some(batch) = self.undo.pop_back()
        {
            for (store, key, value) in batch.entries.into_iter().rev() {
                self.put(store, &key, value.as_deref());
            }
            self.meta = batch.meta;
            lost += 1;
        }
        lost
    }
}

/// An open database. There is at most one of each, as RocksDB's lock on the directory makes sure.
#[derive(Debug)]
struct Handle {
    path: PathBuf,
    full: Arc<AtomicBool>,
    database: Arc<Database>,
}

impl StateBackend for Handle {
    fn get(&self, store: StoreId, key: &[u8], out: &mut Vec<u8>) -> StateResult<bool> {
        Ok(entries::get(&self.database.read().stores[store.0 as usize], key, out))
    }

    fn scan(
        &self,
        store: StoreId,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> StateResult<()> {
        entries::scan(&self.database.read().stores[store.0 as usize], from, to, visit);
        Ok(())
    }

    fn apply(&self, increment: &dyn SortedIncrement, meta: &StateMeta) -> StateResult<()> {
        if self.full.load(Ordering::SeqCst) {
            let path = self.path.clone();
            return Err(StateError::DiskFull { path });
        }
        let mut contents = self.database.write();
        meta.assert_follows(contents.meta.as_ref());
        let mut entries = Vec::new();
        increment.for_each(&mut |store, key, value| {
            let former = contents.put(store, key, value);
            entries.push((store, key.into(), former));
        });
        let meta = contents.meta.replace(meta.clone());
        contents.undo.push_back(Batch { meta, entries });
        if contents.undo.len() > UNSYNCED {
            contents.undo.pop_front();
        }
        Ok(())
    }

    fn meta(&self) -> StateResult<Option<StateMeta>> {
        Ok(self.database.read().meta.clone())
    }

    fn size_bytes(&self) -> u64 {
        entries::size_bytes(&self.database.read().stores)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::state::conformance;

    fn opened(disk: &SimulatedDisk) -> Arc<dyn StateBackend> {
        let task = TaskId {
            sub_topology: 0,
            partition: 0,
        };
        disk.open(task, &conformance::stores()).expect("it can be opened")
    }

    #[test]
    fn a_simulated_disk_conforms() {
        conformance::run(&|| opened(&SimulatedDisk::default()));
    }

    #[test]
    fn a_power_failure_takes_whole_batches_from_the_end() {
        let disk = SimulatedDisk::default();
        let database = opened(&disk);
        for epoch in 1..=20 {
            let value = epoch.to_string();
            let increment = conformance::increment(&[(conformance::PLAIN, b"key", Some(value.as_bytes()))]);
            database
                .apply(&increment, &conformance::meta(epoch))
                .expect("it is applied");
        }
        drop(database);
        let lost = disk.lose_power(&Seed::new(3));
        assert!((1..=UNSYNCED).contains(&lost), "{lost}");
        let database = opened(&disk);
        let epoch = 20 - lost as u64;
        assert_eq!(database.meta().expect("metadata"), Some(conformance::meta(epoch)));
        let mut value = Vec::new();
        assert!(database.get(conformance::PLAIN, b"key", &mut value).expect("a value"));
        assert_eq!(value, epoch.to_string().as_bytes());
    }

    #[test]
    fn a_full_disk_takes_nothing_and_what_is_there_can_be_read() {
        let disk = SimulatedDisk::default();
        let database = opened(&disk);
        disk.set_full(true);
        let applied = database.apply(&conformance::increment(&[]), &conformance::meta(1));
        assert!(matches!(applied, Err(StateError::DiskFull { .. })));
        assert_eq!(database.meta().expect("metadata"), None);
        disk.set_full(false);
        database
            .apply(&conformance::increment(&[]), &conformance::meta(1))
            .expect("there is room again");
    }

    #[test]
    fn a_database_is_open_once() {
        let disk = SimulatedDisk::default();
        let database = opened(&disk);
        let task = TaskId {
            sub_topology: 0,
            partition: 0,
        };
        let again = disk.open(task, &conformance::stores());
        assert!(matches!(again.err(), Some(StateError::Locked { .. })));
        drop(database);
        opened(&disk);
    }
}
