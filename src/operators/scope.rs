//! The world of a task as its operators see it while one record passes through.

use std::sync::Arc;

use crate::codec::CodecError;
use crate::ids::NodeId;
use crate::log::RecordBatch;
use crate::record::{Headers, RecordRef};
use crate::state::{StateError, TaskState};
use crate::time::Millis;

use super::Outbox;
use super::scan::ScanBuffer;

/// Why a record could not be processed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The record is bad: the node's policy decides, and this comes out only where the policy is to stop.
    #[error("record at {origin} failed in node {node}: {reason}")]
    Record {
        /// Name of the node.
        node: Arc<str>,
        /// Where the record came from.
        origin: RecordOrigin,
        /// What the codec or the operator says.
        reason: String,
    },
    /// The world is bad: the epoch is aborted and the task goes back to the committed cut.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Coordinates of an input record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordOrigin {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

impl std::fmt::Display for RecordOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}@{}", self.topic, self.partition, self.offset)
    }
}

/// What to do with a record that does not decode, or whose operator fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Stop the instance and name the record. The default.
    #[default]
    Stop,
    /// Count the record and go on without it.
    Skip,
    /// Write the input record to the dead-letter topic, within the transaction, and go on.
    DeadLetter,
}

/// What a node has counted since the last barrier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCounts {
    /// Records dropped because they came after their window had closed.
    pub late: u64,
    /// Records dropped because key or value is null where the operator needs one, or the timestamp is negative.
    pub dropped: u64,
    /// Records skipped by policy after a failure.
    pub skipped: u64,
    /// Records written to the dead-letter topic.
    pub dead_lettered: u64,
}

/// The mutable world of one task: state, outbox, clocks and counts. Owned by the task, lent to every operator call.
pub struct Scope {
    /// The task's stores.
    pub state: TaskState,
    /// The task's output.
    pub outbox: Outbox,
    /// The largest timestamp that the task has taken so far; `-1` before the first record.
    pub stream_time_ms: Millis,
    /// Counts per node, indexed by [`NodeId`].
    pub counts: Vec<NodeCounts>,
    /// Partition count of each sink topic, indexed like the sub-topology's sinks.
    pub sink_partitions: Vec<i32>,
    /// Partition number of the task; records without a key go to this partition, modulo the topic's count.
    pub partition: i32,
    /// Names of the source topics, indexed like the sub-topology's sources.
    pub source_names: Vec<Arc<str>>,
    /// Policy per node, indexed by [`NodeId`].
    pub on_error: Vec<OnError>,
    /// Index of the dead-letter topic among the sinks, if one is configured.
    pub dead_letter_sink: Option<u16>,
    /// Operators' own clocks, `Program::clocks()` in number; saved in their stores at the barrier.
    pub clocks: Vec<OperatorClock>,
    /// Bytes that operators may use for encoding without allocating.
    pub scratch: Scratch,
    current: Option<Current>,
}

/// What one operator knows about time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperatorClock {
    /// Largest timestamp the operator has seen; `-1` before the first record.
    pub observed_ms: Millis,
    /// Start of the newest window that the operator has closed; `-1` if none.
    pub closed_start_ms: Millis,
    /// When its earliest timer is due; `Millis::MAX` if none is set. Not saved: it follows from the timers.
    pub next_timer_ms: Millis,
    /// Whether it changed since it was last saved.
    pub dirty: bool,
}

impl Default for OperatorClock {
    fn default() -> Self {
        Self {
            observed_ms: -1,
            closed_start_ms: -1,
            next_timer_ms: Millis::MAX,
            dirty: false,
        }
    }
}

impl OperatorClock {
    /// Takes note of a record's time.
    pub(crate) fn observe(&mut self, timestamp_ms: Millis) {
        if timestamp_ms > self.observed_ms {
            self.observed_ms = timestamp_ms;
            self.dirty = true;
        }
    }

    /// Takes note that all windows up to the one that starts at `start_ms` are closed.
    pub(crate) fn close_up_to(&mut self, start_ms: Millis) {
        self.closed_start_ms = start_ms;
        self.dirty = true;
    }

    /// What is saved: both times, big-endian.
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.observed_ms.to_be_bytes());
        bytes[8..].copy_from_slice(&self.closed_start_ms.to_be_bytes());
        bytes
    }

    /// The reverse of [`OperatorClock::to_bytes`]; `None` for bytes that it did not write.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (observed, closed) = bytes.split_first_chunk::<8>()?;
        Some(Self {
            observed_ms: Millis::from_be_bytes(*observed),
            closed_start_ms: Millis::from_be_bytes(closed.try_into().ok()?),
            ..Self::default()
        })
    }
}

/// Reusable buffers for encoding and scanning. An operator that passes a record on may find other contents afterwards.
#[derive(Debug, Default)]
pub struct Scratch {
    /// For keys.
    pub key: Vec<u8>,
    /// For values.
    pub value: Vec<u8>,
    pub(crate) scans: Vec<ScanBuffer>,
}

struct Current {
    batch: Arc<dyn RecordBatch>,
    index: u32,
    source: u16,
}

impl Scope {
    /// An empty world around `state` for the task of partition `partition`, with `nodes` nodes and `clocks` clocks in its topology.
    pub fn new(state: TaskState, partition: i32, nodes: usize, clocks: usize) -> Self {
        Self {
            state,
            outbox: Outbox::default(),
            stream_time_ms: -1,
            counts: vec![NodeCounts::default(); nodes],
            sink_partitions: Vec::new(),
            partition,
            source_names: Vec::new(),
            on_error: vec![OnError::Stop; nodes],
            dead_letter_sink: None,
            clocks: vec![OperatorClock::default(); clocks],
            scratch: Scratch::default(),
            current: None,
        }
    }

    /// Sets the record that is being processed: record `index` of `batch`, from source `source`.
    pub fn set_current(&mut self, batch: &Arc<dyn RecordBatch>, index: u32, source: u16) {
        match &mut self.current {
            Some(current) if Arc::ptr_eq(&current.batch, batch) => {
                current.index = index;
                current.source = source;
            }
            current => {
                *current = Some(Current {
                    batch: Arc::clone(batch),
                    index,
                    source,
                });
            }
        }
    }

    /// Lets go of the current batch.
    pub fn clear_current(&mut self) {
        self.current = None;
    }

    /// Coordinates of the record that is being processed; `None` inside timers and barriers.
    pub fn origin(&self) -> Option<RecordOrigin> {
        self.current.as_ref().map(|current| RecordOrigin {
            topic: self
                .source_names
                .get(current.source as usize)
                .cloned()
                .unwrap_or_else(|| "?".into()),
            partition: self.partition,
            offset: current.batch.record(current.index).offset,
        })
    }

    /// Applies the policy of `node` to a bad record: `Ok` if the topology goes on without it.
    ///
    /// # Errors
    /// [`Failure::Record`] where the policy is to stop, or no dead-letter topic is configured.
    pub fn bad_record(&mut self, node: NodeId, name: &Arc<str>, reason: &dyn std::fmt::Display) -> Result<(), Failure> {
        let policy = self.on_error.get(node.0 as usize).copied().unwrap_or_default();
        match policy {
            OnError::Skip => {
                self.counts[node.0 as usize].skipped += 1;
                Ok(())
            }
            OnError::DeadLetter if self.dead_letter_sink.is_some() && self.current.is_some() => {
                self.counts[node.0 as usize].dead_lettered += 1;
                self.write_dead_letter(name, &reason.to_string());
                Ok(())
            }
            OnError::Stop | OnError::DeadLetter => Err(Failure::Record {
                node: Arc::clone(name),
                origin: self.origin().unwrap_or_else(|| RecordOrigin {
                    topic: "(no record)".into(),
                    partition: self.partition,
                    offset: -1,
                }),
                reason: reason.to_string(),
            }),
        }
    }

    fn write_dead_letter(&mut self, node: &Arc<str>, reason: &str) {
        let (Some(current), Some(sink), Some(origin)) = (&self.current, self.dead_letter_sink, self.origin()) else {
            return;
        };
        let mut headers: Headers = current.batch.headers(current.index);
        let text = |text: String| Some(text.into_bytes());
        headers.push("tidegate.error.topic", text(origin.topic.to_string()));
        headers.push("tidegate.error.partition", text(origin.partition.to_string()));
        headers.push("tidegate.error.offset", text(origin.offset.to_string()));
        headers.push("tidegate.error.node", text(node.to_string()));
        headers.push("tidegate.error.message", text(reason.to_owned()));
        let record: RecordRef<'_> = current.batch.record(current.index);
        let copy = |bytes: Option<&[u8]>, out: &mut Vec<u8>| -> Result<Option<()>, CodecError> {
            Ok(bytes.map(|bytes| out.extend_from_slice(bytes)))
        };
        let partitions = self.sink_partitions.get(sink as usize).copied().unwrap_or(1).max(1);
        let partition = self.partition % partitions;
        let pushed = self.outbox.push_with(
            sink,
            record.timestamp_ms.max(0),
            headers,
            |out| copy(record.key, out),
            |out| copy(record.value, out),
            |_| partition,
        );
        debug_assert!(pushed.is_ok(), "copying bytes cannot fail");
    }
}
