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
use crate::state::entry_copies::{EntryCheckpoint, EntryInstallation, Place, Unfinished};
use crate::state::{
    Checkpoint, Installation, SortedIncrement, StateBackend, StateError, StateMeta, StateResult, StoreSpec,
};
use crate::worker::StateProvider;

use super::lifeline::Lifeline;
use super::seed::Seed;

/// Batches of a database that a power failure may take; older ones were synced.
const UNSYNCED: usize = 6;

/// A file of a copy holds about four entries, so that copies of small databases have files in common and others that differ.
const CHUNK_BYTES: u32 = 160;

/// See the [module documentation](self).
#[derive(Debug, Default)]
pub(super) struct SimulatedDisk {
    site: Arc<Site>,
    /// Files of databases that are being put together; none of them is synced.
    unfinished: Unfinished,
}

/// What open databases, and those that are to be, refer to.
#[derive(Debug, Default)]
struct Site {
    full: AtomicBool,
    lifeline: Arc<Lifeline>,
    databases: Mutex<BTreeMap<TaskId, Arc<Database>>>,
    open: Mutex<BTreeMap<TaskId, Weak<Handle>>>,
}

impl Site {
    fn databases(&self) -> MutexGuard<'_, BTreeMap<TaskId, Arc<Database>>> {
        self.databases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, task: TaskId) -> StateResult<()> {
        match self.full.load(Ordering::SeqCst) || !self.lifeline.lives_to_call() {
            true => Err(StateError::DiskFull { path: path(task) }),
            false => Ok(()),
        }
    }

    /// A process that has ended changes nothing.
    fn lives_to_call(&self, task: TaskId) -> StateResult<()> {
        match self.lifeline.lives_to_call() {
            true => Ok(()),
            false => Err(StateError::DiskFull { path: path(task) }),
        }
    }

    /// Opens what `database` answers with.
    fn open(
        self: &Arc<Self>,
        task: TaskId,
        database: impl FnOnce(&mut BTreeMap<TaskId, Arc<Database>>) -> Arc<Database>,
    ) -> StateResult<Arc<Handle>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.get(&task).is_some_and(|handle| handle.strong_count() > 0) {
            return Err(StateError::Locked { path: path(task) });
        }
        let handle = Arc::new(Handle {
            task,
            site: Arc::clone(self),
            database: database(&mut self.databases()),
        });
        open.insert(task, Arc::downgrade(&handle));
        Ok(handle)
    }
}

/// What errors call the database of a task.
fn path(task: TaskId) -> PathBuf {
    PathBuf::from(task.to_string())
}

impl SimulatedDisk {
    /// The disk of a machine whose process lives as long as `lifeline` says.
    pub(super) fn new(lifeline: Arc<Lifeline>) -> Self {
        Self {
            site: Arc::new(Site {
                lifeline,
                ..Site::default()
            }),
            ..Self::default()
        }
    }

    fn databases(&self) -> MutexGuard<'_, BTreeMap<TaskId, Arc<Database>>> {
        self.site.databases()
    }

    /// From now on writing fails, or no more.
    pub(super) fn set_full(&self, full: bool) {
        self.site.full.store(full, Ordering::SeqCst);
    }

    /// Everything is gone.
    pub(super) fn wipe(&self) {
        self.databases().clear();
        self.unfinished.clear();
    }

    /// The power fails: each database loses some of its last batches, and half of the files go of each that was being put
    /// together. Answers how many batches in all.
    pub(super) fn lose_power(&self, seed: &Seed) -> usize {
        self.unfinished.lose(&|| seed.once_in(2));
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
        let handle = self.site.open(task, |databases| {
            let database = databases.entry(task);
            Arc::clone(database.or_insert_with(|| Database::new(None, vec![Entries::default(); stores.len()])))
        })?;
        if handle.meta()?.is_some() {
            self.unfinished.discard(task);
        }
        Ok(handle)
    }

    fn clear(&self, task: TaskId) -> StateResult<()> {
        self.site.lives_to_call(task)?;
        if !self.unfinished.discard(task) {
            return Err(StateError::Locked { path: path(task) });
        }
        self.databases().remove(&task);
        Ok(())
    }

    fn install(&self, task: TaskId, stores: &[StoreSpec]) -> StateResult<Box<dyn Installation>> {
        let former = self.databases().get(&task).cloned();
        let former = match former.as_ref().map(|former| former.read()) {
            Some(former) if former.meta.is_some() => Some(former.copy(task)?),
            _ => None,
        };
        let site = Arc::clone(&self.site);
        let place = Box::new(DiskPlace { task, site });
        let begun = EntryInstallation::begin((task, &path(task)), &self.unfinished, former, stores.len(), place)?;
        Ok(Box::new(begun))
    }
}

/// Where the database of a task lies.
struct DiskPlace {
    task: TaskId,
    site: Arc<Site>,
}

impl Place for DiskPlace {
    fn admit(&self) -> StateResult<()> {
        self.site.admit(self.task)
    }

    fn replace(self: Box<Self>, meta: StateMeta, stores: Vec<Entries>) -> StateResult<Arc<dyn StateBackend>> {
        let handle = self.site.open(self.task, |databases| {
            let database = Database::new(Some(meta), stores);
            databases.insert(self.task, Arc::clone(&database));
            database
        })?;
        Ok(handle)
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
    fn new(meta: Option<StateMeta>, stores: Vec<Entries>) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Contents {
            stores,
            meta,
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

    fn copy(&self, task: TaskId) -> StateResult<EntryCheckpoint> {
        EntryCheckpoint::of(&path(task), &self.stores, self.meta.as_ref(), CHUNK_BYTES)
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
    task: TaskId,
    site: Arc<Site>,
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
        self.site.admit(self.task)?;
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

    fn checkpoint(&self) -> StateResult<Box<dyn Checkpoint>> {
        self.site.admit(self.task)?;
        Ok(Box::new(self.database.read().copy(self.task)?))
    }

    fn size_bytes(&self) -> u64 {
        entries::size_bytes(&self.database.read().stores)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::state::conformance::{self, copies};

    impl copies::Databases for SimulatedDisk {
        fn open(&self, task: TaskId) -> StateResult<Arc<dyn StateBackend>> {
            StateProvider::open(self, task, &conformance::stores())
        }

        fn clear(&self, task: TaskId) -> StateResult<()> {
            StateProvider::clear(self, task)
        }

        fn install(&self, task: TaskId) -> StateResult<Box<dyn Installation>> {
            StateProvider::install(self, task, &conformance::stores())
        }
    }

    #[test]
    fn copies_on_a_simulated_disk_conform() {
        copies::run(&|| Box::new(SimulatedDisk::default()));
    }

    const TASK: TaskId = TaskId {
        sub_topology: 0,
        partition: 0,
    };

    fn begun(disk: &SimulatedDisk) -> Box<dyn Installation> {
        let begun = StateProvider::install(disk, TASK, &conformance::stores());
        begun.expect("an installation begins")
    }

    #[test]
    fn a_full_disk_takes_no_copy_and_no_part_of_one() {
        let disk = SimulatedDisk::default();
        let database = opened(&disk);
        database
            .apply(&conformance::increment(&[]), &conformance::meta(1))
            .expect("it is applied");
        let mut installation = begun(&disk);
        disk.set_full(true);
        let copied = database.checkpoint().err();
        assert!(matches!(copied, Some(StateError::DiskFull { .. })), "{copied:?}");
        let written = installation.write("head", 0, b"anything");
        assert!(matches!(written, Err(StateError::DiskFull { .. })), "{written:?}");
        let finished = installation.finish(&[]).err();
        assert!(matches!(finished, Some(StateError::DiskFull { .. })), "{finished:?}");
    }

    #[test]
    fn a_power_failure_takes_whole_files_of_what_is_being_put_together() {
        let disk = SimulatedDisk::default();
        let mut installation = begun(&disk);
        let names: Vec<String> = (0..40).map(|number| number.to_string()).collect();
        for name in &names {
            installation.write(name, 0, name.as_bytes()).expect("it is written");
        }
        drop(installation);
        disk.lose_power(&Seed::new(3));
        let installation = begun(&disk);
        let sizes = names.iter().map(|name| installation.present(name).expect("it answers"));
        let left: Vec<u64> = sizes.flatten().collect();
        assert!((5..35).contains(&left.len()), "{} files", left.len());
        assert!(left.iter().all(|bytes| *bytes > 0));
        drop(installation);
        disk.wipe();
        assert!(
            names
                .iter()
                .all(|name| begun(&disk).present(name).expect("it answers").is_none())
        );
    }

    fn opened(disk: &SimulatedDisk) -> Arc<dyn StateBackend> {
        StateProvider::open(disk, TASK, &conformance::stores()).expect("it can be opened")
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
        let again = StateProvider::open(&disk, TASK, &conformance::stores());
        assert!(matches!(again.err(), Some(StateError::Locked { .. })));
        drop(database);
        opened(&disk);
    }
}
