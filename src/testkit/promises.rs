//! What must hold of a cluster whatever runs on it: the engine's invariants, asked from outside.

use std::sync::Arc;

use crate::durability::{Durability, Pointer, changelog};
use crate::ids::{Epoch, TaskId, TopicPartition};
use crate::invariants::{Violation, disk_is_committed_prefix, every_input_is_committed};

use crate::state::StateMeta;
use crate::state::entries::Entries;
use crate::topology::Plan;

use super::outside::Outside;
use super::rebuilt::Rebuilder;
use super::slot::Slot;

/// The tasks of an application, and the log and the disks that have their state.
pub(super) struct Promises<'a> {
    pub(super) application: &'a str,
    pub(super) plan: &'a Plan,
    /// All tasks.
    pub(super) tasks: Vec<TaskId>,
    pub(super) outside: &'a mut Outside,
    pub(super) slots: &'a [Slot],
    /// Where there is an object store: who restores from it.
    pub(super) rebuilder: Option<Rebuilder>,
}

impl Promises<'_> {
    /// I5 and I9, at any moment.
    pub(super) fn check(&mut self) {
        for task in self.tasks.clone() {
            if let Some(pointer) = self.pointer(task) {
                self.check_disks(task, &pointer);
            }
        }
    }

    /// The same, and I13 for the disk that is current: its rows are those that the committed changelog comes to. At rest.
    pub(super) fn check_at_rest(&mut self) {
        for task in self.tasks.clone() {
            let Some(pointer) = self.pointer(task) else { continue };
            self.check_disks(task, &pointer);
            match pointer.durability {
                Durability::Changelog => {
                    self.check_state(task, &pointer);
                    // Also from nothing, by whoever opens it, where the strategy was another one before.
                    if pointer.since.is_some() {
                        self.check_rebuilt(task, &pointer);
                    }
                }
                _ => self.check_rebuilt(task, &pointer),
            }
        }
    }

    fn inputs(&self, task: TaskId) -> Vec<TopicPartition> {
        let sources = self.plan.sub_topologies[task.sub_topology as usize].sources.iter();
        let names = sources.map(|topic| topic.full_name(self.application));
        let reaching = names.filter(|name| task.partition < self.outside.partitions_of(name));
        reaching.map(|name| TopicPartition::new(name, task.partition)).collect()
    }

    /// The committed pointer of a task, the same at all its inputs; `None` where there is none, or none can be read now.
    fn pointer(&self, task: TaskId) -> Option<Pointer> {
        let inputs = self.inputs(task);
        let committed = self.outside.committed(self.application, &inputs)?;
        let mut pointers = Vec::new();
        for (input, committed) in inputs.iter().zip(committed) {
            let Some(committed) = committed else { continue };
            let pointer = Pointer::from_metadata(&committed.metadata);
            let pointer = pointer.unwrap_or_else(|error| panic!("the pointer at {input}: {error}"));
            pointers.push((input.clone(), pointer));
        }
        let (_, first) = pointers.first()?.clone();
        let epochs: Vec<(TopicPartition, Epoch)> = pointers
            .into_iter()
            .map(|(input, pointer)| (input, pointer.epoch))
            .collect();
        hold(task, every_input_is_committed(&inputs, &epochs));
        Some(first)
    }

    fn check_disks(&self, task: TaskId, pointer: &Pointer) {
        let metas = self.slots.iter().filter_map(|slot| slot.disk.meta(task));
        for meta in metas.filter(|meta| meta.lineage == pointer.lineage) {
            hold(task, disk_is_committed_prefix(meta.epoch, pointer.epoch));
        }
    }

    /// What the disks have that are at the committed epoch.
    fn current(&self, task: TaskId, pointer: &Pointer) -> Vec<(StateMeta, Vec<Entries>)> {
        let disks = self.slots.iter().filter(|slot| slot.instance.is_some());
        let current = disks.filter_map(|slot| slot.disk.contents(task));
        current
            .filter(|(meta, _)| (meta.lineage, meta.epoch) == (pointer.lineage, pointer.epoch))
            .collect()
    }

    /// A new host gets from the repository what the disk of the task's owner has.
    fn check_rebuilt(&mut self, task: TaskId, pointer: &Pointer) {
        let Some(rebuilder) = &self.rebuilder else { return };
        let stores = &self.plan.sub_topologies[task.sub_topology as usize].stores;
        if stores.is_empty() {
            return;
        }
        let missing = rebuilder.missing(task, pointer.state.base);
        assert!(
            missing.is_empty(),
            "I11: task {task} at epoch {}: {missing:?}",
            pointer.epoch
        );
        let rebuilt = rebuilder.rebuild(task, self.inputs(task), stores);
        let rebuilt = rebuilt.unwrap_or_else(|error| panic!("task {task} cannot be restored: {error:?}"));
        let (_, rebuilt) = rebuilt.unwrap_or_else(|| panic!("I13: task {task} is restored without anything"));
        for (_, current) in self.current(task, pointer) {
            for (store, spec) in stores.iter().enumerate() {
                let (here, there) = (&current[store], &rebuilt[store]);
                assert!(
                    here == there,
                    "I13: store {} of task {task} at epoch {} differs from what is restored: {} rows here, {} there",
                    spec.name,
                    pointer.epoch,
                    here.len(),
                    there.len()
                );
            }
        }
    }

    fn check_state(&mut self, task: TaskId, pointer: &Pointer) {
        let current = self.current(task, pointer);
        let specs = &self.plan.sub_topologies[task.sub_topology as usize].stores;
        for (index, spec) in specs.iter().enumerate() {
            let topic: Arc<str> = changelog::topic_name(self.application, &spec.name);
            let folded = match pointer.since.as_ref().and_then(|since| since.offsets.get(index)) {
                Some(since) => self.outside.folded_since(&topic, task.partition, *since),
                None => self.outside.folded(&topic, task.partition),
            };
            for (_, stores) in &current {
                let same = stores[index] == folded;
                assert!(
                    same,
                    "I13: store {} of task {task} at epoch {} differs from its changelog: {} rows here, {} there",
                    spec.name,
                    pointer.epoch,
                    stores[index].len(),
                    folded.len()
                );
            }
        }
    }
}

fn hold(task: TaskId, check: Result<(), Violation>) {
    if let Err(violation) = check {
        panic!("task {task}: {violation}");
    }
}
