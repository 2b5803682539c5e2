//! The embedded log: Kafka's behaviour in this process, for the demo, for tests and for simulation.
//!
//! One [`EmbeddedLog`] stands for a cluster; its clones share it, and the instances of an application share partitions,
//! groups and fencing through it as they would through Kafka. It is exact in what the engine stands on: offsets taken
//! by control records, aborted and open transactions, the last stable offset, producer epochs, pending offsets,
//! generations and the cooperative hand-over, static members, and the ways in which a broker refuses.
//!
//! # How it is built
//!
//! - `broker`: all state, changed by one request at a time and told the time with each. It
//!   consists of `topic` and `partition` (records), `transactions`, `group` and `offsets`.
//! - `cleaner`: retention, and `compaction` by short steps, between requests and by the broker's clock. `segments` says
//!   what they may work on.
//! - `files`: where the broker writes down what it does, if the log is kept in a directory.
//! - `link`: the only way from a client to the broker, and the only lock.
//! - `consumer`, `producer`, `member`, `admin`: the clients, with the state that a real client has. They have no
//!   threads: time passes for them when they are called.
//!
//! # What is absent
//!
//! - A log that is larger than memory: a directory holds a copy of what is there.
//! - A default for `retention.ms`: unless it is set nothing is deleted by its age, where Kafka deletes after a week. Retention
//!   never goes beyond the last stable offset, which Kafka's may. `max.compaction.lag.ms` and whatever else is not named in
//!   `settings` is taken and not acted upon.
//! - More than one broker, failing requests, and everything that comes of them; the end of a transaction takes
//!   effect in all partitions and groups at once.
//! - `max.poll.interval.ms`: a member that is not polled is given up when its session is over.

mod admin;
mod assignor;
mod batch;
mod broker;
mod cleaner;
mod compaction;
mod consumer;
mod files;
mod group;
mod link;
mod member;
mod offsets;
mod packed;
mod partition;
mod producer;
mod segments;
mod settings;
mod topic;
mod transactions;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::log::{Admin, Consumer, GroupMember, Isolation, Log, LogResult, MemberSettings, Producer};
use crate::time::Clock;
use broker::Broker;
pub use files::DirectoryError;
use link::Link;

/// Whether calls with a time-out wait in real time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// They sleep until there is an answer or the time is over: for applications with threads.
    RealTime,
    /// They answer at once, as if the time were over, and tell the clock of it ([`Clock::waited`]): for tests and simulations
    /// with a clock of their own.
    Never,
}

/// How an embedded log is set up.
#[derive(Clone, Debug)]
pub struct EmbeddedSettings {
    /// A transaction that is open longer by the log's clock is aborted and its producer fenced.
    pub transaction_timeout: Duration,
    /// Whether calls wait.
    pub waits: Waits,
}

impl Default for EmbeddedSettings {
    fn default() -> Self {
        Self {
            transaction_timeout: Duration::from_secs(60),
            waits: Waits::RealTime,
        }
    }
}

/// A log within this process. Clones are the same log.
#[derive(Clone)]
pub struct EmbeddedLog {
    link: Link,
}

impl EmbeddedLog {
    /// An empty log with default settings; sessions and transactions end by `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::with_settings(clock, EmbeddedSettings::default())
    }

    /// An empty log.
    pub fn with_settings(clock: Arc<dyn Clock>, settings: EmbeddedSettings) -> Arc<Self> {
        Arc::new(Self {
            link: Link::new(clock, settings, Broker::default()),
        })
    }

    /// The log in a directory, which is made if it is not there. It outlives the process, also one that is killed, with all
    /// topics, records, committed offsets and producers; transactions that were open are aborted.
    ///
    /// # Errors
    /// [`DirectoryError`]: another process has it open, it is damaged, or it is no log.
    pub fn open(dir: &Path, clock: Arc<dyn Clock>, settings: EmbeddedSettings) -> Result<Arc<Self>, DirectoryError> {
        let broker = files::open(dir, clock.wall_ms())?;
        Ok(Arc::new(Self {
            link: Link::new(clock, settings, broker),
        }))
    }
}

impl Log for EmbeddedLog {
    fn consumer(&self, name: &str, isolation: Isolation) -> LogResult<Box<dyn Consumer>> {
        Ok(Box::new(consumer::EmbeddedConsumer::new(
            name,
            self.link.clone(),
            isolation,
        )))
    }

    fn producer(&self, name: &str, transactional_id: Option<&str>) -> LogResult<Box<dyn Producer>> {
        Ok(Box::new(producer::EmbeddedProducer::new(
            name,
            self.link.clone(),
            transactional_id,
        )))
    }

    fn member(&self, settings: &MemberSettings) -> LogResult<Box<dyn GroupMember>> {
        Ok(Box::new(member::EmbeddedMember::new(self.link.clone(), settings)))
    }

    fn admin(&self) -> Arc<dyn Admin> {
        Arc::new(admin::EmbeddedAdmin::new(self.link.clone()))
    }
}
