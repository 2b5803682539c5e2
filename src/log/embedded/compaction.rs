//! Compaction of one partition: of several records with one key the last one stays.
//!
//! A pass first learns, from what was never cleaned, the last offset of every key, and then goes over everything from
//! the start of the log. It follows Kafka's `Cleaner`: neither the active segment nor anything from the last stable
//! offset on is touched; records of aborted transactions go at once; a tombstone stays for `delete.retention.ms` after the
//! first pass that met it; an end marker stays until a pass meets none of its transaction's records, and then for
//! `delete.retention.ms` more. Offsets stay taken, and the low watermark stays where it is.
//!
//! A pass is made of short steps, and between two of them clients are served. That is safe because each step only takes
//! records that a later one replaces, and nothing before the pass's end changes but by deletion.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::packed::{Packed, TransactionSerial};
use super::partition::{CHUNK_BYTES, CHUNK_RECORDS, Partition, last_offset};
use super::segments::{Cleanable, Tally};
use crate::time::Millis;

/// A step ends after the chunk with which it has seen this many records.
const STEP_RECORDS: usize = 4096;
/// What the keys of one pass may take in memory; a pass with more keys ends earlier, as in Kafka.
const KEYS_MAX_BYTES: usize = 64 << 20;
/// What a key takes besides its bytes, about.
const KEY_OVERHEAD_BYTES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    LearnKeys,
    Rewrite,
}

/// A compaction under way.
#[derive(Debug)]
pub(super) struct Pass {
    stage: Stage,
    /// Offset of the next record to look at.
    next: i64,
    /// Offset after the last record that the pass may take.
    end: i64,
    latest: BTreeMap<Box<[u8]>, i64>,
    keys_bytes: usize,
    /// Transactions of which the pass has met records, and not yet the end.
    met: BTreeSet<TransactionSerial>,
    tally: Tally,
}

/// What decides about a record besides its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Horizon {
    /// The broker's time.
    pub wall_ms: Millis,
    /// `delete.retention.ms`
    pub delete_retention_ms: Millis,
}

impl Pass {
    /// A pass over what may be cleaned.
    pub fn new(cleanable: Cleanable) -> Self {
        Self {
            stage: Stage::LearnKeys,
            next: cleanable.from,
            end: cleanable.end,
            latest: BTreeMap::new(),
            keys_bytes: 0,
            met: BTreeSet::new(),
            tally: Tally::default(),
        }
    }

    /// Goes on for a bounded number of records; answers whether the pass is complete.
    pub fn step(&mut self, partition: &mut Partition, horizon: Horizon) -> bool {
        match self.stage {
            Stage::LearnKeys => {
                self.learn_keys(partition);
                false
            }
            Stage::Rewrite => self.rewrite(partition, horizon),
        }
    }

    fn learn_keys(&mut self, partition: &Partition) {
        let mut seen = 0;
        let first = partition.sealed.partition_point(|chunk| last_offset(chunk) < self.next);
        for chunk in partition.sealed.range(first..) {
            if seen >= STEP_RECORDS {
                return;
            }
            let records = chunk.records();
            for (index, record) in records.iter().enumerate() {
                let is_aborted = record
                    .writer
                    .transaction()
                    .is_some_and(|serial| partition.aborted.contains_key(&serial));
                if record.offset < self.next
                    || record.offset >= self.end
                    || is_aborted
                    || chunk.ended_by(index).is_some()
                {
                    continue;
                }
                if let Some(key) = chunk.lend(index).key {
                    match self.latest.get_mut(key) {
                        Some(offset) => *offset = record.offset,
                        None => {
                            self.keys_bytes += key.len() + KEY_OVERHEAD_BYTES;
                            self.latest.insert(key.into(), record.offset);
                        }
                    }
                }
            }
            self.next = last_offset(chunk) + 1;
            seen += records.len();
            if self.keys_bytes > KEYS_MAX_BYTES {
                self.end = self.end.min(self.next);
            }
            if self.next >= self.end {
                break;
            }
        }
        self.stage = Stage::Rewrite;
        self.next = 0;
    }

    fn rewrite(&mut self, partition: &mut Partition, horizon: Horizon) -> bool {
        let first = partition.sealed.partition_point(|chunk| last_offset(chunk) < self.next);
        let mut after = first;
        let mut seen = 0;
        let mut kept = Chunks::default();
        while let Some(chunk) = partition.sealed.get(after).cloned()
            && seen < STEP_RECORDS
            && chunk.records().first().is_some_and(|record| record.offset < self.end)
        {
            for index in 0..chunk.len() {
                if self.keeps(partition, &chunk, index, horizon) {
                    kept.take(&chunk, index);
                }
            }
            seen += chunk.len();
            after += 1;
            self.next = last_offset(&chunk) + 1;
        }
        if after > first {
            let later = partition.sealed.split_off(after);
            partition.sealed.truncate(first);
            partition.sealed.extend(kept.finish());
            partition.sealed.extend(later);
            return false;
        }
        partition.segments.compacted(&self.tally, self.end);
        partition.cleaned_until = self.end;
        // All records of these transactions lay before their markers, and are gone.
        let end = self.end;
        partition.aborted.retain(|_, marker| *marker >= end);
        true
    }

    fn keeps(&mut self, partition: &mut Partition, chunk: &Packed, index: usize, horizon: Horizon) -> bool {
        let record = &chunk.records()[index];
        let keeps = record.offset >= self.end || self.is_needed(partition, chunk, index, horizon);
        match keeps {
            true => partition.segments.count(
                &mut self.tally,
                record.offset,
                record.segment_bytes(),
                record.timestamp_ms,
            ),
            false => {
                partition.delete_horizons.remove(&record.offset);
            }
        }
        keeps
    }

    fn is_needed(&mut self, partition: &mut Partition, chunk: &Packed, index: usize, horizon: Horizon) -> bool {
        let record = &chunk.records()[index];
        if let Some(ended) = chunk.ended_by(index) {
            return self.met.remove(&ended) || horizon.spares(partition, record.offset);
        }
        if let Some(serial) = record.writer.transaction() {
            self.met.insert(serial);
            if partition.aborted.contains_key(&serial) {
                return false;
            }
        }
        let Some(key) = chunk.lend(index).key else {
            return false;
        };
        let is_latest = self.latest.get(key).is_none_or(|latest| *latest <= record.offset);
        is_latest && (!record.is_tombstone() || horizon.spares(partition, record.offset))
    }
}

impl Horizon {
    /// Whether the time has not come yet to take what only waits for its time. The first question sets the time.
    fn spares(self, partition: &mut Partition, offset: i64) -> bool {
        match partition.delete_horizons.get(&offset) {
            Some(from_ms) => self.wall_ms < *from_ms,
            None => {
                let from_ms = self.wall_ms.saturating_add(self.delete_retention_ms);
                partition.delete_horizons.insert(offset, from_ms);
                true
            }
        }
    }
}

/// Gathers records in chunks of a good size.
#[derive(Default)]
struct Chunks {
    full: Vec<Arc<Packed>>,
    filling: Packed,
}

impl Chunks {
    fn take(&mut self, chunk: &Packed, index: usize) {
        let bytes = chunk.records()[index].segment_bytes() as usize;
        if self.filling.len() >= CHUNK_RECORDS || self.filling.payload_bytes() + bytes > CHUNK_BYTES {
            self.cut();
        }
        self.filling.take(chunk, index);
    }

    fn cut(&mut self) {
        if !self.filling.is_empty() {
            self.full.push(Arc::new(std::mem::take(&mut self.filling)));
        }
    }

    fn finish(mut self) -> Vec<Arc<Packed>> {
        self.cut();
        self.full
    }
}
