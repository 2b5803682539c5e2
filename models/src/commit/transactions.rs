//! The brokers' side of transactions: initialisation, offsets, the end, time-outs.

use super::Model;
use super::state::{Metadata, Outcome, State, Step, Transaction, Writer};

impl Model {
    /// `Worker::mend_writer`: the broker ends what a producer of the same id left open.
    pub(super) fn initialise(state: &mut State, i: usize) {
        state.broker.transactions[i] = Transaction::default();
        let instance = &mut state.instances[i];
        instance.commit = instance.commit.filter(|commit| !commit.abandoned);
        instance.writer = Writer::Ready;
    }

    /// Transactions that hold offsets of the task.
    pub(super) fn pending(state: &State) -> usize {
        let transactions = state.broker.transactions.iter();
        transactions.filter(|transaction| transaction.offsets.is_some()).count()
    }

    /// The coordinator takes or refuses offsets. It fences member and generation, and nothing at all in the name of nobody.
    pub(super) fn offsets_arrive(state: &mut State, i: usize) {
        let Some(mut commit) = state.instances[i].commit else {
            return;
        };
        let metadata = commit.metadata;
        let is_nobody = metadata == Metadata::default();
        let is_member = state.broker.members.contains(&metadata.member) && metadata.member != 0;
        let is_known = is_member && metadata.generation == state.broker.generation;
        commit.step = if !commit.abandoned && state.instances[i].writer == Writer::Fenced {
            Step::Answered(Outcome::Fenced)
        } else if is_nobody || is_known {
            state.broker.transactions[i].offsets = Some(commit.offsets);
            Step::End
        } else {
            Step::Answered(Outcome::Refused)
        };
        let nobody_asks = commit.abandoned && commit.step != Step::End;
        state.instances[i].commit = (!nobody_asks).then_some(commit);
    }

    /// The one commit point.
    pub(super) fn end_arrives(state: &mut State, i: usize) {
        let Some(mut commit) = state.instances[i].commit else {
            return;
        };
        if !commit.abandoned && state.instances[i].writer == Writer::Fenced {
            commit.step = Step::Answered(Outcome::Fenced);
            state.instances[i].commit = Some(commit);
            return;
        }
        let transaction = std::mem::take(&mut state.broker.transactions[i]);
        for (input, visible) in state.broker.visible.iter_mut().enumerate() {
            if transaction.outputs & (1 << input) != 0 {
                *visible = (*visible + 1).min(2);
            }
        }
        state.broker.committed = transaction.offsets.unwrap_or(state.broker.committed);
        commit.step = Step::Answered(Outcome::Committed);
        state.instances[i].commit = (!commit.abandoned).then_some(commit);
    }

    /// Whether the broker may end the transaction at any time because nobody works on it any more.
    pub(super) fn is_orphan(state: &State, i: usize) -> bool {
        state.broker.transactions[i].open && state.instances[i].writer == Writer::Broken
    }

    /// The broker ends a transaction that has been open for too long, and fences its producer.
    pub(super) fn transaction_times_out(state: &mut State, i: usize) {
        state.broker.transactions[i] = Transaction::default();
        let instance = &mut state.instances[i];
        instance.commit = instance.commit.filter(|commit| !commit.abandoned);
        if instance.writer == Writer::Ready {
            instance.writer = Writer::Fenced;
        }
    }
}
