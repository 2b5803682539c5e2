//! Whole instances on the embedded log: what users are promised, without containers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::{I64Be, Utf8};
use crate::ids::TopicPartition;
use crate::log::embedded::EmbeddedLog;
use crate::log::{
    Assignment, Commit, GroupMetadata, Isolation, Log, LogError, MemberSettings, OutRecord, OutTopic, TopicSpec,
};
use crate::operators::OnError;
use crate::partitioner::partition_for;
use crate::record::Headers;
use crate::time::{Clock, SystemClock};
use crate::topology::{Builder, Topic, Topology};

use super::{Backend, Guarantee, Instance, InstanceError, InstanceHandle, InstanceSettings, Ports, StateSettings};

const PARTITIONS: i32 = 2;
const DEADLINE: Duration = Duration::from_secs(30);

fn settings(application: &str) -> InstanceSettings {
    InstanceSettings {
        application_id: application.to_owned(),
        instance_id: None,
        workers: 2,
        guarantee: Guarantee::ExactlyOnce,
        commit_interval: Duration::from_millis(10),
        overlay_max_bytes: 1 << 20,
        parked_max_bytes: 1 << 20,
        buffered_max_records: 50_000,
        max_task_idle: Duration::ZERO,
        transaction_timeout: Duration::from_secs(10),
        session_timeout: Duration::from_secs(6),
        startup_timeout: Duration::from_secs(5),
        revoke_timeout: Duration::from_secs(10),
        restore_timeout: Duration::from_secs(10),
        purge_interval: Duration::from_millis(20),
        replication_factor: None,
        state: StateSettings {
            dir: PathBuf::new(),
            backend: Backend::Memory,
            cache_bytes: 1 << 20,
            block_cache_bytes: 1 << 20,
            write_buffer_bytes: 1 << 20,
        },
        default_on_error: OnError::Stop,
        on_error: BTreeMap::new(),
        dead_letter_topic: None,
        allow_empty_state: false,
        ..InstanceSettings::new(application)
    }
}

/// Counts each key, then totals the counts' updates per first letter: two sub-topologies and a repartition topic.
fn counting() -> Arc<Topology> {
    let builder = Builder::new();
    let words = Topic::new("words", Utf8, Utf8);
    let counts = builder.stream(&words).group_by_key().count("counts").to_stream();
    counts.to(&Topic::new("counts", Utf8, I64Be));
    let letters = counts.group_by("letters", |record| record.key.as_ref().map(|word| word[..1].to_owned()));
    letters
        .count("totals")
        .to_stream()
        .to(&Topic::new("totals", Utf8, I64Be));
    Arc::new(builder.build().expect("the topology is right"))
}

struct World {
    log: Arc<EmbeddedLog>,
    clock: Arc<dyn Clock>,
}

impl World {
    fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let world = Self {
            log: EmbeddedLog::new(Arc::clone(&clock)),
            clock,
        };
        for topic in ["words", "counts", "totals"] {
            world.create(topic);
        }
        world
    }

    fn create(&self, topic: &str) {
        let spec = TopicSpec {
            name: topic.into(),
            partitions: PARTITIONS,
            replication: None,
            config: Vec::new(),
        };
        self.log.admin().create_topic(&spec, DEADLINE).expect("topic is new");
    }

    fn start(&self, topology: &Arc<Topology>, settings: InstanceSettings) -> Result<InstanceHandle, InstanceError> {
        let log: Arc<dyn Log> = Arc::<EmbeddedLog>::clone(&self.log);
        Instance::start(Arc::clone(topology), settings, Ports::new(log, Arc::clone(&self.clock)))
    }

    fn produce(&self, words: impl IntoIterator<Item = String>) {
        let mut producer = self.log.producer("test", None).expect("a producer");
        producer.init(DEADLINE).expect("the log answers");
        producer.prepare(&["words".into()]).expect("the topic exists");
        producer.begin().expect("an epoch begins");
        for (index, word) in words.into_iter().enumerate() {
            let record = OutRecord {
                topic: OutTopic(0),
                partition: partition_for(word.as_bytes(), PARTITIONS),
                key: Some(word.as_bytes()),
                value: Some(b"x"),
                timestamp_ms: 1_000 + index as i64,
                headers: &Headers::default(),
            };
            producer.send(&record).expect("there is room");
        }
        let group = GroupMetadata {
            group: "test".into(),
            generation: -1,
            member_id: String::new(),
            instance_id: None,
        };
        let commit = Commit {
            batches: Vec::new(),
            offsets: Vec::new(),
            group,
            timeout: DEADLINE,
        };
        producer.start_commit(commit).expect("nothing else is committing");
        let written = std::iter::from_fn(|| Some(producer.poll_commit(DEADLINE)))
            .flatten()
            .next();
        written.expect("an answer").expect("the records are written");
    }

    /// All committed records of a topic: per key its values in order.
    fn read(&self, topic: &str) -> BTreeMap<String, Vec<i64>> {
        let mut consumer = self.log.consumer("test", Isolation::ReadCommitted).expect("a consumer");
        let partitions: Vec<TopicPartition> = (0..PARTITIONS)
            .map(|partition| TopicPartition::new(topic, partition))
            .collect();
        let assignment = |(slot, partition): (usize, &TopicPartition)| Assignment {
            slot: slot as u32,
            partition: partition.clone(),
            offset: 0,
        };
        consumer
            .assign(&partitions.iter().enumerate().map(assignment).collect::<Vec<_>>())
            .expect("the topic exists");
        let mut values: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        while let Some(batch) = consumer.poll(1_000, Duration::from_millis(1)).expect("the log answers") {
            for index in batch.runs().iter().flat_map(|run| run.start..run.end) {
                let record = batch.record(index);
                let key = String::from_utf8(record.key.expect("a key").to_vec()).expect("text");
                let value = i64::from_be_bytes(record.value.expect("a value").try_into().expect("eight bytes"));
                values.entry(key).or_default().push(value);
            }
        }
        values
    }

    /// Waits until the group has committed everything that the sources hold.
    fn wait_until_consumed(&self, application: &str, instances: &[&InstanceHandle]) {
        let topics = ["words".to_owned(), format!("{application}-letters-repartition")];
        let started = self.clock.monotonic();
        let admin = self.log.admin();
        for topic in topics {
            for partition in (0..PARTITIONS).map(|partition| TopicPartition::new(topic.as_str(), partition)) {
                loop {
                    let end = admin
                        .watermarks(&partition, DEADLINE)
                        .map_or(i64::MAX, |watermarks| watermarks.high);
                    let committed = admin.committed(
                        application,
                        std::slice::from_ref(&partition),
                        Duration::from_millis(100),
                    );
                    let at = committed
                        .ok()
                        .and_then(|offsets| offsets[0].as_ref().map(|committed| committed.offset));
                    if at.unwrap_or(0) >= end {
                        break;
                    }
                    assert!(
                        instances.iter().all(|instance| !instance.is_finished()),
                        "an instance ended before {partition} was consumed"
                    );
                    let waited = self.clock.monotonic() - started;
                    assert!(
                        waited < DEADLINE,
                        "{partition} is at {at:?} of {end} after {waited:?}: {:?}",
                        instances.iter().map(|instance| instance.status()).collect::<Vec<_>>()
                    );
                    std::thread::yield_now();
                }
            }
        }
    }
}

fn words(n: usize, distinct: usize) -> impl Iterator<Item = String> {
    (0..n).map(move |index| format!("{}-{}", char::from(b'a' + (index % 3) as u8), index % distinct))
}

/// Every key's outputs must be 1, 2, 3, … up to the number of its inputs.
fn assert_counted(world: &World, topic: &str, expected: &BTreeMap<String, i64>) {
    let read = world.read(topic);
    assert_eq!(read.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (key, values) in read {
        let want: Vec<i64> = (1..=expected[&key]).collect();
        assert_eq!(values, want, "{topic}: {key}");
    }
}

fn expected(all: &[String]) -> (BTreeMap<String, i64>, BTreeMap<String, i64>) {
    let (mut counts, mut totals) = (BTreeMap::new(), BTreeMap::new());
    for word in all {
        *counts.entry(word.clone()).or_insert(0) += 1;
        *totals.entry(word[..1].to_owned()).or_insert(0) += 1;
    }
    (counts, totals)
}

#[test]
fn every_record_is_counted_once_across_a_repartition() {
    let world = World::new();
    let all: Vec<String> = words(5_000, 40).collect();
    world.produce(all.clone());
    let instance = world.start(&counting(), settings("once")).expect("everything is there");
    world.wait_until_consumed("once", &[&instance]);
    instance.stop();
    instance.join().expect("a clean end");
    let (counts, totals) = expected(&all);
    assert_counted(&world, "counts", &counts);
    assert_counted(&world, "totals", &totals);
}

#[test]
fn a_restart_restores_what_was_counted_and_repeats_nothing() {
    let world = World::new();
    let mut all = Vec::new();
    for round in 0..3 {
        let more: Vec<String> = words(1_000 + round, 17).collect();
        world.produce(more.clone());
        all.extend(more);
        let instance = world
            .start(&counting(), settings("again"))
            .expect("everything is there");
        world.wait_until_consumed("again", &[&instance]);
        instance.stop();
        instance.join().expect("a clean end");
    }
    let (counts, totals) = expected(&all);
    assert_counted(&world, "counts", &counts);
    assert_counted(&world, "totals", &totals);
}

#[test]
fn two_instances_share_the_tasks_and_take_over_from_each_other() {
    let world = World::new();
    let mut all: Vec<String> = words(2_000, 23).collect();
    world.produce(all.clone());
    let first = world.start(&counting(), settings("pair")).expect("everything is there");
    world.wait_until_consumed("pair", &[&first]);
    let second = world.start(&counting(), settings("pair")).expect("everything is there");
    let more: Vec<String> = words(2_000, 29).collect();
    world.produce(more.clone());
    all.extend(more);
    world.wait_until_consumed("pair", &[&first, &second]);
    first.stop();
    first.join().expect("a clean end");
    let more: Vec<String> = words(2_000, 31).collect();
    world.produce(more.clone());
    all.extend(more);
    world.wait_until_consumed("pair", &[&second]);
    second.stop();
    second.join().expect("a clean end");
    let (counts, totals) = expected(&all);
    assert_counted(&world, "counts", &counts);
    assert_counted(&world, "totals", &totals);
}

/// How often somebody had to make the group share out its partitions again.
fn rebalances_forced_after_a_stop_in_the_midst_of_giving_up() -> u64 {
    let world = World::new();
    let named = |name: &str| InstanceSettings {
        instance_id: Some(name.to_owned()),
        ..settings("orphans")
    };
    let all: Vec<String> = words(2_000, 23).collect();
    let first = world.start(&counting(), named("first")).expect("everything is there");
    world.produce(all.clone());
    world.wait_until_consumed("orphans", &[&first]);
    first.stop();
    first.join().expect("a clean end");
    // The group takes some of its partitions from the first instance, which is not there to join again.
    let second = world.start(&counting(), named("second")).expect("everything is there");
    let started = world.clock.monotonic();
    while !second.status().ready {
        assert!(world.clock.monotonic() - started < DEADLINE, "{:?}", second.status());
        std::thread::yield_now();
    }
    let first = world.start(&counting(), named("first")).expect("everything is there");
    let more: Vec<String> = words(2_000, 29).collect();
    world.produce(more.clone());
    world.wait_until_consumed("orphans", &[&first, &second]);
    let forced = first.counters().rebalances_forced.get() + second.counters().rebalances_forced.get();
    for instance in [first, second] {
        instance.stop();
        instance.join().expect("a clean end");
    }
    let (counts, totals) = expected(&[all, more].concat());
    assert_counted(&world, "counts", &counts);
    assert_counted(&world, "totals", &totals);
    forced
}

/// Whether the group takes partitions from an instance just when it stops is a matter of threads: it is tried until it does.
#[test]
fn partitions_that_a_static_instance_was_giving_up_when_it_stopped_find_an_owner() {
    let forced = (0..5).any(|_| rebalances_forced_after_a_stop_in_the_midst_of_giving_up() > 0);
    assert!(forced, "without it two tasks would have no owner");
}

/// Joins the group as a static member until somebody else takes the identity from it.
fn impersonate(world: &World, application: &str, instance_id: &str) {
    let settings = MemberSettings {
        group: application.to_owned(),
        topics: vec!["words".into(), format!("{application}-letters-repartition").into()],
        instance_id: Some(instance_id.to_owned()),
        session_timeout: Duration::from_secs(6),
    };
    let mut impostor = world.log.member(&settings).expect("a member");
    let started = world.clock.monotonic();
    loop {
        match impostor.poll(Duration::from_millis(10)) {
            Ok(Some(event)) => impostor.complete(&event).expect("it is a member"),
            Ok(None) => {}
            Err(LogError::NotAMember { .. }) => return,
            Err(error) => panic!("{error}"),
        }
        assert!(
            world.clock.monotonic() - started < DEADLINE,
            "nobody claims the identity"
        );
    }
}

#[test]
fn a_static_instance_that_was_fenced_once_claims_its_identity_and_goes_on() {
    let world = World::new();
    let named = InstanceSettings {
        instance_id: Some("one".to_owned()),
        ..settings("fenced")
    };
    let all: Vec<String> = words(2_000, 23).collect();
    let instance = world.start(&counting(), named).expect("everything is there");
    world.produce(all.clone());
    world.wait_until_consumed("fenced", &[&instance]);
    impersonate(&world, "fenced", "one");
    let more: Vec<String> = words(2_000, 29).collect();
    world.produce(more.clone());
    world.wait_until_consumed("fenced", &[&instance]);
    assert_eq!(instance.counters().members_fenced.get(), 1);
    instance.stop();
    instance.join().expect("a clean end");
    let (counts, totals) = expected(&[all, more].concat());
    assert_counted(&world, "counts", &counts);
    assert_counted(&world, "totals", &totals);
}

#[test]
fn of_two_static_instances_with_one_identity_one_stops_and_says_why() {
    let world = World::new();
    let named = || InstanceSettings {
        instance_id: Some("one".to_owned()),
        ..settings("rivals")
    };
    let all: Vec<String> = words(2_000, 23).collect();
    world.produce(all.clone());
    let mut instances = vec![
        world.start(&counting(), named()).expect("everything is there"),
        world.start(&counting(), named()).expect("everything is there"),
    ];
    let started = world.clock.monotonic();
    let stopped = loop {
        if let Some(stopped) = instances.iter().position(InstanceHandle::is_finished) {
            break instances.remove(stopped);
        }
        assert!(world.clock.monotonic() - started < DEADLINE, "both go on");
        std::thread::yield_now();
    };
    match stopped.join() {
        Err(InstanceError::InstanceIdTaken { instance_id }) => assert_eq!(instance_id, "one"),
        other => panic!("{other:?}"),
    }
    let kept = instances.remove(0);
    world.wait_until_consumed("rivals", &[&kept]);
    kept.stop();
    kept.join().expect("a clean end");
    let (counts, totals) = expected(&all);
    assert_counted(&world, "counts", &counts);
    assert_counted(&world, "totals", &totals);
}

#[test]
fn at_least_once_counts_the_same_while_nothing_fails() {
    let world = World::new();
    let all: Vec<String> = words(1_000, 11).collect();
    world.produce(all.clone());
    let at_least_once = InstanceSettings {
        guarantee: Guarantee::AtLeastOnce,
        ..settings("alo")
    };
    let instance = world.start(&counting(), at_least_once).expect("everything is there");
    world.wait_until_consumed("alo", &[&instance]);
    instance.stop();
    instance.join().expect("a clean end");
    let (counts, totals) = expected(&all);
    assert_counted(&world, "counts", &counts);
    assert_counted(&world, "totals", &totals);
}

#[test]
fn consumed_records_of_a_repartition_topic_are_purged() {
    let world = World::new();
    world.produce(words(500, 7));
    let instance = world
        .start(&counting(), settings("purge"))
        .expect("everything is there");
    world.wait_until_consumed("purge", &[&instance]);
    let admin = world.log.admin();
    let started = world.clock.monotonic();
    let kept = || -> i64 {
        let partitions = (0..PARTITIONS).map(|partition| TopicPartition::new("purge-letters-repartition", partition));
        let kept = partitions.map(|partition| {
            admin
                .watermarks(&partition, DEADLINE)
                .map_or(0, |marks| i64::from(marks.low == 0 && marks.high > 0))
        });
        kept.sum()
    };
    while kept() > 0 {
        assert!(world.clock.monotonic() - started < DEADLINE, "nothing was purged");
        std::thread::yield_now();
    }
    instance.stop();
    instance.join().expect("a clean end");
}

#[test]
fn a_topic_that_is_seen_a_moment_later_is_waited_for() {
    let world = World::new();
    let builder = Builder::new();
    builder
        .stream(&Topic::new("words", Utf8, Utf8))
        .to(&Topic::new("late", Utf8, Utf8));
    let topology = Arc::new(builder.build().expect("the topology is right"));
    std::thread::scope(|scope| {
        let started = scope.spawn(|| world.start(&topology, settings("late")));
        std::thread::park_timeout(Duration::from_millis(50));
        world.create("late");
        let instance = started.join().expect("no panic").expect("the topic is there now");
        instance.stop();
        instance.join().expect("a clean end");
    });
}

#[test]
fn missing_topics_and_changed_plans_are_refused_by_name() {
    let world = World::new();
    let builder = Builder::new();
    builder
        .stream(&Topic::new("nowhere", Utf8, Utf8))
        .to(&Topic::new("counts", Utf8, Utf8));
    let topology = Arc::new(builder.build().expect("the topology is right"));
    let impatient = InstanceSettings {
        startup_timeout: Duration::from_millis(50),
        ..settings("missing")
    };
    match world.start(&topology, impatient) {
        Err(InstanceError::MissingTopic { topic, .. }) => assert_eq!(topic, "nowhere"),
        other => panic!("{:?}", other.err()),
    }
    let instance = world
        .start(&counting(), settings("changed"))
        .expect("everything is there");
    instance.stop();
    instance.join().expect("a clean end");
    let builder = Builder::new();
    builder
        .stream(&Topic::new("words", Utf8, Utf8))
        .group_by_key()
        .count("tallies")
        .to_stream()
        .to(&Topic::new("counts", Utf8, I64Be));
    let changed = Arc::new(builder.build().expect("the topology is right"));
    match world.start(&changed, settings("changed")) {
        Err(InstanceError::PlanChanged { difference, .. }) => assert!(difference.contains("tallies"), "{difference}"),
        other => panic!("{:?}", other.err()),
    }
}
