//! Putting a database together from the files of a base snapshot, piece by piece; what is here already is not fetched.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::blob::{BlobStore, Part};
use crate::durability::snapshot::{ContentHash, ContentHasher, Manifest, StoredFile};
use crate::state::{Fetching, Installation, LackingFile, StateBackend, StateFile};

use super::error::SnapshotError;
use super::lazy::lacking;
use super::read_ahead::{Fetched, batch, while_reading};
use super::repository::damaged;
use super::upload::FileHashes;

/// Files are fetched, and those that are here are read, in pieces of this size.
pub(super) const PIECE_BYTES: u64 = 8 << 20;

/// Ends the names of objects of small files.
const PACK_SUFFIX: &str = ".pack";

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
    /// How the files come that need not be here when the database is opened; `None` where all have to be.
    fetching: Option<Fetching>,
    lacking: Vec<LackingFile>,
    /// The next file to be looked for here.
    next: usize,
    missing: VecDeque<Piece>,
    /// The first of them, where they were read ahead.
    fetched: Option<Fetched>,
    /// The hash of what was fetched of the file under way.
    hasher: ContentHasher,
    passed: u64,
}

impl Install {
    pub(super) fn new(
        manifest: Manifest,
        installation: Box<dyn Installation>,
        hashes: Arc<FileHashes>,
        fetching: Option<Fetching>,
    ) -> Self {
        Self {
            fetching: fetching.filter(|_| installation.can_lack_files()),
            lacking: Vec::new(),
            manifest,
            installation,
            hashes,
            next: 0,
            missing: VecDeque::new(),
            fetched: None,
            hasher: ContentHasher::default(),
            passed: 0,
        }
    }

    /// Bytes that are here, of [`Install::total`].
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    pub(super) fn total(&self) -> u64 {
        let lacking: u64 = self.lacking.iter().map(|file| file.bytes).sum();
        self.manifest.bytes() - lacking
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
        // Small files are those that say what the database is, and they come by one request together.
        let may_lack = file.immutable && file.offset == 0 && !file.object.ends_with(PACK_SUFFIX);
        if self.fetching.is_some() && may_lack && file.bytes > 0 {
            self.lacking.push(lacking(file)?);
            return Ok(());
        }
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
        let count = batch(store);
        let fetched = match self.fetched.take() {
            Some(fetched) => fetched,
            None => store.read_parts(&self.parts(0, count)),
        };
        let next = self.parts(fetched.len(), count);
        let (taken, fetched) = while_reading(store, &next, || {
            fetched.into_iter().try_for_each(|bytes| self.take(&bytes?))
        });
        taken?;
        self.fetched = fetched;
        Ok(())
    }

    /// The next parts that are missing, behind so many of them.
    fn parts(&self, skip: usize, count: usize) -> Vec<Part> {
        let missing = self.missing.iter().skip(skip).take(count);
        let parts = missing.map(|piece| {
            let file = &self.manifest.files[piece.file];
            let from = file.offset + piece.offset;
            Part {
                name: file.object.clone(),
                range: from..from + piece.bytes,
            }
        });
        parts.collect()
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
        let backend = match self.fetching {
            Some(fetching) if !self.lacking.is_empty() => {
                self.installation.finish_lacking(&files, &self.lacking, fetching)?
            }
            _ => self.installation.finish(&files)?,
        };
        if backend.meta()?.as_ref() != Some(&self.manifest.meta) {
            return Err(damaged(
                &self.manifest.object(),
                "its files hold another state than it says",
            ));
        }
        Ok((self.manifest, backend))
    }
}
