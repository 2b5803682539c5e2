//! The entries of one store, for backends that keep them in memory.

use std::collections::BTreeMap;
use std::ops::Bound;

/// The entries of a store in memory, in order of their keys.
pub(crate) type Entries = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// Copies the value of `key` to `out`, as [`StateBackend::get`](super::StateBackend::get) does.
pub(crate) fn get(entries: &Entries, key: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    let value = entries.get(key);
    out.extend_from_slice(value.map(|value| &**value).unwrap_or_default());
    value.is_some()
}

/// Visits a range, as [`StateBackend::scan`](super::StateBackend::scan) does.
pub(crate) fn scan(entries: &Entries, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
    let upper = match to {
        [] => Bound::Unbounded,
        to if from >= to => return,
        to => Bound::Excluded(to),
    };
    for (key, value) in entries.range::<[u8], _>((Bound::Included(from), upper)) {
        if !visit(key, value) {
            break;
        }
    }
}

/// Sets or deletes a value; answers what was there.
pub(crate) fn put(entries: &mut Entries, key: &[u8], value: Option<&[u8]>) -> Option<Box<[u8]>> {
    match value {
        Some(value) => entries.insert(key.into(), value.into()),
        None => entries.remove(key),
    }
}

/// Bytes of all keys and values.
pub(crate) fn size_bytes(stores: &[Entries]) -> u64 {
    let entries = stores.iter().flatten();
    entries.map(|(key, value)| (key.len() + value.len()) as u64).sum()
}
