//! State of processors: handles that are declared when the topology is built and hold no data themselves.

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use super::processor::{Context, ProcessError};
use super::rows::{Row, Rows};
use crate::codec::{Codec, CodecError, KeyCodec};

/// A store that a node asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeclaredStore {
    pub(crate) name: String,
    pub(crate) ordered: bool,
    pub(crate) codecs: String,
}

/// Takes a processor's declarations while the topology is built, so that stores and their topics are known before
/// the first record.
pub struct Declare<'a> {
    node: &'a str,
    pub(crate) stores: Vec<DeclaredStore>,
    pub(crate) timers: Option<usize>,
}

impl<'a> Declare<'a> {
    pub(crate) fn new(node: &'a str) -> Self {
        Self {
            node,
            stores: Vec::new(),
            timers: None,
        }
    }

    /// One value per key. The store is called `<node>-<name>`.
    pub fn value<K: 'static, V: 'static>(
        &mut self,
        name: &str,
        key: impl KeyCodec<Item = K>,
        value: impl Codec<Item = V>,
    ) -> ValueState<K, V> {
        ValueState(self.slot(name, false, key, value))
    }

    /// One value per key, with the keys in the order of their bytes, so that ranges can be read. The store is called
    /// `<node>-<name>`.
    pub fn map<K: 'static, V: 'static>(
        &mut self,
        name: &str,
        key: impl KeyCodec<Item = K>,
        value: impl Codec<Item = V>,
    ) -> MapState<K, V> {
        MapState(self.slot(name, true, key, value))
    }

    fn slot<K: 'static, V: 'static>(
        &mut self,
        name: &str,
        ordered: bool,
        key: impl KeyCodec<Item = K>,
        value: impl Codec<Item = V>,
    ) -> Slot<K, V> {
        self.declare_store(name, ordered, format!("{} -> row of {}", key.id(), value.id()));
        Slot {
            index: self.stores.len() - 1,
            rows: Rows {
                key: Arc::new(key),
                value: Arc::new(value),
            },
        }
    }

    pub(crate) fn declare_store(&mut self, name: &str, ordered: bool, codecs: String) {
        self.stores.push(DeclaredStore {
            name: format!("{}-{name}", self.node),
            ordered,
            codecs,
        });
    }
}

/// What a handle knows: which of its node's stores, and how to read it.
struct Slot<K, V> {
    index: usize,
    rows: Rows<K, V>,
}

impl<K: 'static, V: 'static> Slot<K, V> {
    fn get<KO, VO>(&self, cx: &mut Context<'_, KO, VO>, key: &K) -> Result<Option<V>, ProcessError> {
        let store = cx.store(self.index);
        let row = self.rows.read(store, key, cx.scope)?;
        Ok(row.map(|row| row.value))
    }

    fn set<KO, VO>(&self, cx: &mut Context<'_, KO, VO>, key: &K, value: Option<&V>) -> Result<(), ProcessError> {
        let store = cx.store(self.index);
        self.rows.select(key, cx.scope)?;
        Ok(self.rows.write(store, cx.timestamp_ms, value, cx.scope)?)
    }
}

/// One value per key. Declared with [`Declare::value`].
///
/// Each value is stored with the time of the record that set it.
pub struct ValueState<K, V>(Slot<K, V>);

impl<K: 'static, V: 'static> ValueState<K, V> {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`ProcessError`] where key or stored value cannot be coded, or the store fails.
    pub fn get<KO, VO>(&self, cx: &mut Context<'_, KO, VO>, key: &K) -> Result<Option<V>, ProcessError> {
        self.0.get(cx, key)
    }

    /// Sets the value of `key`.
    ///
    /// # Errors
    /// [`ProcessError`] where key or value cannot be coded.
    pub fn put<KO, VO>(&self, cx: &mut Context<'_, KO, VO>, key: &K, value: &V) -> Result<(), ProcessError> {
        self.0.set(cx, key, Some(value))
    }

    /// Deletes the value of `key`.
    ///
    /// # Errors
    /// [`ProcessError`] where the key cannot be coded.
    pub fn delete<KO, VO>(&self, cx: &mut Context<'_, KO, VO>, key: &K) -> Result<(), ProcessError> {
        self.0.set(cx, key, None)
    }
}

/// One value per key, in the order of the keys' bytes. Declared with [`Declare::map`].
///
/// Each value is stored with the time of the record that set it.
pub struct MapState<K, V>(Slot<K, V>);

impl<K: 'static, V: 'static> MapState<K, V> {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`ProcessError`] where key or stored value cannot be coded, or the store fails.
    pub fn get<KO, VO>(&self, cx: &mut Context<'_, KO, VO>, key: &K) -> Result<Option<V>, ProcessError> {
        self.0.get(cx, key)
    }

    /// Sets the value of `key`.
    ///
    /// # Errors
    /// [`ProcessError`] where key or value cannot be coded.
    pub fn put<KO, VO>(&self, cx: &mut Context<'_, KO, VO>, key: &K, value: &V) -> Result<(), ProcessError> {
        self.0.set(cx, key, Some(value))
    }

    /// Deletes the value of `key`.
    ///
    /// # Errors
    /// [`ProcessError`] where the key cannot be coded.
    pub fn delete<KO, VO>(&self, cx: &mut Context<'_, KO, VO>, key: &K) -> Result<(), ProcessError> {
        self.0.set(cx, key, None)
    }

    /// Calls `visit` for each entry whose key lies in `range`, in the order of the keys' bytes, until it answers false.
    ///
    /// # Errors
    /// [`ProcessError`] where a key or value cannot be coded, or the store fails.
    pub fn scan<KO, VO>(
        &self,
        cx: &mut Context<'_, KO, VO>,
        range: impl RangeBounds<K>,
        mut visit: impl FnMut(K, V) -> bool,
    ) -> Result<(), ProcessError> {
        let store = cx.store(self.0.index);
        let rows = &self.0.rows;
        let (from, to) = (range.start_bound(), range.end_bound());
        let super::Scope { state, scratch, .. } = &mut *cx.scope;
        encode_bound(&*rows.key, from, matches!(from, Bound::Excluded(_)), &mut scratch.key)?;
        encode_bound(&*rows.key, to, matches!(to, Bound::Included(_)), &mut scratch.value)?;
        if scratch.value.is_empty() && matches!(to, Bound::Excluded(_)) {
            return Ok(());
        }
        let mut failed = None;
        state.scan(store, &scratch.key, &scratch.value, &mut |key, row| {
            let decoded = rows.key.decode(key).and_then(|key| Ok((key, rows.decode(row)?)));
            match decoded {
                Ok((key, Row { value, .. })) => visit(key, value),
                Err(error) => {
                    failed = Some(error);
                    false
                }
            }
        })?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Writes the bytes of a bound to `out`: nothing if there is none, and the next larger key if `after`.
fn encode_bound<K: 'static>(
    codec: &dyn KeyCodec<Item = K>,
    bound: Bound<&K>,
    after: bool,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    out.clear();
    if let Bound::Included(key) | Bound::Excluded(key) = bound {
        codec.encode(key, out)?;
        if after {
            out.push(0);
        }
    }
    Ok(())
}
