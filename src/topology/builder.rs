//! The builder: where topologies start and end.

use std::any::{Any, TypeId, type_name};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Arc;

use super::error::TopologyError;
use super::graph::{Graph, GraphNode, Reading, Role};
use super::link::{self, Linker};
use super::plan::{self, TopicRef};
use super::topic::Repartitioned;
use super::{Stream, Table, Topic, Topology};
use crate::operators::{DeclaredStore, Outlet, Rows, Sink, Source, TableUpdate};
use crate::record::Record;

/// Builds a [`Topology`]: starts streams and tables, and collects what is chained to them.
///
/// ```
/// use tidegate::codec::{I64Be, Utf8};
/// use tidegate::topology::{Builder, Topic};
///
/// # fn main() -> Result<(), tidegate::topology::TopologyError> {
/// let builder = Builder::new();
/// builder
///     .stream(&Topic::new("lines", Utf8, Utf8))
///     .flat_map_values(|line| line.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>())
///     .group_by("by-word", |record| record.value.clone())
///     .count("counts")
///     .to_stream()
///     .to(&Topic::new("word-counts", Utf8, I64Be));
/// let topology = builder.build()?;
/// assert_eq!(topology.plan().sub_topologies.len(), 2, "grouping by another key crosses a topic");
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Builder {
    graph: RefCell<Graph>,
}

impl Builder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// The records of a topic. Reading a topic twice reads it once and answers the same stream.
    pub fn stream<K: Clone + 'static, V: Clone + 'static>(&self, topic: &Topic<K, V>) -> Stream<'_, K, V> {
        let reading = Reading {
            types: TypeId::of::<(K, V)>(),
            shown: format!("{} as {} -> {}", topic.codecs(), type_name::<K>(), type_name::<V>()),
            extractor: topic.timestamp.as_ref().map(|extractor| Arc::as_ptr(extractor).addr()),
        };
        let known = {
            let graph = self.graph.borrow();
            let known = graph.readings.get(&topic.name);
            known.map(|(node, first)| {
                (
                    *node,
                    *first == reading,
                    first.types == reading.types,
                    first.shown.clone(),
                )
            })
        };
        match known {
            Some((node, true, _, _)) => return Stream::new(self, node, false),
            Some((node, _, same_types, first)) => {
                self.report(TopologyError::TopicReadTwice {
                    topic: topic.name.to_string(),
                    first,
                    second: reading.shown.clone(),
                });
                if same_types {
                    return Stream::new(self, node, false);
                }
            }
            None => {}
        }
        let node = self.add_source(topic, TopicRef::External(Arc::clone(&topic.name)));
        let first_reading = (node, reading);
        self.graph
            .borrow_mut()
            .readings
            .entry(Arc::clone(&topic.name))
            .or_insert(first_reading);
        Stream::new(self, node, false)
    }

    /// The table of a topic: the latest value of each key, kept in the store `store`.
    ///
    /// A null value deletes the row. Records without a key are dropped and counted. Updates are applied as they come.
    pub fn table<K: Clone + 'static, V: Clone + 'static>(&self, topic: &Topic<K, V>, store: &str) -> Table<'_, K, V> {
        let stream = self.stream(topic);
        self.add_table(stream.node, store, "table", topic)
    }

    /// Ends building.
    ///
    /// # Errors
    /// The first mistake that was made, as [`TopologyError`].
    pub fn build(self) -> Result<Topology, TopologyError> {
        let mut graph = self.graph.into_inner();
        if let Some(mistake) = graph.mistake.take() {
            return Err(mistake);
        }
        if graph.nodes.is_empty() {
            return Err(TopologyError::NoSource);
        }
        let (plan, layout) = plan::compile(&graph);
        let programs = link::link(&mut graph, &layout);
        let on_error = graph.nodes.iter().map(|node| node.on_error).collect();
        Ok(Topology::new(plan, programs, on_error))
    }

    /// Adds a node whose operator takes items of type `T`.
    pub(crate) fn add<T: 'static>(
        &self,
        node: GraphNode,
        link: impl FnOnce(&mut Linker<'_>, usize) -> Outlet<T> + 'static,
    ) -> usize {
        let link = Box::new(move |linker: &mut Linker<'_>, id| Box::new(link(linker, id)) as Box<dyn Any>);
        self.graph.borrow_mut().add(node, link)
    }

    pub(crate) fn add_store(&self, store: DeclaredStore) -> usize {
        self.graph.borrow_mut().add_store(store)
    }

    pub(crate) fn report(&self, mistake: TopologyError) {
        self.graph.borrow_mut().report(mistake);
    }

    pub(crate) fn set_on_error(&self, node: usize, policy: crate::operators::OnError) {
        self.graph.borrow_mut().nodes[node].on_error = Some(policy);
    }

    /// Reports a mistake if `other` belongs to another builder.
    pub(crate) fn check_same(&self, other: &Builder, node: &str) -> bool {
        let same = std::ptr::eq(self, other);
        if !same {
            self.report(TopologyError::ForeignStream { node: node.to_owned() });
        }
        same
    }

    /// Adds the table of `topic` behind node `parent`.
    pub(crate) fn add_table<K: Clone + 'static, V: Clone + 'static>(
        &self,
        parent: usize,
        store: &str,
        kind: &'static str,
        topic: &Topic<K, V>,
    ) -> Table<'_, K, V> {
        let name: Arc<str> = store.into();
        let index = self.add_store(DeclaredStore {
            name: store.to_owned(),
            ordered: false,
            codecs: format!("{} -> row of {}", topic.key.id(), topic.value.id()),
        });
        let mut node = GraphNode::named(&name, kind, vec![parent]);
        node.stores = vec![index];
        node.is_keyed = true;
        let (key, value) = (Arc::clone(&topic.key), Arc::clone(&topic.value));
        let id = self.add(node, move |linker, id| {
            Arc::new(TableUpdate {
                node: linker.node(id),
                store: linker.store(id),
                rows: Rows { key, value },
                next: linker.next(id),
            }) as Outlet<Record<K, V>>
        });
        Table {
            builder: self,
            node: id,
            store: index,
            key: Arc::clone(&topic.key),
            value: Arc::clone(&topic.value),
        }
    }

    /// Sends the records of node `parent` through a repartition topic and answers the node that reads it.
    pub(crate) fn add_repartition<K: Clone + 'static, V: Clone + 'static>(
        &self,
        parent: usize,
        repartitioned: Repartitioned<K, V>,
    ) -> usize {
        let Repartitioned {
            name,
            key,
            value,
            partitions,
        } = repartitioned;
        let topic = Topic {
            name: Arc::clone(&name),
            key,
            value,
            on_error: None,
            timestamp: None,
        };
        self.graph
            .borrow_mut()
            .add_repartition(&name, partitions, topic.codecs());
        self.add_sink(parent, &topic, TopicRef::Repartition(Arc::clone(&name)));
        self.add_source(&topic, TopicRef::Repartition(name))
    }

    fn add_source<K: Clone + 'static, V: Clone + 'static>(&self, topic: &Topic<K, V>, topic_ref: TopicRef) -> usize {
        let mut node = GraphNode::unnamed("source", Vec::new());
        node.role = Role::Source(topic_ref);
        node.on_error = topic.on_error;
        let topic = topic.clone();
        let link = move |linker: &mut Linker<'_>, id: usize| {
            let source = Source {
                node: linker.node(id),
                key: topic.key,
                value: topic.value,
                timestamp: topic.timestamp,
                next: linker.next(id),
            };
            linker.add_source(id, Box::new(source));
            Box::new(()) as Box<dyn Any>
        };
        self.graph.borrow_mut().add(node, Box::new(link))
    }

    /// Adds a node that writes `topic`.
    pub(crate) fn add_sink<K: Clone + 'static, V: Clone + 'static>(
        &self,
        parent: usize,
        topic: &Topic<K, V>,
        topic_ref: TopicRef,
    ) {
        let mut node = GraphNode::unnamed("sink", vec![parent]);
        node.role = Role::Sink(topic_ref);
        node.on_error = topic.on_error;
        let topic = topic.clone();
        self.add(node, move |linker, id| {
            Arc::new(Sink {
                node: linker.node(id),
                sink: linker.sink(id),
                key: topic.key,
                value: topic.value,
                drop_null_keys: linker.drops_null_keys(id),
            }) as Outlet<Record<K, V>>
        });
    }
}

/// A typed edge of the graph under construction.
pub(crate) type Edge<K, V> = PhantomData<fn() -> (K, V)>;
