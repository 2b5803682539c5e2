//! Faults as they happen to a cluster, and how they end.

use std::time::Duration;

use crate::instance::InstanceError;
use crate::state::StateError;
use crate::time::Millis;
use crate::worker::WorkerError;

use super::faults::{Fault, Faults, Next};
use super::slot::Slot;
use super::world::{QUIET_ROUNDS, World};

/// How long a replaced process goes on after it has stood still.
const AFTERLIFE: Duration = Duration::from_secs(3);
/// Calls that a process makes at most before it ends in the midst of a turn: those of some turns.
const MOST_CALLS: u64 = 60;
/// How far a wall clock may be ahead of the true time: below half of the grace less the time-outs, as the operations guide asks for.
const MOST_AHEAD_MS: u64 = 5_000;
/// How far it may be behind.
const MOST_BEHIND_MS: u64 = 600_000;
/// The longest that all machines sleep.
const LONGEST_SLEEP_MS: u64 = 4 * 3_600_000;

impl World {
    /// Something goes wrong, if it is time for that.
    pub(super) fn cause_faults(&mut self) {
        let quiet = self.quiet > QUIET_ROUNDS;
        let fault = self.faults.as_mut().and_then(|faults| faults.next(quiet));
        let Some(fault) = fault else { return };
        let lasts = fault.lasts;
        match fault.kind {
            Fault::Outage => {
                for slot in &self.slots {
                    slot.network.cut(lasts);
                }
                self.tell_fault(&fault, "nobody reaches the log");
                return;
            }
            Fault::StoreAway => {
                if let Some(store) = &self.store {
                    store.go_away(lasts);
                }
                self.tell_fault(&fault, "the object store is away");
                return;
            }
            Fault::Sleep => {
                let by = Duration::from_millis(fault.part % LONGEST_SLEEP_MS);
                self.tell_fault(&fault, &format!("all machines sleep for {by:?}"));
                self.site.clock.advance(by);
                return;
            }
            Fault::Ambush => {
                self.ambush = Some(self.site.settings.session_timeout + lasts / 4);
                self.tell_fault(&fault, "the next instance that restores a task stands still");
                return;
            }
            _ => {}
        }
        if let Some(number) = self.victim(fault.victim) {
            self.cause(number, &fault);
        }
    }

    /// Whom a fault meets. Half of the faults look for an instance that restores a task: those are rare, and it is difficult there.
    fn victim(&self, number: u64) -> Option<usize> {
        let running = |index: &usize| self.slots[*index].instance.is_some();
        let restores = |index: &usize| {
            let instance = self.slots[*index].instance.as_ref();
            instance.is_some_and(|instance| !instance.counters().restores().is_empty())
        };
        let restoring: Vec<usize> = (0..self.slots.len()).filter(restores).collect();
        let among = match number % 2 {
            0 if !restoring.is_empty() => restoring,
            _ => (0..self.slots.len()).collect(),
        };
        let victim = among[(number / 2 % among.len() as u64) as usize];
        Some(victim).filter(running)
    }

    fn tell_fault(&self, fault: &Next, what: &str) {
        let (ordinal, lasts) = (fault.ordinal, fault.lasts);
        self.site
            .story
            .tell("*", format_args!("fault {ordinal}, for {lasts:?}: {what}"));
    }

    fn cause(&mut self, number: usize, fault: &Next) {
        let now = self.now();
        let until = now + fault.lasts;
        self.tell_fault(fault, &format!("{} meets {:?}", self.slots[number].name, fault.kind));
        let story = self.story();
        let identity = self.new_identity();
        let slot = &mut self.slots[number];
        match fault.kind {
            Fault::Crash => slot.end(&story),
            Fault::PowerCut => {
                slot.end(&story);
                if slot.disk.lose_power(&self.site.order) > 0 {
                    story.happened("a power failure took applied epochs");
                }
            }
            Fault::MachineLoss => {
                slot.end(&story);
                slot.lose_disk(identity);
            }
            Fault::Stop => {
                if let Some(instance) = &mut slot.instance {
                    instance.stop();
                }
            }
            Fault::Pause => slot.paused_until = until,
            Fault::Stall => {
                let parts = slot.instance.as_ref().map_or(1, |instance| instance.parts());
                // Longer than the budget of a revocation, at times.
                slot.stalled = ((fault.part % parts as u64) as usize, now + fault.lasts * 3);
            }
            // One that was replaced is not replaced again: two that go on under one name are nobody's fault but the operator's.
            Fault::Replace if slot.doomed_at.is_some() => return,
            Fault::Replace => return self.replace(number, until),
            Fault::Cut => slot.network.cut(fault.lasts),
            Fault::LostAnswer => slot.network.lose_answer(),
            Fault::FullDisk => {
                slot.disk.set_full(true);
                slot.full_until = until;
            }
            Fault::CrashAtCall => slot.lifeline.end_after(1 + fault.part % MOST_CALLS),
            Fault::ClockJump => {
                let ahead_ms = (fault.part % (MOST_AHEAD_MS + MOST_BEHIND_MS)) as Millis - MOST_BEHIND_MS as Millis;
                slot.clock.set_ahead(ahead_ms);
                story.happened("a wall clock jumped");
                return;
            }
            Fault::Outage | Fault::StoreAway | Fault::Sleep | Fault::Ambush => {}
        }
        slot.back_at = Some(until);
    }

    /// The process goes on elsewhere with all it has, after standing still; here another takes its place, without a disk.
    fn replace(&mut self, number: usize, until: Duration) {
        let mut fresh = self.new_slot(format!("{}+", self.slots[number].name));
        fresh.static_id.clone_from(&self.slots[number].static_id);
        fresh.back_at = Some(self.now());
        let mut old = std::mem::replace(&mut self.slots[number], fresh);
        old.paused_until = until;
        old.doomed_at = Some(until + AFTERLIFE);
        self.slots.push(old);
    }

    /// What lasted long enough is over.
    pub(super) fn end_faults(&mut self) {
        let now = self.now();
        let all_over = self.faults.as_ref().is_some_and(Faults::are_over);
        for number in 0..self.slots.len() {
            let slot = &mut self.slots[number];
            slot.network.deliver();
            if slot.full_until > Duration::ZERO && (slot.full_until <= now || all_over) {
                slot.full_until = Duration::ZERO;
                slot.disk.set_full(false);
            }
            if slot.doomed_at.is_some_and(|doomed_at| doomed_at <= now) && slot.instance.is_some() {
                let story = self.story();
                self.slots[number].end(&story);
                self.slots[number].back_at = None;
                self.tell(number, "ends for good");
                continue;
            }
            let is_due = slot.back_at.is_some_and(|back_at| back_at <= now);
            if is_due && slot.doomed_at.is_some() {
                slot.back_at = None;
            } else if is_due && slot.instance.is_none() && !slot.network.is_cut() && slot.full_until == Duration::ZERO {
                self.start(number);
            }
        }
    }

    /// From now on the networks are calm, or not.
    pub(super) fn calm(&self, calm: bool) {
        for slot in &self.slots {
            slot.set_rough(!calm);
            if calm {
                slot.lifeline.renew();
                slot.network.mend();
            }
        }
        if let Some(store) = self.store.as_ref().filter(|_| calm) {
            store.mend();
        }
    }
}

impl Slot {
    /// Whether a failure is what a fault leads to.
    pub(super) fn expects(&mut self, error: &InstanceError, now: Duration) -> bool {
        let full = matches!(
            error,
            InstanceError::State(StateError::DiskFull { .. })
                | InstanceError::Worker(WorkerError::State(StateError::DiskFull { .. }))
        );
        let replaced = matches!(error, InstanceError::InstanceIdTaken { .. });
        let expected = full || replaced;
        if expected && self.doomed_at.is_none() {
            self.back_at = Some(now + Duration::from_secs(1));
        }
        expected
    }
}
