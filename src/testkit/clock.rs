//! A clock that moves while somebody would wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::time::{Clock, Millis};

/// Wall-clock time at the start of every test: 2020-01-01, 00:00 UTC.
const EPOCH_MS: Millis = 1_577_836_800_000;

/// Time as a test sees it: it begins at the same moment in each run and moves when it is told to, or when the engine would
/// wait.
#[derive(Debug, Default)]
pub struct VirtualClock {
    passed_us: AtomicU64,
}

impl VirtualClock {
    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let by_us = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        self.passed_us.fetch_add(by_us, Ordering::SeqCst);
    }
}

impl Clock for VirtualClock {
    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.passed_us.load(Ordering::SeqCst))
    }

    fn wall_ms(&self) -> Millis {
        EPOCH_MS + Millis::try_from(self.monotonic().as_millis()).unwrap_or(Millis::MAX - EPOCH_MS)
    }

    fn waited(&self, wait: Duration) {
        self.advance(wait);
    }
}

/// The clock of one machine: its wall clock may be off, and may be set while processes run.
#[derive(Debug)]
pub(super) struct LocalClock {
    common: Arc<VirtualClock>,
    ahead_ms: AtomicI64,
}

impl LocalClock {
    pub(super) fn new(common: Arc<VirtualClock>) -> Self {
        Self {
            common,
            ahead_ms: AtomicI64::new(0),
        }
    }

    /// The wall clock jumps: from now on it is so far ahead of the true time, or behind it.
    pub(super) fn set_ahead(&self, ahead_ms: Millis) {
        self.ahead_ms.store(ahead_ms, Ordering::SeqCst);
    }
}

impl Clock for LocalClock {
    fn monotonic(&self) -> Duration {
        self.common.monotonic()
    }

    fn wall_ms(&self) -> Millis {
        self.common.wall_ms() + self.ahead_ms.load(Ordering::SeqCst)
    }

    fn waited(&self, wait: Duration) {
        self.common.waited(wait);
    }
}
