//! Grouped streams in windows, and the aggregations on them.

use std::sync::Arc;

use super::error::TopologyError;
use super::graph::GraphNode;
use super::topic::Materialized;
use super::{Grouped, Table};
use crate::codec::{Codec, Windowed};
use crate::operators::{DeclaredStore, Emit, Outlet, Rows, StartFirst, TumblingWindows, WindowedAggregate};
use crate::record::Record;

/// A stream grouped by key and window, to be aggregated.
///
/// Records without a key are dropped and counted. Records whose window has closed are late: dropped, and counted as
/// late. Records without a value are *not* dropped but handed to the function, as Kafka Streams does.
///
/// The result has the largest time among the records of its window, also when it is emitted on close; a topology that
/// wants the end of the window as the time sets it with [`map`](super::Stream::map).
///
/// ```
/// use std::time::Duration;
/// use tidegate::codec::{I64Be, Ignored, TimeWindowed, Utf8};
/// use tidegate::operators::{Emit, TumblingWindows};
/// use tidegate::topology::{Builder, Topic};
///
/// # fn main() -> Result<(), tidegate::topology::TopologyError> {
/// let minutes = TumblingWindows::of(Duration::from_secs(60)).grace(Duration::from_secs(5));
/// let builder = Builder::new();
/// builder
///     .stream(&Topic::new("clicks", Utf8, Ignored))
///     .group_by_key()
///     .windowed_by(minutes)
///     .emit(Emit::OnClose)
///     .count("clicks-per-minute")
///     .to_stream()
///     .to(&Topic::new("clicks-per-minute", TimeWindowed::new(Utf8, minutes.size_ms()), I64Be));
/// # builder.build()?;
/// # Ok(())
/// # }
/// ```
pub struct WindowedStream<'b, K, V> {
    grouped: Grouped<'b, K, V>,
    windows: TumblingWindows,
    emit: Emit,
}

impl<'b, K: Clone + 'static, V: Clone + 'static> WindowedStream<'b, K, V> {
    pub(crate) fn new(grouped: Grouped<'b, K, V>, windows: TumblingWindows) -> Self {
        Self {
            grouped,
            windows,
            emit: Emit::default(),
        }
    }

    /// When results come out; [`Emit::OnUpdate`] unless said otherwise.
    #[must_use]
    pub fn emit(mut self, emit: Emit) -> Self {
        self.emit = emit;
        self
    }

    /// The number of records per key and window.
    pub fn count(&self, store: impl Into<Materialized<i64>>) -> Table<'b, Windowed<K>, i64> {
        self.add_aggregate(store.into(), "windowed-count", |_, _, count| {
            Some(count.unwrap_or(0) + 1)
        })
    }

    /// Combines all values of a key and window: the first value is the result, each further one, which may be null, is
    /// combined with it. `None` from the function deletes the window's row, and so does a first null value: it comes
    /// out as a tombstone.
    pub fn reduce<R>(
        &self,
        store: impl Into<Materialized<V>>,
        function: impl Fn(V, Option<V>) -> R + Send + Sync + 'static,
    ) -> Table<'b, Windowed<K>, V>
    where
        R: Into<Option<V>>,
    {
        self.add_aggregate(
            store.into(),
            "windowed-reduce",
            move |_, value, reduced| match reduced {
                Some(reduced) => function(reduced, value).into(),
                None => value,
            },
        )
    }

    /// Folds all values of a key and window, null ones included, into an aggregate that starts with `initial()`. `None`
    /// from the function deletes the window's row; the next record starts anew.
    pub fn aggregate<A: Clone + 'static, R>(
        &self,
        store: impl Into<Materialized<A>>,
        initial: impl Fn() -> A + Send + Sync + 'static,
        function: impl Fn(&K, Option<V>, A) -> R + Send + Sync + 'static,
    ) -> Table<'b, Windowed<K>, A>
    where
        R: Into<Option<A>>,
    {
        self.add_aggregate(store.into(), "windowed-aggregate", move |key, value, aggregate| {
            function(key, value, aggregate.unwrap_or_else(&initial)).into()
        })
    }

    fn add_aggregate<A: Clone + 'static>(
        &self,
        store: Materialized<A>,
        kind: &'static str,
        fold: impl Fn(&K, Option<V>, Option<A>) -> Option<A> + Send + Sync + 'static,
    ) -> Table<'b, Windowed<K>, A> {
        let (windows, emit) = (self.windows, self.emit);
        let (stream, key) = self.grouped.keyed(&store.name);
        let builder = stream.builder;
        if windows.size_ms() < 1 {
            builder.report(TopologyError::InvalidParameter {
                node: store.name.to_string(),
                reason: "windows are at least one millisecond long".into(),
            });
        }
        let key: Arc<StartFirst<K>> = Arc::new(StartFirst {
            key: Arc::clone(key),
            size_ms: windows.size_ms(),
        });
        let index = builder.add_store(DeclaredStore {
            name: store.name.to_string(),
            ordered: true,
            codecs: format!("{} -> row of {}", key.id(), store.value.id()),
        });
        let mut node = GraphNode::named(&store.name, kind, vec![stream.node]);
        node.stores = vec![index];
        node.is_keyed = true;
        node.has_clock = true;
        node.parameters = vec![format!("size_ms={}", windows.size_ms())];
        node.settings = vec![format!("grace_ms={}", windows.grace_ms()), format!("emit={emit:?}")];
        let rows = Rows {
            key: key.clone(),
            value: Arc::clone(&store.value),
        };
        let node = builder.add(node, move |linker, id| {
            let operator = Arc::new(WindowedAggregate {
                node: linker.node(id),
                store: linker.store(id),
                rows,
                windows,
                emit,
                clock: linker.clock(id),
                fold,
                next: linker.next(id),
            });
            linker.add_stateful(id, operator.clone());
            operator as Outlet<Record<K, V>>
        });
        Table {
            builder,
            node,
            store: index,
            key,
            value: store.value,
        }
    }
}
