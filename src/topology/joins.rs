//! Joining a stream with a table.

use std::sync::Arc;

use super::graph::GraphNode;
use super::topic::Repartitioned;
use super::{Stream, Table};
use crate::operators::{JoinTable, Outlet, Rows};
use crate::record::Record;

impl<'b, K: Clone + 'static, V: Clone + 'static> Stream<'b, K, V> {
    /// Joins each record with the row that the table has for its key at that moment; no row, no result. The result has
    /// the time and the headers of the record. Records without a key or a value are dropped and counted.
    ///
    /// Updates of the table cause no results. If the key may have changed, the stream goes through a repartition topic
    /// of that name; its partitions have to match the table's.
    #[must_use]
    pub fn join_table<T: Clone + 'static, O: Clone + 'static>(
        self,
        repartitioned: impl Into<Repartitioned<K, V>>,
        table: &Table<'b, K, T>,
        joiner: impl Fn(V, T) -> O + Send + Sync + 'static,
    ) -> Stream<'b, K, O> {
        let join = move |value, row: Option<T>| row.map(|row| joiner(value, row));
        self.add_join("join-table", false, repartitioned.into(), table, join)
    }

    /// As [`Stream::join_table`], but a record without a row is joined with `None`, and so is one without a key. Records
    /// without a key also pass the repartition topics before the join, which otherwise end them.
    #[must_use]
    pub fn left_join_table<T: Clone + 'static, O: Clone + 'static>(
        self,
        repartitioned: impl Into<Repartitioned<K, V>>,
        table: &Table<'b, K, T>,
        joiner: impl Fn(V, Option<T>) -> O + Send + Sync + 'static,
    ) -> Stream<'b, K, O> {
        let join = move |value, row| Some(joiner(value, row));
        self.add_join("left-join-table", true, repartitioned.into(), table, join)
    }

    fn add_join<T: Clone + 'static, O: Clone + 'static>(
        self,
        kind: &'static str,
        keep_null_keys: bool,
        repartitioned: Repartitioned<K, V>,
        table: &Table<'b, K, T>,
        join: impl Fn(V, Option<T>) -> Option<O> + Send + Sync + 'static,
    ) -> Stream<'b, K, O> {
        let name = Arc::clone(&repartitioned.name);
        let keyed = self.partitioned_by_key(repartitioned);
        let mut node = GraphNode::named(&name, kind, vec![keyed.node]);
        if self.builder.check_same(table.builder, &name) {
            node.stores = vec![table.store];
            node.joins_table = Some(table.node);
        }
        node.keeps_null_keys = keep_null_keys;
        let (key, value) = (Arc::clone(&table.key), Arc::clone(&table.value));
        let node = self.builder.add(node, move |linker, id| {
            Arc::new(JoinTable {
                node: linker.node(id),
                store: linker.store(id),
                rows: Rows { key, value },
                keep_null_keys,
                join,
                next: linker.next(id),
            }) as Outlet<Record<K, V>>
        });
        Stream::new(self.builder, node, false)
    }
}
