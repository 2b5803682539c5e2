//! What stays in the repository and what may go (invariants I10, I11).

use std::time::Duration;

use crate::blob::BlobInfo;
use crate::time::Millis;

use super::manifest::Retained;
use super::names::SnapshotId;

/// A base snapshot that does not stay, and those beside it that do: the next newer one, and the next older one if there is any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superseded {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its neighbours.
    pub neighbours: Vec<SnapshotId>,
}

/// Those of `bases`, newest first, that are not in the `history` of the snapshot `newest`, which was made after them.
pub fn superseded(newest: SnapshotId, bases: &[Retained], history: &[Retained]) -> Vec<Superseded> {
    let stays = |base: &&Retained| history.contains(base);
    let gone = bases.iter().enumerate().filter(|(_, base)| !stays(base));
    gone.map(|(at, base)| {
        let newer = bases[..at].iter().rfind(stays).map_or(newest, |newer| newer.id);
        let older = bases[at..].iter().find(stays).map(|older| older.id);
        Superseded {
            id: base.id,
            neighbours: std::iter::once(newer).chain(older).collect(),
        }
    })
    .collect()
}

/// How long snapshots are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// So many of the newest base snapshots of each task stay.
    pub keep: usize,
    /// How long what nobody refers to any more stays: longer than any attempt to write a snapshot, any transaction, and any restore takes.
    pub grace: Duration,
}

impl Retention {
    /// Whether an object may be deleted at `now_ms` if nobody refers to it: it is older than the grace.
    pub fn is_old(&self, blob: &BlobInfo, now_ms: Millis) -> bool {
        now_ms.saturating_sub(blob.written_ms) >= self.grace_ms()
    }

    fn grace_ms(&self) -> Millis {
        Millis::try_from(self.grace.as_millis()).unwrap_or(Millis::MAX)
    }

    /// Those of `bases`, newest first, that stay when a further one is made at `now_ms`: the newest ones, and all that were the newest within
    /// the grace, since somebody may be restoring them.
    pub fn history(&self, bases: &[Retained], now_ms: Millis) -> Vec<Retained> {
        let newer = std::iter::once(now_ms).chain(bases.iter().map(|base| base.made_ms));
        let stays = |(at, superseded_ms): (usize, Millis)| {
            at + 1 < self.keep.max(1) || now_ms.saturating_sub(superseded_ms) < self.grace_ms()
        };
        let bases = bases.iter().zip(newer.enumerate());
        bases
            .filter(|(_, newer)| stays(*newer))
            .map(|(base, _)| *base)
            .collect()
    }
}
