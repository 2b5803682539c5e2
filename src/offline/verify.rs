//! Reading and hashing everything that snapshots need.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use crate::blob::{BlobError, Part};
use crate::durability::snapshot::{ContentHash, ContentHasher, IncrementRef, Manifest};
use crate::ids::TaskId;
use crate::worker::SnapshotError;

use super::catalogue::{Broken, Catalogue, damaged, is_about_an_object};
use super::chain::At;
use super::{OfflineError, Progress, Unit};

/// Files are read in pieces of this size.
const PIECE_BYTES: u64 = 8 << 20;

/// What a verification came to.
#[derive(Debug, Default)]
pub struct Verified {
    /// Base snapshots that were looked at.
    pub bases: usize,
    /// Increments that were looked at, one per task and epoch.
    pub increments: usize,
    /// Objects that were read.
    pub objects: usize,
    /// Bytes that were read and compared.
    pub bytes: u64,
    /// What is missing or damaged, by object.
    pub broken: Vec<Broken>,
}

/// A part of an object with a hash of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stored {
    object: String,
    range: (u64, u64),
    hash: ContentHash,
}

/// Reads and hashes all files of `bases`, and the increments after each of them up to the last that is there.
///
/// # Errors
/// What the store says where it cannot be asked; what is wrong with single objects is in the outcome.
pub fn verify(catalogue: &Catalogue, bases: &[&Manifest], progress: &dyn Progress) -> Result<Verified, OfflineError> {
    let mut verified = Verified {
        bases: bases.len(),
        ..Verified::default()
    };
    let mut files = BTreeSet::new();
    let mut increments: BTreeMap<(TaskId, String), (IncrementRef, &Manifest)> = BTreeMap::new();
    for base in bases {
        files.extend(base.files.iter().filter(|file| file.bytes > 0).map(|file| Stored {
            object: file.object.clone(),
            range: (file.offset, file.offset + file.bytes),
            hash: file.hash,
        }));
        let (branch, broken) = catalogue.grow(base, &At::Newest)?;
        verified.broken.extend(broken);
        increments.extend(
            branch
                .increments
                .into_iter()
                .chain(branch.unconfirmed)
                .map(|increment| {
                    let key = (base.task, increment.to_string());
                    (key, (increment, *base))
                }),
        );
    }
    let mut objects: BTreeSet<String> = files.iter().map(|file| file.object.clone()).collect();
    objects.extend(increments.values().filter_map(|(increment, _)| increment.object()));
    verified.objects = objects.len() + bases.len();
    verified.increments = increments.len();
    let blocks = blocks(catalogue, increments.into_values(), &mut verified);
    let total = files.iter().map(|file| file.range.1 - file.range.0).sum::<u64>()
        + blocks
            .iter()
            .map(|block| block.range.end - block.range.start)
            .sum::<u64>();
    progress.begin("verifying", total, Unit::Bytes);
    verify_files(catalogue, files.into_iter().collect(), progress, &mut verified)?;
    verify_blocks(catalogue, &blocks, progress, &mut verified)?;
    progress.end();
    forgive(catalogue, bases, &mut verified)?;
    verified.broken.sort_by(|a, b| a.object.cmp(&b.object));
    verified.broken.dedup_by(|a, b| a.object == b.object);
    Ok(verified)
}

/// A base snapshot that was deleted meanwhile takes what only it needs along, and that is in order.
fn forgive(catalogue: &Catalogue, bases: &[&Manifest], verified: &mut Verified) -> Result<(), OfflineError> {
    let is_missing = |broken: &Broken| matches!(broken.error, SnapshotError::Blob(BlobError::Missing { .. }));
    if !verified.broken.iter().any(is_missing) {
        return Ok(());
    }
    let mut needed = BTreeSet::new();
    for base in bases {
        if catalogue.is_there(&base.object())? {
            needed.extend(base.files.iter().map(|file| file.object.clone()));
            let (branch, _) = catalogue.grow(base, &At::Newest)?;
            needed.extend(branch.increments.iter().map(|increment| increment.place_name()));
        }
    }
    verified
        .broken
        .retain(|broken| !is_missing(broken) || needed.contains(&broken.object));
    Ok(())
}

/// The block of one increment in its pack.
struct Block<'a> {
    increment: IncrementRef,
    base: &'a Manifest,
    range: Range<u64>,
}

fn blocks<'a>(
    catalogue: &Catalogue,
    increments: impl Iterator<Item = (IncrementRef, &'a Manifest)>,
    verified: &mut Verified,
) -> Vec<Block<'a>> {
    let mut blocks = Vec::new();
    for (increment, base) in increments {
        match catalogue.packed(base.task, &increment) {
            Ok(packed) => blocks.push(Block {
                range: packed.range(),
                increment,
                base,
            }),
            Err(error) => verified.broken.push(Broken {
                object: increment.place_name(),
                error,
            }),
        }
    }
    blocks
}

/// Takes note of what is wrong with one object, and goes on; anything else ends the verification.
fn note(verified: &mut Verified, object: &str, error: SnapshotError) -> Result<(), OfflineError> {
    if !is_about_an_object(&error) {
        return Err(error.into());
    }
    let object = object.to_owned();
    verified.broken.push(Broken { object, error });
    Ok(())
}

fn verify_files(
    catalogue: &Catalogue,
    files: Vec<Stored>,
    progress: &dyn Progress,
    verified: &mut Verified,
) -> Result<(), OfflineError> {
    let store = &catalogue.store;
    let mut pieces: VecDeque<(usize, Range<u64>)> = VecDeque::new();
    for (index, file) in files.iter().enumerate() {
        let mut from = file.range.0;
        while from < file.range.1 {
            let to = (from + PIECE_BYTES).min(file.range.1);
            pieces.push_back((index, from..to));
            from = to;
        }
    }
    let mut hasher = ContentHasher::default();
    let mut failed: Option<usize> = None;
    while !pieces.is_empty() {
        let count = pieces.len().min(store.concurrency().max(1));
        let parts = pieces.iter().take(count).map(|(index, range)| Part {
            name: files[*index].object.clone(),
            range: range.clone(),
        });
        for bytes in store.read_parts(&parts.collect::<Vec<_>>()) {
            let Some((index, range)) = pieces.pop_front() else {
                break;
            };
            let file = &files[index];
            progress.advance(range.end - range.start);
            if failed == Some(index) {
                continue;
            }
            let bytes = bytes
                .map_err(SnapshotError::from)
                .and_then(|bytes| match bytes.len() as u64 {
                    length if length == range.end - range.start => Ok(bytes),
                    _ => Err(damaged(&file.object, "it is shorter than it was written")),
                });
            match bytes {
                Ok(bytes) => {
                    hasher.update(&bytes);
                    verified.bytes += bytes.len() as u64;
                }
                Err(error) => {
                    failed = Some(index);
                    hasher = ContentHasher::default();
                    note(verified, &file.object, error)?;
                    continue;
                }
            }
            if range.end == file.range.1 && std::mem::take(&mut hasher).finish() != file.hash {
                note(verified, &file.object, damaged(&file.object, "its checksum differs"))?;
            }
        }
    }
    Ok(())
}

fn verify_blocks(
    catalogue: &Catalogue,
    blocks: &[Block<'_>],
    progress: &dyn Progress,
    verified: &mut Verified,
) -> Result<(), OfflineError> {
    for some in blocks.chunks(catalogue.store.concurrency().max(1)) {
        let parts = some.iter().map(|block| Part {
            name: block.increment.place_name(),
            range: block.range.clone(),
        });
        let read = catalogue.store.read_parts(&parts.collect::<Vec<_>>());
        for (bytes, block) in read.into_iter().zip(some) {
            progress.advance(block.range.end - block.range.start);
            let object = block.increment.place_name();
            let checked = bytes.map_err(SnapshotError::from).and_then(|bytes| {
                verified.bytes += bytes.len() as u64;
                let packed = catalogue.packed(block.base.task, &block.increment)?;
                let stores: Vec<String> = block.base.stores.iter().map(|store| store.name.clone()).collect();
                Ok(packed.unpack(&bytes, &stores, &object)?)
            });
            if let Err(error) = checked {
                note(verified, &object, error)?;
            }
        }
    }
    Ok(())
}
