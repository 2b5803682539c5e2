//! Bringing a task's state from the object store into a database on this machine.

use std::sync::Arc;

use crate::blob::BlobStore;
use crate::durability::savepoint::{BACKEND_CANONICAL, Chunk};
use crate::durability::snapshot::{ContentHash, ContentHasher, StoredFile};
use crate::ids::{StoreId, TaskId};
use crate::instance::ScratchStates;
use crate::state::{Overlay, StateBackend, StateFile, StateMeta, StateResult, StoreSpec};
use crate::worker::StateProvider;

use super::archive::{check_hash, damaged, pieces};
use super::error::SavepointError;
use super::restore::OriginTask;
use super::rows::{Rows, apply, for_each_batch};

/// Where databases are put together that are needed for a moment, one task after the other.
pub trait Scratch {
    /// Databases of a kind, as [`crate::state::Checkpoint::kind`] names it.
    ///
    /// # Errors
    /// As the backend's own; [`crate::state::StateError::Foreign`] for a kind that this version does not know.
    fn databases(&self, kind: &str) -> StateResult<Arc<dyn StateProvider>>;
}

impl Scratch for ScratchStates {
    fn databases(&self, kind: &str) -> StateResult<Arc<dyn StateProvider>> {
        ScratchStates::databases(self, kind)
    }
}

/// A task's state as a database of the kind `kind`, which says of itself what `meta` says.
///
/// # Errors
/// [`SavepointError`], with the object that is missing or damaged.
pub fn load(
    store: &dyn BlobStore,
    origin: &OriginTask,
    scratch: &dyn Scratch,
    kind: &str,
    meta: &StateMeta,
) -> Result<Arc<dyn StateBackend>, SavepointError> {
    let (task, stores) = (origin.task, &origin.stores);
    let target = scratch.databases(kind)?;
    target.clear(task)?;
    let backend = if origin.backend == kind {
        fetch(store, origin, &*target)?
    } else {
        let backend = target.open(task, stores)?;
        let mut number = 0;
        let mut take = |rows: Rows| -> Result<(), SavepointError> {
            number += 1;
            Ok(apply(&backend, &rows, number, meta)?)
        };
        if origin.backend == BACKEND_CANONICAL {
            for file in &origin.files {
                take(chunk(store, origin, file)?)?;
            }
        } else {
            let source = scratch.databases(&origin.backend)?;
            source.clear(task)?;
            let from = fetch(store, origin, &*source)?;
            for index in 0..stores.len() {
                for_each_batch(&from, StoreId(index as u16), &mut take)?;
            }
            drop(from);
            source.clear(task)?;
        }
        backend
    };
    let nothing = Overlay::new(&vec![false; stores.len()]);
    backend.apply(&nothing, meta)?;
    Ok(backend)
}

/// A database of the files of another one.
pub(super) fn fetch(
    store: &dyn BlobStore,
    origin: &OriginTask,
    databases: &dyn StateProvider,
) -> Result<Arc<dyn StateBackend>, SavepointError> {
    let mut installation = databases.install(origin.task, &origin.stores)?;
    for file in &origin.files {
        if installation.present(&file.name)?.is_some() {
            installation.remove(&file.name)?;
        }
        if file.bytes == 0 {
            installation.write(&file.name, 0, &[])?;
        }
        let object = format!("{}{}", origin.folder, file.object);
        let mut hasher = ContentHasher::default();
        let mut written = 0;
        let pieces: Vec<_> = pieces(&object, file).collect();
        for pieces in pieces.chunks(store.concurrency().max(1)) {
            for piece in store.read_parts(pieces) {
                let bytes = piece?;
                hasher.update(&bytes);
                installation.write(&file.name, written, &bytes)?;
                written += bytes.len() as u64;
            }
        }
        check_hash(&object, file, hasher.finish())?;
    }
    let files: Vec<StateFile> = origin.files.iter().map(StoredFile::state_file).collect();
    let backend = installation.finish(&files)?;
    let is_right = |meta: StateMeta| (meta.lineage, meta.epoch) == (origin.lineage, origin.epoch);
    match backend.meta()?.is_some_and(is_right) {
        true => Ok(backend),
        false => Err(damaged(
            &format!("{}{}", origin.folder, origin.task),
            "its files hold another state than it says",
        )),
    }
}

fn chunk(store: &dyn BlobStore, origin: &OriginTask, file: &StoredFile) -> Result<Rows, SavepointError> {
    let object = format!("{}{}", origin.folder, file.object);
    let bytes = store.read(&object)?;
    check_hash(&object, file, ContentHash::of(&bytes))?;
    let chunk = Chunk::read(&bytes, &object)?;
    let is_of = |spec: &StoreSpec| spec.name == chunk.store && spec.codecs == chunk.codecs;
    match origin.stores.iter().position(is_of) {
        Some(index) => Ok(Rows {
            store: StoreId(index as u16),
            rows: chunk.rows,
        }),
        None => Err(damaged(
            &object,
            &format!(
                "it is of a store {} that task {} does not have",
                chunk.store,
                task_name(origin.task)
            ),
        )),
    }
}

fn task_name(task: TaskId) -> String {
    task.to_string()
}
