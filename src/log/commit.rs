//! What a commit carries, and the limits of it.

use std::time::Duration;

use super::{GroupMetadata, LogError, LogResult, OutBatch};
use crate::ids::TopicPartition;

/// The longest metadata of one offset; Kafka's own limit is 4096.
pub const METADATA_MAX_BYTES: usize = 512;

/// All offsets of one request become one batch of the broker's offsets topic, which takes about a megabyte.
const REQUEST_MAX_BYTES: usize = 900_000;

/// What an offset takes in that batch besides its topic's name and its metadata, at most.
const OFFSET_OVERHEAD_BYTES: usize = 100;

/// An input offset to commit, with the short pointer to the state at that cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitOffset {
    /// The input partition.
    pub partition: TopicPartition,
    /// Offset of the next record to process.
    pub offset: i64,
    /// Metadata, at most [`METADATA_MAX_BYTES`].
    pub metadata: String,
}

/// What a commit carries besides the records already sent.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Increments to produce before the flush.
    pub batches: Vec<OutBatch>,
    /// Offsets of all inputs of all tasks of the epoch.
    pub offsets: Vec<CommitOffset>,
    /// The member on whose behalf the offsets are committed (invariant I6).
    pub group: GroupMetadata,
    /// After this time the outcome is reported as [`LogError::TimedOut`].
    pub timeout: Duration,
}

impl Commit {
    /// A commit of what was sent and of nothing else: outside of a transaction it waits until everything is acknowledged.
    pub fn of_records(timeout: Duration) -> Self {
        Self {
            batches: Vec::new(),
            offsets: Vec::new(),
            group: GroupMetadata::of_nobody(""),
            timeout,
        }
    }

    /// Refuses what would be unfenced or fail without a cause that the broker names. Adapters ask this before they send
    /// offsets.
    ///
    /// # Errors
    /// [`LogError::NotAMember`] for metadata that no broker fences (invariant I6), [`LogError::Abort`] for offset metadata
    /// that is too long.
    pub fn check(&self) -> LogResult<()> {
        if self.offsets.is_empty() {
            return Ok(());
        }
        self.check_fencing()?;
        let too_long = |offset: &&CommitOffset| offset.metadata.len() > METADATA_MAX_BYTES;
        match self.offsets.iter().find(too_long) {
            None => Ok(()),
            Some(offset) => Err(LogError::Abort {
                operation: format!("committing the offset of {}", offset.partition),
                reason: format!(
                    "its metadata has {} bytes, more than {METADATA_MAX_BYTES}",
                    offset.metadata.len()
                ),
            }),
        }
    }

    /// The offsets in portions that one request can take.
    pub fn offset_requests(&self) -> impl Iterator<Item = &[CommitOffset]> {
        let mut rest = &self.offsets[..];
        std::iter::from_fn(move || {
            let mut bytes = 0;
            let fits = |offset: &&CommitOffset| {
                bytes += offset.partition.topic.len() + offset.metadata.len() + OFFSET_OVERHEAD_BYTES;
                bytes <= REQUEST_MAX_BYTES
            };
            let count = rest.iter().take_while(fits).count();
            let (request, later) = rest.split_at(count);
            rest = later;
            (!request.is_empty()).then_some(request)
        })
    }

    /// Kafka accepts offsets in the name of nobody.
    fn check_fencing(&self) -> LogResult<()> {
        if self.group.is_fencing() {
            return Ok(());
        }
        Err(LogError::NotAMember {
            reason: format!(
                "the metadata of group {} names generation {} and member id {:?}, which no broker fences",
                self.group.group, self.group.generation, self.group.member_id
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(partition: i32, metadata_bytes: usize) -> CommitOffset {
        CommitOffset {
            partition: TopicPartition::new("input", partition),
            offset: 7,
            metadata: "m".repeat(metadata_bytes),
        }
    }

    #[test]
    fn many_offsets_are_split_into_requests_that_the_broker_takes() {
        let offsets: Vec<_> = (0..3000)
            .map(|partition| offset(partition, METADATA_MAX_BYTES))
            .collect();
        let commit = |offsets: &[CommitOffset]| Commit {
            batches: Vec::new(),
            offsets: offsets.to_vec(),
            group: GroupMetadata {
                group: "group".to_owned(),
                generation: 1,
                member_id: "member".to_owned(),
                instance_id: None,
            },
            timeout: Duration::ZERO,
        };
        let whole = commit(&offsets);
        let split: Vec<_> = whole.offset_requests().collect();
        assert_eq!(split.concat(), offsets, "every offset is sent once, in order");
        assert!(split.len() > 1);
        for request in split {
            let bytes: usize = request
                .iter()
                .map(|offset| offset.metadata.len() + offset.partition.topic.len())
                .sum();
            assert!(bytes < REQUEST_MAX_BYTES);
        }
        assert_eq!(commit(&[]).offset_requests().count(), 0);
    }
}
