//! The broker: all state of an embedded log, changed by one request at a time.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::cleaner::Cleaner;
use super::files::Store;
use super::group::Group;
use super::topic::Topics;
use super::transactions::Transactions;
use crate::time::Millis;

/// Why a broker refuses, by Kafka's names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // Kafka's own protocol documentation says what each name means.
pub(super) enum BrokerError {
    #[error("UNKNOWN_TOPIC_OR_PARTITION")]
    UnknownTopicOrPartition,
    #[error("TOPIC_ALREADY_EXISTS")]
    TopicAlreadyExists,
    #[error("INVALID_TOPIC_EXCEPTION: a name has 1 to 249 of the characters a-z, A-Z, 0-9, '.', '_' and '-'")]
    InvalidTopic,
    #[error("INVALID_PARTITIONS: the number of partitions must be larger than 0")]
    InvalidPartitions,
    #[error("INVALID_REPLICATION_FACTOR: the embedded log has one broker")]
    InvalidReplicationFactor,
    #[error("INVALID_CONFIG: {0}")]
    InvalidConfig(String),
    #[error("POLICY_VIOLATION: records of a topic without cleanup.policy=delete cannot be deleted")]
    PolicyViolation,
    #[error("OFFSET_OUT_OF_RANGE")]
    OffsetOutOfRange,
    #[error("INVALID_RECORD: a record without a key cannot be compacted")]
    InvalidRecord,
    #[error("MESSAGE_TOO_LARGE")]
    MessageTooLarge,
    #[error("INVALID_PRODUCER_EPOCH")]
    InvalidProducerEpoch,
    #[error("INVALID_TXN_STATE")]
    InvalidTxnState,
    #[error("OFFSET_METADATA_TOO_LARGE")]
    OffsetMetadataTooLarge,
    #[error("UNKNOWN_SERVER_ERROR: the offsets of one call make up more than one record batch of __consumer_offsets")]
    OffsetsTooLarge,
    #[error("UNSTABLE_OFFSET_COMMIT")]
    UnstableOffsetCommit,
    #[error("UNKNOWN_MEMBER_ID")]
    UnknownMemberId,
    #[error("ILLEGAL_GENERATION")]
    IllegalGeneration,
    #[error("FENCED_INSTANCE_ID")]
    FencedInstanceId,
    #[error("KAFKA_STORAGE_ERROR: {0}")]
    KafkaStorageError(String),
    #[error("INVALID_REQUEST")]
    InvalidRequest,
}

/// Something that a client asks of the broker. All state changes are requests, so that one place sees them all.
pub(super) trait Request: fmt::Debug {
    /// What the broker answers.
    type Answer;

    /// Changes the broker and answers; `now` is the clock's monotonic time.
    fn handle(self, broker: &mut Broker, now: Duration) -> Result<Self::Answer, BrokerError>;
}

/// Who waits for what has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wake {
    /// Nothing has changed that anybody waits for.
    #[default]
    Nobody,
    /// Records of an open transaction were written.
    UncommittedReaders,
    /// A last stable offset, a group, a topic or committed offsets have changed.
    Everybody,
}

/// The state of an embedded log.
#[derive(Debug, Default)]
pub(super) struct Broker {
    /// Topics with their records.
    pub topics: Topics,
    /// Transactional producers.
    pub transactions: Transactions,
    /// Consumer groups by name.
    pub groups: BTreeMap<String, Group>,
    /// Retention and compaction.
    pub cleaner: Cleaner,
    /// Where everything is written down.
    pub store: Store,
    /// The clock's wall time at the request in hand.
    pub wall_ms: Millis,
    wake: Wake,
    /// Before this time nothing happens without a request.
    next_deadline: Option<Duration>,
}

impl Broker {
    /// Lets happen what is due by `now`, then handles the request. `wall_ms` is the time that the log writes and compares
    /// with that of records.
    pub fn handle<R: Request>(&mut self, request: R, now: Duration, wall_ms: Millis) -> Result<R::Answer, BrokerError> {
        self.wall_ms = wall_ms;
        self.advance(now);
        let answer = request.handle(self, now);
        self.shorten_journal();
        match self.store.failure() {
            None => answer,
            // What is not written must not be acknowledged, nor anything that follows from it.
            Some(failure) => Err(BrokerError::KafkaStorageError(failure.to_string())),
        }
    }

    /// Notes who must look again.
    pub fn wake(&mut self, whom: Wake) {
        self.wake = self.wake.max(whom);
    }

    /// Answers and forgets who must look again.
    pub fn take_wake(&mut self) -> Wake {
        std::mem::take(&mut self.wake)
    }

    /// When something happens by itself: a transaction or a session ends, or old records go.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.next_deadline
    }

    /// Notes that something happens by itself at `deadline`.
    pub fn expect_deadline(&mut self, deadline: Duration) {
        self.next_deadline = Some(self.next_deadline.map_or(deadline, |next| next.min(deadline)));
    }

    /// The group of that name, made if need be.
    pub fn group_mut(&mut self, name: &str) -> &mut Group {
        self.groups.entry(name.to_owned()).or_default()
    }

    /// After every change of a group: it may rebalance now, and it may have a new deadline.
    pub fn group_changed(&mut self, name: &str) {
        if let Some(group) = self.groups.get_mut(name) {
            group.rebalance(&self.topics);
            if let Some(deadline) = group.next_deadline() {
                self.expect_deadline(deadline);
            }
        }
        self.wake(Wake::Everybody);
    }

    /// Subscribers of a topic that came or went share anew.
    pub fn topics_changed(&mut self, name: &Arc<str>, now: Duration) {
        let subscribed = |group: &mut Group| group.topic_changed(name, now);
        let names: Vec<_> = self
            .groups
            .iter_mut()
            .filter_map(|(name, group)| subscribed(group).then(|| name.clone()))
            .collect();
        for name in names {
            self.group_changed(&name);
        }
        self.wake(Wake::Everybody);
    }

    /// Ends transactions and sessions that are due, and keeps house. The deadline kept may be too early, never too late: heartbeats only defer.
    fn advance(&mut self, now: Duration) {
        if self.next_deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        self.expire_transactions(now);
        for group in self.groups.values_mut() {
            group.expire(now);
            group.rebalance(&self.topics);
        }
        self.clean(now);
        let sessions = self.groups.values().filter_map(Group::next_deadline);
        let others = [self.transactions.next_deadline(), self.cleaner.next_deadline()];
        self.next_deadline = sessions.chain(others.into_iter().flatten()).min();
        self.wake(Wake::Everybody);
    }
}
