//! A producer at the other end of a network: its records wait in a queue, and a commit is a few requests.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::log::{Commit, LogError, LogResult, OutRecord, OutTopic, Producer};
use crate::record::Headers;
use crate::time::Millis;

use super::Network;

/// Records that the queue takes.
const QUEUE: usize = 200;

struct Queued {
    topic: OutTopic,
    partition: i32,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp_ms: Millis,
    headers: Headers,
}

/// A commit under way.
struct Running {
    /// `None` once the first request is sent.
    commit: Option<Commit>,
    deadline: Duration,
    timeout: Duration,
    /// It was carried out, or refused, and nobody will hear of it.
    unheard: Option<Unheard>,
}

/// Counts as long as somebody waits for an answer that was lost.
struct Unheard(Network);

impl Unheard {
    fn new(network: &Network) -> Self {
        network.shared.unheard.fetch_add(1, Ordering::SeqCst);
        Self(network.clone())
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        self.0.shared.unheard.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(super) struct DistantProducer {
    network: Network,
    name: String,
    /// `None` once the client has given up while a request was on its way.
    inner: Option<Box<dyn Producer>>,
    is_transactional: bool,
    queue: VecDeque<Queued>,
    /// Why a record of the queue was refused.
    refused: Option<LogError>,
    running: Option<Running>,
}

impl DistantProducer {
    pub(super) fn new(network: Network, name: &str, inner: Box<dyn Producer>, is_transactional: bool) -> Self {
        Self {
            network,
            name: name.to_owned(),
            inner: Some(inner),
            is_transactional,
            queue: VecDeque::new(),
            refused: None,
            running: None,
        }
    }

    fn gone(&self, operation: &str) -> LogError {
        LogError::Fatal {
            operation: format!("{operation} by producer {}", self.name),
            reason: "it was given up after a time-out".to_owned(),
        }
    }

    /// Brings the first `records` of the queue to the broker.
    fn flush(&mut self, records: usize) {
        let Some(inner) = &mut self.inner else { return };
        for _ in 0..records {
            let Some(queued) = self.queue.pop_front() else { return };
            let sent = inner.send(&OutRecord {
                topic: queued.topic,
                partition: queued.partition,
                key: queued.key.as_deref(),
                value: queued.value.as_deref(),
                timestamp_ms: queued.timestamp_ms,
                headers: &queued.headers,
            });
            if let Err(error) = sent {
                self.queue.clear();
                self.refused.get_or_insert(error);
                return;
            }
        }
    }

    /// The client's own thread sends some of what waits.
    fn send_some(&mut self) {
        if self.network.is_in_vain() {
            return;
        }
        let some = match self.network.condition().rough {
            true => self.network.shared.seed.below(self.queue.len() as u64 + 1) as usize,
            false => self.queue.len(),
        };
        self.flush(some);
    }

    /// One request of the running commit.
    fn advance(&mut self, running: &mut Running) -> Option<LogResult<()>> {
        self.flush(self.queue.len());
        if let Some(refused) = self.refused.take() {
            return Some(Err(refused));
        }
        let Some(inner) = &mut self.inner else {
            return Some(Err(self.gone("committing")));
        };
        if let Some(commit) = running.commit.take() {
            return inner.start_commit(commit).err().map(Err);
        }
        inner.poll_commit(Duration::ZERO)
    }

    /// The time of the commit is over: nobody here knows what came of it.
    fn give_up(&mut self, running: &Running) -> LogError {
        if let Some(inner) = self.inner.take()
            && running.commit.is_none()
            && running.unheard.is_none()
        {
            self.network.leave_on_the_way(inner, true);
        }
        self.network.tell(format_args!("{} gives a commit up", self.name));
        self.network.happened("a commit timed out");
        LogError::TimedOut {
            operation: format!("a commit by producer {}", self.name),
            timeout_ms: u64::try_from(running.timeout.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn poll_running(&mut self, running: &mut Running, wait: Duration) -> Option<LogResult<()>> {
        if self.network.now() >= running.deadline {
            return Some(Err(self.give_up(running)));
        }
        if self.network.is_in_vain() || running.unheard.is_some() || self.network.hitch(3) {
            self.network.waited(wait);
            return None;
        }
        let outcome = self.advance(running)?;
        if self.is_transactional && self.network.loses_answer() {
            self.network.tell(format_args!(
                "{}: the answer to a commit is lost: {outcome:?}",
                self.name
            ));
            self.network.happened(match &outcome {
                Ok(()) => "the answer to a commit was lost, which was carried out",
                Err(_) => "the answer to a commit was lost, which was refused",
            });
            running.unheard = Some(Unheard::new(&self.network));
            return None;
        }
        match &outcome {
            Ok(()) => self.network.tell(format_args!("{} has committed", self.name)),
            Err(error) => self.network.tell(format_args!("{} cannot commit: {error}", self.name)),
        }
        Some(outcome)
    }
}

impl Producer for DistantProducer {
    fn init(&mut self, timeout: Duration) -> LogResult<()> {
        if self.network.is_in_vain() || self.network.hitch(20) {
            return Err(self.network.timed_out("initialising a producer", timeout));
        }
        let Some(inner) = &mut self.inner else {
            return Err(self.gone("initialising"));
        };
        let initialised = inner.init(timeout);
        if self.network.hitch(20) {
            return Err(self.network.timed_out("initialising a producer", timeout));
        }
        self.network.tell(format_args!("{} is initialised", self.name));
        initialised
    }

    fn prepare(&mut self, topics: &[Arc<str>]) -> LogResult<Vec<i32>> {
        match &mut self.inner {
            Some(inner) => inner.prepare(topics),
            None => Err(self.gone("preparing")),
        }
    }

    fn begin(&mut self) -> LogResult<()> {
        match &mut self.inner {
            Some(inner) => inner.begin(),
            None => Err(self.gone("beginning a transaction")),
        }
    }

    fn send(&mut self, record: &OutRecord<'_>) -> LogResult<()> {
        if let Some(refused) = self.refused.take() {
            return Err(refused);
        }
        if self.queue.len() >= QUEUE || self.network.hitch(50) {
            self.network.happened("a producer's queue was full");
            self.send_some();
            return Err(LogError::QueueFull);
        }
        self.queue.push_back(Queued {
            topic: record.topic,
            partition: record.partition,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            timestamp_ms: record.timestamp_ms,
            headers: record.headers.clone(),
        });
        self.send_some();
        self.refused.take().map_or(Ok(()), Err)
    }

    fn start_commit(&mut self, commit: Commit) -> LogResult<()> {
        if self.running.is_some() {
            return Err(LogError::Fatal {
                operation: format!("committing by producer {}", self.name),
                reason: "a commit is running".to_owned(),
            });
        }
        let offsets: Vec<String> = commit
            .offsets
            .iter()
            .map(|at| format!("{}@{}", at.partition, at.offset))
            .collect();
        let generation = commit.group.generation;
        self.network.tell(format_args!(
            "{} commits {} (generation {generation})",
            self.name,
            offsets.join(" ")
        ));
        self.running = Some(Running {
            deadline: self.network.now() + commit.timeout,
            timeout: commit.timeout,
            commit: Some(commit),
            unheard: None,
        });
        Ok(())
    }

    fn poll_commit(&mut self, wait: Duration) -> Option<LogResult<()>> {
        let Some(mut running) = self.running.take() else {
            return Some(Err(self.gone("committing")));
        };
        let outcome = self.poll_running(&mut running, wait);
        if outcome.is_none() {
            self.running = Some(running);
        }
        outcome
    }

    fn abort(&mut self, timeout: Duration) -> LogResult<()> {
        self.queue.clear();
        self.refused = None;
        if self.network.is_in_vain() {
            return Err(self.network.timed_out("aborting", timeout));
        }
        let Some(inner) = &mut self.inner else {
            return Err(self.gone("aborting"));
        };
        let aborted = inner.abort(timeout);
        self.network.happened("a transaction was aborted");
        match self.network.hitch(20) {
            true => Err(self.network.timed_out("aborting", timeout)),
            false => aborted,
        }
    }

    fn in_flight(&self) -> usize {
        self.queue.len()
    }
}

impl Drop for DistantProducer {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        if running.commit.is_none()
            && running.unheard.is_none()
            && self.network.hitch(2)
            && let Some(inner) = self.inner.take()
        {
            self.network.leave_on_the_way(inner, false);
        }
    }
}
