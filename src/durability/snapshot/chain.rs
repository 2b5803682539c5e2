//! What a running task knows of its state in the repository.

use std::collections::VecDeque;
use std::time::Duration;

use super::names::SnapshotId;
use super::pack::MAX_LINKS;
use super::reference::{IncrementRef, StateRef};

/// When a chain of increments is long enough for a new base snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainLimits {
    /// Time between two base snapshots while state changes; zero: as often as possible.
    pub interval: Duration,
    /// Increments since the last base snapshot, at most.
    pub max_objects: usize,
    /// Bytes of increments since the last base snapshot, at most.
    pub max_bytes: u64,
}

/// A task's newest base snapshot and the increments after it. It changes when an epoch is sealed and when a base was verified; where a commit
/// fails it is read anew from what is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    base: Option<SnapshotId>,
    /// Whether a commit has still to name the base.
    is_base_unnamed: bool,
    /// The increments after the base, newest first.
    after_base: VecDeque<IncrementRef>,
    /// Their bytes, as far as that is known.
    bytes: VecDeque<u64>,
    /// Their sum: it is asked for in each turn of a worker.
    total_bytes: u64,
    /// The last increments before those, newest first.
    older: VecDeque<IncrementRef>,
    /// How many increments there have been since the lineage began.
    depth: u64,
    /// Whether anything was written since the base was frozen, also to a changelog.
    is_dirty: bool,
}

impl Chain {
    /// The chain that a commit has named: a base, all increments after it and some before it, newest first, how many there have been, and
    /// the bytes of those after the base.
    pub fn committed(base: Option<SnapshotId>, increments: Vec<IncrementRef>, depth: u64, bytes: u64) -> Self {
        let is_after = |increment: &IncrementRef| base.is_none_or(|base| increment.epoch > base.epoch);
        let (after_base, older): (VecDeque<_>, VecDeque<_>) = increments.into_iter().partition(is_after);
        let each = bytes / after_base.len().max(1) as u64;
        Self {
            base,
            is_base_unnamed: false,
            bytes: after_base.iter().map(|_| each).collect(),
            total_bytes: each * after_base.len() as u64,
            after_base,
            older: older.into_iter().take(MAX_LINKS).collect(),
            depth,
            // What was written to a changelog since the base was not looked at.
            is_dirty: true,
        }
    }

    /// What the next commit says of it.
    pub fn state_ref(&self) -> StateRef {
        StateRef {
            base: self.base,
            increment: self.newest().cloned(),
        }
    }

    fn newest(&self) -> Option<&IncrementRef> {
        self.after_base.front().or(self.older.front())
    }

    /// The newest base that was verified.
    pub fn base(&self) -> Option<SnapshotId> {
        self.base
    }

    /// The increments before the next one, newest first, as many as it names.
    pub fn links(&self) -> Vec<IncrementRef> {
        let all = self.after_base.iter().chain(&self.older);
        all.take(MAX_LINKS).cloned().collect()
    }

    /// The increments after the base, newest first.
    pub fn increments(&self) -> Vec<IncrementRef> {
        self.after_base.iter().cloned().collect()
    }

    /// How many increments there have been since the lineage began.
    pub fn depth(&self) -> u64 {
        self.depth
    }

    /// Bytes of the increments after the base.
    pub fn bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Number of the increments after the base.
    pub fn len(&self) -> usize {
        self.after_base.len()
    }

    /// Whether there is no increment after the base.
    pub fn is_empty(&self) -> bool {
        self.after_base.is_empty()
    }

    /// An epoch has written an increment of so many bytes.
    pub fn push(&mut self, increment: IncrementRef, bytes: u64) {
        self.after_base.push_front(increment);
        self.bytes.push_front(bytes);
        self.total_bytes += bytes;
        self.depth += 1;
        self.is_dirty = true;
    }

    /// From now on increments go elsewhere.
    pub fn forget_increments(&mut self) {
        self.after_base.clear();
        self.bytes.clear();
        self.older.clear();
        (self.total_bytes, self.depth) = (0, 0);
    }

    /// State has changed, whatever says how.
    pub fn note_change(&mut self) {
        self.is_dirty = true;
    }

    /// A base is being made of what is there now.
    pub fn begin_base(&mut self) {
        self.is_dirty = false;
    }

    /// That came to nothing.
    pub fn base_failed(&mut self) {
        self.is_dirty = true;
    }

    /// A base that was verified; the next commit names it.
    pub fn add_base(&mut self, base: SnapshotId) {
        let after = self
            .after_base
            .iter()
            .take_while(|increment| increment.epoch > base.epoch);
        let after = after.count();
        let held = self.after_base.split_off(after);
        self.bytes.truncate(after);
        self.total_bytes = self.bytes.iter().sum();
        for increment in held.into_iter().rev() {
            self.older.push_front(increment);
        }
        self.older.truncate(MAX_LINKS);
        self.base = Some(base);
        self.is_base_unnamed = true;
    }

    /// Whether a commit has to be made to name a base.
    pub fn has_unnamed_base(&self) -> bool {
        self.is_base_unnamed
    }

    /// A commit that names `base` was confirmed.
    pub fn named(&mut self, base: Option<SnapshotId>) {
        self.is_base_unnamed &= self.base != base;
    }

    /// Whether it is time for a base, `since` the last one was begun. The first one is not waited for: where there is a base, state is not
    /// taken for new when the group has lost its offsets (invariant I14).
    pub fn wants_base(&self, limits: &ChainLimits, since: Duration) -> bool {
        let is_long = self.len() >= limits.max_objects || self.bytes() >= limits.max_bytes;
        let is_due = self.base.is_none() || is_long || since >= limits.interval;
        self.is_dirty && !self.is_base_unnamed && is_due
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::{Attempt, PackId, WriterName};
    use super::super::reference::Place;
    use super::*;
    use crate::ids::Epoch;

    fn increment(epoch: u64) -> IncrementRef {
        IncrementRef {
            epoch: Epoch(epoch),
            place: Place::Pack(PackId {
                writer: WriterName::new("host", "worker-0"),
                sequence: epoch,
                attempt: Attempt(epoch),
            }),
        }
    }

    fn base(epoch: u64) -> SnapshotId {
        SnapshotId {
            epoch: Epoch(epoch),
            attempt: Attempt(1),
        }
    }

    fn epochs(increments: &[IncrementRef]) -> Vec<u64> {
        increments.iter().map(|increment| increment.epoch.0).collect()
    }

    #[test]
    fn a_base_ends_the_chain_up_to_its_epoch_and_is_named_by_the_next_commit() {
        let mut chain = Chain::default();
        (1..=5).for_each(|epoch| chain.push(increment(epoch), 10));
        assert_eq!((chain.len(), chain.bytes(), chain.depth()), (5, 50, 5));
        assert_eq!(epochs(&chain.increments()), [5, 4, 3, 2, 1]);
        chain.add_base(base(3));
        assert_eq!((chain.len(), chain.bytes(), chain.depth()), (2, 20, 5));
        assert!(chain.has_unnamed_base());
        let named = chain.state_ref();
        assert_eq!((named.base, named.increment), (Some(base(3)), Some(increment(5))));
        chain.named(Some(base(2)));
        assert!(chain.has_unnamed_base(), "another one was named");
        chain.named(Some(base(3)));
        assert!(!chain.has_unnamed_base());
        assert_eq!(
            epochs(&chain.links()),
            [5, 4, 3, 2, 1],
            "also those that the base holds"
        );
    }

    #[test]
    fn what_is_committed_is_the_same_chain_again() {
        let mut chain = Chain::default();
        (1..=40).for_each(|epoch| chain.push(increment(epoch), 10));
        chain.add_base(base(38));
        chain.named(Some(base(38)));
        let links = chain.links();
        assert_eq!(links.len(), MAX_LINKS);
        let read = Chain::committed(Some(base(38)), links, 40, 20);
        assert_eq!((read.len(), read.bytes(), read.depth()), (2, 20, 40));
        assert_eq!((read.links(), read.state_ref()), (chain.links(), chain.state_ref()));
    }

    #[test]
    fn a_base_is_wanted_by_time_objects_or_bytes_and_only_where_something_changed() {
        let limits = ChainLimits {
            interval: Duration::from_secs(60),
            max_objects: 3,
            max_bytes: 1_000,
        };
        let (soon, late) = (Duration::from_secs(1), Duration::from_secs(60));
        let mut chain = Chain::default();
        assert!(!chain.wants_base(&limits, late), "nothing was written");
        chain.push(increment(1), 10);
        assert!(chain.wants_base(&limits, soon), "there is none yet");
        chain.add_base(base(1));
        chain.named(Some(base(1)));
        assert!(chain.wants_base(&limits, late) && !chain.wants_base(&limits, soon));
        chain.push(increment(2), 1_000);
        assert!(chain.wants_base(&limits, soon), "it is long in bytes");
        chain.begin_base();
        assert!(!chain.wants_base(&limits, late), "one is being made");
        chain.push(increment(3), 1);
        chain.add_base(base(2));
        assert!(!chain.wants_base(&limits, late), "the last one has to be named first");
        chain.named(Some(base(2)));
        assert!(chain.wants_base(&limits, late));
        chain.push(increment(4), 1);
        chain.push(increment(5), 1);
        assert!(chain.wants_base(&limits, soon), "it has too many objects");
    }
}
