//! Records on their way: filled into batches by the worker, taken by the threads that send them.
//!
//! One lock guards it all. The worker holds it for a record, the senders for the beginning and the end of a request, so it
//! is nearly always free. Of each partition one batch at most is with a broker; the next one follows its acknowledgement.
//! That keeps order and sequence numbers right whatever has to be sent again.

mod state;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::super::deadline::Deadline;
use super::records::{Batch, Identity, Parts};
use crate::log::{LogError, LogResult, OutTopic};
use state::State;

/// The longest that a thread sleeps before it looks around.
const LOOK_AROUND: Duration = Duration::from_millis(250);

/// Bounds of the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Records that are not yet acknowledged.
    pub records: usize,
    /// Bytes of their keys and values.
    pub bytes: usize,
    /// Bytes of a batch, before compression.
    pub batch_bytes: usize,
    /// Records of a batch.
    pub batch_records: usize,
    /// Bytes of batches in one request.
    pub request_bytes: usize,
    /// How long a record may wait for others.
    pub linger: Duration,
    /// How long a batch may take to be acknowledged.
    pub delivery: Duration,
}

/// Why a record was not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// There is no room; later there is.
    Full,
    /// There is no such partition.
    Unknown,
    /// The transaction has failed.
    Failed(LogError),
}

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Fate {
    Acknowledged,
    /// It has to be sent again, after a pause; perhaps to another leader.
    Again {
        pause: Duration,
        moved: bool,
    },
    Failed(LogError),
}

/// A batch that a sender has, and where it belongs.
#[derive(Debug)]
pub(super) struct Taken {
    place: usize,
    pub topic: Arc<str>,
    pub partition: i32,
    pub batch: Batch,
}

/// What a sender does next.
#[derive(Debug)]
pub(super) enum Work {
    /// Sends these as the producer that is named.
    Produce(Identity, Vec<Taken>),
    /// Asks for the leaders of partitions that have none.
    Refresh,
}

/// See the module.
pub(super) struct Queue {
    limits: Limits,
    began: Instant,
    state: Mutex<State>,
    /// There is something for senders.
    work: Condvar,
    /// Something was acknowledged, or has failed.
    progress: Condvar,
}

impl Queue {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            began: now(),
            state: Mutex::default(),
            work: Condvar::new(),
            progress: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        now().saturating_duration_since(self.began)
    }

    /// Sets the topics, with the leaders of their partitions.
    pub fn prepare(&self, topics: &[(Arc<str>, Vec<i32>)]) {
        self.lock().prepare(topics);
    }

    /// The names of the topics.
    pub fn topics(&self) -> Vec<Arc<str>> {
        self.lock().topics.iter().map(|topic| Arc::clone(&topic.name)).collect()
    }

    /// The name of a topic.
    pub fn topic(&self, topic: OutTopic) -> Option<Arc<str>> {
        let state = self.lock();
        state
            .topics
            .get(usize::from(topic.0))
            .map(|topic| Arc::clone(&topic.name))
    }

    /// The leaders of a topic's partitions, as they are by now.
    pub fn set_leaders(&self, topic: &str, leaders: &[i32]) {
        self.lock().set_leaders(topic, leaders);
        self.work.notify_all();
    }

    /// Every broker that leads a partition.
    pub fn leaders(&self) -> Vec<i32> {
        self.lock().leaders()
    }

    /// Who the producer is from now on: its sequence numbers begin again.
    pub fn set_identity(&self, identity: Identity) {
        let now = self.now();
        self.lock().set_identity(identity, now);
    }

    pub fn identity(&self) -> Option<Identity> {
        self.lock().identity
    }

    /// Begins a transaction. There must be nothing left of the one before.
    pub fn begin(&self) {
        self.lock().begin();
    }

    /// Whether anything of the transaction may have reached a broker.
    pub fn is_touched(&self) -> bool {
        self.lock().touched
    }

    /// Notes that something of the transaction is about to be sent beside the queue.
    pub fn touch(&self) {
        self.lock().touched = true;
    }

    /// Records that are not yet acknowledged.
    pub fn records(&self) -> usize {
        self.lock().records
    }

    /// Copies a record into its partition's batch.
    #[inline]
    pub fn send(&self, topic: OutTopic, partition: i32, parts: &Parts<'_>) -> Result<(), Refused> {
        let mut state = self.lock();
        let place = state.place(topic, partition).ok_or(Refused::Unknown)?;
        if let Some(failure) = &state.failure {
            return Err(Refused::Failed(failure.clone()));
        }
        let bytes = parts.payload_bytes();
        if state.is_full(&self.limits, 1, bytes) {
            // What is there must go, or there will never be room.
            state.pressed = true;
            self.work.notify_all();
            return Err(Refused::Full);
        }
        if state.push(place, parts, &self.limits, || self.now()) {
            self.work.notify_all();
        }
        state.records += 1;
        state.bytes += bytes;
        Ok(())
    }

    /// Lets senders wait until all increments of the epoch are queued, unless there is much of them.
    pub fn gather(&self) {
        self.lock().gathering = true;
    }

    /// An empty batch for [`Queue::enqueue`].
    pub fn batch(&self) -> Batch {
        self.lock().spare.batch()
    }

    /// Queues a batch that was filled outside, behind what its partition has; waits for room.
    pub fn enqueue(&self, topic: OutTopic, partition: i32, mut batch: Batch, deadline: &Deadline) -> LogResult<()> {
        let (records, bytes) = (batch.len(), batch.payload_bytes());
        let mut state = self.lock();
        loop {
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            if !state.is_full(&self.limits, records, bytes) {
                break;
            }
            if deadline.is_over() || state.stopped {
                return Err(deadline.timed_out("producing an increment"));
            }
            state.pressed = true;
            self.work.notify_all();
            state = self.wait(state, &self.progress, deadline.remaining());
        }
        let place = state.place(topic, partition);
        let place = place.ok_or_else(|| not_prepared("producing an increment", topic, partition))?;
        state.records += records;
        state.bytes += bytes;
        batch.opened = self.now();
        let partition = &mut state.partitions[place];
        partition.seal();
        partition.sealed.push_back(batch);
        if state.is_half_full(&self.limits) {
            state.pressed = true;
            self.work.notify_all();
        }
        Ok(())
    }

    /// Waits until everything is acknowledged (invariant I4).
    pub fn flush(&self, deadline: &Deadline) -> Result<(), Unfinished> {
        let mut state = self.lock();
        state.urgent = true;
        self.work.notify_all();
        loop {
            if let Some(failure) = &state.failure {
                return Err(Unfinished::Failed(failure.clone()));
            }
            if state.records == 0 && state.in_flight == 0 {
                return Ok(());
            }
            if deadline.is_over() || state.stopped {
                return Err(Unfinished::Overdue);
            }
            state = self.wait(state, &self.progress, deadline.remaining());
        }
    }

    /// Drops what no broker has, and waits for the answers about the rest.
    pub fn discard(&self, deadline: &Deadline) -> Result<(), Unfinished> {
        let mut state = self.lock();
        state.discarding = true;
        state.drop_waiting();
        while state.in_flight > 0 {
            if deadline.is_over() || state.stopped {
                return Err(Unfinished::Overdue);
            }
            state = self.wait(state, &self.progress, deadline.remaining());
        }
        Ok(())
    }

    /// Lets every thread go.
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.work.notify_all();
        self.progress.notify_all();
    }

    pub fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Fails the transaction.
    pub fn fail(&self, error: LogError) {
        self.lock().fail(error);
        self.progress.notify_all();
    }

    /// What the sender of a broker does next; waits for it. `None`: the producer is gone.
    pub fn take(&self, leader: i32) -> Option<Work> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            let now = self.now();
            if state.expire(now, &self.limits) {
                self.progress.notify_all();
            }
            if state.refreshes(now) {
                return Some(Work::Refresh);
            }
            let wait = match state.ready(leader, now, &self.limits) {
                Ok(identity) => return Some(Work::Produce(identity, state.take(leader, now, &self.limits))),
                Err(next) => next.map_or(LOOK_AROUND, |next| next.saturating_sub(now).min(LOOK_AROUND)),
            };
            state = self.wait(state, &self.work, wait);
        }
    }

    /// Says what became of batches.
    pub fn settle(&self, fates: impl Iterator<Item = (Taken, Fate)>) {
        let now = self.now();
        let mut state = self.lock();
        for (taken, fate) in fates {
            state.settle(taken, fate, now, &self.limits);
        }
        self.progress.notify_all();
        self.work.notify_all();
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, on: &Condvar, wait: Duration) -> MutexGuard<'a, State> {
        let (state, _) = on
            .wait_timeout(state, wait.min(LOOK_AROUND))
            .unwrap_or_else(PoisonError::into_inner);
        state
    }
}

/// Why a wait ended too early.
#[derive(Debug)]
pub(super) enum Unfinished {
    Overdue,
    Failed(LogError),
}

/// The error of a record for a topic or partition that was not prepared.
pub(super) fn not_prepared(operation: &str, topic: OutTopic, partition: i32) -> LogError {
    LogError::Fatal {
        operation: operation.to_owned(),
        reason: format!("partition {partition} of {topic:?} was not prepared"),
    }
}

// How long records wait is real time: nothing that simulation controls depends on it.
#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}
