//! The few things that the ledger asks of Kafka directly.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::LedgerError;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A broker by its address.
#[derive(Clone, Debug)]
pub struct Cluster {
    bootstrap: String,
}

impl Cluster {
    /// The broker at `bootstrap`.
    pub fn new(bootstrap: impl Into<String>) -> Self {
        Self {
            bootstrap: bootstrap.into(),
        }
    }

    /// The address.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Settings of a client of this cluster.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config.set("log_level", "2");
        config
    }

    /// Creates topics with these names and partition counts.
    ///
    /// # Errors
    /// Where one exists already or the broker refuses.
    pub fn create_topics(&self, topics: &[(&str, i32)]) -> Result<(), LedgerError> {
        let new: Vec<NewTopic> = topics
            .iter()
            .map(|(name, partitions)| NewTopic::new(name, *partitions, TopicReplication::Fixed(1)))
            .collect();
        let admin = self.admin()?;
        let created = self.block_on(admin.create_topics(&new, &AdminOptions::new()))?;
        for result in created.map_err(|error| LedgerError::kafka("create topics", &error))? {
            result.map_err(|(topic, code)| LedgerError::kafka(&format!("create topic {topic}"), &code))?;
        }
        Ok(())
    }

    /// Deletes all topics whose names start with `prefix`. What cannot be deleted stays.
    ///
    /// # Errors
    /// Where the broker does not answer.
    pub fn delete_topics(&self, prefix: &str) -> Result<(), LedgerError> {
        let names = self.topics(prefix)?;
        if names.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
        let admin = self.admin()?;
        self.block_on(admin.delete_topics(&names, &AdminOptions::new()))?
            .map(drop)
            .map_err(|error| LedgerError::kafka("delete topics", &error))
    }

    /// Names and partition counts of the topics that start with `prefix`.
    ///
    /// # Errors
    /// Where the broker does not answer.
    pub fn topics(&self, prefix: &str) -> Result<Vec<(String, i32)>, LedgerError> {
        let consumer = self.reader("read_uncommitted")?;
        let metadata = consumer
            .fetch_metadata(None, REQUEST_TIMEOUT)
            .map_err(|error| LedgerError::kafka("list topics", &error))?;
        let matching = metadata
            .topics()
            .iter()
            .filter(|topic| topic.name().starts_with(prefix));
        Ok(matching
            .map(|topic| (topic.name().to_owned(), topic.partitions().len() as i32))
            .collect())
    }

    /// The high watermark of every partition of `topic`.
    ///
    /// # Errors
    /// Where the broker does not answer.
    pub fn ends(&self, topic: &str, partitions: i32) -> Result<Vec<i64>, LedgerError> {
        let consumer = self.reader("read_uncommitted")?;
        (0..partitions)
            .map(|partition| {
                consumer
                    .fetch_watermarks(topic, partition, REQUEST_TIMEOUT)
                    .map(|(_, high)| high)
                    .map_err(|error| LedgerError::kafka(&format!("read the end of {topic}-{partition}"), &error))
            })
            .collect()
    }

    /// A consumer that reads all partitions of some topics from their beginning.
    ///
    /// # Errors
    /// Where the client refuses its settings.
    pub fn reader_of(&self, isolation: &str, topics: &[(&str, i32)]) -> Result<BaseConsumer, LedgerError> {
        let consumer = self.reader(isolation)?;
        let mut assignment = TopicPartitionList::new();
        for (topic, partitions) in topics {
            for partition in 0..*partitions {
                assignment
                    .add_partition_offset(topic, partition, Offset::Beginning)
                    .map_err(|error| LedgerError::kafka("assign", &error))?;
            }
        }
        consumer
            .assign(&assignment)
            .map_err(|error| LedgerError::kafka("assign", &error))?;
        Ok(consumer)
    }

    fn reader(&self, isolation: &str) -> Result<BaseConsumer, LedgerError> {
        self.client()
            .set("group.id", "ledger-audit")
            .set("enable.auto.commit", "false")
            .set("isolation.level", isolation)
            .set("auto.offset.reset", "error")
            .set("fetch.queue.backoff.ms", "10")
            .create()
            .map_err(|error| LedgerError::kafka("make a consumer", &error))
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, LedgerError> {
        self.client()
            .create()
            .map_err(|error| LedgerError::kafka("make an admin client", &error))
    }

    fn block_on<F: Future>(&self, future: F) -> Result<F::Output, LedgerError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| LedgerError::io("start a runtime", error))?;
        Ok(runtime.block_on(future))
    }
}

/// Whether a consumer's position has reached the given ends of all partitions of the topics.
///
/// # Errors
/// Where the client does not know its positions.
pub fn has_reached(consumer: &BaseConsumer, ends: &[(String, Vec<i64>)]) -> Result<bool, LedgerError> {
    let positions = consumer
        .position()
        .map_err(|error| LedgerError::kafka("read positions", &error))?;
    let position = |topic: &str, partition: usize| {
        positions
            .find_partition(topic, partition as i32)
            .and_then(|element| element.offset().to_raw())
            .unwrap_or(-1)
    };
    Ok(ends.iter().all(|(topic, ends)| {
        let mut ends = ends.iter().enumerate();
        ends.all(|(partition, end)| *end == 0 || position(topic, partition) >= *end)
    }))
}
