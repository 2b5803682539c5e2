//! The savepoints that a repository has.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::blob::{BlobError, BlobInfo, BlobStore, Part as Range};
use crate::durability::savepoint::{BACKEND_CANONICAL, Chunk, SAVEPOINTS_FOLDER, Savepoint, SavepointName};
use crate::durability::snapshot::{ContentHash, ContentHasher, StoredFile};

use super::error::SavepointError;

/// Objects are read in pieces of this size.
const PIECE_BYTES: u64 = 8 << 20;

/// A folder of savepoints, or what should be one.
#[derive(Debug)]
pub struct Found {
    /// The name of the folder.
    pub name: SavepointName,
    /// The savepoint; `None` where it is not complete, or cannot be read.
    pub savepoint: Option<Savepoint>,
    /// Objects in its folder.
    pub objects: usize,
    /// Bytes of them.
    pub bytes: u64,
}

/// What a look at all objects of a savepoint came to.
#[derive(Debug)]
pub struct Verified {
    /// Objects that are as they should be.
    pub objects: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// What is wrong, an object each.
    pub problems: Vec<String>,
}

/// An application's savepoints.
#[derive(Clone)]
pub struct Archive {
    /// The application's folder.
    pub store: Arc<dyn BlobStore>,
}

impl Archive {
    fn in_folder(&self, name: &SavepointName) -> Result<Vec<BlobInfo>, SavepointError> {
        Ok(self.store.list(&name.folder())?)
    }

    /// All savepoints, in order of their names.
    ///
    /// # Errors
    /// As the store says.
    pub fn list(&self) -> Result<Vec<Found>, SavepointError> {
        let mut folders: BTreeMap<SavepointName, (usize, u64)> = BTreeMap::new();
        for blob in self.store.list(SAVEPOINTS_FOLDER)? {
            if let Some(name) = SavepointName::of_object(&blob.name) {
                let (objects, bytes) = folders.entry(name).or_default();
                *objects += 1;
                *bytes += blob.bytes;
            }
        }
        let found = folders.into_iter().map(|(name, (objects, bytes))| {
            let savepoint = match self.read(&name) {
                Ok(savepoint) => Some(savepoint),
                Err(SavepointError::NotFound { .. } | SavepointError::Object(_)) => None,
                Err(error) => return Err(error),
            };
            Ok(Found {
                name,
                savepoint,
                objects,
                bytes,
            })
        });
        found.collect()
    }

    /// What a savepoint says of itself.
    ///
    /// # Errors
    /// [`SavepointError::NotFound`], and as the store says.
    pub fn read(&self, name: &SavepointName) -> Result<Savepoint, SavepointError> {
        let object = name.document();
        match self.store.read(&object) {
            Ok(bytes) => Ok(Savepoint::from_json(&bytes, &object)?),
            Err(BlobError::Missing { .. }) => Err(SavepointError::NotFound {
                root: self.store.root().to_owned(),
                name: name.to_string(),
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads all that a savepoint refers to, and compares it with its hashes. `seen` is told the bytes of each file.
    ///
    /// # Errors
    /// As [`Archive::read`]. What is missing or wrong is no error here.
    pub fn verify(&self, name: &SavepointName, seen: &mut dyn FnMut(u64)) -> Result<Verified, SavepointError> {
        let savepoint = self.read(name)?;
        let mut verified = Verified {
            objects: savepoint.objects().len(),
            bytes: 0,
            problems: Vec::new(),
        };
        for part in &savepoint.parts {
            for file in &part.files {
                match self.check(name, file, part.backend == BACKEND_CANONICAL) {
                    Ok(()) => verified.bytes += file.bytes,
                    Err(error @ (SavepointError::Object(_) | SavepointError::Blob(BlobError::Missing { .. }))) => {
                        verified.problems.push(error.to_string());
                    }
                    Err(error) => return Err(error),
                }
                seen(file.bytes);
            }
        }
        Ok(verified)
    }

    fn check(&self, name: &SavepointName, file: &StoredFile, is_canonical: bool) -> Result<(), SavepointError> {
        let object = format!("{}{}", name.folder(), file.object);
        if is_canonical {
            let bytes = self.store.read(&object)?;
            check_hash(&object, file, ContentHash::of(&bytes))?;
            Chunk::read(&bytes, &object)?;
            return Ok(());
        }
        let mut hasher = ContentHasher::default();
        for piece in pieces(&object, file) {
            let read = self.store.read_parts(std::slice::from_ref(&piece)).pop();
            hasher.update(&read.ok_or_else(|| damaged(&object, "it was not read"))??);
        }
        check_hash(&object, file, hasher.finish())
    }

    /// Deletes a savepoint, whole or not: first what makes it one. Answers how many objects that were.
    ///
    /// # Errors
    /// [`SavepointError::NotFound`] where the folder is empty, and as the store says.
    pub fn delete(&self, name: &SavepointName) -> Result<usize, SavepointError> {
        let all = self.in_folder(name)?;
        if all.is_empty() {
            return Err(SavepointError::NotFound {
                root: self.store.root().to_owned(),
                name: name.to_string(),
            });
        }
        self.store.delete(&[name.document(), name.request()])?;
        let names: Vec<String> = all.into_iter().map(|blob| blob.name).collect();
        self.store.delete(&names)?;
        Ok(names.len())
    }
}

/// The parts of an object that make up a file.
pub(super) fn pieces<'a>(object: &'a str, file: &'a StoredFile) -> impl Iterator<Item = Range> + 'a {
    (0..file.bytes.div_ceil(PIECE_BYTES)).map(move |piece| {
        let from = file.offset + piece * PIECE_BYTES;
        Range {
            name: object.to_owned(),
            range: from..(from + PIECE_BYTES).min(file.offset + file.bytes),
        }
    })
}

pub(super) fn check_hash(object: &str, file: &StoredFile, hash: ContentHash) -> Result<(), SavepointError> {
    match hash == file.hash {
        true => Ok(()),
        false => Err(damaged(object, &format!("the checksum of {} differs", file.name))),
    }
}

pub(super) fn damaged(object: &str, reason: &str) -> SavepointError {
    SavepointError::Object(crate::durability::snapshot::FormatError::Damaged {
        object: object.to_owned(),
        reason: reason.to_owned(),
    })
}
