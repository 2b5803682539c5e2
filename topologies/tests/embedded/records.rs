//! Records of the embedded log, read and written by hand.

use std::time::Duration;

use tidegate::ids::TopicPartition;
use tidegate::log::{Assignment, Commit, GroupMetadata, Isolation, Log, OutRecord, OutTopic};
use tidegate::record::Headers;

const PATIENCE: Duration = Duration::from_secs(30);

/// A record as it lies in a topic.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub timestamp_ms: i64,
    pub key: Option<String>,
    pub value: Vec<u8>,
}

/// All committed records of a partition.
pub fn read(log: &dyn Log, topic: &str, partition: i32) -> Vec<Entry> {
    let partition = TopicPartition::new(topic, partition);
    let end = log
        .admin()
        .watermarks(&partition, PATIENCE)
        .expect("the topic exists")
        .high;
    let mut consumer = log.consumer("test", Isolation::ReadCommitted).expect("a consumer");
    let assignment = Assignment {
        slot: 0,
        partition,
        offset: 0,
    };
    consumer.assign(&[assignment]).expect("the offset exists");
    let mut entries = Vec::new();
    let mut polls = 0;
    while end > 0 && consumer.position(0).is_none_or(|position| position < end) {
        polls += 1;
        assert!(polls < 1_000, "{} records came, the end is {end}", entries.len());
        let Some(batch) = consumer.poll(10_000, PATIENCE).expect("the log answers") else {
            continue;
        };
        for index in batch.runs().iter().flat_map(|run| run.start..run.end) {
            let record = batch.record(index);
            entries.push(Entry {
                timestamp_ms: record.timestamp_ms,
                key: record.key.map(|key| String::from_utf8(key.to_vec()).expect("text")),
                value: record.value.expect("a value").to_vec(),
            });
        }
    }
    entries
}

/// Writes values without a key, one to each partition in turn, a second apart.
pub fn write(log: &dyn Log, topic: &str, values: &[&str]) {
    let mut producer = log.producer("test", None).expect("a producer");
    producer.init(PATIENCE).expect("the log answers");
    let partitions = producer.prepare(&[topic.into()]).expect("the topic exists")[0];
    producer.begin().expect("an epoch begins");
    for (second, value) in (0_i32..).zip(values) {
        let record = OutRecord {
            topic: OutTopic(0),
            partition: second % partitions,
            key: None,
            value: Some(value.as_bytes()),
            timestamp_ms: i64::from(second) * 1_000,
            headers: &Headers::default(),
        };
        producer.send(&record).expect("there is room");
    }
    let group = GroupMetadata {
        group: String::new(),
        generation: -1,
        member_id: String::new(),
        instance_id: None,
    };
    let commit = Commit {
        batches: Vec::new(),
        offsets: Vec::new(),
        group,
        timeout: PATIENCE,
    };
    producer.start_commit(commit).expect("no other commit runs");
    producer
        .poll_commit(PATIENCE)
        .expect("it ends in time")
        .expect("the records are written");
}
