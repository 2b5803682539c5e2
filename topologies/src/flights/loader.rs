//! The loader: replays a data set into the topics that the topology reads.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tidegate::errors::Coded;
use tidegate::ids::TopicPartition;
use tidegate::log::{Commit, Log, LogError, OutRecord, OutTopic, Producer, TopicSpec};
use tidegate::partitioner::partition_for;
use tidegate::record::Headers;
use tidegate::time::Millis;

use super::dataset::Dataset;
use super::topics;

/// Records in flight before the loader waits for their acknowledgements, and reports how far it is.
pub const CHUNK_RECORDS: usize = 5_000;

/// Why the data set could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// An input topic has records already; loading again would count flights twice.
    #[error(
        "topic {topic} holds records already; delete it (and the application's state) first, or run on what is there"
    )]
    NotEmpty {
        /// The topic.
        topic: String,
    },
    /// A topic exists with another number of partitions.
    #[error("topic {topic} has {found} partitions, and {wanted} were asked for; delete it first, or ask for {found}")]
    PartitionsDiffer {
        /// The topic.
        topic: String,
        /// Partitions it has.
        found: i32,
        /// Partitions asked for.
        wanted: i32,
    },
    /// A row has no JSON form.
    #[error("a row for topic {topic} cannot be written as JSON: {reason}; report it, this is a defect")]
    Encode {
        /// The topic.
        topic: String,
        /// What the encoder says.
        reason: String,
    },
    /// The log does not do as asked.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Coded for LoadError {
    fn code(&self) -> &'static str {
        match self {
            LoadError::NotEmpty { .. } => "TG5104",
            LoadError::PartitionsDiffer { .. } => "TG5105",
            LoadError::Encode { .. } => "TG5106",
            LoadError::Log(error) => error.code(),
        }
    }
}

/// How to load.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Partitions of every topic that does not exist yet.
    pub partitions: i32,
    /// Whether to go on where an earlier load ended, which was killed perhaps. That takes a log that keeps what one
    /// producer sends in the order in which it was sent, over all topics: the embedded one.
    pub resume: bool,
    /// Longest wait for the log to answer a call or to acknowledge [`CHUNK_RECORDS`] records.
    pub timeout: Duration,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            partitions: 1,
            resume: false,
            timeout: Duration::from_secs(60),
        }
    }
}

/// Creates the topics of the flights topology, inputs and outputs, where they do not exist.
///
/// Flights carry timestamps of 2013, so their topics are kept without a limit in time: the broker's default
/// retention of a week would delete them at once.
///
/// # Errors
/// [`LoadError::PartitionsDiffer`], [`LoadError::Log`].
pub fn create_topics(log: &dyn Log, options: &LoadOptions) -> Result<(), LoadError> {
    let admin = log.admin();
    for name in topics::ALL {
        let setting = match name {
            topics::PLANES => ("cleanup.policy", "compact"),
            _ => ("retention.ms", "-1"),
        };
        let spec = TopicSpec {
            name: Arc::from(name),
            partitions: options.partitions,
            replication: None,
            config: vec![(setting.0.to_owned(), setting.1.to_owned())],
        };
        match admin.create_topic(&spec, options.timeout) {
            Ok(()) | Err(LogError::TopicExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let found = admin.topic(name, options.timeout)?.map_or(0, |topic| topic.partitions);
        if found != options.partitions {
            return Err(LoadError::PartitionsDiffer {
                topic: name.to_owned(),
                found,
                wanted: options.partitions,
            });
        }
    }
    Ok(())
}

/// Writes all planes and then all flights in order of their schedule. Calls `progress` with the number of records
/// that the log has acknowledged. The topics must exist ([`create_topics`]) and the inputs be empty, unless
/// [`LoadOptions::resume`] is set.
///
/// # Errors
/// [`LoadError::NotEmpty`], [`LoadError::Log`].
pub fn load(
    log: &dyn Log,
    data: &Dataset,
    options: &LoadOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<(), LoadError> {
    let mut there = 0;
    for topic in topics::INPUTS {
        there += records_of(log, topic, options)?;
    }
    let mut producer = log.producer("flights-loader", None)?;
    producer.init(options.timeout)?;
    let names: Vec<Arc<str>> = topics::INPUTS.map(Arc::from).to_vec();
    let partitions = producer.prepare(&names)?;
    producer.begin()?;
    let mut writer = Writer {
        producer,
        partitions,
        timeout: options.timeout,
        value: Vec::new(),
        written: there,
        progress,
    };
    for plane in data.planes.iter().skip(there) {
        writer.write(PLANES, &plane.tailnum, plane, 0)?;
    }
    writer.flush()?;
    for row in data.flights.iter().skip(there.saturating_sub(data.planes.len())) {
        writer.write(FLIGHTS, &row.flight.origin, &row.flight, row.event_time_ms())?;
    }
    writer.flush()
}

/// Index of the flights topic in [`topics::INPUTS`].
const FLIGHTS: usize = 0;
/// Index of the planes topic in [`topics::INPUTS`].
const PLANES: usize = 1;

/// Number of records that an earlier load has left in a topic; refuses any unless it shall go on.
fn records_of(log: &dyn Log, topic: &str, options: &LoadOptions) -> Result<usize, LoadError> {
    let mut records = 0;
    for partition in 0..options.partitions {
        let partition = TopicPartition::new(topic, partition);
        let watermarks = log.admin().watermarks(&partition, options.timeout)?;
        records += watermarks.high as usize;
        if records > 0 && !options.resume {
            return Err(LoadError::NotEmpty {
                topic: topic.to_owned(),
            });
        }
    }
    Ok(records)
}

/// Sends rows as JSON and waits for acknowledgements every [`CHUNK_RECORDS`].
struct Writer<'a> {
    producer: Box<dyn Producer>,
    partitions: Vec<i32>,
    timeout: Duration,
    value: Vec<u8>,
    written: usize,
    progress: &'a mut dyn FnMut(usize),
}

impl Writer<'_> {
    fn write(&mut self, topic: usize, key: &str, row: &impl Serialize, timestamp_ms: Millis) -> Result<(), LoadError> {
        self.value.clear();
        serde_json::to_writer(&mut self.value, row).map_err(|error| LoadError::Encode {
            topic: topics::INPUTS[topic].to_owned(),
            reason: error.to_string(),
        })?;
        if let Err(LogError::QueueFull) = self.send(topic, key, timestamp_ms) {
            self.flush()?;
            self.send(topic, key, timestamp_ms)?;
        }
        self.written += 1;
        if self.written.is_multiple_of(CHUNK_RECORDS) {
            self.flush()?;
        }
        Ok(())
    }

    fn send(&mut self, topic: usize, key: &str, timestamp_ms: Millis) -> Result<(), LogError> {
        let record = OutRecord {
            topic: OutTopic(topic as u16),
            partition: partition_for(key.as_bytes(), self.partitions[topic]),
            key: Some(key.as_bytes()),
            value: Some(&self.value),
            timestamp_ms,
            headers: &Headers::default(),
        };
        self.producer.send(&record)
    }

    /// Waits until everything sent is acknowledged. Outside of a transaction a commit without offsets does just that.
    fn flush(&mut self) -> Result<(), LoadError> {
        self.producer.start_commit(Commit::of_records(self.timeout))?;
        match self.producer.poll_commit(self.timeout) {
            Some(outcome) => outcome?,
            None => {
                return Err(LoadError::Log(LogError::TimedOut {
                    operation: format!("writing {CHUNK_RECORDS} records"),
                    timeout_ms: self.timeout.as_millis() as u64,
                }));
            }
        }
        self.producer.begin()?;
        (self.progress)(self.written);
        Ok(())
    }
}
