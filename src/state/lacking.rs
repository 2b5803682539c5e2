//! Databases that are used before all of their files are here.

use serde::{Deserialize, Serialize};

use super::{StateFile, StateResult};

/// A file that a database lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LackingFile {
    /// Its name within the database.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Where it is to be had, in the words of whoever fetches it; kept beside the database until nothing is lacking.
    pub origin: String,
}

impl LackingFile {
    /// The file as the database will have it. Only files that never change are lacking.
    pub fn state_file(&self) -> StateFile {
        StateFile {
            name: self.name.clone(),
            bytes: self.bytes,
            immutable: true,
        }
    }
}

/// How much a database lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lacking {
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of all files that it lacked when it was put together.
    pub of_bytes: u64,
}

/// Why a file could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotFetched {
    /// It may be had later.
    Passing(String),
    /// It is gone or damaged.
    Damaged(String),
}

/// Takes a piece of a file: its position in the list that was asked for, the offset, the bytes.
pub type TakePiece<'a> = dyn FnMut(usize, u64, &[u8]) -> StateResult<()> + 'a;

/// Fetches files that a database lacks. Calls **block**, bounded by the time-outs of what is behind.
pub trait FileSource: Send + Sync {
    /// Hands every byte of every file to `take`, each file's in order. It has compared checksums when it returns, and not before.
    ///
    /// # Errors
    /// The outer error is one of `take`; then nothing is known of any file.
    fn fetch(&self, files: &[LackingFile], take: &mut TakePiece<'_>) -> StateResult<Result<(), NotFetched>>;

    /// How many bytes are worth asking for at once.
    fn batch_bytes(&self) -> u64;

    /// A read waited for a file.
    fn waited(&self, time: std::time::Duration);
}

/// How a database that lacks files gets them.
#[derive(Clone)]
pub struct Fetching {
    /// Where they come from.
    pub source: std::sync::Arc<dyn FileSource>,
    /// A read waits for a file that it needs for so long, and for the file's last attempt.
    pub read_wait: std::time::Duration,
}
