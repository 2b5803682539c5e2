//! The worker (`src/worker`), its producer, and the broker's side of transactions.

use tidegate::ids::Epoch;
use tidegate::invariants::{
    commits_only_for_what_was_served, metadata_fences, offsets_follow_confirmed_end, offsets_read_behind_the_producer,
};

use super::Model;
use super::state::{
    Command, Commit, Committed, Instance, Metadata, Outcome, Phase, Run, Stage, State, Step, TASK, Transaction, Writer,
};

impl Instance {
    fn run(&self) -> Option<&Run> {
        match &self.stage {
            Stage::Running(run) => Some(run),
            _ => None,
        }
    }

    fn run_mut(&mut self) -> Option<&mut Run> {
        match &mut self.stage {
            Stage::Running(run) => Some(run),
            _ => None,
        }
    }

    /// Whether a commit runs that the worker waits for.
    fn is_committing(&self) -> bool {
        self.commit.is_some_and(|commit| !commit.abandoned)
    }

    /// The worker waits no longer; requests under way may still reach the broker.
    fn abandon_commit(&mut self) {
        let is_fenced = self.writer == Writer::Fenced;
        let is_over = |commit: &Commit| is_fenced || matches!(commit.step, Step::Answered(_));
        self.commit = self.commit.filter(|commit| !is_over(commit)).map(|commit| Commit {
            abandoned: true,
            ..commit
        });
    }

    fn close(&mut self, waits: bool) {
        self.stage = Stage::Closed;
        if waits && self.phase == Phase::Closing(true) {
            self.phase = Phase::Closing(false);
        }
    }
}

/// Hands outputs of a task to its producer. What a fenced producer sends goes nowhere.
fn send(instance: &mut Instance, transaction: &mut Transaction) {
    let writer = instance.writer;
    if let Stage::Running(run) = &mut instance.stage {
        for input in run.sent..run.position {
            if writer == Writer::Ready {
                transaction.open = true;
                transaction.outputs |= 1 << input;
            }
        }
        run.sent = run.position;
    }
}

/// `Worker::roll_back`: the open epoch and the one that did not commit are dropped, the task waits to be opened again.
fn roll_back(state: &mut State, i: usize, replaces_writer: bool, reopens_at: Option<Committed>) {
    let instance = &mut state.instances[i];
    if replaces_writer {
        instance.abandon_commit();
        instance.writer = Writer::Broken;
    } else {
        instance.commit = None;
        state.broker.transactions[i] = Transaction::default();
    }
    if instance.run().is_some() {
        instance.stage = Stage::Waiting(reopens_at);
    }
}

impl Model {
    pub(super) fn may_take_command(instance: &Instance) -> bool {
        instance.ending.is_none() && instance.commands[0].is_some()
    }

    /// `Worker::serve`.
    pub(super) fn take_command(state: &mut State, i: usize) {
        let instance = &mut state.instances[i];
        let Some(command) = instance.commands[0].take() else {
            return;
        };
        instance.commands.rotate_left(1);
        match command {
            Command::Assign(metadata) => {
                instance.captured = metadata;
                instance.stage = Stage::Waiting(None);
            }
            Command::Served(metadata) => instance.captured = metadata,
            Command::Revoke(metadata, waits) => {
                instance.captured = metadata;
                instance.ending = Some(waits);
            }
            Command::Lose(metadata, waits) => {
                instance.captured = metadata;
                if instance.run().is_some() {
                    roll_back(state, i, true, None);
                }
                state.instances[i].close(waits);
            }
        }
    }

    pub(super) fn may_open(&self, state: &State, i: usize) -> bool {
        let instance = &state.instances[i];
        let has_producer = instance.writer != Writer::Broken || !self.rules.initialises_before_reading;
        let is_stable = Self::pending(state) == 0 || !self.rules.reads_stable_offsets;
        matches!(instance.stage, Stage::Waiting(_)) && instance.ending.is_none() && has_producer && is_stable
    }

    /// `Opener::open`: the committed cut is read, and the disk brought to it.
    pub(super) fn open(state: &mut State, i: usize) {
        let pending = Self::pending(state);
        let committed = state.broker.committed;
        let instance = &mut state.instances[i];
        let Stage::Waiting(reopens_at) = instance.stage else {
            return;
        };
        let is_initialised = instance.writer != Writer::Broken;
        state
            .broken
            .note(offsets_read_behind_the_producer(is_initialised, pending));
        let confirmed = reopens_at.unwrap_or(committed);
        instance.disk = confirmed.epoch;
        instance.stage = Stage::Running(Run {
            confirmed,
            sealed: None,
            position: confirmed.cut,
            sent: confirmed.cut,
        });
    }

    pub(super) fn may_process(&self, instance: &Instance) -> bool {
        let has_input = instance.run().is_some_and(|run| run.position < self.inputs);
        has_input && instance.ending.is_none() && instance.writer != Writer::Broken
    }

    /// One record. Its output is sent at once, or parked behind a running commit.
    pub(super) fn process(state: &mut State, i: usize) {
        let instance = &mut state.instances[i];
        if let Some(run) = instance.run_mut() {
            run.position += 1;
        }
        if !instance.is_committing() {
            send(instance, &mut state.broker.transactions[i]);
        }
    }

    /// The metadata that a commit begun now would carry; `None`: none is begun (`Worker::group_is_served`).
    fn metadata_to_send(&self, instance: &Instance) -> Option<Metadata> {
        let (captured, view) = (instance.captured, instance.view);
        let rules = &self.rules;
        if !rules.sends_only_fencing_metadata {
            return Some(Metadata::default());
        }
        if !rules.sends_what_was_served {
            return view.is_fencing().then_some(view);
        }
        if !rules.compares_member_ids {
            return (view.is_fencing() && captured.generation == view.generation).then_some(view);
        }
        let is_served = captured == view || !rules.compares_before_sealing;
        (is_served && captured.is_fencing()).then_some(captured)
    }

    pub(super) fn may_seal(&self, instance: &Instance) -> bool {
        let has_work = instance.run().is_some_and(|run| run.position > run.confirmed.cut);
        let is_free = !instance.is_committing() && instance.writer != Writer::Broken;
        has_work && is_free && self.metadata_to_send(instance).is_some()
    }

    /// `Worker::seal_and_commit`.
    pub(super) fn seal(&self, state: &mut State, i: usize) {
        let instance = &mut state.instances[i];
        let Some(metadata) = self.metadata_to_send(instance) else {
            return;
        };
        send(instance, &mut state.broker.transactions[i]);
        let captured = instance.captured;
        let Some(run) = instance.run_mut() else { return };
        let (served, sent) = (captured.handle(), metadata.handle());
        state.broken.note(metadata_fences(sent));
        state
            .broken
            .note(commits_only_for_what_was_served(served, sent, &[TASK], &[TASK]));
        run.sealed = Some(run.position);
        let offsets = Committed {
            epoch: run.confirmed.epoch + 1,
            cut: run.position,
        };
        let confirmed = Epoch(u64::from(run.confirmed.epoch));
        state
            .broken
            .note(offsets_follow_confirmed_end(confirmed, Epoch(u64::from(offsets.epoch))));
        if !self.rules.applies_after_commit {
            instance.disk = offsets.epoch;
        }
        instance.commit = Some(Commit {
            step: Step::Offsets,
            metadata,
            offsets,
            abandoned: false,
        });
    }

    pub(super) fn may_send_early(&self, instance: &Instance) -> bool {
        let behind = |run: &Run| run.sealed.is_some_and(|sealed| run.position > sealed);
        let ends = |commit: Commit| commit.step == Step::End && !commit.abandoned;
        let parked = instance.run().is_some_and(behind) && instance.commit.is_some_and(ends);
        !self.rules.confirms_before_next_offsets && parked
    }

    /// Offsets of the next epoch join the transaction of the one before.
    pub(super) fn send_early(state: &mut State, i: usize) {
        let instance = &state.instances[i];
        if let (Some(run), Some(commit)) = (instance.run(), instance.commit) {
            let early = Committed {
                epoch: commit.offsets.epoch + 1,
                cut: run.position,
            };
            let confirmed = Epoch(u64::from(run.confirmed.epoch));
            state
                .broken
                .note(offsets_follow_confirmed_end(confirmed, Epoch(u64::from(early.epoch))));
            state.broker.transactions[i].offsets = Some(early);
        }
    }

    pub(super) fn outcome(instance: &Instance) -> Option<Outcome> {
        match instance.commit.map(|commit| commit.step) {
            Some(Step::Answered(outcome)) => Some(outcome),
            _ => None,
        }
    }

    /// `Worker::poll_commit`.
    pub(super) fn take_outcome(&self, state: &mut State, i: usize) {
        match Self::outcome(&state.instances[i]) {
            Some(Outcome::Committed) => {
                Self::confirm(&mut state.instances[i]);
                state.instances[i].commit = None;
                send(&mut state.instances[i], &mut state.broker.transactions[i]);
            }
            Some(Outcome::Refused) if !self.rules.drops_parked_outputs => {
                let instance = &mut state.instances[i];
                instance.commit = None;
                state.broker.transactions[i] = Transaction::default();
                if let Some(run) = instance.run_mut() {
                    run.confirmed.cut = run.sealed.take().unwrap_or(run.confirmed.cut);
                }
                send(instance, &mut state.broker.transactions[i]);
            }
            Some(Outcome::Refused) => roll_back(state, i, false, None),
            Some(Outcome::Fenced) => roll_back(state, i, true, None),
            None => {}
        }
    }

    fn confirm(instance: &mut Instance) {
        if let (Some(commit), Some(run)) = (instance.commit, instance.run_mut()) {
            run.confirmed = commit.offsets;
            run.sealed = None;
            instance.disk = commit.offsets.epoch;
        }
    }

    /// The worker's patience ends; what the broker does with the requests is not known.
    pub(super) fn commit_times_out(&self, state: &mut State, i: usize) {
        let known = state.instances[i].run().map(|run| run.confirmed);
        if !self.rules.timed_out_is_no_success {
            let instance = &mut state.instances[i];
            Self::confirm(instance);
            instance.abandon_commit();
            instance.writer = Writer::Broken;
            return;
        }
        let reopens_at = known.filter(|_| !self.rules.timed_out_is_no_failure);
        roll_back(state, i, true, reopens_at);
    }

    pub(super) fn may_time_out(instance: &Instance) -> bool {
        instance.is_committing()
    }

    /// `Worker::finish_ending`: nothing of the epoch is left.
    pub(super) fn has_ended(instance: &Instance) -> bool {
        let nothing_open = |run: &Run| run.sealed.is_none() && run.position == run.confirmed.cut;
        instance.ending.is_some() && !instance.is_committing() && instance.run().is_none_or(nothing_open)
    }

    /// Ends a revocation; by force where its time is over.
    pub(super) fn end(state: &mut State, i: usize, by_force: bool) {
        if by_force {
            roll_back(state, i, true, None);
        }
        let instance = &mut state.instances[i];
        if let Some(waits) = instance.ending.take() {
            instance.close(waits);
        }
    }

    /// The process dies and starts again. Requests under way may still reach the broker; the disk stays.
    pub(super) fn crash(state: &mut State, i: usize) {
        if state.instances[i].joining {
            state.broker.members[i] = 0;
        }
        let instance = &mut state.instances[i];
        instance.abandon_commit();
        *instance = Instance {
            commit: instance.commit,
            disk: instance.disk,
            ..Instance::default()
        };
    }
}
