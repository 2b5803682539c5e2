//! Rows of stores on their way from one place to another.

use std::sync::Arc;

use crate::ids::{Lineage, StoreId};
use crate::log::BatchSource;
use crate::state::{SortedIncrement, StateBackend, StateMeta, StateResult};

/// Rows go on in batches of about this size.
const BATCH_BYTES: usize = 4 << 20;

/// Rows of one store in ascending order of keys.
pub(super) struct Rows {
    pub(super) store: StoreId,
    pub(super) rows: Vec<(Vec<u8>, Vec<u8>)>,
}

impl SortedIncrement for Rows {
    fn for_each(&self, visit: &mut dyn FnMut(StoreId, &[u8], Option<&[u8]>)) {
        for (key, value) in &self.rows {
            visit(self.store, key, Some(value));
        }
    }
}

/// Rows, or other records, for one partition of a topic.
impl BatchSource for Rows {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn for_each(&self, visit: &mut dyn FnMut(&[u8], Option<&[u8]>)) {
        for (key, value) in &self.rows {
            visit(key, Some(value));
        }
    }
}

/// Hands on all rows of a store, in batches.
pub(super) fn for_each_batch<E: From<crate::state::StateError>>(
    backend: &Arc<dyn StateBackend>,
    store: StoreId,
    take: &mut dyn FnMut(Rows) -> Result<(), E>,
) -> Result<(), E> {
    let mut from = Vec::new();
    loop {
        let mut rows: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut bytes = 0;
        backend.scan(store, &from, &[], &mut |key, value| {
            bytes += key.len() + value.len();
            rows.push((key.to_vec(), value.to_vec()));
            bytes < BATCH_BYTES
        })?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        // The least key after it.
        from = [&last[..], &[0]].concat();
        take(Rows { store, rows })?;
    }
}

/// Writes rows into a database that is not complete yet. Its lineage is another one each time, so that nobody takes it for something that it is not.
pub(super) fn apply(backend: &Arc<dyn StateBackend>, rows: &Rows, number: u64, meta: &StateMeta) -> StateResult<()> {
    let unfinished = StateMeta {
        lineage: Lineage(!meta.lineage.0 ^ number),
        ..meta.clone()
    };
    backend.apply(rows, &unfinished)
}
