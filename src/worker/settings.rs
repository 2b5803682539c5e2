//! What a worker needs to know.

use std::sync::Arc;
use std::time::Duration;

use crate::durability::Durability;
use crate::operators::OnError;

use super::savepoints::SavepointSettings;

/// Settings of a worker; the same for all workers of an instance, but for the name and the transactional id.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// Consumer group and prefix of internal topics.
    pub application_id: String,
    /// Name of the worker in logs and client ids.
    pub name: String,
    /// `transactional.id` of its producer; `None`: at-least-once.
    pub transactional_id: Option<String>,
    /// What makes state durable, per sub-topology.
    pub durability: Vec<Durability>,
    /// Bytes of rows that an epoch of a task copies while its strategy changes to `changelog`.
    pub copy_slice_bytes: usize,
    /// Time between two barriers while records flow, rests after long commits apart.
    pub commit_interval: Duration,
    /// A barrier is forced when the active overlays hold this many bytes.
    pub overlay_max_bytes: usize,
    /// Processing pauses while outputs parked behind a running commit hold this many bytes.
    pub parked_max_bytes: usize,
    /// Records fetched but not yet processed; an input that holds more than its share is paused.
    pub buffered_max_records: usize,
    /// How long a task waits for an input that is empty but caught up.
    pub max_task_idle: Duration,
    /// Bound of a commit, and what the broker allows a transaction.
    pub transaction_timeout: Duration,
    /// A restore without progress for this long fails.
    pub restore_timeout: Duration,
    /// Cache per task in bytes.
    pub cache_bytes_per_task: usize,
    /// Policies per node, indexed by `NodeId`.
    pub on_error: Vec<OnError>,
    /// Where bad records go.
    pub dead_letter_topic: Option<Arc<str>>,
    /// Savepoints; off where the interval is zero.
    pub savepoints: SavepointSettings,
    /// Start empty although there was state (invariant I14).
    pub allow_empty_state: bool,
}
