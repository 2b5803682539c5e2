//! What the check asks of Kafka, by rdkafka's own consumer: the engine's client takes no part in the verdict.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tidegate::time::{Clock, SystemClock};

use super::CheckError;
use super::outputs::Committed;

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

    /// A consumer that reads committed records and sees where partitions end; `group` only for its committed offsets.
    fn consumer(&self, group: &str) -> Result<BaseConsumer, CheckError> {
        ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("log_level", "2")
            .create()
            .map_err(|error| CheckError::kafka("make a consumer", &error))
    }

    /// Names and partition counts of the topics whose names start with `prefix`.
    pub fn topics(&self, prefix: &str) -> Result<Vec<(String, i32)>, CheckError> {
        let metadata = self.consumer("flights-check")?.fetch_metadata(None, REQUEST_TIMEOUT);
        let metadata = metadata.map_err(|error| CheckError::kafka("list topics", &error))?;
        let matching = metadata
            .topics()
            .iter()
            .filter(|topic| topic.name().starts_with(prefix));
        Ok(matching
            .map(|topic| (topic.name().to_owned(), topic.partitions().len() as i32))
            .collect())
    }

    /// The end of every partition of `topic`, open transactions included.
    pub fn ends(&self, topic: &str, partitions: i32) -> Result<Vec<i64>, CheckError> {
        let consumer = self.consumer("flights-check")?;
        (0..partitions)
            .map(|partition| end(&consumer, topic, partition))
            .collect()
    }

    /// The committed records of `topic` from the given offset of each partition to its end.
    pub fn read(&self, topic: &str, from: &[i64]) -> Result<Vec<Committed>, CheckError> {
        let consumer = self.consumer("flights-check")?;
        let mut records = Vec::new();
        for (partition, offset) in (0..).zip(from) {
            read_partition(&consumer, topic, partition, *offset, &mut |record| {
                records.push(committed(topic, record)?);
                Ok(true)
            })?;
        }
        Ok(records)
    }
}

/// Looks whether a group has consumed topics to their ends.
pub struct Progress {
    group: BaseConsumer,
    reader: BaseConsumer,
}

impl Progress {
    /// Of `group`.
    pub fn of(cluster: &Cluster, group: &str) -> Result<Self, CheckError> {
        Ok(Self {
            group: cluster.consumer(group)?,
            reader: cluster.consumer("flights-check")?,
        })
    }

    /// The first partition that still has a record after its committed offset; `None` when there is none.
    ///
    /// Asked in the order given: once a topic is done, nothing more can come into the topics that are written from it.
    pub fn first_behind(&self, topics: &[(String, i32)]) -> Result<Option<String>, CheckError> {
        for (topic, partitions) in topics {
            let offsets = self.committed(topic, *partitions)?;
            for (partition, offset) in (0..).zip(offsets) {
                if self.has_more(topic, partition, offset)? {
                    return Ok(Some(format!("{topic}-{partition}")));
                }
            }
        }
        Ok(None)
    }

    fn committed(&self, topic: &str, partitions: i32) -> Result<Vec<i64>, CheckError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions - 1);
        let answer = self.group.committed_offsets(list, REQUEST_TIMEOUT);
        let answer = answer.map_err(|error| CheckError::kafka(format!("read committed offsets of {topic}"), &error))?;
        let offset = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
            Offset::Offset(offset) => offset,
            _ => 0,
        };
        Ok(answer.elements().iter().map(offset).collect())
    }

    /// Whether a record comes after `offset`. The end itself does not tell: markers of transactions take offsets too.
    fn has_more(&self, topic: &str, partition: i32, offset: i64) -> Result<bool, CheckError> {
        let watermarks = self.reader.fetch_watermarks(topic, partition, REQUEST_TIMEOUT);
        let (low, high) =
            watermarks.map_err(|error| CheckError::kafka(format!("read the end of {topic}-{partition}"), &error))?;
        let from = offset.max(low);
        if from >= high {
            return Ok(false);
        }
        let mut found = false;
        read_partition(&self.reader, topic, partition, from, &mut |_| {
            found = true;
            Ok(false)
        })?;
        Ok(found)
    }
}

fn end(consumer: &BaseConsumer, topic: &str, partition: i32) -> Result<i64, CheckError> {
    let watermarks = consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT);
    let (_, high) =
        watermarks.map_err(|error| CheckError::kafka(format!("read the end of {topic}-{partition}"), &error))?;
    Ok(high)
}

/// Calls `take` for each committed record until it answers false or the partition ends.
fn read_partition(
    consumer: &BaseConsumer,
    topic: &str,
    partition: i32,
    offset: i64,
    take: &mut dyn FnMut(&rdkafka::message::BorrowedMessage<'_>) -> Result<bool, CheckError>,
) -> Result<(), CheckError> {
    let failed = |error: &KafkaError| CheckError::kafka(format!("read {topic}-{partition}"), error);
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset(topic, partition, Offset::Offset(offset))
        .and_then(|()| consumer.assign(&assignment))
        .map_err(|error| failed(&error))?;
    let clock = SystemClock::default();
    let mut last_answer = clock.monotonic();
    loop {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(record)) => {
                last_answer = clock.monotonic();
                if !take(&record)? {
                    break;
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => break,
            // The client connects again by itself.
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AllBrokersDown))) => {}
            Some(Err(error)) => return Err(failed(&error)),
            None if clock.monotonic() - last_answer > REQUEST_TIMEOUT => {
                let reason = format!("no answer within {} s", REQUEST_TIMEOUT.as_secs());
                return Err(CheckError::kafka(format!("read {topic}-{partition}"), &reason));
            }
            None => {}
        }
    }
    consumer.unassign().map_err(|error| failed(&error))
}

fn committed(topic: &str, record: &rdkafka::message::BorrowedMessage<'_>) -> Result<Committed, CheckError> {
    let text = |bytes: Option<&[u8]>| -> Result<String, CheckError> {
        let at = format!("read {topic}-{}@{} as text", record.partition(), record.offset());
        let bytes = bytes.ok_or_else(|| CheckError::kafka(&at, &"key or value is null"))?;
        String::from_utf8(bytes.to_vec()).map_err(|error| CheckError::kafka(&at, &error))
    };
    Ok(Committed {
        partition: record.partition(),
        offset: record.offset(),
        timestamp_ms: record.timestamp().to_millis().unwrap_or(-1),
        key: text(record.key())?,
        value: text(record.payload())?,
    })
}
