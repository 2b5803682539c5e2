//! The producer: queues records on the caller's thread and leaves everything that waits to threads of its own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::committer::Committer;
use super::deadline::{Deadline, timed_out};
use super::errors::{Connections, ProducerErrors};
use super::member::Members;
use super::not_made;
use super::raw::{self, Client, Code, Event, FailedDelivery, Kind, NativeError, Queue, Topic};
use super::settings::KafkaSettings;
use crate::log::{Commit, LogError, LogResult, OutRecord, Producer};

/// How long topics may take to be known with all their leaders.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a topic may be unknown before it counts as missing; the news of a new topic takes a moment.
const UNKNOWN_TOPIC_PATIENCE: Duration = Duration::from_secs(1);

/// Pause between two questions about the same topic.
const METADATA_PAUSE: Duration = Duration::from_millis(20);

/// The poller only waits for events; this is how long it sleeps when there are none.
const POLL_WAIT: Duration = Duration::from_secs(1);

/// What a record adds to its key and value within a batch of its own, at most, headers aside.
const RECORD_OVERHEAD_BYTES: usize = 61 + 40;

/// What the threads of one producer share.
pub(super) struct Shared {
    pub client: Arc<Client>,
    pub events: Queue,
    pub errors: ProducerErrors,
    pub transactional: bool,
    failed: AtomicU64,
    first_failed: Mutex<Option<FailedDelivery>>,
    stopping: AtomicBool,
}

impl Shared {
    /// Serves events, so that undelivered records leave the queue and their errors are known.
    fn poll_until_stopped(&self) {
        while !self.stopping.load(Ordering::Acquire) {
            self.events.serve(POLL_WAIT, &mut |event| match event {
                Event::Undelivered(failed) => self.note_undelivered(failed),
                Event::Error(error) => {
                    self.errors.connections.note(&error);
                    tracing::debug!(
                        producer = self.errors.id,
                        reason = error.reason,
                        "kafka producer reports an error"
                    );
                }
                _ => {}
            });
        }
    }

    fn note_undelivered(&self, failed: Vec<FailedDelivery>) {
        let ours = |failed: &FailedDelivery| !matches!(failed.code, Code::PurgeQueue | Code::PurgeInflight);
        let mut failed = failed.into_iter().filter(ours);
        if let Some(first) = failed.next() {
            let count = 1 + failed.count() as u64;
            let mut first_failed = self.first_failed.lock().unwrap_or_else(PoisonError::into_inner);
            first_failed.get_or_insert(first);
            self.failed.fetch_add(count, Ordering::AcqRel);
        }
    }

    /// The error of the records of this epoch that were not delivered, if any.
    pub fn undelivered(&self) -> Option<LogError> {
        let count = self.failed.load(Ordering::Acquire);
        if count == 0 {
            return None;
        }
        let first = self.first_failed.lock().unwrap_or_else(PoisonError::into_inner);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        first.as_ref().map(|first| self.errors.undelivered(first, count))
    }

    fn forget_undelivered(&self) {
        *self.first_failed.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.failed.store(0, Ordering::Release);
    }

    /// Why a record could not be queued, or a transactional call was refused.
    pub fn refused(&self, operation: &str, code: Code, topic: &str, bytes: usize) -> LogError {
        match code {
            Code::MessageSizeTooLarge => LogError::RecordTooLarge {
                topic: topic.to_owned(),
                bytes,
            },
            code => match self.client.fatal_error() {
                Some(error) => self.errors.fatal(operation, &error),
                // The transaction has failed by now: librdkafka takes nothing more until it is aborted.
                None if code == Code::State && self.transactional => LogError::Abort {
                    operation: operation.to_owned(),
                    reason: "an earlier step of the transaction failed".to_owned(),
                },
                None => LogError::Fatal {
                    operation: operation.to_owned(),
                    reason: raw::describe(code),
                },
            },
        }
    }
}

/// Produces to Kafka.
pub(super) struct KafkaProducer {
    shared: Arc<Shared>,
    topics: Arc<[Topic]>,
    /// Records larger than this are refused at once; `None` where compression makes the size unknown.
    record_max_bytes: Option<usize>,
    committer: Committer,
    poller: Option<JoinHandle<()>>,
    /// The error after which only a new producer helps.
    dead: Option<LogError>,
}

impl KafkaProducer {
    pub fn new(
        settings: &KafkaSettings,
        name: &str,
        transactional_id: Option<&str>,
        members: Arc<Members>,
    ) -> LogResult<Self> {
        let properties = settings.producer_properties(name, transactional_id);
        let made = |reason| not_made(&format!("producer {name}"), reason);
        let client = Client::new(Kind::Producer, &properties, raw::ERRORS | raw::UNDELIVERED).map_err(made)?;
        let events = client
            .main_queue()
            .ok_or_else(|| made("it has no event queue".to_owned()))?;
        let shared = Arc::new(Shared {
            client,
            events,
            errors: ProducerErrors {
                connections: Connections::new(&settings.bootstrap_servers),
                id: transactional_id.unwrap_or(name).to_owned(),
            },
            transactional: transactional_id.is_some(),
            failed: AtomicU64::new(0),
            first_failed: Mutex::new(None),
            stopping: AtomicBool::new(false),
        });
        let polled = Arc::clone(&shared);
        let poller = thread::Builder::new()
            .name(format!("{name}-poll"))
            .spawn(move || polled.poll_until_stopped());
        let poller = poller.map_err(|error| made(error.to_string()))?;
        let committer = Committer::start(name, &shared, members).map_err(|error| made(error.to_string()));
        let uncompressed = |name: &str| properties.get(name).is_none_or(|codec| codec == "none");
        let max_bytes = properties.get("message.max.bytes").and_then(|bytes| bytes.parse().ok());
        let mut producer = Self {
            topics: Arc::new([]),
            record_max_bytes: max_bytes
                .filter(|_| uncompressed("compression.type") && uncompressed("compression.codec")),
            committer: Committer::stopped(),
            poller: Some(poller),
            dead: None,
            shared,
        };
        // Only now, so that a failure stops the poller.
        producer.committer = committer?;
        Ok(producer)
    }

    fn alive(&self) -> LogResult<()> {
        self.dead.as_ref().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Remembers errors that end the producer.
    fn note_end<T>(&mut self, outcome: LogResult<T>) -> LogResult<T> {
        if let Err(error @ (LogError::TimedOut { .. } | LogError::Fenced { .. } | LogError::Fatal { .. })) = &outcome {
            self.dead = Some(error.clone());
        }
        outcome
    }

    fn idle(&self, operation: &str) -> LogResult<()> {
        match self.committer.is_running() {
            false => Ok(()),
            true => Err(LogError::Fatal {
                operation: operation.to_owned(),
                reason: "a commit is running".to_owned(),
            }),
        }
    }

    /// The partition count of a topic, once it is known with all its leaders.
    fn learn(&self, topic: &Topic, deadline: &Deadline) -> LogResult<i32> {
        let patience = Deadline::after(UNKNOWN_TOPIC_PATIENCE);
        loop {
            let answer = self.shared.client.metadata(Some(topic), deadline.remaining());
            let failed = |error: &NativeError| {
                self.shared
                    .errors
                    .connections
                    .failed("learning of topic", topic.name(), deadline.given(), error)
            };
            let metadata = answer.map_err(|error| failed(&error))?;
            match metadata {
                Some(metadata) if metadata.error.is_none() && metadata.led => return Ok(metadata.partitions),
                Some(metadata) => match metadata.error {
                    Some(code) if Client::is_unknown(code) && patience.is_over() => {
                        return Err(LogError::UnknownTopic {
                            topic: topic.name().to_string(),
                        });
                    }
                    Some(code) if !Client::is_unknown(code) && code != Code::LeaderNotAvailable => {
                        return Err(failed(&NativeError::plain(code)));
                    }
                    _ => {}
                },
                None => {}
            }
            if deadline.is_over() {
                return Err(deadline.timed_out(format!("learning of topic {}", topic.name())));
            }
            thread::park_timeout(METADATA_PAUSE);
        }
    }

    fn init_now(&self, timeout: Duration) -> LogResult<()> {
        let shared = &self.shared;
        let operation = format!("initialising producer {}", shared.errors.id);
        let outcome = match shared.transactional {
            true => shared.client.init_transactions(timeout),
            false => shared.client.metadata(None, timeout).map(|_| ()),
        };
        let Err(error) = outcome else {
            shared.errors.connections.answered();
            return Ok(());
        };
        Err(match shared.client.fatal_error() {
            Some(fatal) => shared.errors.fatal(&operation, &fatal),
            None if error.retriable => match shared.errors.connections.failed(&operation, "", timeout, &error) {
                unreachable @ LogError::Unreachable { .. } => unreachable,
                _ => timed_out(operation, timeout),
            },
            None => shared.errors.connections.failed(&operation, "", timeout, &error),
        })
    }

    /// `gap`: a record of this transaction was refused. librdkafka then goes on with the sequence numbers after it, which
    /// the broker refuses in turn, so the producer ends with this transaction.
    fn abort_transaction(&self, timeout: Duration, gap: bool) -> LogResult<()> {
        const OPERATION: &str = "aborting a transaction";
        let shared = &self.shared;
        let aborted = shared.client.abort_transaction(timeout);
        aborted.map_err(|error| match shared.client.fatal_error() {
            Some(fatal) => shared.errors.fatal(OPERATION, &fatal),
            None => shared.errors.transactional(OPERATION, timeout, &error),
        })?;
        match gap {
            false => Ok(()),
            true => Err(LogError::Fatal {
                operation: "going on after a transaction with refused records".to_owned(),
                reason: "its sequence numbers have a gap; the transaction is aborted, and a new producer can go on"
                    .to_owned(),
            }),
        }
    }

    /// Drops what is queued and waits for what is on its way; without a transaction that is all an abort can do.
    fn abort_without_transaction(&self, timeout: Duration) -> LogResult<()> {
        self.shared.client.purge(false);
        let flushed = self.shared.client.flush(timeout);
        flushed.map_err(|_| timed_out(format!("aborting the epoch of {}", self.shared.errors.id), timeout))
    }
}

impl Producer for KafkaProducer {
    fn init(&mut self, timeout: Duration) -> LogResult<()> {
        self.alive()?;
        let outcome = self.init_now(timeout);
        self.note_end(outcome)
    }

    fn prepare(&mut self, topics: &[Arc<str>]) -> LogResult<Vec<i32>> {
        let deadline = Deadline::after(PREPARE_TIMEOUT);
        let mut handles = Vec::with_capacity(topics.len());
        let mut counts = Vec::with_capacity(topics.len());
        for name in topics {
            let topic = Topic::new(&self.shared.client, name);
            let topic = topic.map_err(|_| LogError::UnknownTopic {
                topic: name.to_string(),
            })?;
            counts.push(self.learn(&topic, &deadline)?);
            handles.push(topic);
        }
        self.topics = handles.into();
        Ok(counts)
    }

    fn begin(&mut self) -> LogResult<()> {
        self.alive()?;
        self.idle("beginning a transaction")?;
        self.shared.forget_undelivered();
        if !self.shared.transactional {
            return Ok(());
        }
        let begun = self.shared.client.begin_transaction();
        let begun = begun.map_err(|error| match self.shared.client.fatal_error() {
            Some(fatal) => self.shared.errors.fatal("beginning a transaction", &fatal),
            None => LogError::Fatal {
                operation: "beginning a transaction".to_owned(),
                reason: error.reason,
            },
        });
        self.note_end(begun)
    }

    fn send(&mut self, record: &OutRecord<'_>) -> LogResult<()> {
        let Some(topic) = self.topics.get(usize::from(record.topic.0)) else {
            return Err(LogError::Fatal {
                operation: "sending a record".to_owned(),
                reason: format!("{:?} was not prepared", record.topic),
            });
        };
        let bytes = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        let too_large = self
            .record_max_bytes
            .is_some_and(|max| bytes + RECORD_OVERHEAD_BYTES > max);
        // librdkafka takes 0 for "now".
        let timestamp_ms = if record.timestamp_ms == 0 {
            1
        } else {
            record.timestamp_ms
        };
        let sent = match too_large {
            true => Err(Code::MessageSizeTooLarge),
            false => topic.produce(record.partition, record.key, record.value, timestamp_ms, record.headers),
        };
        match sent {
            Ok(()) => Ok(()),
            // Comes again and again until there is room, so it makes no text.
            Err(Code::QueueFull) => Err(LogError::QueueFull),
            Err(code) => {
                let operation = format!("sending a record to {}-{}", topic.name(), record.partition);
                let refused = Err(self.shared.refused(&operation, code, topic.name(), bytes));
                self.note_end(refused)
            }
        }
    }

    fn start_commit(&mut self, commit: Commit) -> LogResult<()> {
        self.alive()?;
        self.idle("committing")?;
        self.committer.start_commit(commit, Arc::clone(&self.topics))
    }

    fn poll_commit(&mut self, wait: Duration) -> Option<LogResult<()>> {
        if !self.committer.is_running() {
            let error = LogError::Fatal {
                operation: "waiting for a commit".to_owned(),
                reason: "none is running".to_owned(),
            };
            return Some(Err(error));
        }
        let outcome = self.committer.poll(wait)?;
        Some(self.note_end(outcome))
    }

    fn abort(&mut self, timeout: Duration) -> LogResult<()> {
        self.alive()?;
        self.idle("aborting")?;
        let gap = self.shared.undelivered().is_some();
        let outcome = match self.shared.transactional {
            true => self.abort_transaction(timeout, gap),
            false => self.abort_without_transaction(timeout),
        };
        self.shared.forget_undelivered();
        self.note_end(outcome)
    }

    fn in_flight(&self) -> usize {
        self.shared.client.queued()
    }
}

impl Drop for KafkaProducer {
    fn drop(&mut self) {
        // Whatever is queued or on its way belongs to an epoch that nobody commits any more.
        self.shared.client.purge(true);
        // A commit that still runs ends by itself; its thread then drops the last reference of the handle.
        self.committer.stop();
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.events.interrupt();
        if let Some(poller) = self.poller.take() {
            let _ = poller.join();
        }
    }
}
