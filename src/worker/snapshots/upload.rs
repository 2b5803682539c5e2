//! Making a base snapshot: freeze the database, store the files that are not stored yet, read them back, and name them all in a manifest
//! (invariants I10, I13).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::blob::{BlobSource, Part};
use crate::durability::snapshot::{
    Attempt, ContentHash, ContentHasher, IncrementRef, Manifest, SnapshotId, StoredFile, Superseded, files_folder,
    superseded,
};
use crate::ids::{Epoch, Lineage, TaskId, TopicPartition};
use crate::planted::{Bug, planted};
use crate::state::{Checkpoint, StateBackend, StateError, StateFile, StoreSpec};
use crate::time::Millis;

use super::error::SnapshotError;
use super::repository::Repository;
use super::small_files::to_be_merged;

/// An object of small files is written when it is as large as this.
const SHARED_OBJECT_BYTES: usize = 8 << 20;
/// Files are hashed and read back in pieces of this size.
const PIECE_BYTES: u64 = 8 << 20;

/// What is known of the immutable files of one open database: by name and size, the hash.
#[derive(Debug, Default)]
pub struct FileHashes(Mutex<BTreeMap<(String, u64), ContentHash>>);

impl FileHashes {
    fn get(&self, file: &StateFile) -> Option<ContentHash> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(file.name.clone(), file.bytes)).copied()
    }

    /// Takes note of a file whose contents were looked at.
    pub fn add(&self, file: &StateFile, hash: ContentHash) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert((file.name.clone(), file.bytes), hash);
    }

    fn retain(&self, files: &[StateFile]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(name, _), _| files.iter().any(|file| file.name == *name));
    }
}

/// The increments after a task's base, oldest first, and how many there have been since the lineage began. The worker keeps it up to date while a
/// base is made: epochs go on until the database is frozen, and what is frozen has been stored before.
#[derive(Debug, Default)]
pub struct KnownIncrements(Mutex<(Vec<IncrementRef>, u64)>);

impl KnownIncrements {
    /// Takes note of all there are, newest first.
    pub fn set(&self, mut increments: Vec<IncrementRef>, depth: u64) {
        increments.reverse();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (increments, depth);
    }

    /// Takes note of one more.
    pub fn push(&self, increment: IncrementRef) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.0.push(increment);
        known.1 += 1;
    }

    fn get(&self) -> (Vec<IncrementRef>, u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What to make a base snapshot of.
pub struct SnapshotJob {
    pub task: TaskId,
    pub lineage: Lineage,
    pub backend: Arc<dyn StateBackend>,
    pub hashes: Arc<FileHashes>,
    pub stores: Vec<StoreSpec>,
    pub plan: String,
    pub writer: String,
    /// The base that a commit has named.
    pub parent: Option<SnapshotId>,
    /// The increments of the task, as they are when the database is frozen.
    pub increments: Arc<KnownIncrements>,
    pub cancelled: Arc<AtomicBool>,
}

/// A base snapshot that is stored and was read back.
#[derive(Debug)]
pub struct Snapshotted {
    pub id: SnapshotId,
    /// How far the changelogs are not needed any more once it is named: where the oldest retained snapshot was.
    pub trim: BTreeMap<TopicPartition, i64>,
    /// What is not needed any more once it is named.
    pub outdated: Outdated,
    pub uploaded_bytes: u64,
    pub bytes: u64,
}

/// What a base snapshot has outdated.
#[derive(Debug)]
pub struct Outdated {
    /// Older snapshots that do not stay.
    pub superseded: Vec<Superseded>,
    /// The oldest snapshot that stays is of this epoch: no increment up to it is needed.
    pub increments_upto: Epoch,
}

enum Stage {
    Freeze(Arc<dyn StateBackend>),
    Parent,
    Files { next: usize },
    Create,
    Verify,
}

/// One attempt to make a base snapshot.
pub struct Upload {
    repository: Arc<Repository>,
    task: TaskId,
    lineage: Lineage,
    hashes: Arc<FileHashes>,
    cancelled: Arc<AtomicBool>,
    attempt: Attempt,
    began: (Duration, Millis),
    stage: Stage,
    checkpoint: Option<Arc<dyn Checkpoint>>,
    parent_id: Option<SnapshotId>,
    parent: Option<Manifest>,
    /// What is to be written in the end.
    manifest: Option<Manifest>,
    superseded: Vec<Superseded>,
    job: Manifested,
    /// Objects of small files that are not referred to any more: what is needed of them is stored anew.
    merged: BTreeSet<String>,
    /// Small files that wait for their object, and how many objects there were.
    shared: Vec<u8>,
    shared_objects: u32,
    uploaded: u64,
}

/// What goes from the job into the manifest.
struct Manifested {
    stores: Vec<StoreSpec>,
    plan: String,
    writer: String,
    increments: Arc<KnownIncrements>,
}

impl Upload {
    pub fn new(repository: Arc<Repository>, job: SnapshotJob) -> Self {
        let began = (repository.clock.monotonic(), repository.clock.wall_ms());
        Self {
            attempt: repository.attempt(),
            repository,
            task: job.task,
            lineage: job.lineage,
            hashes: job.hashes,
            cancelled: job.cancelled,
            began,
            stage: Stage::Freeze(job.backend),
            checkpoint: None,
            parent_id: job.parent,
            parent: None,
            manifest: None,
            superseded: Vec::new(),
            job: Manifested {
                stores: job.stores,
                plan: job.plan,
                writer: job.writer,
                increments: job.increments,
            },
            merged: BTreeSet::new(),
            shared: Vec::new(),
            shared_objects: 0,
            uploaded: 0,
        }
    }

    /// One step; the outcome once the snapshot is there and was read back. A call that the store does not answer is made again.
    pub fn step(&mut self) -> Option<Result<Snapshotted, SnapshotError>> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Some(Err(SnapshotError::Cancelled));
        }
        if let Err(error) = self.check_age() {
            return Some(Err(error));
        }
        match self.go_on() {
            Ok(outcome) => outcome.map(Ok),
            Err(error @ SnapshotError::NotAsWritten { .. }) => Some(Err(error)),
            Err(error) if error.is_passing() => {
                tracing::debug!(task = %self.task, %error, "a snapshot waits for the store");
                None
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// What was written first may be deleted when the grace is over, since nobody refers to it yet (invariant I11).
    fn check_age(&self) -> Result<(), SnapshotError> {
        let clock = &self.repository.clock;
        let grace = self.repository.settings.retention.grace;
        let wall_ms = u64::try_from(clock.wall_ms().saturating_sub(self.began.1)).unwrap_or(0);
        let age = clock
            .monotonic()
            .saturating_sub(self.began.0)
            .max(Duration::from_millis(wall_ms));
        match age >= grace / 2 {
            true => Err(SnapshotError::TookTooLong {
                grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
            }),
            false => Ok(()),
        }
    }

    fn go_on(&mut self) -> Result<Option<Snapshotted>, SnapshotError> {
        match &self.stage {
            Stage::Freeze(backend) => {
                self.checkpoint = Some(Arc::from(backend.checkpoint()?));
                self.stage = Stage::Parent;
            }
            Stage::Parent => {
                self.read_parent()?;
                self.begin_manifest()?;
                self.choose_merged()?;
                self.stage = Stage::Files { next: 0 };
            }
            Stage::Files { next } => {
                let next = *next;
                self.stage = match self.store_file(next)? {
                    true => Stage::Files { next: next + 1 },
                    false => Stage::Create,
                };
            }
            Stage::Create => {
                let manifest = self.manifest()?;
                self.repository.store.create(&manifest.object(), &manifest.to_json())?;
                self.stage = Stage::Verify;
            }
            Stage::Verify => return self.verify().map(Some),
        }
        Ok(None)
    }

    fn manifest(&self) -> Result<&Manifest, SnapshotError> {
        self.manifest.as_ref().ok_or(SnapshotError::Cancelled)
    }

    /// Without a parent that can be read everything is stored anew.
    fn read_parent(&mut self) -> Result<(), SnapshotError> {
        let Some(id) = self.parent_id else { return Ok(()) };
        match self.repository.manifest(self.task, id) {
            Ok(manifest) => self.parent = Some(manifest),
            Err(error) if error.is_damage() => {
                tracing::warn!(task = %self.task, %error, "the last snapshot cannot be built upon; everything is stored anew");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn begin_manifest(&mut self) -> Result<(), SnapshotError> {
        let Some(checkpoint) = &self.checkpoint else {
            return Err(SnapshotError::Cancelled);
        };
        let meta = checkpoint.meta().clone();
        if meta.lineage != self.lineage {
            // The task was opened anew meanwhile.
            return Err(SnapshotError::Cancelled);
        }
        self.hashes.retain(checkpoint.files());
        let made_ms = self.repository.clock.wall_ms();
        let bases: Vec<_> = self.parent.iter().flat_map(Manifest::retained).collect();
        let epoch = meta.epoch;
        let (known, depth) = self.job.increments.get();
        let (held, later): (Vec<_>, Vec<_>) = known.into_iter().rev().partition(|increment| increment.epoch <= epoch);
        let id = SnapshotId {
            epoch,
            attempt: self.attempt,
        };
        let history = self.repository.settings.retention.history(&bases, made_ms);
        self.superseded = superseded(id, &bases, &history);
        self.manifest = Some(Manifest {
            task: self.task,
            id,
            meta,
            plan: self.job.plan.clone(),
            stores: self.job.stores.clone(),
            backend: checkpoint.kind().to_owned(),
            writer: self.job.writer.clone(),
            made_ms,
            files: Vec::new(),
            history,
            increments: held,
            depth: depth.saturating_sub(later.len() as u64),
        });
        Ok(())
    }

    /// Finds out which small files are stored anew although they are stored.
    fn choose_merged(&mut self) -> Result<(), SnapshotError> {
        let Some(checkpoint) = self.checkpoint.clone() else {
            return Err(SnapshotError::Cancelled);
        };
        let mut needed: BTreeMap<String, u64> = BTreeMap::new();
        for (index, file) in checkpoint.files().iter().enumerate() {
            if file.bytes < self.repository.settings.small_file_bytes {
                let hash = self.hash_of(&checkpoint, index)?;
                if let Some(stored) = self.stored_by_parent(file, hash) {
                    *needed.entry(stored.object).or_default() += file.bytes;
                }
            }
        }
        self.merged = to_be_merged(needed);
        Ok(())
    }

    /// Stores one file, or finds that it is stored; false if there is none of this number and what was collected is stored, too.
    fn store_file(&mut self, index: usize) -> Result<bool, SnapshotError> {
        let Some(checkpoint) = self.checkpoint.clone() else {
            return Err(SnapshotError::Cancelled);
        };
        let Some(file) = checkpoint.files().get(index) else {
            self.write_shared()?;
            return Ok(false);
        };
        if self.shared.len() >= SHARED_OBJECT_BYTES {
            self.write_shared()?;
        }
        let hash = self.hash_of(&checkpoint, index)?;
        let stored = self.stored_by_parent(file, hash);
        let stored = match stored.filter(|stored| !self.merged.contains(&stored.object)) {
            Some(stored) => stored,
            None if file.bytes < self.repository.settings.small_file_bytes => self.share(&checkpoint, index, hash)?,
            None => self.upload(&checkpoint, index, hash)?,
        };
        if let Some(manifest) = &mut self.manifest {
            manifest.files.push(stored);
        }
        Ok(true)
    }

    fn hash_of(&self, checkpoint: &Arc<dyn Checkpoint>, index: usize) -> Result<ContentHash, SnapshotError> {
        let file = &checkpoint.files()[index];
        if let Some(known) = self.hashes.get(file).filter(|_| file.immutable) {
            return Ok(known);
        }
        let mut hasher = ContentHasher::default();
        let mut piece = Vec::new();
        for (from, to) in pieces(file.bytes) {
            piece.resize((to - from) as usize, 0);
            checkpoint.read(index, from, &mut piece)?;
            hasher.update(&piece);
        }
        let hash = hasher.finish();
        if file.immutable {
            self.hashes.add(file, hash);
        }
        Ok(hash)
    }

    /// A retained manifest has the same bytes: they are not stored twice. Never because an object of that name exists (ADR 9).
    fn stored_by_parent(&self, file: &StateFile, hash: ContentHash) -> Option<StoredFile> {
        let parent = self.parent.as_ref()?;
        let same = parent
            .files
            .iter()
            .find(|stored| stored.hash == hash && stored.bytes == file.bytes)?;
        Some(StoredFile {
            name: file.name.clone(),
            immutable: file.immutable,
            ..same.clone()
        })
    }

    fn share(
        &mut self,
        checkpoint: &Arc<dyn Checkpoint>,
        index: usize,
        hash: ContentHash,
    ) -> Result<StoredFile, SnapshotError> {
        let file = &checkpoint.files()[index];
        let mut bytes = vec![0; file.bytes as usize];
        checkpoint.read(index, 0, &mut bytes)?;
        let offset = self.shared.len() as u64;
        self.shared.extend_from_slice(&bytes);
        Ok(StoredFile {
            name: file.name.clone(),
            bytes: file.bytes,
            immutable: file.immutable,
            hash,
            object: self.shared_object(),
            offset,
        })
    }

    fn shared_object(&self) -> String {
        format!(
            "{}{}-{}.pack",
            files_folder(self.task),
            self.attempt,
            self.shared_objects
        )
    }

    fn write_shared(&mut self) -> Result<(), SnapshotError> {
        if self.shared.is_empty() {
            return Ok(());
        }
        let object = self.shared_object();
        self.repository.store.create(&object, &self.shared)?;
        if self.repository.store.read(&object)? != self.shared {
            return Err(SnapshotError::NotAsWritten { object });
        }
        self.uploaded += self.shared.len() as u64;
        self.shared.clear();
        self.shared_objects += 1;
        Ok(())
    }

    fn upload(
        &mut self,
        checkpoint: &Arc<dyn Checkpoint>,
        index: usize,
        hash: ContentHash,
    ) -> Result<StoredFile, SnapshotError> {
        let file = &checkpoint.files()[index];
        let object = format!("{}{}-{}.sst", files_folder(self.task), hash.short(), self.attempt);
        let source = FileSource {
            checkpoint: Arc::clone(checkpoint),
            index,
        };
        self.repository.store.upload(&object, &source)?;
        self.check_stored(&object, file.bytes, hash)?;
        self.uploaded += file.bytes;
        Ok(StoredFile {
            name: file.name.clone(),
            bytes: file.bytes,
            immutable: file.immutable,
            hash,
            object,
            offset: 0,
        })
    }

    /// Reads an object back.
    fn check_stored(&self, object: &str, bytes: u64, hash: ContentHash) -> Result<(), SnapshotError> {
        let store = &self.repository.store;
        let mut hasher = ContentHasher::default();
        let pieces: Vec<_> = pieces(bytes).collect();
        for pieces in pieces.chunks(store.concurrency().max(1)) {
            let parts = pieces.iter().map(|(from, to)| Part {
                name: object.to_owned(),
                range: *from..*to,
            });
            for piece in store.read_parts(&parts.collect::<Vec<_>>()) {
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

    fn verify(&mut self) -> Result<Snapshotted, SnapshotError> {
        let manifest = self.manifest()?;
        let object = manifest.object();
        if self.repository.store.read(&object)? != manifest.to_json() {
            return Err(SnapshotError::NotAsWritten { object });
        }
        Ok(Snapshotted {
            id: manifest.id,
            trim: self.trim(manifest)?,
            outdated: Outdated {
                superseded: self.superseded.clone(),
                increments_upto: manifest
                    .history
                    .last()
                    .map_or(manifest.id.epoch, |oldest| oldest.id.epoch),
            },
            uploaded_bytes: self.uploaded,
            bytes: manifest.bytes(),
        })
    }

    fn trim(&self, manifest: &Manifest) -> Result<BTreeMap<TopicPartition, i64>, SnapshotError> {
        let Some(oldest) = manifest.history.last().filter(|_| !planted(Bug::TrimToNewest)) else {
            return Ok(manifest.meta.changelog.clone());
        };
        match self.repository.manifest(self.task, oldest.id) {
            Ok(oldest) => Ok(oldest.meta.changelog),
            // Nothing is trimmed as long as it is not known how far that would be right (invariant I12).
            Err(error) if error.is_damage() => Ok(BTreeMap::new()),
            Err(error) => Err(error),
        }
    }
}

/// Pieces of so many bytes.
fn pieces(bytes: u64) -> impl Iterator<Item = (u64, u64)> {
    let count = bytes.div_ceil(PIECE_BYTES);
    (0..count).map(move |piece| (piece * PIECE_BYTES, ((piece + 1) * PIECE_BYTES).min(bytes)))
}

struct FileSource {
    checkpoint: Arc<dyn Checkpoint>,
    index: usize,
}

impl BlobSource for FileSource {
    fn bytes(&self) -> u64 {
        self.checkpoint.files()[self.index].bytes
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), String> {
        let read = self.checkpoint.read(self.index, offset, into);
        read.map_err(|error: StateError| error.to_string())
    }
}
