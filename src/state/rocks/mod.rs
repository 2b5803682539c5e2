//! State in RocksDB: one database per task, in its own directory.
//!
//! The column family `default` holds what the database says about itself: under the key `layout` the stores it
//! was created with (JSON, written once), under `meta` the [`StateMeta`] of the last increment, which is in the
//! same write batch. Each store has a column family `store.<name>` with keys and values as they are.
//!
//! The write-ahead log is on and never synced (`docs/adr/0003-wal-on-never-synced.md`): a killed process loses
//! nothing that was applied, a machine crash loses a suffix of whole increments.

mod checkpoint;
#[cfg(test)]
mod crash_tests;
mod failure;
mod installation;
#[cfg(test)]
mod installation_tests;
mod lacking;
#[cfg(test)]
mod lacking_history_tests;
#[cfg(test)]
mod lacking_tests;
mod layout;
mod options;
mod replacement;
#[cfg(test)]
mod rewriting_tests;
mod syncing;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rocksdb::{ColumnFamily, DB, DBRawIterator, ErrorKind, FlushOptions, ReadOptions, WriteBatch, WriteOptions};

use self::checkpoint::RocksCheckpoint;
use self::failure::{directory_error, state_error};
use self::installation::RocksInstallation;
use self::lacking::{Lack, Patience};
use self::layout::{Found, Layout, foreign, look_at};
pub use self::options::RocksShared;
use super::meta::MetaError;
use super::{
    Checkpoint, Fetching, Installation, Lacking, SortedIncrement, StateBackend, StateError, StateMeta, StateResult,
    StoreSpec,
};
use crate::ids::StoreId;

/// The column family of metadata; RocksDB always has this one.
const METADATA: &str = rocksdb::DEFAULT_COLUMN_FAMILY_NAME;
const META_KEY: &[u8] = b"meta";
const LAYOUT_KEY: &[u8] = b"layout";
/// How long an increment waits before it looks again whether the database still stalls, and how often.
const STALL_PAUSE: Duration = Duration::from_millis(5);
const MAX_STALL_PAUSES: usize = 6_000;

/// One task's database on disk.
///
/// After [`StateError::DiskFull`] nothing of that increment is written; once there is space again, applying it
/// again succeeds after a few seconds, in which the database recovers by itself. Until then it can be read.
pub struct RocksBackend {
    path: PathBuf,
    db: DB,
    /// `StoreId(i)` is `column_families[i]`.
    column_families: Vec<String>,
    read_options: ReadOptions,
    write_options: WriteOptions,
    read_only: bool,
    /// Where it was opened before all of its files were here.
    lack: Option<Lack>,
}

impl fmt::Debug for RocksBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksBackend")
            .field("path", &self.path)
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}

impl RocksBackend {
    /// Opens the database in `path` for one process alone, and creates it if there is none.
    ///
    /// # Errors
    /// [`StateError::Locked`], [`StateError::Foreign`] if the directory is something else or has other stores than `stores`,
    /// [`StateError::Incomplete`] where it lacks files, [`StateError::Corrupt`], [`StateError::DiskFull`], [`StateError::Io`].
    pub fn open(path: &Path, stores: &[StoreSpec], shared: &RocksShared) -> StateResult<Self> {
        replacement::complete(path)?;
        lacking::refuse(path)?;
        Self::open_with(path, stores, shared, None)
    }

    /// Opens a database that may lack files, for one process alone. Reads wait for what they need of them. It is not compacted until it is
    /// complete.
    ///
    /// # Errors
    /// As [`RocksBackend::open`]; [`StateError::Incomplete`] where one of its files cannot be had.
    pub fn resume(path: &Path, stores: &[StoreSpec], shared: &RocksShared, fetching: Fetching) -> StateResult<Self> {
        replacement::complete(path)?;
        let lack = Lack::of(path, fetching)?;
        Self::open_with(path, stores, shared, lack)
    }

    fn open_with(path: &Path, stores: &[StoreSpec], shared: &RocksShared, lack: Option<Lack>) -> StateResult<Self> {
        let layout = Layout::of(stores);
        let exists = exists_with(&layout, path, shared)?;
        let mut options = shared.database_options();
        options.create_if_missing(!exists);
        options.create_missing_column_families(!exists);
        // Else RocksDB would refuse to open where one of the first files that it looks at is lacking.
        options.set_paranoid_checks(lack.is_none());
        let column_families = column_families(path, stores)?;
        let descriptors = descriptors(&column_families, shared, lack.is_none());
        let db = DB::open_cf_descriptors(&options, path, descriptors)
            .map_err(|error| state_error(path, "opened", &error))?;
        let mut backend = Self::new(path, db, column_families, shared, false);
        if let Some(lack) = lack {
            lack.order_by_level(&backend.db);
            backend.lack = Some(lack);
        }
        if !exists {
            backend.write_layout(&layout)?;
        }
        if backend.meta()?.is_some() {
            replacement::discard_idle(path)?;
        }
        Ok(backend)
    }

    /// Opens the database in `path` to look at, also while another process writes to it. It shows what is there now.
    ///
    /// # Errors
    /// As [`RocksBackend::open`], and [`StateError::Io`] if there is none.
    pub fn open_read_only(path: &Path, stores: &[StoreSpec], shared: &RocksShared) -> StateResult<Self> {
        lacking::refuse(path)?;
        Self::look_into(path, stores, shared, true)
    }

    /// Opens the database in `path` to look at, also where it lacks files; then reads fail that need them.
    fn look_into(path: &Path, stores: &[StoreSpec], shared: &RocksShared, is_complete: bool) -> StateResult<Self> {
        if !exists_with(&Layout::of(stores), path, shared)? {
            return Err(StateError::Io {
                path: path.to_owned(),
                operation: "opened",
                reason: "there is no database, or its creation was cut off".into(),
            });
        }
        let column_families = column_families(path, stores)?;
        let descriptors = descriptors(&column_families, shared, false);
        let mut options = shared.database_options();
        options.set_paranoid_checks(is_complete);
        let db = DB::open_cf_descriptors_read_only(&options, path, descriptors, false)
            .map_err(|error| state_error(path, "opened", &error))?;
        let backend = Self::new(path, db, column_families, shared, true);
        backend.meta()?;
        Ok(backend)
    }

    /// The stores that the database in `path` was created with, in order of their names, for whoever looks at it without a topology. Whether
    /// they are ordered it does not say.
    ///
    /// # Errors
    /// As [`RocksBackend::open_read_only`].
    pub fn stores(path: &Path, shared: &RocksShared) -> StateResult<Vec<StoreSpec>> {
        let stored = match look_at(path)? {
            Found::Database { .. } => stored_layout(path, shared)?,
            Found::Nothing => None,
        };
        let stored = stored.ok_or_else(|| StateError::Io {
            path: path.to_owned(),
            operation: "opened",
            reason: "there is no database, or its creation was cut off".into(),
        })?;
        Layout::stores(path, &stored)
    }

    /// Begins to put a database together that is to replace the one in `path`, or goes on where an attempt was cut off.
    ///
    /// # Errors
    /// [`StateError::Locked`] while another attempt goes on, [`StateError::DiskFull`], [`StateError::Io`].
    pub fn install(path: &Path, stores: &[StoreSpec], shared: &RocksShared) -> StateResult<Box<dyn Installation>> {
        Ok(Box::new(RocksInstallation::begin(path, stores, shared)?))
    }

    /// Removes the database in `path`, if there is one, its directory, and what was to replace it.
    ///
    /// # Errors
    /// [`StateError::Locked`] if it is open, or about to be replaced, [`StateError::Foreign`] if the directory is something else,
    /// [`StateError::Io`].
    pub fn destroy(path: &Path) -> StateResult<()> {
        replacement::discard_with(path, || Self::destroy_database(path))
    }

    fn destroy_database(path: &Path) -> StateResult<()> {
        match look_at(path) {
            Ok(_) | Err(StateError::Corrupt { .. }) if !path.exists() => return Ok(()),
            Ok(_) | Err(StateError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
        // This takes the lock, and keeps its hands off what it does not know.
        DB::destroy(&rocksdb::Options::default(), path).map_err(|error| state_error(path, "removed", &error))?;
        if path.exists() {
            std::fs::remove_dir_all(path).map_err(|error| directory_error(path, "removed", &error))?;
        }
        Ok(())
    }

    fn new(path: &Path, db: DB, column_families: Vec<String>, shared: &RocksShared, read_only: bool) -> Self {
        let mut write_options = WriteOptions::default();
        // A stalled write would wait for ever where the disk is full; `wait_out_stall` waits instead.
        write_options.set_no_slowdown(true);
        write_options.disable_wal(!shared.log);
        Self {
            path: path.to_owned(),
            db,
            column_families,
            read_options: ReadOptions::default(),
            write_options,
            read_only,
            lack: None,
        }
    }

    /// Brings the file for want of which a read has failed, so that it can be tried again.
    ///
    /// # Errors
    /// What is wrong if it was something else; those of [`Lack::bring_what`].
    #[cold]
    fn bring(&self, error: &rocksdb::Error, patience: &mut Patience) -> StateResult<()> {
        match &self.lack {
            Some(lack) if lack.bring_what(error.as_ref(), patience)? => Ok(()),
            _ => Err(self.error("read", error)),
        }
    }

    /// Makes a database that lacks nothing any more one as any other: from now on it is compacted.
    fn end_lack(&self) -> StateResult<()> {
        let mut first_level = std::collections::BTreeMap::new();
        for file in self.db.live_files().map_err(|error| self.error("read", &error))? {
            *first_level.entry(file.column_family_name).or_insert(0) += usize::from(file.level == 0);
        }
        let names = self.column_families.iter().map(String::as_str).chain([METADATA]);
        for (name, handle) in names.filter_map(|name| Some((name, self.db.cf_handle(name)?))) {
            // What was written meanwhile lies in the first level, and no write has to wait until that was compacted.
            let there = first_level.get(name).copied().unwrap_or(0);
            let slowdown = (there + options::SLOWDOWN_FILES).to_string();
            let stop = (there + options::STOP_FILES).to_string();
            let compacted = [
                ("level0_slowdown_writes_trigger", &*slowdown),
                ("level0_stop_writes_trigger", &*stop),
                ("disable_auto_compactions", "false"),
            ];
            let set = self.db.set_options_cf(handle, &compacted);
            set.map_err(|error| self.error("opened", &error))?;
        }
        Ok(())
    }

    /// The last step of a creation. Synced, so that a database without it holds nothing, ever.
    fn write_layout(&self, layout: &Layout) -> StateResult<()> {
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        let written = self.db.put_opt(LAYOUT_KEY, layout.encode(), &synced);
        written.map_err(|error| self.error("written", &error))
    }

    fn read_metadata(&self, key: &[u8]) -> StateResult<Option<Vec<u8>>> {
        let mut patience = Patience::default();
        loop {
            match self.db.get(key) {
                Ok(value) => return Ok(value),
                Err(error) => self.bring(&error, &mut patience)?,
            }
        }
    }

    /// One look at a range; the key that was visited last is noted in `last`, where a second look may be needed.
    fn scan_once(
        &self,
        column_family: &ColumnFamily,
        (from, to): (&[u8], &[u8]),
        last: &mut Option<Vec<u8>>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), rocksdb::Error> {
        let mut options = ReadOptions::default();
        if !to.is_empty() {
            options.set_iterate_upper_bound(to);
        }
        let mut entries: DBRawIterator<'_> = self.db.raw_iterator_cf_opt(column_family, options);
        entries.seek(from);
        while let Some((key, value)) = entries.item() {
            if self.lack.is_some() {
                let last = last.get_or_insert_default();
                last.clear();
                last.extend_from_slice(key);
            }
            if !visit(key, value) {
                return Ok(());
            }
            entries.next();
        }
        entries.status()
    }

    fn error(&self, operation: &'static str, error: &rocksdb::Error) -> StateError {
        state_error(&self.path, operation, error)
    }

    fn column_family(&self, store: StoreId) -> StateResult<&ColumnFamily> {
        let name = self.column_families.get(store.0 as usize);
        name.and_then(|name| self.db.cf_handle(name))
            .ok_or_else(|| StateError::Io {
                path: self.path.clone(),
                operation: "used",
                reason: format!("it was opened without a store number {}", store.0),
            })
    }

    /// All stores in order of their ids.
    fn store_handles(&self) -> impl Iterator<Item = &ColumnFamily> {
        self.column_families.iter().filter_map(|name| self.db.cf_handle(name))
    }

    /// Waits a little for flushes and compactions to catch up with the writes.
    ///
    /// # Errors
    /// Why they fail, if they do. Asking for a flush is what brings that out.
    #[allow(clippy::disallowed_methods)] // RocksDB offers nothing to wait for that would not wait for ever on a full disk.
    fn wait_out_stall(&self) -> StateResult<()> {
        let mut options = FlushOptions::default();
        options.set_wait(false);
        let metadata = self.db.cf_handle(METADATA);
        let handles: Vec<&ColumnFamily> = metadata.into_iter().chain(self.store_handles()).collect();
        match self.db.flush_cfs_opt(&handles, &options) {
            Err(stopped) if stopped.kind() == ErrorKind::TryAgain => std::thread::sleep(STALL_PAUSE),
            flushed => flushed.map_err(|error| self.error("written", &error))?,
        }
        Ok(())
    }

    /// Writes all memtables to files. Increments are applied meanwhile.
    fn flush(&self) -> StateResult<()> {
        let metadata = self.db.cf_handle(METADATA);
        let handles: Vec<&ColumnFamily> = metadata.into_iter().chain(self.store_handles()).collect();
        let flushed = self.db.flush_cfs_opt(&handles, &FlushOptions::default());
        flushed.map_err(|error| self.error("copied", &error))
    }

    fn batch(&self, increment: &dyn SortedIncrement, meta: &StateMeta) -> WriteBatch {
        let handles: Vec<&ColumnFamily> = self.store_handles().collect();
        let mut batch = WriteBatch::default();
        increment.for_each(&mut |store, key, value| {
            let handle = handles[store.0 as usize];
            match value {
                Some(value) => batch.put_cf(handle, key, value),
                None => batch.delete_cf(handle, key),
            }
        });
        batch.put(META_KEY, meta.encode());
        batch
    }
}

impl StateBackend for RocksBackend {
    fn get(&self, store: StoreId, key: &[u8], out: &mut Vec<u8>) -> StateResult<bool> {
        out.clear();
        let column_family = self.column_family(store)?;
        let mut patience = Patience::default();
        loop {
            match self.db.get_pinned_cf_opt(column_family, key, &self.read_options) {
                Ok(value) => {
                    out.extend_from_slice(value.as_deref().unwrap_or_default());
                    return Ok(value.is_some());
                }
                Err(error) => self.bring(&error, &mut patience)?,
            }
        }
    }

    fn scan(
        &self,
        store: StoreId,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> StateResult<()> {
        if !to.is_empty() && from >= to {
            return Ok(());
        }
        let column_family = self.column_family(store)?;
        let (mut from, mut last, mut patience) = (from.to_vec(), None, Patience::default());
        loop {
            match self.scan_once(column_family, (&from, to), &mut last, visit) {
                Ok(()) => return Ok(()),
                Err(error) => self.bring(&error, &mut patience)?,
            }
            // It goes on behind what was visited. Writes of other epochs may have come in between; overlays hide those.
            if let Some(last) = last.take() {
                from = last;
                from.push(0);
                patience = Patience::default();
            }
        }
    }

    fn apply(&self, increment: &dyn SortedIncrement, meta: &StateMeta) -> StateResult<()> {
        meta.assert_follows(self.meta()?.as_ref());
        for _ in 0..MAX_STALL_PAUSES {
            let batch = self.batch(increment, meta);
            match self.db.write_opt(batch, &self.write_options) {
                Err(stalled) if stalled.as_ref().ends_with("Write stall") => self.wait_out_stall()?,
                written => return written.map_err(|error| self.error("written", &error)),
            }
        }
        Err(StateError::Io {
            path: self.path.clone(),
            operation: "written",
            reason: "flushes and compactions do not keep up with the writes".into(),
        })
    }

    fn meta(&self) -> StateResult<Option<StateMeta>> {
        let stored = self.read_metadata(META_KEY)?;
        let meta = stored.map(|bytes| StateMeta::decode(&bytes)).transpose();
        meta.map_err(|error| meta_error(&self.path, &error))
    }

    fn checkpoint(&self) -> StateResult<Box<dyn Checkpoint>> {
        if let Some(lack) = self.lack.as_ref().filter(|lack| !lack.is_over()) {
            return Err(lack.incomplete());
        }
        Ok(Box::new(RocksCheckpoint::of(self)?))
    }

    fn size_bytes(&self) -> u64 {
        let of_store = |handle: &ColumnFamily| -> u64 {
            let property = |name: &str| self.db.property_int_value_cf(handle, name).ok().flatten().unwrap_or(0);
            property("rocksdb.total-sst-files-size") + property("rocksdb.cur-size-all-mem-tables")
        };
        self.store_handles().map(of_store).sum()
    }

    fn lacking(&self) -> Lacking {
        self.lack.as_ref().map(Lack::lacking).unwrap_or_default()
    }

    fn fetch_some(&self) -> StateResult<Lacking> {
        let Some(lack) = &self.lack else {
            return Ok(Lacking::default());
        };
        if lack.lacking().files > 0 {
            lack.fetch_some()?;
        }
        if lack.end()? {
            self.end_lack()?;
        }
        Ok(lack.lacking())
    }

    fn is_given_up(&self) -> bool {
        self.lack.as_ref().is_some_and(Lack::is_given_up)
    }
}

fn meta_error(path: &Path, error: &MetaError) -> StateError {
    let (path, reason) = (path.to_owned(), error.to_string());
    match error {
        MetaError::Version(_) => StateError::Foreign { path, reason },
        MetaError::Damaged(_) => StateError::Corrupt { path, reason },
    }
}

fn column_families(path: &Path, stores: &[StoreSpec]) -> StateResult<Vec<String>> {
    let names: Vec<String> = stores.iter().map(|store| format!("store.{}", store.name)).collect();
    match stores.iter().find(|store| store.name.contains('\0')) {
        None => Ok(names),
        Some(store) => Err(foreign(path, format!("{:?} cannot be the name of a store", store.name))),
    }
}

fn descriptors(
    column_families: &[String],
    shared: &RocksShared,
    is_compacted: bool,
) -> Vec<rocksdb::ColumnFamilyDescriptor> {
    let stores = column_families.iter().map(|name| shared.store(name, is_compacted));
    stores.chain([shared.metadata(is_compacted)]).collect()
}

/// Whether there is a database whose stores are those of `layout`; false if there is none, or its creation was cut off.
///
/// # Errors
/// [`StateError::Foreign`] with the difference, [`StateError::Corrupt`], [`StateError::Io`].
fn exists_with(layout: &Layout, path: &Path, shared: &RocksShared) -> StateResult<bool> {
    let Found::Database { data_files } = look_at(path)? else {
        return Ok(false);
    };
    match stored_layout(path, shared)? {
        Some(stored) => layout.check(path, &stored).map(|()| true),
        None if data_files => Err(StateError::Corrupt {
            path: path.to_owned(),
            reason: "it holds data files but does not say of which stores".into(),
        }),
        None => Ok(false),
    }
}

/// What the database says about its stores, read without touching it; `None` if its creation was cut off.
fn stored_layout(path: &Path, shared: &RocksShared) -> StateResult<Option<Vec<u8>>> {
    let failed = |error| state_error(path, "opened", &error);
    let metadata = [shared.metadata(false)];
    let db = DB::open_cf_descriptors_read_only(&shared.database_options(), path, metadata, false).map_err(failed)?;
    db.get(LAYOUT_KEY).map_err(failed)
}
