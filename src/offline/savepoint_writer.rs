//! Writing a savepoint that no running application has taken: sorted rows of tasks, and in the end the document that makes it one.

use std::sync::Arc;

use crate::blob::BlobStore;
use crate::durability::savepoint::{
    AttemptFolder, BACKEND_CANONICAL, BACKEND_NONE, ChunkWriter, Part, Savepoint, SavepointName,
};
use crate::durability::snapshot::{Attempt, ContentHash, StoredFile};
use crate::ids::TaskId;
use crate::state::StoreSpec;
use crate::worker::SnapshotError;

use super::OfflineError;

/// A savepoint that is being written. It is none before [`SavepointWriter::finish`]: whoever looks for it finds nothing, and a second attempt
/// under its name is refused until what the first has left was removed.
pub struct SavepointWriter {
    store: Arc<dyn BlobStore>,
    name: SavepointName,
    folder: AttemptFolder,
    bytes: u64,
}

impl SavepointWriter {
    /// Begins the savepoint `name`.
    ///
    /// # Errors
    /// [`OfflineError::Taken`] where there is one, [`OfflineError::CutOff`] where an attempt at one was cut off.
    pub fn begin(store: Arc<dyn BlobStore>, name: &SavepointName, attempt: Attempt) -> Result<Self, OfflineError> {
        let there = store.list(&name.folder())?;
        let (root, name_text) = (store.root().to_owned(), name.to_string());
        if there.iter().any(|blob| blob.name == name.document()) {
            return Err(OfflineError::Taken { root, name: name_text });
        }
        if !there.is_empty() {
            let objects = there.len();
            return Err(OfflineError::CutOff {
                root,
                name: name_text,
                objects,
            });
        }
        Ok(Self {
            folder: AttemptFolder::new(name, attempt),
            name: name.clone(),
            store,
            bytes: 0,
        })
    }

    fn create(&mut self, object: &str, bytes: &[u8]) -> Result<(), OfflineError> {
        self.store.create(object, bytes)?;
        if self.store.read(object)? != bytes {
            let object = object.to_owned();
            return Err(SnapshotError::NotAsWritten { object }.into());
        }
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Makes `savepoint` one: everything that it names is stored and was read back.
    ///
    /// # Errors
    /// What the store says; it is none then.
    pub fn finish(mut self, savepoint: &Savepoint) -> Result<u64, OfflineError> {
        self.create(&self.name.document(), &savepoint.to_json())?;
        Ok(self.bytes)
    }
}

/// The rows of one store of one task on their way into chunks, in ascending order of keys.
pub struct StoreWriter {
    task: TaskId,
    at: usize,
    spec: StoreSpec,
    chunk: ChunkWriter,
    files: Vec<StoredFile>,
    /// Rows so far.
    pub rows: u64,
}

impl StoreWriter {
    /// Begins the store number `at` of a task.
    pub fn new(task: TaskId, at: usize, spec: &StoreSpec) -> Self {
        Self {
            task,
            at,
            chunk: ChunkWriter::new(spec),
            spec: spec.clone(),
            files: Vec::new(),
            rows: 0,
        }
    }

    /// Adds the next row.
    ///
    /// # Errors
    /// What the store says.
    pub fn push(&mut self, key: &[u8], value: &[u8], to: &mut SavepointWriter) -> Result<(), OfflineError> {
        self.rows += 1;
        match self.chunk.push(key, value) {
            true => self.flush(to),
            false => Ok(()),
        }
    }

    fn flush(&mut self, to: &mut SavepointWriter) -> Result<(), OfflineError> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::replace(&mut self.chunk, ChunkWriter::new(&self.spec)).finish();
        let name = format!("{}-{}.tgc", self.at, self.files.len());
        let relative = to.folder.file(self.task, &name);
        to.create(&format!("{}{relative}", to.name.folder()), &bytes)?;
        self.files.push(StoredFile {
            name,
            bytes: bytes.len() as u64,
            immutable: true,
            hash: ContentHash::of(&bytes),
            object: relative,
            offset: 0,
        });
        Ok(())
    }

    /// All files of the store.
    ///
    /// # Errors
    /// What the store says.
    pub fn finish(mut self, to: &mut SavepointWriter) -> Result<Vec<StoredFile>, OfflineError> {
        self.flush(to)?;
        Ok(self.files)
    }
}

/// What a part's files are.
pub fn backend(part: &Part) -> &'static str {
    match part.stores.is_empty() {
        true => BACKEND_NONE,
        false => BACKEND_CANONICAL,
    }
}
