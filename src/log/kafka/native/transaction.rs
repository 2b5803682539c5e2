//! What a producer's life has that waits for coordinators: initialisation, topics, commit, abort. All of it within the deadline of
//! its job.

use std::sync::Arc;
use std::time::Duration;

use super::super::deadline::Deadline;
use super::Shared;
use super::api::{self, CoordinatorOf, TopicMetadata};
use super::cluster::Attempts;
use super::codes::BrokerCode;
use super::connection::ConnectionError;
use super::coordinators::Coordinators;
use super::failures;
use super::queue::{Unfinished, not_prepared};
use super::records::{Identity, Parts};
use super::sender::Senders;
use super::thread::{Failure, Outcome, Task};
use super::wire::{Malformed, Reader, Writer};
use crate::log::{Commit, LogError, LogResult, OutBatch};
use crate::record::Headers;

/// How long a topic may be unknown before it counts as missing; the news of a new topic takes a moment.
const UNKNOWN_TOPIC_PATIENCE: Duration = Duration::from_secs(1);

/// The steps of a producer's life that wait for coordinators.
pub(super) struct Steps {
    shared: Arc<Shared>,
    coordinators: Coordinators,
}

impl Steps {
    pub fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            coordinators: Coordinators::new(shared),
        }
    }

    pub fn run(&mut self, task: Task, deadline: &Deadline) -> Outcome {
        match task {
            Task::Init => self.init(deadline).map(|()| Vec::new()),
            Task::Prepare(topics) => Ok(self.prepare(&topics, deadline)?),
            Task::Commit(commit) => Ok(self.commit(&commit, deadline).map(|()| Vec::new())?),
            Task::Abort => Ok(self.abort(deadline).map(|()| Vec::new())?),
        }
    }

    fn init(&mut self, deadline: &Deadline) -> Result<(), Failure> {
        let shared = Arc::clone(&self.shared);
        let operation = format!("initialising producer {}", shared.id);
        // Before anything else: whether the brokers are ones for this producer.
        let mut attempts = Attempts::until(deadline);
        loop {
            match self.coordinators.any(deadline) {
                Ok(_) => break,
                Err(ConnectionError::Unsuitable { peer, reason }) => {
                    return Err(Failure::Unsuitable(format!("broker {peer}: {reason}")));
                }
                Err(_) if deadline.is_over() || shared.queue.is_stopped() => {
                    return Err(shared.cluster.overdue(&operation, deadline).into());
                }
                Err(_) => attempts.pause(),
            }
        }
        let timeout_ms = i32::try_from(shared.options.transaction_timeout.as_millis()).unwrap_or(i32::MAX);
        let write = |out: &mut Writer| api::init_producer_id(out, &shared.id, timeout_ms);
        let of = CoordinatorOf::Transaction(&shared.id);
        let answered = self.coordinators.ask(
            of,
            api::INIT_PRODUCER_ID,
            write,
            api::identity_answer,
            &operation,
            deadline,
        )?;
        let identity = answered
            .answer
            .map_err(|code| failures::initialised(&shared.id, &operation, code))?;
        shared.queue.set_identity(identity);
        Ok(())
    }

    fn prepare(&mut self, topics: &[Arc<str>], deadline: &Deadline) -> LogResult<Vec<i32>> {
        let patience = Deadline::after(UNKNOWN_TOPIC_PATIENCE);
        let mut attempts = Attempts::until(deadline);
        let learnt = loop {
            if let Some(metadata) = self.metadata(topics, deadline)
                && let Some(learnt) = complete(topics, metadata, patience.is_over())?
            {
                break learnt;
            }
            if deadline.is_over() {
                return Err(self.shared.cluster.overdue("learning of topics", deadline));
            }
            attempts.pause();
        };
        self.shared.queue.prepare(&learnt);
        Senders::start(&self.shared)?;
        Ok(learnt
            .iter()
            .map(|(_, leaders)| i32::try_from(leaders.len()).unwrap_or(i32::MAX))
            .collect())
    }

    /// What a broker knows of topics; `None` where none answers.
    fn metadata(&mut self, topics: &[Arc<str>], deadline: &Deadline) -> Option<Vec<TopicMetadata>> {
        let shared = Arc::clone(&self.shared);
        let asked = self.coordinators.any(deadline).ok()?;
        let names = topics.iter().map(|topic| &**topic);
        let answer = shared.cluster.metadata(asked, names, deadline);
        match answer {
            Ok(metadata) => Some(metadata.topics),
            Err(error) => {
                self.coordinators.forget_any();
                shared.cluster.note(&error);
                None
            }
        }
    }

    fn commit(&mut self, commit: &Commit, deadline: &Deadline) -> LogResult<()> {
        commit.check()?;
        let shared = Arc::clone(&self.shared);
        shared.queue.gather();
        for batch in &commit.batches {
            produce(&shared, batch, deadline)?;
        }
        let flushed = shared.queue.flush(deadline);
        flushed.map_err(|unfinished| match unfinished {
            Unfinished::Failed(error) => error,
            Unfinished::Overdue => deadline.timed_out(format!("flushing producer {}", shared.id)),
        })?;
        self.add_offsets(commit, deadline)?;
        self.end(true, deadline)
    }

    fn add_offsets(&mut self, commit: &Commit, deadline: &Deadline) -> LogResult<()> {
        const OPERATION: &str = "adding offsets to the transaction";
        let shared = Arc::clone(&self.shared);
        let identity = self.identity(OPERATION)?;
        for offsets in commit.offset_requests() {
            shared.queue.touch();
            let write = |out: &mut Writer| api::txn_offset_commit(out, &shared.id, identity, &commit.group, offsets);
            let mut subject = String::new();
            let read = |answer: Reader<'_>| -> Result<Result<(), BrokerCode>, Malformed> {
                Ok(match api::txn_offset_commit_answer(answer)? {
                    None => Ok(()),
                    Some((code, partition)) => {
                        subject = partition;
                        Err(code)
                    }
                })
            };
            let of = CoordinatorOf::Group(&commit.group.group);
            let answered = self
                .coordinators
                .ask(of, api::TXN_OFFSET_COMMIT, write, read, OPERATION, deadline)?;
            if let Err(code) = answered.answer {
                return Err(failures::offsets(&shared.id, OPERATION, code, &subject));
            }
        }
        Ok(())
    }

    fn abort(&mut self, deadline: &Deadline) -> LogResult<()> {
        let discarded = self.shared.queue.discard(deadline);
        discarded.map_err(|_| deadline.timed_out("aborting a transaction"))?;
        self.end(false, deadline)
    }

    /// Ends the transaction, unless no broker has heard of it. The answer has the epoch of the next one.
    fn end(&mut self, commits: bool, deadline: &Deadline) -> LogResult<()> {
        let operation = match commits {
            true => "committing the transaction",
            false => "aborting a transaction",
        };
        if !self.shared.queue.is_touched() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let identity = self.identity(operation)?;
        let write = |out: &mut Writer| api::end_txn(out, &shared.id, identity, commits);
        let of = CoordinatorOf::Transaction(&shared.id);
        let answered = self
            .coordinators
            .ask(of, api::END_TXN, write, api::identity_answer, operation, deadline)?;
        match answered.answer {
            Ok(next) => {
                shared.queue.set_identity(next);
                Ok(())
            }
            Err(code) => Err(failures::ended(&shared.id, operation, code, answered.repeated)),
        }
    }

    fn identity(&self, operation: &str) -> LogResult<Identity> {
        self.shared.queue.identity().ok_or_else(|| LogError::Fatal {
            operation: operation.to_owned(),
            reason: "the producer was not initialised".to_owned(),
        })
    }
}

/// Leaders by topic in the order that was asked for, once all of them are known. `strict`: a topic that is unknown is missing.
fn complete(
    topics: &[Arc<str>],
    metadata: Vec<TopicMetadata>,
    strict: bool,
) -> LogResult<Option<Vec<(Arc<str>, Vec<i32>)>>> {
    let mut learnt = Vec::with_capacity(topics.len());
    for name in topics {
        let Some(topic) = metadata.iter().find(|topic| *topic.name == **name) else {
            return Ok(None);
        };
        match topic.code {
            BrokerCode::NONE if topic.leaders.is_empty() => return Ok(None),
            BrokerCode::NONE if topic.leaders.iter().any(|leader| *leader < 0) => return Ok(None),
            BrokerCode::NONE => learnt.push((Arc::clone(name), topic.leaders.clone())),
            BrokerCode::UNKNOWN_TOPIC_OR_PARTITION if strict => {
                return Err(LogError::UnknownTopic {
                    topic: name.to_string(),
                });
            }
            code if code.is_refusal() => {
                return Err(LogError::Refused {
                    operation: "learning of topic".to_owned(),
                    subject: name.to_string(),
                    reason: code.to_string(),
                });
            }
            code if code.is_transient() => return Ok(None),
            code => {
                return Err(LogError::Fatal {
                    operation: format!("learning of topic {name}"),
                    reason: code.to_string(),
                });
            }
        }
    }
    Ok(Some(learnt))
}

/// Queues an increment, batch by batch.
fn produce(shared: &Shared, increment: &OutBatch, deadline: &Deadline) -> LogResult<()> {
    let limits = &shared.options.limits;
    let (topic, partition) = (increment.topic, increment.partition);
    let name = shared.queue.topic(topic);
    let name = name.ok_or_else(|| not_prepared("producing an increment", topic, partition))?;
    let headers = Headers::default();
    // Increments carry no times of their own: they have the time when they are written.
    let timestamp_ms = shared.now_ms();
    let mut outcome = Ok(());
    let mut batch = shared.queue.batch();
    increment.records.for_each(&mut |key, value| {
        if outcome.is_err() {
            return;
        }
        let parts = Parts {
            key: Some(key),
            value,
            timestamp_ms,
            headers: &headers,
        };
        if shared.options.refuses(&parts) {
            outcome = Err(LogError::RecordTooLarge {
                topic: name.to_string(),
                bytes: parts.payload_bytes(),
            });
            return;
        }
        if batch.len() >= limits.batch_records || !batch.push(&parts, limits.batch_bytes) {
            let full = std::mem::replace(&mut batch, shared.queue.batch());
            outcome = shared.queue.enqueue(topic, partition, full, deadline);
            batch.push(&parts, limits.batch_bytes);
        }
    });
    outcome?;
    match batch.len() {
        0 => Ok(()),
        _ => shared.queue.enqueue(topic, partition, batch, deadline),
    }
}
