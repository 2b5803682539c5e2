//! Commits in a thread of their own: increments, offsets, flush, commit, all within one deadline.
//!
//! librdkafka does not keep to the time-out of every call: sending offsets waits for an answer to its request, which a
//! broker that hangs leaves open for `socket.timeout.ms`. So the deadline is watched from outside as well. A commit that
//! overruns it counts as timed out, and its thread is left behind with the handle; it ends by itself, and whatever it
//! still reaches the broker with is fenced by the next producer of the same id.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::deadline::Deadline;
use super::member::Members;
use super::producer::Shared;
use super::raw::{Code, NativeError, PartitionList, RecordChunk, Topic};
use crate::log::{Commit, CommitOffset, LogError, LogResult, OutBatch};

/// An increment goes into the client's queue by this many records …
const CHUNK_RECORDS: usize = 4_000;

/// … or this many bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// How long to wait for room in the client's queue before trying again.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(1);

/// librdkafka registers new partitions with the coordinator a millisecond after their first record. The coordinator takes one
/// change at a time: if the offsets come second they are refused and sent again after a millisecond, but if the partitions
/// do, librdkafka waits 20 ms. So the offsets let them go first.
const REGISTRATION: Duration = Duration::from_micros(1500);

/// How long the news of a refused record may take to come through the client's event queue.
const NEWS_PATIENCE: Duration = Duration::from_millis(500);

/// How much later than its deadline a commit may tell its own outcome, which says more.
const OVERRUN: Duration = Duration::from_millis(250);

struct Job {
    commit: Commit,
    topics: Arc<[Topic]>,
    deadline: Deadline,
}

/// The caller's end of the commit thread.
pub(super) struct Committer {
    jobs: Option<Sender<Job>>,
    outcomes: Receiver<LogResult<()>>,
    thread: Option<JoinHandle<()>>,
    /// When the running commit must have an outcome.
    running: Option<Deadline>,
}

impl Committer {
    pub fn start(name: &str, shared: &Arc<Shared>, members: Arc<Members>) -> std::io::Result<Self> {
        let (jobs, next_job) = bounded::<Job>(1);
        let (done, outcomes) = bounded(1);
        let mut steps = Steps {
            shared: Arc::clone(shared),
            members,
            chunk: RecordChunk::default(),
        };
        let run = move || {
            for job in next_job {
                let outcome = steps.commit(&job);
                // The job's topics go before its outcome does, so that a producer dropped afterwards frees them at once.
                drop(job);
                if done.send(outcome).is_err() {
                    break;
                }
            }
        };
        let thread = thread::Builder::new().name(format!("{name}-commit")).spawn(run)?;
        Ok(Self {
            jobs: Some(jobs),
            outcomes,
            thread: Some(thread),
            running: None,
        })
    }

    /// One that does nothing.
    pub fn stopped() -> Self {
        Self {
            jobs: None,
            outcomes: bounded(0).1,
            thread: None,
            running: None,
        }
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub fn start_commit(&mut self, commit: Commit, topics: Arc<[Topic]>) -> LogResult<()> {
        let deadline = Deadline::after(commit.timeout);
        let latest = Deadline::after(commit.timeout.saturating_add(OVERRUN));
        let job = Job {
            commit,
            topics,
            deadline,
        };
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok());
        self.running = sent.then_some(latest);
        sent.then_some(()).ok_or_else(ended)
    }

    /// The outcome of the running commit, waiting for it at most `wait`.
    pub fn poll(&mut self, wait: Duration) -> Option<LogResult<()>> {
        let deadline = self.running?;
        let outcome = match self.outcomes.recv_timeout(wait.min(deadline.remaining())) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) if deadline.is_over() => {
                self.thread = None;
                Err(deadline.timed_out("committing"))
            }
            Err(RecvTimeoutError::Timeout) => return None,
            Err(RecvTimeoutError::Disconnected) => Err(ended()),
        };
        self.running = None;
        Some(outcome)
    }

    /// Ends the thread; waits for it only where it is idle.
    pub fn stop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take().filter(|_| self.running.is_none()) {
            let _ = thread.join();
        }
    }
}

fn ended() -> LogError {
    LogError::Fatal {
        operation: "committing".to_owned(),
        reason: "the thread that commits has ended".to_owned(),
    }
}

/// The steps of a commit.
struct Steps {
    shared: Arc<Shared>,
    members: Arc<Members>,
    chunk: RecordChunk,
}

impl Steps {
    fn commit(&mut self, job: &Job) -> LogResult<()> {
        let Job {
            commit,
            topics,
            deadline,
        } = job;
        commit.check()?;
        for batch in &commit.batches {
            let topic = topics.get(usize::from(batch.topic.0)).ok_or_else(|| LogError::Fatal {
                operation: "producing an increment".to_owned(),
                reason: format!("{:?} was not prepared", batch.topic),
            })?;
            self.produce(topic, batch, deadline)?;
        }
        if !self.shared.transactional {
            self.flush(deadline)?;
            return self.commit_as_member(commit, deadline);
        }
        let _ = self.shared.client.flush(REGISTRATION.min(deadline.remaining()));
        self.add_offsets(commit, deadline)?;
        self.flush(deadline)?;
        self.commit_transaction(deadline)
    }

    /// Queues an increment. Its records are copied twice, once into a chunk and once by the client, which is cheaper
    /// than one call per record.
    fn produce(&mut self, topic: &Topic, batch: &OutBatch, deadline: &Deadline) -> LogResult<()> {
        let mut outcome = Ok(());
        let Self { shared, chunk, .. } = self;
        batch.records.for_each(&mut |key, value| {
            if outcome.is_ok() {
                chunk.push(key, value);
                if chunk.len() >= CHUNK_RECORDS || chunk.bytes() >= CHUNK_BYTES {
                    outcome = produce_chunk(shared, topic, batch.partition, chunk, deadline);
                }
            }
        });
        if outcome.is_ok() {
            outcome = produce_chunk(shared, topic, batch.partition, chunk, deadline);
        }
        chunk.clear();
        outcome
    }

    /// Waits until every record of the epoch is acknowledged (invariant I4).
    fn flush(&self, deadline: &Deadline) -> LogResult<()> {
        let flushed = self.shared.client.flush(deadline.remaining());
        if let Some(error) = self.shared.client.fatal_error() {
            return Err(self.shared.errors.fatal("flushing", &error));
        }
        if let Some(error) = self.shared.undelivered() {
            return Err(error);
        }
        flushed.map_err(|_| deadline.timed_out(format!("flushing producer {}", self.shared.errors.id)))
    }

    fn failed(&self, operation: &str, deadline: &Deadline, error: &NativeError) -> LogError {
        match self.shared.client.fatal_error() {
            Some(fatal) => self.shared.errors.fatal(operation, &fatal),
            None => self.shared.errors.transactional(operation, deadline.given(), error),
        }
    }

    /// Adds the offsets while the increments are on their way. Nothing shows before the commit, and that waits for all of it.
    fn add_offsets(&self, commit: &Commit, deadline: &Deadline) -> LogResult<()> {
        const OPERATION: &str = "adding offsets to the transaction";
        for request in commit.offset_requests() {
            if deadline.is_over() {
                return Err(deadline.timed_out(OPERATION));
            }
            let list = native_list(request)?;
            let sent = self
                .shared
                .client
                .send_offsets(&list, &commit.group, deadline.remaining());
            // A record that was refused meanwhile fails this call too, and says more.
            sent.map_err(|error| match self.undelivered_behind(&error) {
                Some(undelivered) if self.shared.client.fatal_error().is_none() => undelivered,
                _ => self.failed(OPERATION, deadline, &error),
            })?;
        }
        Ok(())
    }

    /// What was not delivered, where a call failed for an earlier step of the transaction: the news of it may come a moment
    /// after the failure.
    fn undelivered_behind(&self, error: &NativeError) -> Option<LogError> {
        let patience = Deadline::after(NEWS_PATIENCE);
        loop {
            let undelivered = self.shared.undelivered();
            if undelivered.is_some() || error.code != Code::State || patience.is_over() {
                return undelivered;
            }
            thread::park_timeout(QUEUE_FULL_PAUSE);
        }
    }

    fn commit_transaction(&self, deadline: &Deadline) -> LogResult<()> {
        const OPERATION: &str = "committing the transaction";
        if deadline.is_over() {
            return Err(deadline.timed_out(OPERATION));
        }
        let committed = self.shared.client.commit_transaction(deadline.remaining());
        committed.map_err(|error| self.failed(OPERATION, deadline, &error))
    }

    /// Without a transaction only the member itself can commit: librdkafka has no other call that names generation and
    /// member, and the broker refuses one without them while the group has members.
    fn commit_as_member(&self, commit: &Commit, deadline: &Deadline) -> LogResult<()> {
        if commit.offsets.is_empty() {
            return Ok(());
        }
        let member = self.members.find(&commit.group)?;
        for request in commit.offset_requests() {
            member.commit(&native_list(request)?, deadline)?;
        }
        Ok(())
    }
}

fn produce_chunk(
    shared: &Shared,
    topic: &Topic,
    partition: i32,
    chunk: &mut RecordChunk,
    deadline: &Deadline,
) -> LogResult<()> {
    while !chunk.is_empty() {
        match topic.produce_chunk(partition, chunk) {
            Ok(()) => break,
            Err(Code::QueueFull) if !deadline.is_over() => thread::park_timeout(QUEUE_FULL_PAUSE),
            Err(Code::QueueFull) => return Err(deadline.timed_out(format!("producing to {}", topic.name()))),
            Err(code) => {
                let operation = format!("producing an increment to {}-{partition}", topic.name());
                return Err(shared.refused(&operation, code, topic.name(), chunk.first_bytes()));
            }
        }
    }
    chunk.clear();
    Ok(())
}

fn native_list(offsets: &[CommitOffset]) -> LogResult<PartitionList> {
    let failed = |error: NativeError| LogError::Fatal {
        operation: "listing the offsets to commit".to_owned(),
        reason: error.reason,
    };
    let list = PartitionList::with_capacity(offsets.len());
    let mut list = list.ok_or_else(|| failed(NativeError::plain(Code::CriticalSystemResource)))?;
    for offset in offsets {
        list.push(&offset.partition, offset.offset, &offset.metadata)
            .map_err(failed)?;
    }
    Ok(list)
}
