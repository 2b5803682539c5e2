//! What a task's database says about itself, and its byte format.
//!
//! All integers are big-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 4 | `TGSM` |
//! | 2 | version of this format, 2 |
//! | 8 | lineage |
//! | 8 | epoch |
//! | 8 | time of the epoch's end in milliseconds since the Unix epoch; not in version 1 |
//! | … | cut: a list of offsets |
//! | … | changelog: a list of offsets |
//! | 4 | CRC-32 (IEEE) of all bytes before |
//!
//! A list of offsets is its length (4 bytes), then for each, in order of topic and partition: length of the
//! topic's name (2 bytes), the name in UTF-8, partition (4), offset (8).

use std::collections::BTreeMap;

use crate::ids::{Epoch, Lineage, TopicPartition};
use crate::time::Millis;

const MAGIC: &[u8; 4] = b"TGSM";
const VERSION: u16 = 2;
/// Without the time.
const VERSION_WITHOUT_TIME: u16 = 1;
const CRC_BYTES: usize = 4;

/// What a task's database says about itself; written in the same batch as every increment (invariant I9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateMeta {
    /// The history that the data belongs to.
    pub lineage: Lineage,
    /// The last epoch that was applied.
    pub epoch: Epoch,
    /// When that epoch ended by its worker's wall clock, in milliseconds since the Unix epoch: how old the data is. 0
    /// where it is not known.
    pub ended_ms: Millis,
    /// The input offsets at the end of that epoch.
    pub cut: BTreeMap<TopicPartition, i64>,
    /// Per changelog partition, an offset at or before the end of that epoch's records: replay starts here.
    pub changelog: BTreeMap<TopicPartition, i64>,
}

/// Why bytes are not a [`StateMeta`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MetaError {
    /// Written by another version of Tidegate, or by something else.
    #[error("its metadata has format version {0}, this build reads version {VERSION}")]
    Version(u16),
    /// Damaged.
    #[error("its metadata is damaged: {0}")]
    Damaged(&'static str),
}

impl StateMeta {
    /// The byte format described at the top of this file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 * (1 + self.cut.len() + self.changelog.len()));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&self.lineage.0.to_be_bytes());
        bytes.extend_from_slice(&self.epoch.0.to_be_bytes());
        bytes.extend_from_slice(&self.ended_ms.to_be_bytes());
        encode_offsets(&self.cut, &mut bytes);
        encode_offsets(&self.changelog, &mut bytes);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
        bytes
    }

    /// Reads what [`StateMeta::encode`] wrote.
    ///
    /// # Errors
    /// [`MetaError`], for any other bytes.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, MetaError> {
        let (body, crc) = bytes
            .split_last_chunk::<CRC_BYTES>()
            .ok_or(MetaError::Damaged("it is too short"))?;
        if crc32fast::hash(body) != u32::from_be_bytes(*crc) {
            return Err(MetaError::Damaged("its checksum does not match"));
        }
        let mut reader = Reader { rest: body };
        if reader.take::<4>()? != *MAGIC {
            return Err(MetaError::Damaged("it does not begin with TGSM"));
        }
        let version = u16::from_be_bytes(reader.take()?);
        if ![VERSION, VERSION_WITHOUT_TIME].contains(&version) {
            return Err(MetaError::Version(version));
        }
        let meta = StateMeta {
            lineage: Lineage(u64::from_be_bytes(reader.take()?)),
            epoch: Epoch(u64::from_be_bytes(reader.take()?)),
            ended_ms: match version {
                VERSION_WITHOUT_TIME => 0,
                _ => i64::from_be_bytes(reader.take()?),
            },
            cut: reader.offsets()?,
            changelog: reader.offsets()?,
        };
        match reader.rest {
            [] => Ok(meta),
            _ => Err(MetaError::Damaged("bytes follow its end")),
        }
    }

    /// Invariant I9: within one lineage, epochs are applied in order and once. A replay of the changelog comes in
    /// pieces that keep the epoch from which it started, and only move on in the changelog.
    ///
    /// # Panics
    /// If `self` does not come after `stored`.
    pub(crate) fn assert_follows(&self, stored: Option<&StateMeta>) {
        if let Some(stored) = stored.filter(|stored| stored.lineage == self.lineage) {
            assert!(
                self.epoch > stored.epoch || (self.epoch == stored.epoch && self.moves_on_from(stored)),
                "epoch {} of lineage {} cannot be applied after epoch {}",
                self.epoch,
                self.lineage,
                stored.epoch,
            );
        }
    }

    /// Whether this is another piece of the replay that wrote `stored`, or its end.
    fn moves_on_from(&self, stored: &StateMeta) -> bool {
        let goes_back = |(partition, offset)| self.changelog.get(partition).is_none_or(|now| now < offset);
        !stored.changelog.iter().any(goes_back) && (&self.changelog, &self.cut) != (&stored.changelog, &stored.cut)
    }
}

fn encode_offsets(offsets: &BTreeMap<TopicPartition, i64>, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&(offsets.len() as u32).to_be_bytes());
    for (at, offset) in offsets {
        // Kafka limits a topic's name to 249 bytes.
        bytes.extend_from_slice(&(at.topic.len() as u16).to_be_bytes());
        bytes.extend_from_slice(at.topic.as_bytes());
        bytes.extend_from_slice(&at.partition.to_be_bytes());
        bytes.extend_from_slice(&offset.to_be_bytes());
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], MetaError> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(MetaError::Damaged("it ends early"))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn offsets(&mut self) -> Result<BTreeMap<TopicPartition, i64>, MetaError> {
        let count = u32::from_be_bytes(self.take()?);
        let mut offsets = BTreeMap::new();
        for _ in 0..count {
            let name_bytes = usize::from(u16::from_be_bytes(self.take()?));
            let (name, rest) = self
                .rest
                .split_at_checked(name_bytes)
                .ok_or(MetaError::Damaged("it ends early"))?;
            self.rest = rest;
            let topic = str::from_utf8(name).map_err(|_| MetaError::Damaged("a topic's name is not UTF-8"))?;
            let partition = i32::from_be_bytes(self.take()?);
            let at = TopicPartition::new(topic, partition);
            offsets.insert(at, i64::from_be_bytes(self.take()?));
        }
        Ok(offsets)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offsets() -> impl Strategy<Value = BTreeMap<TopicPartition, i64>> {
        let at = ("[a-zA-Z0-9._é-]{0,40}", any::<i32>())
            .prop_map(|(topic, partition)| TopicPartition::new(topic, partition));
        proptest::collection::btree_map(at, any::<i64>(), 0..6)
    }

    fn metas() -> impl Strategy<Value = StateMeta> {
        let parts = (any::<u64>(), any::<u64>(), any::<i64>(), offsets(), offsets());
        parts.prop_map(|(lineage, epoch, ended_ms, cut, changelog)| StateMeta {
            lineage: Lineage(lineage),
            epoch: Epoch(epoch),
            ended_ms,
            cut,
            changelog,
        })
    }

    fn with_crc(mut body: Vec<u8>) -> Vec<u8> {
        body.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
        body
    }

    proptest! {
        #[test]
        fn metadata_survives_encoding(meta in metas()) {
            prop_assert_eq!(StateMeta::decode(&meta.encode()), Ok(meta));
        }

        #[test]
        fn a_flipped_bit_is_noticed(meta in metas(), position: prop::sample::Index, bit in 0..8) {
            let mut bytes = meta.encode();
            let position = position.index(bytes.len());
            bytes[position] ^= 1u8 << bit;
            prop_assert!(StateMeta::decode(&bytes).is_err());
        }

        #[test]
        fn garbage_with_a_good_checksum_is_refused_or_read_but_never_panics(
            body in proptest::collection::vec(any::<u8>(), 0..200),
            framed: bool,
        ) {
            let mut bytes = if framed { b"TGSM\x00\x02".to_vec() } else { Vec::new() };
            bytes.extend_from_slice(&body);
            if let Ok(meta) = StateMeta::decode(&with_crc(bytes)) {
                prop_assert_eq!(StateMeta::decode(&meta.encode()), Ok(meta));
            }
        }
    }

    fn fixture_meta(ended_ms: Millis) -> StateMeta {
        StateMeta {
            lineage: Lineage(0xabc),
            epoch: Epoch(7),
            ended_ms,
            cut: [("flights", 1024), ("planes", 5)]
                .map(|(topic, offset)| (TopicPartition::new(topic, 3), offset))
                .into(),
            changelog: [(TopicPartition::new("app-c-changelog", 3), 65536)].into(),
        }
    }

    #[test]
    fn version_1_is_read_for_ever() {
        let fixture = b"TGSM\x00\x01\
            \x00\x00\x00\x00\x00\x00\x0a\xbc\
            \x00\x00\x00\x00\x00\x00\x00\x07\
            \x00\x00\x00\x02\
            \x00\x07flights\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x04\x00\
            \x00\x06planes\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x05\
            \x00\x00\x00\x01\
            \x00\x0fapp-c-changelog\x00\x00\x00\x03\x00\x00\x00\x00\x00\x01\x00\x00\
            \x16\x5d\x05\x6a";
        assert_eq!(StateMeta::decode(fixture), Ok(fixture_meta(0)));
    }

    #[test]
    fn version_2_is_written_and_read_for_ever() {
        let fixture = b"TGSM\x00\x02\
            \x00\x00\x00\x00\x00\x00\x0a\xbc\
            \x00\x00\x00\x00\x00\x00\x00\x07\
            \x00\x00\x01\x3b\xf5\x8d\xa9\x00\
            \x00\x00\x00\x02\
            \x00\x07flights\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x04\x00\
            \x00\x06planes\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x05\
            \x00\x00\x00\x01\
            \x00\x0fapp-c-changelog\x00\x00\x00\x03\x00\x00\x00\x00\x00\x01\x00\x00\
            \xd0\xe2\x94\x20";
        let meta = fixture_meta(1_357_034_400_000);
        assert_eq!(meta.encode(), fixture, "the format never changes without a new version");
        assert_eq!(StateMeta::decode(fixture), Ok(meta));
    }

    #[test]
    fn another_version_is_named() {
        let bytes = with_crc(b"TGSM\x00\x03whatever".to_vec());
        assert_eq!(StateMeta::decode(&bytes), Err(MetaError::Version(3)));
    }
}
