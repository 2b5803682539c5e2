//! The task itself: chooses records by time, runs them through the program, and ends epochs.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{Epoch, Lineage, TaskId, TopicPartition};
use crate::log::RecordBatch;
use crate::operators::{Failure, NodeCounts, Scope};
use crate::state::Overlay;
use crate::time::Millis;
use crate::topology::Topology;

use super::{Input, InputProgress};

/// What a task is made of.
pub struct TaskParts {
    /// Its id.
    pub id: TaskId,
    /// The topology that it runs a part of.
    pub topology: Arc<Topology>,
    /// Its world: stores, outbox, partition counts, policies.
    pub scope: Scope,
    /// Its input partitions, in the order of the sub-topology's sources, each at the committed offset.
    pub inputs: Vec<Input>,
    /// The history that it continues.
    pub lineage: Lineage,
    /// The last committed epoch.
    pub epoch: Epoch,
}

/// What came of a call of [`Task::process`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Processed {
    /// Records that were processed.
    pub records: usize,
    /// Whether records wait that may be processed now: the budget was the limit.
    pub more: bool,
    /// Whether records wait only because another input is empty and may still deliver an earlier one.
    pub waits_for_input: bool,
}

/// A task's epoch, sealed by a barrier.
#[derive(Clone, Debug)]
pub struct EpochEnd {
    /// The task.
    pub task: TaskId,
    /// Its history.
    pub lineage: Lineage,
    /// The epoch that ends.
    pub epoch: Epoch,
    /// The offsets after it, of all inputs (invariant I5).
    pub cut: BTreeMap<TopicPartition, i64>,
    /// What it wrote to the stores.
    pub increment: Arc<Overlay>,
    /// Records processed in it.
    pub records: u64,
    /// What its nodes counted in it, indexed by `NodeId`.
    pub counts: Vec<NodeCounts>,
}

/// One task. Its inputs are fed by a worker, which also decides when epochs end.
pub struct Task {
    id: TaskId,
    topology: Arc<Topology>,
    scope: Scope,
    inputs: Vec<Input>,
    lineage: Lineage,
    sealed_epoch: Epoch,
    records_in_epoch: u64,
    idle_allowed: bool,
}

impl Task {
    /// A task at its committed cut. Operators load their clocks from the stores.
    ///
    /// # Errors
    /// [`Failure::State`] where a store cannot be read.
    pub fn new(parts: TaskParts) -> Result<Self, Failure> {
        let mut task = Self {
            id: parts.id,
            topology: parts.topology,
            scope: parts.scope,
            inputs: parts.inputs,
            lineage: parts.lineage,
            sealed_epoch: parts.epoch,
            records_in_epoch: 0,
            idle_allowed: false,
        };
        let program = task.topology.program(task.id.sub_topology);
        program.restored(&mut task.scope)?;
        Ok(task)
    }

    /// The task's id.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// The history that the task continues.
    pub fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// The input partitions, in the order of the sub-topology's sources.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// The task's world.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The task's world, for sending outputs and confirming epochs.
    pub fn scope_mut(&mut self) -> &mut Scope {
        &mut self.scope
    }

    /// Records that wait in all inputs.
    pub fn buffered(&self) -> usize {
        self.inputs.iter().map(Input::buffered).sum()
    }

    /// Records processed since the last barrier.
    pub fn records_in_epoch(&self) -> u64 {
        self.records_in_epoch
    }

    /// Whether there is something to commit: records were processed, or control records passed, as Kafka Streams'
    /// `StreamTask.commitNeeded` sees it. Without the latter, a transactional input would show a lag for ever.
    pub fn has_moved(&self) -> bool {
        self.records_in_epoch > 0 || self.inputs.iter().any(Input::has_moved)
    }

    /// Queues records `start..end` of `batch`, which belong to input `input`.
    pub fn enqueue(&mut self, input: usize, batch: &Arc<dyn RecordBatch>, start: u32, end: u32) {
        self.inputs[input].push(Arc::clone(batch), start, end);
    }

    /// Tells what the consumer knows of input `input`.
    pub fn observe(&mut self, input: usize, progress: InputProgress) {
        self.inputs[input].observe(progress);
    }

    /// Whether every input without waiting records is known to have none at the log either.
    pub fn empty_inputs_are_caught_up(&self) -> bool {
        let mut empty = self.inputs.iter().filter(|input| input.buffered() == 0);
        empty.all(|input| input.progress.is_caught_up())
    }

    /// Allows or forbids to go on although a caught-up input is empty (Kafka Streams' `max.task.idle.ms` has passed).
    pub fn allow_idle_inputs(&mut self, allowed: bool) {
        self.idle_allowed = allowed;
    }

    /// Processes up to `budget` records, each time the one with the smallest timestamp among the inputs' heads
    /// (first input on a tie), as Kafka Streams' `PartitionGroup` does.
    ///
    /// # Errors
    /// [`Failure`]; the epoch must be rolled back then.
    pub fn process(&mut self, budget: usize) -> Result<Processed, Failure> {
        let mut done = Processed::default();
        while done.records < budget {
            match self.choose() {
                Choice::Nothing => return Ok(done),
                Choice::Wait => {
                    done.waits_for_input = true;
                    return Ok(done);
                }
                Choice::Input(input, until) => {
                    let count = self.process_run(input, budget - done.records, until)?;
                    done.records += count;
                }
            }
        }
        done.more = matches!(self.choose(), Choice::Input(..));
        Ok(done)
    }

    fn choose(&self) -> Choice {
        if let [only] = &self.inputs[..] {
            return if only.buffered() > 0 {
                Choice::Input(0, None)
            } else {
                Choice::Nothing
            };
        }
        let mut best: Option<(usize, i64)> = None;
        let mut second: Option<i64> = None;
        let mut waits = false;
        for (index, input) in self.inputs.iter().enumerate() {
            match self.head_time_ms(input) {
                Some(time) if best.is_none_or(|(_, smallest)| time < smallest) => {
                    second = best.map(|(_, smallest)| smallest);
                    best = Some((index, time));
                }
                Some(time) => second = Some(second.map_or(time, |other| other.min(time))),
                None => waits |= !(input.progress.is_caught_up() && self.idle_allowed),
            }
        }
        match best {
            None => Choice::Nothing,
            Some(_) if waits => Choice::Wait,
            Some((index, _)) => Choice::Input(index, second),
        }
    }

    /// Event time of the record at the head of an input.
    fn head_time_ms(&self, input: &Input) -> Option<Millis> {
        let (batch, index, _) = input.head()?;
        let program = self.topology.program(self.id.sub_topology);
        Some(program.event_time_ms(input.source, &batch.record(index), batch.headers(index)))
    }

    /// Processes records of one run while they are not later than `until`, the head of the other inputs.
    fn process_run(&mut self, input: usize, budget: usize, until: Option<i64>) -> Result<usize, Failure> {
        let Some((batch, first, available)) = self.inputs[input].head() else {
            return Ok(0);
        };
        let batch = Arc::clone(batch);
        let source = self.inputs[input].source;
        let count = available.min(u32::try_from(budget).unwrap_or(u32::MAX));
        let program = self.topology.program(self.id.sub_topology);
        let mut taken = 0;
        let mut last_offset = -1;
        for index in first..first + count {
            let record = batch.record(index);
            let is_later = |other| program.event_time_ms(source, &record, batch.headers(index)) >= other;
            if taken > 0 && until.is_some_and(is_later) {
                break;
            }
            self.scope.set_current(&batch, index, source as u16);
            program.feed(source, &record, batch.headers(index), &mut self.scope)?;
            last_offset = record.offset;
            taken += 1;
        }
        self.scope.clear_current();
        self.inputs[input].consume(taken, last_offset);
        self.records_in_epoch += u64::from(taken);
        Ok(taken as usize)
    }

    /// The barrier passes: operators emit what they hold and save their clocks. Outputs may come of it.
    ///
    /// # Errors
    /// [`Failure`]; the epoch must be rolled back then.
    pub fn barrier(&mut self) -> Result<(), Failure> {
        let program = self.topology.program(self.id.sub_topology);
        program.barrier(&mut self.scope)
    }

    /// Seals the epoch after [`Task::barrier`]: from here on records belong to the next one.
    pub fn seal(&mut self) -> EpochEnd {
        self.sealed_epoch = self.sealed_epoch.next();
        let no_counts = vec![NodeCounts::default(); self.scope.counts.len()];
        EpochEnd {
            task: self.id,
            lineage: self.lineage,
            epoch: self.sealed_epoch,
            cut: self
                .inputs
                .iter_mut()
                .map(|input| (input.partition.clone(), input.seal()))
                .collect(),
            increment: self.scope.state.seal(),
            records: std::mem::take(&mut self.records_in_epoch),
            counts: std::mem::replace(&mut self.scope.counts, no_counts),
        }
    }
}

/// What to process next.
enum Choice {
    /// No records wait.
    Nothing,
    /// Records wait, but another input may still deliver earlier ones.
    Wait,
    /// This input, while its records are earlier than the given time.
    Input(usize, Option<i64>),
}
