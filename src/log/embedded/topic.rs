//! Topics: names, settings and partitions, and the requests that administer and read them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::batch::Batch;
use super::broker::{Broker, BrokerError, Request, Wake};
use super::packed::{Packed, TransactionSerial};
use super::partition::{Ending, Partition};
use super::settings::TopicSettings;
use crate::ids::TopicPartition;
use crate::log::{Isolation, Slot, TopicInfo, TopicSpec, Watermarks};
use crate::time::Millis;

/// Longest name of a topic in Kafka, in bytes.
const NAME_MAX_BYTES: usize = 249;
/// Identity of a topic; a topic that is created again under the same name has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TopicId(u32);

impl TopicId {
    /// The number of the topic, which no other one has while the log is open.
    pub fn number(self) -> u32 {
        self.0
    }

    /// The topic of that number.
    pub fn from_number(number: u32) -> Self {
        Self(number)
    }
}

/// A topic.
#[derive(Debug)]
pub(super) struct Topic {
    name: Arc<str>,
    config: Vec<(String, String)>,
    settings: TopicSettings,
    partitions: Vec<Partition>,
}

impl Topic {
    fn new(spec: &TopicSpec) -> Result<Self, BrokerError> {
        check_name(&spec.name)?;
        let partitions = usize::try_from(spec.partitions).map_err(|_| BrokerError::InvalidPartitions)?;
        if partitions == 0 {
            return Err(BrokerError::InvalidPartitions);
        }
        if spec.replication.is_some_and(|replicas| replicas != 1) {
            return Err(BrokerError::InvalidReplicationFactor);
        }
        let settings = TopicSettings::new(&spec.config)?;
        let segments = settings.segments;
        let partition = || Partition::new(segments);
        Ok(Self {
            name: Arc::clone(&spec.name),
            config: spec.config.clone(),
            settings,
            partitions: std::iter::repeat_with(partition).take(partitions).collect(),
        })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The settings as they were given.
    pub fn config(&self) -> &[(String, String)] {
        &self.config
    }

    /// The topic as somebody would create it with the settings that it has now.
    fn spec(&self) -> TopicSpec {
        TopicSpec {
            name: Arc::clone(&self.name),
            partitions: self.partitions.len() as i32,
            replication: None,
            config: self.config.clone(),
        }
    }

    /// Sets some of the settings. The limits of segments hold for those that begin later.
    fn alter(&mut self, config: &[(String, String)]) -> Result<(), BrokerError> {
        let mut altered: BTreeMap<String, String> = self.config.iter().cloned().collect();
        altered.extend(config.iter().cloned());
        let altered: Vec<(String, String)> = altered.into_iter().collect();
        self.settings = TopicSettings::new(&altered)?;
        for partition in &mut self.partitions {
            partition.segments.set_limits(self.settings.segments);
        }
        self.config = altered;
        Ok(())
    }

    /// The settings that it has.
    pub fn settings(&self) -> &TopicSettings {
        &self.settings
    }

    /// All partitions, in order of their numbers.
    pub fn partitions_mut(&mut self) -> &mut [Partition] {
        &mut self.partitions
    }

    /// Whether the partition is there and takes these records.
    pub fn check(&mut self, partition: i32, records: &Packed) -> Result<(), BrokerError> {
        self.partition_mut(partition)?;
        for record in records.records() {
            if record.batch_bytes() > self.settings.max_message_bytes {
                return Err(BrokerError::MessageTooLarge);
            }
            if self.settings.cleanup_policy.compact && record.is_keyless() {
                return Err(BrokerError::InvalidRecord);
            }
        }
        Ok(())
    }

    /// Appends records to a partition; answers the offset of the first, and whether housekeeping should look at it.
    pub fn append(
        &mut self,
        partition: i32,
        records: &Packed,
        transaction: Option<TransactionSerial>,
        wall_ms: Millis,
    ) -> Result<(i64, bool), BrokerError> {
        let offset = self.partition_mut(partition)?.append(records, transaction, wall_ms);
        Ok((offset, self.needs_a_look(partition)))
    }

    /// Writes the end marker of a transaction, if it has written to the partition; answers its offset, and whether
    /// housekeeping should look at the partition.
    pub fn end_transaction(
        &mut self,
        partition: i32,
        serial: TransactionSerial,
        ending: Ending,
        wall_ms: Millis,
    ) -> Option<(i64, bool)> {
        let offset = self
            .partition_mut(partition)
            .ok()?
            .end_transaction(serial, ending, wall_ms)?;
        Some((offset, self.needs_a_look(partition)))
    }

    fn needs_a_look(&self, partition: i32) -> bool {
        let partition = usize::try_from(partition)
            .ok()
            .and_then(|index| self.partitions.get(index));
        partition.is_some_and(|partition| partition.needs_a_look(&self.settings))
    }

    /// A partition for writing.
    pub fn partition_mut(&mut self, partition: i32) -> Result<&mut Partition, BrokerError> {
        usize::try_from(partition)
            .ok()
            .and_then(|index| self.partitions.get_mut(index))
            .ok_or(BrokerError::UnknownTopicOrPartition)
    }
}

fn check_name(name: &str) -> Result<(), BrokerError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let refused = name.is_empty() || name == "." || name == ".." || name.len() > NAME_MAX_BYTES;
    if refused || !name.bytes().all(legal) {
        return Err(BrokerError::InvalidTopic);
    }
    Ok(())
}

/// All topics.
#[derive(Debug, Default)]
pub(super) struct Topics {
    /// Index = [`TopicId`]; a deleted topic leaves its place empty.
    topics: Vec<Option<Topic>>,
    names: BTreeMap<Arc<str>, TopicId>,
}

impl Topics {
    /// The id of the topic of that name.
    pub fn find(&self, name: &str) -> Result<TopicId, BrokerError> {
        self.names
            .get(name)
            .copied()
            .ok_or(BrokerError::UnknownTopicOrPartition)
    }

    fn get(&self, id: TopicId) -> Result<&Topic, BrokerError> {
        let topic = self.topics.get(id.0 as usize).and_then(Option::as_ref);
        topic.ok_or(BrokerError::UnknownTopicOrPartition)
    }

    /// A topic for writing.
    pub fn get_mut(&mut self, id: TopicId) -> Result<&mut Topic, BrokerError> {
        let topic = self.topics.get_mut(id.0 as usize).and_then(Option::as_mut);
        topic.ok_or(BrokerError::UnknownTopicOrPartition)
    }

    /// A partition for writing, by name.
    pub fn partition_mut(&mut self, partition: &TopicPartition) -> Result<&mut Partition, BrokerError> {
        let id = self.find(&partition.topic)?;
        self.get_mut(id)?.partition_mut(partition.partition)
    }

    /// All topics that there are, with their ids.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (TopicId, &mut Topic)> {
        let topics = self.topics.iter_mut().enumerate();
        topics.filter_map(|(index, topic)| Some((TopicId(index as u32), topic.as_mut()?)))
    }

    /// All partitions of the topics that exist among `names`.
    pub fn partitions_of(&self, names: &BTreeSet<Arc<str>>) -> BTreeSet<TopicPartition> {
        let known = names.iter().filter_map(|name| self.get(self.find(name).ok()?).ok());
        known
            .flat_map(|topic| {
                (0..topic.partitions.len() as i32)
                    .map(|partition| TopicPartition::new(Arc::clone(&topic.name), partition))
            })
            .collect()
    }

    fn create(&mut self, spec: &TopicSpec) -> Result<TopicId, BrokerError> {
        let id = TopicId(self.topics.len() as u32);
        self.restore(id, spec)?;
        Ok(id)
    }

    /// Creates a topic under a number that was chosen before, or gives the one that has it these settings.
    pub fn restore(&mut self, id: TopicId, spec: &TopicSpec) -> Result<(), BrokerError> {
        if let Ok(topic) = self.get_mut(id) {
            return topic.alter(&spec.config);
        }
        if self.names.contains_key(&spec.name) {
            return Err(BrokerError::TopicAlreadyExists);
        }
        let topic = Topic::new(spec)?;
        let place = id.0 as usize;
        if place >= self.topics.len() {
            self.topics.resize_with(place + 1, || None);
        }
        self.topics[place] = Some(topic);
        self.names.insert(Arc::clone(&spec.name), id);
        Ok(())
    }

    /// Deletes a topic if it is there.
    pub fn remove(&mut self, id: TopicId) {
        if let Some(topic) = self.topics.get_mut(id.0 as usize).and_then(Option::take) {
            self.names.remove(&topic.name);
        }
    }
}

// ---------------------------------------------------------------------------------------------- requests

/// Creates a topic.
#[derive(Clone, Debug)]
pub(super) struct CreateTopic(pub TopicSpec);

impl Request for CreateTopic {
    type Answer = ();

    fn handle(self, broker: &mut Broker, now: Duration) -> Result<(), BrokerError> {
        let id = broker.topics.create(&self.0)?;
        broker.store.topic_described(id, &self.0);
        broker.topics_changed(&self.0.name, now);
        Ok(())
    }
}

/// Sets some of a topic's settings.
#[derive(Clone, Debug)]
pub(super) struct AlterTopic {
    pub name: Arc<str>,
    pub config: Vec<(String, String)>,
}

impl Request for AlterTopic {
    type Answer = ();

    fn handle(self, broker: &mut Broker, _now: Duration) -> Result<(), BrokerError> {
        let id = broker.topics.find(&self.name)?;
        let topic = broker.topics.get_mut(id)?;
        topic.alter(&self.config)?;
        let spec = topic.spec();
        broker.store.topic_described(id, &spec);
        Ok(())
    }
}

/// Deletes a topic with all its records.
#[derive(Clone, Debug)]
pub(super) struct DeleteTopic(pub Arc<str>);

impl Request for DeleteTopic {
    type Answer = ();

    fn handle(self, broker: &mut Broker, now: Duration) -> Result<(), BrokerError> {
        let id = broker.topics.find(&self.0)?;
        broker.topics.remove(id);
        broker.store.topic_deleted(id);
        broker.topics_changed(&self.0, now);
        Ok(())
    }
}

/// Asks for a topic's id and settings.
#[derive(Clone, Debug)]
pub(super) struct DescribeTopic(pub Arc<str>);

impl Request for DescribeTopic {
    type Answer = (TopicId, TopicInfo);

    fn handle(self, broker: &mut Broker, _now: Duration) -> Result<Self::Answer, BrokerError> {
        let id = broker.topics.find(&self.0)?;
        let topic = broker.topics.get(id)?;
        let info = TopicInfo {
            partitions: topic.partitions.len() as i32,
            cleanup_policy: topic.settings.cleanup_policy.name().to_owned(),
            retention_ms: topic.settings.retention_ms.unwrap_or(-1),
            retention_bytes: topic.settings.retention_bytes.map_or(-1, u64::cast_signed),
            delete_retention_ms: topic.settings.delete_retention_ms,
            max_message_bytes: topic.settings.max_message_bytes,
        };
        Ok((id, info))
    }
}

/// Asks for the watermarks as one sees them who reads uncommitted.
#[derive(Clone, Debug)]
pub(super) struct ListOffsets(pub TopicPartition);

impl Request for ListOffsets {
    type Answer = Watermarks;

    fn handle(self, broker: &mut Broker, _now: Duration) -> Result<Watermarks, BrokerError> {
        let partition = broker.topics.partition_mut(&self.0)?;
        Ok(Watermarks {
            low: partition.low_watermark(),
            high: partition.high_watermark(),
        })
    }
}

/// Deletes the records before an offset; -1 stands for the high watermark.
#[derive(Clone, Debug)]
pub(super) struct DeleteRecords {
    /// Where.
    pub partition: TopicPartition,
    /// First offset to keep.
    pub before: i64,
}

impl Request for DeleteRecords {
    type Answer = ();

    fn handle(self, broker: &mut Broker, _now: Duration) -> Result<(), BrokerError> {
        let id = broker.topics.find(&self.partition.topic)?;
        let topic = broker.topics.get_mut(id)?;
        let deletes = topic.settings.cleanup_policy.delete;
        let partition = topic.partition_mut(self.partition.partition)?;
        if !deletes {
            return Err(BrokerError::PolicyViolation);
        }
        let before = match self.before {
            -1 => partition.high_watermark(),
            before => before,
        };
        partition.delete_before(before)?;
        broker.store.cleaned(id, self.partition.partition, partition);
        broker.wake(Wake::Everybody);
        Ok(())
    }
}

/// One partition of a fetch.
#[derive(Clone, Debug)]
pub(super) struct FetchPartition {
    /// The topic; `None` where the consumer found none of that name.
    pub topic: Option<TopicId>,
    /// The partition.
    pub partition: i32,
    /// First offset wanted.
    pub offset: i64,
    /// What the consumer calls it.
    pub slot: Slot,
}

/// Reads from several partitions.
#[derive(Clone, Debug)]
pub(super) struct Fetch {
    /// Where from, in order of preference.
    pub partitions: Vec<FetchPartition>,
    /// What may be seen.
    pub isolation: Isolation,
    /// Most records in the answer.
    pub max_records: usize,
}

/// How far a fetch got in one partition.
#[derive(Clone, Debug)]
pub(super) struct FetchedPartition {
    /// Next offset to ask for.
    pub next_offset: i64,
    /// The end for this isolation.
    pub end_offset: i64,
}

/// Answer to [`Fetch`]; the partitions in the order of the request.
#[derive(Debug)]
pub(super) struct Fetched {
    /// The records.
    pub batch: Batch,
    /// How far it got.
    pub partitions: Vec<Result<FetchedPartition, BrokerError>>,
}

impl Request for Fetch {
    type Answer = Fetched;

    fn handle(self, broker: &mut Broker, _now: Duration) -> Result<Fetched, BrokerError> {
        let mut batch = Batch::default();
        let wanted = self.partitions.len();
        let mut partitions = Vec::with_capacity(wanted);
        for (index, fetch) in self.partitions.iter().enumerate() {
            // What a partition leaves unused of its share is there for those behind it.
            let share = (self.max_records - batch.len()).div_ceil(wanted - index);
            batch.set_limit(batch.len() + share);
            partitions.push(fetch_one(&mut broker.topics, fetch, self.isolation, &mut batch));
            batch.end_run(fetch.slot);
        }
        Ok(Fetched { batch, partitions })
    }
}

fn fetch_one(
    topics: &mut Topics,
    fetch: &FetchPartition,
    isolation: Isolation,
    batch: &mut Batch,
) -> Result<FetchedPartition, BrokerError> {
    let topic = fetch.topic.ok_or(BrokerError::UnknownTopicOrPartition)?;
    let partition = topics.get_mut(topic)?.partition_mut(fetch.partition)?;
    let next_offset = partition.read(fetch.offset, isolation, batch)?;
    Ok(FetchedPartition {
        next_offset,
        end_offset: partition.end(isolation),
    })
}
