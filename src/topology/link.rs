//! Linking: from the graph's closures to the operators that tasks run, sinks first.

use std::any::Any;
use std::sync::Arc;

use super::graph::{Graph, Role};
use super::plan::{Layout, TopicRef};
use super::program::Program;
use crate::ids::{NodeId, StoreId};
use crate::operators::{Feed, NodeRef, Outlet, Stateful, Tee, Timed};

/// What a node's link closure sees: the operators behind it, and its place in the plan.
pub(crate) struct Linker<'a> {
    graph: &'a Graph,
    layout: &'a Layout,
    /// The boxed outlet of each node that is linked already.
    outlets: Vec<Option<Box<dyn Any>>>,
    programs: Vec<Parts>,
}

#[derive(Default)]
struct Parts {
    sources: Vec<Box<dyn Feed>>,
    stateful: Vec<Arc<dyn Stateful>>,
    timed: Vec<Arc<dyn Timed>>,
}

/// Makes the programs of all sub-topologies.
pub(crate) fn link(graph: &mut Graph, layout: &Layout) -> Vec<Program> {
    let links: Vec<_> = graph.links.iter_mut().map(Option::take).collect();
    let mut linker = Linker {
        graph,
        layout,
        outlets: links.iter().map(|_| None).collect(),
        programs: layout.clocks.iter().map(|_| Parts::default()).collect(),
    };
    // Children have larger indexes than their parents, so each node finds the nodes behind it linked.
    for (id, link) in links.into_iter().enumerate().rev() {
        if let Some(link) = link {
            let outlet = link(&mut linker, id);
            linker.outlets[id] = Some(outlet);
        }
    }
    let parts = linker.programs.into_iter().zip(&layout.clocks);
    parts
        .map(|(mut parts, clocks)| {
            // Back from the order of linking to the order of the nodes.
            parts.sources.reverse();
            parts.stateful.reverse();
            parts.timed.reverse();
            Program::new(parts.sources, parts.stateful, parts.timed, *clocks)
        })
        .collect()
}

impl Linker<'_> {
    /// What follows node `id`.
    pub(crate) fn next<T: Clone + 'static>(&self, id: usize) -> Outlet<T> {
        let children = &self.graph.nodes[id].children;
        Tee::over(children.iter().map(|child| self.outlet(*child)).collect())
    }

    /// The operator of the linked node `id`. Builders join only nodes of one type, so the downcast holds; it happens
    /// once per edge, here, and never per record.
    pub(crate) fn outlet<T: 'static>(&self, id: usize) -> Outlet<T> {
        let boxed = self.outlets[id]
            .as_ref()
            .and_then(|boxed| boxed.downcast_ref::<Outlet<T>>());
        boxed
            .cloned()
            .expect("children are linked first, and edges are typed by the builder")
    }

    pub(crate) fn node(&self, id: usize) -> NodeRef {
        NodeRef {
            id: NodeId(id as u16),
            name: Arc::clone(&self.graph.nodes[id].name),
        }
    }

    /// The node's stores, in order of declaration.
    pub(crate) fn stores(&self, id: usize) -> Vec<StoreId> {
        let stores = self.graph.nodes[id].stores.iter();
        stores.map(|store| StoreId(self.layout.store[*store])).collect()
    }

    /// The first store of the node.
    pub(crate) fn store(&self, id: usize) -> StoreId {
        StoreId(self.layout.store[self.graph.nodes[id].stores[0]])
    }

    /// Index of a sink's topic among the sinks of its sub-topology.
    pub(crate) fn sink(&self, id: usize) -> u16 {
        self.layout.end[id]
    }

    /// Whether a sink drops records without a key: before a repartition topic it does, unless a left join behind the
    /// topic wants them (as Kafka Streams has it since 3.7).
    pub(crate) fn drops_null_keys(&self, id: usize) -> bool {
        let role = &self.graph.nodes[id].role;
        matches!(role, Role::Sink(TopicRef::Repartition(_))) && !self.graph.keeps_null_keys_downstream(id)
    }

    pub(crate) fn clock(&self, id: usize) -> usize {
        self.layout.clock[id]
    }

    pub(crate) fn add_source(&mut self, id: usize, source: Box<dyn Feed>) {
        self.parts(id).sources.push(source);
    }

    pub(crate) fn add_stateful(&mut self, id: usize, operator: Arc<dyn Stateful>) {
        self.parts(id).stateful.push(operator);
    }

    pub(crate) fn add_timed(&mut self, id: usize, operator: Arc<dyn Timed>) {
        self.parts(id).timed.push(operator);
    }

    fn parts(&mut self, id: usize) -> &mut Parts {
        &mut self.programs[self.layout.sub_topology[id]]
    }
}
