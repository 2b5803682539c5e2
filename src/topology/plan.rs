//! The plan: a topology compiled to sub-topologies, internal topics and stores.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::graph::{Graph, Role};
use crate::ids::NodeId;
use crate::state::StoreSpec;

/// Where the partition count of a repartition topic comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepartitionTopic {
    /// Name without the application's prefix; the topic is `<app>-<name>-repartition`.
    pub name: Arc<str>,
    /// Number of partitions if the topology fixes it, else the maximum over the upstream sources (as Kafka Streams does).
    pub partitions: Option<i32>,
    /// Ids of the key and value codec.
    pub codecs: String,
}

/// A topic that a sub-topology reads or writes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicRef {
    /// A topic of the user, by its name.
    External(Arc<str>),
    /// An internal topic, by its name in [`Plan::repartitions`].
    Repartition(Arc<str>),
}

impl TopicRef {
    /// Full name of the topic for the application `application_id`.
    pub fn full_name(&self, application_id: &str) -> Arc<str> {
        match self {
            TopicRef::External(name) => Arc::clone(name),
            TopicRef::Repartition(name) => format!("{application_id}-{name}-repartition").into(),
        }
    }
}

/// Prints internal topics without the application's prefix.
impl std::fmt::Display for TopicRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TopicRef::External(name) => f.write_str(name),
            TopicRef::Repartition(name) => write!(f, "{name}-repartition"),
        }
    }
}

/// Sources that one node brings together by key, so that they need the same number of partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoPartition {
    /// Indexes into [`SubTopology::sources`].
    pub sources: Vec<usize>,
    /// The node that needs it.
    pub node: NodeId,
}

/// Nodes connected without crossing a Kafka topic.
#[derive(Clone, Debug)]
pub struct SubTopology {
    /// Topics read, in source order: `Program::feed(i, …)` is fed from `sources[i]`.
    pub sources: Vec<TopicRef>,
    /// Which of the sources feed tables, by index.
    pub tables: Vec<usize>,
    /// Which of the sources have to be co-partitioned.
    pub co_partitions: Vec<CoPartition>,
    /// Topics written: an outbox entry's `sink` is an index into this list.
    pub sinks: Vec<TopicRef>,
    /// Stores of the sub-topology: `StoreId(i)` is `stores[i]`.
    pub stores: Vec<StoreSpec>,
    /// The nodes that belong to it.
    pub nodes: Vec<NodeId>,
}

/// A node as `describe()` shows it.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// Name, unique within the topology.
    pub name: Arc<str>,
    /// Kind of operator, for example `map-values`.
    pub kind: &'static str,
    /// The topic that it reads or writes, for sources and sinks.
    pub topic: Option<TopicRef>,
    /// Nodes that it gets records from.
    pub parents: Vec<NodeId>,
    /// Nodes that it sends records to.
    pub children: Vec<NodeId>,
    /// Names of the stores it uses.
    pub stores: Vec<String>,
    /// Parameters that are part of the fingerprint, for example `size_ms=3600000`.
    pub parameters: Vec<String>,
    /// Parameters that may change without a change of state, for example `grace_ms=60000`.
    pub settings: Vec<String>,
}

/// A topology compiled.
#[derive(Clone, Debug)]
pub struct Plan {
    /// All nodes; `NodeId(i)` is `nodes[i]`.
    pub nodes: Vec<NodeInfo>,
    /// The sub-topologies, numbered in order of their first node.
    pub sub_topologies: Vec<SubTopology>,
    /// The internal topics.
    pub repartitions: Vec<RepartitionTopic>,
}

/// Where the parts of a graph lie in its plan.
pub(crate) struct Layout {
    /// Sub-topology of each node.
    pub(crate) sub_topology: Vec<usize>,
    /// Position of each store among the stores of its sub-topology.
    pub(crate) store: Vec<u16>,
    /// Index of each node among the sources or sinks of its sub-topology; 0 for inner nodes.
    pub(crate) end: Vec<u16>,
    /// Index of each node's clock within its sub-topology; 0 for nodes without one.
    pub(crate) clock: Vec<usize>,
    /// Number of clocks per sub-topology.
    pub(crate) clocks: Vec<usize>,
}

/// Compiles a graph.
pub(crate) fn compile(graph: &Graph) -> (Plan, Layout) {
    let sub_topology = number_sub_topologies(graph);
    let count = sub_topology.iter().max().map_or(0, |highest| highest + 1);
    let mut layout = Layout {
        store: vec![0; graph.stores.len()],
        end: vec![0; graph.nodes.len()],
        clock: vec![0; graph.nodes.len()],
        clocks: vec![0; count],
        sub_topology,
    };
    let mut sub_topologies = vec![SubTopology::empty(); count];
    for id in 0..graph.nodes.len() {
        sub_topologies[layout.sub_topology[id]].place(graph, id, &mut layout);
    }
    for id in 0..graph.nodes.len() {
        sub_topologies[layout.sub_topology[id]].note_co_partition(graph, id, &layout);
    }
    let plan = Plan {
        nodes: graph.nodes.iter().map(|node| node_info(graph, node)).collect(),
        sub_topologies,
        repartitions: graph.repartitions.clone(),
    };
    (plan, layout)
}

/// Gives each node the number of its sub-topology: nodes belong together that are connected, or share a store.
fn number_sub_topologies(graph: &Graph) -> Vec<usize> {
    let mut group: Vec<usize> = (0..graph.nodes.len()).collect();
    fn root(group: &[usize], mut node: usize) -> usize {
        while group[node] != node {
            node = group[node];
        }
        node
    }
    let mut store_users: BTreeMap<usize, usize> = BTreeMap::new();
    for (id, node) in graph.nodes.iter().enumerate() {
        let sharing = node.stores.iter().map(|store| *store_users.entry(*store).or_insert(id));
        let neighbours: Vec<usize> = node.parents.iter().copied().chain(sharing).collect();
        for neighbour in neighbours {
            let (a, b) = (root(&group, id), root(&group, neighbour));
            group[a.max(b)] = a.min(b);
        }
    }
    let mut numbers = BTreeMap::new();
    (0..graph.nodes.len())
        .map(|id| {
            let next = numbers.len();
            *numbers.entry(root(&group, id)).or_insert(next)
        })
        .collect()
}

impl SubTopology {
    fn empty() -> Self {
        Self {
            sources: Vec::new(),
            tables: Vec::new(),
            co_partitions: Vec::new(),
            sinks: Vec::new(),
            stores: Vec::new(),
            nodes: Vec::new(),
        }
    }

    fn place(&mut self, graph: &Graph, id: usize, layout: &mut Layout) {
        let node = &graph.nodes[id];
        self.nodes.push(NodeId(id as u16));
        match &node.role {
            Role::Source(topic) => {
                layout.end[id] = self.sources.len() as u16;
                let feeds_table = |child: &usize| graph.nodes[*child].kind == "table";
                if node.children.iter().any(feeds_table) {
                    self.tables.push(self.sources.len());
                }
                self.sources.push(topic.clone());
            }
            Role::Sink(topic) => {
                let known = self.sinks.iter().position(|sink| sink == topic);
                let index = known.unwrap_or_else(|| {
                    self.sinks.push(topic.clone());
                    self.sinks.len() - 1
                });
                layout.end[id] = index as u16;
            }
            Role::Inner => {}
        }
        for store in &node.stores {
            let spec = &graph.stores[*store];
            if !self.stores.contains(spec) {
                layout.store[*store] = self.stores.len() as u16;
                self.stores.push(spec.clone());
            }
        }
        if node.has_clock {
            let clocks = &mut layout.clocks[layout.sub_topology[id]];
            layout.clock[id] = *clocks;
            *clocks += 1;
        }
    }

    fn note_co_partition(&mut self, graph: &Graph, id: usize, layout: &Layout) {
        let node = &graph.nodes[id];
        let mut sources = std::collections::BTreeSet::new();
        if let Some(table) = node.joins_table {
            sources = graph.sources_of(table);
        } else if !node.is_keyed {
            return;
        }
        sources.extend(graph.sources_of(id));
        if sources.len() > 1 {
            self.co_partitions.push(CoPartition {
                sources: sources.iter().map(|source| layout.end[*source] as usize).collect(),
                node: NodeId(id as u16),
            });
        }
    }
}

fn node_info(graph: &Graph, node: &super::graph::GraphNode) -> NodeInfo {
    let ids = |nodes: &[usize]| nodes.iter().map(|node| NodeId(*node as u16)).collect();
    NodeInfo {
        name: Arc::clone(&node.name),
        kind: node.kind,
        topic: match &node.role {
            Role::Source(topic) | Role::Sink(topic) => Some(topic.clone()),
            Role::Inner => None,
        },
        parents: ids(&node.parents),
        children: ids(&node.children),
        stores: node
            .stores
            .iter()
            .map(|store| graph.stores[*store].name.clone())
            .collect(),
        parameters: node.parameters.clone(),
        settings: node.settings.clone(),
    }
}
