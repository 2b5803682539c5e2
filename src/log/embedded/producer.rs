//! A producer of the embedded log.

use std::sync::Arc;
use std::time::Duration;

use super::broker::BrokerError;
use super::link::Link;
use super::offsets::CommitOffsets;
use super::packed::Packed;
use super::partition::Ending;
use super::topic::{DescribeTopic, TopicId};
use super::transactions::{CommitOffsetsInTransaction, EndTransaction, InitProducer, Produce, ProducerIdentity};
use crate::log::{Commit, LogError, LogResult, OutBatch, OutRecord, OutTopic, Producer};
use crate::record::Headers;

/// An increment is produced in requests of about this many bytes.
const REQUEST_BYTES: usize = 1 << 20;

/// A topic that the producer knows.
struct KnownTopic {
    name: Arc<str>,
    id: TopicId,
    partitions: i32,
}

/// Where a producer is between its calls.
enum Phase {
    /// Transactional, and not initialised.
    New,
    /// No transaction is open.
    Idle,
    /// Between begin and the end of the transaction.
    Open(Open),
    /// Between `start_commit` and its answer, and what comes next.
    Committing(Open, Commit, Step),
    /// Gone for good; every further call answers this.
    Dead(LogError),
}

/// The next step of a commit. Between two of them other clients have their turn, as on a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Produce,
    Offsets,
    End,
}

/// An open transaction (without an id: an epoch) as its producer sees it.
#[derive(Default)]
struct Open {
    /// The broker knows of the transaction. One that it does not know of ends without it.
    started: bool,
    /// Why it can only be aborted.
    failed: Option<LogError>,
}

/// See [`Producer`]. Every record is with the broker before `send` returns, and a commit runs inside of
/// [`Producer::poll_commit`]: one step of it where the caller does not wait, else all that are left.
pub(super) struct EmbeddedProducer {
    name: String,
    link: Link,
    transactional_id: Option<String>,
    identity: Option<ProducerIdentity>,
    topics: Vec<KnownTopic>,
    phase: Phase,
}

impl EmbeddedProducer {
    pub fn new(name: &str, link: Link, transactional_id: Option<&str>) -> Self {
        Self {
            name: name.to_owned(),
            link,
            transactional_id: transactional_id.map(str::to_owned),
            identity: None,
            topics: Vec::new(),
            phase: match transactional_id {
                Some(_) => Phase::New,
                None => Phase::Idle,
            },
        }
    }

    fn misuse(&self, operation: &str, reason: &str) -> LogError {
        LogError::Fatal {
            operation: format!("{operation} by producer {}", self.name),
            reason: reason.to_owned(),
        }
    }

    /// What the broker's refusal means to the caller; a fenced producer is dead from here on.
    fn refused(&mut self, operation: &str, error: &BrokerError) -> LogError {
        let reason = error.to_string();
        match error {
            BrokerError::InvalidProducerEpoch => {
                let transactional_id = self.transactional_id.clone().unwrap_or_default();
                self.die(LogError::Fenced {
                    transactional_id,
                    reason,
                })
            }
            BrokerError::InvalidTxnState | BrokerError::KafkaStorageError(_) => {
                let operation = operation.to_owned();
                self.die(LogError::Fatal { operation, reason })
            }
            BrokerError::IllegalGeneration => LogError::IllegalGeneration { reason },
            BrokerError::UnknownMemberId | BrokerError::FencedInstanceId => LogError::NotAMember { reason },
            _ => LogError::Abort {
                operation: operation.to_owned(),
                reason,
            },
        }
    }

    fn die(&mut self, error: LogError) -> LogError {
        self.phase = Phase::Dead(error.clone());
        error
    }

    /// Whether records may be sent now.
    fn check_sending(&self) -> LogResult<()> {
        match &self.phase {
            Phase::Dead(error) => Err(error.clone()),
            Phase::Open(Open {
                failed: Some(error), ..
            }) => Err(error.clone()),
            Phase::Open(_) => Ok(()),
            Phase::Idle if self.transactional_id.is_none() => Ok(()),
            Phase::Committing(..) => Err(self.misuse("sending", "a commit is running")),
            Phase::New | Phase::Idle => Err(self.misuse("sending", "no transaction is open")),
        }
    }

    fn known(&self, topic: OutTopic, partition: i32) -> LogResult<&KnownTopic> {
        match self.topics.get(usize::from(topic.0)) {
            Some(known) if (0..known.partitions).contains(&partition) => Ok(known),
            Some(known) => Err(self.misuse("sending", &format!("{}-{partition} does not exist", known.name))),
            None => Err(self.misuse("sending", &format!("{topic:?} was not prepared"))),
        }
    }

    fn produce(&mut self, topic: OutTopic, partition: i32, records: Packed) -> LogResult<()> {
        let known = self.known(topic, partition)?;
        let bytes = records.largest_record_bytes();
        let produced = self.link.call(Produce {
            producer: self.identity,
            topic: known.id,
            partition,
            records,
        });
        match produced {
            Ok(()) => {
                self.note_started();
                Ok(())
            }
            Err(BrokerError::MessageTooLarge) => Err(LogError::RecordTooLarge {
                topic: known.name.to_string(),
                bytes,
            }),
            Err(BrokerError::UnknownTopicOrPartition) => Err(LogError::Abort {
                operation: format!("producing to {}-{partition}", known.name),
                reason: BrokerError::UnknownTopicOrPartition.to_string(),
            }),
            Err(error) => Err(self.refused("producing", &error)),
        }
    }

    fn produce_batch(&mut self, batch: &OutBatch) -> LogResult<()> {
        let timestamp_ms = self.link.wall_ms();
        let mut requests = vec![Packed::default()];
        batch.records.for_each(&mut |key, value| {
            if requests
                .last()
                .is_some_and(|request| request.payload_bytes() >= REQUEST_BYTES)
            {
                requests.push(Packed::default());
            }
            if let Some(request) = requests.last_mut() {
                request.push(Some(key), value, timestamp_ms, Headers::default());
            }
        });
        for request in requests {
            if !request.is_empty() {
                self.produce(batch.topic, batch.partition, request)?;
            }
        }
        Ok(())
    }

    fn note_started(&mut self) {
        if let Phase::Open(open) = &mut self.phase {
            open.started = true;
        }
    }

    /// One step of a commit; answers the next one, or `None` at the end.
    fn step(&mut self, commit: &Commit, step: Step) -> LogResult<Option<Step>> {
        match step {
            Step::Produce => {
                for batch in &commit.batches {
                    self.produce_batch(batch)?;
                }
                Ok(Some(Step::Offsets))
            }
            Step::Offsets => {
                if !commit.offsets.is_empty() {
                    self.commit_offsets(commit)?;
                }
                Ok(Some(Step::End))
            }
            Step::End => self.end(Ending::Commit).map(|()| None),
        }
    }

    fn commit_offsets(&mut self, commit: &Commit) -> LogResult<()> {
        commit.check()?;
        for offsets in commit.offset_requests() {
            let (group, offsets) = (commit.group.clone(), offsets.to_vec());
            let Some(producer) = self.identity else {
                let committed = self.link.call(CommitOffsets { group, offsets });
                committed.map_err(|error| self.refused("committing offsets", &error))?;
                continue;
            };
            // Whatever the group says, the transaction has begun at the broker, unless the producer is fenced.
            self.note_started();
            let sent = self.link.call(CommitOffsetsInTransaction {
                producer,
                group,
                offsets,
            });
            sent.map_err(|error| self.refused("sending offsets", &error))?;
        }
        Ok(())
    }

    /// Ends the transaction if the broker knows of it.
    fn end(&mut self, ending: Ending) -> LogResult<()> {
        let started = matches!(&self.phase, Phase::Open(open) if open.started);
        if let Some(producer) = self.identity.filter(|_| started) {
            let ended = self.link.call(EndTransaction { producer, ending });
            ended.map_err(|error| self.refused("ending the transaction", &error))?;
        }
        Ok(())
    }
}

impl Producer for EmbeddedProducer {
    fn init(&mut self, _timeout: Duration) -> LogResult<()> {
        let Some(transactional_id) = &self.transactional_id else {
            return Ok(());
        };
        if !matches!(self.phase, Phase::New) {
            return Err(self.misuse("initialising", "it was done before"));
        }
        let initialised = self.link.call(InitProducer {
            transactional_id: transactional_id.clone(),
            timeout: self.link.settings().transaction_timeout,
        });
        self.identity = Some(initialised.map_err(|error| self.misuse("initialising", &error.to_string()))?);
        self.phase = Phase::Idle;
        Ok(())
    }

    fn prepare(&mut self, topics: &[Arc<str>]) -> LogResult<Vec<i32>> {
        let describe = |name: &Arc<str>| match self.link.call(DescribeTopic(Arc::clone(name))) {
            Ok((id, info)) => Ok(KnownTopic {
                name: Arc::clone(name),
                id,
                partitions: info.partitions,
            }),
            Err(_) => Err(LogError::UnknownTopic {
                topic: name.to_string(),
            }),
        };
        self.topics = topics.iter().map(describe).collect::<LogResult<_>>()?;
        Ok(self.topics.iter().map(|topic| topic.partitions).collect())
    }

    fn begin(&mut self) -> LogResult<()> {
        match &self.phase {
            Phase::Idle => {
                self.phase = Phase::Open(Open::default());
                Ok(())
            }
            Phase::Dead(error) => Err(error.clone()),
            Phase::New => Err(self.misuse("beginning a transaction", "it is not initialised")),
            Phase::Open(_) | Phase::Committing(..) => {
                Err(self.misuse("beginning a transaction", "the former one has not ended"))
            }
        }
    }

    fn send(&mut self, record: &OutRecord<'_>) -> LogResult<()> {
        self.check_sending()?;
        let mut records = Packed::with_room(record.key, record.value);
        records.push(record.key, record.value, record.timestamp_ms, record.headers.clone());
        let produced = self.produce(record.topic, record.partition, records);
        if let (Err(error @ LogError::Abort { .. }), Phase::Open(open)) = (&produced, &mut self.phase) {
            open.failed = Some(error.clone());
        }
        produced
    }

    fn start_commit(&mut self, commit: Commit) -> LogResult<()> {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Open(open) => {
                self.phase = Phase::Committing(open, commit, Step::Produce);
                Ok(())
            }
            other => {
                self.phase = other;
                match &self.phase {
                    Phase::Dead(error) => Err(error.clone()),
                    Phase::Committing(..) => Err(self.misuse("committing", "a commit is running")),
                    _ => Err(self.misuse("committing", "no transaction is open")),
                }
            }
        }
    }

    fn poll_commit(&mut self, wait: Duration) -> Option<LogResult<()>> {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Committing(open, commit, step) => {
                let failed = open.failed.clone();
                self.phase = Phase::Open(open);
                let mut next = failed.map_or(Ok(Some(step)), Err);
                while let Ok(Some(step)) = next {
                    next = self.step(&commit, step);
                    if wait.is_zero() {
                        break;
                    }
                }
                match (next, std::mem::replace(&mut self.phase, Phase::Idle)) {
                    (Ok(Some(step)), Phase::Open(open)) => {
                        self.phase = Phase::Committing(open, commit, step);
                        None
                    }
                    (Err(error), Phase::Open(mut open)) => {
                        open.failed = Some(error.clone());
                        self.phase = Phase::Open(open);
                        Some(Err(error))
                    }
                    // The producer died of the error.
                    (Err(error), dead) => {
                        self.phase = dead;
                        Some(Err(error))
                    }
                    (Ok(_), _) => Some(Ok(())),
                }
            }
            other => {
                self.phase = other;
                match &self.phase {
                    Phase::Dead(error) => Some(Err(error.clone())),
                    _ => Some(Err(self.misuse("committing", "no commit is running"))),
                }
            }
        }
    }

    fn abort(&mut self, _timeout: Duration) -> LogResult<()> {
        match &self.phase {
            Phase::Open(_) => {
                self.end(Ending::Abort)?;
                self.phase = Phase::Idle;
                Ok(())
            }
            Phase::Dead(error) => Err(error.clone()),
            Phase::Committing(..) => Err(self.misuse("aborting", "a commit is running")),
            Phase::New | Phase::Idle => Err(self.misuse("aborting", "no transaction is open")),
        }
    }

    fn in_flight(&self) -> usize {
        // `send` returns with the broker's acknowledgement.
        0
    }
}
