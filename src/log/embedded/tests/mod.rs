//! Behaviour of the embedded log as its clients see it, by the port. What the model rests on was tried on Kafka.

mod cleaning;
mod fencing;
mod files;
mod groups;
mod offsets;
mod random;
mod reading;
mod topics;
mod transactions;
mod waiting;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::partition::Ending;
use super::transactions::{CommitOffsetsInTransaction, EndTransaction, InitProducer, ProducerIdentity};
use super::{EmbeddedLog, EmbeddedSettings, Waits};
use crate::ids::TopicPartition;
use crate::log::{
    Assignment, BatchSource, Commit, CommitOffset, Consumer, GroupMember, GroupMetadata, Isolation, Log, LogResult,
    MemberEvent, MemberSettings, OutBatch, OutRecord, OutTopic, Producer, RecordBatch, TopicSpec, Watermarks,
};
use crate::record::Headers;
use crate::time::{Clock, Millis};

/// A time-out that no call of these tests ever waits for.
const ANY: Duration = Duration::from_secs(1);
const GROUP: &str = "app";
const SESSION: Duration = Duration::from_secs(6);

/// A clock that only the test moves.
#[derive(Default)]
struct ManualClock(AtomicU64);

impl ManualClock {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn wall_ms(&self) -> Millis {
        1_700_000_000_000 + self.0.load(Ordering::SeqCst) as Millis
    }
}

/// A log that never waits, and its clock.
struct World {
    log: Arc<EmbeddedLog>,
    clock: Arc<ManualClock>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let settings = EmbeddedSettings {
            transaction_timeout: Duration::from_secs(60),
            waits: Waits::Never,
        };
        let log = EmbeddedLog::with_settings(Arc::clone(&clock) as Arc<dyn Clock>, settings);
        Self { log, clock }
    }

    /// A world with a topic `t` of one partition.
    fn with_topic() -> Self {
        let world = Self::new();
        world.create("t", 1, &[]);
        world
    }

    fn create(&self, name: &str, partitions: i32, config: &[(&str, &str)]) {
        self.log
            .admin()
            .create_topic(&spec(name, partitions, config), ANY)
            .unwrap();
    }

    fn watermarks(&self, topic: &str) -> Watermarks {
        self.log
            .admin()
            .watermarks(&TopicPartition::new(topic, 0), ANY)
            .unwrap()
    }

    fn consumer(&self, isolation: Isolation, topic: &str, offset: i64) -> Box<dyn Consumer> {
        let mut consumer = self.log.consumer("test", isolation).unwrap();
        consumer.assign(&[assignment(0, topic, 0, offset)]).unwrap();
        consumer
    }

    /// Values of all records of partition 0 that a new consumer sees now.
    fn values(&self, isolation: Isolation, topic: &str) -> Vec<String> {
        let mut consumer = self.consumer(isolation, topic, 0);
        let mut values = Vec::new();
        while let Some(batch) = consumer.poll(100, ANY).unwrap() {
            values.extend(values_of(&*batch));
        }
        values
    }

    fn committed_values(&self) -> Vec<String> {
        self.values(Isolation::ReadCommitted, "t")
    }

    /// A producer that knows topic `t` as `OutTopic(0)`, initialised.
    fn producer(&self, transactional_id: Option<&str>) -> Box<dyn Producer> {
        let mut producer = self.log.producer("test", transactional_id).unwrap();
        producer.init(ANY).unwrap();
        producer.prepare(&["t".into()]).unwrap();
        producer
    }

    fn member(&self, instance_id: Option<&str>) -> TestMember {
        self.subscriber(instance_id, &["t"])
    }

    fn subscriber(&self, instance_id: Option<&str>, topics: &[&str]) -> TestMember {
        let settings = MemberSettings {
            group: GROUP.to_owned(),
            topics: topics.iter().map(|topic| Arc::from(*topic)).collect(),
            instance_id: instance_id.map(str::to_owned),
            session_timeout: SESSION,
        };
        TestMember {
            member: self.log.member(&settings).unwrap(),
        }
    }

    fn committed(&self, topic: &str) -> LogResult<Option<i64>> {
        let partitions = [TopicPartition::new(topic, 0)];
        let committed = self.log.admin().committed(GROUP, &partitions, ANY)?;
        Ok(committed.into_iter().next().flatten().map(|committed| committed.offset))
    }
}

/// A member with shortcuts.
struct TestMember {
    member: Box<dyn GroupMember>,
}

impl TestMember {
    fn poll(&mut self) -> Option<MemberEvent> {
        self.member.poll(ANY).unwrap()
    }

    /// The next event, completed.
    fn serve(&mut self) -> Option<MemberEvent> {
        let event = self.poll();
        if let Some(event) = &event {
            self.member.complete(event).unwrap();
        }
        event
    }

    fn serve_all(&mut self) -> Vec<MemberEvent> {
        std::iter::from_fn(|| self.serve()).collect()
    }

    fn metadata(&self) -> GroupMetadata {
        self.member.view().metadata()
    }

    fn generation(&self) -> i32 {
        self.metadata().generation
    }
}

fn spec(name: &str, partitions: i32, config: &[(&str, &str)]) -> TopicSpec {
    TopicSpec {
        name: name.into(),
        partitions,
        replication: None,
        config: config
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

fn assignment(slot: u32, topic: &str, partition: i32, offset: i64) -> Assignment {
    Assignment {
        slot,
        partition: TopicPartition::new(topic, partition),
        offset,
    }
}

fn values_of(batch: &dyn RecordBatch) -> Vec<String> {
    let indexes = batch.runs().iter().flat_map(|run| run.start..run.end);
    indexes
        .map(|index| String::from_utf8_lossy(batch.record(index).value.unwrap_or(b"null")).into_owned())
        .collect()
}

/// Topic `t`, partitions by number.
fn t(partitions: impl IntoIterator<Item = i32>) -> Vec<TopicPartition> {
    let name = |partition| TopicPartition::new("t", partition);
    partitions.into_iter().map(name).collect()
}

fn send(producer: &mut dyn Producer, value: &str) {
    send_to(producer, OutTopic(0), 0, value).unwrap();
}

fn send_to(producer: &mut dyn Producer, topic: OutTopic, partition: i32, value: &str) -> LogResult<()> {
    producer.send(&OutRecord {
        topic,
        partition,
        key: Some(b"key"),
        value: Some(value.as_bytes()),
        timestamp_ms: 7,
        headers: &Headers::default(),
    })
}

/// One whole transaction without offsets.
fn produce(producer: &mut dyn Producer, values: &[&str]) {
    producer.begin().unwrap();
    for value in values {
        send(producer, value);
    }
    commit(producer, commit_of(nobody(), &[])).unwrap();
}

fn commit(producer: &mut dyn Producer, commit: Commit) -> LogResult<()> {
    producer.start_commit(commit).unwrap();
    producer.poll_commit(ANY).expect("the embedded log commits at once")
}

fn commit_of(group: GroupMetadata, offsets: &[(&str, i64)]) -> Commit {
    let offset = |(topic, offset): &(&str, i64)| CommitOffset {
        partition: TopicPartition::new(*topic, 0),
        offset: *offset,
        metadata: String::new(),
    };
    Commit {
        batches: Vec::new(),
        offsets: offsets.iter().map(offset).collect(),
        group,
        timeout: ANY,
    }
}

/// Offsets written in a transaction that is open.
struct PendingOffsets {
    log: Arc<EmbeddedLog>,
    producer: ProducerIdentity,
}

impl PendingOffsets {
    /// Writes them as a client does that knows nothing of invariant I6, and in the name of nobody.
    fn write(log: &Arc<EmbeddedLog>, transactional_id: &str, offset: i64) -> Self {
        let init = InitProducer {
            transactional_id: transactional_id.to_owned(),
            timeout: Duration::from_secs(60),
        };
        let producer = log.link.call(init).unwrap();
        let commit = commit_of(nobody(), &[("t", offset)]);
        let write = CommitOffsetsInTransaction {
            producer,
            group: commit.group,
            offsets: commit.offsets,
        };
        log.link.call(write).unwrap();
        let log = Arc::clone(log);
        Self { log, producer }
    }

    fn end(self, ending: Ending) {
        let producer = self.producer;
        self.log.link.call(EndTransaction { producer, ending }).unwrap();
    }
}

/// Metadata of somebody who never joined.
fn nobody() -> GroupMetadata {
    GroupMetadata {
        group: GROUP.to_owned(),
        generation: -1,
        member_id: String::new(),
        instance_id: None,
    }
}

/// A changelog increment.
struct Increment(Vec<(Vec<u8>, Option<Vec<u8>>)>);

impl BatchSource for Increment {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn for_each(&self, visit: &mut dyn FnMut(&[u8], Option<&[u8]>)) {
        for (key, value) in &self.0 {
            visit(key, value.as_deref());
        }
    }
}

fn increment(records: &[(&str, Option<&str>)]) -> OutBatch {
    let bytes = |text: &str| text.as_bytes().to_vec();
    let records = records
        .iter()
        .map(|(key, value)| (bytes(key), value.map(bytes)))
        .collect();
    OutBatch {
        topic: OutTopic(0),
        partition: 0,
        records: Arc::new(Increment(records)),
    }
}

/// Collects results of threads.
type Shared<T> = Arc<Mutex<T>>;
