//! The engines' common command line, and what it means to Tidegate.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tidegate::instance::{Guarantee, InstanceSettings};
use tidegate::log::kafka::ProducerEngine;

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

/// Which client library sends the records of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProducerOption {
    /// As shipped.
    Auto,
    /// Tidegate's own.
    Native,
    /// librdkafka.
    Librdkafka,
}

impl From<ProducerOption> for ProducerEngine {
    fn from(option: ProducerOption) -> Self {
        match option {
            ProducerOption::Auto => Self::Auto,
            ProducerOption::Native => Self::Native,
            ProducerOption::Librdkafka => Self::Librdkafka,
        }
    }
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
    /// Bytes for recent values in front of RocksDB; as shipped without it.
    #[arg(long)]
    pub cache_bytes: Option<usize>,
    /// Commit interval in milliseconds.
    #[arg(long, default_value_t = 100)]
    pub commit_ms: u64,
    /// Session time-out of the group in milliseconds.
    #[arg(long, default_value_t = 45_000)]
    pub session_timeout_ms: u64,
    /// Which client library sends the records of a transaction.
    #[arg(long, value_enum, default_value = "auto")]
    pub producer_engine: ProducerOption,
}

impl Options {
    /// What the instance is told: everything that has no option as the service ships it.
    pub fn settings(&self) -> InstanceSettings {
        let mut settings = InstanceSettings::new(&self.app_id);
        settings.workers = self.threads;
        settings.guarantee = match self.guarantee {
            GuaranteeOption::ExactlyOnce => Guarantee::ExactlyOnce,
            GuaranteeOption::AtLeastOnce => Guarantee::AtLeastOnce,
        };
        settings.commit_interval = Duration::from_millis(self.commit_ms);
        // As Kafka Streams has it: a machine this busy may take long to commit.
        settings.transaction_timeout = Duration::from_secs(60);
        settings.session_timeout = Duration::from_millis(self.session_timeout_ms);
        settings.state.dir.clone_from(&self.state_dir);
        if let Some(cache_bytes) = self.cache_bytes {
            settings.state.cache_bytes = cache_bytes;
        }
        settings
    }
}
