//! What makes state durable: the setting `durability`.

/// A durability strategy (design §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// Increments go to compacted changelog topics.
    #[default]
    Changelog,
    /// Increments go to the object store before they are committed, base snapshots follow in the background.
    Snapshot,
    /// Increments go to changelog topics that are trimmed behind base snapshots.
    ChangelogAndSnapshot,
}

impl Durability {
    /// Every strategy.
    pub const ALL: [Self; 3] = [
        Durability::Changelog,
        Durability::Snapshot,
        Durability::ChangelogAndSnapshot,
    ];

    /// Whether increments go to changelog topics.
    pub fn has_changelogs(self) -> bool {
        self != Durability::Snapshot
    }

    /// Whether increments go to the object store.
    pub fn has_packs(self) -> bool {
        self == Durability::Snapshot
    }

    /// Whether base snapshots are made.
    pub fn has_snapshots(self) -> bool {
        self != Durability::Changelog
    }

    /// The strategy with this word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|durability| durability.word() == word)
    }

    /// The word for it in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Durability::Changelog => "changelog",
            Durability::Snapshot => "snapshot",
            Durability::ChangelogAndSnapshot => "changelog+snapshot",
        }
    }
}
