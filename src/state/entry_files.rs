//! A database in memory as files: its entries in chunks, and a head that says which chunks they are.
//!
//! All integers are big-endian. A chunk holds entries of one store in ascending order of their keys:
//!
//! | bytes | content |
//! |---|---|
//! | 4 | `TGSC` |
//! | 2 | version of this format, 1 |
//! | 2 | store |
//! | … | for each entry: length of the key (4 bytes), the key, length of the value (4), the value |
//! | 4 | CRC-32 (IEEE) of all bytes before |
//!
//! The head, in the file `head`:
//!
//! | bytes | content |
//! |---|---|
//! | 4 | `TGSH` |
//! | 2 | version of this format, 1 |
//! | 2 | number of stores |
//! | 4 | length of the metadata |
//! | … | the metadata, as `meta.rs` describes it |
//! | … | for each chunk, in order of store and key: length of its name (2 bytes), its name in ASCII |
//! | 4 | CRC-32 (IEEE) of all bytes before |
//!
//! Chunks are cut by what is in them: whether one ends after an entry depends on this entry alone, so that a change to the
//! database changes the chunks around it and no others. A chunk's name is `<store>-<CRC-32 of its first key>-<FNV-1a of the
//! file, 64 bits>`, numbers in hexadecimal digits: what has the same name is the same.

use std::collections::BTreeMap;
use std::path::Path;

use super::entries::Entries;
use super::{StateError, StateMeta};

/// Contents of files by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// The file that is not a chunk.
pub(crate) const HEAD: &str = "head";

const CHUNK_MAGIC: &[u8; 4] = b"TGSC";
const HEAD_MAGIC: &[u8; 4] = b"TGSH";
const VERSION: u16 = 1;
/// What an entry takes beside its key and value.
const LENGTHS_BYTES: usize = 8;
const KEY_OFFSET: usize = 12;

/// Why files are not a database.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    /// Written by another version of Tidegate.
    #[error("its file {file} has format version {version}, this build reads version {VERSION}")]
    Version {
        /// The file's name.
        file: String,
        /// Its version.
        version: u16,
    },
    /// A database of something else.
    #[error("it has {0} stores, the topology has {1}")]
    Stores(usize, usize),
    /// Damaged.
    #[error("its file {file} is damaged: {reason}")]
    Damaged {
        /// The file's name.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Unreadable {
    /// The error of the database in `path`.
    pub(crate) fn at(&self, path: &Path) -> StateError {
        let (path, reason) = (path.to_owned(), self.to_string());
        match self {
            Unreadable::Version { .. } | Unreadable::Stores(..) => StateError::Foreign { path, reason },
            Unreadable::Damaged { .. } => StateError::Corrupt { path, reason },
        }
    }
}

/// The files of a database, in chunks of `chunk_bytes` on average.
pub(crate) fn write(stores: &[Entries], meta: &StateMeta, chunk_bytes: u32) -> Files {
    let mut files = Files::new();
    let mut names = Vec::new();
    for (store, entries) in (0u16..).zip(stores) {
        let mut chunk = new_chunk(store);
        let mut left = entries.len();
        for (key, value) in entries {
            left -= 1;
            push_bytes(&mut chunk, key);
            push_bytes(&mut chunk, value);
            if left == 0 || ends_chunk(key, value, chunk_bytes) {
                let whole = sealed(std::mem::replace(&mut chunk, new_chunk(store)));
                let name = chunk_name(&whole);
                names.push(name.clone());
                files.insert(name, whole);
            }
        }
    }
    files.insert(HEAD.to_owned(), head(stores.len(), meta, &names));
    files
}

/// Reads what [`write`] wrote, of a database with `stores` stores. Files that the head does not name do not matter.
///
/// # Errors
/// [`Unreadable`], for anything else.
pub(crate) fn read(files: &Files, stores: usize) -> Result<(StateMeta, Vec<Entries>), Unreadable> {
    let missing = |file: &str| damaged(file, "it is missing");
    let head = files.get(HEAD).ok_or_else(|| missing(HEAD))?;
    let (found, meta, names) = read_head(head)?;
    if found != stores {
        return Err(Unreadable::Stores(found, stores));
    }
    let mut contents = vec![Entries::default(); stores];
    for name in &names {
        let chunk = files.get(name).ok_or_else(|| missing(name))?;
        read_chunk(name, chunk, &mut contents)?;
    }
    Ok((meta, contents))
}

fn new_chunk(store: u16) -> Vec<u8> {
    let mut chunk = opening(CHUNK_MAGIC);
    chunk.extend_from_slice(&store.to_be_bytes());
    chunk
}

fn opening(magic: &[u8; 4]) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes
}

fn push_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    into.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    into.extend_from_slice(bytes);
}

fn sealed(mut body: Vec<u8>) -> Vec<u8> {
    body.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
    body
}

/// True after one of as many entries as fit into a chunk, and always the same ones.
fn ends_chunk(key: &[u8], value: &[u8], chunk_bytes: u32) -> bool {
    let hash = u64::from(crc32fast::hash(key)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let bytes = key.len() + value.len() + LENGTHS_BYTES;
    hash % u64::from(chunk_bytes.max(1)) < bytes as u64
}

/// The name of a chunk that has at least one entry.
fn chunk_name(chunk: &[u8]) -> String {
    let field = |at: usize, bytes: usize| chunk.get(at..at + bytes).unwrap_or_default();
    let key_bytes = field(8, 4).first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    let store = field(6, 2).first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
    let first_key = crc32fast::hash(field(KEY_OFFSET, key_bytes as usize));
    let content = chunk.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{store:04x}-{first_key:08x}-{content:016x}")
}

fn head(stores: usize, meta: &StateMeta, names: &[String]) -> Vec<u8> {
    let mut head = opening(HEAD_MAGIC);
    head.extend_from_slice(&(stores as u16).to_be_bytes());
    push_bytes(&mut head, &meta.encode());
    for name in names {
        head.extend_from_slice(&(name.len() as u16).to_be_bytes());
        head.extend_from_slice(name.as_bytes());
    }
    sealed(head)
}

fn read_head(bytes: &[u8]) -> Result<(usize, StateMeta, Vec<String>), Unreadable> {
    let mut reader = Reader::open(HEAD, HEAD_MAGIC, bytes)?;
    let stores = u16::from_be_bytes(reader.array()?);
    let meta = reader.bytes()?;
    let meta = StateMeta::decode(meta).map_err(|error| damaged(HEAD, &error.to_string()))?;
    let mut names = Vec::new();
    while !reader.rest.is_empty() {
        let bytes = u16::from_be_bytes(reader.array()?);
        let name = str::from_utf8(reader.take(usize::from(bytes))?);
        names.push(name.map_err(|_| damaged(HEAD, "a name is not text"))?.to_owned());
    }
    Ok((usize::from(stores), meta, names))
}

fn read_chunk(name: &str, bytes: &[u8], contents: &mut [Entries]) -> Result<(), Unreadable> {
    let mut reader = Reader::open(name, CHUNK_MAGIC, bytes)?;
    let store = u16::from_be_bytes(reader.array()?);
    let entries = contents.get_mut(usize::from(store));
    let entries = entries.ok_or_else(|| damaged(name, "it is of a store that there is not"))?;
    while !reader.rest.is_empty() {
        let (key, value) = (reader.bytes()?, reader.bytes()?);
        if entries.last_key_value().is_some_and(|(last, _)| **last >= *key) {
            return Err(damaged(name, "its keys do not ascend"));
        }
        entries.insert(key.into(), value.into());
    }
    if chunk_name(bytes) != name {
        return Err(damaged(name, "it is another one"));
    }
    Ok(())
}

fn damaged(file: &str, reason: &str) -> Unreadable {
    Unreadable::Damaged {
        file: file.to_owned(),
        reason: reason.to_owned(),
    }
}

struct Reader<'a> {
    file: &'a str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Checks the checksum, what the bytes are, and their version.
    fn open(file: &'a str, magic: &[u8; 4], bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let (body, crc) = bytes
            .split_last_chunk()
            .ok_or_else(|| damaged(file, "it is too short"))?;
        if crc32fast::hash(body) != u32::from_be_bytes(*crc) {
            return Err(damaged(file, "its checksum does not match"));
        }
        let mut reader = Self { file, rest: body };
        if reader.array::<4>()? != *magic {
            return Err(damaged(file, "it does not begin as it should"));
        }
        match u16::from_be_bytes(reader.array()?) {
            VERSION => Ok(reader),
            version => Err(Unreadable::Version {
                file: file.to_owned(),
                version,
            }),
        }
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Unreadable> {
        let split = self.rest.split_at_checked(bytes);
        let (taken, rest) = split.ok_or_else(|| damaged(self.file, "it ends early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// Bytes with their length before them.
    fn bytes(&mut self) -> Result<&'a [u8], Unreadable> {
        let bytes = u32::from_be_bytes(self.array()?);
        self.take(bytes as usize)
    }
}
