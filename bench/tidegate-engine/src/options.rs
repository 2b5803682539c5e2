//! The engines' common command line, and what it means to Tidegate.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tidegate::instance::{Backend, Guarantee, InstanceSettings, StateSettings};
use tidegate::operators::OnError;

const MIB: usize = 1 << 20;

/// What is done with the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Counts records per key and emits every update.
    Count,
    /// Copies records with one bit of the value changed.
    Pass,
}

/// Whether an epoch is a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum GuaranteeOption {
    /// It is.
    ExactlyOnce,
    /// It is not.
    AtLeastOnce,
}

/// One workload of the benchmark on Tidegate, until SIGTERM.
#[derive(Debug, Parser)]
#[command(name = "tidegate-bench")]
pub struct Options {
    /// Address of the broker.
    #[arg(long)]
    pub bootstrap: String,
    /// Topic to read.
    #[arg(long)]
    pub input: String,
    /// Topic to write.
    #[arg(long)]
    pub output: String,
    /// Consumer group, and prefix of internal topics.
    #[arg(long)]
    pub app_id: String,
    /// Directory for local state.
    #[arg(long)]
    pub state_dir: PathBuf,
    /// What is done with the records.
    #[arg(long, value_enum)]
    pub workload: Workload,
    /// Number of workers.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Whether an epoch is a transaction.
    #[arg(long, value_enum, default_value = "exactly_once")]
    pub guarantee: GuaranteeOption,
    /// Bytes for recent values in front of RocksDB.
    #[arg(long, default_value_t = 48 * MIB)]
    pub cache_bytes: usize,
    /// Commit interval in milliseconds.
    #[arg(long, default_value_t = 100)]
    pub commit_ms: u64,
    /// Session time-out of the group in milliseconds.
    #[arg(long, default_value_t = 45_000)]
    pub session_timeout_ms: u64,
}

impl Options {
    /// What the instance is told: everything that has no option as the service ships it.
    pub fn settings(&self) -> InstanceSettings {
        InstanceSettings {
            application_id: self.app_id.clone(),
            instance_id: None,
            workers: self.threads,
            guarantee: match self.guarantee {
                GuaranteeOption::ExactlyOnce => Guarantee::ExactlyOnce,
                GuaranteeOption::AtLeastOnce => Guarantee::AtLeastOnce,
            },
            commit_interval: Duration::from_millis(self.commit_ms),
            overlay_max_bytes: 16 * MIB,
            parked_max_bytes: 16 * MIB,
            buffered_max_records: 100_000,
            max_task_idle: Duration::ZERO,
            transaction_timeout: Duration::from_secs(60),
            session_timeout: Duration::from_millis(self.session_timeout_ms),
            startup_timeout: Duration::from_secs(60),
            revoke_timeout: Duration::from_secs(20),
            restore_timeout: Duration::from_secs(300),
            purge_interval: Duration::from_secs(30),
            replication_factor: None,
            state: StateSettings {
                dir: self.state_dir.clone(),
                backend: Backend::RocksDb,
                cache_bytes: self.cache_bytes,
                block_cache_bytes: 32 * MIB,
                write_buffer_bytes: 32 * MIB,
            },
            default_on_error: OnError::Stop,
            on_error: std::collections::BTreeMap::new(),
            dead_letter_topic: None,
            allow_empty_state: false,
        }
    }
}
