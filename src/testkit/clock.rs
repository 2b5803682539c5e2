//! A clock that moves while somebody would wait.

use std::sync::atomic::{AtomicU64, Ordering};
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
