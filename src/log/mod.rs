//! The log port: what the engine needs of Kafka, and nothing of how it is done.
//!
//! Two adapters stand behind it: `kafka` (rdkafka, and a producer of our own) and `embedded` (in-process). All calls return without
//! waiting for the network unless their docs say that they block. An adapter never starts a policy
//! of its own: it reports, and the worker decides.

mod commit;
pub mod embedded;
pub mod kafka;

pub use commit::{Commit, CommitOffset, METADATA_MAX_BYTES};

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::errors::Coded;
use crate::ids::TopicPartition;
use crate::record::{Headers, RecordRef};
use crate::time::Millis;

/// What went wrong with the log, by what the caller can do about it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// No broker answers. Retry after a pause.
    #[error(
        "no broker answers at {addresses}: {reason}; check the addresses in kafka.bootstrap_servers and that the brokers run"
    )]
    Unreachable {
        /// The bootstrap addresses that were tried.
        addresses: String,
        /// What the client says.
        reason: String,
    },
    /// A call did not end in time. If it belongs to a transaction, its outcome is unknown: make a new producer.
    #[error("{operation} did not end within {timeout_ms} ms")]
    TimedOut {
        /// What was tried.
        operation: String,
        /// How long it was tried, in milliseconds.
        timeout_ms: u64,
    },
    /// Another producer with the same transactional id took over, or the broker timed the transaction out. Make a new producer.
    #[error("producer {transactional_id} was fenced: {reason}")]
    Fenced {
        /// The transactional id.
        transactional_id: String,
        /// What the client says.
        reason: String,
    },
    /// The group moved on since the metadata was captured. Abort, serve membership events, try again.
    #[error("the group's generation moved on: {reason}")]
    IllegalGeneration {
        /// What the client says.
        reason: String,
    },
    /// This member is no longer in the group: every task is lost.
    #[error("this member is not in the group any more: {reason}")]
    NotAMember {
        /// What the client says.
        reason: String,
    },
    /// The transaction must be aborted; the producer can be used again after that.
    #[error("{operation} failed and the transaction must be aborted: {reason}")]
    Abort {
        /// What was tried.
        operation: String,
        /// What the client says.
        reason: String,
    },
    /// The producer's queue is full. Wait for acknowledgements, then send the same record again.
    #[error("the producer's queue is full")]
    QueueFull,
    /// The topic does not exist.
    #[error("topic {topic} does not exist; create it, or correct its name in the topology")]
    UnknownTopic {
        /// Name of the topic.
        topic: String,
    },
    /// The topic exists already.
    #[error("topic {topic} exists already")]
    TopicExists {
        /// Name of the topic.
        topic: String,
    },
    /// The partition no longer holds, or does not yet hold, that offset.
    #[error("offset {offset} of {partition} is out of range")]
    OffsetOutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// The offset asked for.
        offset: i64,
    },
    /// The record is larger than the broker or the topic takes.
    #[error(
        "a record of {bytes} bytes for {topic} is larger than the limit; raise max.message.bytes of the topic and kafka.producer.message.max.bytes, or send less"
    )]
    RecordTooLarge {
        /// Name of the topic.
        topic: String,
        /// Size of key and value in bytes.
        bytes: usize,
    },
    /// The topic's or the cluster's policy forbids the call.
    #[error("{operation} on {subject} is refused by the broker's policy: {reason}")]
    Refused {
        /// What was tried.
        operation: String,
        /// Topic or partition.
        subject: String,
        /// What the client says.
        reason: String,
    },
    /// Nothing else fits; the client object cannot be used any more.
    #[error("{operation} failed for good: {reason}")]
    Fatal {
        /// What was tried.
        operation: String,
        /// What the client says.
        reason: String,
    },
}

impl Coded for LogError {
    fn code(&self) -> &'static str {
        match self {
            LogError::Unreachable { .. } => "TG1001",
            LogError::TimedOut { .. } => "TG1002",
            LogError::Fenced { .. } => "TG1003",
            LogError::IllegalGeneration { .. } => "TG1004",
            LogError::NotAMember { .. } => "TG1005",
            LogError::Abort { .. } => "TG1006",
            LogError::QueueFull => "TG1007",
            LogError::UnknownTopic { .. } => "TG1008",
            LogError::TopicExists { .. } => "TG1009",
            LogError::OffsetOutOfRange { .. } => "TG1010",
            LogError::RecordTooLarge { .. } => "TG1011",
            LogError::Refused { .. } => "TG1012",
            LogError::Fatal { .. } => "TG1013",
        }
    }
}

/// Result of a call on the log.
pub type LogResult<T> = Result<T, LogError>;

/// Whether a consumer sees records of open and aborted transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Only committed records, up to the last stable offset.
    ReadCommitted,
    /// Everything up to the high watermark.
    ReadUncommitted,
}

/// A connection to a log: makes clients. Cheap to share between threads.
pub trait Log: Send + Sync {
    /// A consumer without a group, with manual assignment; `name` appears in logs and as the client id's suffix.
    ///
    /// # Errors
    /// [`LogError::Fatal`] where the configuration is refused.
    fn consumer(&self, name: &str, isolation: Isolation) -> LogResult<Box<dyn Consumer>>;

    /// A producer; transactional when it gets an id. Does not contact the broker before [`Producer::init`].
    ///
    /// # Errors
    /// [`LogError::Fatal`] where the configuration is refused.
    fn producer(&self, name: &str, transactional_id: Option<&str>) -> LogResult<Box<dyn Producer>>;

    /// A member of consumer group `group` that subscribes to `topics`, fetches nothing and only reports assignments.
    ///
    /// # Errors
    /// [`LogError::Fatal`] where the configuration is refused.
    fn member(&self, settings: &MemberSettings) -> LogResult<Box<dyn GroupMember>>;

    /// Topic administration and offset reads.
    fn admin(&self) -> Arc<dyn Admin>;
}

// ---------------------------------------------------------------------------------------------- reading

/// Names one assigned partition within a consumer; chosen by the caller, unique per assignment.
pub type Slot = u32;

/// A contiguous run of records of one partition within a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRun {
    /// The partition, as the caller named it in [`Consumer::assign`].
    pub slot: Slot,
    /// Index of the first record in the batch.
    pub start: u32,
    /// Index after the last record.
    pub end: u32,
}

/// Records as they were fetched. They pin the client's fetch buffers: drop the batch soon.
pub trait RecordBatch: Send + Sync {
    /// The records by partition, in order of offsets within each partition.
    fn runs(&self) -> &[BatchRun];
    /// The record at an index that lies in one of [`RecordBatch::runs`].
    fn record(&self, index: u32) -> RecordRef<'_>;
    /// The headers of the record at `index`; empty in most topics, and then free of cost.
    fn headers(&self, index: u32) -> Headers;
}

/// Where a partition is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The caller's name for it.
    pub slot: Slot,
    /// What to read.
    pub partition: TopicPartition,
    /// Offset of the first record to deliver.
    pub offset: i64,
}

/// Reads partitions that the caller chose. Not a member of any group; never commits.
///
/// An offset that the log no longer holds is an error ([`LogError::OffsetOutOfRange`]), never a silent jump.
pub trait Consumer: Send {
    /// Replaces the whole assignment. Records of earlier assignments are never delivered afterwards.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::Fatal`].
    fn assign(&mut self, partitions: &[Assignment]) -> LogResult<()>;

    /// Stops (`true`) or resumes (`false`) fetching of some slots. Records already fetched of a paused slot may still be delivered.
    ///
    /// # Errors
    /// [`LogError::Fatal`].
    fn pause(&mut self, slots: &[Slot], paused: bool) -> LogResult<()>;

    /// Up to `max_records` records; waits at most `wait` for the first one. `None`: nothing came.
    ///
    /// # Errors
    /// [`LogError::OffsetOutOfRange`], [`LogError::Unreachable`] (all brokers down; retry), [`LogError::UnknownTopic`], [`LogError::Fatal`].
    fn poll(&mut self, max_records: usize, wait: Duration) -> LogResult<Option<Arc<dyn RecordBatch>>>;

    /// Offset after everything that was delivered or skipped (control records, aborted records) in this slot;
    /// `None` before the first fetch has answered.
    fn position(&self, slot: Slot) -> Option<i64>;

    /// The end of what this consumer may read, as the last fetch reported it: the last stable offset when
    /// reading committed, else the high watermark. `None` while unknown.
    fn end_offset(&self, slot: Slot) -> Option<i64>;
}

// ---------------------------------------------------------------------------------------------- writing

/// A topic as a producer knows it after [`Producer::prepare`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutTopic(pub u16);

/// A record to be produced. The partition is always chosen by the engine (Java's murmur2 of the key).
#[derive(Clone, Copy, Debug)]
pub struct OutRecord<'a> {
    /// The topic.
    pub topic: OutTopic,
    /// The partition.
    pub partition: i32,
    /// Raw key; `None` is Kafka's null.
    pub key: Option<&'a [u8]>,
    /// Raw value; `None` is Kafka's null.
    pub value: Option<&'a [u8]>,
    /// Record timestamp in milliseconds since the Unix epoch.
    pub timestamp_ms: Millis,
    /// Headers.
    pub headers: &'a Headers,
}

/// Records of one partition that need neither timestamps nor headers: a changelog increment.
pub trait BatchSource: Send + Sync {
    /// Number of records.
    fn len(&self) -> usize;
    /// Whether there are no records.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Calls `visit(key, value)` for every record in order; a value of `None` is a tombstone.
    fn for_each(&self, visit: &mut dyn FnMut(&[u8], Option<&[u8]>));
}

/// One increment bound for one partition.
#[derive(Clone)]
pub struct OutBatch {
    /// The topic.
    pub topic: OutTopic,
    /// The partition.
    pub partition: i32,
    /// The records.
    pub records: Arc<dyn BatchSource>,
}

impl fmt::Debug for OutBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "OutBatch({:?}-{}, {} records)",
            self.topic,
            self.partition,
            self.records.len()
        )
    }
}

/// Produces records, transactionally if it was made with an id. Used by one worker; owns whatever threads it needs.
///
/// A transaction: `begin`, any number of `send`, then `start_commit` and `poll_commit` until it answers.
/// Between `start_commit` and its answer nothing may be sent. After [`LogError::TimedOut`], [`LogError::Fenced`] or [`LogError::Fatal`] the
/// producer is dead: drop it and make a new one.
pub trait Producer: Send {
    /// Fences earlier producers of the same id and ends their open transaction. **Blocks** up to `timeout`.
    ///
    /// # Errors
    /// [`LogError::Unreachable`], [`LogError::TimedOut`], [`LogError::Fatal`].
    fn init(&mut self, timeout: Duration) -> LogResult<()>;

    /// Learns the topics that will be written, in this order: `OutTopic(i)` is `topics[i]`. Answers their partition
    /// counts. **Blocks** for a metadata request. Called once, before the first `begin`.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::Unreachable`], [`LogError::TimedOut`].
    fn prepare(&mut self, topics: &[Arc<str>]) -> LogResult<Vec<i32>>;

    /// Opens a transaction; without an id only notes that an epoch begins.
    ///
    /// # Errors
    /// [`LogError::Fenced`], [`LogError::Fatal`].
    fn begin(&mut self) -> LogResult<()>;

    /// Queues a record; the bytes are copied.
    ///
    /// # Errors
    /// [`LogError::QueueFull`] (send it again later), [`LogError::RecordTooLarge`], [`LogError::Fenced`], [`LogError::Fatal`].
    fn send(&mut self, record: &OutRecord<'_>) -> LogResult<()>;

    /// Starts: produce `batches`, flush, send offsets, commit. Returns at once.
    /// Without a transactional id: produce, flush, then commit the offsets for the group.
    ///
    /// # Errors
    /// [`LogError::Fatal`] where a commit is running already.
    fn start_commit(&mut self, commit: Commit) -> LogResult<()>;

    /// The outcome of the running commit; waits for it at most `wait`. `None`: still running.
    fn poll_commit(&mut self, wait: Duration) -> Option<LogResult<()>>;

    /// Aborts the open transaction and drops whatever is queued. **Blocks** up to `timeout`. No commit may be running.
    ///
    /// # Errors
    /// [`LogError::TimedOut`], [`LogError::Fenced`], [`LogError::Fatal`].
    fn abort(&mut self, timeout: Duration) -> LogResult<()>;

    /// Bytes and records queued and not yet acknowledged, for metrics.
    fn in_flight(&self) -> usize;
}

// ---------------------------------------------------------------------------------------------- membership

/// How a member joins its group.
#[derive(Clone, Debug)]
pub struct MemberSettings {
    /// The consumer group: the application id.
    pub group: String,
    /// The lead topics of all sub-topologies.
    pub topics: Vec<Arc<str>>,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// Time without heartbeats after which the group gives the member up.
    pub session_timeout: Duration,
}

/// A member's identity in its group at one moment (invariant I6: carried whole).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadata {
    /// The group.
    pub group: String,
    /// The generation; negative before the first join.
    pub generation: i32,
    /// The member id; empty when not (any more) a member.
    pub member_id: String,
    /// The static instance id.
    pub instance_id: Option<String>,
}

impl GroupMetadata {
    /// Of a client that has not joined `group`.
    pub fn of_nobody(group: &str) -> Self {
        Self {
            group: group.to_owned(),
            generation: -1,
            member_id: String::new(),
            instance_id: None,
        }
    }

    /// Whether a commit with this metadata is fenced by the broker: generation ≥ 0 and a member id (invariant I6).
    pub fn is_fencing(&self) -> bool {
        self.generation >= 0 && !self.member_id.is_empty()
    }
}

/// What happens to a member. Each event must be answered by [`GroupMember::complete`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberEvent {
    /// These partitions of lead topics are added; may be empty (only the generation moved).
    Assigned(Vec<TopicPartition>),
    /// These partitions go to somebody else once this event is completed.
    Revoked(Vec<TopicPartition>),
    /// These partitions may belong to somebody else already: nothing may be committed for them. The client does not join again
    /// before this event is completed, so that metadata that a broker accepts never belongs to a loss that was not served.
    Lost(Vec<TopicPartition>),
}

/// A member of a consumer group that fetches nothing.
pub trait GroupMember: Send {
    /// The next event; waits at most `wait`. Must be called at least every few seconds to stay in the group,
    /// also while an event is being worked on (then it returns `None`).
    ///
    /// # Errors
    /// [`LogError::NotAMember`] when a static id was taken over by another process (the member is dead), [`LogError::Unreachable`] (retry), [`LogError::Fatal`].
    fn poll(&mut self, wait: Duration) -> LogResult<Option<MemberEvent>>;

    /// Confirms that the last event is worked off: the partitions are taken, or given up.
    ///
    /// # Errors
    /// [`LogError::Fatal`].
    fn complete(&mut self, event: &MemberEvent) -> LogResult<()>;

    /// A view of this member's metadata for other threads; stays valid after the member is dropped.
    fn view(&self) -> Arc<dyn GroupView>;

    /// Leaves the group (a static member only disconnects). Bounded to a few seconds.
    fn leave(self: Box<Self>);
}

/// The freshest metadata that the client has, from any thread.
pub trait GroupView: Send + Sync {
    /// The metadata now; the client's own threads may move it before an event is served.
    fn metadata(&self) -> GroupMetadata;
}

// ---------------------------------------------------------------------------------------------- administration

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Name.
    pub name: Arc<str>,
    /// Number of partitions.
    pub partitions: i32,
    /// Replication factor; `None` for the broker's default.
    pub replication: Option<i32>,
    /// Topic settings such as `cleanup.policy`.
    pub config: Vec<(String, String)>,
}

/// What is known of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Number of partitions.
    pub partitions: i32,
    /// The topic's `cleanup.policy`, for example `compact`.
    pub cleanup_policy: String,
    /// The topic's `retention.ms`; -1 for ever.
    pub retention_ms: i64,
    /// The topic's `retention.bytes`, per partition; -1 without a limit.
    pub retention_bytes: i64,
    /// The topic's `delete.retention.ms`: how long compaction keeps the record of a deletion.
    pub delete_retention_ms: i64,
    /// The topic's `max.message.bytes`.
    pub max_message_bytes: usize,
}

/// An offset that a group has committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Offset of the next record to process.
    pub offset: i64,
    /// The metadata that was committed with it.
    pub metadata: String,
}

/// A group as its coordinator sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    /// Whether no rebalance is under way.
    pub is_stable: bool,
    /// What the members were given.
    pub assigned: BTreeSet<TopicPartition>,
}

/// Low and high watermark of a partition: first offset that is there, and the end, open transactions included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// The first offset that can be read.
    pub low: i64,
    /// The high watermark as a read_uncommitted client sees it (invariant I8).
    pub high: i64,
}

/// Administration and offset reads. Every call **blocks**, bounded by `timeout`.
pub trait Admin: Send + Sync {
    /// Describes a topic; `None` if it does not exist.
    ///
    /// # Errors
    /// [`LogError::Unreachable`], [`LogError::TimedOut`], [`LogError::Refused`].
    fn topic(&self, name: &str, timeout: Duration) -> LogResult<Option<TopicInfo>>;

    /// Creates a topic and waits until its metadata is known.
    ///
    /// # Errors
    /// [`LogError::TopicExists`], [`LogError::Refused`], [`LogError::Unreachable`], [`LogError::TimedOut`].
    fn create_topic(&self, spec: &TopicSpec, timeout: Duration) -> LogResult<()>;

    /// Sets these settings of a topic and leaves its others as they are (KIP-339).
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::Refused`], [`LogError::Unreachable`], [`LogError::TimedOut`].
    fn alter_topic(&self, name: &str, config: &[(String, String)], timeout: Duration) -> LogResult<()>;

    /// Deletes a topic; no error if it does not exist.
    ///
    /// # Errors
    /// [`LogError::Refused`], [`LogError::Unreachable`], [`LogError::TimedOut`].
    fn delete_topic(&self, name: &str, timeout: Duration) -> LogResult<()>;

    /// The watermarks of a partition as a read_uncommitted client sees them.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::Unreachable`], [`LogError::TimedOut`].
    fn watermarks(&self, partition: &TopicPartition, timeout: Duration) -> LogResult<Watermarks>;

    /// Deletes the records before `offset` in each partition. A compacted topic answers [`LogError::Refused`].
    ///
    /// # Errors
    /// [`LogError::Refused`], [`LogError::OffsetOutOfRange`], [`LogError::Unreachable`], [`LogError::TimedOut`].
    fn delete_records(&self, before: &[(TopicPartition, i64)], timeout: Duration) -> LogResult<()>;

    /// What `group` has committed, waiting for pending transactions ("require stable", invariant I7). `None`: nothing.
    ///
    /// # Errors
    /// [`LogError::TimedOut`] while a transaction is pending on one of them; [`LogError::Unreachable`].
    fn committed(
        &self,
        group: &str,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> LogResult<Vec<Option<CommittedOffset>>>;

    /// The state of `group`; one that nobody ever joined has no members and is not stable.
    ///
    /// # Errors
    /// [`LogError::Unreachable`], [`LogError::TimedOut`], [`LogError::Refused`], [`LogError::Fatal`] for an assignment that cannot be read.
    fn group(&self, group: &str, timeout: Duration) -> LogResult<GroupState>;
}
