//! The group: coordinator, clients, and the engine's member loop (`src/instance/member.rs`).

use super::state::{Command, Event, Instance, Metadata, Phase, State};
use super::{Membership, Model};

/// Larger than any number in use; numbers are given anew after each step.
const FRESH: u8 = 99;

impl Instance {
    /// Whether there is room for one more command.
    pub(super) fn can_tell(&self) -> bool {
        self.commands.iter().any(Option::is_none)
    }

    fn tell(&mut self, command: Command) {
        if let Some(place) = self.commands.iter_mut().find(|place| place.is_none()) {
            *place = Some(command);
        }
    }

    /// Nobody waits any more for what the worker closes.
    fn stop_waiting(&mut self) {
        for command in self.commands.iter_mut().flatten() {
            if let Command::Revoke(_, waits) | Command::Lose(_, waits) = command {
                *waits = false;
            }
        }
        self.ending = self.ending.map(|_| false);
    }
}

impl Model {
    fn is_member(state: &State, i: usize) -> bool {
        state.broker.members[i] != 0
    }

    /// Whether the client is in the group's present generation.
    fn is_current(state: &State, i: usize) -> bool {
        let view = state.instances[i].view;
        Self::is_member(state, i)
            && view.member == state.broker.members[i]
            && view.generation == state.broker.generation
    }

    /// Every client that the coordinator waits for can join anew: its thread does that by itself, unless an event waits for
    /// the application.
    pub(super) fn may_rebalance(state: &State) -> bool {
        (0..2).any(|i| Self::is_member(state, i))
            && (0..2).filter(|i| Self::is_member(state, *i)).all(|i| {
                let instance = &state.instances[i];
                let is_free = instance.event.is_none() || (instance.joining && instance.event == Some(Event::Lost));
                is_free && (instance.joining || instance.view.member == state.broker.members[i])
            })
    }

    /// Whether the next generation may have the task at this instance.
    pub(super) fn may_be_given(state: &State, i: usize) -> bool {
        Self::is_member(state, i) && state.instances[i].event.is_none()
    }

    /// A new generation. Cooperative: whoever is to give the task up does so first, and the next generation gives it to
    /// somebody else.
    pub(super) fn rebalance(state: &mut State, target: usize) {
        state.broker.generation = FRESH;
        let giver = state.broker.assigned;
        if giver.is_none() {
            state.broker.assigned = Some(target as u8);
        }
        for i in 0..2 {
            if !Self::is_member(state, i) {
                continue;
            }
            let member = state.broker.members[i];
            let instance = &mut state.instances[i];
            instance.view = Metadata {
                generation: FRESH,
                member,
            };
            instance.joining = false;
            if instance.event.is_some() {
                continue; // It tells of an earlier loss first.
            }
            let gives = giver == Some(i as u8) && target != i;
            let takes = giver.is_none() && target == i;
            instance.holds |= takes;
            instance.event = Some(if gives { Event::Revoked } else { Event::Assigned(takes) });
        }
    }

    /// The coordinator gives a member up.
    pub(super) fn expire(state: &mut State, i: usize) {
        state.broker.members[i] = 0;
        if state.broker.assigned == Some(i as u8) {
            state.broker.assigned = None;
        }
    }

    /// Whether the member in the coordinator's list is of a process that is gone.
    pub(super) fn is_left_over(state: &State, i: usize) -> bool {
        let instance = &state.instances[i];
        Self::is_member(state, i) && !instance.joining && instance.view.member == 0
    }

    pub(super) fn may_join(&self, state: &State, i: usize) -> bool {
        let instance = &state.instances[i];
        let has_settled = !instance.holds && instance.event.is_none() && instance.phase == Phase::Idle;
        let hurries = !self.rules.client_waits_for_loss && matches!(instance.event, None | Some(Event::Lost));
        let replaces = self.membership == Membership::Static;
        let is_outside = instance.view.member == 0 && !instance.joining;
        // The instances are alike, so the first that joins is called 0.
        let has_turn = i == 0 || state.broker.generation > 0 || Self::is_member(state, 0);
        has_turn && is_outside && (has_settled || hurries) && (replaces || !Self::is_member(state, i))
    }

    /// Whether a static identity is taken from a process that has it.
    pub(super) fn takes_over(&self, state: &State, i: usize) -> bool {
        self.membership == Membership::Static && Self::is_member(state, 1 - i)
    }

    /// A client joins. A static identity that is in the group already keeps its generation and gets a new member id.
    pub(super) fn join(&self, state: &mut State, i: usize) {
        let replaces = |j: usize| {
            let comes_back = j == i && Self::is_left_over(state, i);
            comes_back || (j != i && Self::is_current(state, j))
        };
        let replaced = (0..2).find(|j| self.membership == Membership::Static && replaces(*j));
        if self.membership == Membership::Static {
            state.broker.members = [0, 0];
        }
        state.broker.members[i] = FRESH;
        let instance = &mut state.instances[i];
        if instance.holds && instance.event.is_none() {
            instance.event = Some(Event::Lost);
        }
        let Some(replaced) = replaced else {
            instance.joining = true;
            return;
        };
        let has_task = state.broker.assigned == Some(replaced as u8);
        if has_task {
            state.broker.assigned = Some(i as u8);
        }
        instance.view = Metadata {
            generation: state.broker.generation,
            member: FRESH,
        };
        instance.holds = has_task;
        instance.event = Some(Event::Assigned(has_task));
    }

    /// Whether the client has something to learn of what the coordinator did with its member.
    pub(super) fn may_learn(state: &State, i: usize) -> bool {
        let instance = &state.instances[i];
        let given_up = instance.view.member != 0 && instance.view.member != state.broker.members[i];
        let untold =
            instance.view.member == 0 && instance.holds && instance.event.is_none() && instance.phase == Phase::Idle;
        (given_up || untold) && instance.event != Some(Event::Fenced)
    }

    /// The client learns that it is no member any more: its member id goes, and what it had is reported as lost.
    pub(super) fn learn(&self, state: &mut State, i: usize) {
        let replaced = self.membership == Membership::Static && Self::is_member(state, 1 - i);
        let instance = &mut state.instances[i];
        instance.view.member = 0;
        instance.joining = false;
        if replaced {
            instance.event = Some(Event::Fenced);
        } else if instance.event.is_none() && instance.holds && instance.phase == Phase::Idle {
            instance.event = Some(Event::Lost);
        }
    }

    pub(super) fn may_serve(state: &State, i: usize) -> bool {
        let instance = &state.instances[i];
        match instance.event {
            Some(Event::Fenced) => instance.can_tell(),
            Some(_) => instance.phase == Phase::Idle && instance.can_tell(),
            None => false,
        }
    }

    /// The member loop takes an event: `Member::serve_next`, and `Member::fenced` for a member that was replaced.
    pub(super) fn serve(state: &mut State, i: usize) {
        let instance = &mut state.instances[i];
        let view = instance.view;
        match instance.event {
            Some(Event::Assigned(given)) => {
                instance.event = None;
                instance.phase = Phase::Telling(given);
            }
            Some(Event::Revoked) => {
                instance.tell(Command::Revoke(view, true));
                instance.phase = Phase::Closing(true);
            }
            Some(Event::Lost) => {
                instance.tell(Command::Lose(view, true));
                instance.phase = Phase::Closing(true);
            }
            Some(Event::Fenced) => {
                // The seat is taken again: another client, which has not joined yet. The worker is told without waiting.
                instance.stop_waiting();
                instance.event = None;
                instance.holds = false;
                instance.phase = Phase::Idle;
                instance.view = Metadata::default();
                instance.tell(Command::Lose(Metadata::default(), false));
            }
            None => {}
        }
    }

    /// The metadata is read and told.
    pub(super) fn tell(state: &mut State, i: usize) {
        let instance = &mut state.instances[i];
        if let Phase::Telling(given) = instance.phase {
            let view = instance.view;
            instance.tell(if given {
                Command::Assign(view)
            } else {
                Command::Served(view)
            });
            instance.phase = Phase::Idle;
        }
    }

    /// What was taken away is closed, or cannot be waited for any longer: the event is completed.
    pub(super) fn complete(state: &mut State, i: usize) {
        let is_in_group = state.instances[i].view.member == state.broker.members[i];
        if state.broker.assigned == Some(i as u8) && is_in_group {
            state.broker.assigned = None;
        }
        let instance = &mut state.instances[i];
        instance.stop_waiting();
        instance.event = None;
        instance.holds = false;
        instance.phase = Phase::Idle;
        instance.tell(Command::Served(instance.view));
    }
}
