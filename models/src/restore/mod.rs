//! A restore that reads a changelog: control records, aborted data, an orphan transaction, compaction, trimming.
//!
//! A former owner wrote the changelog; whoever restores reads it committed, from where its disk was, or from its beginning.
//! What to do with the disk is decided by the engine's own [`tidegate::durability::decide`]. Every record names the epoch that wrote it, and
//! that is its value.

mod log;
mod reader;
mod rules;

use stateright::Property;
use tidegate::ids::Epoch;
use tidegate::invariants::{Invariant, snapshot_is_committed_prefix};

pub use log::{KEYS, Log};
pub use reader::{Disk, Phase, Reader};
pub use rules::Rules;

use crate::checking::{Broken, Protocol};

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// The rules that hold.
    pub rules: Rules,
}

/// The world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The changelog and what is committed.
    pub log: Log,
    /// The local disk.
    pub disk: Disk,
    /// Where the restore is.
    pub phase: Phase,
    /// Whether the restoring process may still die.
    pub may_crash: bool,
    /// Invariants that a step broke.
    pub broken: Broken,
}

impl State {
    /// Whether a disk that says that it holds the committed epoch does so.
    fn disk_holds_what_it_says(&self) -> bool {
        let says_so = self.disk.exists && self.disk.epoch == self.log.epoch;
        let digest = |values: [u8; KEYS]| values.iter().fold(0, |digest, value| digest << 8 | u64::from(*value));
        let (disk, committed) = (digest(self.disk.values), digest(self.log.values));
        !says_so || snapshot_is_committed_prefix(Epoch(u64::from(self.log.epoch)), disk, committed).is_ok()
    }
}

/// The names of properties.
pub mod properties {
    /// A disk that says that it holds the committed epoch holds exactly the committed state: I9, asked as I13 is of snapshots.
    pub const STATE: &str = "the disk holds the committed state that it says";
    /// A restore that has read everything there is ends, unless a transaction is still open.
    pub const ENDS: &str = "a restore that has read everything ends";
    /// Invariant I8.
    pub const I8: &str = "I8";
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The owner commits a row of this key.
    Put(u8),
    /// The owner commits the deletion of this key.
    Delete(u8),
    /// A transaction with a record of this key is aborted.
    Abort(u8),
    /// A producer writes a record of this key and dies.
    Orphan(u8),
    /// The broker ends the dead producer's transaction.
    EndOrphan,
    /// What was superseded, aborted, or a marker is removed.
    Compact,
    /// Records of deletions are removed, their retention being over.
    ForgetDeletions,
    /// The changelog loses what a verified snapshot holds.
    Trim,
    /// The disk that will restore leaves off here: its owner stops, or moves away.
    LeaveDisk,
    /// The restore begins.
    Begin,
    /// The reader fetches up to the next offset.
    FetchOne,
    /// The reader fetches all that it may read.
    FetchAll,
    /// The restore ends.
    Finish,
    /// The restoring process dies.
    Crash,
}

impl stateright::Model for Model {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut log = Log::default();
        log.commit(0, false);
        vec![State {
            log,
            disk: Disk::default(),
            phase: Phase::Before,
            may_crash: true,
            broken: Broken::default(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let log = &state.log;
        if state.phase == Phase::Before {
            for key in 0..KEYS as u8 {
                actions.extend(log.has_room(2).then_some(Action::Put(key)));
                actions.extend((log.has_room(2) && log.values[usize::from(key)] > 0).then_some(Action::Delete(key)));
                actions.extend((log.has_room(2) && !log.has_orphan()).then_some(Action::Orphan(key)));
            }
            actions.extend((log.epoch > 0 && !state.disk.exists).then_some(Action::LeaveDisk));
            actions.extend((log.epoch > 0).then_some(Action::Begin));
        }
        let is_over = matches!(state.phase, Phase::Done | Phase::Refused);
        if !is_over {
            actions.extend((log.has_room(2)).then_some(Action::Abort(0)));
            actions.extend(log.has_orphan().then_some(Action::EndOrphan));
            actions.push(Action::Compact);
            actions.push(Action::Trim);
        }
        // A replay is shorter than the retention of deletions, or its disk would be too old.
        actions.extend((state.phase == Phase::Before).then_some(Action::ForgetDeletions));
        if let Phase::Reading(reader) = &state.phase {
            actions.extend([Action::FetchOne, Action::FetchAll]);
            actions.extend(reader.may_finish(log, &self.rules).then_some(Action::Finish));
            actions.extend(state.may_crash.then_some(Action::Crash));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = *last;
        let state = &mut next;
        match action {
            Action::Put(key) => state.log.commit(key, false),
            Action::Delete(key) => state.log.commit(key, true),
            Action::Abort(key) => state.log.abort(key),
            Action::Orphan(key) => state.log.orphan(key),
            Action::EndOrphan => state.log.end_orphan(),
            Action::Compact => state.log.compact(),
            Action::ForgetDeletions => {
                if let Some(newest) = state.log.forget_deletions() {
                    state.disk.is_old |= state.disk.exists && state.disk.offset <= newest;
                }
            }
            Action::Trim => state.log.trim(),
            Action::LeaveDisk => state.disk = Disk::at(&state.log),
            Action::Begin => self.begin(state),
            Action::FetchOne => self.fetch(state, false),
            Action::FetchAll => self.fetch(state, true),
            Action::Finish => self.finish(state),
            Action::Crash => {
                state.may_crash = false;
                state.phase = Phase::Before;
            }
        }
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(properties::STATE, |_, state: &State| {
                matches!(state.phase, Phase::Reading(_)) || state.disk_holds_what_it_says()
            }),
            Property::always(properties::ENDS, |model: &Self, state: &State| match &state.phase {
                Phase::Reading(reader) => {
                    let has_read_everything = reader.position >= state.log.end() && !state.log.has_orphan();
                    !has_read_everything || reader.may_finish(&state.log, &model.rules)
                }
                _ => true,
            }),
            Property::always(properties::I8, |_, state: &State| state.broken.keeps(Invariant::I8)),
            Property::sometimes("a restore waits for an orphan", |_, state: &State| match &state.phase {
                Phase::Reading(reader) => {
                    reader.position == state.log.last_stable() && reader.position < reader.high_watermark
                }
                _ => false,
            }),
            Property::sometimes("a restore is refused", |_, state: &State| state.phase == Phase::Refused),
        ]
    }
}

impl Protocol for Model {
    fn kind(action: &Action) -> &'static str {
        match action {
            Action::Put(_) => "put",
            Action::Delete(_) => "delete",
            Action::Abort(_) => "abort",
            Action::Orphan(_) => "orphan",
            Action::EndOrphan => "end orphan",
            Action::Compact => "compact",
            Action::ForgetDeletions => "forget deletions",
            Action::Trim => "trim",
            Action::LeaveDisk => "leave disk",
            Action::Begin => "begin",
            Action::FetchOne => "fetch one",
            Action::FetchAll => "fetch all",
            Action::Finish => "finish",
            Action::Crash => "crash",
        }
    }

    /// The task is open, or was refused loudly.
    fn is_finished(&self, state: &State) -> bool {
        matches!(state.phase, Phase::Done | Phase::Refused)
    }
}
