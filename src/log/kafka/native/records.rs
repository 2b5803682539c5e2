//! Batches of records in Kafka's format, version 2, filled record by record without an allocation for any of them.

use std::time::Duration;

use crc_fast::{CrcAlgorithm, checksum};

use super::compression::{Codec, CompressionError, Compressor};
use super::wire::{varint_len, write_varint, zigzag};
use crate::record::Headers;

/// Bytes before the first record.
pub(super) const HEADER_BYTES: usize = 61;

/// Where the bytes begin that the checksum covers.
const CHECKED_FROM: usize = 21;

/// What the field of the batch's length does not count.
const LENGTH_FROM: usize = 12;

const MAGIC: u8 = 2;
const TRANSACTIONAL: i16 = 0x10;

/// A producer as brokers know it: the epoch changes with every transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub id: i64,
    pub epoch: i16,
}

/// What one record is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub timestamp_ms: i64,
    pub headers: &'a Headers,
}

impl Parts<'_> {
    /// Bytes of key and value.
    pub fn payload_bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len)
    }

    /// Bytes in a batch besides the length in front, as a record with these differences to the batch.
    #[inline]
    fn body_len(&self, timestamp_delta: i64, offset_delta: i64) -> usize {
        let headers = self.headers.as_slice();
        let mut bytes = 1 + varint_len(zigzag(timestamp_delta)) + varint_len(zigzag(offset_delta));
        bytes += nullable_len(self.key) + nullable_len(self.value);
        bytes += varint_len(zigzag(headers.len() as i64));
        for header in headers {
            bytes += nullable_len(Some(header.name.as_bytes())) + nullable_len(header.value.as_deref());
        }
        bytes
    }

    /// The size of a batch that has nothing but this record.
    pub fn alone_bytes(&self) -> usize {
        let body = self.body_len(0, 0);
        HEADER_BYTES + varint_len(zigzag(body as i64)) + body
    }
}

fn nullable_len(bytes: Option<&[u8]>) -> usize {
    match bytes {
        Some(bytes) => varint_len(zigzag(bytes.len() as i64)) + bytes.len(),
        None => 1,
    }
}

#[inline]
fn write_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            write_varint(out, zigzag(bytes.len() as i64));
            out.extend_from_slice(bytes);
        }
        None => write_varint(out, zigzag(-1)),
    }
}

/// Records of one partition that become one batch.
#[derive(Debug)]
pub(super) struct Batch {
    /// Room for the header, then the records, not compressed.
    bytes: Vec<u8>,
    records: i32,
    payload_bytes: usize,
    largest_payload: usize,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    /// Set when it is first sent; a batch that is sent again keeps it.
    sequence: Option<i32>,
    encoded: bool,
    /// Times that it was sent and has to be sent again.
    pub attempts: u32,
    /// When its first record came, by whatever clock the owner keeps.
    pub opened: Duration,
}

impl Batch {
    /// An empty one in a buffer that may have been another's.
    pub fn in_buffer(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        bytes.resize(HEADER_BYTES, 0);
        Self {
            bytes,
            records: 0,
            payload_bytes: 0,
            largest_payload: 0,
            base_timestamp_ms: 0,
            max_timestamp_ms: i64::MIN,
            sequence: None,
            encoded: false,
            attempts: 0,
            opened: Duration::ZERO,
        }
    }

    pub fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    pub fn len(&self) -> usize {
        usize::try_from(self.records).unwrap_or(0)
    }

    /// Bytes as a batch, before compression.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of keys and values.
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// Key and value of the largest record, in bytes.
    pub fn largest_payload(&self) -> usize {
        self.largest_payload
    }

    /// Appends a record, unless the batch would then be larger than `max_bytes`; the first one always has room.
    #[inline]
    pub fn push(&mut self, parts: &Parts<'_>, max_bytes: usize) -> bool {
        if self.records == 0 {
            self.base_timestamp_ms = parts.timestamp_ms;
        }
        let timestamp_delta = parts.timestamp_ms.wrapping_sub(self.base_timestamp_ms);
        let offset_delta = i64::from(self.records);
        let body = parts.body_len(timestamp_delta, offset_delta);
        let prefixed = varint_len(zigzag(body as i64)) + body;
        if self.records > 0 && self.bytes.len() + prefixed > max_bytes {
            return false;
        }
        let out = &mut self.bytes;
        out.reserve(prefixed);
        write_varint(out, zigzag(body as i64));
        out.push(0);
        write_varint(out, zigzag(timestamp_delta));
        write_varint(out, zigzag(offset_delta));
        write_nullable(out, parts.key);
        write_nullable(out, parts.value);
        let headers = parts.headers.as_slice();
        write_varint(out, zigzag(headers.len() as i64));
        for header in headers {
            write_nullable(out, Some(header.name.as_bytes()));
            write_nullable(out, header.value.as_deref());
        }
        self.records += 1;
        let payload = parts.payload_bytes();
        self.payload_bytes += payload;
        self.largest_payload = self.largest_payload.max(payload);
        self.max_timestamp_ms = self.max_timestamp_ms.max(parts.timestamp_ms);
        true
    }

    /// Gives it its place in the partition, unless it has one; answers the place of the batch after it.
    pub fn place(&mut self, next: i32) -> i32 {
        match self.sequence {
            Some(_) => next,
            None => {
                self.sequence = Some(next);
                // Kafka begins again at 0 after the largest number.
                next.wrapping_add(self.records) & i32::MAX
            }
        }
    }

    /// Its place in the partition; `None` as long as it was never sent.
    #[cfg(test)]
    pub fn sequence(&self) -> Option<i32> {
        self.sequence
    }

    /// Compresses it and writes its header, unless that is done; it must have been placed. `spare` is a buffer for it.
    ///
    /// # Errors
    /// Whatever the codec's library says.
    pub fn encode(
        &mut self,
        identity: Identity,
        compressor: &mut Compressor,
        spare: &mut Vec<u8>,
    ) -> Result<(), CompressionError> {
        if self.encoded {
            return Ok(());
        }
        let codec = compressor.codec();
        if codec != Codec::None {
            spare.clear();
            spare.resize(HEADER_BYTES, 0);
            compressor.compress(&self.bytes[HEADER_BYTES..], spare)?;
            std::mem::swap(&mut self.bytes, spare);
        }
        self.write_header(identity, codec);
        self.encoded = true;
        Ok(())
    }

    fn write_header(&mut self, identity: Identity, codec: Codec) {
        let length = i32::try_from(self.bytes.len() - LENGTH_FROM).unwrap_or(i32::MAX);
        let sequence = self.sequence.unwrap_or(-1);
        let mut at = 0;
        let mut put = |bytes: &mut [u8], field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        let bytes = &mut self.bytes[..];
        put(bytes, &0_i64.to_be_bytes()); // The broker sets the offset,
        put(bytes, &length.to_be_bytes());
        put(bytes, &(-1_i32).to_be_bytes()); // and the leader's epoch.
        put(bytes, &[MAGIC]);
        put(bytes, &[0; 4]);
        put(bytes, &(TRANSACTIONAL | codec.attribute()).to_be_bytes());
        put(bytes, &(self.records - 1).to_be_bytes());
        put(bytes, &self.base_timestamp_ms.to_be_bytes());
        put(bytes, &self.max_timestamp_ms.to_be_bytes());
        put(bytes, &identity.id.to_be_bytes());
        put(bytes, &identity.epoch.to_be_bytes());
        put(bytes, &sequence.to_be_bytes());
        put(bytes, &self.records.to_be_bytes());
        let sum = checksum(CrcAlgorithm::Crc32Iscsi, &bytes[CHECKED_FROM..]) as u32;
        bytes[CHECKED_FROM - 4..CHECKED_FROM].copy_from_slice(&sum.to_be_bytes());
    }

    /// The batch as it is sent, once it is encoded.
    pub fn encoded(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Header;

    const IDENTITY: Identity = Identity { id: 7, epoch: 3 };

    fn parts<'a>(key: Option<&'a [u8]>, value: Option<&'a [u8]>, timestamp_ms: i64, headers: &'a Headers) -> Parts<'a> {
        Parts {
            key,
            value,
            timestamp_ms,
            headers,
        }
    }

    fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
        bytes[at..at + N].try_into().expect("the field is there")
    }

    #[test]
    fn a_batch_has_the_header_and_the_records_of_version_2() {
        let none = Headers::default();
        let headers = Headers::new(vec![Header {
            name: "h".into(),
            value: None,
        }]);
        let mut batch = Batch::in_buffer(vec![9; 100]);
        assert!(batch.push(&parts(Some(b"k"), Some(b"vw"), 1_000, &none), 1_000));
        assert!(batch.push(&parts(None, None, 998, &headers), 1_000));
        assert_eq!(batch.place(5), 7);
        assert_eq!(batch.place(9), 9, "it keeps its place");
        let mut compressor = Compressor::new(Codec::None, None).expect("no compression");
        batch
            .encode(IDENTITY, &mut compressor, &mut Vec::new())
            .expect("nothing to compress");
        let bytes = batch.encoded();
        assert_eq!(i32::from_be_bytes(field(bytes, 8)) as usize, bytes.len() - LENGTH_FROM);
        assert_eq!(bytes[16], MAGIC);
        assert_eq!(i16::from_be_bytes(field(bytes, 21)), TRANSACTIONAL);
        assert_eq!(i32::from_be_bytes(field(bytes, 23)), 1, "offset of the last record");
        assert_eq!(i64::from_be_bytes(field(bytes, 27)), 1_000);
        assert_eq!(i64::from_be_bytes(field(bytes, 35)), 1_000, "the latest timestamp");
        assert_eq!(i64::from_be_bytes(field(bytes, 43)), 7);
        assert_eq!(i16::from_be_bytes(field(bytes, 51)), 3);
        assert_eq!(i32::from_be_bytes(field(bytes, 53)), 5);
        assert_eq!(i32::from_be_bytes(field(bytes, 57)), 2);
        assert_eq!(
            bytes[HEADER_BYTES..],
            [
                18, 0, 0, 0, 2, b'k', 4, b'v', b'w', 0, // length 9, timestamp +0, offset +0
                18, 0, 3, 2, 1, 1, 2, 2, b'h',
                1, // length 9, timestamp -2, offset +1, nulls, one header without value
            ]
        );
        // The check value of CRC-32C, so that the right polynomial is taken.
        assert_eq!(checksum(CrcAlgorithm::Crc32Iscsi, b"123456789"), 0xe306_9283);
        let sum = checksum(CrcAlgorithm::Crc32Iscsi, &bytes[CHECKED_FROM..]) as u32;
        assert_eq!(u32::from_be_bytes(field(bytes, 17)), sum);
    }

    #[test]
    fn a_batch_is_full_at_its_limit_and_takes_a_first_record_of_any_size() {
        let headers = Headers::default();
        let value = [0; 200];
        let record = parts(Some(b"key"), Some(&value), 0, &headers);
        let alone = record.alone_bytes();
        let mut batch = Batch::in_buffer(Vec::new());
        assert!(batch.push(&record, 10), "the first one always has room");
        assert_eq!((batch.bytes(), batch.len()), (alone, 1));
        assert!(!batch.push(&record, 2 * alone - HEADER_BYTES - 1));
        assert!(batch.push(&record, 2 * alone - HEADER_BYTES));
        assert_eq!((batch.payload_bytes(), batch.largest_payload()), (406, 203));
    }

    #[test]
    fn compressed_records_come_out_again() {
        let headers = Headers::default();
        for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd] {
            let mut batch = Batch::in_buffer(Vec::new());
            for number in 0..5_000 {
                let value = format!("value {number}");
                assert!(batch.push(&parts(None, Some(value.as_bytes()), 0, &headers), 1 << 20));
            }
            let plain = batch.bytes[HEADER_BYTES..].to_vec();
            batch.place(0);
            let mut compressor = Compressor::new(codec, None).expect("the codec is there");
            let mut spare = Vec::new();
            batch
                .encode(IDENTITY, &mut compressor, &mut spare)
                .expect("it is compressed");
            let bytes = batch.encoded();
            assert!(bytes.len() < plain.len() / 2, "{codec:?}");
            assert_eq!(i16::from_be_bytes(field(bytes, 21)), TRANSACTIONAL | codec.attribute());
            assert_eq!(
                super::super::compression::decompressed(codec, &bytes[HEADER_BYTES..]),
                plain
            );
        }
    }
}
