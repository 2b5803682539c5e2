//! One partition: records by offset, open and aborted transactions, watermarks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::batch::Batch;
use super::broker::BrokerError;
use super::packed::{Packed, TransactionSerial, Writer};
use super::segments::{SegmentLimits, Segments};
use super::settings::TopicSettings;
use crate::log::Isolation;
use crate::time::Millis;

/// Records are gathered in chunks of at most this many bytes of payload …
pub(super) const CHUNK_BYTES: usize = 1 << 20;
/// … or this many records.
pub(super) const CHUNK_RECORDS: usize = 8192;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Its records become visible.
    Commit,
    /// Its records stay invisible to those who read committed.
    Abort,
}

/// A transaction that has written here and has not ended.
#[derive(Debug)]
struct OpenTransaction {
    serial: TransactionSerial,
    first_offset: i64,
}

/// One partition of a topic.
///
/// Chunks are immutable once sealed, so readers share them without copying. Offsets need not be contiguous.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) sealed: VecDeque<Arc<Packed>>,
    /// Takes the newest records; sealed when it is full and before somebody reads from it.
    filling: Packed,
    low: i64,
    high: i64,
    /// In order of their first offset.
    open: Vec<OpenTransaction>,
    /// Aborted transactions that wrote here, with the offset of their marker.
    pub(super) aborted: BTreeMap<TransactionSerial, i64>,
    pub(super) segments: Segments,
    /// Compaction has been here.
    pub(super) cleaned_until: i64,
    /// From when on compaction may take tombstones and end markers that it has seen once, by offset.
    pub(super) delete_horizons: BTreeMap<i64, Millis>,
}

impl Partition {
    /// An empty partition.
    pub fn new(limits: SegmentLimits) -> Self {
        Self {
            sealed: VecDeque::new(),
            filling: Packed::default(),
            low: 0,
            high: 0,
            open: Vec::new(),
            aborted: BTreeMap::new(),
            segments: Segments::new(limits),
            cleaned_until: 0,
            delete_horizons: BTreeMap::new(),
        }
    }

    /// First offset that can be read.
    pub fn low_watermark(&self) -> i64 {
        self.low
    }

    /// Offset after the last record, open transactions and markers included.
    pub fn high_watermark(&self) -> i64 {
        self.high
    }

    /// Offset before which every transaction has ended.
    pub fn last_stable_offset(&self) -> i64 {
        // DeleteRecords may have cut into an open transaction: nothing is stable or readable below the low watermark.
        self.open
            .first()
            .map_or(self.high, |oldest| oldest.first_offset.max(self.low))
    }

    /// The end for a reader of this isolation.
    pub fn end(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::ReadCommitted => self.last_stable_offset(),
            Isolation::ReadUncommitted => self.high,
        }
    }

    /// Whether the transaction has written here and is open.
    pub fn is_open(&self, serial: TransactionSerial) -> bool {
        self.open.iter().any(|open| open.serial == serial)
    }

    /// Appends records at `wall_ms` and answers the offset of the first.
    pub fn append(&mut self, records: &Packed, transaction: Option<TransactionSerial>, wall_ms: Millis) -> i64 {
        let first_offset = self.high;
        if let Some(serial) = transaction
            && !self.is_open(serial)
        {
            self.open.push(OpenTransaction { serial, first_offset });
        }
        // A chunk never reaches from one segment into the next.
        if self.segments.append(first_offset, records.appended(), wall_ms)
            || self.filling.payload_bytes() + records.payload_bytes() > CHUNK_BYTES
            || self.filling.len() + records.len() > CHUNK_RECORDS
        {
            self.seal();
        }
        self.filling
            .extend(records, first_offset, transaction.map_or(Writer::PLAIN, Writer::of));
        self.high += records.len() as i64;
        first_offset
    }

    /// Writes the end marker of a transaction at `wall_ms`, if it has written here.
    /// Answers the marker's offset.
    pub fn end_transaction(&mut self, serial: TransactionSerial, ending: Ending, wall_ms: Millis) -> Option<i64> {
        self.is_open(serial).then(|| self.write_marker(serial, ending, wall_ms))
    }

    /// Writes an end marker and answers its offset, whether or not records of the transaction are here.
    pub fn write_marker(&mut self, serial: TransactionSerial, ending: Ending, wall_ms: Millis) -> i64 {
        let offset = self.high;
        self.open.retain(|open| open.serial != serial);
        let mut marker = Packed::default();
        marker.push_control(self.high, serial, wall_ms);
        if self.segments.append(self.high, marker.appended(), wall_ms) {
            self.seal();
        }
        self.filling.take(&marker, 0);
        if ending == Ending::Abort {
            self.aborted.insert(serial, self.high);
        }
        self.high += 1;
        offset
    }

    /// Puts records from `offset` on into `batch`, at most up to `batch`'s limit, and answers the next offset to read:
    /// it passes markers, aborted records and holes.
    pub fn read(&mut self, offset: i64, isolation: Isolation, batch: &mut Batch) -> Result<i64, BrokerError> {
        if offset < self.low || offset > self.high {
            return Err(BrokerError::OffsetOutOfRange);
        }
        let end = self.end(isolation);
        if offset >= end {
            return Ok(offset);
        }
        if self.filling.records().first().is_some_and(|first| first.offset < end) {
            self.seal();
        }
        let from = self.sealed.partition_point(|chunk| last_offset(chunk) < offset);
        for chunk in self.sealed.range(from..) {
            let records = chunk.records();
            let start = records.partition_point(|record| record.offset < offset);
            let stop = start + records[start..].partition_point(|record| record.offset < end);
            for (index, record) in records.iter().enumerate().take(stop).skip(start) {
                if batch.is_full() {
                    return Ok(record.offset);
                }
                if self.is_visible(record.writer, isolation) {
                    batch.push(chunk, index);
                }
            }
            if stop < records.len() {
                break;
            }
        }
        Ok(end)
    }

    /// Transactions that have written here and have not ended.
    pub fn open_transactions(&self) -> impl Iterator<Item = TransactionSerial> {
        self.open.iter().map(|open| open.serial)
    }

    /// How a transaction ended of which only the marker may be left.
    pub fn ending_of(&self, serial: TransactionSerial) -> Ending {
        match self.aborted.contains_key(&serial) {
            true => Ending::Abort,
            false => Ending::Commit,
        }
    }

    /// All records in order, in the chunks in which they lie.
    pub fn chunks(&self) -> impl Iterator<Item = &Packed> {
        self.sealed.iter().map(|chunk| &**chunk).chain([&self.filling])
    }

    /// Leaves the offsets before `offset` without a record; `None` where they have one.
    pub fn skip_to(&mut self, offset: i64) -> Option<()> {
        self.high = (offset >= self.high).then_some(offset)?;
        Some(())
    }

    /// Closes the active segment.
    pub fn begin_segment(&mut self) {
        self.seal();
        self.segments.begin_at(self.high);
    }

    fn is_visible(&self, writer: Writer, isolation: Isolation) -> bool {
        match writer.transaction() {
            None => writer == Writer::PLAIN,
            Some(_) if isolation == Isolation::ReadUncommitted || self.aborted.is_empty() => true,
            Some(serial) => !self.aborted.contains_key(&serial),
        }
    }

    /// Deletes the records before `offset`. As in Kafka this may cut into an open transaction.
    pub fn delete_before(&mut self, offset: i64) -> Result<(), BrokerError> {
        if offset > self.high {
            return Err(BrokerError::OffsetOutOfRange);
        }
        if offset <= self.low {
            return Ok(());
        }
        self.seal();
        self.low = offset;
        let gone = self.sealed.partition_point(|chunk| last_offset(chunk) < offset);
        self.sealed.drain(..gone);
        self.aborted.retain(|_, marker| *marker >= offset);
        self.segments.forget_before(offset);
        self.delete_horizons = self.delete_horizons.split_off(&offset);
        Ok(())
    }

    /// Deletes the segments that the topic's retention gives up, never beyond the last stable offset. Answers whether
    /// there were any.
    pub fn expire(&mut self, settings: &TopicSettings, wall_ms: Millis) -> bool {
        let stable = self.last_stable_offset();
        let before = self.segments.expire(settings, stable, self.high, wall_ms);
        before.is_some_and(|before| self.delete_before(before).is_ok())
    }

    /// All offsets that are taken by a record, end markers included.
    #[cfg(test)]
    pub fn offsets(&self) -> Vec<i64> {
        let records = self.chunks().flat_map(Packed::records);
        records.map(|record| record.offset).collect()
    }

    fn seal(&mut self) {
        if !self.filling.is_empty() {
            self.sealed.push_back(Arc::new(std::mem::take(&mut self.filling)));
        }
    }
}

pub(super) fn last_offset(chunk: &Packed) -> i64 {
    chunk.records().last().map_or(-1, |record| record.offset)
}
