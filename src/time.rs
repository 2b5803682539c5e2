//! Time: event time in records, and a clock that the simulation can replace.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, the unit of all event time.
pub type Millis = i64;

/// The timestamp of a record whose producer gave none, as Kafka reports it.
pub const NO_TIMESTAMP: Millis = -1;

/// Where the engine reads time from. Nothing below the workers reads a clock at all.
pub trait Clock: Send + Sync {
    /// Time since an arbitrary fixed point; never goes back.
    fn monotonic(&self) -> Duration;
    /// Wall-clock time in milliseconds since the Unix epoch.
    fn wall_ms(&self) -> Millis;
    /// Somebody behaves as if `wait` had passed. A clock that passes by itself has nothing to do then; one of a simulation
    /// may move on.
    fn waited(&self, _wait: Duration) {}
}

/// The machine's own clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    #[allow(clippy::disallowed_methods)] // This is the one place that may read the machine's clock.
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    #[allow(clippy::disallowed_methods)]
    fn wall_ms(&self) -> Millis {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Millis::try_from(since_epoch.as_millis()).unwrap_or(Millis::MAX)
    }
}

/// A length of time as people write it: `100ms`, `30s`, `5m`, `24h`, `7d`, or several of these in a row (`1h30m`).
///
/// Used for options and topology parameters. A bare number is refused, since its unit would be a guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct HumanDuration(pub Duration);

/// Unit suffixes of a [`HumanDuration`] with their length in milliseconds, longest first.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl HumanDuration {
    /// The same length in milliseconds, the unit of event time.
    pub fn as_millis(self) -> Millis {
        Millis::try_from(self.0.as_millis()).unwrap_or(Millis::MAX)
    }
}

impl From<HumanDuration> for Duration {
    fn from(human: HumanDuration) -> Self {
        human.0
    }
}

impl FromStr for HumanDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || {
            format!("{text:?} is not a duration; expected numbers with units ms, s, m, h or d, for example \"100ms\"")
        };
        let mut rest = text.trim();
        let mut total_ms: u64 = 0;
        if rest.is_empty() {
            return Err(refused());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(refused)?;
            let (number, after) = rest.split_at(digits);
            let letters = after.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(after.len());
            let (unit, after) = after.split_at(letters);
            let unit_ms = DURATION_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, ms)| *ms);
            let part = number
                .parse::<u64>()
                .ok()
                .zip(unit_ms)
                .and_then(|(n, ms)| n.checked_mul(ms));
            total_ms = part.and_then(|part| total_ms.checked_add(part)).ok_or_else(refused)?;
            rest = after.trim_start();
        }
        Ok(HumanDuration(Duration::from_millis(total_ms)))
    }
}

impl fmt::Display for HumanDuration {
    /// Prints the largest unit that divides the length; less than a millisecond is dropped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total_ms = self.0.as_millis();
        let divides = |ms: u64| total_ms != 0 && total_ms.is_multiple_of(u128::from(ms));
        let (unit, ms) = DURATION_UNITS
            .into_iter()
            .find(|(_, ms)| divides(*ms))
            .unwrap_or(("ms", 1));
        write!(f, "{}{unit}", total_ms / u128::from(ms))
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        let ms = |text: &str| text.parse::<HumanDuration>().map(HumanDuration::as_millis);
        assert_eq!(ms("100ms"), Ok(100));
        assert_eq!(ms("24h"), Ok(86_400_000));
        assert_eq!(ms("1h30m"), Ok(5_400_000));
        assert_eq!(ms("1h 30m"), Ok(5_400_000));
        assert_eq!(ms("0s"), Ok(0));
        for refused in [
            "",
            "100",
            "ms",
            "-1s",
            "1.5s",
            "1 s",
            "1S",
            "1week",
            "18446744073709551615d",
        ] {
            assert!(ms(refused).is_err(), "{refused:?} was accepted");
        }
    }

    #[test]
    fn durations_are_printed_in_the_largest_unit_that_divides_them() {
        for text in ["100ms", "30s", "90m", "5h", "7d", "0ms"] {
            assert_eq!(
                text.parse::<HumanDuration>().map(|d| d.to_string()),
                Ok(text.to_owned())
            );
        }
        assert_eq!(
            "24h".parse::<HumanDuration>().map(|d| d.to_string()),
            Ok("1d".to_owned())
        );
    }
}
