//! Commit, rebalance, zombie: two instances, one task, two inputs, and everything that can come between.
//!
//! A step is what a thread does without being seen in between: the client's own thread, the member loop, the worker, the
//! thread of a commit, the brokers. Names of functions are those of the engine where there is one.

mod group;
mod normal_form;
mod rules;
mod state;
mod transactions;
mod worker;

use stateright::Property;
use tidegate::invariants::Invariant;

pub use rules::Rules;
pub use state::{MOST_INPUTS, State};

use crate::checking::Protocol;
use state::{Phase, Stage, Step, Writer};

/// How the two instances are members of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// Each has its own member; members come and go by rebalances.
    Dynamic,
    /// Both claim one static identity, and take it from each other. Their transactional ids differ, as those of workers with different
    /// numbers do.
    Static,
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// The rules that hold.
    pub rules: Rules,
    /// The group.
    pub membership: Membership,
    /// Input records of the task, at most [`MOST_INPUTS`].
    pub inputs: u8,
    /// Faults that may happen: sessions that run out, crashes, commits and transactions that time out.
    pub faults: u8,
}

/// The names of properties.
pub mod properties {
    /// Each input before the committed cut shows once in the output, and none behind it.
    pub const EXACTLY_ONCE: &str = "each input counts exactly once";
    /// Invariant I1.
    pub const I1: &str = "I1";
    /// Invariant I3.
    pub const I3: &str = "I3";
    /// Invariant I6.
    pub const I6: &str = "I6";
    /// Invariant I7.
    pub const I7: &str = "I7";
    /// Invariant I9.
    pub const I9: &str = "I9";
}

/// What an action is done by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The client joins the group.
    Join,
    /// The coordinator forms a generation in which the task is meant for this instance.
    Rebalance,
    /// The coordinator gives up a member whose session ran out.
    Expire,
    /// The client learns that it is no member any more.
    LearnLoss,
    /// The member loop takes an event.
    Serve,
    /// The member loop reads the metadata and tells the worker.
    Tell,
    /// The worker has closed the task: the event is completed.
    Complete,
    /// The worker has not, and is not waited for any longer: the event is completed.
    CompleteLate,
    /// The worker takes a command.
    TakeCommand,
    /// The worker makes a producer.
    Initialise,
    /// The task is opened.
    Open,
    /// A record is processed.
    Process,
    /// The epoch is sealed and its commit begins.
    Seal,
    /// The offsets reach the coordinator.
    OffsetsArrive,
    /// The end of the transaction reaches the coordinator.
    EndArrives,
    /// The worker learns how the commit ended.
    TakeOutcome,
    /// The worker's patience with the commit ends.
    CommitTimesOut,
    /// The epoch of a revoked task has ended.
    End,
    /// It has not, and its time is over.
    EndByForce,
    /// The broker ends a transaction that was open for too long.
    TransactionTimesOut,
    /// The process dies and starts again.
    Crash,
    /// Only without rule: offsets of the next epoch are sent.
    SendEarly,
}

impl Kind {
    /// The kinds that the full protocol must show.
    pub const ALL: [Kind; 21] = [
        Kind::Join,
        Kind::Rebalance,
        Kind::Expire,
        Kind::LearnLoss,
        Kind::Serve,
        Kind::Tell,
        Kind::Complete,
        Kind::CompleteLate,
        Kind::TakeCommand,
        Kind::Initialise,
        Kind::Open,
        Kind::Process,
        Kind::Seal,
        Kind::OffsetsArrive,
        Kind::EndArrives,
        Kind::TakeOutcome,
        Kind::CommitTimesOut,
        Kind::End,
        Kind::EndByForce,
        Kind::TransactionTimesOut,
        Kind::Crash,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Join => "join",
            Kind::Rebalance => "rebalance",
            Kind::Expire => "expire",
            Kind::LearnLoss => "learn loss",
            Kind::Serve => "serve",
            Kind::Tell => "tell",
            Kind::Complete => "complete",
            Kind::CompleteLate => "complete late",
            Kind::TakeCommand => "take command",
            Kind::Initialise => "initialise",
            Kind::Open => "open",
            Kind::Process => "process",
            Kind::Seal => "seal",
            Kind::OffsetsArrive => "offsets arrive",
            Kind::EndArrives => "end arrives",
            Kind::TakeOutcome => "take outcome",
            Kind::CommitTimesOut => "commit times out",
            Kind::End => "end",
            Kind::EndByForce => "end by force",
            Kind::TransactionTimesOut => "transaction times out",
            Kind::Crash => "crash",
            Kind::SendEarly => "send early",
        }
    }
}

/// A step of one instance, or of the brokers for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Action(pub Kind, pub u8);

impl Model {
    fn is_enabled(&self, state: &State, kind: Kind, i: usize) -> bool {
        let instance = &state.instances[i];
        let faults = state.faults > 0;
        let step = |step: Step| instance.commit.is_some_and(|commit| commit.step == step);
        match kind {
            Kind::Join => self.may_join(state, i) && (faults || !self.takes_over(state, i)),
            Kind::Rebalance => Self::may_rebalance(state) && Self::may_be_given(state, i),
            Kind::Expire => {
                Self::is_left_over(state, i)
                    || (faults && instance.view.member == state.broker.members[i] && instance.view.member != 0)
            }
            Kind::LearnLoss => Self::may_learn(state, i),
            Kind::Serve => Self::may_serve(state, i),
            Kind::Tell => matches!(instance.phase, Phase::Telling(_)) && instance.can_tell(),
            Kind::Complete => instance.phase == Phase::Closing(false) && instance.can_tell(),
            Kind::CompleteLate => faults && instance.phase == Phase::Closing(true) && instance.can_tell(),
            Kind::TakeCommand => Self::may_take_command(instance),
            Kind::Initialise => instance.writer == Writer::Broken,
            Kind::Open => self.may_open(state, i),
            Kind::Process => self.may_process(instance),
            Kind::Seal => self.may_seal(instance),
            Kind::OffsetsArrive => step(Step::Offsets),
            Kind::EndArrives => step(Step::End),
            Kind::TakeOutcome => Self::outcome(instance).is_some(),
            Kind::CommitTimesOut => faults && Self::may_time_out(instance),
            Kind::End => Self::has_ended(instance),
            Kind::EndByForce => {
                let may_wait = instance.commit.is_some() || self.may_seal(instance);
                instance.ending.is_some() && !Self::has_ended(instance) && (faults || !may_wait)
            }
            Kind::TransactionTimesOut => Self::is_orphan(state, i) || (faults && state.broker.transactions[i].open),
            Kind::Crash => faults && (instance.view.member != 0 || instance.stage != Stage::Closed),
            Kind::SendEarly => self.may_send_early(instance),
        }
    }

    fn costs_a_fault(&self, state: &State, kind: Kind, i: usize) -> bool {
        let instance = &state.instances[i];
        match kind {
            Kind::EndByForce => instance.commit.is_some() || self.may_seal(instance),
            Kind::Join => self.takes_over(state, i),
            Kind::CompleteLate => true,
            Kind::Expire => !Self::is_left_over(state, i),
            Kind::TransactionTimesOut => !Self::is_orphan(state, i),
            Kind::CommitTimesOut | Kind::Crash => true,
            _ => false,
        }
    }
}

impl stateright::Model for Model {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self.faults)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.has_settled(self.inputs) {
            return;
        }
        for i in 0..2 {
            let kinds = Kind::ALL.into_iter().chain([Kind::SendEarly]);
            actions.extend(
                kinds
                    .filter(|kind| self.is_enabled(state, *kind, i))
                    .map(|kind| Action(kind, i as u8)),
            );
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let Action(kind, instance) = action;
        let i = usize::from(instance);
        let mut next = *last;
        let state = &mut next;
        state.faults -= u8::from(self.costs_a_fault(last, kind, i));
        match kind {
            Kind::Join => self.join(state, i),
            Kind::Rebalance => Self::rebalance(state, i),
            Kind::Expire => Self::expire(state, i),
            Kind::LearnLoss => self.learn(state, i),
            Kind::Serve => Self::serve(state, i),
            Kind::Tell => Self::tell(state, i),
            Kind::Complete | Kind::CompleteLate => Self::complete(state, i),
            Kind::TakeCommand => Self::take_command(state, i),
            Kind::Initialise => Self::initialise(state, i),
            Kind::Open => Self::open(state, i),
            Kind::Process => Self::process(state, i),
            Kind::Seal => self.seal(state, i),
            Kind::OffsetsArrive => Self::offsets_arrive(state, i),
            Kind::EndArrives => Self::end_arrives(state, i),
            Kind::TakeOutcome => self.take_outcome(state, i),
            Kind::CommitTimesOut => self.commit_times_out(state, i),
            Kind::End => Self::end(state, i, false),
            Kind::EndByForce => Self::end(state, i, true),
            Kind::TransactionTimesOut => Self::transaction_times_out(state, i),
            Kind::Crash => Self::crash(state, i),
            Kind::SendEarly => Self::send_early(state, i),
        }
        state.normalise();
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(properties::EXACTLY_ONCE, |_, state: &State| state.counts_exactly_once()),
            Property::always(properties::I1, |_, state: &State| state.keeps(Invariant::I1)),
            Property::always(properties::I3, |_, state: &State| state.keeps(Invariant::I3)),
            Property::always(properties::I6, |_, state: &State| state.keeps(Invariant::I6)),
            Property::always(properties::I7, |_, state: &State| state.keeps(Invariant::I7)),
            Property::always(properties::I9, |_, state: &State| state.keeps(Invariant::I9)),
            Property::sometimes("two instances process the task", |_, state: &State| {
                state
                    .instances
                    .iter()
                    .all(|instance| matches!(instance.stage, Stage::Running(_)))
            }),
            Property::sometimes(
                "offsets are pending in a commit that nobody waits for",
                |_, state: &State| {
                    let commits = state.instances.iter().filter_map(|instance| instance.commit);
                    commits
                        .into_iter()
                        .any(|commit| commit.abandoned && commit.step == Step::End)
                },
            ),
            Property::sometimes("outputs are parked behind a commit", |_, state: &State| {
                let parks = |run: state::Run| run.sealed.is_some_and(|sealed| run.position > sealed);
                state
                    .instances
                    .iter()
                    .any(|instance| matches!(instance.stage, Stage::Running(run) if parks(run)))
            }),
            Property::sometimes("the client knows more than the worker", |_, state: &State| {
                let lags = |instance: &state::Instance| instance.captured != instance.view;
                state
                    .instances
                    .iter()
                    .any(|instance| matches!(instance.stage, Stage::Running(_)) && lags(instance))
            }),
        ]
    }
}

impl Protocol for Model {
    fn kind(action: &Action) -> &'static str {
        action.0.name()
    }

    /// All inputs are committed, and no transaction is open.
    fn is_finished(&self, state: &State) -> bool {
        state.is_finished(self.inputs)
    }
}
