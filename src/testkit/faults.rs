//! What goes wrong in a cluster, and when: decided by the seed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::seed::Seed;

/// Faults between two moments at which everything must have come right.
const MOST: u32 = 12;
/// One round in so many brings a fault while nothing goes on.
const WHILE_QUIET: u64 = 3;
/// Twice the session and more than a transaction may be open.
const LONGEST_MS: u64 = 15_000;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A process ends at once; its disk stays.
    Crash,
    /// The machine loses power: the process ends, and the disk lacks what was written last.
    PowerCut,
    /// The machine is gone with its disk.
    MachineLoss,
    /// An instance stops in order.
    Stop,
    /// An instance does nothing for a while, and then goes on as if nothing had been.
    Pause,
    /// One thread of an instance stands still while the others go on.
    Stall,
    /// An instance stands still and is replaced by another with the same identity; then it goes on.
    Replace,
    /// An instance cannot reach the log.
    Cut,
    /// Nobody can reach the log: it starts again, or its coordinator moves.
    Outage,
    /// The answer to the next commit is lost.
    LostAnswer,
    /// The disk takes nothing more.
    FullDisk,
    /// All machines sleep for hours.
    Sleep,
    /// The next instance that restores a task stands still in the midst of it, until another has taken over.
    Ambush,
    /// Nobody can reach the object store.
    StoreAway,
    /// A process ends in the midst of a turn, between two calls on what is outside of it.
    CrashAtCall,
    /// The wall clock of one machine jumps, forth or back.
    ClockJump,
}

/// What may go wrong with or without an object store.
const ALL: [Fault; 13] = [
    Fault::Crash,
    Fault::PowerCut,
    Fault::MachineLoss,
    Fault::Stop,
    Fault::Pause,
    Fault::Stall,
    Fault::Replace,
    Fault::Cut,
    Fault::Outage,
    Fault::LostAnswer,
    Fault::FullDisk,
    Fault::Sleep,
    Fault::Ambush,
];

/// What may go wrong as well. Whether it does is drawn apart, so that other runs stay what they were.
const APART: [Fault; 2] = [Fault::CrashAtCall, Fault::ClockJump];

/// A fault, whom it meets, and how long it lasts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Next {
    /// Which one of its run it is.
    pub(super) ordinal: u32,
    pub(super) kind: Fault,
    /// Whom it meets: a number that is not bounded.
    pub(super) victim: u64,
    /// Which part of the victim: a number that is not bounded.
    pub(super) part: u64,
    pub(super) lasts: Duration,
}

/// The faults of one cluster.
#[derive(Debug)]
pub(super) struct Faults {
    seed: Seed,
    /// What may go wrong in this run. Few kinds at a time come deeper than all at once (swarm testing, Groce et al., 2012).
    kinds: Vec<Fault>,
    /// One round in so many brings a fault.
    one_in: u64,
    left: u32,
    drawn: u32,
    /// The only ones that happen; `None` for all.
    only: Option<Arc<BTreeSet<u32>>>,
}

impl Faults {
    pub(super) fn new(seed: Seed, apart: &Seed, has_store: bool, only: Option<Arc<BTreeSet<u32>>>) -> Self {
        let mut kinds: Vec<Fault> = ALL.into_iter().filter(|_| seed.once_in(2)).collect();
        if has_store && seed.once_in(2) {
            kinds.push(Fault::StoreAway);
        }
        kinds.extend(APART.into_iter().filter(|_| apart.once_in(3)));
        if kinds.is_empty() {
            kinds.push(Fault::Crash);
        }
        Self {
            kinds,
            one_in: [5, 10, 25, 60][seed.below(4) as usize],
            seed,
            left: MOST,
            drawn: 0,
            only,
        }
    }

    /// Everything has come right: from now on as much may go wrong again.
    pub(super) fn begin_anew(&mut self) {
        self.left = MOST;
    }

    /// Whether nothing more goes wrong.
    pub(super) fn are_over(&self) -> bool {
        self.left == 0
    }

    /// The fault of this round, if there is one. Where nothing goes on that it could disturb, the next one is not waited for long.
    pub(super) fn next(&mut self, quiet: bool) -> Option<Next> {
        let one_in = if quiet {
            self.one_in.min(WHILE_QUIET)
        } else {
            self.one_in
        };
        if self.left == 0 || !self.seed.once_in(one_in) {
            return None;
        }
        self.left -= 1;
        self.drawn += 1;
        let next = Next {
            ordinal: self.drawn,
            kind: self.kinds[self.seed.below(self.kinds.len() as u64) as usize],
            victim: self.seed.next(),
            part: self.seed.next(),
            lasts: Duration::from_millis(self.lasts_ms()),
        };
        let happens = self.only.as_ref().is_none_or(|only| only.contains(&next.ordinal));
        happens.then_some(next)
    }

    /// Short ones too: most of what a protocol does ends within milliseconds.
    fn lasts_ms(&self) -> u64 {
        let longest = [20, 400, 4_000, LONGEST_MS][self.seed.below(4) as usize];
        self.seed.below(longest)
    }

    /// How many were drawn.
    pub(super) fn drawn(&self) -> u32 {
        self.drawn
    }
}
