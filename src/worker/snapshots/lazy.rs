//! Lazy restore: the files of a base snapshot that come while the task runs already (`docs/adr/0017-lazy-restore.md`).

use std::sync::Arc;
use std::time::Duration;

use crate::blob::Part;
use crate::durability::snapshot::{ContentHasher, StoredFile};
use crate::state::{Fetching, FileSource, LackingFile, NotFetched, StateResult, TakePiece};

use super::super::metrics::WorkerMetrics;
use super::error::SnapshotError;
use super::install::PIECE_BYTES;
use super::read_ahead::{batch, while_reading};
use super::repository::{Repository, damaged};
use super::upload::FileHashes;

/// Whether a task waits for all files of a base snapshot before it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreMode {
    /// It does.
    Full,
    /// It runs as soon as its database can be opened; what it reads comes first.
    Lazy,
}

/// What a database has to keep about a file that it lacks.
pub(super) fn lacking(file: &StoredFile) -> Result<LackingFile, SnapshotError> {
    let origin = serde_json::to_string(file).map_err(|error| damaged(&file.object, &error.to_string()))?;
    Ok(LackingFile {
        name: file.name.clone(),
        bytes: file.bytes,
        origin,
    })
}

/// The repository as the place where files come from that a database lacks.
pub(in crate::worker) struct RepositoryFiles {
    repository: Arc<Repository>,
    hashes: Arc<FileHashes>,
    metrics: Arc<WorkerMetrics>,
}

impl RepositoryFiles {
    /// For one database; what is fetched is entered in `hashes`.
    pub(in crate::worker) fn fetching(
        repository: &Arc<Repository>,
        hashes: &Arc<FileHashes>,
        metrics: &Arc<WorkerMetrics>,
    ) -> Fetching {
        Fetching {
            source: Arc::new(Self {
                repository: Arc::clone(repository),
                hashes: Arc::clone(hashes),
                metrics: Arc::clone(metrics),
            }),
            read_wait: repository.settings.lazy_timeout,
        }
    }

    fn fetch_stored(&self, files: &[StoredFile], take: &mut TakePiece<'_>) -> StateResult<Result<(), SnapshotError>> {
        let pieces: Vec<(usize, u64, u64)> = files
            .iter()
            .enumerate()
            .flat_map(|(index, file)| pieces(index, file))
            .collect();
        let mut hashers: Vec<ContentHasher> = files.iter().map(|_| ContentHasher::default()).collect();
        let store = &*self.repository.store;
        let mut waiting = pieces.chunks(batch(store)).peekable();
        let mut fetched = None;
        while let Some(pieces) = waiting.next() {
            let now = fetched
                .take()
                .unwrap_or_else(|| store.read_parts(&parts(files, pieces)));
            let next = waiting.peek().map(|pieces| parts(files, pieces)).unwrap_or_default();
            let (taken, ahead) = while_reading(store, &next, || {
                pieces.iter().zip(now).try_for_each(|(piece, bytes)| {
                    let (index, offset, size) = *piece;
                    let bytes = match bytes {
                        Ok(bytes) if bytes.len() as u64 == size => bytes,
                        Ok(_) => return Err(Ok(damaged(&files[index].object, "it is shorter than it was written"))),
                        Err(error) => return Err(Ok(error.into())),
                    };
                    take(index, offset, &bytes).map_err(Err)?;
                    hashers[index].update(&bytes);
                    Ok(())
                })
            });
            match taken {
                Ok(()) => fetched = ahead,
                Err(Ok(not_fetched)) => return Ok(Err(not_fetched)),
                Err(Err(not_written)) => return Err(not_written),
            }
        }
        for (file, hasher) in files.iter().zip(hashers) {
            if hasher.finish() != file.hash {
                return Ok(Err(damaged(
                    &file.object,
                    &format!("the checksum of {} differs", file.name),
                )));
            }
            self.hashes.add(&file.state_file(), file.hash);
            self.metrics.restored_bytes.add(file.bytes);
        }
        Ok(Ok(()))
    }
}

fn parts(files: &[StoredFile], pieces: &[(usize, u64, u64)]) -> Vec<Part> {
    let parts = pieces.iter().map(|(index, offset, bytes)| {
        let from = files[*index].offset + offset;
        Part {
            name: files[*index].object.clone(),
            range: from..from + bytes,
        }
    });
    parts.collect()
}

fn pieces(index: usize, file: &StoredFile) -> impl Iterator<Item = (usize, u64, u64)> + use<> {
    let all = file.bytes;
    (0..all.div_ceil(PIECE_BYTES)).map(move |piece| {
        let offset = piece * PIECE_BYTES;
        (index, offset, PIECE_BYTES.min(all - offset))
    })
}

impl FileSource for RepositoryFiles {
    fn fetch(&self, files: &[LackingFile], take: &mut TakePiece<'_>) -> StateResult<Result<(), NotFetched>> {
        let stored: Result<Vec<StoredFile>, _> = files.iter().map(|file| serde_json::from_str(&file.origin)).collect();
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => return Ok(Err(NotFetched::Damaged(error.to_string()))),
        };
        Ok(self
            .fetch_stored(&stored, take)?
            .map_err(|error| match error.is_damage() {
                true => NotFetched::Damaged(error.to_string()),
                // Whatever else it is: the next attempt may have it, and whoever needs the file waits no longer than it is told.
                false => NotFetched::Passing(error.to_string()),
            }))
    }

    fn batch_bytes(&self) -> u64 {
        PIECE_BYTES * self.repository.store.concurrency().max(1) as u64
    }

    fn waited(&self, time: Duration) {
        self.metrics.lazy_read_waits.observe(time);
    }
}
