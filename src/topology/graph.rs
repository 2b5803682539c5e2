//! The graph that a builder collects: untyped nodes, with typed closures that link them once at the end.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::error::TopologyError;
use super::link::Linker;
use super::plan::{RepartitionTopic, TopicRef};
use crate::operators::{DeclaredStore, OnError};
use crate::state::StoreSpec;

/// Makes a node's operator once all nodes behind it are made; answers its boxed `Outlet`.
pub(crate) type Link = Box<dyn FnOnce(&mut Linker<'_>, usize) -> Box<dyn Any>>;

/// How a node touches the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Source(TopicRef),
    Sink(TopicRef),
    Inner,
}

/// One node. Parents always have smaller indexes than their children.
pub(crate) struct GraphNode {
    pub(crate) name: Arc<str>,
    /// Whether the user gave the name.
    pub(crate) is_named: bool,
    pub(crate) kind: &'static str,
    pub(crate) role: Role,
    pub(crate) parents: Vec<usize>,
    pub(crate) children: Vec<usize>,
    /// Indexes into [`Graph::stores`].
    pub(crate) stores: Vec<usize>,
    /// Whether the operator keeps a clock.
    pub(crate) has_clock: bool,
    /// Node of the table that this node joins with.
    pub(crate) joins_table: Option<usize>,
    /// Whether this is a join that records without a key pass.
    pub(crate) keeps_null_keys: bool,
    /// Whether all records of a key have to come to one task here.
    pub(crate) is_keyed: bool,
    /// Part of the fingerprint.
    pub(crate) parameters: Vec<String>,
    /// Shown only.
    pub(crate) settings: Vec<String>,
    pub(crate) on_error: Option<OnError>,
}

impl GraphNode {
    /// A node without a name of its own: it gets one made from its kind.
    pub(crate) fn unnamed(kind: &'static str, parents: Vec<usize>) -> Self {
        Self {
            name: kind.into(),
            is_named: false,
            kind,
            role: Role::Inner,
            parents,
            children: Vec::new(),
            stores: Vec::new(),
            has_clock: false,
            joins_table: None,
            keeps_null_keys: false,
            is_keyed: false,
            parameters: Vec::new(),
            settings: Vec::new(),
            on_error: None,
        }
    }

    /// A node with the name that the user gave it.
    pub(crate) fn named(name: &Arc<str>, kind: &'static str, parents: Vec<usize>) -> Self {
        Self {
            name: Arc::clone(name),
            is_named: true,
            ..Self::unnamed(kind, parents)
        }
    }
}

/// How a topic is read, to recognise a second reading that differs.
#[derive(PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) types: TypeId,
    /// Types and codecs, as an error message shows them.
    pub(crate) shown: String,
    /// Address of the timestamp extractor; a clone of a topic has the same.
    pub(crate) extractor: Option<usize>,
}

/// All that a builder collects.
#[derive(Default)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<GraphNode>,
    /// One per node, taken when it is linked.
    pub(crate) links: Vec<Option<Link>>,
    pub(crate) stores: Vec<StoreSpec>,
    pub(crate) repartitions: Vec<RepartitionTopic>,
    /// Readings of external topics, with their source nodes.
    pub(crate) readings: BTreeMap<Arc<str>, (usize, Reading)>,
    /// The first mistake is the one that is reported.
    pub(crate) mistake: Option<TopologyError>,
    names: BTreeSet<Arc<str>>,
}

impl Graph {
    /// Adds a node; `link` makes its operator.
    pub(crate) fn add(&mut self, mut node: GraphNode, link: Link) -> usize {
        let id = self.nodes.len();
        if id > usize::from(u16::MAX) {
            self.report(TopologyError::TooLarge);
        }
        self.name(&mut node, id);
        for parent in &node.parents {
            self.nodes[*parent].children.push(id);
        }
        self.nodes.push(node);
        self.links.push(Some(link));
        id
    }

    /// Checks the node's name, or makes one: `<kind>-<index>`, `source-<topic>`, `sink-<topic>`.
    fn name(&mut self, node: &mut GraphNode, id: usize) {
        if node.is_named {
            self.check_name(&node.name);
            if !self.names.insert(Arc::clone(&node.name)) {
                self.report(TopologyError::DuplicateName {
                    what: "nodes",
                    name: node.name.to_string(),
                });
            }
            return;
        }
        let wanted = match &node.role {
            Role::Source(topic) | Role::Sink(topic) => format!("{}-{topic}", node.kind),
            Role::Inner => format!("{}-{id}", node.kind),
        };
        node.name = wanted.as_str().into();
        let mut number = 1;
        while !self.names.insert(Arc::clone(&node.name)) {
            number += 1;
            node.name = format!("{wanted}-{number}").into();
        }
    }

    /// Adds a store of the node that is added next.
    pub(crate) fn add_store(&mut self, store: DeclaredStore) -> usize {
        self.check_name(&store.name);
        if self.stores.iter().any(|other| other.name == store.name) {
            self.report(TopologyError::DuplicateName {
                what: "stores",
                name: store.name.clone(),
            });
        }
        self.stores.push(StoreSpec {
            name: store.name,
            ordered: store.ordered,
            codecs: store.codecs,
        });
        self.stores.len() - 1
    }

    /// Adds a repartition topic.
    pub(crate) fn add_repartition(&mut self, name: &Arc<str>, partitions: Option<i32>, codecs: String) {
        self.check_name(name);
        if self.repartitions.iter().any(|other| other.name == *name) {
            self.report(TopologyError::DuplicateName {
                what: "repartition topics",
                name: name.to_string(),
            });
        }
        if let Some(partitions) = partitions.filter(|partitions| *partitions < 1) {
            self.report(TopologyError::InvalidParameter {
                node: name.to_string(),
                reason: format!("a topic cannot have {partitions} partitions, it needs at least one"),
            });
        }
        self.repartitions.push(RepartitionTopic {
            name: Arc::clone(name),
            partitions,
            codecs,
        });
    }

    /// Refuses names that cannot be part of a topic's name.
    pub(crate) fn check_name(&mut self, name: &str) {
        const LONGEST: usize = 180;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let reason = if name.is_empty() {
            "it is empty".to_owned()
        } else if name.len() > LONGEST {
            format!("it has {} bytes", name.len())
        } else if let Some(illegal) = name.chars().find(|c| !legal(*c)) {
            format!("it contains {illegal:?}")
        } else {
            return;
        };
        self.report(TopologyError::InvalidName {
            name: name.to_owned(),
            reason,
        });
    }

    /// Remembers a mistake until the topology is built.
    pub(crate) fn report(&mut self, mistake: TopologyError) {
        self.mistake.get_or_insert(mistake);
    }

    /// Whether a join that keeps records without a key is somewhere behind `node`, also across repartition topics.
    pub(crate) fn keeps_null_keys_downstream(&self, node: usize) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = vec![node];
        while let Some(id) = open.pop() {
            if !seen.insert(id) {
                continue;
            }
            let node = &self.nodes[id];
            if node.keeps_null_keys {
                return true;
            }
            open.extend(&node.children);
            if let Role::Sink(topic @ TopicRef::Repartition(_)) = &node.role {
                let reads = |reader: &GraphNode| matches!(&reader.role, Role::Source(source) if source == topic);
                open.extend(self.nodes.iter().position(reads));
            }
        }
        false
    }

    /// The source nodes upstream of `node`, in order.
    pub(crate) fn sources_of(&self, node: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            if seen.insert(node) {
                if self.nodes[node].parents.is_empty() {
                    found.insert(node);
                }
                open.extend(&self.nodes[node].parents);
            }
        }
        found
    }
}
