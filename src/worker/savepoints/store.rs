//! Storing the frozen copy of a task, reading it back, and saying what is stored (invariants I2, I10).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::blob::{BlobError, BlobSource, Part as Range};
use crate::durability::savepoint::{BACKEND_NONE, Part, Request};
use crate::durability::snapshot::{Attempt, ContentHash, ContentHasher, StoredFile};
use crate::planted::{Bug, planted};
use crate::state::Checkpoint;

use super::super::snapshots::{Repository, SnapshotError};
use super::confirm::Cut;
use super::freeze::FrozenTask;

/// An object of small files is written when it is as large as this.
const SHARED_OBJECT_BYTES: usize = 8 << 20;
/// Files are hashed and read back in pieces of this size.
const PIECE_BYTES: u64 = 8 << 20;

/// What is to be stored.
pub struct StoreJob {
    pub repository: Arc<Repository>,
    pub request: Request,
    pub frozen: FrozenTask,
    pub cut: Cut,
    pub writer: String,
    pub cancelled: Arc<AtomicBool>,
}

/// One attempt to store a part.
pub struct StorePart {
    job: StoreJob,
    next: usize,
    files: Vec<StoredFile>,
    /// Small files that wait for their object, and how many objects there were.
    shared: Vec<u8>,
    objects: u32,
    /// In the names of all objects: another owner of the task may be at the same work (invariant I10).
    attempt: Attempt,
}

impl StorePart {
    pub fn new(job: StoreJob) -> Self {
        Self {
            attempt: job.repository.attempt(),
            job,
            next: 0,
            files: Vec::new(),
            shared: Vec::new(),
            objects: 0,
        }
    }

    /// One step; the bytes of the part once it is published. A call that the store does not answer is made again.
    pub fn step(&mut self) -> Option<Result<u64, SnapshotError>> {
        if self.job.cancelled.load(Ordering::Relaxed) {
            return Some(Err(SnapshotError::Cancelled));
        }
        match self.go_on() {
            Ok(None) => None,
            Ok(Some(bytes)) => Some(Ok(bytes)),
            Err(error) if error.is_passing() && !matches!(error, SnapshotError::NotAsWritten { .. }) => None,
            Err(error) => Some(Err(error)),
        }
    }

    fn go_on(&mut self) -> Result<Option<u64>, SnapshotError> {
        let copy = self.job.frozen.copy.clone();
        if let Some(copy) = copy {
            if self.next < copy.files().len() {
                self.store_file(&copy, self.next)?;
                self.next += 1;
                return Ok(None);
            }
            self.write_shared()?;
        }
        let part = self.part(self.files.clone());
        let object = self.job.request.folder().part(part.task);
        let store = &self.job.repository.store;
        match store.create(&object, &part.to_json()) {
            // Another owner of the task has stored the same epoch.
            Err(BlobError::Exists { .. }) => return Ok(Some(0)),
            created => created?,
        }
        match store.read(&object)? == part.to_json() {
            true => Ok(Some(part.bytes())),
            false => Err(SnapshotError::NotAsWritten { object }),
        }
    }

    fn part(&self, files: Vec<StoredFile>) -> Part {
        let FrozenTask { marker, copy, stores } = &self.job.frozen;
        Part {
            task: marker.task,
            lineage: marker.lineage,
            epoch: marker.epoch,
            ended_ms: copy.as_ref().map_or(0, |copy| copy.meta().ended_ms),
            cut: self.job.cut.clone(),
            stores: stores.clone(),
            backend: copy.as_ref().map_or(BACKEND_NONE, |copy| copy.kind()).to_owned(),
            writer: self.job.writer.clone(),
            files,
        }
    }

    fn object(&self, relative: &str) -> String {
        format!("{}{relative}", self.job.request.name.folder())
    }

    fn file_name(&self, suffix: &str) -> String {
        let name = format!("{}-{}.{suffix}", self.attempt, self.objects);
        self.job.request.folder().file(self.job.frozen.marker.task, &name)
    }

    fn store_file(&mut self, copy: &Arc<dyn Checkpoint>, index: usize) -> Result<(), SnapshotError> {
        if self.shared.len() >= SHARED_OBJECT_BYTES {
            self.write_shared()?;
        }
        let file = copy.files()[index].clone();
        let hash = hash_of(copy, index)?;
        let is_small = file.bytes < self.job.repository.settings.small_file_bytes;
        let (object, offset) = match is_small {
            true => {
                let mut bytes = vec![0; file.bytes as usize];
                copy.read(index, 0, &mut bytes)?;
                let offset = self.shared.len() as u64;
                self.shared.extend_from_slice(&bytes);
                (self.file_name("pack"), offset)
            }
            false => {
                self.write_shared()?;
                (self.upload(copy, index, hash)?, 0)
            }
        };
        self.files.push(StoredFile {
            name: file.name,
            bytes: file.bytes,
            immutable: file.immutable,
            hash,
            object,
            offset,
        });
        Ok(())
    }

    fn write_shared(&mut self) -> Result<(), SnapshotError> {
        if self.shared.is_empty() {
            return Ok(());
        }
        let object = self.object(&self.file_name("pack"));
        let store = &self.job.repository.store;
        let created = store.create(&object, &self.shared);
        if planted(Bug::SavepointBeforeUpload) {
            self.shared.clear();
            self.objects += 1;
            return Ok(());
        }
        created?;
        if store.read(&object)? != self.shared {
            return Err(SnapshotError::NotAsWritten { object });
        }
        self.shared.clear();
        self.objects += 1;
        Ok(())
    }

    fn upload(&mut self, copy: &Arc<dyn Checkpoint>, index: usize, hash: ContentHash) -> Result<String, SnapshotError> {
        let relative = self.file_name("sst");
        let object = self.object(&relative);
        let source = FileSource {
            copy: Arc::clone(copy),
            index,
        };
        self.job.repository.store.upload(&object, &source)?;
        self.check_stored(&object, source.bytes(), hash)?;
        self.objects += 1;
        Ok(relative)
    }

    /// Reads an object back.
    fn check_stored(&self, object: &str, bytes: u64, hash: ContentHash) -> Result<(), SnapshotError> {
        let store = &self.job.repository.store;
        let mut hasher = ContentHasher::default();
        let pieces: Vec<_> = pieces(bytes).collect();
        for pieces in pieces.chunks(store.concurrency().max(1)) {
            let ranges = pieces.iter().map(|(from, to)| Range {
                name: object.to_owned(),
                range: *from..*to,
            });
            for piece in store.read_parts(&ranges.collect::<Vec<_>>()) {
                hasher.update(&piece?);
            }
        }
        match hasher.finish() == hash {
            true => Ok(()),
            false => Err(SnapshotError::NotAsWritten {
                object: object.to_owned(),
            }),
        }
    }
}

fn hash_of(copy: &Arc<dyn Checkpoint>, index: usize) -> Result<ContentHash, SnapshotError> {
    let mut hasher = ContentHasher::default();
    let mut piece = Vec::new();
    for (from, to) in pieces(copy.files()[index].bytes) {
        piece.resize((to - from) as usize, 0);
        copy.read(index, from, &mut piece)?;
        hasher.update(&piece);
    }
    Ok(hasher.finish())
}

/// Pieces of so many bytes.
fn pieces(bytes: u64) -> impl Iterator<Item = (u64, u64)> {
    let count = bytes.div_ceil(PIECE_BYTES);
    (0..count).map(move |piece| (piece * PIECE_BYTES, ((piece + 1) * PIECE_BYTES).min(bytes)))
}

struct FileSource {
    copy: Arc<dyn Checkpoint>,
    index: usize,
}

impl BlobSource for FileSource {
    fn bytes(&self) -> u64 {
        self.copy.files()[self.index].bytes
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), String> {
        let read = self.copy.read(self.index, offset, into);
        read.map_err(|error| error.to_string())
    }
}
