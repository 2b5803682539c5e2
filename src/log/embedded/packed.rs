//! Records packed into one buffer: what a produce request carries and what a partition keeps.

use std::fmt;

use super::segments::Appended;
use crate::record::{Headers, RecordRef};
use crate::time::{Millis, NO_TIMESTAMP};

/// Length that stands for Kafka's null.
const NULL: u32 = u32::MAX;

/// What a record takes besides its bytes, as sizes of segments count it: about what a large batch of format 2 adds to it.
const RECORD_OVERHEAD_BYTES: u64 = 12;

/// Bytes of a record batch of format 2 before its first record.
const BATCH_HEADER_BYTES: usize = 61;

/// Serial number of a transaction, unique within one embedded log and never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TransactionSerial(pub u64);

/// Who wrote a record, in one word: nobody in particular, the log itself, or a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Writer(u64);

impl Writer {
    /// A producer without a transaction.
    pub const PLAIN: Self = Self(0);
    /// The log: the record is the end marker of a transaction and is never delivered.
    pub const CONTROL: Self = Self(u64::MAX);

    /// A transaction.
    pub fn of(transaction: TransactionSerial) -> Self {
        Self(transaction.0)
    }

    /// The transaction, if it was one.
    pub fn transaction(self) -> Option<TransactionSerial> {
        (self != Self::PLAIN && self != Self::CONTROL).then_some(TransactionSerial(self.0))
    }
}

/// One record; its bytes lie in [`Packed::bytes`].
#[derive(Clone)]
pub(super) struct PackedRecord {
    /// Offset in the partition; meaningless before the partition has taken the record.
    pub offset: i64,
    /// Timestamp in milliseconds.
    pub timestamp_ms: Millis,
    /// Who wrote it.
    pub writer: Writer,
    /// The headers.
    pub headers: Headers,
    start: u32,
    key_bytes: u32,
    value_bytes: u32,
}

impl PackedRecord {
    fn stored_bytes(&self) -> usize {
        length(self.key_bytes) + length(self.value_bytes)
    }

    /// Size of the record as sizes of segments count it.
    pub fn segment_bytes(&self) -> u64 {
        self.stored_bytes() as u64 + RECORD_OVERHEAD_BYTES
    }

    /// Whether the record has no key.
    pub fn is_keyless(&self) -> bool {
        self.key_bytes == NULL
    }

    /// Whether the record has no value.
    pub fn is_tombstone(&self) -> bool {
        self.value_bytes == NULL
    }

    /// Size of a record batch that holds only this record, as a broker compares it with `max.message.bytes`.
    pub fn batch_bytes(&self) -> usize {
        let field = |bytes: u32| match bytes {
            NULL => 1,
            bytes => varint_bytes(u64::from(bytes)) + bytes as usize,
        };
        let headers = self.headers.as_slice();
        let headers_bytes: usize = headers
            .iter()
            .map(|header| {
                let value = header
                    .value
                    .as_ref()
                    .map_or(1, |value| varint_bytes(value.len() as u64) + value.len());
                varint_bytes(header.name.len() as u64) + header.name.len() + value
            })
            .sum();
        // Attributes, timestamp delta and offset delta take one byte each in the first record of a batch.
        let body =
            3 + field(self.key_bytes) + field(self.value_bytes) + varint_bytes(headers.len() as u64) + headers_bytes;
        BATCH_HEADER_BYTES + varint_bytes(body as u64) + body
    }
}

/// Length of a non-negative number in Kafka's zig-zag variable-length encoding.
fn varint_bytes(number: u64) -> usize {
    let zigzag = number << 1;
    (64 - zigzag.max(1).leading_zeros() as usize).div_ceil(7)
}

fn length(bytes: u32) -> usize {
    if bytes == NULL { 0 } else { bytes as usize }
}

/// Records in order with their bytes in one buffer.
#[derive(Clone, Default)]
pub(super) struct Packed {
    records: Vec<PackedRecord>,
    bytes: Vec<u8>,
}

impl Packed {
    /// No records yet, but room for one.
    pub fn with_room(key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        let bytes = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        Self {
            records: Vec::with_capacity(1),
            bytes: Vec::with_capacity(bytes),
        }
    }

    /// Appends a record, copying its bytes.
    pub fn push(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, timestamp_ms: Millis, headers: Headers) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(key.unwrap_or_default());
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.records.push(PackedRecord {
            offset: 0,
            timestamp_ms,
            writer: Writer::PLAIN,
            headers,
            start,
            key_bytes: key.map_or(NULL, |key| key.len() as u32),
            value_bytes: value.map_or(NULL, |value| value.len() as u32),
        });
    }

    /// Appends a copy of every record of `other`, numbered from `offset` on and signed by `writer`.
    pub fn extend(&mut self, other: &Packed, mut offset: i64, writer: Writer) {
        let shift = self.bytes.len() as u32;
        self.bytes.extend_from_slice(&other.bytes);
        self.records.extend(other.records.iter().map(|record| {
            let moved = PackedRecord {
                offset,
                writer,
                start: record.start + shift,
                ..record.clone()
            };
            offset += 1;
            moved
        }));
    }

    /// Appends the end marker of a transaction: a record of the log's own, whose key says which transaction it ends.
    pub fn push_control(&mut self, offset: i64, ended: TransactionSerial, timestamp_ms: Millis) {
        self.push(Some(&ended.0.to_be_bytes()), None, timestamp_ms, Headers::default());
        if let Some(marker) = self.records.last_mut() {
            marker.offset = offset;
            marker.writer = Writer::CONTROL;
        }
    }

    /// The transaction that the record at `index` ends, if it is an end marker.
    pub fn ended_by(&self, index: usize) -> Option<TransactionSerial> {
        let key = (self.records[index].writer == Writer::CONTROL).then(|| self.lend(index).key)??;
        Some(TransactionSerial(u64::from_be_bytes(key.try_into().ok()?)))
    }

    /// Appends a copy of the record at `index` of `other`, its place in the log included.
    pub fn take(&mut self, other: &Packed, index: usize) {
        let record = &other.records[index];
        let start = record.start as usize;
        let moved = PackedRecord {
            start: self.bytes.len() as u32,
            ..record.clone()
        };
        self.bytes
            .extend_from_slice(&other.bytes[start..start + record.stored_bytes()]);
        self.records.push(moved);
    }

    /// What an append of all records means to segments.
    pub fn appended(&self) -> Appended {
        Appended {
            bytes: self.bytes.len() as u64 + self.records.len() as u64 * RECORD_OVERHEAD_BYTES,
            timestamp_ms: self
                .records
                .iter()
                .map(|record| record.timestamp_ms)
                .max()
                .unwrap_or(NO_TIMESTAMP),
        }
    }

    /// All records.
    pub fn records(&self) -> &[PackedRecord] {
        &self.records
    }

    /// The record at `index` as the port lends it.
    pub fn lend(&self, index: usize) -> RecordRef<'_> {
        let record = &self.records[index];
        let key_end = record.start as usize + length(record.key_bytes);
        let value_end = record.start as usize + record.stored_bytes();
        RecordRef {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: (record.key_bytes != NULL).then(|| &self.bytes[record.start as usize..key_end]),
            value: (record.value_bytes != NULL).then(|| &self.bytes[key_end..value_end]),
        }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of key and value of the largest record.
    pub fn largest_record_bytes(&self) -> usize {
        self.records.iter().map(PackedRecord::stored_bytes).max().unwrap_or(0)
    }

    /// Bytes of all keys and values.
    pub fn payload_bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records, {} bytes", self.records.len(), self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_empty_strings_stay_apart() {
        let mut packed = Packed::default();
        packed.push(None, Some(b""), 1, Headers::default());
        packed.push(Some(b""), None, 2, Headers::default());
        packed.push(Some(b"key"), Some(b"value"), 3, Headers::default());
        let lent: Vec<_> = (0..3).map(|index| packed.lend(index)).collect();
        assert_eq!((lent[0].key, lent[0].value), (None, Some(&b""[..])));
        assert_eq!((lent[1].key, lent[1].value), (Some(&b""[..]), None));
        assert_eq!((lent[2].key, lent[2].value), (Some(&b"key"[..]), Some(&b"value"[..])));
    }

    #[test]
    fn the_batch_size_is_that_of_format_2() {
        let size = |key: Option<&[u8]>, value: Option<&[u8]>, headers: Headers| {
            let mut packed = Packed::default();
            packed.push(key, value, 0, headers);
            packed.records()[0].batch_bytes()
        };
        // 61 + length 1 + attributes, deltas 3 + two nulls 2 + header count 1
        assert_eq!(size(None, None, Headers::default()), 68);
        assert_eq!(size(Some(b"ab"), Some(b""), Headers::default()), 70);
        // 63 is the longest length in one byte, 8191 in two.
        assert_eq!(size(None, Some(&[0; 63]), Headers::default()), 61 + 2 + 3 + 1 + 64 + 1);
        assert_eq!(size(None, Some(&[0; 64]), Headers::default()), 61 + 2 + 3 + 1 + 66 + 1);
        let mut headers = Headers::default();
        headers.push("h", Some(vec![1, 2]));
        assert_eq!(size(None, None, headers), 68 + 2 + 3);
    }
}
