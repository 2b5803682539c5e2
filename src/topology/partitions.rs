//! Numbers of partitions: of internal topics, of tasks, and whether co-partitioned topics agree.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::PlanError;
use super::plan::{Plan, SubTopology, TopicRef};
use crate::ids::NodeId;

/// The numbers of partitions of a plan, once those of the external topics are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionCounts {
    /// Partitions of each repartition topic, by its name in [`Plan::repartitions`].
    pub repartitions: BTreeMap<Arc<str>, i32>,
    /// Per sub-topology, in order.
    pub sub_topologies: Vec<SubTopologyCounts>,
}

/// The numbers of partitions of one sub-topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubTopologyCounts {
    /// Partitions of each source, in order. A source with fewer partitions than there are tasks is missing in the last ones.
    pub sources: Vec<i32>,
    /// Number of tasks: the most partitions of a source.
    pub tasks: i32,
    /// Index of the lead topic among the sources: the one with most partitions, then external before internal, then
    /// first by name. Its partition p is task p.
    pub lead: usize,
}

/// Topics that need the same number of partitions, and the nodes that say so.
struct Group {
    topics: Vec<TopicRef>,
    node: Option<NodeId>,
    partitions: i32,
    is_settled: bool,
}

impl Plan {
    /// Settles all numbers of partitions. `external` answers the number of a topic, `None` if it does not exist.
    ///
    /// A repartition topic without a fixed number gets the number of the topics that it is joined with, else the
    /// largest number among the sources of the sub-topologies that write it.
    ///
    /// # Errors
    /// [`PlanError::MissingTopic`] for a source that does not exist, [`PlanError::NotCoPartitioned`] where topics that
    /// are joined, or aggregated together, have different numbers.
    pub fn partition_counts(&self, external: &dyn Fn(&str) -> Option<i32>) -> Result<PartitionCounts, PlanError> {
        let mut groups = self.groups();
        for group in &mut groups {
            self.settle(group, external)?;
        }
        self.grow(&mut groups);
        let count = |topic: &TopicRef| {
            let group = groups.iter().find(|group| group.topics.contains(topic));
            group.map_or(0, |group| group.partitions)
        };
        let repartitions = self.repartitions.iter().map(|repartition| {
            let name = &repartition.name;
            (Arc::clone(name), count(&TopicRef::Repartition(Arc::clone(name))))
        });
        let sub_topologies = self
            .sub_topologies
            .iter()
            .map(|sub_topology| sub_topology.counts(&count));
        Ok(PartitionCounts {
            repartitions: repartitions.collect(),
            sub_topologies: sub_topologies.collect(),
        })
    }

    /// All topics that are read, in groups that need one number; most groups have one topic.
    fn groups(&self) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for sub_topology in &self.sub_topologies {
            let first = groups.len();
            groups.extend(sub_topology.sources.iter().map(|topic| Group {
                topics: vec![topic.clone()],
                node: None,
                partitions: 0,
                is_settled: false,
            }));
            for demand in &sub_topology.co_partitions {
                let wanted: Vec<&TopicRef> = demand
                    .sources
                    .iter()
                    .map(|source| &sub_topology.sources[*source])
                    .collect();
                let concerned = |group: &Group| wanted.iter().any(|topic| group.topics.contains(topic));
                let (joined, others): (Vec<Group>, Vec<Group>) = groups.drain(first..).partition(concerned);
                groups.extend(others);
                groups.push(Group {
                    topics: joined.iter().flat_map(|group| group.topics.clone()).collect(),
                    node: joined.iter().find_map(|group| group.node).or(Some(demand.node)),
                    partitions: 0,
                    is_settled: false,
                });
            }
        }
        groups
    }

    /// Sets the group's number if one of its topics has a fixed one, and checks that all fixed ones agree.
    fn settle(&self, group: &mut Group, external: &dyn Fn(&str) -> Option<i32>) -> Result<(), PlanError> {
        let mut first: Option<(&TopicRef, i32)> = None;
        // External topics first: an error then names the topic that cannot be changed before the one that can.
        group.topics.sort();
        for topic in &group.topics {
            let fixed = match topic {
                TopicRef::External(name) => Some(external(name).ok_or_else(|| PlanError::MissingTopic {
                    topic: name.to_string(),
                })?),
                TopicRef::Repartition(name) => {
                    let repartition = self.repartitions.iter().find(|repartition| repartition.name == *name);
                    repartition.and_then(|repartition| repartition.partitions)
                }
            };
            match (first, fixed) {
                (None, Some(count)) => first = Some((topic, count)),
                (Some((first, first_count)), Some(count)) if first_count != count => {
                    return Err(self.not_co_partitioned(group.node, (first, first_count), (topic, count)));
                }
                _ => {}
            }
        }
        if let Some((_, count)) = first {
            group.partitions = count;
            group.is_settled = true;
        }
        Ok(())
    }

    fn not_co_partitioned(&self, node: Option<NodeId>, first: (&TopicRef, i32), second: (&TopicRef, i32)) -> PlanError {
        PlanError::NotCoPartitioned {
            node: node.map_or_else(String::new, |node| self.nodes[node.0 as usize].name.to_string()),
            first: first.0.to_string(),
            first_partitions: first.1,
            second: second.0.to_string(),
            second_partitions: second.1,
        }
    }

    /// Raises the numbers that are not fixed to the largest upstream, until nothing changes any more.
    fn grow(&self, groups: &mut [Group]) {
        loop {
            let mut changed = false;
            for index in 0..groups.len() {
                if groups[index].is_settled {
                    continue;
                }
                let topics = &groups[index].topics;
                let writers = self
                    .sub_topologies
                    .iter()
                    .filter(|sub_topology| sub_topology.sinks.iter().any(|sink| topics.contains(sink)));
                let upstream = writers.flat_map(|sub_topology| &sub_topology.sources).map(|topic| {
                    let group = groups.iter().find(|group| group.topics.contains(topic));
                    group.map_or(0, |group| group.partitions)
                });
                let largest = upstream.max().unwrap_or(0);
                if largest > groups[index].partitions {
                    groups[index].partitions = largest;
                    changed = true;
                }
            }
            if !changed {
                return;
            }
        }
    }
}

impl SubTopology {
    fn counts(&self, count: &dyn Fn(&TopicRef) -> i32) -> SubTopologyCounts {
        let sources: Vec<i32> = self.sources.iter().map(count).collect();
        let order = |index: &usize| (std::cmp::Reverse(sources[*index]), &self.sources[*index]);
        let lead = (0..sources.len()).min_by_key(order).unwrap_or(0);
        SubTopologyCounts {
            tasks: sources.get(lead).copied().unwrap_or(0),
            lead,
            sources,
        }
    }
}
