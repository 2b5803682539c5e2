//! Membership: which tasks an instance owns, and which of its workers runs them.
//!
//! The group spreads the partitions of the lead topics; partition p of a sub-topology's lead topic means its task p.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ids::{TaskId, TopicPartition};

/// The lead topic of every sub-topology: what the members of the group subscribe to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leads {
    topics: BTreeMap<Arc<str>, u16>,
}

impl Leads {
    /// Leads by sub-topology number. A topic belongs to one sub-topology only, so it leads at most one.
    pub fn new(leads: impl IntoIterator<Item = (Arc<str>, u16)>) -> Self {
        Self {
            topics: leads.into_iter().collect(),
        }
    }

    /// The topics to subscribe to, in order.
    pub fn topics(&self) -> Vec<Arc<str>> {
        self.topics.keys().cloned().collect()
    }

    /// The tasks that partitions of lead topics stand for, in order; partitions of other topics stand for none.
    pub fn tasks(&self, partitions: &[TopicPartition]) -> Vec<TaskId> {
        let task = |partition: &TopicPartition| {
            self.topics.get(&partition.topic).map(|sub_topology| TaskId {
                sub_topology: *sub_topology,
                partition: partition.partition,
            })
        };
        let mut tasks: Vec<TaskId> = partitions.iter().filter_map(task).collect();
        tasks.sort_unstable();
        tasks
    }
}

/// Which worker runs which task. A task stays with its worker while the instance owns it.
#[derive(Debug)]
pub struct Distribution {
    workers: Vec<BTreeSet<TaskId>>,
}

impl Distribution {
    /// No tasks on `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self {
            workers: vec![BTreeSet::new(); workers.max(1)],
        }
    }

    /// Gives each task to the worker with the fewest tasks of its sub-topology, then the fewest in all, then the first.
    /// Answers the new tasks per worker.
    pub fn add(&mut self, tasks: &[TaskId]) -> Vec<Vec<TaskId>> {
        let mut added = vec![Vec::new(); self.workers.len()];
        for task in tasks {
            if self.workers.iter().any(|held| held.contains(task)) {
                continue;
            }
            let load = |held: &BTreeSet<TaskId>| {
                (
                    held.iter()
                        .filter(|other| other.sub_topology == task.sub_topology)
                        .count(),
                    held.len(),
                )
            };
            let least = (0..self.workers.len())
                .min_by_key(|worker| (load(&self.workers[*worker]), *worker))
                .unwrap_or(0);
            self.workers[least].insert(*task);
            added[least].push(*task);
        }
        added
    }

    /// Takes tasks away. Answers them per worker.
    pub fn remove(&mut self, tasks: &[TaskId]) -> Vec<Vec<TaskId>> {
        let take = |held: &mut BTreeSet<TaskId>| tasks.iter().copied().filter(|task| held.remove(task)).collect();
        self.workers.iter_mut().map(take).collect()
    }

    /// All tasks that the instance owns.
    pub fn all(&self) -> Vec<TaskId> {
        let all: BTreeSet<TaskId> = self.workers.iter().flatten().copied().collect();
        all.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(sub_topology: u16, partition: i32) -> TaskId {
        TaskId {
            sub_topology,
            partition,
        }
    }

    #[test]
    fn partitions_of_lead_topics_are_tasks() {
        let leads = Leads::new([("flights".into(), 0), ("by-tail".into(), 1)]);
        let assigned = [
            TopicPartition::new("flights", 2),
            TopicPartition::new("by-tail", 0),
            TopicPartition::new("other", 0),
        ];
        assert_eq!(leads.tasks(&assigned), [task(0, 2), task(1, 0)]);
    }

    #[test]
    fn every_worker_gets_its_share_of_every_sub_topology() {
        let mut distribution = Distribution::new(2);
        let tasks: Vec<TaskId> = (0..2)
            .flat_map(|sub| (0..4).map(move |partition| task(sub, partition)))
            .collect();
        let added = distribution.add(&tasks);
        for worker in &added {
            assert_eq!(worker.iter().filter(|task| task.sub_topology == 0).count(), 2);
            assert_eq!(worker.iter().filter(|task| task.sub_topology == 1).count(), 2);
        }
    }

    #[test]
    fn tasks_stay_with_their_worker() {
        let mut distribution = Distribution::new(2);
        distribution.add(&[task(0, 0), task(0, 1), task(0, 2)]);
        let removed = distribution.remove(&[task(0, 1)]);
        assert_eq!(removed, [vec![], vec![task(0, 1)]]);
        let again = distribution.add(&[task(0, 0), task(0, 1)]);
        assert_eq!(
            again,
            [vec![], vec![task(0, 1)]],
            "a task that is held is not given out again"
        );
        assert_eq!(distribution.all(), [task(0, 0), task(0, 1), task(0, 2)]);
    }
}
