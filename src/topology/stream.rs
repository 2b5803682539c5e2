//! Streams: records in order, and the operators on them.

use std::convert::Infallible;
use std::fmt::Display;
use std::marker::PhantomData;
use std::sync::Arc;

use super::builder::{Builder, Edge};
use super::graph::GraphNode;
use super::plan::TopicRef;
use super::topic::Repartitioned;
use super::{Grouped, Table, Topic};
use crate::codec::{DefaultCodec, DefaultKeyCodec};
use crate::operators::{
    Declare, Filter, FlatMap, FlatMapValues, Host, HostParts, MapValues, OnError, Outlet, Peek, Processor, SelectKey,
};
use crate::record::Record;

/// Records of keys `K` and values `V`, on their way from one operator to the next.
///
/// Operators take functions as `Fn`, never `FnMut`: what a function remembered would be counted twice after a restart.
/// So this does not compile:
///
/// ```compile_fail,E0594
/// # use tidegate::codec::Utf8;
/// # use tidegate::topology::{Builder, Topic};
/// let builder = Builder::new();
/// let mut seen = 0;
/// builder.stream(&Topic::new("lines", Utf8, Utf8)).map_values(move |line| { seen += 1; line });
/// ```
///
/// Nor does a sink of another type:
///
/// ```compile_fail,E0308
/// # use tidegate::codec::{I64Be, Utf8};
/// # use tidegate::topology::{Builder, Topic};
/// let builder = Builder::new();
/// builder.stream(&Topic::new("lines", Utf8, Utf8)).to(&Topic::new("numbers", Utf8, I64Be));
/// ```
///
/// A stream is a handle that can be copied; using it twice sends every record both ways.
pub struct Stream<'b, K, V> {
    pub(crate) builder: &'b Builder,
    pub(crate) node: usize,
    /// Whether an operator may have changed keys since records were last partitioned by key.
    pub(crate) key_changed: bool,
    edge: Edge<K, V>,
}

impl<K, V> Clone for Stream<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Stream<'_, K, V> {}

/// Lets infallible and fallible functions share one operator.
fn always<T>(value: T) -> Result<T, Infallible> {
    Ok(value)
}

impl<'b, K: Clone + 'static, V: Clone + 'static> Stream<'b, K, V> {
    pub(crate) fn new(builder: &'b Builder, node: usize, key_changed: bool) -> Self {
        Self {
            builder,
            node,
            key_changed,
            edge: PhantomData,
        }
    }

    fn unnamed(&self, kind: &'static str) -> GraphNode {
        GraphNode::unnamed(kind, vec![self.node])
    }

    /// What to do with records that fail in the operator before this point. Configuration can overrule it.
    #[must_use]
    pub fn on_error(self, policy: OnError) -> Self {
        self.builder.set_on_error(self.node, policy);
        self
    }

    /// Replaces each record. The key may change, so a later grouping or join goes through a repartition topic.
    #[must_use]
    pub fn map<K2: Clone + 'static, V2: Clone + 'static>(
        self,
        function: impl Fn(Record<K, V>) -> Record<K2, V2> + Send + Sync + 'static,
    ) -> Stream<'b, K2, V2> {
        self.add_flat_map("map", move |record| always([function(record)]))
    }

    /// As [`Stream::map`], with a function that can fail.
    #[must_use]
    pub fn try_map<K2: Clone + 'static, V2: Clone + 'static, E: Display + 'static>(
        self,
        function: impl Fn(Record<K, V>) -> Result<Record<K2, V2>, E> + Send + Sync + 'static,
    ) -> Stream<'b, K2, V2> {
        self.add_flat_map("map", move |record| function(record).map(|record| [record]))
    }

    /// Replaces each record by any number of records, in order. The key may change.
    #[must_use]
    pub fn flat_map<K2: Clone + 'static, V2: Clone + 'static, I>(
        self,
        function: impl Fn(Record<K, V>) -> I + Send + Sync + 'static,
    ) -> Stream<'b, K2, V2>
    where
        I: IntoIterator<Item = Record<K2, V2>> + 'static,
    {
        self.add_flat_map("flat-map", move |record| always(function(record)))
    }

    /// As [`Stream::flat_map`], with a function that can fail.
    #[must_use]
    pub fn try_flat_map<K2: Clone + 'static, V2: Clone + 'static, I, E: Display + 'static>(
        self,
        function: impl Fn(Record<K, V>) -> Result<I, E> + Send + Sync + 'static,
    ) -> Stream<'b, K2, V2>
    where
        I: IntoIterator<Item = Record<K2, V2>> + 'static,
    {
        self.add_flat_map("flat-map", function)
    }

    fn add_flat_map<K2: Clone + 'static, V2: Clone + 'static, I, E: Display + 'static>(
        self,
        kind: &'static str,
        function: impl Fn(Record<K, V>) -> Result<I, E> + Send + Sync + 'static,
    ) -> Stream<'b, K2, V2>
    where
        I: IntoIterator<Item = Record<K2, V2>> + 'static,
    {
        let node = self.builder.add(self.unnamed(kind), move |linker, id| {
            Arc::new(FlatMap {
                node: linker.node(id),
                function,
                next: linker.next(id),
            }) as Outlet<Record<K, V>>
        });
        Stream::new(self.builder, node, true)
    }

    /// Replaces each value. A null value stays null, and the function is not called for it.
    #[must_use]
    pub fn map_values<V2: Clone + 'static>(
        self,
        function: impl Fn(V) -> V2 + Send + Sync + 'static,
    ) -> Stream<'b, K, V2> {
        self.add_map_values(move |_, value| always(function(value)))
    }

    /// As [`Stream::map_values`], with a function that sees the key too.
    #[must_use]
    pub fn map_values_with_key<V2: Clone + 'static>(
        self,
        function: impl Fn(Option<&K>, V) -> V2 + Send + Sync + 'static,
    ) -> Stream<'b, K, V2> {
        self.add_map_values(move |key, value| always(function(key, value)))
    }

    /// As [`Stream::map_values`], with a function that can fail.
    #[must_use]
    pub fn try_map_values<V2: Clone + 'static, E: Display + 'static>(
        self,
        function: impl Fn(V) -> Result<V2, E> + Send + Sync + 'static,
    ) -> Stream<'b, K, V2> {
        self.add_map_values(move |_, value| function(value))
    }

    fn add_map_values<V2: Clone + 'static, E: Display + 'static>(
        self,
        function: impl Fn(Option<&K>, V) -> Result<V2, E> + Send + Sync + 'static,
    ) -> Stream<'b, K, V2> {
        let node = self.builder.add(self.unnamed("map-values"), move |linker, id| {
            Arc::new(MapValues {
                node: linker.node(id),
                function,
                next: linker.next(id),
            }) as Outlet<Record<K, V>>
        });
        Stream::new(self.builder, node, self.key_changed)
    }

    /// Replaces each value by any number of values, in order. A null value stays one null value.
    #[must_use]
    pub fn flat_map_values<V2: Clone + 'static, I>(
        self,
        function: impl Fn(V) -> I + Send + Sync + 'static,
    ) -> Stream<'b, K, V2>
    where
        I: IntoIterator<Item = V2> + 'static,
    {
        self.try_flat_map_values(move |value| always(function(value)))
    }

    /// As [`Stream::flat_map_values`], with a function that can fail.
    #[must_use]
    pub fn try_flat_map_values<V2: Clone + 'static, I, E: Display + 'static>(
        self,
        function: impl Fn(V) -> Result<I, E> + Send + Sync + 'static,
    ) -> Stream<'b, K, V2>
    where
        I: IntoIterator<Item = V2> + 'static,
    {
        let node = self.builder.add(self.unnamed("flat-map-values"), move |linker, id| {
            Arc::new(FlatMapValues {
                node: linker.node(id),
                function,
                next: linker.next(id),
            }) as Outlet<Record<K, V>>
        });
        Stream::new(self.builder, node, self.key_changed)
    }

    /// Keeps the records for which the function answers true.
    #[must_use]
    pub fn filter(self, function: impl Fn(&Record<K, V>) -> bool + Send + Sync + 'static) -> Self {
        self.add_filter("filter", true, move |record| always(function(record)))
    }

    /// Keeps the records for which the function answers false.
    #[must_use]
    pub fn filter_not(self, function: impl Fn(&Record<K, V>) -> bool + Send + Sync + 'static) -> Self {
        self.add_filter("filter-not", false, move |record| always(function(record)))
    }

    /// As [`Stream::filter`], with a function that can fail.
    #[must_use]
    pub fn try_filter<E: Display + 'static>(
        self,
        function: impl Fn(&Record<K, V>) -> Result<bool, E> + Send + Sync + 'static,
    ) -> Self {
        self.add_filter("filter", true, function)
    }

    fn add_filter<E: Display + 'static>(
        self,
        kind: &'static str,
        wanted: bool,
        function: impl Fn(&Record<K, V>) -> Result<bool, E> + Send + Sync + 'static,
    ) -> Self {
        let node = self.builder.add(self.unnamed(kind), move |linker, id| {
            Arc::new(Filter {
                node: linker.node(id),
                function,
                wanted,
                next: linker.next(id),
            }) as Outlet<Record<K, V>>
        });
        Stream::new(self.builder, node, self.key_changed)
    }

    /// Gives each record the key that the function answers; none for a null key. A later grouping or join goes through
    /// a repartition topic, which records without a key do not pass (unless a left join follows).
    #[must_use]
    pub fn select_key<K2: Clone + 'static, R>(
        self,
        function: impl Fn(&Record<K, V>) -> R + Send + Sync + 'static,
    ) -> Stream<'b, K2, V>
    where
        R: Into<Option<K2>>,
    {
        self.add_select_key(self.unnamed("select-key"), move |record| {
            always(function(record).into())
        })
    }

    /// As [`Stream::select_key`], with a function that can fail.
    #[must_use]
    pub fn try_select_key<K2: Clone + 'static, R, E: Display + 'static>(
        self,
        function: impl Fn(&Record<K, V>) -> Result<R, E> + Send + Sync + 'static,
    ) -> Stream<'b, K2, V>
    where
        R: Into<Option<K2>>,
    {
        self.add_select_key(self.unnamed("select-key"), move |record| {
            function(record).map(Into::into)
        })
    }

    fn add_select_key<K2: Clone + 'static, E: Display + 'static>(
        self,
        node: GraphNode,
        function: impl Fn(&Record<K, V>) -> Result<Option<K2>, E> + Send + Sync + 'static,
    ) -> Stream<'b, K2, V> {
        let node = self.builder.add(node, move |linker, id| {
            Arc::new(SelectKey {
                node: linker.node(id),
                function,
                next: linker.next(id),
            }) as Outlet<Record<K, V>>
        });
        Stream::new(self.builder, node, true)
    }

    /// Shows each record to the function and passes it on. For logging; effects outside the topology are repeated
    /// when records are processed again.
    #[must_use]
    pub fn peek(self, function: impl Fn(&Record<K, V>) + Send + Sync + 'static) -> Self {
        let node = self.builder.add(self.unnamed("peek"), move |linker, id| {
            Arc::new(Peek {
                function,
                next: linker.next(id),
            }) as Outlet<Record<K, V>>
        });
        Stream::new(self.builder, node, self.key_changed)
    }

    /// The records of both streams. Order is kept within each stream only.
    #[must_use]
    pub fn merge(self, other: Stream<'b, K, V>) -> Self {
        if !self.builder.check_same(other.builder, "merge") {
            return self;
        }
        let node = GraphNode::unnamed("merge", vec![self.node, other.node]);
        let node = self.builder.add(node, |linker, id| linker.next::<Record<K, V>>(id));
        Stream::new(self.builder, node, self.key_changed || other.key_changed)
    }

    /// Groups the records by their key. If the key may have changed they first go through a repartition topic that has
    /// the name of the store which the next operator is given.
    pub fn group_by_key(self) -> Grouped<'b, K, V>
    where
        K: DefaultKeyCodec,
        V: DefaultCodec,
    {
        Grouped::unnamed(self)
    }

    /// As [`Stream::group_by_key`], with a name for the repartition topic and, if they have no default, codecs.
    pub fn group_by_key_with(self, repartitioned: impl Into<Repartitioned<K, V>>) -> Grouped<'b, K, V> {
        Grouped::named(self, repartitioned.into())
    }

    /// Groups the records by the key that the function answers, through a repartition topic. Records for which it
    /// answers none are dropped there, uncounted as in Kafka Streams.
    pub fn group_by<K2: Clone + 'static, R>(
        self,
        repartitioned: impl Into<Repartitioned<K2, V>>,
        function: impl Fn(&Record<K, V>) -> R + Send + Sync + 'static,
    ) -> Grouped<'b, K2, V>
    where
        R: Into<Option<K2>>,
    {
        let repartitioned = repartitioned.into();
        let node = GraphNode::named(&repartitioned.name, "group-by", vec![self.node]);
        let keyed = self.add_select_key(node, move |record| always(function(record).into()));
        keyed.group_by_key_with(repartitioned)
    }

    /// Sends the records through a repartition topic, so that all records of a key come to one task.
    #[must_use]
    pub fn repartition(self, repartitioned: impl Into<Repartitioned<K, V>>) -> Self {
        let node = self.builder.add_repartition(self.node, repartitioned.into());
        Stream::new(self.builder, node, false)
    }

    /// The same records, through a repartition topic if the key may have changed.
    pub(crate) fn partitioned_by_key(self, repartitioned: Repartitioned<K, V>) -> Self {
        if self.key_changed {
            self.repartition(repartitioned)
        } else {
            self
        }
    }

    /// Makes a table of the stream: the latest value of each key. The name is the store's; the repartition topic, if
    /// one is needed, has it too.
    pub fn to_table(self, store: impl Into<Repartitioned<K, V>>) -> Table<'b, K, V> {
        let store = store.into();
        let topic = Topic {
            name: Arc::clone(&store.name),
            key: Arc::clone(&store.key),
            value: Arc::clone(&store.value),
            on_error: None,
            timestamp: None,
        };
        let keyed = self.partitioned_by_key(store);
        self.builder.add_table(keyed.node, &topic.name, "to-table", &topic)
    }

    /// Processes the records with logic of your own; see [`Processor`]. The key may change.
    #[must_use]
    pub fn process<P>(self, name: &str) -> Stream<'b, P::KeyOut, P::ValueOut>
    where
        P: Processor<KeyIn = K, ValueIn = V>,
    {
        self.process_with(name, P::declare)
    }

    /// As [`Stream::process`], for processors with parameters: the function makes the processor instead of
    /// [`Processor::declare`].
    #[must_use]
    pub fn process_with<P>(
        self,
        name: &str,
        make: impl FnOnce(&mut Declare<'_>) -> P,
    ) -> Stream<'b, P::KeyOut, P::ValueOut>
    where
        P: Processor<KeyIn = K, ValueIn = V>,
    {
        let mut declare = Declare::new(name);
        let processor = make(&mut declare);
        let timers = declare.timers;
        let stores = declare.stores.into_iter().map(|store| self.builder.add_store(store));
        let mut node = GraphNode::named(&name.into(), "process", vec![self.node]);
        node.stores = stores.collect();
        node.has_clock = timers.is_some();
        let node = self.builder.add(node, move |linker, id| {
            let parts = HostParts {
                node: linker.node(id),
                stores: linker.stores(id),
                timers,
                clock: linker.clock(id),
            };
            let host = Arc::new(Host {
                parts,
                processor,
                next: linker.next(id),
            });
            if timers.is_some() {
                linker.add_stateful(id, host.clone());
                linker.add_timed(id, host.clone());
            }
            host as Outlet<Record<K, V>>
        });
        Stream::new(self.builder, node, true)
    }

    /// Writes the records to a topic, each to the partition of its key.
    pub fn to(self, topic: &Topic<K, V>) {
        let topic_ref = TopicRef::External(Arc::clone(&topic.name));
        self.builder.add_sink(self.node, topic, topic_ref);
    }
}
