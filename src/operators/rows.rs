//! Rows of a store: a typed key, and a value with the event time at which it was last changed.
//!
//! A row's value is stored behind its time (8 bytes, big-endian), as in Kafka Streams' timestamped stores.

use std::sync::Arc;

use super::push::NodeRef;
use super::{Failure, Scope};
use crate::codec::{Codec, CodecError, KeyCodec};
use crate::ids::StoreId;
use crate::state::StateError;
use crate::time::Millis;

/// A stored value with its time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row<V> {
    pub(crate) timestamp_ms: Millis,
    pub(crate) value: V,
}

/// Why a row could not be read or written.
#[derive(Debug)]
pub(crate) enum RowError {
    /// Key or value has no bytes, or the stored bytes are not a row: the record is bad.
    Codec(CodecError),
    /// The store fails: the world is bad.
    State(StateError),
}

impl From<CodecError> for RowError {
    fn from(error: CodecError) -> Self {
        RowError::Codec(error)
    }
}

impl From<StateError> for RowError {
    fn from(error: StateError) -> Self {
        RowError::State(error)
    }
}

impl RowError {
    /// Lets the policy of `node` decide, where the record is to blame.
    pub(crate) fn settle(self, node: &NodeRef, scope: &mut Scope) -> Result<(), Failure> {
        match self {
            RowError::Codec(error) => node.bad(scope, &error),
            RowError::State(error) => Err(error.into()),
        }
    }
}

/// How the rows of a store are read and written. The encoded key stays in [`Scope::scratch`] between both.
pub(crate) struct Rows<K, V> {
    pub(crate) key: Arc<dyn KeyCodec<Item = K>>,
    pub(crate) value: Arc<dyn Codec<Item = V>>,
}

impl<K: 'static, V: 'static> Rows<K, V> {
    /// Reads the row of `key` and keeps the encoded key for [`Rows::write`].
    pub(crate) fn read(&self, store: StoreId, key: &K, scope: &mut Scope) -> Result<Option<Row<V>>, RowError> {
        self.select(key, scope)?;
        match scope.state.get(store, &scope.scratch.key)? {
            Some(bytes) => Ok(Some(self.decode(bytes)?)),
            None => Ok(None),
        }
    }

    /// Encodes `key` for [`Rows::write`].
    pub(crate) fn select(&self, key: &K, scope: &mut Scope) -> Result<(), RowError> {
        scope.scratch.key.clear();
        Ok(self.key.encode(key, &mut scope.scratch.key)?)
    }

    /// Writes the row of the key that was read or selected last; no value deletes it.
    pub(crate) fn write(
        &self,
        store: StoreId,
        timestamp_ms: Millis,
        value: Option<&V>,
        scope: &mut Scope,
    ) -> Result<(), RowError> {
        let Scope { state, scratch, .. } = scope;
        let Some(value) = value else {
            state.delete(store, &scratch.key);
            return Ok(());
        };
        scratch.value.clear();
        scratch.value.extend_from_slice(&timestamp_ms.to_be_bytes());
        self.value.encode(value, &mut scratch.value)?;
        state.put(store, &scratch.key, &scratch.value);
        Ok(())
    }

    /// Reads a row from its stored bytes.
    pub(crate) fn decode(&self, bytes: &[u8]) -> Result<Row<V>, CodecError> {
        decode_row(&*self.value, bytes)
    }
}

/// Reads a row whose value has `codec` from its stored bytes.
pub(crate) fn decode_row<C: Codec + ?Sized>(codec: &C, bytes: &[u8]) -> Result<Row<C::Item>, CodecError> {
    let Some((timestamp, value)) = bytes.split_first_chunk::<8>() else {
        return Err(CodecError::Decode {
            codec: format!("row of {}", codec.id()),
            bytes: bytes.len(),
            reason: "a row starts with 8 bytes of event time".into(),
        });
    };
    Ok(Row {
        timestamp_ms: Millis::from_be_bytes(*timestamp),
        value: codec.decode(value)?,
    })
}
