//! In which order the tasks of a topology stand still.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::TaskId;
use crate::topology::{Plan, TopicRef};

use super::super::topics::Topics;

/// Sub-topologies by how many repartition topics lie before them. What is written to a repartition topic is complete once all tasks of the
/// stages before its readers stand still.
#[derive(Clone, Debug)]
pub struct Stages {
    /// By number of the sub-topology.
    depths: Vec<usize>,
    tasks: BTreeSet<TaskId>,
}

impl Stages {
    /// The stages of a plan with these topics.
    pub fn of(plan: &Plan, topics: &Topics) -> Self {
        let tasks = (0..topics.sub_topologies()).flat_map(|sub_topology| {
            (0..topics.tasks(sub_topology)).map(move |partition| TaskId {
                sub_topology,
                partition,
            })
        });
        Self {
            depths: depths(plan),
            tasks: tasks.collect(),
        }
    }

    /// All tasks.
    pub fn tasks(&self) -> &BTreeSet<TaskId> {
        &self.tasks
    }

    /// Whether all tasks of the stages before that of `sub_topology` are among `frozen`.
    pub fn has_come(&self, sub_topology: u16, frozen: &BTreeSet<TaskId>) -> bool {
        let depth = self.depths[usize::from(sub_topology)];
        let mut before = self
            .tasks
            .iter()
            .filter(|task| self.depths[usize::from(task.sub_topology)] < depth);
        before.all(|task| frozen.contains(task))
    }
}

fn depths(plan: &Plan) -> Vec<usize> {
    let subs = &plan.sub_topologies;
    let writes = |sub: usize, topic: &TopicRef| subs[sub].sinks.contains(topic);
    let mut depths: BTreeMap<usize, usize> = (0..subs.len()).map(|sub| (sub, 0)).collect();
    // A topology has no cycles through repartition topics, so the depths settle within as many rounds as there are sub-topologies.
    for _ in 0..subs.len() {
        for (sub, reader) in subs.iter().enumerate() {
            let repartitions = reader
                .sources
                .iter()
                .filter(|topic| matches!(topic, TopicRef::Repartition(_)));
            let writers = repartitions.flat_map(|topic| (0..subs.len()).filter(move |writer| writes(*writer, topic)));
            let depth = writers.map(|writer| depths[&writer] + 1).max().unwrap_or(0);
            depths.insert(sub, depth.min(subs.len()));
        }
    }
    depths.into_values().collect()
}
