//! What a test's cluster consists of, and its steps.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::{Codec, CodecError};
use crate::ids::TopicPartition;
use crate::instance::{InstanceError, InstanceSettings, SteppedInstance};
use crate::log::embedded::{EmbeddedLog, EmbeddedSettings, Waits};
use crate::log::{
    Admin, Assignment, Commit, Consumer, GroupMetadata, Isolation, Log, LogError, LogResult, OutRecord, OutTopic,
    Producer, TopicSpec, Watermarks,
};
use crate::partitioner::partition_for;
use crate::record::Record;
use crate::time::Clock;
use crate::topology::{Topic, TopicRef, Topology};

use super::clock::VirtualClock;
use super::faults::{Fault, Faults};
use super::seed::Seed;

pub(super) const APPLICATION: &str = "test";
/// A time-out that no call on the embedded log waits for.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Steps of time in which instances are stepped while time is moved.
const STRIDE: Duration = Duration::from_millis(500);
/// Rounds after which a cluster that still has something to do is taken for stuck.
const MAX_ROUNDS: u32 = 100_000;
/// Time that passes in a round even if nobody waits.
const ROUND: Duration = Duration::from_millis(1);
/// Of so many records piped in under faults one is followed by a round.
const ROUND_PER_RECORDS: u64 = 2;
const READ_RECORDS: usize = 10_000;

/// A place for an instance.
struct Slot {
    instance: Option<SteppedInstance>,
    /// Not stepped before this.
    paused_until: Duration,
    /// When it comes back after a fault; `None` for one that the test itself ended.
    back_at: Option<Duration>,
}

/// A cluster that runs.
pub(super) struct World {
    topology: Arc<Topology>,
    settings: InstanceSettings,
    clock: Arc<VirtualClock>,
    log: Arc<EmbeddedLog>,
    seed: Arc<Seed>,
    slots: Vec<Slot>,
    faults: Option<Faults>,
    told: String,
    writers: BTreeMap<Arc<str>, Writer>,
    readers: BTreeMap<Arc<str>, Box<dyn Consumer>>,
}

struct Writer {
    producer: Box<dyn Producer>,
    partitions: i32,
    /// Where the next record without a key goes.
    turn: i32,
}

impl World {
    pub(super) fn new(
        topology: &Arc<Topology>,
        settings: &InstanceSettings,
        partitions: i32,
        seed: u64,
        faults: bool,
    ) -> Self {
        let clock = Arc::new(VirtualClock::default());
        let embedded = EmbeddedSettings {
            transaction_timeout: settings.transaction_timeout,
            waits: Waits::Never,
        };
        let log = EmbeddedLog::with_settings(Arc::clone(&clock) as Arc<dyn Clock>, embedded);
        let world = Self {
            topology: Arc::clone(topology),
            settings: settings.clone(),
            clock,
            log,
            seed: Arc::new(Seed::new(seed)),
            slots: Vec::new(),
            faults: faults.then(Faults::new),
            told: String::new(),
            writers: BTreeMap::new(),
            readers: BTreeMap::new(),
        };
        for topic in world.external_topics() {
            world.create(topic, partitions);
        }
        world
    }

    pub(super) fn clock(&self) -> Arc<VirtualClock> {
        Arc::clone(&self.clock)
    }

    /// Faults so far, a line each.
    pub(super) fn told(&self) -> String {
        self.told.clone()
    }

    fn external_topics(&self) -> Vec<Arc<str>> {
        let plan = self.topology.plan();
        let named = plan
            .sub_topologies
            .iter()
            .flat_map(|sub| sub.sources.iter().chain(&sub.sinks));
        let mut names: Vec<Arc<str>> = named
            .filter_map(|topic| match topic {
                TopicRef::External(name) => Some(Arc::clone(name)),
                TopicRef::Repartition(_) => None,
            })
            .collect();
        names.extend(self.settings.dead_letter_topic.as_deref().map(Arc::from));
        names.sort();
        names.dedup();
        names
    }

    fn create(&self, name: Arc<str>, partitions: i32) {
        let spec = TopicSpec {
            name,
            partitions,
            replication: None,
            config: Vec::new(),
        };
        let created = self.log.admin().create_topic(&spec, AT_ONCE);
        created.unwrap_or_else(|error| panic!("topic {}: {error}", spec.name));
    }

    /// Starts one more instance; answers its number.
    pub(super) fn add(&mut self) -> usize {
        self.slots.push(Slot {
            instance: None,
            paused_until: Duration::ZERO,
            back_at: None,
        });
        let number = self.slots.len() - 1;
        self.start(number);
        number
    }

    pub(super) fn start(&mut self, number: usize) {
        assert!(self.slots[number].instance.is_none(), "instance {number} runs already");
        let seed = Arc::clone(&self.seed);
        let started = SteppedInstance::start(
            Arc::clone(&self.topology),
            self.settings.clone(),
            Arc::clone(&self.log) as Arc<dyn Log>,
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            Arc::new(move || seed.next()),
        );
        let started = started.unwrap_or_else(|error| panic!("instance {number} cannot start: {error}"));
        self.slots[number] = Slot {
            instance: Some(started),
            paused_until: Duration::ZERO,
            back_at: None,
        };
    }

    pub(super) fn crash(&mut self, number: usize) {
        self.slots[number].instance = None;
        self.slots[number].back_at = None;
    }

    pub(super) fn stop(&mut self, number: usize) {
        for _ in 0..MAX_ROUNDS {
            let Some(instance) = &mut self.slots[number].instance else {
                self.slots[number].back_at = None;
                return;
            };
            instance.stop();
            self.round_or_panic();
        }
        panic!("instance {number} does not stop: {}", self.statuses());
    }

    /// Every instance takes one step, in an order that the seed decides. One that fails is gone.
    fn round(&mut self) -> Result<(), InstanceError> {
        self.clock.advance(self.until_somebody_runs().unwrap_or(ROUND));
        self.cause_faults();
        let mut order: Vec<usize> = (0..self.slots.len()).collect();
        self.seed.shuffle(&mut order);
        for number in order {
            let now = self.clock.monotonic();
            let slot = &mut self.slots[number];
            if slot.back_at.is_some_and(|back_at| back_at <= now) && slot.instance.is_none() {
                self.tell(number, "is back");
                self.start(number);
            }
            let slot = &mut self.slots[number];
            let Some(instance) = slot.instance.as_mut().filter(|_| slot.paused_until <= now) else {
                continue;
            };
            if let Err(error) = instance.step() {
                slot.instance = None;
                return Err(error);
            }
            if instance.is_finished() {
                slot.instance = None;
            }
        }
        Ok(())
    }

    /// How long nobody does anything, if that is so.
    fn until_somebody_runs(&self) -> Option<Duration> {
        let now = self.clock.monotonic();
        let next = self.slots.iter().filter_map(|slot| match slot.instance {
            Some(_) => Some(slot.paused_until),
            None => slot.back_at,
        });
        next.min()
            .map(|next| next.saturating_sub(now))
            .filter(|wait| !wait.is_zero())
    }

    pub(super) fn round_or_panic(&mut self) {
        if let Err(error) = self.round() {
            panic!("an instance stopped: {error}");
        }
    }

    /// Something goes wrong, if it is time for that.
    fn cause_faults(&mut self) {
        let running = self.slots.iter().filter(|slot| slot.instance.is_some()).count();
        let fault = self.faults.as_mut().and_then(|faults| faults.next(&self.seed, running));
        let Some(fault) = fault else { return };
        let mut running = (0..self.slots.len()).filter(|number| self.slots[*number].instance.is_some());
        let Some(number) = running.nth(fault.victim) else {
            return;
        };
        let now = self.clock.monotonic();
        let slot = &mut self.slots[number];
        match fault.kind {
            Fault::Crash { steps } => {
                // In the midst of a round: the membership loop and some of the workers have had their turn.
                let crashed = slot.instance.take().map(|mut instance| instance.step_partly(steps));
                self.tell(number, &format!("crashes, {crashed:?}"));
            }
            Fault::Pause => {
                slot.paused_until = now + fault.lasts;
                self.tell(number, "stands still");
            }
            Fault::Stop => {
                if let Some(instance) = &mut slot.instance {
                    instance.stop();
                }
                self.tell(number, "stops");
            }
        }
        self.slots[number].back_at = Some(now + fault.lasts);
    }

    fn tell(&mut self, number: usize, what: &str) {
        let at_ms = self.clock.monotonic().as_millis();
        let _ = writeln!(self.told, "{at_ms:>8} ms  instance {number} {what}");
    }

    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.clock.monotonic() + by;
        while self.clock.monotonic() < end {
            let rest = end - self.clock.monotonic();
            self.clock.advance(rest.min(STRIDE));
            self.round_or_panic();
        }
    }

    pub(super) fn settle(&mut self) -> Option<InstanceError> {
        for _ in 0..MAX_ROUNDS {
            let nobody = self
                .slots
                .iter()
                .all(|slot| slot.instance.is_none() && slot.back_at.is_none());
            if nobody || (self.faults.as_ref().is_none_or(Faults::are_over) && self.is_settled()) {
                if let Some(faults) = &mut self.faults {
                    faults.begin_anew();
                }
                return None;
            }
            if let Err(error) = self.round() {
                return Some(error);
            }
        }
        panic!("the cluster does not come to rest: {}", self.statuses());
    }

    fn is_settled(&self) -> bool {
        let now = self.clock.monotonic();
        let ready = |slot: &Slot| match &slot.instance {
            Some(instance) => instance.status().ready && slot.paused_until <= now,
            None => slot.back_at.is_none(),
        };
        self.slots.iter().all(ready)
            && self.sources().all(|partition| self.is_consumed(&partition))
            && self.external_topics().iter().all(|topic| self.is_stable(topic))
    }

    /// Whether no transaction is open on a topic: one that a crash left behind hides what was committed after it.
    fn is_stable(&self, topic: &Arc<str>) -> bool {
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

    fn is_consumed(&self, partition: &TopicPartition) -> bool {
        let admin = self.log.admin();
        let end = admin
            .watermarks(partition, AT_ONCE)
            .map_or(i64::MAX, |marks| marks.high);
        let committed = admin.committed(APPLICATION, std::slice::from_ref(partition), Duration::ZERO);
        let offset = committed.ok().and_then(|offsets| offsets.into_iter().next().flatten());
        offset.map_or(0, |committed| committed.offset) >= end
    }

    fn sources(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        let subs = self.topology.plan().sub_topologies.iter();
        subs.flat_map(|sub| sub.sources.iter()).flat_map(|topic| {
            let name = topic.full_name(APPLICATION);
            let partitions = partitions_of(&self.log, &name).unwrap_or_else(|error| panic!("{name}: {error}"));
            (0..partitions).map(move |partition| TopicPartition::new(Arc::clone(&name), partition))
        })
    }

    fn statuses(&self) -> String {
        let status = |slot: &Slot| match &slot.instance {
            Some(instance) => instance.status().detail,
            None => "gone".to_owned(),
        };
        let statuses: Vec<String> = self.slots.iter().map(status).collect();
        let waiting = self.sources().filter(|partition| !self.is_consumed(partition));
        let waiting: Vec<String> = waiting.map(|partition| partition.to_string()).collect();
        format!("{}; not consumed: {}", statuses.join(", "), waiting.join(" "))
    }

    pub(super) fn pipe<K: 'static, V: 'static>(&mut self, topic: &Topic<K, V>, record: &Record<K, V>) {
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
        // What goes wrong should do so in the midst of work.
        if self.faults.is_some() && self.seed.next().is_multiple_of(ROUND_PER_RECORDS) {
            self.round_or_panic();
        }
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
            self.producer.start_commit(Commit {
                batches: Vec::new(),
                offsets: Vec::new(),
                group: GroupMetadata {
                    group: String::new(),
                    generation: -1,
                    member_id: String::new(),
                    instance_id: None,
                },
                timeout: AT_ONCE,
            })?;
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
