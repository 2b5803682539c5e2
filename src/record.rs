//! Records: typed ones that flow between nodes, and borrowed ones as the log lends them.

use std::sync::Arc;

use crate::time::Millis;

/// A typed record on its way through a topology.
///
/// Key and value are optional as in Kafka: a missing value is a tombstone to a table, a missing key
/// belongs to no table row. Headers travel with the record, as in Kafka Streams.
#[derive(Clone, Debug, PartialEq)]
pub struct Record<K, V> {
    /// The key; `None` where the log holds a null key.
    pub key: Option<K>,
    /// The value; `None` where the log holds a null value.
    pub value: Option<V>,
    /// Event time in milliseconds since the Unix epoch; never negative inside a topology.
    pub timestamp_ms: Millis,
    /// The headers of the record; cheap to clone.
    pub headers: Headers,
}

impl<K, V> Record<K, V> {
    /// A record with key and value and without headers.
    pub fn new(key: K, value: V, timestamp_ms: Millis) -> Self {
        Self {
            key: Some(key),
            value: Some(value),
            timestamp_ms,
            headers: Headers::default(),
        }
    }

    /// The same record with another key.
    pub fn with_key<K2>(self, key: Option<K2>) -> Record<K2, V> {
        Record {
            key,
            value: self.value,
            timestamp_ms: self.timestamp_ms,
            headers: self.headers,
        }
    }

    /// The same record with another value.
    pub fn with_value<V2>(self, value: Option<V2>) -> Record<K, V2> {
        Record {
            key: self.key,
            value,
            timestamp_ms: self.timestamp_ms,
            headers: self.headers,
        }
    }
}

/// One header: a name, and bytes that may be null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Name of the header; names may repeat within a record.
    pub name: Arc<str>,
    /// Value of the header.
    pub value: Option<Vec<u8>>,
}

/// The headers of a record, in order. No headers costs no allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Option<Arc<Vec<Header>>>);

impl Headers {
    /// Headers from a list, in order.
    pub fn new(list: Vec<Header>) -> Self {
        Self((!list.is_empty()).then(|| Arc::new(list)))
    }

    /// All headers in order.
    pub fn as_slice(&self) -> &[Header] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    /// The value of the last header of that name, as Kafka's `lastHeader` does.
    pub fn last(&self, name: &str) -> Option<&Header> {
        self.as_slice().iter().rev().find(|header| &*header.name == name)
    }

    /// Appends a header; other records that share these headers keep theirs.
    pub fn push(&mut self, name: impl Into<Arc<str>>, value: Option<Vec<u8>>) {
        let list = self.0.get_or_insert_with(Default::default);
        Arc::make_mut(list).push(Header {
            name: name.into(),
            value,
        });
    }
}

/// A record as the log lends it: the bytes stay in the fetch buffer until the batch is dropped.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    /// Offset in the partition.
    pub offset: i64,
    /// Timestamp in milliseconds, [`crate::time::NO_TIMESTAMP`] when absent.
    pub timestamp_ms: Millis,
    /// Raw key; `None` is Kafka's null.
    pub key: Option<&'a [u8]>,
    /// Raw value; `None` is Kafka's null.
    pub value: Option<&'a [u8]>,
}
