//! A task's state at one epoch, to be looked at: of a repository, or of the disk of an instance.

use std::path::Path;
use std::sync::Arc;

use crate::durability::snapshot::Manifest;
use crate::ids::{StoreId, TaskId};
use crate::state::{RocksBackend, RocksShared, StateBackend, StateMeta, StateResult, StoreSpec};
use crate::worker::{SnapshotError, StateProvider, rebuild};

use super::catalogue::Catalogue;
use super::chain::Branch;
use super::scratch::Scratch;
use super::{OfflineError, Progress, Unit};

const BLOCK_CACHE_BYTES: usize = 8 << 20;
const WRITE_BUFFER_BYTES: usize = 8 << 20;
/// Rows are read in pages of so many, and of about so many bytes.
const PAGE_ROWS: usize = 1_024;
const PAGE_BYTES: usize = 1 << 20;

/// A task's state at one epoch, to be looked at.
pub struct View {
    backend: Arc<dyn StateBackend>,
    /// The task.
    pub task: TaskId,
    /// Its stores, in order of their ids.
    pub stores: Vec<StoreSpec>,
    /// What the state is.
    pub meta: StateMeta,
    /// Where it is from, for people.
    pub from: String,
    /// After the database, which lies in it.
    _scratch: Option<Arc<Scratch>>,
}

impl View {
    /// Puts together the state that `base` and the increments of `branch` are, with the code that restores in production.
    ///
    /// # Errors
    /// What is missing or damaged, by name.
    pub fn of_repository(
        catalogue: &Catalogue,
        base: &Manifest,
        branch: &Branch,
        scratch: &Arc<Scratch>,
        progress: &dyn Progress,
    ) -> Result<Self, OfflineError> {
        let databases = scratch.states.databases(&base.backend)?;
        let backend = Self::build(catalogue, base, branch, &*databases, progress)?;
        let meta = backend.meta()?.ok_or(SnapshotError::Cancelled)?;
        Ok(Self {
            from: format!("{}, base snapshot {}", catalogue.root(), base.id),
            task: base.task,
            stores: base.stores.clone(),
            meta,
            backend,
            _scratch: Some(Arc::clone(scratch)),
        })
    }

    fn build(
        catalogue: &Catalogue,
        base: &Manifest,
        branch: &Branch,
        databases: &dyn StateProvider,
        progress: &dyn Progress,
    ) -> Result<Arc<dyn StateBackend>, OfflineError> {
        databases.clear(base.task)?;
        let installation = databases.install(base.task, &base.stores)?;
        progress.begin(&format!("restoring task {}", base.task), base.bytes(), Unit::Bytes);
        let mut advance = |bytes| progress.advance(bytes);
        let backend = rebuild(&*catalogue.store, base, &branch.increments, installation, &mut advance);
        progress.end();
        Ok(backend?)
    }

    /// Opens the database of a task on the disk of an instance, which may run: what is there now is seen. `directory` is the instance's
    /// `state.dir`, or the application's folder in it.
    ///
    /// # Errors
    /// As the database says.
    pub fn of_directory(directory: &Path, application: Option<&str>, task: TaskId) -> Result<Self, OfflineError> {
        let inside = application.map(|application| directory.join(application).join(task.to_string()));
        let path = inside
            .filter(|inside| inside.is_dir())
            .unwrap_or_else(|| directory.join(task.to_string()));
        let shared = RocksShared::new(BLOCK_CACHE_BYTES, WRITE_BUFFER_BYTES);
        let stores = RocksBackend::stores(&path, &shared)?;
        let backend: Arc<dyn StateBackend> = Arc::new(RocksBackend::open_read_only(&path, &stores, &shared)?);
        let Some(meta) = backend.meta()? else {
            return Err(OfflineError::Unknown {
                root: path.display().to_string(),
                what: format!("committed state of task {task}"),
                there: "a database to which nothing was ever applied".to_owned(),
            });
        };
        Ok(Self {
            from: path.display().to_string(),
            task,
            stores,
            meta,
            backend,
            _scratch: None,
        })
    }

    /// A database that was put together in `scratch`.
    pub(super) fn of_database(
        backend: Arc<dyn StateBackend>,
        task: TaskId,
        stores: Vec<StoreSpec>,
        meta: StateMeta,
        from: String,
        scratch: &Arc<Scratch>,
    ) -> Self {
        Self {
            backend,
            task,
            stores,
            meta,
            from,
            _scratch: Some(Arc::clone(scratch)),
        }
    }

    /// One of its stores.
    ///
    /// # Errors
    /// [`OfflineError::Unknown`] with those there are.
    pub fn store(&self, name: &str) -> Result<(StoreId, &StoreSpec), OfflineError> {
        let at = self.stores.iter().position(|store| store.name == name);
        let names: Vec<&str> = self.stores.iter().map(|store| &store.name[..]).collect();
        let at = at.ok_or_else(|| OfflineError::Unknown {
            root: self.from.clone(),
            what: format!("store {name:?} of task {}", self.task),
            there: names.join(", "),
        })?;
        Ok((StoreId(at as u16), &self.stores[at]))
    }

    /// The value of a key.
    ///
    /// # Errors
    /// As the database says.
    pub fn get(&self, store: StoreId, key: &[u8]) -> Result<Option<Vec<u8>>, OfflineError> {
        let mut value = Vec::new();
        Ok(self.backend.get(store, key, &mut value)?.then_some(value))
    }

    /// The rows of a store from `from` to before `to` (empty: to the end), in order of their keys.
    pub fn rows(&self, store: StoreId, from: &[u8], to: &[u8]) -> Rows<'_> {
        Rows {
            backend: &*self.backend,
            store,
            from: Some(from.to_vec()),
            to: to.to_vec(),
            page: Vec::new().into_iter(),
        }
    }
}

/// A row: key and value as they are stored.
pub type Row = (Vec<u8>, Vec<u8>);

/// Rows of a store, read page by page.
pub struct Rows<'a> {
    backend: &'a dyn StateBackend,
    store: StoreId,
    /// Where the next page begins; `None` where there is none.
    from: Option<Vec<u8>>,
    to: Vec<u8>,
    page: std::vec::IntoIter<Row>,
}

impl Rows<'_> {
    fn turn(&mut self) -> StateResult<()> {
        let Some(from) = self.from.take() else { return Ok(()) };
        let (mut page, mut bytes) = (Vec::new(), 0);
        self.backend.scan(self.store, &from, &self.to, &mut |key, value| {
            bytes += key.len() + value.len();
            page.push((key.to_vec(), value.to_vec()));
            page.len() < PAGE_ROWS && bytes < PAGE_BYTES
        })?;
        // The least key after the last one.
        self.from = page.last().map(|(last, _)| [&last[..], &[0]].concat());
        self.page = page.into_iter();
        Ok(())
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, OfflineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(row) = self.page.next() {
            return Some(Ok(row));
        }
        match self.turn() {
            Ok(()) => self.page.next().map(Ok),
            Err(error) => Some(Err(error.into())),
        }
    }
}
