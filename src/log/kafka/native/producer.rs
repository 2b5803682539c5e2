//! The port over this producer: queues records on the caller's thread and leaves everything that waits to its own.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::cluster::Cluster;
use super::connection::{Connector, Sockets};
use super::options::Options;
use super::queue::{Queue, Refused, not_prepared};
use super::records::Parts;
use super::sender::Senders;
use super::thread::{Failure, Task, TransactionThread};
use crate::log::kafka::KafkaSettings;
use crate::log::{Commit, LogError, LogResult, OutRecord, Producer};

/// How long topics may take to be known with all their leaders.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a producer could not be initialised.
#[derive(Debug)]
pub(in crate::log::kafka) enum InitFailure {
    /// As the port says it.
    Log(LogError),
    /// The brokers do not speak what it needs; with what they lack.
    Unsuitable(String),
}

/// Produces to Kafka in transactions, without librdkafka.
pub(in crate::log::kafka) struct NativeProducer {
    shared: Arc<Shared>,
    thread: TransactionThread,
    /// Whether a transaction is open.
    open: bool,
    /// The error after which only a new producer helps.
    dead: Option<LogError>,
}

impl NativeProducer {
    /// # Errors
    /// Why these settings are not ones for this producer.
    pub fn new(settings: &KafkaSettings, name: &str, transactional_id: &str) -> Result<Self, String> {
        let (options, security) = Options::new(settings, name, transactional_id)?;
        let connector = Connector {
            client_id: format!("{}-{name}", settings.client_id).into(),
            security,
            sockets: Arc::new(Sockets::default()),
        };
        let shared = Arc::new(Shared {
            id: transactional_id.to_owned(),
            name: name.to_owned(),
            cluster: Cluster::new(&settings.bootstrap_servers, connector)?,
            queue: Queue::new(options.limits),
            senders: Senders::default(),
            options,
        });
        let thread = TransactionThread::start(&shared).map_err(|error| error.to_string())?;
        Ok(Self {
            shared,
            thread,
            open: false,
            dead: None,
        })
    }

    /// See [`Producer::init`].
    pub fn init_natively(&mut self, timeout: Duration) -> Result<(), InitFailure> {
        self.alive().map_err(InitFailure::Log)?;
        let outcome = self.thread.finish(Task::Init, timeout, "initialising a producer");
        match outcome {
            Ok(_) => Ok(()),
            Err(Failure::Unsuitable(reason)) => Err(InitFailure::Unsuitable(reason)),
            Err(Failure::Log(error)) => Err(InitFailure::Log(self.noted(error))),
        }
    }

    fn alive(&self) -> LogResult<()> {
        self.dead.as_ref().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Remembers errors that end the producer.
    fn noted(&mut self, error: LogError) -> LogError {
        if let LogError::TimedOut { .. } | LogError::Fenced { .. } | LogError::Fatal { .. } = &error {
            self.dead = Some(error.clone());
        }
        error
    }

    fn outcome(&mut self, outcome: Result<Vec<i32>, Failure>) -> LogResult<Vec<i32>> {
        outcome.map_err(|failure| match failure {
            Failure::Log(error) => self.noted(error),
            Failure::Unsuitable(reason) => self.noted(LogError::Fatal {
                operation: "asking brokers what they speak".to_owned(),
                reason,
            }),
        })
    }

    fn idle(&self, operation: &str) -> LogResult<()> {
        match self.thread.is_running() {
            false => Ok(()),
            true => Err(misused(operation, "a commit is running")),
        }
    }

    fn refused(&mut self, record: &OutRecord<'_>, refused: Refused) -> LogError {
        match refused {
            // Comes again and again until there is room, so it makes no text.
            Refused::Full => LogError::QueueFull,
            Refused::Unknown => not_prepared("sending a record", record.topic, record.partition),
            Refused::Failed(error) => self.noted(error),
        }
    }
}

fn misused(operation: &str, reason: &str) -> LogError {
    LogError::Fatal {
        operation: operation.to_owned(),
        reason: reason.to_owned(),
    }
}

impl Producer for NativeProducer {
    fn init(&mut self, timeout: Duration) -> LogResult<()> {
        self.init_natively(timeout).map_err(|failure| match failure {
            InitFailure::Log(error) => error,
            InitFailure::Unsuitable(reason) => self.noted(LogError::Fatal {
                operation: format!("initialising producer {}", self.shared.id),
                reason,
            }),
        })
    }

    fn prepare(&mut self, topics: &[Arc<str>]) -> LogResult<Vec<i32>> {
        self.alive()?;
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let task = Task::Prepare(topics.to_vec());
        let outcome = self.thread.finish(task, PREPARE_TIMEOUT, "learning of topics");
        self.outcome(outcome)
    }

    fn begin(&mut self) -> LogResult<()> {
        self.alive()?;
        self.idle("beginning a transaction")?;
        if self.open {
            return Err(misused("beginning a transaction", "one is open"));
        }
        self.shared.queue.begin();
        self.open = true;
        Ok(())
    }

    fn send(&mut self, record: &OutRecord<'_>) -> LogResult<()> {
        if !self.open || self.thread.is_running() {
            self.alive()?;
            return Err(misused("sending a record", "no transaction is open for records"));
        }
        let parts = Parts {
            key: record.key,
            value: record.value,
            timestamp_ms: record.timestamp_ms,
            headers: record.headers,
        };
        if self.shared.options.refuses(&parts) {
            let topic = self.shared.queue.topic(record.topic);
            return Err(LogError::RecordTooLarge {
                topic: topic.map_or_else(|| format!("{:?}", record.topic), |topic| topic.to_string()),
                bytes: parts.payload_bytes(),
            });
        }
        match self.shared.queue.send(record.topic, record.partition, &parts) {
            Ok(()) => Ok(()),
            Err(refused) => Err(self.refused(record, refused)),
        }
    }

    fn start_commit(&mut self, commit: Commit) -> LogResult<()> {
        self.alive()?;
        self.idle("committing")?;
        if !self.open {
            return Err(misused("committing", "no transaction is open"));
        }
        let timeout = commit.timeout;
        self.thread.begin(Task::Commit(commit), timeout, "committing")
    }

    fn poll_commit(&mut self, wait: Duration) -> Option<LogResult<()>> {
        if !self.thread.is_running() {
            return Some(Err(misused("waiting for a commit", "none is running")));
        }
        let outcome = self.thread.poll(wait)?;
        let outcome = self.outcome(outcome);
        self.open = outcome.is_err();
        Some(outcome.map(|_| ()))
    }

    fn abort(&mut self, timeout: Duration) -> LogResult<()> {
        self.alive()?;
        self.idle("aborting")?;
        if !self.open {
            return Err(misused("aborting", "no transaction is open"));
        }
        let outcome = self.thread.finish(Task::Abort, timeout, "aborting a transaction");
        self.outcome(outcome)?;
        self.open = false;
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.shared.queue.records()
    }
}

impl Drop for NativeProducer {
    fn drop(&mut self) {
        // Whatever is queued or on its way belongs to an epoch that nobody commits any more. The threads end by themselves:
        // none of them can wait for a socket after this.
        self.shared.queue.stop();
        self.shared.cluster.connector.sockets.close();
    }
}
