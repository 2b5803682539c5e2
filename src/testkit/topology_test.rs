//! The simple case: one instance, one partition, nothing happens.

use std::sync::Arc;
use std::time::Duration;

use crate::record::Record;
use crate::time::Millis;
use crate::topology::{Topic, Topology};

use super::cluster::TestCluster;

/// Runs a topology on one partition: each record that is piped in is worked off, and committed, before the call returns.
///
/// ```
/// use tidegate::codec::{I64Be, Utf8};
/// use tidegate::testkit::TopologyTest;
/// use tidegate::topology::{Builder, Topic};
///
/// let words = Topic::new("words", Utf8, Utf8);
/// let counts = Topic::new("counts", Utf8, I64Be);
/// let builder = Builder::new();
/// builder.stream(&words).group_by_key().count("count").to_stream().to(&counts);
///
/// let mut test = TopologyTest::new(builder.build()?);
/// test.pipe(&words, "rain".to_owned(), "x".to_owned(), 0);
/// test.pipe(&words, "rain".to_owned(), "y".to_owned(), 5);
/// assert_eq!(test.read(&counts), [(Some("rain".to_owned()), Some(1)), (Some("rain".to_owned()), Some(2))]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Class of the same use in Kafka Streams: `TopologyTestDriver`.
#[derive(Debug)]
pub struct TopologyTest(TestCluster);

impl TopologyTest {
    /// A topology on one partition of each topic.
    pub fn new(topology: impl Into<Arc<Topology>>) -> Self {
        Self(TestCluster::new(topology))
    }

    /// Pipes a record in. `timestamp_ms` is its time since the Unix epoch.
    ///
    /// # Panics
    /// Where the topology fails, with the error that an instance would stop with.
    pub fn pipe<K: 'static, V: 'static>(&mut self, topic: &Topic<K, V>, key: K, value: V, timestamp_ms: Millis) {
        self.pipe_record(topic, Record::new(key, value, timestamp_ms));
    }

    /// Pipes a record in that may lack key or value, or have headers.
    ///
    /// # Panics
    /// As [`pipe`](Self::pipe).
    pub fn pipe_record<K: 'static, V: 'static>(&mut self, topic: &Topic<K, V>, record: Record<K, V>) {
        self.0.pipe(topic, record);
        self.0.settle();
    }

    /// Keys and values that came out to a topic since this was last asked.
    pub fn read<K: 'static, V: 'static>(&mut self, topic: &Topic<K, V>) -> Vec<(Option<K>, Option<V>)> {
        let records = self.read_records(topic).into_iter();
        records.map(|record| (record.key, record.value)).collect()
    }

    /// The same with time and headers.
    pub fn read_records<K: 'static, V: 'static>(&mut self, topic: &Topic<K, V>) -> Vec<Record<K, V>> {
        self.0.read(topic)
    }

    /// Lets processing time pass.
    pub fn advance(&mut self, by: Duration) {
        self.0.advance(by);
    }
}
