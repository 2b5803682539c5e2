//! Aggregates over all records of a key.

use super::push::{NodeRef, Outlet, Push};
use super::rows::{Row, Rows};
use super::{Failure, Scope};
use crate::ids::StoreId;
use crate::record::Record;

/// Folds the values of each key into one aggregate and passes every new aggregate on.
///
/// A record without key or value is dropped and counted. The aggregate's time is the largest among its records.
/// Where the fold answers `None` the aggregate is deleted, and a tombstone passed on.
pub(crate) struct Aggregate<K, A, F> {
    pub(crate) node: NodeRef,
    pub(crate) store: StoreId,
    pub(crate) rows: Rows<K, A>,
    /// Gets key, value and the aggregate so far (`None` at first).
    pub(crate) fold: F,
    pub(crate) next: Outlet<Record<K, A>>,
}

impl<K, V, A, F> Push<Record<K, V>> for Aggregate<K, A, F>
where
    K: 'static,
    A: 'static,
    F: Fn(&K, V, Option<A>) -> Option<A> + Send + Sync,
{
    fn push(&self, record: Record<K, V>, scope: &mut Scope) -> Result<(), Failure> {
        let Record {
            key: Some(key),
            value: Some(value),
            timestamp_ms,
            headers,
        } = record
        else {
            self.node.count_dropped(scope);
            return Ok(());
        };
        let (timestamp_ms, before) = match self.rows.read(self.store, &key, scope) {
            Ok(None) => (timestamp_ms, None),
            Ok(Some(Row {
                timestamp_ms: stored_ms,
                value,
            })) => (timestamp_ms.max(stored_ms), Some(value)),
            Err(error) => return error.settle(&self.node, scope),
        };
        let after = (self.fold)(&key, value, before);
        if let Err(error) = self.rows.write(self.store, timestamp_ms, after.as_ref(), scope) {
            return error.settle(&self.node, scope);
        }
        let update = Record {
            key: Some(key),
            value: after,
            timestamp_ms,
            headers,
        };
        self.next.push(update, scope)
    }
}
