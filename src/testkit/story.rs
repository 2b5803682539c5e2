//! What happened in a cluster, in order and in words; and how often, by kind.

use std::collections::BTreeMap;
use std::fmt::{Arguments, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::time::Clock;

use super::clock::VirtualClock;

/// Lines kept; what comes after them is only counted.
const MOST_LINES: usize = 100_000;

/// The story of one run. The same seed tells the same story, byte for byte.
#[derive(Debug)]
pub(super) struct Story {
    clock: Arc<VirtualClock>,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    text: String,
    lines: usize,
    happened: BTreeMap<&'static str, u64>,
}

impl Story {
    pub(super) fn new(clock: Arc<VirtualClock>) -> Self {
        Self {
            clock,
            told: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line: `who` did or met `what`.
    pub(super) fn tell(&self, who: &str, what: Arguments<'_>) {
        let mut told = self.lock();
        told.lines += 1;
        if told.lines <= MOST_LINES {
            let at = self.clock.monotonic();
            let (seconds, micros) = (at.as_secs(), at.subsec_micros());
            // Writing to a string does not fail.
            let _ = writeln!(told.text, "{seconds:>6}.{micros:06}  {who:<14} {what}");
        }
    }

    /// Counts an event of a kind.
    pub(super) fn happened(&self, kind: &'static str) {
        self.happened_often(kind, 1);
    }

    /// Counts events of a kind.
    pub(super) fn happened_often(&self, kind: &'static str, times: u64) {
        if times > 0 {
            *self.lock().happened.entry(kind).or_default() += times;
        }
    }

    pub(super) fn lines(&self) -> usize {
        self.lock().lines
    }

    pub(super) fn text(&self) -> String {
        self.lock().text.clone()
    }

    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.lock().happened.clone()
    }
}
