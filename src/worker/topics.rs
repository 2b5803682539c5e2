//! The names and handles of all topics that a worker reads and writes.

use std::sync::Arc;

use crate::durability::changelog;
use crate::durability::snapshot::spill_topic;
use crate::ids::TaskId;
use crate::ids::TopicPartition;
use crate::log::OutTopic;
use crate::topology::{PartitionCounts, Plan, TopicRef};

/// Topics of one sub-topology, by the indexes that its program uses.
#[derive(Clone, Debug)]
struct SubTopics {
    sources: Vec<Arc<str>>,
    source_partitions: Vec<i32>,
    lead: usize,
    tasks: i32,
    repartition_sources: Vec<bool>,
    sinks: Vec<OutTopic>,
    changelogs: Vec<OutTopic>,
    spill: Option<OutTopic>,
}

/// Which topics of their own the stores of a sub-topology have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateTopics {
    /// A changelog topic for each.
    pub changelogs: bool,
    /// A spill topic for all of them.
    pub spill: bool,
}

/// All topics of an application.
#[derive(Clone, Debug)]
pub struct Topics {
    subs: Vec<SubTopics>,
    out: Vec<Arc<str>>,
    commits: OutTopic,
}

/// Name of the compacted topic of commit records.
pub fn commits_topic(application_id: &str) -> Arc<str> {
    format!("{application_id}-commits").into()
}

/// Name of a repartition topic, as Kafka Streams names it.
pub fn repartition_topic(application_id: &str, name: &str) -> Arc<str> {
    format!("{application_id}-{name}-repartition").into()
}

/// Name of the topic that a plan refers to.
pub fn topic_of(application_id: &str, reference: &TopicRef) -> Arc<str> {
    match reference {
        TopicRef::External(name) => Arc::clone(name),
        TopicRef::Repartition(name) => repartition_topic(application_id, name),
    }
}

impl Topics {
    /// The topics of a plan run as `application_id`; a dead-letter topic is the last sink of every sub-topology. `of_state` says per sub-topology
    /// whether it has changelogs, and whether a spill topic.
    pub fn new(
        plan: &Plan,
        application_id: &str,
        of_state: &[StateTopics],
        dead_letter: Option<&Arc<str>>,
        counts: &PartitionCounts,
    ) -> Self {
        let mut out: Vec<Arc<str>> = Vec::new();
        let mut handle = |name: Arc<str>| {
            let index = out.iter().position(|known| *known == name).unwrap_or_else(|| {
                out.push(name);
                out.len() - 1
            });
            OutTopic(index as u16)
        };
        let commits = handle(commits_topic(application_id));
        let mut subs = Vec::new();
        for (number, (sub, counts)) in plan.sub_topologies.iter().zip(&counts.sub_topologies).enumerate() {
            let of_state = of_state.get(number).copied().unwrap_or_default();
            let mut sinks: Vec<OutTopic> = sub
                .sinks
                .iter()
                .map(|sink| handle(topic_of(application_id, sink)))
                .collect();
            sinks.extend(dead_letter.map(|topic| handle(Arc::clone(topic))));
            let sources: Vec<Arc<str>> = sub
                .sources
                .iter()
                .map(|source| topic_of(application_id, source))
                .collect();
            subs.push(SubTopics {
                source_partitions: counts.sources.clone(),
                lead: counts.lead,
                tasks: counts.tasks,
                sources,
                repartition_sources: sub
                    .sources
                    .iter()
                    .map(|source| matches!(source, TopicRef::Repartition(_)))
                    .collect(),
                sinks,
                changelogs: sub
                    .stores
                    .iter()
                    .filter(|_| of_state.changelogs)
                    .map(|store| handle(changelog::topic_name(application_id, &store.name)))
                    .collect(),
                spill: (of_state.spill && !sub.stores.is_empty())
                    .then(|| handle(spill_topic(application_id, number as u16))),
            });
        }
        Self { subs, out, commits }
    }

    /// All topics written; `OutTopic(i)` is the `i`th.
    pub fn out(&self) -> &[Arc<str>] {
        &self.out
    }

    /// The topic of commit records.
    pub fn commits(&self) -> OutTopic {
        self.commits
    }

    /// Source topics of a sub-topology, in source order.
    pub fn sources(&self, sub_topology: u16) -> &[Arc<str>] {
        &self.subs[sub_topology as usize].sources
    }

    /// Whether a source is a repartition topic, whose consumed records are purged.
    pub fn is_repartition(&self, sub_topology: u16, source: usize) -> bool {
        self.subs[sub_topology as usize].repartition_sources[source]
    }

    /// Sink topics of a sub-topology, in the order of the outbox's sink numbers.
    pub fn sinks(&self, sub_topology: u16) -> &[OutTopic] {
        &self.subs[sub_topology as usize].sinks
    }

    /// Changelog topics of a sub-topology's stores, in the order of store ids.
    pub fn changelogs(&self, sub_topology: u16) -> &[OutTopic] {
        &self.subs[sub_topology as usize].changelogs
    }

    /// Names of the same.
    pub fn changelog_names(&self, sub_topology: u16) -> Vec<Arc<str>> {
        let changelogs = self.changelogs(sub_topology).iter();
        changelogs
            .map(|topic| Arc::clone(&self.out[usize::from(topic.0)]))
            .collect()
    }

    /// All tasks of a sub-topology, each with one of its inputs: what is committed for that says what is for all.
    pub fn tasks_with_input(&self, sub_topology: u16) -> Vec<(TaskId, TopicPartition)> {
        let task = |partition| TaskId {
            sub_topology,
            partition,
        };
        let tasks = (0..self.tasks(sub_topology)).map(task);
        let with_input = tasks.filter_map(|task| Some((task, self.inputs(task).into_iter().next()?.1)));
        with_input.collect()
    }

    /// The topic to which the tasks of a sub-topology spill increments; `None` where they do not.
    pub fn spill(&self, sub_topology: u16) -> Option<OutTopic> {
        self.subs[sub_topology as usize].spill
    }

    /// The input partitions of a task, each with the number of its source. A source with fewer partitions than the
    /// lead topic (possible where streams are only merged) has none for the last tasks.
    pub fn inputs(&self, task: TaskId) -> Vec<(usize, TopicPartition)> {
        let sub = &self.subs[task.sub_topology as usize];
        let sources = sub.sources.iter().zip(&sub.source_partitions).enumerate();
        let reaching = sources.filter(|(_, (_, partitions))| task.partition < **partitions);
        let input = |(source, (topic, _)): (usize, (&Arc<str>, &i32))| {
            (source, TopicPartition::new(Arc::clone(topic), task.partition))
        };
        reaching.map(input).collect()
    }

    /// Those input partitions of a task that only this application writes to.
    pub fn repartition_inputs(&self, task: TaskId) -> Vec<TopicPartition> {
        let inputs = self.inputs(task).into_iter();
        let repartitions = inputs.filter(|(source, _)| self.is_repartition(task.sub_topology, *source));
        repartitions.map(|(_, partition)| partition).collect()
    }

    /// The lead topic of a sub-topology, whose partitions are the tasks.
    pub fn lead(&self, sub_topology: u16) -> &Arc<str> {
        let sub = &self.subs[sub_topology as usize];
        &sub.sources[sub.lead]
    }

    /// Number of tasks of a sub-topology.
    pub fn tasks(&self, sub_topology: u16) -> i32 {
        self.subs[sub_topology as usize].tasks
    }

    /// Number of sub-topologies.
    pub fn sub_topologies(&self) -> u16 {
        self.subs.len() as u16
    }
}
