//! What an instance needs to know, resolved and checked; the service reads it from TOML.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::durability::Durability;
use crate::durability::snapshot::{ChainLimits, Retention};
use crate::operators::OnError;
use crate::topology::SubTopology;
use crate::worker::{RestoreMode, SavepointSettings, SnapshotSettings};

/// Files of a database that are smaller than this share an object: a request costs as much as some hundred KiB of traffic.
pub const SMALL_FILE_BYTES: u64 = 256 << 10;

/// Whether an epoch is a Kafka transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// Output, offsets and state pointer commit atomically.
    ExactlyOnce,
    /// The same epochs without a transaction; a crash may repeat output.
    AtLeastOnce,
}

/// Where a task's state lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// RocksDB in `state.dir`.
    RocksDb,
    /// In memory; restored from the changelog at every start.
    Memory,
}

/// Limits of local state.
#[derive(Clone, Debug)]
pub struct StateSettings {
    /// Directory of this instance's tasks; unused by [`Backend::Memory`].
    pub dir: PathBuf,
    /// Which backend.
    pub backend: Backend,
    /// Cache of recent values in front of the backend, for the whole instance, in bytes.
    pub cache_bytes: usize,
    /// RocksDB's block cache, shared by all tasks, in bytes.
    pub block_cache_bytes: usize,
    /// RocksDB's memtables, shared by all tasks, in bytes.
    pub write_buffer_bytes: usize,
}

/// Everything an instance needs besides the topology and the log.
#[derive(Clone, Debug)]
pub struct InstanceSettings {
    /// Consumer group and prefix of internal topics and transactional ids.
    pub application_id: String,
    /// Static identity of this instance; `None`: dynamic membership, identity kept in `state.dir`.
    pub instance_id: Option<String>,
    /// Number of worker threads.
    pub workers: usize,
    /// Exactly-once or at-least-once.
    pub guarantee: Guarantee,
    /// What makes state durable.
    pub durability: Durability,
    /// The same for single stores, by name. Stores of one sub-topology are one state, so they have the same.
    pub store_durability: BTreeMap<String, Durability>,
    /// While a strategy changes to `changelog`, each epoch of a task copies about so many bytes of rows to its changelogs.
    pub copy_slice_bytes: usize,
    /// The snapshot repository, where the strategy has one.
    pub snapshots: SnapshotSettings,
    /// Savepoints, which need an object store; off where the interval is zero.
    pub savepoints: SavepointSettings,
    /// Time between two barriers while records flow; after a commit that took long, twice that time but at most the interval.
    pub commit_interval: Duration,
    /// A barrier is forced when a worker's active overlays hold this many bytes.
    pub overlay_max_bytes: usize,
    /// Processing pauses while outputs parked behind a running commit hold this many bytes.
    pub parked_max_bytes: usize,
    /// Records fetched but not yet processed, per worker; fetching pauses above.
    pub buffered_max_records: usize,
    /// How long a task waits, by the wall clock, for records of a partition that is empty but caught up. What the log
    /// already has is always waited for, else results would depend on the order of fetches.
    pub max_task_idle: Duration,
    /// A transaction that is open longer is aborted by the broker.
    pub transaction_timeout: Duration,
    /// Session time-out of the group.
    pub session_timeout: Duration,
    /// How long the instance tries to reach the log at start before it gives up.
    pub startup_timeout: Duration,
    /// How long a revoked task may take to commit and close.
    pub revoke_timeout: Duration,
    /// A restore that makes no progress for this long fails with the cause.
    pub restore_timeout: Duration,
    /// How often consumed records of repartition topics are deleted.
    pub purge_interval: Duration,
    /// Replication factor of internal topics; `None` for the broker's default.
    pub replication_factor: Option<i32>,
    /// Local state.
    pub state: StateSettings,
    /// Policy for bad records where a node has none of its own.
    pub default_on_error: OnError,
    /// Policy by node name.
    pub on_error: BTreeMap<String, OnError>,
    /// Where bad records go under [`OnError::DeadLetter`].
    pub dead_letter_topic: Option<String>,
    /// Start tasks empty although their committed offsets say that there was state (invariant I14).
    pub allow_empty_state: bool,
}

impl InstanceSettings {
    /// What makes the state of a sub-topology durable: the same for all of its stores.
    pub fn durability_of(&self, sub_topology: &SubTopology) -> Durability {
        let store = sub_topology.stores.first();
        let own = store.and_then(|store| self.store_durability.get(&store.name));
        own.copied().unwrap_or(self.durability)
    }

    /// The first strategy that asks for an object store, if one does.
    pub fn durability_with_snapshots(&self) -> Option<Durability> {
        let all = std::iter::once(&self.durability).chain(self.store_durability.values());
        all.copied().find(|durability| durability.has_snapshots())
    }

    /// The settings of application `application_id` as the service ships them: one worker, exactly-once, a commit every
    /// 100 ms, RocksDB below `./state`.
    pub fn new(application_id: &str) -> Self {
        const MIB: usize = 1 << 20;
        Self {
            application_id: application_id.to_owned(),
            instance_id: None,
            workers: 1,
            guarantee: Guarantee::ExactlyOnce,
            durability: Durability::Changelog,
            store_durability: BTreeMap::new(),
            copy_slice_bytes: 4 * MIB,
            snapshots: SnapshotSettings {
                limits: ChainLimits {
                    interval: Duration::from_secs(60),
                    max_objects: 1_000,
                    max_bytes: 256 * MIB as u64,
                },
                retention: Retention {
                    keep: 3,
                    grace: Duration::from_secs(1_800),
                },
                persist_timeout: Duration::from_secs(5),
                spill: false,
                spill_after: Duration::from_millis(500),
                small_file_bytes: SMALL_FILE_BYTES,
                collect_interval: Duration::from_secs(6 * 3600),
                restore: RestoreMode::Full,
                lazy_timeout: Duration::from_secs(5),
            },
            savepoints: SavepointSettings {
                poll: Duration::from_secs(5),
                timeout: Duration::from_secs(30),
            },
            commit_interval: Duration::from_millis(100),
            overlay_max_bytes: 16 * MIB,
            parked_max_bytes: 16 * MIB,
            buffered_max_records: 100_000,
            max_task_idle: Duration::ZERO,
            transaction_timeout: Duration::from_secs(10),
            session_timeout: Duration::from_secs(45),
            startup_timeout: Duration::from_secs(60),
            revoke_timeout: Duration::from_secs(20),
            restore_timeout: Duration::from_secs(300),
            purge_interval: Duration::from_secs(30),
            replication_factor: None,
            state: StateSettings {
                dir: PathBuf::from("state"),
                backend: Backend::RocksDb,
                cache_bytes: 64 * MIB,
                block_cache_bytes: 16 * MIB,
                write_buffer_bytes: 28 * MIB,
            },
            default_on_error: OnError::Stop,
            on_error: BTreeMap::new(),
            dead_letter_topic: None,
            allow_empty_state: false,
        }
    }
}
