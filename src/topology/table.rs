//! Tables: the latest value of each key.

use super::Stream;
use super::builder::Builder;
use super::topic::{KeyCodecRef, ValueCodecRef};
use crate::operators::OnError;

/// The latest value of each key, kept in a store. Made from a topic, from a stream, or by an aggregation.
pub struct Table<'b, K, V> {
    pub(crate) builder: &'b Builder,
    pub(crate) node: usize,
    /// Index among the builder's stores.
    pub(crate) store: usize,
    /// Codecs of the store.
    pub(crate) key: KeyCodecRef<K>,
    pub(crate) value: ValueCodecRef<V>,
}

impl<'b, K: Clone + 'static, V: Clone + 'static> Table<'b, K, V> {
    /// The updates of the table, in order. A deleted row is a record without a value.
    pub fn to_stream(&self) -> Stream<'b, K, V> {
        Stream::new(self.builder, self.node, false)
    }

    /// What to do with records that fail in the operator that keeps this table. Configuration can overrule it.
    #[must_use]
    pub fn on_error(self, policy: OnError) -> Self {
        self.builder.set_on_error(self.node, policy);
        self
    }
}
