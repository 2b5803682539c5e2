//! The test kit itself: that it shows what it promises to show.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::codec::{I64Be, Utf8};
use crate::instance::InstanceError;
use crate::operators::{Emit, TumblingWindows};
use crate::record::Record;
use crate::time::Clock;
use crate::topology::{Builder, Topic, Topology};

use super::{TestCluster, TopologyTest};

fn words() -> Topic<String, String> {
    Topic::new("words", Utf8, Utf8)
}

fn counts() -> Topic<String, i64> {
    Topic::new("counts", Utf8, I64Be)
}

fn totals() -> Topic<String, i64> {
    Topic::new("totals", Utf8, I64Be)
}

/// Counts each word, then totals the counts' updates per first letter, across a repartition topic.
fn counting() -> Topology {
    let builder = Builder::new();
    let stream = builder.stream(&words()).group_by_key().count("count").to_stream();
    stream.to(&counts());
    let letters = stream.group_by("letters", |record| record.key.as_ref().map(|word| word[..1].to_owned()));
    letters.count("total").to_stream().to(&totals());
    builder.build().expect("the topology is right")
}

fn word(number: i64) -> Record<String, String> {
    let letter = char::from(b'a' + (number % 3) as u8);
    Record::new(format!("{letter}{}", number % 11), String::new(), number)
}

fn by_key(records: Vec<Record<String, i64>>) -> BTreeMap<String, Vec<i64>> {
    let mut by_key: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for record in records {
        let (Some(key), Some(value)) = (record.key, record.value) else {
            panic!("a count has key and value");
        };
        by_key.entry(key).or_default().push(value);
    }
    by_key
}

/// Every key's outputs are 1, 2, 3, …
fn assert_counted_once(cluster: &mut TestCluster, inputs: i64) {
    for topic in [counts(), totals()] {
        let mut sum = 0;
        for (key, values) in by_key(cluster.read(&topic)) {
            let expected: Vec<i64> = (1..=values.len() as i64).collect();
            assert_eq!(values, expected, "{}: {key}", topic.name());
            sum += values.len() as i64;
        }
        assert_eq!(sum, inputs, "{}", topic.name());
    }
}

#[test]
fn a_topology_is_tested_record_by_record() {
    let mut test = TopologyTest::new(counting());
    test.pipe(&words(), "apple".to_owned(), String::new(), 1);
    test.pipe(&words(), "avocado".to_owned(), String::new(), 2);
    assert_eq!(
        test.read(&totals()),
        [(Some("a".to_owned()), Some(1)), (Some("a".to_owned()), Some(2)),]
    );
    assert_eq!(test.read(&totals()), [], "what was read is not read again");
    let times: Vec<i64> = test
        .read_records(&counts())
        .iter()
        .map(|record| record.timestamp_ms)
        .collect();
    assert_eq!(times, [1, 2]);
}

#[test]
fn windows_close_by_the_time_of_records() {
    let closed = Topic::new("closed", Utf8, I64Be);
    let builder = Builder::new();
    let windowed = builder
        .stream(&words())
        .group_by_key()
        .windowed_by(TumblingWindows::of(Duration::from_secs(1)))
        .emit(Emit::OnClose)
        .count("windowed");
    windowed
        .to_stream()
        .select_key(|record| record.key.as_ref().map(|windowed| windowed.key.clone()))
        .to(&closed);
    let mut test = TopologyTest::new(builder.build().expect("the topology is right"));
    test.pipe(&words(), "a".to_owned(), String::new(), 100);
    test.pipe(&words(), "a".to_owned(), String::new(), 900);
    assert_eq!(test.read(&closed), []);
    test.pipe(&words(), "b".to_owned(), String::new(), 1_000);
    assert_eq!(test.read(&closed), [(Some("a".to_owned()), Some(2))]);
}

#[test]
fn instances_share_the_work_and_crashes_and_restarts_cost_nothing() {
    for seed in 0..20 {
        let mut cluster = TestCluster::new(counting()).instances(3).partitions(4).seed(seed);
        let mut piped = 0;
        let mut pipe = |cluster: &mut TestCluster, records: i64| {
            for _ in 0..records {
                cluster.pipe(&words(), word(piped));
                piped += 1;
            }
        };
        pipe(&mut cluster, 50);
        cluster.settle();
        pipe(&mut cluster, 50);
        cluster.rounds(u32::try_from(seed).expect("a small number"));
        cluster.crash(1);
        pipe(&mut cluster, 50);
        cluster.settle();
        cluster.restart(1);
        pipe(&mut cluster, 50);
        cluster.rounds(3);
        cluster.stop(0);
        let fourth = cluster.start();
        assert_eq!(fourth, 3);
        pipe(&mut cluster, 50);
        cluster.settle();
        assert_counted_once(&mut cluster, 250);
    }
}

#[test]
fn a_crash_of_all_instances_loses_nothing() {
    let mut cluster = TestCluster::new(counting()).instances(2).partitions(3).seed(1);
    for number in 0..100 {
        cluster.pipe(&words(), word(number));
    }
    cluster.rounds(12);
    cluster.crash(0);
    cluster.crash(1);
    cluster.settle();
    cluster.restart(0);
    cluster.settle();
    assert_counted_once(&mut cluster, 100);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut cluster = TestCluster::new(counting()).instances(3).partitions(4).seed(seed);
        for number in 0..200 {
            cluster.pipe(&words(), word(number));
            if number % 50 == 0 {
                cluster.rounds(3);
            }
        }
        cluster.crash(2);
        cluster.settle();
        let output: Vec<_> = cluster
            .read(&totals())
            .into_iter()
            .map(|r| (r.key, r.value, r.timestamp_ms))
            .collect();
        (output, cluster.clock().monotonic())
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5).1, run(6).1, "another seed takes another way");
}

#[test]
fn commit_interval_and_workers_do_not_change_results() {
    let run = |interval_ms, workers, instances| {
        let mut cluster = TestCluster::new(counting())
            .instances(instances)
            .partitions(4)
            .settings(|settings| {
                settings.commit_interval = Duration::from_millis(interval_ms);
                settings.workers = workers;
            });
        for number in 0..300 {
            cluster.pipe(&words(), word(number));
        }
        cluster.settle();
        (by_key(cluster.read(&counts())), by_key(cluster.read(&totals())))
    };
    let expected = run(100, 1, 1);
    for (interval_ms, workers, instances) in [(1, 1, 1), (10, 3, 1), (2_000, 2, 2)] {
        assert_eq!(run(interval_ms, workers, instances), expected);
    }
}

#[test]
fn a_failing_topology_says_which_record_it_failed_on() {
    let builder = Builder::new();
    builder
        .stream(&words())
        .try_map_values(|value: String| match value.as_str() {
            "bad" => Err("it is bad"),
            _ => Ok(value),
        })
        .to(&Topic::new("strict", Utf8, Utf8));
    let mut cluster = TestCluster::new(builder.build().expect("the topology is right"));
    cluster.pipe(&words(), Record::new("key".to_owned(), "bad".to_owned(), 1));
    match cluster.failure() {
        Some(error @ InstanceError::Worker(_)) => assert!(error.to_string().contains("words-0"), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn chaos_changes_nothing_that_is_committed() {
    TestCluster::new(counting())
        .instances(3)
        .partitions(4)
        .settings(|settings| settings.workers = 2)
        .chaos(0..50, |cluster| {
            for number in 0..200 {
                cluster.pipe(&words(), word(number));
                if number % 40 == 39 {
                    cluster.settle();
                }
            }
            assert_counted_once(cluster, 200);
        });
}
