//! The log as those see it who are not the application: what is written to its inputs, and read from its outputs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::{Codec, CodecError};
use crate::ids::TopicPartition;
use crate::log::embedded::EmbeddedLog;
use crate::log::{
    Admin, Assignment, Commit, CommittedOffset, Consumer, Isolation, Log, LogError, LogResult, OutRecord, OutTopic,
    Producer, TopicSpec, Watermarks,
};
use crate::partitioner::partition_for;
use crate::record::Record;
use crate::topology::{SubTopology, Topic};

use crate::state::entries::Entries;

/// A time-out that no call on the embedded log waits for.
const AT_ONCE: Duration = Duration::from_secs(1);
const READ_RECORDS: usize = 10_000;

struct Writer {
    producer: Box<dyn Producer>,
    partitions: i32,
    /// Where the next record without a key goes.
    turn: i32,
}

/// See the [module documentation](self).
pub(super) struct Outside {
    log: Arc<EmbeddedLog>,
    application: String,
    writers: BTreeMap<Arc<str>, Writer>,
    readers: BTreeMap<Arc<str>, Box<dyn Consumer>>,
    changelogs: BTreeMap<Arc<str>, Folded>,
}

/// A changelog as far as it was read, and what it comes to in each partition.
struct Folded {
    reader: Box<dyn Consumer>,
    partitions: BTreeMap<i32, Entries>,
}

impl Outside {
    pub(super) fn new(log: Arc<EmbeddedLog>, application: &str) -> Self {
        Self {
            log,
            application: application.to_owned(),
            writers: BTreeMap::new(),
            readers: BTreeMap::new(),
            changelogs: BTreeMap::new(),
        }
    }

    pub(super) fn create(&self, name: Arc<str>, partitions: i32) {
        let spec = TopicSpec {
            name,
            partitions,
            replication: None,
            config: Vec::new(),
        };
        let created = self.log.admin().create_topic(&spec, AT_ONCE);
        created.unwrap_or_else(|error| panic!("topic {}: {error}", spec.name));
    }

    pub(super) fn partitions_of(&self, topic: &Arc<str>) -> i32 {
        partitions_of(&self.log, topic).unwrap_or_else(|error| panic!("{topic}: {error}"))
    }

    /// The number of tasks of a sub-topology: its largest source decides.
    pub(super) fn tasks_of(&self, sub: &SubTopology) -> i32 {
        let sources = sub.sources.iter();
        let partitions = sources.map(|topic| self.partitions_of(&topic.full_name(&self.application)));
        partitions.max().unwrap_or(0)
    }

    /// Whether `group` has committed everything that is in these partitions.
    pub(super) fn is_consumed(&self, group: &str, partitions: &[TopicPartition]) -> bool {
        let admin = self.log.admin();
        let Ok(offsets) = admin.committed(group, partitions, Duration::ZERO) else {
            return false;
        };
        partitions.iter().zip(offsets).all(|(partition, committed)| {
            let end = admin
                .watermarks(partition, AT_ONCE)
                .map_or(i64::MAX, |marks| marks.high);
            committed.map_or(0, |committed| committed.offset) >= end
        })
    }

    /// What `group` has committed for these partitions; `None` while a transaction is pending on one of them.
    pub(super) fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Option<Vec<Option<CommittedOffset>>> {
        self.log.admin().committed(group, partitions, Duration::ZERO).ok()
    }

    /// What the committed records of a changelog partition come to.
    pub(super) fn folded(&mut self, topic: &Arc<str>, partition: i32) -> Entries {
        let log = &self.log;
        let folded = self.changelogs.entry(Arc::clone(topic)).or_insert_with(|| Folded {
            reader: reader(log, topic, |watermarks: Watermarks| watermarks.low)
                .unwrap_or_else(|error| panic!("{topic} cannot be read: {error}")),
            partitions: BTreeMap::new(),
        });
        while let Ok(Some(batch)) = folded.reader.poll(READ_RECORDS, Duration::ZERO) {
            for run in batch.runs() {
                let entries = folded.partitions.entry(run.slot.cast_signed()).or_default();
                for index in run.start..run.end {
                    let record = batch.record(index);
                    let key = record.key.unwrap_or_default();
                    match record.value {
                        Some(value) => entries.insert(key.into(), value.into()),
                        None => entries.remove(key),
                    };
                }
            }
        }
        folded.partitions.get(&partition).cloned().unwrap_or_default()
    }

    /// The rows that the committed changelog of a store comes to from offset `since` on.
    pub(super) fn folded_since(&self, topic: &Arc<str>, partition: i32, since: i64) -> Entries {
        let mut reader = reader(&self.log, topic, |watermarks: Watermarks| watermarks.low)
            .unwrap_or_else(|error| panic!("{topic} cannot be read: {error}"));
        let mut entries = Entries::default();
        while let Ok(Some(batch)) = reader.poll(READ_RECORDS, Duration::ZERO) {
            for run in batch.runs().iter().filter(|run| run.slot.cast_signed() == partition) {
                for record in (run.start..run.end).map(|index| batch.record(index)) {
                    let key = record.key.unwrap_or_default();
                    match record.value.filter(|_| record.offset >= since) {
                        Some(value) => entries.insert(key.into(), value.into()),
                        None => entries.remove(key),
                    };
                }
            }
        }
        entries
    }

    /// Whether no transaction is open on a topic: one that a crash left behind hides what was committed after it.
    pub(super) fn is_stable(&self, topic: &Arc<str>) -> bool {
        let stable = || -> LogResult<bool> {
            let mut consumer = reader(&self.log, topic, |watermarks: Watermarks| watermarks.high)?;
            consumer.poll(1, Duration::ZERO)?;
            for partition in 0..partitions_of(&self.log, topic)? {
                let end = consumer.end_offset(partition.unsigned_abs());
                if end < consumer.position(partition.unsigned_abs()) {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        stable().unwrap_or_else(|error| panic!("{topic} cannot be read: {error}"))
    }

    pub(super) fn write<K: 'static, V: 'static>(&mut self, topic: &Topic<K, V>, record: &Record<K, V>) {
        let mut key = Vec::new();
        let mut value = Vec::new();
        let unencodable = |error| panic!("a record for {} cannot be encoded: {error}", topic.name());
        if let Some(item) = &record.key {
            topic.key.encode(item, &mut key).unwrap_or_else(unencodable);
        }
        if let Some(item) = &record.value {
            topic.value.encode(item, &mut value).unwrap_or_else(unencodable);
        }
        let writer = self.writer(&topic.name);
        let partition = match &record.key {
            Some(_) => partition_for(topic.key.partition_bytes(&key), writer.partitions),
            None => {
                writer.turn = (writer.turn + 1) % writer.partitions;
                writer.turn
            }
        };
        let out = OutRecord {
            topic: OutTopic(0),
            partition,
            key: record.key.is_some().then_some(&key[..]),
            value: record.value.is_some().then_some(&value[..]),
            timestamp_ms: record.timestamp_ms,
            headers: &record.headers,
        };
        writer.write(&out);
    }

    fn writer(&mut self, topic: &Arc<str>) -> &mut Writer {
        let log = &self.log;
        self.writers.entry(Arc::clone(topic)).or_insert_with(|| {
            let made = log.producer("test", None).and_then(|mut producer| {
                producer.init(AT_ONCE)?;
                let partitions = producer.prepare(std::slice::from_ref(topic))?[0];
                Ok(Writer {
                    producer,
                    partitions,
                    turn: -1,
                })
            });
            made.unwrap_or_else(|error| {
                panic!("nothing can be written to {topic}: {error}; does the topology name it?")
            })
        })
    }

    pub(super) fn read<K: 'static, V: 'static>(&mut self, topic: &Topic<K, V>) -> Vec<Record<K, V>> {
        let log = &self.log;
        let reader = self.readers.entry(Arc::clone(&topic.name)).or_insert_with(|| {
            reader(log, &topic.name, |watermarks: Watermarks| watermarks.low)
                .unwrap_or_else(|error| panic!("{} cannot be read: {error}", topic.name))
        });
        let mut records: BTreeMap<(u32, i64), Record<K, V>> = BTreeMap::new();
        loop {
            let polled = reader.poll(READ_RECORDS, Duration::ZERO);
            let polled = polled.unwrap_or_else(|error| panic!("{} cannot be read: {error}", topic.name));
            let Some(batch) = polled else { break };
            for run in batch.runs() {
                for index in run.start..run.end {
                    let raw = batch.record(index);
                    let decoded = decode(&*topic.key, raw.key).and_then(|key| {
                        Ok(Record {
                            key,
                            value: decode(&*topic.value, raw.value)?,
                            timestamp_ms: raw.timestamp_ms,
                            headers: batch.headers(index),
                        })
                    });
                    let record =
                        decoded.unwrap_or_else(|error| panic!("a record of {} cannot be decoded: {error}", topic.name));
                    records.insert((run.slot, raw.offset), record);
                }
            }
        }
        records.into_values().collect()
    }
}

impl Writer {
    fn write(&mut self, record: &OutRecord<'_>) {
        let written = self.producer.begin().and_then(|()| {
            self.producer.send(record)?;
            self.producer.start_commit(Commit::of_records(AT_ONCE))?;
            loop {
                if let Some(outcome) = self.producer.poll_commit(AT_ONCE) {
                    return outcome;
                }
            }
        });
        written.unwrap_or_else(|error| panic!("a record cannot be written: {error}"));
    }
}

fn decode<T>(codec: &(impl Codec<Item = T> + ?Sized), bytes: Option<&[u8]>) -> Result<Option<T>, CodecError> {
    bytes.map(|bytes| codec.decode(bytes)).transpose()
}

fn partitions_of(log: &EmbeddedLog, topic: &Arc<str>) -> LogResult<i32> {
    let missing = || LogError::UnknownTopic {
        topic: topic.to_string(),
    };
    Ok(log.admin().topic(topic, AT_ONCE)?.ok_or_else(missing)?.partitions)
}

/// A committed reader of all partitions of a topic, from where `start` says; the slot is the partition.
fn reader(log: &EmbeddedLog, topic: &Arc<str>, start: impl Fn(Watermarks) -> i64) -> LogResult<Box<dyn Consumer>> {
    let admin: Arc<dyn Admin> = log.admin();
    let mut assignment = Vec::new();
    for number in 0..partitions_of(log, topic)? {
        let partition = TopicPartition::new(Arc::clone(topic), number);
        assignment.push(Assignment {
            slot: number.unsigned_abs(),
            offset: start(admin.watermarks(&partition, AT_ONCE)?),
            partition,
        });
    }
    let mut consumer = log.consumer("test", Isolation::ReadCommitted)?;
    consumer.assign(&assignment)?;
    Ok(consumer)
}
