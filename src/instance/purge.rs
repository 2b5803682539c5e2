//! Deletes what was consumed of repartition topics, every now and then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use tracing::warn;

use crate::ids::TopicPartition;
use crate::log::Log;
use crate::time::Clock;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Where a call is made that waits for the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a thread of its own.
    Aside,
    /// Here: the log of a simulation does not wait.
    Here,
}

/// See the [module documentation](self).
pub(super) struct Purge {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    interval: Duration,
    place: Place,
    offered: Receiver<(TopicPartition, i64)>,
    pending: BTreeMap<TopicPartition, i64>,
    last: Duration,
}

impl Purge {
    /// Purges what is `offered`, every `interval`.
    pub(super) fn new(
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
        interval: Duration,
        place: Place,
        offered: Receiver<(TopicPartition, i64)>,
    ) -> Self {
        Self {
            log,
            last: clock.monotonic(),
            clock,
            interval,
            place,
            offered,
            pending: BTreeMap::new(),
        }
    }

    /// Takes note of what was consumed, and purges when it is time.
    pub(super) fn step(&mut self) {
        self.pending.extend(self.offered.try_iter());
        let now = self.clock.monotonic();
        if self.pending.is_empty() || now.saturating_sub(self.last) < self.interval {
            return;
        }
        self.last = now;
        let before: Vec<(TopicPartition, i64)> = std::mem::take(&mut self.pending).into_iter().collect();
        let log = Arc::clone(&self.log);
        let purge = move || {
            if let Err(error) = log.admin().delete_records(&before, TIMEOUT) {
                warn!(%error, "consumed records of repartition topics were not purged; trying again later");
            }
        };
        match self.place {
            Place::Here => purge(),
            Place::Aside => {
                let purging = std::thread::Builder::new().name("tidegate-purge".into()).spawn(purge);
                if let Err(error) = purging {
                    warn!(%error, "no thread to purge repartition topics");
                }
            }
        }
    }
}
