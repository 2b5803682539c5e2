//! Topics of the user, and names with codecs for what operators create themselves.

use std::fmt;
use std::sync::Arc;

use crate::codec::{Codec, DefaultCodec, DefaultKeyCodec, KeyCodec};
use crate::operators::{OnError, TimestampExtractor};
use crate::record::Record;
use crate::time::Millis;

pub(crate) type KeyCodecRef<K> = Arc<dyn KeyCodec<Item = K>>;
pub(crate) type ValueCodecRef<V> = Arc<dyn Codec<Item = V>>;

/// A topic of the user: its name, and how its records are coded.
///
/// ```
/// use tidegate::codec::{I64Be, Utf8};
/// use tidegate::operators::OnError;
/// use tidegate::topology::Topic;
///
/// let temperatures = Topic::new("temperatures", Utf8, I64Be).on_error(OnError::DeadLetter);
/// assert_eq!(temperatures.name(), "temperatures");
/// ```
pub struct Topic<K, V> {
    pub(crate) name: Arc<str>,
    pub(crate) key: KeyCodecRef<K>,
    pub(crate) value: ValueCodecRef<V>,
    pub(crate) on_error: Option<OnError>,
    pub(crate) timestamp: Option<TimestampExtractor<K, V>>,
}

impl<K: 'static, V: 'static> Topic<K, V> {
    /// A topic with these codecs.
    pub fn new(name: impl Into<Arc<str>>, key: impl KeyCodec<Item = K>, value: impl Codec<Item = V>) -> Self {
        Self {
            name: name.into(),
            key: Arc::new(key),
            value: Arc::new(value),
            on_error: None,
            timestamp: None,
        }
    }

    /// Name of the topic.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What to do with records of this topic that cannot be decoded, or encoded. Configuration can overrule it.
    #[must_use]
    pub fn on_error(mut self, policy: OnError) -> Self {
        self.on_error = Some(policy);
        self
    }

    /// Takes event time from the record instead of its timestamp, which the function finds in the record it is given.
    /// A record whose event time is negative is dropped and counted.
    #[must_use]
    pub fn timestamp(mut self, extractor: impl Fn(&Record<K, V>) -> Millis + Send + Sync + 'static) -> Self {
        self.timestamp = Some(Arc::new(extractor));
        self
    }

    pub(crate) fn codecs(&self) -> String {
        format!("{} -> {}", self.key.id(), self.value.id())
    }
}

impl<K, V> Clone for Topic<K, V> {
    fn clone(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            key: Arc::clone(&self.key),
            value: Arc::clone(&self.value),
            on_error: self.on_error,
            timestamp: self.timestamp.clone(),
        }
    }
}

impl<K: 'static, V: 'static> fmt::Debug for Topic<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({}: {})", self.name, self.codecs())
    }
}

/// Name and codecs of the repartition topic that a node may need: `<app>-<name>-repartition`.
///
/// Where key and value have default codecs, the name alone will do: wherever one of these is asked for, so is a `&str`.
///
/// ```
/// use tidegate::codec::{Json, Utf8};
/// use tidegate::topology::Repartitioned;
///
/// let plain: Repartitioned<String, i64> = "by-user".into();
/// let wide = Repartitioned::new("by-user", Utf8, Json::<Vec<u64>>::new()).partitions(12);
/// ```
pub struct Repartitioned<K, V> {
    pub(crate) name: Arc<str>,
    pub(crate) key: KeyCodecRef<K>,
    pub(crate) value: ValueCodecRef<V>,
    pub(crate) partitions: Option<i32>,
}

impl<K: 'static, V: 'static> Repartitioned<K, V> {
    /// A name with codecs.
    pub fn new(name: impl Into<Arc<str>>, key: impl KeyCodec<Item = K>, value: impl Codec<Item = V>) -> Self {
        Self {
            name: name.into(),
            key: Arc::new(key),
            value: Arc::new(value),
            partitions: None,
        }
    }

    /// Fixes the number of partitions. Without it the topic gets as many as the largest topic upstream has, or as the
    /// topics that it is joined with have.
    #[must_use]
    pub fn partitions(mut self, partitions: i32) -> Self {
        self.partitions = Some(partitions);
        self
    }
}

impl<K: DefaultKeyCodec, V: DefaultCodec> From<&str> for Repartitioned<K, V> {
    fn from(name: &str) -> Self {
        Self::new(name, K::Codec::default(), V::Codec::default())
    }
}

impl<K: DefaultKeyCodec, V: DefaultCodec> From<String> for Repartitioned<K, V> {
    fn from(name: String) -> Self {
        Self::from(name.as_str())
    }
}

/// Name and value codec of the store that a node keeps. The name is the node's name too; the store's changelog is
/// `<app>-<name>-changelog`.
///
/// Where the value has a default codec, the name alone will do: wherever one of these is asked for, so is a `&str`.
pub struct Materialized<V> {
    pub(crate) name: Arc<str>,
    pub(crate) value: ValueCodecRef<V>,
}

impl<V: 'static> Materialized<V> {
    /// A name with a codec.
    pub fn new(name: impl Into<Arc<str>>, value: impl Codec<Item = V>) -> Self {
        Self {
            name: name.into(),
            value: Arc::new(value),
        }
    }
}

impl<V: DefaultCodec> From<&str> for Materialized<V> {
    fn from(name: &str) -> Self {
        Self::new(name, V::Codec::default())
    }
}

impl<V: DefaultCodec> From<String> for Materialized<V> {
    fn from(name: String) -> Self {
        Self::from(name.as_str())
    }
}
