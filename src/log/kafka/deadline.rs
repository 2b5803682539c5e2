//! A point in time until which a blocking call may go on.

use std::time::{Duration, Instant};

use crate::log::LogError;

/// When a call must end, and how long it was given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    end: Option<Instant>,
    given: Duration,
}

impl Deadline {
    /// Ends `given` from now.
    // Time-outs of network calls are real time: nothing that simulation controls depends on them.
    #[allow(clippy::disallowed_methods)]
    pub fn after(given: Duration) -> Self {
        let end = Instant::now().checked_add(given);
        Self { end, given }
    }

    /// What is left; zero when it is over.
    #[allow(clippy::disallowed_methods)]
    pub fn remaining(&self) -> Duration {
        match self.end {
            Some(end) => end.saturating_duration_since(Instant::now()),
            None => Duration::MAX,
        }
    }

    pub fn is_over(&self) -> bool {
        self.remaining().is_zero()
    }

    /// How long was given in all.
    pub fn given(&self) -> Duration {
        self.given
    }

    /// The error of a call that did not end in time.
    pub fn timed_out(&self, operation: impl Into<String>) -> LogError {
        timed_out(operation, self.given)
    }
}

/// The error of a call that did not end within `given`.
pub(super) fn timed_out(operation: impl Into<String>, given: Duration) -> LogError {
    LogError::TimedOut {
        operation: operation.into(),
        timeout_ms: u64::try_from(given.as_millis()).unwrap_or(u64::MAX),
    }
}
