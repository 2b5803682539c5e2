//! Changing the strategy of an application that has state.

use std::time::Duration;

use crate::durability::Durability;
use crate::errors::Coded;
use crate::instance::InstanceError;
use crate::worker::WorkerError;

use super::TestCluster;
use super::snapshot_tests::{cluster, count, counted, expected, pointer, tasks};

/// A cluster that has an object store from the beginning, whatever its strategy.
fn with_store(durability: Durability) -> TestCluster {
    cluster(durability).settings(|settings| settings.savepoints.poll = Duration::from_secs(3600))
}

fn durabilities(cluster: &mut TestCluster) -> [Durability; 2] {
    let world = cluster.world();
    tasks().map(|task| pointer(world, task).durability)
}

fn aborts(cluster: &mut TestCluster) -> u64 {
    cluster.world().counters(0).aborts.get()
}

#[test]
fn every_strategy_is_changed_to_every_other_without_loss_and_a_new_host_restores_by_the_new_one() {
    for from in Durability::ALL {
        for to in Durability::ALL.into_iter().filter(|to| *to != from) {
            let mut cluster = with_store(from).instances(2);
            count(&mut cluster, 0..3);
            cluster.change_durability(to);
            count(&mut cluster, 3..5);
            assert_eq!(durabilities(&mut cluster), [to; 2], "{from:?} to {to:?}");
            assert_eq!(counted(&mut cluster), expected(5), "{from:?} to {to:?}");
            for instance in [0, 1] {
                cluster.stop(instance);
                cluster.lose_disk(instance);
            }
            cluster.restart(0);
            count(&mut cluster, 5..6);
            assert_eq!(counted(&mut cluster), expected(6), "{from:?} to {to:?}, on a new host");
            assert_eq!(cluster.world().counters(0).opened_rebuilt.get(), 2);
        }
    }
}

#[test]
fn nothing_is_done_again_when_an_instance_ends_and_starts_with_another_strategy() {
    for from in Durability::ALL {
        for to in Durability::ALL.into_iter().filter(|to| *to != from) {
            let mut cluster = with_store(from);
            count(&mut cluster, 0..3);
            cluster.change_durability(to);
            count(&mut cluster, 3..5);
            assert_eq!(durabilities(&mut cluster), [to; 2], "{from:?} to {to:?}");
            assert_eq!(aborts(&mut cluster), 0, "{from:?} to {to:?}");
        }
    }
}

#[test]
fn a_disk_from_before_a_change_there_and_back_is_not_taken_for_one_that_is_a_little_behind() {
    for from in Durability::ALL {
        for to in Durability::ALL.into_iter().filter(|to| *to != from) {
            let mut cluster = with_store(from).instances(2);
            count(&mut cluster, 0..3);
            cluster.stop(1);
            cluster.settle();
            count(&mut cluster, 3..4);
            cluster.stop(0);
            // The disk of the other instance stays where it was.
            cluster.restart(1);
            cluster.change_durability(to);
            count(&mut cluster, 4..6);
            cluster.change_durability(from);
            count(&mut cluster, 6..7);
            assert_eq!(durabilities(&mut cluster), [from; 2], "{from:?} to {to:?} and back");
            cluster.stop(1);
            cluster.restart(0);
            count(&mut cluster, 7..8);
            assert_eq!(counted(&mut cluster), expected(8), "{from:?} to {to:?} and back");
        }
    }
}

#[test]
fn rows_that_were_deleted_under_another_strategy_do_not_come_back_with_the_old_changelog() {
    use crate::codec::{I64Be, Utf8};
    use crate::record::Record;
    use crate::topology::{Builder, Topic};
    let rows: Topic<String, i64> = Topic::new("rows", Utf8, I64Be);
    let builder = Builder::new();
    builder.table(&rows, "rows");
    let topology = builder.build().expect("the topology is right");
    let mut cluster = TestCluster::new(topology)
        .durability(Durability::Changelog)
        .settings(|settings| settings.savepoints.poll = Duration::from_secs(3600));
    let (kept, deleted) = ("kept".to_owned(), "deleted".to_owned());
    cluster.pipe(&rows, Record::new(kept.clone(), 1, 0));
    cluster.pipe(&rows, Record::new(deleted.clone(), 1, 1));
    cluster.settle();
    cluster.change_durability(Durability::Snapshot);
    cluster.settle();
    cluster.pipe(&rows, Record::new(deleted.clone(), 0, 2).with_value(None));
    cluster.settle();
    cluster.change_durability(Durability::Changelog);
    cluster.settle();
    cluster.stop(0);
    cluster.lose_disk(0);
    cluster.restart(0);
    cluster.settle();
    assert_eq!(cluster.look_up("rows", Utf8, I64Be, &kept), Some(1));
    assert_eq!(cluster.look_up("rows", Utf8, I64Be, &deleted), None);
}

#[test]
fn a_change_that_is_taken_back_midway_leaves_the_old_strategy_in_force() {
    for to in [Durability::Snapshot, Durability::ChangelogAndSnapshot] {
        let mut cluster = with_store(Durability::Changelog);
        count(&mut cluster, 0..2);
        // No base snapshot can be made, so the change does not come to its end.
        let store = cluster.world().store.clone().expect("a store");
        store.go_away(Duration::from_secs(3600));
        cluster.change_durability(to);
        cluster.rounds(400);
        assert_eq!(durabilities(&mut cluster), [Durability::Changelog; 2], "{to:?}");
        cluster.change_durability(Durability::Changelog);
        store.mend();
        count(&mut cluster, 2..4);
        assert_eq!(durabilities(&mut cluster), [Durability::Changelog; 2], "{to:?}");
        assert_eq!(counted(&mut cluster), expected(4), "{to:?}");
    }
}

#[test]
fn changelogs_are_compacted_again_when_the_last_task_has_changed() {
    let mut cluster = with_store(Durability::Changelog);
    let policy = |cluster: &mut TestCluster| {
        let topic = cluster
            .log()
            .admin()
            .topic("test-count-changelog", Duration::from_secs(1));
        topic.expect("the log answers").expect("it is there").cleanup_policy
    };
    count(&mut cluster, 0..1);
    assert_eq!(policy(&mut cluster), "compact");
    cluster.change_durability(Durability::ChangelogAndSnapshot);
    count(&mut cluster, 1..2);
    assert_eq!(policy(&mut cluster), "delete", "it is trimmed behind snapshots");
    cluster.change_durability(Durability::Changelog);
    count(&mut cluster, 2..3);
    cluster.advance(Duration::from_secs(1));
    assert_eq!(policy(&mut cluster), "compact");
    assert_eq!(counted(&mut cluster), expected(3));
}

#[test]
fn what_the_former_strategy_has_stored_goes_when_the_grace_is_over() {
    let mut cluster = with_store(Durability::Snapshot);
    count(&mut cluster, 0..3);
    cluster.change_durability(Durability::Changelog);
    count(&mut cluster, 3..4);
    let objects = |cluster: &mut TestCluster| cluster.world().store.as_ref().expect("a store").objects().len();
    assert!(objects(&mut cluster) > 0);
    cluster.advance(Duration::from_secs(120));
    assert_eq!(objects(&mut cluster), 0);
    assert_eq!(counted(&mut cluster), expected(4));
}

#[test]
fn without_the_object_store_that_has_the_state_an_instance_stops() {
    let mut cluster = cluster(Durability::Snapshot);
    count(&mut cluster, 0..2);
    cluster.stop(0);
    let world = cluster.world();
    world.site.settings.durability = Durability::Changelog;
    world.slots[0].blobs = None;
    cluster.restart(0);
    match cluster.failure() {
        Some(InstanceError::Worker(error @ WorkerError::StrategyChanged { .. })) => {
            assert_eq!(error.code(), "TG4010");
            assert!(error.to_string().contains("snapshot.url"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn stores_of_different_sub_topologies_have_strategies_of_their_own() {
    use crate::codec::{I64Be, Utf8};
    use crate::record::Record;
    use crate::topology::{Builder, Topic};
    let words: Topic<String, String> = Topic::new("words", Utf8, Utf8);
    let others: Topic<String, String> = Topic::new("others", Utf8, Utf8);
    let topology = || {
        let builder = Builder::new();
        builder.stream(&words).group_by_key().count("here");
        builder.stream(&others).group_by_key().count("there");
        builder.build().expect("the topology is right")
    };
    let mut cluster = TestCluster::new(topology())
        .durability(Durability::Changelog)
        .settings(|settings| {
            settings
                .store_durability
                .insert("there".to_owned(), Durability::Snapshot);
        });
    for number in 0..20 {
        cluster.pipe(&words, Record::new("hail".to_owned(), String::new(), number));
        cluster.pipe(&others, Record::new("hail".to_owned(), String::new(), number));
    }
    cluster.settle();
    cluster.stop(0);
    cluster.lose_disk(0);
    let admin = cluster.log();
    let has_changelog = |store: &str| {
        let topic = admin
            .admin()
            .topic(&format!("test-{store}-changelog"), Duration::from_secs(1));
        topic.expect("the log answers").is_some()
    };
    assert!(has_changelog("here") && !has_changelog("there"));
    cluster.restart(0);
    cluster.settle();
    let hail = "hail".to_owned();
    assert_eq!(cluster.look_up("here", Utf8, I64Be, &hail), Some(20));
    assert_eq!(cluster.look_up("there", Utf8, I64Be, &hail), Some(20));
    let counters = cluster.world().counters(0);
    assert!(counters.restored_bytes.get() > 0 && counters.restore_records.get() > 0);
}

/// A topology of one sub-topology with two stores, of which one is to be `snapshot` and the rest `changelog`.
fn start_with_own_strategy(store: &str) {
    use crate::codec::Utf8;
    use crate::topology::{Builder, Topic};
    let words: Topic<String, String> = Topic::new("words", Utf8, Utf8);
    let builder = Builder::new();
    let grouped = builder.stream(&words).group_by_key();
    grouped.count("here");
    grouped.count("beside");
    let mut cluster = TestCluster::new(builder.build().expect("the topology is right"))
        .durability(Durability::Changelog)
        .settings(|settings| {
            settings.store_durability.insert(store.to_owned(), Durability::Snapshot);
        });
    cluster.start();
}

#[test]
#[should_panic(expected = "\"here\" (changelog) and \"beside\" (snapshot) are stores of one sub-topology")]
fn a_store_may_not_differ_from_those_of_its_sub_topology_that_have_no_strategy_of_their_own() {
    start_with_own_strategy("beside");
}

#[test]
#[should_panic(expected = "the topology has no store \"elsewhere\"")]
fn a_strategy_for_a_store_that_is_not_there_is_refused() {
    start_with_own_strategy("elsewhere");
}

#[test]
#[should_panic(expected = "has cleanup.policy = delete, it must be compact")]
fn a_changelog_that_may_have_lost_records_is_not_taken_for_one_of_another_strategy() {
    let mut cluster = with_store(Durability::Changelog);
    count(&mut cluster, 0..1);
    cluster.stop(0);
    let by_hand = [("cleanup.policy", "delete"), ("retention.bytes", "1000000")];
    let by_hand = by_hand.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let altered = cluster
        .log()
        .admin()
        .alter_topic("test-count-changelog", &by_hand, Duration::from_secs(1));
    altered.expect("the topic can be altered");
    cluster.restart(0);
}

#[test]
fn strategies_change_in_the_midst_of_faults() {
    let cluster = cluster(Durability::Changelog).instances(2).durability_changes();
    cluster.chaos(0..12, |cluster| {
        count(cluster, 0..8);
        assert_eq!(counted(cluster), expected(8));
    });
}
