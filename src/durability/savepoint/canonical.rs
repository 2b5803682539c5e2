//! The canonical form of a store: its rows in order of their keys, in chunks. It is the same for all backends and versions.
//!
//! A chunk (all integers big-endian):
//!
//! | bytes | content |
//! |---|---|
//! | 4 | `TGC1` |
//! | 2 | length of the store's name, then the name in UTF-8 |
//! | 4 | length of the store's codec ids, then the ids in UTF-8 |
//! | 4 | number of rows |
//! | … | per row, in ascending order of keys: length of the key (4), the key, length of the value (4), the value |
//! | 4 | CRC-32 (IEEE) of all bytes before |
//!
//! Keys and values are the bytes that the store keeps. The keys of a chunk come after those of the chunk before it.

use crate::durability::snapshot::{FormatError, damaged_object};
use crate::state::StoreSpec;

const MAGIC: &[u8; 4] = b"TGC1";
const CRC_BYTES: usize = 4;

/// A chunk ends with the row that makes it as large as this.
pub const CHUNK_BYTES: usize = 8 << 20;

/// Writes the rows of a store into one chunk.
pub struct ChunkWriter {
    bytes: Vec<u8>,
    count_at: usize,
    rows: u32,
}

impl ChunkWriter {
    /// An empty chunk of a store.
    pub fn new(store: &StoreSpec) -> Self {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&(store.name.len() as u16).to_be_bytes());
        bytes.extend_from_slice(store.name.as_bytes());
        bytes.extend_from_slice(&(store.codecs.len() as u32).to_be_bytes());
        bytes.extend_from_slice(store.codecs.as_bytes());
        let count_at = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        Self {
            bytes,
            count_at,
            rows: 0,
        }
    }

    /// Adds the next row; true if the chunk is full.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> bool {
        for field in [key, value] {
            self.bytes.extend_from_slice(&(field.len() as u32).to_be_bytes());
            self.bytes.extend_from_slice(field);
        }
        self.rows += 1;
        self.bytes.len() >= CHUNK_BYTES
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The chunk's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes[self.count_at..self.count_at + 4].copy_from_slice(&self.rows.to_be_bytes());
        self.bytes
            .extend_from_slice(&crc32fast::hash(&self.bytes).to_be_bytes());
        self.bytes
    }
}

/// A chunk that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Name of the store.
    pub store: String,
    /// Ids of its codecs.
    pub codecs: String,
    /// Its rows, in ascending order of keys.
    pub rows: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Chunk {
    /// Reads the bytes of the object `object`.
    ///
    /// # Errors
    /// [`FormatError::Damaged`].
    pub fn read(bytes: &[u8], object: &str) -> Result<Self, FormatError> {
        let damaged = |reason: &str| damaged_object(object, reason.to_owned());
        let (body, crc) = bytes
            .split_last_chunk::<CRC_BYTES>()
            .ok_or_else(|| damaged("it is too short"))?;
        if crc32fast::hash(body) != u32::from_be_bytes(*crc) {
            return Err(damaged("its checksum differs"));
        }
        let body = body
            .strip_prefix(MAGIC)
            .ok_or_else(|| damaged("it does not begin with TGC1"))?;
        let ends_early = || damaged("it ends early");
        let mut rest = body;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| damaged("a name is not UTF-8"));
        let length = usize::from(u16::from_be_bytes(*take(&mut rest).ok_or_else(ends_early)?));
        let store = text(take_bytes(&mut rest, length).ok_or_else(ends_early)?)?;
        let codecs = text(take_field(&mut rest).ok_or_else(ends_early)?)?;
        let count = u32::from_be_bytes(*take(&mut rest).ok_or_else(ends_early)?);
        let mut rows: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for _ in 0..count {
            let key = take_field(&mut rest).ok_or_else(ends_early)?;
            let value = take_field(&mut rest).ok_or_else(ends_early)?;
            if rows.last().is_some_and(|(before, _)| &before[..] >= key) {
                return Err(damaged("its rows are not in order"));
            }
            rows.push((key.to_vec(), value.to_vec()));
        }
        match rest {
            [] => Ok(Self { store, codecs, rows }),
            _ => Err(damaged("bytes follow its rows")),
        }
    }
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(taken)
}

fn take_bytes<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

fn take_field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_be_bytes(*take(rest)?);
    take_bytes(rest, length as usize)
}
