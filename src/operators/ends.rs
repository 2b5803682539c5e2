//! Where records come in from the log, and where they leave for it.

use std::sync::Arc;

use super::push::{NodeRef, Outlet, Push};
use super::{Failure, Scope};
use crate::codec::{Codec, CodecError, KeyCodec};
use crate::partitioner::partition_for;
use crate::record::{Headers, Record, RecordRef};
use crate::time::Millis;

/// Where a record's event time comes from.
pub type TimestampExtractor<K, V> = Arc<dyn Fn(&Record<K, V>) -> Millis + Send + Sync>;

/// Takes raw records of one topic.
pub trait Feed: Send + Sync {
    /// Decodes the record, gives it its time and passes it on.
    ///
    /// # Errors
    /// [`Failure`] of the source or of a node behind it.
    fn feed(&self, record: &RecordRef<'_>, headers: Headers, scope: &mut Scope) -> Result<(), Failure>;

    /// The event time that the record will have, without processing it. Costs a decoding only where the topic has
    /// an extractor of its own; a record that does not decode keeps the log's timestamp.
    fn event_time_ms(&self, record: &RecordRef<'_>, headers: Headers) -> Millis;
}

/// Reads a topic.
pub(crate) struct Source<K, V> {
    pub(crate) node: NodeRef,
    pub(crate) key: Arc<dyn KeyCodec<Item = K>>,
    pub(crate) value: Arc<dyn Codec<Item = V>>,
    pub(crate) timestamp: Option<TimestampExtractor<K, V>>,
    pub(crate) next: Outlet<Record<K, V>>,
}

impl<K: 'static, V: 'static> Source<K, V> {
    fn decode(&self, record: &RecordRef<'_>, headers: Headers) -> Result<Record<K, V>, CodecError> {
        let mut decoded = Record {
            key: record.key.map(|bytes| self.key.decode(bytes)).transpose()?,
            value: record.value.map(|bytes| self.value.decode(bytes)).transpose()?,
            timestamp_ms: record.timestamp_ms,
            headers,
        };
        if let Some(timestamp) = &self.timestamp {
            decoded.timestamp_ms = timestamp(&decoded);
        }
        Ok(decoded)
    }
}

impl<K: 'static, V: 'static> Feed for Source<K, V> {
    fn feed(&self, record: &RecordRef<'_>, headers: Headers, scope: &mut Scope) -> Result<(), Failure> {
        let record = match self.decode(record, headers) {
            Ok(record) => record,
            Err(error) => return self.node.bad(scope, &error),
        };
        if record.timestamp_ms < 0 {
            self.node.count_dropped(scope);
            return Ok(());
        }
        scope.stream_time_ms = scope.stream_time_ms.max(record.timestamp_ms);
        self.next.push(record, scope)
    }

    fn event_time_ms(&self, record: &RecordRef<'_>, headers: Headers) -> Millis {
        if self.timestamp.is_none() {
            return record.timestamp_ms;
        }
        self.decode(record, headers)
            .map_or(record.timestamp_ms, |decoded| decoded.timestamp_ms)
    }
}

/// Writes a topic.
pub(crate) struct Sink<K, V> {
    pub(crate) node: NodeRef,
    /// Index among the sub-topology's sinks.
    pub(crate) sink: u16,
    pub(crate) key: Arc<dyn KeyCodec<Item = K>>,
    pub(crate) value: Arc<dyn Codec<Item = V>>,
    /// Whether records without a key are dropped, as before a repartition topic. Kafka Streams does not count them.
    pub(crate) drop_null_keys: bool,
}

impl<K: 'static, V: 'static> Push<Record<K, V>> for Sink<K, V> {
    fn push(&self, record: Record<K, V>, scope: &mut Scope) -> Result<(), Failure> {
        if self.drop_null_keys && record.key.is_none() {
            return Ok(());
        }
        let partitions = scope.sink_partitions.get(self.sink as usize).copied().unwrap_or(1);
        let unkeyed = scope.partition % partitions.max(1);
        let written = scope.outbox.push_with(
            self.sink,
            record.timestamp_ms,
            record.headers,
            |out| encode(&*self.key, record.key.as_ref(), out),
            |out| encode(&*self.value, record.value.as_ref(), out),
            |key| key.map_or(unkeyed, |key| partition_for(self.key.partition_bytes(key), partitions)),
        );
        written.or_else(|error: CodecError| self.node.bad(scope, &error))
    }
}

fn encode<C: Codec + ?Sized>(codec: &C, item: Option<&C::Item>, out: &mut Vec<u8>) -> Result<Option<()>, CodecError> {
    item.map(|item| codec.encode(item, out)).transpose()
}
