//! The test kit itself: that it shows what it promises to show.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
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

/// Numbers the words in a variable of its own, which no commit knows and no abort takes back.
fn numbering_by_itself() -> Topology {
    let number = AtomicI64::new(0);
    let builder = Builder::new();
    let numbered = builder
        .stream(&words())
        .map_values(move |_| number.fetch_add(1, Ordering::SeqCst) + 1);
    numbered.to(&counts());
    builder.build().expect("the topology is right")
}

/// Fails if a word did not get the number of its turn.
fn expect_numbers(cluster: &mut TestCluster) {
    for number in 0..60 {
        cluster.pipe(&words(), word(number));
    }
    cluster.settle();
    let numbers: Vec<_> = cluster
        .read(&counts())
        .into_iter()
        .filter_map(|record| record.value)
        .collect();
    assert_eq!(numbers, (1..=60).collect::<Vec<_>>());
}

#[test]
fn chaos_finds_hidden_state_and_tells_it_with_as_few_faults_as_it_takes() {
    expect_numbers(&mut TestCluster::new(numbering_by_itself()));
    // Each run numbers from 1: the topology is made anew for it.
    let explored = |seed: u64| TestCluster::new(numbering_by_itself()).explore(seed, expect_numbers);
    let failed = (0..20)
        .map(|seed| (seed, explored(seed)))
        .find(|(_, run)| run.failure.is_some());
    let (seed, failed) = failed.expect("an epoch is redone in one of these runs");
    let before = failed.faults.len();
    let cluster = TestCluster::new(Arc::new(numbering_by_itself()));
    let shrunk = cluster.shrink(seed, failed, |cluster| {
        cluster.setup.topology = Arc::new(numbering_by_itself());
        expect_numbers(cluster);
    });
    assert!(shrunk.failure.is_some());
    assert!(
        shrunk.faults.len() < before,
        "{} of {before} faults are left",
        shrunk.faults.len()
    );
    assert!(shrunk.faults.len() <= 2, "one redone epoch is enough: {}", shrunk.story);
    let told = shrunk
        .faults
        .iter()
        .all(|fault| shrunk.story.contains(&format!("fault {fault},")));
    assert!(told, "the story names them: {}", shrunk.story);
}

#[test]
fn the_same_seed_tells_the_same_story_byte_for_byte() {
    let cluster = TestCluster::new(counting()).instances(3).partitions(2);
    let tell = |seed| {
        let run = cluster.explore(seed, |cluster| {
            (0..100).for_each(|number| cluster.pipe(&words(), word(number)));
            cluster.settle();
        });
        (run.story, run.happened)
    };
    for seed in 0..10 {
        assert_eq!(tell(seed), tell(seed));
    }
    assert_ne!(tell(1).0, tell(2).0);
}

#[test]
fn stores_can_be_looked_into() {
    let mut cluster = TestCluster::new(counting()).instances(2).partitions(3);
    for number in 0..33 {
        cluster.pipe(&words(), word(number));
    }
    cluster.settle();
    assert_eq!(cluster.look_up("count", Utf8, I64Be, &"a0".to_owned()), Some(1));
    assert_eq!(cluster.look_up("total", Utf8, I64Be, &"a".to_owned()), Some(11));
    assert_eq!(cluster.look_up("total", Utf8, I64Be, &"z".to_owned()), None);
}

#[test]
#[should_panic(expected = "there is no store counts")]
fn a_store_that_does_not_exist_is_named() {
    let mut cluster = TestCluster::new(counting());
    cluster.look_up("counts", Utf8, I64Be, &"a0".to_owned());
}

#[test]
fn an_instance_that_stands_still_or_is_cut_off_is_replaced_and_does_no_harm_when_it_is_back() {
    for (seed, cut) in [(1, false), (2, true), (3, false), (4, true)] {
        let mut cluster = TestCluster::new(counting()).instances(2).partitions(4).seed(seed);
        (0..50).for_each(|number| cluster.pipe(&words(), word(number)));
        cluster.rounds(15);
        match cut {
            true => cluster.partition(0, Duration::from_secs(30)),
            false => cluster.pause(0, Duration::from_secs(30)),
        }
        (50..100).for_each(|number| cluster.pipe(&words(), word(number)));
        cluster.advance(Duration::from_secs(20));
        let meanwhile = cluster.read(&counts()).len();
        assert_eq!(meanwhile, 100, "the other one has taken over");
        (100..150).for_each(|number| cluster.pipe(&words(), word(number)));
        cluster.settle();
        assert_eq!(cluster.read(&counts()).len(), 50);
        assert_eq!(cluster.look_up("total", Utf8, I64Be, &"a".to_owned()), Some(50));
    }
}

#[test]
fn a_crash_keeps_the_disk_and_a_lost_disk_is_made_up_for() {
    for lost in [false, true] {
        let mut cluster = TestCluster::new(counting()).partitions(2);
        (0..100).for_each(|number| cluster.pipe(&words(), word(number)));
        cluster.settle();
        cluster.crash(0);
        if lost {
            cluster.lose_disk(0);
        }
        cluster.restart(0);
        (100..120).for_each(|number| cluster.pipe(&words(), word(number)));
        cluster.settle();
        assert_counted_once(&mut cluster, 120);
        let counters = cluster.world().counters(0);
        assert_eq!(
            counters.restore_records.get() > 0,
            lost,
            "records are restored only where the disk is lost"
        );
    }
}

#[test]
fn static_members_come_back_without_a_rebalance() {
    let mut cluster = TestCluster::new(counting()).instances(2).partitions(2).static_members();
    (0..50).for_each(|number| cluster.pipe(&words(), word(number)));
    cluster.settle();
    cluster.crash(0);
    cluster.restart(0);
    (50..100).for_each(|number| cluster.pipe(&words(), word(number)));
    cluster.settle();
    assert_counted_once(&mut cluster, 100);
    let counters = cluster.world().counters(0);
    let opened = [
        counters.opened_fresh.get(),
        counters.opened_current.get(),
        counters.opened_replayed.get(),
        counters.opened_rebuilt.get(),
    ];
    assert!(opened[1] > 0, "its own tasks, on its own disk");
    assert_eq!(opened[2..], [0, 0], "nothing is restored");
}

#[test]
fn gauges_say_what_an_open_epoch_holds_and_nothing_once_it_is_committed() {
    let mut cluster = TestCluster::new(counting()).settings(|settings| {
        settings.commit_interval = Duration::from_secs(5);
    });
    (0..50).for_each(|number| cluster.pipe(&words(), word(number)));
    cluster.rounds(30);
    let counters = cluster.world().counters(0);
    assert_eq!(counters.records_processed.get(), 50);
    assert!(counters.overlay_bytes.get() > 0);
    cluster.settle();
    assert_eq!(counters.overlay_bytes.get(), 0);
    assert_eq!(counters.buffered_records.get(), 0);
    assert_eq!(counters.parked_bytes.get(), 0);
}
