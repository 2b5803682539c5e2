//! Snapshots in an object store: two writers of one task (its owner and a zombie), retention, a collector, a savepoint, a
//! reader, and the trimming of the changelog. The engine does not write snapshots yet; this is the protocol that it is to follow.
//!
//! Time is not modelled, only what the grace promises: whatever an attempt under way uses does not come of age.

mod collector;
mod repository;
mod rules;

use stateright::Property;
use tidegate::invariants::Invariant;

pub use repository::{ATTEMPTS, EPOCHS, Opened, State};
pub use rules::Rules;

use crate::checking::Protocol;

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// The rules that hold.
    pub rules: Rules,
}

/// The names of properties.
pub mod properties {
    /// As long as nothing that was whole is damaged, the state can be restored.
    pub const RESTORABLE: &str = "there is a restore point";
    /// Invariant I10.
    pub const I10: &str = "I10";
    /// Invariant I11, manifests that lack a file included.
    pub const I11: &str = "I11";
    /// Invariant I12.
    pub const I12: &str = "I12";
    /// Invariant I13.
    pub const I13: &str = "I13";
    /// Invariant I14.
    pub const I14: &str = "I14";
}

/// A step. Writers, attempts and files go by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// An epoch is committed.
    Commit,
    /// A writer begins an attempt.
    Begin(u8),
    /// It uploads its file.
    Upload(u8),
    /// It uploads its file, and the store has something else afterwards.
    UploadTorn(u8),
    /// It makes its manifest.
    Create(u8),
    /// It dies.
    GiveUp(u8),
    /// Somebody verifies a manifest.
    Verify(usize),
    /// Retention removes a manifest.
    Retire(usize),
    /// The user makes a savepoint of a manifest.
    Save(usize),
    /// A reader pins a manifest.
    Read(usize),
    /// The reader is done.
    EndRead,
    /// The grace of a file is over.
    Age(usize),
    /// The collector lists.
    List,
    /// The collector deletes.
    Delete,
    /// The changelog is trimmed.
    Trim,
    /// A file is damaged.
    Damage(usize),
    /// A task is opened.
    Open,
}

impl stateright::Model for Model {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::empty()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.opened != Opened::No {
            return;
        }
        actions.extend((state.committed < EPOCHS).then_some(Action::Commit));
        if state.committed == 0 {
            return;
        }
        for writer in 0..2 {
            actions.extend([
                Action::Begin(writer),
                Action::Upload(writer),
                Action::Create(writer),
                Action::GiveUp(writer),
            ]);
            actions.extend(state.may_damage.then_some(Action::UploadTorn(writer)));
        }
        for at in 0..ATTEMPTS {
            actions.extend([
                Action::Verify(at),
                Action::Retire(at),
                Action::Save(at),
                Action::Read(at),
                Action::Age(at),
            ]);
            actions.extend(state.may_damage.then_some(Action::Damage(at)));
        }
        actions.extend(state.is_read().then_some(Action::EndRead));
        actions.push(if state.has_condemned() {
            Action::Delete
        } else {
            Action::List
        });
        actions.extend([Action::Trim, Action::Open]);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let rules = &self.rules;
        let mut next = *last;
        match action {
            Action::Commit => next.committed += 1,
            Action::Begin(writer) => next.begin(writer),
            Action::Upload(writer) => next.upload(writer, false, rules),
            Action::UploadTorn(writer) => next.upload(writer, true, rules),
            Action::Create(writer) => next.create(writer),
            Action::GiveUp(writer) => next.give_up(writer),
            Action::Verify(at) => next.verify(at, rules),
            Action::Retire(at) => next.retire(at, rules),
            Action::Save(at) => next.save(at),
            Action::Read(at) => next.read(at),
            Action::EndRead => next.end_read(),
            Action::Age(at) => next.age(at, rules),
            Action::List => next.list(rules),
            Action::Delete => next.delete(),
            Action::Trim => next.trim(rules),
            Action::Damage(at) => next.damage(at),
            Action::Open => next.open(rules),
        }
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(properties::RESTORABLE, |_, state: &State| {
                state.was_damaged || state.has_restore_point()
            }),
            Property::always(properties::I10, |_, state: &State| state.keeps(Invariant::I10)),
            Property::always(properties::I11, |_, state: &State| {
                state.keeps(Invariant::I11) && state.has_no_dangling_manifest()
            }),
            Property::always(properties::I12, |_, state: &State| state.keeps(Invariant::I12)),
            Property::always(properties::I13, |_, state: &State| state.keeps(Invariant::I13)),
            Property::always(properties::I14, |_, state: &State| state.keeps(Invariant::I14)),
            Property::sometimes("a task is restored from a snapshot alone", |_, state: &State| {
                state.opened == Opened::Restored && state.trimmed == state.committed
            }),
            Property::sometimes("a task is refused", |_, state: &State| state.opened == Opened::Refused),
        ]
    }
}

impl Protocol for Model {
    fn kind(action: &Action) -> &'static str {
        match action {
            Action::Commit => "commit",
            Action::Begin(_) => "begin",
            Action::Upload(_) => "upload",
            Action::UploadTorn(_) => "upload torn",
            Action::Create(_) => "create",
            Action::GiveUp(_) => "give up",
            Action::Verify(_) => "verify",
            Action::Retire(_) => "retire",
            Action::Save(_) => "save",
            Action::Read(_) => "read",
            Action::EndRead => "end read",
            Action::Age(_) => "age",
            Action::List => "list",
            Action::Delete => "delete",
            Action::Trim => "trim",
            Action::Damage(_) => "damage",
            Action::Open => "open",
        }
    }

    /// The task is open, or was refused loudly.
    fn is_finished(&self, state: &State) -> bool {
        state.opened != Opened::No
    }
}
