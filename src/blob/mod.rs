//! The blob port: immutable objects under relative names, in S3-compatible storage, a directory or memory.
//!
//! Only create-if-absent is asked of a store; nothing is ever overwritten (invariant I10). Names are relative to the application's
//! folder, with `/` between their parts, so that a folder can be moved or copied as a whole.

pub mod metrics;
pub mod object;

use std::ops::Range;
use std::time::Duration;

use crate::errors::Coded;
use crate::time::Millis;

/// What went wrong with a call on a store. `name` is that of the object, relative to `root`, which names store and folder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// There is no such object.
    #[error("{root} has no object {name}")]
    Missing {
        /// The store and the folder in it.
        root: String,
        /// The object.
        name: String,
    },
    /// An object of that name is there already, with other contents.
    #[error("{root} has an object {name} already, and names are given once; does another application use this folder?")]
    Exists {
        /// The store and the folder in it.
        root: String,
        /// The object.
        name: String,
    },
    /// The store refuses: credentials or rights.
    #[error(
        "{root} refuses to {operation} {name}: {reason}; check the credentials and what they may do (read, write, list, delete below the folder)"
    )]
    Denied {
        /// The store and the folder in it.
        root: String,
        /// The object.
        name: String,
        /// What was tried: read, write, list, delete.
        operation: &'static str,
        /// What the store says.
        reason: String,
    },
    /// The bucket, or the directory that should hold the folder, is not there.
    #[error("{root} cannot be used: {reason}; create the bucket or directory, or correct snapshot.url")]
    NoStore {
        /// The store and the folder in it.
        root: String,
        /// What the store says.
        reason: String,
    },
    /// The store does not answer in time, or says that it is overloaded. The call may or may not have had its effect.
    #[error("{root} does not {operation} {name} ({attempts} attempts in {waited_ms} ms): {reason}")]
    Unavailable {
        /// The store and the folder in it.
        root: String,
        /// The object.
        name: String,
        /// What was tried: read, write, list, delete.
        operation: &'static str,
        /// How often it was tried.
        attempts: u32,
        /// How long all attempts took together, in milliseconds.
        waited_ms: u64,
        /// What was seen last.
        reason: String,
    },
    /// Anything else, which another attempt does not mend.
    #[error("{root} cannot {operation} {name}: {reason}")]
    Failed {
        /// The store and the folder in it.
        root: String,
        /// The object.
        name: String,
        /// What was tried: read, write, list, delete.
        operation: &'static str,
        /// What the store says.
        reason: String,
    },
}

impl BlobError {
    /// Whether the same call may succeed later without anybody's doing.
    pub fn is_passing(&self) -> bool {
        matches!(self, BlobError::Unavailable { .. })
    }
}

impl Coded for BlobError {
    fn code(&self) -> &'static str {
        match self {
            BlobError::Missing { .. } => "TG1201",
            BlobError::Exists { .. } => "TG1202",
            BlobError::Denied { .. } => "TG1203",
            BlobError::NoStore { .. } => "TG1204",
            BlobError::Unavailable { .. } => "TG1205",
            BlobError::Failed { .. } => "TG1206",
        }
    }
}

/// Result of a call on a store.
pub type BlobResult<T> = Result<T, BlobError>;

/// An object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its name, relative to the application's folder.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was written, by the store's clock, in milliseconds since the Unix epoch.
    pub written_ms: Millis,
}

/// What an upload reads from: something with random access that does not change meanwhile.
pub trait BlobSource: Send + Sync {
    /// All of its bytes.
    fn bytes(&self) -> u64;

    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    /// What the disk says.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), String>;
}

impl BlobSource for Vec<u8> {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), String> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let to = from.saturating_add(into.len());
        let bytes = self.get(from..to).ok_or("beyond the end")?;
        into.copy_from_slice(bytes);
        Ok(())
    }
}

/// A part of an object to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The object.
    pub name: String,
    /// Which of its bytes; those beyond its end are left out.
    pub range: Range<u64>,
}

/// A folder in a store. All calls **block**, bounded by the time-outs that the store was opened with; none is made from a worker's turn.
pub trait BlobStore: Send + Sync {
    /// Writes an object if there is none of that name. Either all of its bytes appear or nothing does.
    ///
    /// An attempt whose answer was lost may have written it: where the bytes are the same, that is success.
    ///
    /// # Errors
    /// [`BlobError::Exists`] where other bytes are there; others as the store says.
    fn create(&self, name: &str, bytes: &[u8]) -> BlobResult<()>;

    /// Writes a large object, in several parts. The name must be nobody else's: this does not look whether it is there.
    /// Either all of its bytes appear or nothing does; parts of an attempt that failed are removed, or left to the store's
    /// own rules for incomplete uploads.
    ///
    /// # Errors
    /// As the store says; [`BlobError::Failed`] where the source cannot be read.
    fn upload(&self, name: &str, source: &dyn BlobSource) -> BlobResult<()>;

    /// Reads a whole object, which should be small.
    ///
    /// # Errors
    /// [`BlobError::Missing`], and others as the store says.
    fn read(&self, name: &str) -> BlobResult<Vec<u8>>;

    /// Reads the last bytes of an object: at most `bytes`, fewer where it is smaller.
    ///
    /// # Errors
    /// As [`BlobStore::read`].
    fn read_end(&self, name: &str, bytes: u64) -> BlobResult<Vec<u8>>;

    /// Reads parts of objects, side by side as far as the store's limits allow; the outcomes are in the order of `parts`.
    fn read_parts(&self, parts: &[Part]) -> Vec<BlobResult<Vec<u8>>>;

    /// All objects whose names begin with `prefix`, which ends with `/` or is empty; in order of their names.
    ///
    /// # Errors
    /// As the store says.
    fn list(&self, prefix: &str) -> BlobResult<Vec<BlobInfo>>;

    /// Removes objects. Those that are not there count as removed.
    ///
    /// # Errors
    /// As the store says; then any of them may be gone.
    fn delete(&self, names: &[String]) -> BlobResult<()>;

    /// How many parts are worth asking for at once.
    fn concurrency(&self) -> usize;

    /// Whether it gains anything to read from another thread meanwhile. A store whose answers must not depend on threads says no.
    fn reads_ahead(&self) -> bool {
        false
    }

    /// Names the store and the folder, without secrets, for people.
    fn root(&self) -> &str;
}

/// Bounds of the calls on a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobLimits {
    /// One attempt of one request may take this long.
    pub request_timeout: Duration,
    /// All attempts of one call may take this long together. Of an upload in parts, of parts that are read and of the pages of a listing each has
    /// this time for itself; waiting for the bandwidth that is allowed does not count.
    pub call_timeout: Duration,
    /// Requests at the same time.
    pub concurrency: usize,
    /// Bytes per second that are uploaded in the background, at most; 0: no bound.
    pub upload_bytes_per_second: u64,
    /// Bytes per second that are downloaded, at most; 0: no bound.
    pub download_bytes_per_second: u64,
}
