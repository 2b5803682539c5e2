//! A pack: the increments of one epoch of all tasks of a worker, in one object.
//!
//! | bytes | content |
//! |---|---|
//! | 4 | `TGI1` |
//! | … | per task, a zstd frame with its entries |
//! | … | footer: a zstd frame with JSON, see [`Footer`] |
//! | 4 | length of the footer, big-endian like all integers here |
//! | 4 | CRC-32 (IEEE) of the footer as it lies here |
//! | 4 | `TGI1` |
//!
//! An entry is the store's number in the footer's list of stores (2 bytes), length of the key (4), the key, length of the value (4), the value; a
//! length of `0xffff_ffff` without a value is a deletion. Entries are in order of store and key.

use std::collections::BTreeMap;
use std::io::Read;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, Lineage, StoreId, TaskId, TopicPartition};
use crate::state::{Overlay, SortedIncrement, StateMeta};
use crate::time::Millis;

use super::error::FormatError;
use super::hash::ContentHash;
use super::reference::IncrementRef;

const MAGIC: &[u8; 4] = b"TGI1";
const TRAILER_BYTES: usize = 12;
const DELETED: u32 = u32::MAX;
const FORMAT: u32 = 1;
/// Level of compression: the lowest takes a fifth of the time of the default, for some percents more bytes.
const COMPRESSION_LEVEL: i32 = 1;
/// No footer and no block unpacks to more than this.
const MAX_UNPACKED_BYTES: u64 = 1 << 30;
/// So much of the end of a pack holds the footer, as a rule.
pub const FOOTER_GUESS_BYTES: u64 = 64 << 10;
/// How many earlier increments of its task an entry names, at most. Whoever needs more of them reads the oldest of these.
pub const MAX_LINKS: usize = 32;

/// The increment of one task, to be packed.
pub struct TaskIncrement<'a> {
    /// The task.
    pub task: TaskId,
    /// What the state is afterwards.
    pub meta: &'a StateMeta,
    /// Names of the task's stores, in order of their ids.
    pub stores: Vec<String>,
    /// What it wrote.
    pub increment: &'a dyn SortedIncrement,
    /// The increments of the task before this one, newest first, at most [`MAX_LINKS`].
    pub links: Vec<IncrementRef>,
    /// How many increments the task has written before this one since its lineage began.
    pub depth: u64,
    /// Objects and bytes of the increments between the task's base snapshot and this one.
    pub after_base: (u64, u64),
}

/// What a pack says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footer {
    format: u32,
    /// Fingerprint of the plan that wrote it.
    pub plan: String,
    /// What it holds, in order of the tasks.
    pub tasks: Vec<PackedTask>,
}

/// What a pack says about one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedTask {
    task: String,
    lineage: String,
    epoch: u64,
    ended_ms: Millis,
    cut: Vec<(String, i32, i64)>,
    stores: Vec<String>,
    offset: u64,
    /// Length of its block.
    pub bytes: u64,
    hash: ContentHash,
    /// Number of its entries.
    pub entries: u64,
    links: Vec<String>,
    /// How many increments the task has written before this one since its lineage began.
    pub depth: u64,
    /// How many increments there are since the task's base snapshot, this one included.
    pub chain_objects: u64,
    /// Their bytes.
    pub chain_bytes: u64,
}

/// Packs increments.
///
/// # Errors
/// [`FormatError::Damaged`] where they cannot be compressed.
pub fn pack(plan: &str, increments: &[TaskIncrement<'_>]) -> Result<Vec<u8>, FormatError> {
    let mut out = MAGIC.to_vec();
    let mut tasks = Vec::new();
    for increment in increments {
        let (mut raw, mut entries) = (Vec::new(), 0);
        increment.increment.for_each(&mut |store, key, value| {
            encode_entry(store, key, value, &mut raw);
            entries += 1;
        });
        let block = compressed(&raw)?;
        let cut = increment.meta.cut.iter();
        tasks.push(PackedTask {
            task: increment.task.to_string(),
            lineage: increment.meta.lineage.to_string(),
            epoch: increment.meta.epoch.0,
            ended_ms: increment.meta.ended_ms,
            cut: cut
                .map(|(at, offset)| (at.topic.to_string(), at.partition, *offset))
                .collect(),
            stores: increment.stores.clone(),
            offset: out.len() as u64,
            bytes: block.len() as u64,
            hash: ContentHash::of(&block),
            entries,
            links: increment.links.iter().map(IncrementRef::to_string).collect(),
            depth: increment.depth,
            chain_objects: increment.after_base.0 + 1,
            chain_bytes: increment.after_base.1 + block.len() as u64,
        });
        out.extend_from_slice(&block);
    }
    let footer = Footer {
        format: FORMAT,
        plan: plan.to_owned(),
        tasks,
    };
    let footer = compressed(&serde_json::to_vec(&footer).unwrap_or_default())?;
    out.extend_from_slice(&footer);
    out.extend_from_slice(&(footer.len() as u32).to_be_bytes());
    out.extend_from_slice(&crc32fast::hash(&footer).to_be_bytes());
    out.extend_from_slice(MAGIC);
    Ok(out)
}

fn encode_entry(store: StoreId, key: &[u8], value: Option<&[u8]>, out: &mut Vec<u8>) {
    out.extend_from_slice(&store.0.to_be_bytes());
    out.extend_from_slice(&(key.len() as u32).to_be_bytes());
    out.extend_from_slice(key);
    match value {
        Some(value) => {
            out.extend_from_slice(&(value.len() as u32).to_be_bytes());
            out.extend_from_slice(value);
        }
        None => out.extend_from_slice(&DELETED.to_be_bytes()),
    }
}

fn compressed(raw: &[u8]) -> Result<Vec<u8>, FormatError> {
    let compressed = zstd::bulk::compress(raw, COMPRESSION_LEVEL);
    compressed.map_err(|error| FormatError::damaged("that is being packed", error.to_string()))
}

fn decompressed(bytes: &[u8], object: &str) -> Result<Vec<u8>, FormatError> {
    let damaged = |reason: String| FormatError::damaged(object, reason);
    let mut raw = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(bytes).map_err(|error| damaged(error.to_string()))?;
    let read = decoder.take(MAX_UNPACKED_BYTES).read_to_end(&mut raw);
    read.map_err(|error| damaged(error.to_string()))?;
    match raw.len() as u64 == MAX_UNPACKED_BYTES {
        true => Err(damaged(format!(
            "a part of it unpacks to {MAX_UNPACKED_BYTES} bytes or more"
        ))),
        false => Ok(raw),
    }
}

/// What the end of a pack came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The footer.
    Footer(Footer),
    /// The footer is longer: so many bytes of the end are needed.
    Longer(u64),
}

/// Reads the footer from the last bytes of the pack `object`.
///
/// # Errors
/// [`FormatError`].
pub fn read_end(end: &[u8], object: &str) -> Result<End, FormatError> {
    let damaged = |reason: &str| FormatError::damaged(object, reason.to_owned());
    let (before, magic) = end.split_last_chunk::<4>().ok_or_else(|| damaged("it is too short"))?;
    if magic != MAGIC {
        return Err(damaged("it does not end with TGI1"));
    }
    let (before, crc) = before
        .split_last_chunk::<4>()
        .ok_or_else(|| damaged("it is too short"))?;
    let (before, length) = before
        .split_last_chunk::<4>()
        .ok_or_else(|| damaged("it is too short"))?;
    let length = u32::from_be_bytes(*length) as usize;
    let Some(at) = before.len().checked_sub(length) else {
        return Ok(End::Longer((length + TRAILER_BYTES) as u64));
    };
    let footer = &before[at..];
    if crc32fast::hash(footer) != u32::from_be_bytes(*crc) {
        return Err(damaged("the checksum of its footer differs"));
    }
    let json = decompressed(footer, object)?;
    super::error::check_format(&json, FORMAT, object)?;
    let footer: Footer = serde_json::from_slice(&json).map_err(|error| damaged(&error.to_string()))?;
    Ok(End::Footer(footer))
}

impl Footer {
    /// What it says about `task`.
    pub fn of(&self, task: TaskId) -> Option<&PackedTask> {
        let task = task.to_string();
        self.tasks.iter().find(|packed| packed.task == task)
    }
}

impl PackedTask {
    /// The task; `None` for a name that is none.
    pub fn task(&self) -> Option<TaskId> {
        self.task.parse().ok()
    }

    /// The epoch.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    /// Where its block lies in the pack.
    pub fn range(&self) -> std::ops::Range<u64> {
        self.offset..self.offset.saturating_add(self.bytes)
    }

    /// The increments before this one, newest first.
    ///
    /// # Errors
    /// [`FormatError::Damaged`].
    pub fn links(&self, object: &str) -> Result<Vec<IncrementRef>, FormatError> {
        let parsed = self.links.iter().map(|link| link.parse());
        parsed
            .collect::<Result<_, String>>()
            .map_err(|reason| FormatError::damaged(object, reason))
    }

    /// What the state is after it.
    ///
    /// # Errors
    /// [`FormatError::Damaged`].
    pub fn meta(&self, object: &str) -> Result<StateMeta, FormatError> {
        let lineage: Lineage = self
            .lineage
            .parse()
            .map_err(|reason| FormatError::damaged(object, reason))?;
        let cut = self.cut.iter();
        Ok(StateMeta {
            lineage,
            epoch: Epoch(self.epoch),
            ended_ms: self.ended_ms,
            cut: cut
                .map(|(topic, partition, offset)| (TopicPartition::new(topic.as_str(), *partition), *offset))
                .collect(),
            changelog: BTreeMap::new(),
        })
    }

    /// Reads its block. `stores` are the names of the task's stores now, in order of their ids.
    ///
    /// # Errors
    /// [`FormatError`], also where it has a store that the task has not.
    pub fn unpack(&self, block: &[u8], stores: &[String], object: &str) -> Result<Overlay, FormatError> {
        let damaged = |reason: &str| FormatError::damaged(object, reason.to_owned());
        if ContentHash::of(block) != self.hash {
            return Err(damaged("the checksum of a block differs"));
        }
        let ids = self.stores.iter().map(|name| {
            let at = stores.iter().position(|store| store == name);
            at.map(|at| StoreId(at as u16))
                .ok_or_else(|| FormatError::foreign(object, format!("the store {name:?}")))
        });
        let ids: Vec<StoreId> = ids.collect::<Result<_, _>>()?;
        let raw = decompressed(block, object)?;
        let mut overlay = Overlay::new(&vec![false; stores.len()]);
        let mut rest = &raw[..];
        let mut entries = 0;
        while !rest.is_empty() {
            let entry = split_entry(&mut rest).ok_or_else(|| damaged("a block ends early"))?;
            let store = *ids
                .get(usize::from(entry.store))
                .ok_or_else(|| damaged("an entry of no store"))?;
            match entry.value {
                Some(value) => overlay.put(store, entry.key, value),
                None => overlay.delete(store, entry.key),
            }
            entries += 1;
        }
        match entries == self.entries {
            true => Ok(overlay),
            false => Err(damaged("a block has not as many entries as its footer says")),
        }
    }
}

struct Entry<'a> {
    store: u16,
    key: &'a [u8],
    value: Option<&'a [u8]>,
}

fn split_entry<'a>(rest: &mut &'a [u8]) -> Option<Entry<'a>> {
    let (store, after) = rest.split_first_chunk::<2>()?;
    let (key_bytes, after) = after.split_first_chunk::<4>()?;
    let (key, after) = after.split_at_checked(u32::from_be_bytes(*key_bytes) as usize)?;
    let (value_bytes, after) = after.split_first_chunk::<4>()?;
    let (value, after) = match u32::from_be_bytes(*value_bytes) {
        DELETED => (None, after),
        bytes => {
            let (value, after) = after.split_at_checked(bytes as usize)?;
            (Some(value), after)
        }
    };
    *rest = after;
    Some(Entry {
        store: u16::from_be_bytes(*store),
        key,
        value,
    })
}
