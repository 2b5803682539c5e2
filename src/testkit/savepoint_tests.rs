//! Savepoints of whole applications, and what starts from them.

use std::sync::Arc;
use std::time::Duration;

use crate::codec::{I64Be, Utf8};
use crate::durability::Durability;
use crate::durability::savepoint::{Form, SavepointName};
use crate::errors::Coded;
use crate::ids::TaskId;
use crate::instance::{Backend, ScratchStates};
use crate::record::Record;
use crate::savepoint::{Origin, Past, SavepointError, Wanted, past};
use crate::topology::{Builder, Topic, Topology};

use super::TestCluster;
use super::savepoints::{put_in_place, simulated_store};

fn words() -> Topic<String, String> {
    Topic::new("words", Utf8, Utf8)
}

/// Counts words, and letters across a repartition topic.
fn letters() -> Topology {
    let builder = Builder::new();
    let counted = builder.stream(&words()).group_by_key().count("count").to_stream();
    counted.to(&Topic::new("counts", Utf8, I64Be));
    let letters = counted.group_by("letters", |record| record.key.as_ref().map(|word| word[..1].to_owned()));
    let total = letters.aggregate("total", || 0_i64, |_, _, total| total + 1);
    total.to_stream().to(&Topic::new("totals", Utf8, I64Be));
    builder.build().expect("the topology is right")
}

/// Counts words, and nothing goes from task to task.
fn counting() -> Topology {
    let builder = Builder::new();
    let counted = builder.stream(&words()).group_by_key().count("count").to_stream();
    counted.to(&Topic::new("counts", Utf8, I64Be));
    builder.build().expect("the topology is right")
}

fn cluster(topology: Topology, durability: Durability) -> TestCluster {
    let cluster = TestCluster::new(topology)
        .partitions(3)
        .instances(2)
        .durability(durability);
    cluster.savepoints().settings(|settings| settings.workers = 2)
}

fn pipe(cluster: &mut TestCluster, numbers: std::ops::Range<i64>) {
    for number in numbers {
        let word = format!("{}{}", ["a", "b", "c"][(number % 3) as usize], number % 17);
        cluster.pipe(&words(), Record::new(word, String::new(), number));
    }
}

#[test]
fn a_fork_goes_on_from_the_moment_of_the_savepoint_under_every_strategy() {
    for durability in Durability::ALL {
        let mut cluster = cluster(letters(), durability);
        pipe(&mut cluster, 0..200);
        cluster.settle();
        // Taken in the midst of work, with records under way through the repartition topic.
        pipe(&mut cluster, 200..400);
        cluster.rounds(3);
        cluster.savepoint("midst");
        pipe(&mut cluster, 400..500);
        cluster.settle();
        let mut fork = cluster.fork("midst", "fork");
        fork.settle();
        cluster.assert_same_as(&mut fork, true);
    }
}

#[test]
fn application_and_fork_run_beside_each_other_and_each_counts_for_itself() {
    for durability in Durability::ALL {
        let mut cluster = cluster(letters(), durability);
        pipe(&mut cluster, 0..100);
        cluster.settle();
        cluster.savepoint("here");
        let mut fork = cluster.fork("here", "fork");
        for part in 1..5 {
            pipe(&mut cluster, part * 100..(part + 1) * 100);
            cluster.rounds_beside(&mut fork, 20);
        }
        cluster.settle();
        fork.settle();
        let total = |cluster: &mut TestCluster| {
            ["a", "b", "c"].map(|letter| cluster.look_up("total", Utf8, I64Be, &letter.to_owned()))
        };
        assert_eq!(total(&mut cluster), [Some(167), Some(167), Some(166)], "{durability:?}");
        assert_eq!(total(&mut fork), total(&mut cluster), "{durability:?}");
        assert_eq!(cluster.state_digest(), fork.state_digest(), "{durability:?}");
    }
}

#[test]
fn a_fork_may_have_another_strategy_and_loses_nothing_with_its_disk() {
    for from in Durability::ALL {
        for to in Durability::ALL {
            let mut cluster = cluster(letters(), from);
            pipe(&mut cluster, 0..150);
            cluster.savepoint("s");
            cluster.settle();
            let forked = cluster.try_fork("s", "fork", |settings| settings.durability = to);
            let mut fork = forked.expect("it can be started");
            fork.settle();
            fork.crash(0);
            fork.lose_disk(0);
            fork.restart(0);
            fork.settle();
            assert_eq!(cluster.state_digest(), fork.state_digest(), "{from:?} to {to:?}");
        }
    }
}

#[test]
fn the_canonical_form_holds_the_same_rows() {
    let mut cluster = cluster(letters(), Durability::Snapshot);
    pipe(&mut cluster, 0..150);
    cluster.settle();
    cluster.try_savepoint("rows", Form::Canonical).expect("it can be taken");
    let store = simulated_store(&mut cluster);
    let files: Vec<String> = store.objects().into_iter().map(|blob| blob.name).collect();
    let of_savepoint: Vec<&String> = files
        .iter()
        .filter(|name| name.starts_with("savepoints/rows/"))
        .collect();
    assert!(
        of_savepoint
            .iter()
            .all(|name| name.ends_with(".tgc") || name.ends_with("/savepoint.json")),
        "{of_savepoint:?}"
    );
    let mut fork = cluster.fork("rows", "fork");
    fork.settle();
    assert_eq!(cluster.state_digest(), fork.state_digest());
}

#[test]
fn a_savepoint_stays_when_all_else_is_deleted_and_its_folder_can_be_copied() {
    let mut cluster = cluster(letters(), Durability::ChangelogAndSnapshot);
    pipe(&mut cluster, 0..150);
    cluster.settle();
    let before = cluster.state_digest();
    cluster.savepoint("kept");
    let store = simulated_store(&mut cluster);
    for blob in store.objects() {
        if let Some(rest) = blob.name.strip_prefix("savepoints/kept/") {
            let mut bytes = None;
            store.change(&blob.name, |object| bytes.clone_from(object));
            store.put_back(&format!("savepoints/copied/{rest}"), bytes);
        }
    }
    // Far longer than the grace, while the collector of the application looks again and again.
    pipe(&mut cluster, 150..300);
    for _ in 0..4 {
        cluster.advance(Duration::from_secs(60));
        cluster.settle();
    }
    for blob in store.objects() {
        if !blob.name.starts_with("savepoints/copied/") {
            store.put_back(&blob.name, None);
        }
    }
    let mut fork = cluster.fork("copied", "fork");
    assert_eq!(fork.state_digest(), 0, "nothing is on its disk yet");
    fork.rounds(200);
    fork.settle();
    assert_ne!(fork.state_digest(), before, "it has gone on");
    assert_eq!(cluster.state_digest(), fork.state_digest());
}

#[test]
fn a_fork_starts_from_past_snapshots_where_tasks_are_independent() {
    let mut cluster = cluster(counting(), Durability::Snapshot);
    for part in 0..4 {
        pipe(&mut cluster, part * 50..(part + 1) * 50);
        cluster.settle();
        cluster.advance(Duration::from_secs(2));
    }
    cluster.settle();
    let as_of_ms = 1_577_836_800_000 + 4_000;
    let wanted = Wanted {
        as_of_ms: Some(as_of_ms),
        ..Wanted::default()
    };
    let mut fork = cluster.try_fork_of_past(&wanted, "past").expect("there are snapshots");
    fork.settle();
    assert_eq!(cluster.state_digest(), fork.state_digest());
    cluster.assert_same_as(&mut fork, true);
    let too_early = Wanted {
        as_of_ms: Some(0),
        ..Wanted::default()
    };
    let refused = cluster
        .try_fork_of_past(&too_early, "earlier")
        .map(|_| ())
        .expect_err("nothing is so old");
    assert_eq!(refused.code(), "TG4211", "{refused}");
}

#[test]
fn past_snapshots_of_tasks_that_depend_on_each_other_are_refused() {
    let mut cluster = cluster(letters(), Durability::Snapshot);
    pipe(&mut cluster, 0..50);
    cluster.settle();
    let refused = cluster.try_fork_of_past(&Wanted::default(), "past").map(|_| ());
    let refused = refused.expect_err("a repartition topic lies between its tasks");
    assert_eq!(refused.code(), "TG4210");
    assert!(refused.to_string().contains("test-letters-repartition"), "{refused}");
}

#[test]
fn state_that_is_there_is_not_overwritten() {
    let mut cluster = cluster(letters(), Durability::Snapshot);
    pipe(&mut cluster, 0..50);
    cluster.settle();
    cluster.savepoint("s");
    let taken = cluster.try_savepoint("s", Form::Native).expect_err("the name is taken");
    assert!(matches!(taken, SavepointError::Exists { .. }), "{taken}");
    let mut fork = cluster.fork("s", "fork");
    fork.settle();
    let code = |error: SavepointError| error.code();
    let running = cluster.try_fork("s", "fork", |_| {}).map(|_| ()).map_err(code);
    assert_eq!(running, Err("TG4206"), "the fork runs");
    fork.stop(0);
    let stopped = cluster.try_fork("s", "fork", |_| {}).map(|_| ()).map_err(code);
    assert_eq!(stopped, Err("TG4207"), "the fork has gone on");
}

#[test]
fn a_restore_that_is_interrupted_leaves_nothing_that_starts_and_can_be_repeated() {
    for durability in Durability::ALL {
        let mut cluster = cluster(letters(), durability);
        pipe(&mut cluster, 0..150);
        cluster.settle();
        cluster.savepoint("s");
        // The last task's files are missing: the ones before it are in place when that is noticed.
        let store = simulated_store(&mut cluster);
        let names = store.objects().into_iter().map(|blob| blob.name);
        let mut last = names.filter(|name| name.starts_with("savepoints/s/") && name.contains("/1_2/"));
        let last = last.next_back().expect("task 1_2 has files");
        let mut bytes = None;
        store.change(&last, |object| bytes = object.take());
        let interrupted = cluster.try_fork("s", "fork", |_| {}).map(|_| ());
        assert_eq!(
            interrupted.map_err(|error| error.code()),
            Err("TG1201"),
            "{durability:?}"
        );
        let mut early = cluster.beside("fork", |_| {});
        early.world().add();
        let refused = early.failure().expect("it finds state without offsets");
        assert_eq!(refused.code(), "TG4004", "{durability:?}: {refused}");
        drop(early);
        cluster.advance(Duration::from_secs(20));
        store.put_back(&last, bytes);
        let mut fork = cluster.fork("s", "fork");
        fork.settle();
        assert_eq!(cluster.state_digest(), fork.state_digest(), "{durability:?}");
    }
}

#[test]
fn an_application_goes_back_to_its_own_savepoint_in_place() {
    for durability in Durability::ALL {
        let mut cluster = cluster(letters(), durability);
        pipe(&mut cluster, 0..100);
        cluster.settle();
        cluster.savepoint("s");
        pipe(&mut cluster, 100..200);
        cluster.settle();
        let digest = cluster.state_digest();
        let counts: Topic<String, i64> = Topic::new("counts", Utf8, I64Be);
        assert_eq!(cluster.read(&counts).len(), 200);
        let running = cluster.try_replace("s").expect_err("its instances run");
        assert_eq!(running.code(), "TG4206", "{durability:?}");
        cluster.stop(0);
        cluster.stop(1);
        let replaced = cluster.try_replace("s").map_err(|error| error.code());
        assert_eq!(replaced, Ok(()), "{durability:?}");
        cluster.restart(0);
        cluster.restart(1);
        cluster.settle();
        assert_eq!(
            cluster.read(&counts).len(),
            100,
            "{durability:?}: what came after it is done again"
        );
        assert_eq!(
            cluster.state_digest(),
            digest,
            "{durability:?}: on the state of the savepoint, not of the disks"
        );
    }
}

#[test]
fn state_moves_between_backends() {
    let mut cluster = cluster(counting(), Durability::Snapshot);
    pipe(&mut cluster, 0..150);
    cluster.settle();
    cluster.try_savepoint("rows", Form::Canonical).expect("it can be taken");
    cluster.savepoint("files");
    let directory = tempfile::tempdir().expect("a directory");
    for name in ["rows", "files"] {
        let name: SavepointName = name.parse().expect("a name");
        let archive = cluster.world().archive();
        let savepoint = archive.read(&name).expect("it is there");
        let origin = Origin::of_savepoint(archive.store, &savepoint, &name.folder());
        // Into RocksDB, and from there back into memory.
        let application = format!("rocks-{name}");
        let mut on_rocks = cluster.beside(&application, |settings| settings.state.backend = Backend::RocksDb);
        let scratch = ScratchStates::new(directory.path().join(&application));
        put_in_place(&origin, on_rocks.world(), &scratch, false).expect("it can be put in place");
        let world = on_rocks.world();
        let topology = Arc::clone(&world.site.topology);
        let of = Past {
            store: world.calm_store(),
            application: &application,
            plan: topology.plan(),
            tasks: world.tasks(),
        };
        let origin = past(&of, &Wanted::default()).expect("it has base snapshots");
        assert!(origin.tasks.iter().all(|task| task.backend == "rocksdb"));
        let mut back = cluster.beside(&format!("memory-{name}"), |_| {});
        let scratch = ScratchStates::new(directory.path().join(format!("memory-{name}")));
        put_in_place(&origin, back.world(), &scratch, false).expect("it can be put in place");
        back.world().add();
        back.settle();
        assert_eq!(cluster.state_digest(), back.state_digest(), "{name}");
    }
}

#[test]
fn tasks_that_stand_still_in_vain_go_on_and_the_savepoint_is_given_up() {
    let mut cluster = cluster(letters(), Durability::Snapshot);
    pipe(&mut cluster, 0..50);
    cluster.settle();
    // An instance stands still without losing its tasks. The other one has tasks of the first stage, and waits for it no longer than it may.
    let running = |cluster: &mut TestCluster, number: usize| {
        let instance = cluster.world().slots[number].instance.as_ref().expect("it runs");
        instance.running_tasks()
    };
    let is_first = |task: &TaskId| task.sub_topology == 0;
    let waiting = (0..2).find(|number| running(&mut cluster, *number).iter().any(is_first));
    let waiting = waiting.expect("somebody runs them");
    assert!(running(&mut cluster, waiting).len() < 6, "the other one has tasks, too");
    cluster.pause(1 - waiting, Duration::from_millis(5_500));
    let given_up = cluster
        .try_savepoint("s", Form::Native)
        .expect_err("one does not answer");
    assert!(matches!(given_up, SavepointError::GivenUp { .. }), "{given_up}");
    assert!(given_up.to_string().contains("savepoint.timeout"), "{given_up}");
    pipe(&mut cluster, 50..100);
    cluster.settle();
    assert!(cluster.savepoints_taken().is_empty());
    cluster.savepoint("again");
    let mut fork = cluster.fork("again", "fork");
    fork.settle();
    assert_eq!(cluster.state_digest(), fork.state_digest());
}

#[test]
fn damage_to_a_savepoint_is_found_and_it_can_be_deleted() {
    let mut cluster = cluster(letters(), Durability::Snapshot);
    pipe(&mut cluster, 0..50);
    cluster.settle();
    cluster.savepoint("s");
    let name: SavepointName = "s".parse().expect("a name");
    let archive = cluster.world().archive();
    let whole = archive.verify(&name, &mut |_| {}).expect("it can be read");
    assert!(whole.problems.is_empty() && whole.objects > 0, "{whole:?}");
    let store = simulated_store(&mut cluster);
    let of_savepoint = |name: &String| name.starts_with("savepoints/s/") && !name.ends_with(".json");
    for object in store.objects().into_iter().map(|blob| blob.name).filter(of_savepoint) {
        let mut whole = None;
        store.change(&object, |bytes| {
            whole.clone_from(bytes);
            bytes.as_mut().expect("it is there")[3] ^= 4;
        });
        let verified = archive.verify(&name, &mut |_| {}).expect("it can be read");
        assert!(
            verified.problems.iter().all(|problem| problem.contains(&object)),
            "{verified:?}"
        );
        assert!(!verified.problems.is_empty(), "{object}");
        let refused = cluster
            .try_fork("s", "fork", |_| {})
            .map(|_| ())
            .map_err(|error| error.code());
        assert_eq!(refused, Err("TG3011"), "{object}");
        store.put_back(&object, whole);
    }
    let objects = archive.delete(&name).expect("it can be deleted");
    assert!(objects > whole.objects);
    assert!(!store.objects().iter().any(|blob| blob.name.starts_with("savepoints/")));
    let gone = archive.read(&name).map(|_| ()).map_err(|error| error.code());
    assert_eq!(gone, Err("TG4202"));
}

#[test]
fn a_request_that_nobody_waits_for_is_in_nobodys_way() {
    let mut cluster = cluster(letters(), Durability::Changelog);
    pipe(&mut cluster, 0..50);
    cluster.settle();
    cluster.stop(0);
    cluster.stop(1);
    let nobody = cluster.try_savepoint("s", Form::Native).expect_err("no instance runs");
    assert_eq!(nobody.code(), "TG4203", "{nobody}");
    cluster.restart(0);
    cluster.settle();
    cluster.savepoint("s");
    assert_eq!(cluster.savepoints_taken(), ["s"]);
}
