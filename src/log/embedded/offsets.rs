//! Offsets that a group has committed, and those that wait for the end of their transaction.

use std::collections::BTreeMap;
use std::time::Duration;

use super::broker::{Broker, BrokerError, Request, Wake};
use super::packed::TransactionSerial;
use super::partition::Ending;
use crate::ids::TopicPartition;
use crate::log::{CommitOffset, CommittedOffset, GroupMetadata};

/// Kafka's default for `offset.metadata.max.bytes`.
const METADATA_MAX_BYTES: usize = 4096;
/// All offsets of one call make one record batch of `__consumer_offsets`, whose size Kafka limits to this by default.
const CALL_MAX_BYTES: usize = 1_048_588;
/// What one offset takes in that batch besides its texts.
const OFFSET_OVERHEAD_BYTES: usize = 48;

/// An offset with its place in the order in which offsets of the group were written.
#[derive(Clone, Debug)]
struct Written {
    sequence: u64,
    offset: CommittedOffset,
}

/// The offsets of one group.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    committed: BTreeMap<TopicPartition, Written>,
    pending: BTreeMap<TransactionSerial, BTreeMap<TopicPartition, Written>>,
    last_sequence: u64,
}

impl Offsets {
    /// Writes offsets that count at once.
    pub fn write(&mut self, group: &str, offsets: &[CommitOffset]) -> Result<(), BrokerError> {
        check_size(group, offsets)?;
        for offset in offsets {
            let written = self.sequenced(offset);
            self.committed.insert(offset.partition.clone(), written);
        }
        Ok(())
    }

    /// Writes offsets that count once the transaction has committed.
    pub fn write_pending(
        &mut self,
        transaction: TransactionSerial,
        group: &str,
        offsets: &[CommitOffset],
    ) -> Result<(), BrokerError> {
        check_size(group, offsets)?;
        for offset in offsets {
            let written = self.sequenced(offset);
            let pending = self.pending.entry(transaction).or_default();
            pending.insert(offset.partition.clone(), written);
        }
        Ok(())
    }

    /// Everything that is committed or pending, in the order in which it was written, with the transaction it waits for.
    pub fn written(&self) -> impl Iterator<Item = (Option<TransactionSerial>, CommitOffset)> {
        let committed = self.committed.iter().map(|written| (None, written));
        let pending = self.pending.iter();
        let pending = pending.flat_map(|(serial, offsets)| offsets.iter().map(|written| (Some(*serial), written)));
        let mut all: Vec<_> = committed.chain(pending).collect();
        all.sort_by_key(|(_, (_, written))| written.sequence);
        all.into_iter().map(|(serial, (partition, written))| {
            let offset = CommitOffset {
                partition: partition.clone(),
                offset: written.offset.offset,
                metadata: written.offset.metadata.clone(),
            };
            (serial, offset)
        })
    }

    /// Transactions whose offsets wait for their end.
    pub fn pending_transactions(&self) -> impl Iterator<Item = TransactionSerial> {
        self.pending.keys().copied()
    }

    fn sequenced(&mut self, offset: &CommitOffset) -> Written {
        self.last_sequence += 1;
        Written {
            sequence: self.last_sequence,
            offset: CommittedOffset {
                offset: offset.offset,
                metadata: offset.metadata.clone(),
            },
        }
    }

    /// Of two offsets of one partition the later *written* counts, whichever transaction ends later.
    pub fn end_transaction(&mut self, transaction: TransactionSerial, ending: Ending) {
        let pending = self.pending.remove(&transaction).unwrap_or_default();
        if ending == Ending::Abort {
            return;
        }
        for (partition, written) in pending {
            let former = self.committed.get(&partition);
            if former.is_none_or(|former| former.sequence < written.sequence) {
                self.committed.insert(partition, written);
            }
        }
    }

    /// What is committed; with `require_stable` one pending partition refuses the whole request.
    pub fn fetch(
        &self,
        partitions: &[TopicPartition],
        require_stable: bool,
    ) -> Result<Vec<Option<CommittedOffset>>, BrokerError> {
        let is_pending = |partition| self.pending.values().any(|offsets| offsets.contains_key(partition));
        if require_stable && partitions.iter().any(is_pending) {
            return Err(BrokerError::UnstableOffsetCommit);
        }
        let committed = |partition| self.committed.get(partition).map(|written| written.offset.clone());
        Ok(partitions.iter().map(committed).collect())
    }
}

fn check_size(group: &str, offsets: &[CommitOffset]) -> Result<(), BrokerError> {
    if offsets.iter().any(|offset| offset.metadata.len() > METADATA_MAX_BYTES) {
        return Err(BrokerError::OffsetMetadataTooLarge);
    }
    let record_bytes = |offset: &CommitOffset| {
        OFFSET_OVERHEAD_BYTES + group.len() + offset.partition.topic.len() + offset.metadata.len()
    };
    let call_bytes: usize = offsets.iter().map(record_bytes).sum();
    if call_bytes > CALL_MAX_BYTES {
        return Err(BrokerError::OffsetsTooLarge);
    }
    Ok(())
}

// ---------------------------------------------------------------------------------------------- requests

/// Commits offsets outside of any transaction.
#[derive(Clone, Debug)]
pub(super) struct CommitOffsets {
    /// The member on whose behalf it is done.
    pub group: GroupMetadata,
    /// The offsets.
    pub offsets: Vec<CommitOffset>,
}

impl Request for CommitOffsets {
    type Answer = ();

    fn handle(self, broker: &mut Broker, _now: Duration) -> Result<(), BrokerError> {
        let group = broker.group_mut(&self.group.group);
        group.check_plain_commit(&self.group)?;
        group.offsets.write(&self.group.group, &self.offsets)?;
        broker.store.offsets(&self.group.group, &self.offsets);
        broker.wake(Wake::Everybody);
        Ok(())
    }
}

/// Asks what a group has committed.
#[derive(Clone, Debug)]
pub(super) struct FetchOffsets {
    /// The group.
    pub group: String,
    /// The partitions asked for.
    pub partitions: Vec<TopicPartition>,
    /// Whether a pending transaction makes the broker refuse; Kafka's clients ask for it when they read committed.
    pub require_stable: bool,
}

impl Request for FetchOffsets {
    type Answer = Vec<Option<CommittedOffset>>;

    fn handle(self, broker: &mut Broker, _now: Duration) -> Result<Self::Answer, BrokerError> {
        match broker.groups.get(&self.group) {
            Some(group) => group.offsets.fetch(&self.partitions, self.require_stable),
            None => Ok(vec![None; self.partitions.len()]),
        }
    }
}
