//! From which strategy a task comes, and to which it goes.

use super::Durability;

/// What the last commit of a task says, and what its instance is set to. Where they differ both are written, until the new one has all of the
/// state and a commit says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The strategy of the last commit: whoever restores goes by it.
    pub from: Durability,
    /// The strategy that is set.
    pub to: Durability,
}

impl Transition {
    /// A task that stays with a strategy.
    pub fn none(durability: Durability) -> Self {
        Self {
            from: durability,
            to: durability,
        }
    }

    /// Whether the strategies differ.
    pub fn is_under_way(self) -> bool {
        self.from != self.to
    }

    /// Whether increments go to changelog topics.
    pub fn has_changelogs(self) -> bool {
        self.from.has_changelogs() || self.to.has_changelogs()
    }

    /// Whether increments go to the object store.
    pub fn has_packs(self) -> bool {
        self.from.has_packs() || self.to.has_packs()
    }

    /// Whether base snapshots are made.
    pub fn has_snapshots(self) -> bool {
        self.from.has_snapshots() || self.to.has_snapshots()
    }

    /// Whether all rows have to be written to the changelogs before these can stand for the state: they have no base snapshot to begin at, and
    /// were not written, or were trimmed.
    pub fn copies_rows(self) -> bool {
        self.is_under_way() && self.to == Durability::Changelog
    }

    /// Whether a base snapshot has to be made before the new strategy can stand for the state.
    pub fn needs_base(self) -> bool {
        self.is_under_way() && self.to.has_snapshots()
    }
}
