//! Where the changelogs of a task begin to count, after another strategy was in use.

use std::fmt;
use std::str::FromStr;

use crate::ids::Epoch;

/// From here on the changelogs tell without gaps what has changed. What is before it is of another time.
///
/// Both are needed: while a strategy without changelogs is in use, epochs go on and offsets do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// The epoch after which they do. A disk of an earlier one is not brought up to date by them.
    pub epoch: Epoch,
    /// Per store, an offset at or before the first record that counts.
    pub offsets: Vec<i64>,
}

impl fmt::Display for Beginning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offsets: Vec<String> = self.offsets.iter().map(i64::to_string).collect();
        write!(f, "{}@{}", self.epoch, offsets.join(","))
    }
}

impl FromStr for Beginning {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is not <epoch>@<offset>,<offset>,…");
        let (epoch, offsets) = text.split_once('@').ok_or_else(wrong)?;
        let offset = |text: &str| text.parse().ok().filter(|offset| *offset >= 0);
        Ok(Self {
            epoch: Epoch(epoch.parse().map_err(|_| wrong())?),
            offsets: offsets
                .split(',')
                .map(offset)
                .collect::<Option<Vec<i64>>>()
                .ok_or_else(wrong)?,
        })
    }
}
