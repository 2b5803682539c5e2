//! What goes wrong in a cluster, and when: decided by the seed.

use std::time::Duration;

use super::seed::Seed;

/// One round in so many brings a fault.
const ONE_IN: u64 = 10;
/// Faults between two moments at which everything must have come right.
const MOST: u32 = 12;
/// Twice the session and more than a transaction may be open.
const LONGEST: Duration = Duration::from_secs(15);
/// Steps of an instance within one round, at most: the membership loop, then its workers.
const STEPS: u64 = 4;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// An instance ends after so many parts of a step.
    Crash {
        /// Parts that are still done.
        steps: usize,
    },
    /// An instance does nothing for a while, and then goes on as if nothing had been.
    Pause,
    /// An instance stops in order.
    Stop,
}

/// A fault, whom it meets, and how long until that one is back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Next {
    pub(super) kind: Fault,
    /// Among those that run.
    pub(super) victim: usize,
    pub(super) lasts: Duration,
}

/// The faults of one cluster.
#[derive(Debug)]
pub(super) struct Faults {
    left: u32,
}

impl Faults {
    pub(super) fn new() -> Self {
        Self { left: MOST }
    }

    /// Everything has come right: from now on as much may go wrong again.
    pub(super) fn begin_anew(&mut self) {
        self.left = MOST;
    }

    /// Whether nothing more goes wrong.
    pub(super) fn are_over(&self) -> bool {
        self.left == 0
    }

    /// The fault of this round, if there is one.
    pub(super) fn next(&mut self, seed: &Seed, running: usize) -> Option<Next> {
        if self.left == 0 || running == 0 || !seed.next().is_multiple_of(ONE_IN) {
            return None;
        }
        self.left -= 1;
        let kind = match seed.next() % 4 {
            0 | 1 => Fault::Crash {
                steps: (seed.next() % (STEPS + 1)) as usize,
            },
            2 => Fault::Pause,
            _ => Fault::Stop,
        };
        let longest_ms = LONGEST.as_millis() as u64;
        Some(Next {
            kind,
            victim: (seed.next() % running as u64) as usize,
            lasts: Duration::from_millis(seed.next() % longest_ms),
        })
    }
}
