//! Sizes in bytes, as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes: `512B`, `64KiB`, `64MiB`, `2GiB`. A bare number is refused, since its unit would be a guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl ByteSize {
    /// The size as an amount of memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit_bytes = UNITS
            .iter()
            .find(|(name, _)| *name == unit.trim_start())
            .map(|(_, bytes)| *bytes);
        let bytes = number
            .parse::<u64>()
            .ok()
            .zip(unit_bytes)
            .and_then(|(n, unit)| n.checked_mul(unit));
        bytes.map(ByteSize).ok_or_else(|| {
            format!("{text:?} is not a size; expected a number with unit B, KiB, MiB or GiB, for example \"64MiB\"")
        })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let divides = |bytes: u64| self.0 != 0 && self.0.is_multiple_of(bytes);
        let (unit, bytes) = UNITS.into_iter().find(|(_, bytes)| divides(*bytes)).unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_need_a_binary_unit_and_print_as_they_are_written() {
        for (text, bytes) in [
            ("512B", 512),
            ("64KiB", 65_536),
            ("64MiB", 67_108_864),
            ("2GiB", 2_147_483_648),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)));
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
        for refused in [
            "",
            "64",
            "64MB",
            "64mib",
            "MiB",
            "-1B",
            "1.5GiB",
            "99999999999999999999GiB",
        ] {
            assert!(refused.parse::<ByteSize>().is_err(), "{refused:?} was accepted");
        }
    }
}
