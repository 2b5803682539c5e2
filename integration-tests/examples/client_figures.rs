//! Figures of the Kafka adapter alone, on a running broker: how long a commit takes, and how fast batches are read.
//!
//! `cargo run --release -p tidegate-integration-tests --example client_figures -- 127.0.0.1:9092`

// It measures, so it reads the clock.
#![allow(clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use tidegate::ids::TopicPartition;
use tidegate::log::kafka::{KafkaLog, KafkaSettings};
use tidegate::log::{Assignment, Isolation, Log, OutRecord, OutTopic, Producer};
use tidegate::record::Headers;
use tidegate_integration_tests::broker::unique;
use tidegate_integration_tests::drive::{PATIENCE, commit_of, create, finish, no_group, producer, sole_member};

const COMMITS: usize = 300;
const RECORDS: usize = 4_000_000;
const PARTITIONS: i32 = 4;

fn main() {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9092".to_owned());
    let log = KafkaLog::new(KafkaSettings::new(address)).expect("valid settings");
    commits(&*log);
    throughput(&*log);
}

fn send(producer: &mut dyn Producer, number: usize, value: &[u8]) {
    let key = (number as u128).to_be_bytes();
    let record = OutRecord {
        topic: OutTopic(0),
        partition: (number % PARTITIONS as usize) as i32,
        key: Some(&key),
        value: Some(value),
        timestamp_ms: 1_700_000_000_000,
        headers: &Headers::default(),
    };
    while let Err(error) = producer.send(&record) {
        assert!(matches!(error, tidegate::log::LogError::QueueFull), "{error}");
        std::thread::yield_now();
    }
}

fn commits(log: &dyn Log) {
    let (topic, group) = (unique("commits"), unique("group"));
    create(log, &topic, PARTITIONS, &[]);
    let mut member = sole_member(log, &group, &topic, PARTITIONS as usize);
    let mut producer = producer(log, Some(&unique("id")), &[&topic]);
    for pause in [Duration::from_millis(50), Duration::ZERO] {
        let mut took: Vec<Duration> = Vec::with_capacity(COMMITS);
        for number in 0..COMMITS {
            producer.begin().expect("a transaction");
            send(&mut *producer, number, &[7; 100]);
            std::thread::park_timeout(pause);
            let offsets = [(
                TopicPartition::new(topic.as_str(), 0),
                number as i64,
                "a pointer of some thirty bytes",
            )];
            let begun = Instant::now();
            finish(&mut *producer, commit_of(member.metadata(), &offsets)).expect("it commits");
            took.push(begun.elapsed());
            member.step(Duration::ZERO).expect("the member stays healthy");
        }
        took.sort();
        let at = |share: f64| took[((COMMITS - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        println!(
            "commit, 1 record per {pause:?}: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
    let begun = Instant::now();
    drop(producer);
    println!("an idle producer is dropped in {:?}", begun.elapsed());
    let begun = Instant::now();
    member.leave();
    println!("a member leaves in {:?}", begun.elapsed());
}

/// CPU time of this process so far; the kernel counts it in hundredths of a second.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = |field: usize| {
        stat.split(' ')
            .nth(field)
            .and_then(|ticks| ticks.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let (user, system) = (13, 14);
    Duration::from_millis((ticks(user) + ticks(system)) * 10)
}

fn throughput(log: &dyn Log) {
    let topic = unique("throughput");
    create(log, &topic, PARTITIONS, &[]);
    let mut producer = producer(log, Some(&unique("id")), &[&topic]);
    let (begun, cpu_before) = (Instant::now(), cpu());
    let mut sent = 0;
    while sent < RECORDS {
        producer.begin().expect("a transaction");
        for _ in 0..RECORDS / 20 {
            send(&mut *producer, sent, &[7; 100]);
            sent += 1;
        }
        finish(&mut *producer, commit_of(no_group(), &[])).expect("it commits");
    }
    report("produced", begun.elapsed(), cpu() - cpu_before);
    drop(producer);

    let mut consumer = log.consumer("figures", Isolation::ReadCommitted).expect("a consumer");
    let assignment: Vec<_> = (0..PARTITIONS)
        .map(|partition| Assignment {
            slot: partition as u32,
            partition: TopicPartition::new(topic.as_str(), partition),
            offset: 0,
        })
        .collect();
    consumer.assign(&assignment).expect("the partitions can be assigned");
    let (begun, cpu_before) = (Instant::now(), cpu());
    let (mut read, mut bytes, mut batches) = (0, 0, 0);
    let mut looking = Duration::ZERO;
    while read < RECORDS {
        let Some(batch) = consumer.poll(10_000, Duration::from_millis(100)).expect("readable") else {
            assert!(begun.elapsed() < PATIENCE, "records come");
            continue;
        };
        batches += 1;
        let looked = Instant::now();
        for index in batch.runs().iter().flat_map(|run| run.start..run.end) {
            let record = batch.record(index);
            bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
            read += 1;
        }
        looking += looked.elapsed();
    }
    report("read", begun.elapsed(), cpu() - cpu_before);
    let per_record = looking.as_nanos() as f64 / read as f64;
    println!("{batches} batches, {bytes} bytes, record() {per_record:.1} ns each");
    log.admin()
        .delete_topic(&topic, PATIENCE)
        .expect("the topic can be deleted");
}

fn report(what: &str, took: Duration, cpu: Duration) {
    let per_second = RECORDS as f64 / took.as_secs_f64() / 1e3;
    let each = cpu.as_nanos() as f64 / RECORDS as f64;
    println!("{what} {RECORDS} records of 116 bytes: {per_second:.0} k/s, {each:.0} ns of process CPU each");
}
