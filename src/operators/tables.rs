//! Tables: the latest value per key, and streams joined with them.

use super::push::{NodeRef, Outlet, Push};
use super::rows::Rows;
use super::{Failure, Scope};
use crate::ids::StoreId;
use crate::record::Record;

/// Keeps the latest value per key and passes every update on; a null value deletes.
///
/// Updates are applied as they come, also out of order, as in Kafka Streams' unversioned tables.
pub(crate) struct TableUpdate<K, V> {
    pub(crate) node: NodeRef,
    pub(crate) store: StoreId,
    pub(crate) rows: Rows<K, V>,
    pub(crate) next: Outlet<Record<K, V>>,
}

impl<K: 'static, V: 'static> Push<Record<K, V>> for TableUpdate<K, V> {
    fn push(&self, record: Record<K, V>, scope: &mut Scope) -> Result<(), Failure> {
        let Some(key) = &record.key else {
            self.node.count_dropped(scope);
            return Ok(());
        };
        let written = self.rows.select(key, scope).and_then(|()| {
            self.rows
                .write(self.store, record.timestamp_ms, record.value.as_ref(), scope)
        });
        match written {
            Ok(()) => self.next.push(record, scope),
            Err(error) => error.settle(&self.node, scope),
        }
    }
}

/// Joins each record with the table's row of its key at that moment. The result has the record's time.
pub(crate) struct JoinTable<K, T, F, O> {
    pub(crate) node: NodeRef,
    pub(crate) store: StoreId,
    pub(crate) rows: Rows<K, T>,
    /// Whether a record without a key passes, joined with no row; else it is dropped.
    pub(crate) keep_null_keys: bool,
    /// Answers `None` where there is no result.
    pub(crate) join: F,
    pub(crate) next: Outlet<Record<K, O>>,
}

impl<K, V, T, F, O> Push<Record<K, V>> for JoinTable<K, T, F, O>
where
    K: 'static,
    T: 'static,
    F: Fn(V, Option<T>) -> Option<O> + Send + Sync,
{
    fn push(&self, record: Record<K, V>, scope: &mut Scope) -> Result<(), Failure> {
        let Record {
            key,
            value: Some(value),
            timestamp_ms,
            headers,
        } = record
        else {
            self.node.count_dropped(scope);
            return Ok(());
        };
        let row = match &key {
            Some(key) => match self.rows.read(self.store, key, scope) {
                Ok(row) => row.map(|row| row.value),
                Err(error) => return error.settle(&self.node, scope),
            },
            None if self.keep_null_keys => None,
            None => {
                self.node.count_dropped(scope);
                return Ok(());
            }
        };
        let Some(joined) = (self.join)(value, row) else {
            return Ok(());
        };
        let joined = Record {
            key,
            value: Some(joined),
            timestamp_ms,
            headers,
        };
        self.next.push(joined, scope)
    }
}
