//! Whole applications that go on while the object store is away, with a spill topic.

use std::time::Duration;

use crate::durability::Durability;
use crate::durability::snapshot::{IncrementRef, Place, spill_partition};
use crate::log::Log;
use crate::record::Record;

use super::TestCluster;
use super::snapshot_tests::{
    assert_holds_what_is_referred_to, cluster, count, counted, counts, expected, pointer, tasks, words,
};

fn spilling() -> TestCluster {
    cluster(Durability::Snapshot).settings(|settings| settings.snapshots.spill = true)
}

fn go_away(cluster: &mut TestCluster) {
    let store = cluster.world().store.clone().expect("a store");
    store.go_away(Duration::from_secs(36_000));
}

fn come_back(cluster: &mut TestCluster) {
    cluster.world().store.clone().expect("a store").mend();
    cluster.advance(Duration::from_secs(20));
    cluster.settle();
}

/// The low and the high end of what the first task has spilled.
fn spilled(cluster: &mut TestCluster) -> (i64, i64) {
    let partition = spill_partition("test", tasks()[0]);
    let admin = cluster.world().log.admin();
    let marks = admin.watermarks(&partition, Duration::from_secs(1)).expect("an answer");
    (marks.low, marks.high)
}

#[test]
fn with_a_spill_topic_commits_go_on_without_the_object_store_and_back_to_it() {
    let mut cluster = spilling();
    count(&mut cluster, 0..3);
    cluster.read(&counts());
    let packs = cluster.world().counters(0).packs_stored.get();
    go_away(&mut cluster);
    count(&mut cluster, 3..9);
    assert_eq!(cluster.read(&counts()).len(), 120, "all is committed");
    let counters = cluster.world().counters(0);
    assert_eq!((counters.aborts.get(), counters.packs_stored.get()), (0, packs));
    assert!(counters.spilled_epochs.get() > 0 && counters.spilled_bytes.get() > 0);
    assert_eq!(counters.degraded.get(), 1);
    for task in tasks() {
        let state = pointer(cluster.world(), task).state;
        assert!(
            matches!(
                state.increment,
                Some(IncrementRef {
                    place: Place::Spilled(_),
                    ..
                })
            ),
            "{state:?}"
        );
    }
    come_back(&mut cluster);
    count(&mut cluster, 9..11);
    let counters = cluster.world().counters(0);
    assert_eq!(counters.degraded.get(), 0);
    assert!(counters.packs_stored.get() > packs, "increments go to the store again");
    assert_eq!(counted(&mut cluster), expected(11));
}

#[test]
fn a_host_without_a_disk_gets_its_state_from_packs_and_from_what_was_spilled_between_them() {
    let mut cluster = spilling().settings(|settings| {
        // No base after the first: the chain has packs, spilled increments, and packs again.
        settings.snapshots.limits.interval = Duration::from_secs(86_400);
        settings.snapshots.limits.max_objects = 1_000;
    });
    count(&mut cluster, 0..4);
    go_away(&mut cluster);
    count(&mut cluster, 4..44);
    come_back(&mut cluster);
    count(&mut cluster, 44..48);
    cluster.crash(0);
    cluster.lose_disk(0);
    cluster.restart(0);
    cluster.settle();
    assert_eq!(counted(&mut cluster), expected(48));
    let counters = cluster.world().counters(0);
    assert!(
        counters.restored_spilled.get() >= 40,
        "{}",
        counters.restored_spilled.get()
    );
}

#[test]
fn a_host_without_a_disk_waits_for_the_store_and_loses_nothing_of_what_was_spilled() {
    let mut cluster = spilling();
    count(&mut cluster, 0..3);
    go_away(&mut cluster);
    count(&mut cluster, 3..6);
    cluster.crash(0);
    cluster.lose_disk(0);
    cluster.restart(0);
    cluster.advance(Duration::from_secs(60));
    assert_eq!(cluster.world().counters(0).tasks_running.get(), 0, "they wait");
    come_back(&mut cluster);
    count(&mut cluster, 6..7);
    assert_eq!(counted(&mut cluster), expected(7));
}

#[test]
fn a_restart_on_the_same_disk_needs_no_store_while_increments_are_spilled() {
    let mut cluster = spilling();
    count(&mut cluster, 0..3);
    go_away(&mut cluster);
    count(&mut cluster, 3..6);
    cluster.stop(0);
    cluster.restart(0);
    count(&mut cluster, 6..9);
    assert_eq!(counted(&mut cluster), expected(9));
    assert_eq!(cluster.world().counters(0).opened_current.get(), 2);
}

#[test]
fn the_spill_topic_is_trimmed_behind_bases_and_packs_that_came_late_are_collected() {
    let mut cluster = spilling();
    count(&mut cluster, 0..3);
    for round in 0..3 {
        go_away(&mut cluster);
        let from = 3 + round * 6;
        count(&mut cluster, from..from + 3);
        assert!(spilled(&mut cluster).0 < spilled(&mut cluster).1);
        come_back(&mut cluster);
        count(&mut cluster, from + 3..from + 6);
    }
    for _ in 0..3 {
        cluster.advance(Duration::from_secs(60));
        cluster.pipe(&words(), Record::new("w1".to_owned(), String::new(), 1_000));
        cluster.pipe(&words(), Record::new("w2".to_owned(), String::new(), 1_000));
        cluster.settle();
        cluster.advance(Duration::from_secs(5));
    }
    cluster.advance(Duration::from_secs(60));
    cluster.settle();
    let (low, high) = spilled(&mut cluster);
    assert_eq!(low, high, "every base that stays is newer than what was spilled");
    assert_holds_what_is_referred_to(&mut cluster);
    assert!(cluster.world().counters(0).objects_collected.get() > 0);
}
