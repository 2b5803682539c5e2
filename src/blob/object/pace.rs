//! A bound on bytes per second.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lets transfers begin while no more than the allowed bytes have passed. What passes is accounted afterwards, when its size is
/// known: a moment may exceed the bound by what is in flight, and what follows waits for as long as that takes to pay.
#[derive(Debug)]
pub(super) struct Pace {
    /// 0: no bound.
    bytes_per_second: u64,
    /// When all that has passed is paid for.
    paid_at: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            paid_at: Mutex::new(Instant::now()),
        }
    }

    /// Waits until another transfer may begin.
    pub(super) async fn wait(&self) {
        loop {
            let paid_at = *self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
            // Others may have passed in the meantime.
            if paid_at <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(paid_at).await;
        }
    }

    /// Accounts for bytes that have passed.
    pub(super) fn passed(&self, bytes: u64) {
        if self.bytes_per_second > 0 {
            let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
            *paid_at = (*paid_at).max(Instant::now()) + price(bytes, self.bytes_per_second);
        }
    }
}

fn price(bytes: u64, bytes_per_second: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / bytes_per_second as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owed(pace: &Pace) -> Duration {
        let paid_at = *pace.paid_at.lock().expect("nobody panicked");
        paid_at.saturating_duration_since(Instant::now())
    }

    #[test]
    fn what_has_passed_is_paid_for_one_after_the_other() {
        let pace = Pace::new(1_000);
        pace.passed(3_600_000);
        pace.passed(3_600_000);
        let hour = Duration::from_secs(3_600);
        assert!(owed(&pace) > hour && owed(&pace) <= 2 * hour);
    }

    #[test]
    fn without_a_bound_nothing_is_owed() {
        let pace = Pace::new(0);
        pace.passed(u64::MAX);
        assert_eq!(owed(&pace), Duration::ZERO);
    }
}
