//! Waiting for conditions outside of this process, always with a deadline.

use std::time::Duration;

use tidegate::time::{Clock, SystemClock};

use super::LedgerError;

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// Gives the thread back for `pause` or a little less.
pub fn pause(pause: Duration) {
    std::thread::park_timeout(pause);
}

/// Waits until `condition` holds.
///
/// # Errors
/// [`LedgerError::TooLate`] naming `what` after `patience`, or what `condition` itself fails with.
pub fn until(
    clock: &SystemClock,
    patience: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<bool, LedgerError>,
) -> Result<Duration, LedgerError> {
    let start = clock.monotonic();
    loop {
        let waited = clock.monotonic() - start;
        if condition()? {
            return Ok(waited);
        }
        if waited > patience {
            return Err(LedgerError::TooLate {
                what: what.to_owned(),
                waited_s: waited.as_secs(),
            });
        }
        pause(INTERVAL);
    }
}

/// Waits for a fixed time that is part of the scenario, looking at `check` all the while.
///
/// # Errors
/// What `check` fails with.
pub fn for_time(
    clock: &SystemClock,
    time: Duration,
    mut check: impl FnMut() -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    let end = clock.monotonic() + time;
    loop {
        check()?;
        let left = end.saturating_sub(clock.monotonic());
        if left.is_zero() {
            return Ok(());
        }
        pause(left.min(INTERVAL));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_never_holds_fails_by_name() {
        let clock = SystemClock::default();
        let error = until(&clock, Duration::ZERO, "the moon to rise", || Ok(false)).unwrap_err();
        assert!(error.to_string().contains("the moon to rise"), "{error}");
        let mut looks = 0;
        let waited = until(&clock, Duration::from_secs(60), "the third look", || {
            looks += 1;
            Ok(looks == 3)
        });
        assert!(waited.is_ok());
        assert_eq!(looks, 3);
    }
}
