//! Grouped streams, and the aggregations on them.

use std::sync::Arc;

use super::graph::GraphNode;
use super::topic::{KeyCodecRef, Materialized, Repartitioned};
use super::windowed::WindowedStream;
use super::{Stream, Table};
use crate::codec::{DefaultCodec, DefaultKeyCodec};
use crate::operators::{Aggregate, DeclaredStore, Outlet, Rows, TumblingWindows};
use crate::record::Record;

/// A stream grouped by key, to be aggregated. Aggregations drop and count records without a key or a value.
///
/// Each aggregation is given the name of its store, which is its node's name too. The result is a table whose rows have
/// the largest time among their records.
pub struct Grouped<'b, K, V> {
    stream: Stream<'b, K, V>,
    key: KeyCodecRef<K>,
    /// Makes the repartition topic of a stream whose key has changed, under the name of the store.
    repartitioned: Repartition<'b, K, V>,
}

type Repartition<'b, K, V> = fn(&str, Stream<'b, K, V>) -> Stream<'b, K, V>;

impl<K, V> Clone for Grouped<'_, K, V> {
    fn clone(&self) -> Self {
        Self {
            stream: self.stream,
            key: Arc::clone(&self.key),
            repartitioned: self.repartitioned,
        }
    }
}

impl<'b, K: Clone + 'static, V: Clone + 'static> Grouped<'b, K, V> {
    pub(crate) fn unnamed(stream: Stream<'b, K, V>) -> Self
    where
        K: DefaultKeyCodec,
        V: DefaultCodec,
    {
        Self {
            stream,
            key: Arc::new(K::Codec::default()),
            repartitioned: |name, stream| stream.partitioned_by_key(name.into()),
        }
    }

    pub(crate) fn named(stream: Stream<'b, K, V>, repartitioned: Repartitioned<K, V>) -> Self {
        let key = Arc::clone(&repartitioned.key);
        Self {
            stream: stream.partitioned_by_key(repartitioned),
            key,
            repartitioned: |_, stream| stream,
        }
    }

    /// The stream with all records of a key in one task, and the codec of its keys; for the store `store`.
    pub(crate) fn keyed(&self, store: &str) -> (Stream<'b, K, V>, &KeyCodecRef<K>) {
        ((self.repartitioned)(store, self.stream), &self.key)
    }

    /// The number of records per key.
    pub fn count(&self, store: impl Into<Materialized<i64>>) -> Table<'b, K, i64> {
        self.add_aggregate(store.into(), "count", |_, _, count| Some(count.unwrap_or(0) + 1))
    }

    /// Combines all values of a key: the first value is the result, each further one is combined with it. `None` from
    /// the function deletes the row.
    pub fn reduce<R>(
        &self,
        store: impl Into<Materialized<V>>,
        function: impl Fn(V, V) -> R + Send + Sync + 'static,
    ) -> Table<'b, K, V>
    where
        R: Into<Option<V>>,
    {
        self.add_aggregate(store.into(), "reduce", move |_, value, reduced| match reduced {
            Some(reduced) => function(reduced, value).into(),
            None => Some(value),
        })
    }

    /// Folds all values of a key into an aggregate that starts with `initial()`. `None` from the function deletes the
    /// row; the next record starts anew.
    pub fn aggregate<A: Clone + 'static, R>(
        &self,
        store: impl Into<Materialized<A>>,
        initial: impl Fn() -> A + Send + Sync + 'static,
        function: impl Fn(&K, V, A) -> R + Send + Sync + 'static,
    ) -> Table<'b, K, A>
    where
        R: Into<Option<A>>,
    {
        self.add_aggregate(store.into(), "aggregate", move |key, value, aggregate| {
            function(key, value, aggregate.unwrap_or_else(&initial)).into()
        })
    }

    fn add_aggregate<A: Clone + 'static>(
        &self,
        store: Materialized<A>,
        kind: &'static str,
        fold: impl Fn(&K, V, Option<A>) -> Option<A> + Send + Sync + 'static,
    ) -> Table<'b, K, A> {
        let builder = self.stream.builder;
        let (stream, key) = self.keyed(&store.name);
        let index = builder.add_store(DeclaredStore {
            name: store.name.to_string(),
            ordered: false,
            codecs: format!("{} -> row of {}", key.id(), store.value.id()),
        });
        let mut node = GraphNode::named(&store.name, kind, vec![stream.node]);
        node.stores = vec![index];
        node.is_keyed = true;
        let rows = Rows {
            key: Arc::clone(key),
            value: Arc::clone(&store.value),
        };
        let node = builder.add(node, move |linker, id| {
            Arc::new(Aggregate {
                node: linker.node(id),
                store: linker.store(id),
                rows,
                fold,
                next: linker.next(id),
            }) as Outlet<Record<K, V>>
        });
        Table {
            builder,
            node,
            store: index,
            key: Arc::clone(key),
            value: store.value,
        }
    }

    /// Aggregates per window instead of over all time. Results come out at every update; see
    /// [`WindowedStream::emit`].
    pub fn windowed_by(&self, windows: TumblingWindows) -> WindowedStream<'b, K, V> {
        WindowedStream::new(self.clone(), windows)
    }
}
