//! When epochs end: a pure state machine between processing, barrier and commit.

use std::time::Duration;

/// Time that follows a commit without a barrier by time, in commits of that length: at most a third of the time is commits.
const REST: u32 = 2;

/// What the machine has to know of the worker at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// Time since an arbitrary fixed point.
    pub now: Duration,
    /// Whether the inputs of any task moved on since the last seal.
    pub has_work: bool,
    /// Bytes in active overlays.
    pub overlay_bytes: usize,
    /// Bytes of outputs not yet handed to the producer.
    pub unsent_bytes: usize,
    /// Whether there are outputs not yet handed to the producer.
    pub has_unsent: bool,
    /// Whether a commit is running.
    pub committing: bool,
    /// Most epochs of one task that are sealed and not yet applied.
    pub apply_backlog: usize,
    /// Whether the group metadata allows to commit now (invariant I6).
    pub may_commit: bool,
    /// Whether somebody waits for the epoch to end: revocation, drain.
    pub forced: bool,
}

/// What the worker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Process records; send outputs if no commit is running.
    Process,
    /// Process nothing in this turn: a limit is reached.
    Pause,
    /// Let the barrier pass through all tasks, then process nothing until it is sealed.
    Barrier,
    /// All outputs are with the producer: seal and start the commit.
    Seal,
}

/// Limits of an epoch.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time between two barriers while there is work, rests after long commits apart.
    pub interval: Duration,
    /// Overlay bytes that force a barrier.
    pub overlay_max_bytes: usize,
    /// Unsent bytes behind a running commit above which processing pauses.
    pub parked_max_bytes: usize,
    /// Sealed, unapplied epochs of a task above which no further one is sealed.
    pub apply_backlog_max: usize,
}

/// The machine. One per worker.
#[derive(Debug)]
pub struct EpochMachine {
    limits: Limits,
    last_seal: Duration,
    /// No barrier by time before this: what the last commit cost the brokers is given back to them.
    rest_until: Duration,
    draining: bool,
}

impl EpochMachine {
    /// A machine whose first epoch begins at `now`.
    pub fn new(limits: Limits, now: Duration) -> Self {
        Self {
            limits,
            last_seal: now,
            rest_until: now,
            draining: false,
        }
    }

    /// What to do now.
    pub fn next(&mut self, facts: &Facts) -> Action {
        // What the barrier was for may have been taken away before it was sealed.
        self.draining &= facts.has_work;
        if self.draining {
            // The group may have moved on since the barrier: then the commit waits until the event is served.
            if facts.has_unsent || !facts.may_commit {
                return Action::Pause;
            }
            self.draining = false;
            self.last_seal = facts.now;
            return Action::Seal;
        }
        if self.is_due(facts) && self.may_seal(facts) {
            self.draining = true;
            return Action::Barrier;
        }
        if self.is_full(facts) || facts.forced {
            return Action::Pause;
        }
        Action::Process
    }

    /// A commit has ended at `now`. The next barrier keeps away from it for twice as long as it took, but never
    /// longer than the interval: brokers for which the interval is too short would otherwise do nothing but commit, and
    /// each commit would take longer than the one before.
    pub fn committed(&mut self, now: Duration, took: Duration) {
        self.rest_until = now + (took * REST).min(self.limits.interval);
    }

    /// The epoch is gone: the next one begins at `now`.
    pub fn reset(&mut self, now: Duration) {
        self.draining = false;
        self.last_seal = now;
        self.rest_until = now;
    }

    /// Time until the barrier is due, if there is work.
    pub fn until_due(&self, now: Duration) -> Duration {
        (self.last_seal + self.limits.interval)
            .max(self.rest_until)
            .saturating_sub(now)
    }

    fn is_due(&self, facts: &Facts) -> bool {
        facts.has_work
            && (facts.forced
                || self.until_due(facts.now).is_zero()
                || facts.overlay_bytes >= self.limits.overlay_max_bytes)
    }

    fn may_seal(&self, facts: &Facts) -> bool {
        !facts.committing && facts.may_commit && facts.apply_backlog < self.limits.apply_backlog_max
    }

    /// Whether an epoch that cannot end yet has grown to its limits.
    fn is_full(&self, facts: &Facts) -> bool {
        facts.overlay_bytes >= self.limits.overlay_max_bytes
            || (facts.committing && facts.unsent_bytes >= self.limits.parked_max_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> EpochMachine {
        let limits = Limits {
            interval: Duration::from_millis(100),
            overlay_max_bytes: 1000,
            parked_max_bytes: 500,
            apply_backlog_max: 2,
        };
        EpochMachine::new(limits, Duration::ZERO)
    }

    fn facts(now_ms: u64) -> Facts {
        Facts {
            now: Duration::from_millis(now_ms),
            has_work: true,
            may_commit: true,
            ..Facts::default()
        }
    }

    #[test]
    fn an_epoch_ends_by_time_only_if_there_is_work() {
        let mut machine = machine();
        assert_eq!(machine.next(&facts(99)), Action::Process);
        let idle = Facts {
            has_work: false,
            ..facts(250)
        };
        assert_eq!(machine.next(&idle), Action::Process);
        assert_eq!(machine.next(&facts(250)), Action::Barrier);
        assert_eq!(machine.next(&facts(251)), Action::Seal);
        assert_eq!(
            machine.next(&facts(252)),
            Action::Process,
            "the next interval counts from the seal"
        );
        assert_eq!(machine.next(&facts(351)), Action::Barrier);
    }

    #[test]
    fn commits_that_take_long_are_followed_by_a_rest_of_an_interval_at_most() {
        let at = Duration::from_millis;
        let mut machine = machine();
        assert_eq!(machine.next(&facts(100)), Action::Barrier);
        assert_eq!(machine.next(&facts(100)), Action::Seal);
        machine.committed(at(130), at(30));
        assert_eq!(
            machine.until_due(at(130)),
            at(70),
            "the interval is longer than the rest"
        );
        machine.committed(at(180), at(45));
        assert_eq!(machine.until_due(at(180)), at(90), "twice as long as the commit took");
        assert_eq!(machine.next(&facts(259)), Action::Process);
        let waiting = Facts {
            forced: true,
            ..facts(259)
        };
        assert_eq!(
            machine.next(&waiting),
            Action::Barrier,
            "nobody is kept waiting for a rest"
        );
        machine.reset(at(300));
        machine.committed(at(900), at(600));
        assert_eq!(machine.until_due(at(900)), at(100), "at most the interval");
    }

    #[test]
    fn an_epoch_ends_early_when_its_overlay_is_full_or_somebody_waits() {
        let full = Facts {
            overlay_bytes: 1000,
            ..facts(1)
        };
        assert_eq!(machine().next(&full), Action::Barrier);
        let forced = Facts {
            forced: true,
            ..facts(1)
        };
        assert_eq!(machine().next(&forced), Action::Barrier);
        let nothing_to_end = Facts {
            has_work: false,
            ..forced
        };
        assert_eq!(
            machine().next(&nothing_to_end),
            Action::Pause,
            "no new work begins while somebody waits"
        );
    }

    #[test]
    fn nothing_is_sealed_while_a_commit_runs_or_outputs_are_unsent() {
        let mut machine = machine();
        let committing = Facts {
            committing: true,
            ..facts(500)
        };
        assert_eq!(
            machine.next(&committing),
            Action::Process,
            "the next epoch is processed beside the commit"
        );
        let parked = Facts {
            unsent_bytes: 500,
            has_unsent: true,
            ..committing
        };
        assert_eq!(machine.next(&parked), Action::Pause);
        let overgrown = Facts {
            overlay_bytes: 1000,
            ..committing
        };
        assert_eq!(machine.next(&overgrown), Action::Pause);
        assert_eq!(machine.next(&facts(500)), Action::Barrier);
        assert_eq!(
            machine.next(&Facts {
                has_unsent: true,
                ..facts(501)
            }),
            Action::Pause
        );
        assert_eq!(machine.next(&facts(502)), Action::Seal);
    }

    #[test]
    fn nothing_is_sealed_before_the_group_and_the_disk_are_ready() {
        let moved = Facts {
            may_commit: false,
            ..facts(500)
        };
        assert_eq!(machine().next(&moved), Action::Process);
        let behind = Facts {
            apply_backlog: 2,
            ..facts(500)
        };
        assert_eq!(machine().next(&behind), Action::Process);
    }

    #[test]
    fn nothing_is_sealed_while_the_group_has_moved_on_since_the_barrier() {
        let mut machine = machine();
        assert_eq!(machine.next(&facts(100)), Action::Barrier);
        let moved = Facts {
            may_commit: false,
            forced: true,
            ..facts(101)
        };
        assert_eq!(machine.next(&moved), Action::Pause);
        assert_eq!(machine.next(&facts(102)), Action::Seal, "the event is served");
    }

    #[test]
    fn a_barrier_whose_tasks_were_taken_away_holds_nobody_up() {
        let mut machine = machine();
        assert_eq!(machine.next(&facts(100)), Action::Barrier);
        let nothing_left = Facts {
            has_work: false,
            may_commit: false,
            ..facts(101)
        };
        assert_eq!(machine.next(&nothing_left), Action::Process);
    }

    #[test]
    fn a_roll_back_ends_the_barrier() {
        let mut machine = machine();
        assert_eq!(machine.next(&facts(100)), Action::Barrier);
        machine.reset(Duration::from_millis(110));
        assert_eq!(machine.next(&facts(111)), Action::Process);
    }
}
