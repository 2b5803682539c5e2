//! The options as typed values, in the same sections. The names are checked against the table of options by a test.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::secret::{ClientOptions, Secret};
use super::size::ByteSize;
use crate::blob::BlobLimits;
use crate::blob::object::S3Options;
use crate::durability::Durability;
use crate::durability::snapshot::{ChainLimits, Retention};
use crate::instance::{Backend, Guarantee, InstanceSettings, SMALL_FILE_BYTES, StateSettings};
use crate::operators::OnError;
use crate::time::HumanDuration;
use crate::topology::Parameters;
use crate::worker::{RestoreMode, SavepointSettings, SnapshotSettings};

/// All options. Each field is documented in the table of options (`tidegate config reference`).
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // The table of options is the documentation; repeating it here would let the two drift apart.
pub struct Settings {
    pub workers: usize,
    pub guarantee: GuaranteeSetting,
    pub durability: String,
    pub application: ApplicationSection,
    pub instance: InstanceSection,
    pub commit: CommitSection,
    pub kafka: KafkaSection,
    pub embedded: EmbeddedSection,
    pub topics: TopicsSection,
    pub snapshot: SnapshotSection,
    pub savepoint: SavepointSection,
    pub state: StateSection,
    pub stores: StoresSection,
    pub limits: LimitsSection,
    pub tasks: TasksSection,
    pub errors: ErrorsSection,
    pub http: HttpSection,
    pub log: LogSection,
    pub parameters: Parameters,
}

macro_rules! sections {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize)]
        #[cfg_attr(test, derive(serde::Serialize))]
        #[serde(deny_unknown_fields)]
        #[allow(missing_docs)] // As above.
        pub struct $name { $(pub $field: $kind),* }
    )*};
}

sections! {
    /// `[application]`
    ApplicationSection { id: Option<String> }
    /// `[instance]`
    InstanceSection { id: Option<String> }
    /// `[commit]`
    CommitSection { interval: HumanDuration }
    /// `[kafka]`
    KafkaSection {
        bootstrap_servers: Option<String>,
        startup_timeout: HumanDuration,
        session_timeout: HumanDuration,
        transaction_timeout: HumanDuration,
        security: SecuritySection,
        common: ClientOptions,
        consumer: ClientOptions,
        producer: ClientOptions,
        admin: ClientOptions,
        linger: HumanDuration,
        fetch_buffer: ByteSize,
        send_buffer: ByteSize,
        producer_engine: String,
    }
    /// `[kafka.security]`
    SecuritySection {
        protocol: String,
        sasl_mechanism: Option<String>,
        username: Option<String>,
        password: Option<Secret>,
        ca_file: Option<PathBuf>,
        certificate_file: Option<PathBuf>,
        key_file: Option<PathBuf>,
        key_password: Option<Secret>,
    }
    /// `[embedded]`
    EmbeddedSection { enabled: bool, dir: Option<PathBuf>, partitions: i32 }
    /// `[topics]`
    TopicsSection { replication_factor: Option<i32>, purge_interval: HumanDuration }
    /// `[snapshot]`
    SnapshotSection {
        url: Option<String>,
        interval: HumanDuration,
        chain_objects: usize,
        chain_size: ByteSize,
        keep: usize,
        grace: HumanDuration,
        persist_timeout: HumanDuration,
        spill: bool,
        spill_after: HumanDuration,
        collect_interval: HumanDuration,
        restore: RestoreSetting,
        lazy_timeout: HumanDuration,
        request_timeout: HumanDuration,
        call_timeout: HumanDuration,
        concurrency: usize,
        upload_rate: ByteSize,
        download_rate: ByteSize,
        s3: S3Section,
    }
    /// `[snapshot.s3]`
    S3Section {
        endpoint: Option<String>,
        region: Option<String>,
        access_key: Option<String>,
        secret_key: Option<Secret>,
        allow_http: bool,
        virtual_hosted: bool,
    }
    /// `[savepoint]`
    SavepointSection { poll: HumanDuration, timeout: HumanDuration }
    /// `[state]`
    StateSection {
        dir: PathBuf,
        backend: BackendSetting,
        cache: ByteSize,
        block_cache: ByteSize,
        write_buffer: ByteSize,
        allow_empty: bool,
    }
    /// `[stores]`
    StoresSection { durability: BTreeMap<String, String> }
    /// `[limits]`
    LimitsSection { overlay: ByteSize, parked: ByteSize, buffered_records: usize, copy_slice: ByteSize }
    /// `[tasks]`
    TasksSection { max_idle: HumanDuration, revoke_timeout: HumanDuration, restore_timeout: HumanDuration }
    /// `[errors]`
    ErrorsSection { default: PolicySetting, nodes: BTreeMap<String, PolicySetting>, dead_letter_topic: Option<String> }
    /// `[http]`
    HttpSection { enabled: bool, address: String }
    /// `[log]`
    LogSection { format: LogFormat, level: String }
}

/// `guarantee`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum GuaranteeSetting {
    /// Output, offsets and state commit atomically.
    ExactlyOnce,
    /// The same epochs without a transaction.
    AtLeastOnce,
}

impl From<GuaranteeSetting> for Guarantee {
    fn from(word: GuaranteeSetting) -> Self {
        match word {
            GuaranteeSetting::ExactlyOnce => Guarantee::ExactlyOnce,
            GuaranteeSetting::AtLeastOnce => Guarantee::AtLeastOnce,
        }
    }
}

/// `errors.default` and `errors.nodes`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum PolicySetting {
    /// Stop the instance.
    Stop,
    /// Count the record and go on.
    Skip,
    /// Write the record to the dead-letter topic.
    DeadLetter,
}

impl From<PolicySetting> for OnError {
    fn from(word: PolicySetting) -> Self {
        match word {
            PolicySetting::Stop => OnError::Stop,
            PolicySetting::Skip => OnError::Skip,
            PolicySetting::DeadLetter => OnError::DeadLetter,
        }
    }
}

/// `log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

/// `state.backend`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub enum BackendSetting {
    /// RocksDB on the disk.
    RocksDb,
    /// In memory.
    Memory,
}

impl From<BackendSetting> for Backend {
    fn from(word: BackendSetting) -> Self {
        match word {
            BackendSetting::RocksDb => Backend::RocksDb,
            BackendSetting::Memory => Backend::Memory,
        }
    }
}

/// Whether a task waits for all files of a base snapshot before it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub enum RestoreSetting {
    /// It does.
    Full,
    /// It does not.
    Lazy,
}

impl From<RestoreSetting> for RestoreMode {
    fn from(word: RestoreSetting) -> Self {
        match word {
            RestoreSetting::Full => RestoreMode::Full,
            RestoreSetting::Lazy => RestoreMode::Lazy,
        }
    }
}

impl SnapshotSection {
    /// How instances write to the repository.
    pub fn settings(&self) -> SnapshotSettings {
        SnapshotSettings {
            limits: ChainLimits {
                interval: self.interval.0,
                max_objects: self.chain_objects,
                max_bytes: self.chain_size.0,
            },
            retention: Retention {
                keep: self.keep,
                grace: self.grace.0,
            },
            persist_timeout: self.persist_timeout.0,
            spill: self.spill,
            spill_after: self.spill_after.0,
            small_file_bytes: SMALL_FILE_BYTES,
            collect_interval: self.collect_interval.0,
            restore: self.restore.into(),
            lazy_timeout: self.lazy_timeout.0,
        }
    }

    /// Bounds of the calls on the object store.
    pub fn limits(&self) -> BlobLimits {
        BlobLimits {
            request_timeout: self.request_timeout.0,
            call_timeout: self.call_timeout.0,
            concurrency: self.concurrency,
            upload_bytes_per_second: self.upload_rate.0,
            download_bytes_per_second: self.download_rate.0,
        }
    }

    /// How an S3-compatible server is reached.
    pub fn s3_options(&self) -> S3Options {
        S3Options {
            endpoint: self.s3.endpoint.clone(),
            region: self.s3.region.clone(),
            access_key: self.s3.access_key.clone(),
            secret_key: self.s3.secret_key.as_ref().map(|secret| secret.expose().to_owned()),
            allow_http: self.s3.allow_http,
            virtual_hosted: self.s3.virtual_hosted,
        }
    }
}

impl Settings {
    /// The strategy that is set; the table of options lets no other word through.
    pub fn durability(&self) -> Durability {
        Durability::of_word(&self.durability).unwrap_or_default()
    }

    /// The same for single stores.
    fn store_durability(&self) -> BTreeMap<String, Durability> {
        let stores = self.stores.durability.iter();
        let read = stores.filter_map(|(store, word)| Some((store.clone(), Durability::of_word(word)?)));
        read.collect()
    }

    /// Whether any strategy that is set asks for an object store.
    pub fn has_snapshots(&self) -> bool {
        let stores = self.store_durability();
        self.durability().has_snapshots() || stores.values().any(|durability| durability.has_snapshots())
    }

    /// What an instance of topology `topology` needs to know.
    pub fn instance_settings(&self, topology: &str) -> InstanceSettings {
        InstanceSettings {
            application_id: self.application.id.clone().unwrap_or_else(|| topology.to_owned()),
            instance_id: self.instance.id.clone(),
            workers: self.workers,
            guarantee: self.guarantee.into(),
            durability: self.durability(),
            store_durability: self.store_durability(),
            copy_slice_bytes: self.limits.copy_slice.as_usize(),
            snapshots: self.snapshot.settings(),
            savepoints: SavepointSettings {
                poll: self.savepoint.poll.0,
                timeout: self.savepoint.timeout.0,
            },
            commit_interval: self.commit.interval.0,
            overlay_max_bytes: self.limits.overlay.as_usize(),
            parked_max_bytes: self.limits.parked.as_usize(),
            buffered_max_records: self.limits.buffered_records,
            max_task_idle: self.tasks.max_idle.0,
            transaction_timeout: self.kafka.transaction_timeout.0,
            session_timeout: self.kafka.session_timeout.0,
            startup_timeout: self.kafka.startup_timeout.0,
            revoke_timeout: self.tasks.revoke_timeout.0,
            restore_timeout: self.tasks.restore_timeout.0,
            purge_interval: self.topics.purge_interval.0,
            replication_factor: self.topics.replication_factor,
            state: StateSettings {
                dir: self.state.dir.clone(),
                backend: self.state.backend.into(),
                cache_bytes: self.state.cache.as_usize(),
                block_cache_bytes: self.state.block_cache.as_usize(),
                write_buffer_bytes: self.state.write_buffer.as_usize(),
            },
            default_on_error: self.errors.default.into(),
            on_error: self
                .errors
                .nodes
                .iter()
                .map(|(node, policy)| (node.clone(), (*policy).into()))
                .collect(),
            dead_letter_topic: self.errors.dead_letter_topic.clone(),
            allow_empty_state: self.state.allow_empty,
        }
    }
}
