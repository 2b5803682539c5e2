//! What a committed pointer says about state in the repository.

use std::fmt;
use std::str::FromStr;

use crate::ids::Epoch;

use super::names::{Attempt, PackId, SnapshotId};

/// One increment of one task: the epoch whose writes it holds, and where it lies. Printed as `<epoch>@<pack>` where that is a pack in the object
/// store, and as `<epoch>!<offset>-<attempt>` where it was spilled to the task's partition of a spill topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncrementRef {
    /// The epoch.
    pub epoch: Epoch,
    /// Where it lies.
    pub place: Place,
}

/// Where an increment lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In an object of the repository.
    Pack(PackId),
    /// In the task's partition of a spill topic.
    Spilled(SpillId),
}

/// An increment in a spill topic. Its offset is not known before it is committed, so this says from where on it is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpillId {
    /// An offset at or before its first record.
    pub from: i64,
    /// The attempt that wrote it; its records have the same in their keys.
    pub attempt: Attempt,
}

impl IncrementRef {
    /// Name of the object that holds it; `None` where it was spilled.
    pub fn object(&self) -> Option<String> {
        match &self.place {
            Place::Pack(pack) => Some(pack.object()),
            Place::Spilled(_) => None,
        }
    }

    /// What it lies in, for messages.
    pub fn place_name(&self) -> String {
        match &self.place {
            Place::Pack(pack) => pack.object(),
            Place::Spilled(_) => format!("{self} in the spill topic"),
        }
    }
}

impl fmt::Display for IncrementRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Pack(pack) => write!(f, "{}@{pack}", self.epoch),
            Place::Spilled(spilled) => write!(f, "{}!{}-{}", self.epoch, spilled.from, spilled.attempt),
        }
    }
}

impl FromStr for IncrementRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let epoch_of = |epoch: &str| {
            epoch
                .parse()
                .map(Epoch)
                .map_err(|_| format!("{epoch:?} is not an epoch"))
        };
        if let Some((epoch, pack)) = text.split_once('@') {
            return Ok(Self {
                epoch: epoch_of(epoch)?,
                place: Place::Pack(pack.parse()?),
            });
        }
        let spilled = text
            .split_once('!')
            .and_then(|(epoch, at)| Some((epoch, at.split_once('-')?)));
        let (epoch, (from, attempt)) = spilled.ok_or_else(|| {
            format!("{text:?} is not an increment; expected <epoch>@<pack> or <epoch>!<offset>-<attempt>")
        })?;
        let from = from.parse().ok().filter(|from| *from >= 0);
        Ok(Self {
            epoch: epoch_of(epoch)?,
            place: Place::Spilled(SpillId {
                from: from.ok_or_else(|| format!("{text:?} does not name an offset"))?,
                attempt: attempt.parse()?,
            }),
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
