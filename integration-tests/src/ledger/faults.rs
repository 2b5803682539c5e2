//! What is done to the broker and to the object store while the load goes on. The instances are left alone.

use std::sync::Arc;
use std::time::Duration;

use tidegate::time::Clock;

use super::latency::Phase;
use super::link::Link;
use super::scenario::Run;
use super::{LedgerError, wait};
use crate::{Broker, SnapshotStore};

/// Load before anything is disturbed, and between two disturbances.
const CALM: Duration = Duration::from_secs(10);
/// What is written so shortly before a disturbance may still be hit by it, and counts to no phase.
const MARGIN: Duration = Duration::from_secs(2);
const ABORTS: &str = "tidegate_aborts_total";
const SPILLED: &str = "tidegate_spilled_epochs_total";
const BASES: &str = "tidegate_snapshots_total";
/// How many workers say that the object store does not do what they ask.
const DEGRADED: &str = "tidegate_degraded";

/// What the service did about an object store that was away.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outages {
    /// Epochs that were aborted meanwhile.
    pub aborts: f64,
    /// Base snapshots that were made meanwhile.
    pub bases: f64,
    /// Epochs that went to a spill topic meanwhile.
    pub spilled: f64,
}

impl Run<'_> {
    /// Stops the broker and starts it again, then holds the connection up.
    ///
    /// The broker itself is never frozen: one that comes back from that takes itself for dead for a moment, and
    /// Kafka 4.3 was seen to end transactions then without telling their partitions, which nobody's client survives.
    ///
    /// # Errors
    /// Where an instance ends, or does not catch up by itself.
    pub fn disturb_broker(&mut self, broker: &Broker, link: &Link) -> Result<(), LedgerError> {
        self.calm("before")?;
        self.outage(
            "broker stopped",
            self.options.stopped_seconds,
            |is_away| match is_away {
                true => broker.stop(),
                false => broker.start_again(),
            },
        )?;
        self.calm("between")?;
        self.outage(
            "connection held up",
            self.options.held_seconds,
            |is_away| match is_away {
                true => link.hold(),
                false => link.release(),
            },
        )?;
        self.calm("after")
    }

    /// Stops the object store and starts it again, then freezes it. After each it has to be of use again.
    ///
    /// # Errors
    /// Where an instance ends, does not catch up by itself, or makes no base snapshots any more.
    pub fn disturb_store(&mut self, store: &SnapshotStore) -> Result<(), LedgerError> {
        self.wait_for_bases()?;
        self.calm("before")?;
        let stopped = self.options.store_stopped().as_secs();
        self.store_outage("store stopped", stopped, |is_away| match is_away {
            true => store.server().stop(),
            false => store.server().start_again(),
        })?;
        if self.options.held_seconds == 0 {
            return self.calm("after");
        }
        self.calm("between")?;
        self.store_outage("store frozen", self.options.held_seconds, |is_away| match is_away {
            true => store.server().pause(),
            false => store.server().unpause(),
        })?;
        self.calm("after")
    }

    /// Waits until one more base snapshot was made and nobody is without the object store any more.
    ///
    /// # Errors
    /// Where that does not come.
    pub fn wait_for_bases(&mut self) -> Result<(), LedgerError> {
        let before = self.sum_of(BASES);
        let (clock, patience) = (Arc::clone(&self.clock), self.options.patience());
        let waited = wait::until(&clock, patience, "a base snapshot", || {
            self.check()?;
            Ok(self.sum_of(BASES) > before && self.sum_of(DEGRADED) <= 0.0)
        });
        waited.map(drop)
    }

    fn store_outage(&mut self, name: &'static str, seconds: u64, set_away: impl Fn(bool)) -> Result<(), LedgerError> {
        let [aborts, bases, spilled] = [ABORTS, BASES, SPILLED].map(|name| self.sum_of(name));
        let mut during = Outages::default();
        self.outage_with(name, seconds, set_away, |run| {
            during.aborts = run.sum_of(ABORTS) - aborts;
            during.bases = run.sum_of(BASES) - bases;
            during.spilled = run.sum_of(SPILLED) - spilled;
        })?;
        println!(
            "{name}: {} epochs aborted, {} spilled, {} base snapshots made",
            during.aborts, during.spilled, during.bases
        );
        self.outages.push((name, during));
        self.wait_for_bases()
    }

    fn outage(&mut self, name: &'static str, seconds: u64, set_away: impl Fn(bool)) -> Result<(), LedgerError> {
        self.outage_with(name, seconds, set_away, |_| {})
    }

    /// Looks at the service by `look` right before what was away is back.
    fn outage_with(
        &mut self,
        name: &'static str,
        seconds: u64,
        set_away: impl Fn(bool),
        look: impl FnOnce(&Self),
    ) -> Result<(), LedgerError> {
        println!("{name} for {seconds} s");
        let held = self.phase(name, true, |run| {
            set_away(true);
            run.go_on_for(Duration::from_secs(seconds))
        });
        look(self);
        set_away(false);
        held?;
        let waited = self.catch_up()?;
        println!("caught up {:.1} s after that", waited.as_secs_f64());
        Ok(())
    }

    fn calm(&mut self, name: &'static str) -> Result<(), LedgerError> {
        self.phase(name, false, |run| run.go_on_for(CALM))?;
        self.go_on_for(MARGIN)
    }

    fn phase(
        &mut self,
        name: &'static str,
        is_outage: bool,
        act: impl FnOnce(&mut Self) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        let from = self.clock.monotonic();
        act(self)?;
        self.phases.push(Phase {
            name,
            is_outage,
            from,
            to: self.clock.monotonic(),
        });
        Ok(())
    }

    /// A metric, all running instances together as far as they answer.
    fn sum_of(&self, name: &str) -> f64 {
        let metrics = self.instances.iter().filter_map(super::instance::Instance::metrics);
        metrics.filter_map(|metrics| metrics.get(name).copied()).sum()
    }
}
