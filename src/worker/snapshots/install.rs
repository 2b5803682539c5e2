//! Putting a database together from the files of a base snapshot, piece by piece; what is here already is not fetched.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::blob::{BlobStore, Part};
use crate::durability::snapshot::{ContentHash, ContentHasher, Manifest, StoredFile};
use crate::state::{Installation, StateBackend, StateFile};

use super::error::SnapshotError;
use super::repository::damaged;
use super::upload::FileHashes;

/// Files are fetched, and those that are here are read, in pieces of this size.
const PIECE_BYTES: u64 = 8 << 20;

/// A piece of a file that has to be fetched.
struct Piece {
    file: usize,
    offset: u64,
    bytes: u64,
}

/// See the [module documentation](self).
pub(super) struct Install {
    manifest: Manifest,
    installation: Box<dyn Installation>,
    hashes: Arc<FileHashes>,
    /// The next file to be looked for here.
    next: usize,
    missing: VecDeque<Piece>,
    /// The hash of what was fetched of the file under way.
    hasher: ContentHasher,
    passed: u64,
}

impl Install {
    pub(super) fn new(manifest: Manifest, installation: Box<dyn Installation>, hashes: Arc<FileHashes>) -> Self {
        Self {
            manifest,
            installation,
            hashes,
            next: 0,
            missing: VecDeque::new(),
            hasher: ContentHasher::default(),
            passed: 0,
        }
    }

    /// Bytes that are here, of [`Install::total`].
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    pub(super) fn total(&self) -> u64 {
        self.manifest.bytes()
    }

    /// Looks for one file here, or fetches some pieces; true if all files are here.
    pub(super) fn step(&mut self, store: &dyn BlobStore) -> Result<bool, SnapshotError> {
        if self.next < self.manifest.files.len() {
            self.look_for(self.next)?;
            self.next += 1;
            return Ok(false);
        }
        self.fetch(store)?;
        Ok(self.missing.is_empty())
    }

    fn look_for(&mut self, index: usize) -> Result<(), SnapshotError> {
        let file = &self.manifest.files[index];
        match self.installation.present(&file.name)? {
            Some(bytes) if bytes == file.bytes && self.hash_here(file)? == file.hash => {
                self.passed += file.bytes;
                self.note(index);
                return Ok(());
            }
            Some(_) => self.installation.remove(&file.name)?,
            None => {}
        }
        let file = &self.manifest.files[index];
        if file.bytes == 0 {
            self.installation.write(&file.name, 0, &[])?;
        }
        let pieces = (0..file.bytes.div_ceil(PIECE_BYTES)).map(|piece| Piece {
            file: index,
            offset: piece * PIECE_BYTES,
            bytes: PIECE_BYTES.min(file.bytes - piece * PIECE_BYTES),
        });
        self.missing.extend(pieces);
        Ok(())
    }

    fn hash_here(&self, file: &StoredFile) -> Result<ContentHash, SnapshotError> {
        let mut hasher = ContentHasher::default();
        let mut piece = Vec::new();
        let mut offset = 0;
        while offset < file.bytes {
            piece.resize(PIECE_BYTES.min(file.bytes - offset) as usize, 0);
            self.installation.read(&file.name, offset, &mut piece)?;
            hasher.update(&piece);
            offset += piece.len() as u64;
        }
        Ok(hasher.finish())
    }

    fn note(&self, index: usize) {
        let file = &self.manifest.files[index];
        if file.immutable {
            self.hashes.add(&file.state_file(), file.hash);
        }
    }

    fn fetch(&mut self, store: &dyn BlobStore) -> Result<(), SnapshotError> {
        let count = self.missing.len().min(store.concurrency().max(1));
        let parts = self.missing.iter().take(count).map(|piece| {
            let file = &self.manifest.files[piece.file];
            let from = file.offset + piece.offset;
            Part {
                name: file.object.clone(),
                range: from..from + piece.bytes,
            }
        });
        for fetched in store.read_parts(&parts.collect::<Vec<_>>()) {
            let bytes = fetched?;
            self.take(&bytes)?;
        }
        Ok(())
    }

    /// Takes the next piece that was fetched.
    fn take(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let Some(piece) = self.missing.front() else {
            return Ok(());
        };
        let file = &self.manifest.files[piece.file];
        if bytes.len() as u64 != piece.bytes {
            return Err(damaged(&file.object, "it is shorter than it was written"));
        }
        self.installation.write(&file.name, piece.offset, bytes)?;
        self.hasher.update(bytes);
        let (index, is_last) = (piece.file, piece.offset + piece.bytes == file.bytes);
        if is_last {
            let hash = std::mem::take(&mut self.hasher).finish();
            if hash != file.hash {
                let (object, name) = (file.object.clone(), file.name.clone());
                self.installation.remove(&name)?;
                return Err(damaged(&object, &format!("the checksum of {name} differs")));
            }
            self.note(index);
        }
        self.passed += bytes.len() as u64;
        self.missing.pop_front();
        Ok(())
    }

    /// Opens the database that was put together.
    pub(super) fn finish(self) -> Result<(Manifest, Arc<dyn StateBackend>), SnapshotError> {
        let files: Vec<StateFile> = self.manifest.files.iter().map(StoredFile::state_file).collect();
        let backend = self.installation.finish(&files)?;
        if backend.meta()?.as_ref() != Some(&self.manifest.meta) {
            return Err(damaged(
                &self.manifest.object(),
                "its files hold another state than it says",
            ));
        }
        Ok((self.manifest, backend))
    }
}
