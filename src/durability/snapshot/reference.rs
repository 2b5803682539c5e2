//! What a committed pointer says about state in the repository.

use std::fmt;
use std::str::FromStr;

use crate::ids::Epoch;

use super::names::{PackId, SnapshotId};

/// One increment of one task: the epoch whose writes it holds, and the pack that it lies in. Printed as `<epoch>@<pack>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncrementRef {
    /// The epoch.
    pub epoch: Epoch,
    /// The pack.
    pub pack: PackId,
}

impl fmt::Display for IncrementRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.epoch, self.pack)
    }
}

impl FromStr for IncrementRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (epoch, pack) = text
            .split_once('@')
            .ok_or_else(|| format!("{text:?} is not an increment; expected <epoch>@<pack>"))?;
        let epoch = epoch.parse().map_err(|_| format!("{epoch:?} is not an epoch"))?;
        Ok(Self {
            epoch: Epoch(epoch),
            pack: pack.parse()?,
        })
    }
}

/// Where a task's state is stored: the newest base snapshot that a commit has named, and the newest increment. An increment of an epoch
/// that the base holds is needed only where that base turns out to be damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateRef {
    /// The base; `None` where there is none yet.
    pub base: Option<SnapshotId>,
    /// The increment; `None` where nothing was ever written, or where increments go elsewhere.
    pub increment: Option<IncrementRef>,
}

impl StateRef {
    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.base.is_none() && self.increment.is_none()
    }
}
