//! Whole applications whose state lives in an object store.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::codec::{I64Be, Utf8};
use crate::durability::snapshot::{IncrementRef, Manifest, PACKS_FOLDER, SnapshotId};
use crate::durability::{Durability, Pointer};
use crate::errors::Coded;
use crate::ids::TaskId;
use crate::instance::{InstanceError, InstanceSettings};
use crate::record::Record;
use crate::topology::{Builder, Topic, Topology};
use crate::worker::NotOpened;

use super::TestCluster;
use super::store::SimulatedStore;
use super::world::{APPLICATION, World};

const STRATEGIES: [Durability; 2] = [Durability::Snapshot, Durability::ChangelogAndSnapshot];

pub(super) fn words() -> Topic<String, String> {
    Topic::new("words", Utf8, Utf8)
}

pub(super) fn counts() -> Topic<String, i64> {
    Topic::new("counts", Utf8, I64Be)
}

fn counting() -> Topology {
    let builder = Builder::new();
    let counted = builder.stream(&words()).group_by_key().count("count");
    counted.to_stream().to(&counts());
    builder.build().expect("the topology is right")
}

pub(super) fn cluster(durability: Durability) -> TestCluster {
    TestCluster::new(counting()).partitions(2).durability(durability)
}

/// Pipes so many records in, in several epochs, with time for base snapshots in between.
pub(super) fn count(cluster: &mut TestCluster, chapters: std::ops::Range<i64>) {
    for chapter in chapters {
        for number in 0..20 {
            let word = format!("w{}", (number + chapter) % 17);
            cluster.pipe(&words(), Record::new(word, String::new(), chapter * 20 + number));
        }
        cluster.settle();
        cluster.advance(Duration::from_millis(700));
    }
    cluster.settle();
}

/// What the store has for each word.
pub(super) fn counted(cluster: &mut TestCluster) -> BTreeMap<String, i64> {
    let all = (0..17).map(|number| format!("w{number}"));
    let found = all.filter_map(|word| Some((word.clone(), cluster.look_up("count", Utf8, I64Be, &word)?)));
    found.collect()
}

pub(super) fn expected(chapters: i64) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for chapter in 0..chapters {
        for number in 0..20 {
            *counts.entry(format!("w{}", (number + chapter) % 17)).or_default() += 1;
        }
    }
    counts
}

pub(super) fn tasks() -> [TaskId; 2] {
    [0, 1].map(|partition| TaskId {
        sub_topology: 0,
        partition,
    })
}

pub(super) fn pointer(world: &World, task: TaskId) -> Pointer {
    let input = crate::ids::TopicPartition::new("words", task.partition);
    let committed = world
        .outside
        .committed(APPLICATION, &[input])
        .expect("nothing is pending");
    let committed = committed.into_iter().next().flatten().expect("offsets are committed");
    Pointer::from_metadata(&committed.metadata).expect("a pointer")
}

#[test]
fn a_host_without_a_disk_gets_its_state_from_the_object_store() {
    for durability in STRATEGIES {
        let mut cluster = cluster(durability);
        count(&mut cluster, 0..6);
        cluster.crash(0);
        cluster.lose_disk(0);
        cluster.restart(0);
        count(&mut cluster, 6..7);
        assert_eq!(counted(&mut cluster), expected(7), "{durability:?}");
        let counters = cluster.world().counters(0);
        assert!(counters.restored_bytes.get() > 0, "{durability:?}");
        assert_eq!(counters.opened_rebuilt.get(), 2, "{durability:?}");
    }
}

#[test]
fn a_host_with_its_disk_fetches_nothing() {
    for durability in STRATEGIES {
        let mut cluster = cluster(durability);
        count(&mut cluster, 0..6);
        cluster.stop(0);
        cluster.restart(0);
        cluster.settle();
        let counters = cluster.world().counters(0);
        assert_eq!(
            (counters.restored_bytes.get(), counters.opened_current.get()),
            (0, 2),
            "{durability:?}"
        );
    }
}

#[test]
fn with_snapshots_alone_there_are_no_changelog_topics_and_with_both_they_are_trimmed() {
    use crate::log::Log;
    let changelog = crate::ids::TopicPartition::new("test-count-changelog", 0);
    let timeout = Duration::from_secs(1);
    let mut cluster_of_one = cluster(Durability::Snapshot);
    count(&mut cluster_of_one, 0..3);
    let admin = cluster_of_one.world().log.admin();
    assert!(admin.topic(&changelog.topic, timeout).expect("an answer").is_none());
    let mut cluster_of_both = cluster(Durability::ChangelogAndSnapshot);
    count(&mut cluster_of_both, 0..12);
    cluster_of_both.advance(Duration::from_secs(60));
    count(&mut cluster_of_both, 12..24);
    cluster_of_both.advance(Duration::from_secs(60));
    let marks = cluster_of_both
        .world()
        .log
        .admin()
        .watermarks(&changelog, timeout)
        .expect("an answer");
    assert!(0 < marks.low && marks.low < marks.high, "{marks:?}");
}

#[test]
fn while_the_object_store_is_away_nothing_is_lost_and_with_changelogs_nothing_waits() {
    let mut with_changelogs = cluster(Durability::ChangelogAndSnapshot);
    let mut without = cluster(Durability::Snapshot);
    for cluster in [&mut with_changelogs, &mut without] {
        count(cluster, 0..3);
        cluster.read(&counts());
        cluster
            .world()
            .store
            .as_ref()
            .expect("a store")
            .go_away(Duration::from_secs(3_600));
        cluster.pipe(&words(), Record::new("w1".to_owned(), String::new(), 1_000));
        cluster.advance(Duration::from_secs(20));
    }
    assert_eq!(with_changelogs.read(&counts()).len(), 1);
    assert_eq!(without.read(&counts()).len(), 0, "it is not committed yet");
    let counters = without.world().counters(0);
    assert!(counters.aborts.get() > 0 && counters.degraded.get() == 1);
    without.world().store.as_ref().expect("a store").mend();
    without.settle();
    without.advance(Duration::from_secs(20));
    assert_eq!(without.read(&counts()).len(), 1);
    assert_eq!(without.world().counters(0).degraded.get(), 0);
}

#[test]
fn an_object_store_that_is_away_for_longer_than_a_restore_may_take_stops_nobody() {
    let mut cluster = cluster(Durability::Snapshot);
    count(&mut cluster, 0..3);
    cluster.read(&counts());
    let store = cluster.world().store.clone().expect("a store");
    store.go_away(Duration::from_secs(3_600));
    cluster.pipe(&words(), Record::new("w1".to_owned(), String::new(), 1_000));
    // The epoch is aborted, and to go on its tasks need what the store does not give.
    cluster.advance(Duration::from_secs(400));
    assert_eq!(cluster.read(&counts()).len(), 0, "it is not committed yet");
    store.mend();
    cluster.settle();
    cluster.advance(Duration::from_secs(20));
    assert_eq!(cluster.read(&counts()).len(), 1);
}

/// All that the committed state of a task refers to, found out without the collector's own code.
fn referenced(world: &World, task: TaskId) -> BTreeSet<String> {
    let store = world.rebuilder().expect("a store").store;
    let mut referenced = BTreeSet::new();
    let pointer = pointer(world, task);
    let mut manifest = |id: SnapshotId| {
        let bytes = store.read(&id.manifest(task)).expect("a retained manifest is there");
        let manifest = Manifest::from_json(&bytes, "a manifest").expect("it is whole");
        referenced.insert(manifest.object());
        referenced.extend(manifest.files.iter().map(|file| file.object.clone()));
        manifest
    };
    let base = manifest(pointer.state.base.expect("a base"));
    let older: Vec<Manifest> = base.history.iter().map(|older| manifest(older.id)).collect();
    let oldest = older.last().unwrap_or(&base).epoch();
    let newest = pointer.state.increment.iter();
    let between = std::iter::once(&base)
        .chain(&older)
        .flat_map(|manifest| &manifest.increments);
    let needed = newest.chain(between).filter(|increment| increment.epoch > oldest);
    referenced.extend(needed.filter_map(IncrementRef::object));
    referenced
}

/// The store has all that is referred to, and nothing else. Answers what it has.
pub(super) fn assert_holds_what_is_referred_to(cluster: &mut TestCluster) -> BTreeSet<String> {
    let durability = cluster.setup.settings.durability;
    let world = cluster.world();
    let referenced: BTreeSet<String> = tasks().into_iter().flat_map(|task| referenced(world, task)).collect();
    let there = world.store.as_ref().expect("a store").objects();
    let there: BTreeSet<String> = there.into_iter().map(|blob| blob.name).collect();
    let missing: Vec<_> = referenced.difference(&there).collect();
    assert!(missing.is_empty(), "{durability:?}: {missing:?}");
    let left: Vec<_> = there.difference(&referenced).collect();
    assert!(left.is_empty(), "{durability:?}: {left:?}");
    there
}

#[test]
fn what_nobody_refers_to_goes_after_the_grace_and_what_is_referred_to_stays() {
    for durability in STRATEGIES {
        let mut cluster = cluster(durability).instances(2);
        for round in 0..4 {
            count(&mut cluster, round * 5..round * 5 + 5);
            let instance = (round % 2) as usize;
            cluster.crash(instance);
            cluster.lose_disk(instance);
            cluster.restart(instance);
            cluster.settle();
        }
        // The pointers move to bases that hold everything, and what they have left behind grows old.
        for _ in 0..3 {
            cluster.advance(Duration::from_secs(60));
            cluster.settle();
        }
        let there = assert_holds_what_is_referred_to(&mut cluster);
        let packs = there.iter().filter(|name| name.starts_with(PACKS_FOLDER)).count();
        assert_eq!(
            durability == Durability::ChangelogAndSnapshot,
            packs == 0,
            "{packs} packs"
        );
    }
}

#[test]
fn what_a_base_supersedes_goes_without_a_look_at_the_whole_repository() {
    for durability in STRATEGIES {
        let mut cluster = cluster(durability).settings(|settings: &mut InstanceSettings| {
            settings.snapshots.collect_interval = Duration::from_secs(24 * 3600);
            settings.snapshots.retention.grace = Duration::from_secs(15);
        });
        // The only look comes when the grace has passed once; what is superseded later is nobody's but the worker's business.
        count(&mut cluster, 0..80);
        assert!(
            cluster.world().now() > Duration::from_secs(45),
            "{:?}",
            cluster.world().now()
        );
        // The last base is named, and what it supersedes goes.
        for _ in 0..3 {
            cluster.advance(Duration::from_secs(20));
            cluster.settle();
        }
        assert_holds_what_is_referred_to(&mut cluster);
    }
}

#[test]
fn after_an_hour_of_owners_that_move_and_crash_nothing_is_missing_and_nothing_is_left_over() {
    let mut cluster = cluster(Durability::Snapshot).instances(3).settings(|settings| {
        settings.snapshots.limits.interval = Duration::from_secs(20);
    });
    let mut chapter = 0;
    while cluster.world().now() < Duration::from_secs(3_600) {
        count(&mut cluster, chapter..chapter + 2);
        let instance = (chapter / 2 % 3) as usize;
        match chapter / 6 % 3 {
            0 => cluster.crash(instance),
            1 => cluster.stop(instance),
            _ => {
                cluster.crash(instance);
                cluster.lose_disk(instance);
            }
        }
        cluster.advance(Duration::from_secs(25));
        cluster.restart(instance);
        cluster.settle();
        chapter += 2;
    }
    assert_eq!(counted(&mut cluster), expected(chapter));
    for _ in 0..3 {
        cluster.advance(Duration::from_secs(60));
        cluster.settle();
    }
    assert_holds_what_is_referred_to(&mut cluster);
    let collected = (0..3).map(|instance| cluster.world().counters(instance).objects_collected.get());
    assert!(collected.sum::<u64>() > 0);
}

#[test]
fn with_snapshots_alone_a_store_that_is_away_for_longer_than_a_restore_may_take_stops_nobody() {
    let mut cluster = cluster(Durability::Snapshot).settings(|settings| {
        settings.restore_timeout = Duration::from_secs(30);
    });
    count(&mut cluster, 0..3);
    cluster.read(&counts());
    cluster
        .world()
        .store
        .as_ref()
        .expect("a store")
        .go_away(Duration::from_secs(600));
    cluster.pipe(&words(), Record::new("w1".to_owned(), String::new(), 1_000));
    cluster.advance(Duration::from_secs(600));
    cluster.settle();
    assert_eq!(cluster.read(&counts()).len(), 1);
    // What was gone by while the store could not be asked is found again.
    cluster.crash(0);
    cluster.lose_disk(0);
    cluster.restart(0);
    cluster.settle();
    assert_eq!(counted(&mut cluster).len(), 17);
}

fn refusal(cluster: &mut TestCluster) -> &'static str {
    match cluster.failure() {
        Some(InstanceError::Worker(error)) => error.code(),
        other => panic!("{other:?}"),
    }
}

/// Removes all objects whose names have a word in them.
fn remove(cluster: &mut TestCluster, word: &str) {
    let store = cluster.world().store.clone().expect("a store");
    let names = store.objects().into_iter().map(|blob| blob.name);
    names
        .filter(|name| name.contains(word))
        .for_each(|name| store.change(&name, |object| *object = None));
}

#[test]
fn without_a_base_a_missing_increment_is_told_and_not_looked_for_for_ever() {
    let mut cluster = cluster(Durability::Snapshot).settings(|settings| settings.snapshots.retention.keep = 1);
    cluster.pipe(&words(), Record::new("w1".to_owned(), String::new(), 1));
    cluster.settle();
    cluster.crash(0);
    cluster.lose_disk(0);
    for word in ["increments/", "manifests/", "files/"] {
        remove(&mut cluster, word);
    }
    cluster.restart(0);
    assert_eq!(refusal(&mut cluster), "TG4009");
}

#[test]
fn a_disk_that_is_behind_a_trimmed_changelog_is_not_taken_for_the_state_where_all_snapshots_are_gone() {
    let mut cluster = cluster(Durability::ChangelogAndSnapshot).instances(2).partitions(1);
    count(&mut cluster, 0..2);
    let instance = (0..2).find(|slot| cluster.world().slots[*slot].disk.meta(tasks()[0]).is_some());
    let owner = instance.expect("somebody has the task");
    cluster.crash(owner);
    for chapter in 2..14 {
        count(&mut cluster, chapter..chapter + 1);
        cluster.advance(Duration::from_secs(30));
    }
    let changelog = crate::ids::TopicPartition::new("test-count-changelog", 0);
    use crate::log::Log;
    let marks = cluster
        .world()
        .log
        .admin()
        .watermarks(&changelog, Duration::from_secs(1));
    assert!(marks.expect("an answer").low > 0, "it is trimmed");
    cluster.crash(1 - owner);
    cluster.lose_disk(1 - owner);
    remove(&mut cluster, "tasks/");
    cluster.restart(owner);
    assert_eq!(refusal(&mut cluster), "TG4007");
}

/// What a restore comes to after one object was damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Exact,
    Loud(&'static str),
}

fn code(error: &NotOpened) -> &'static str {
    match error {
        NotOpened::Refused(error) => error.code(),
        other => panic!("it is neither exact nor loud: {other:?}"),
    }
}

/// What an object may be taken for: another one of its kind in the same repository, and one of another application.
struct Others {
    swapped: Vec<u8>,
    foreign: Vec<u8>,
}

type Damage = (&'static str, fn(&mut Vec<u8>, Others));

/// What may happen to the bytes of an object, beside its loss.
const DAMAGE: [Damage; 6] = [
    ("truncated", |bytes, _| bytes.truncate(bytes.len() / 2)),
    ("flipped", |bytes, _| {
        let at = bytes.len() / 3;
        bytes[at] ^= 1;
    }),
    ("empty", |bytes, _| bytes.clear()),
    ("swapped", |bytes, others| *bytes = others.swapped),
    ("foreign", |bytes, others| *bytes = others.foreign),
    ("of a later format", |bytes, _| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let later = text.replacen("\"format\":1", "\"format\":2", 1);
        match later == text {
            true => bytes
                .iter_mut()
                .filter(|byte| **byte == b'1')
                .for_each(|byte| *byte = b'2'),
            false => *bytes = later.into_bytes(),
        }
    }),
];

/// A cluster whose repository has several bases, and increments after the last one.
fn with_long_chains(durability: Durability, seed: u64) -> TestCluster {
    let mut cluster = cluster(durability)
        .seed(seed)
        .settings(|settings: &mut InstanceSettings| {
            settings.snapshots.limits.interval = Duration::from_secs(2);
        });
    count(&mut cluster, 0..14);
    cluster
}

/// All objects of a repository by their class.
fn by_class(store: &SimulatedStore) -> BTreeMap<&'static str, Vec<(String, Vec<u8>)>> {
    let mut classes: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for blob in store.objects() {
        let mut bytes = Vec::new();
        store.change(&blob.name, |object| {
            bytes.clone_from(object.as_ref().expect("an object"))
        });
        classes.entry(class(&blob.name)).or_default().push((blob.name, bytes));
    }
    classes
}

#[test]
fn damage_to_any_single_object_is_mended_exactly_or_told_loudly() {
    for durability in STRATEGIES {
        let mut another = with_long_chains(durability, 99);
        let foreign = by_class(another.world().store.as_ref().expect("a store"));
        let mut cluster = with_long_chains(durability, 0);
        let world = cluster.world();
        let rebuilder = world.rebuilder().expect("a store");
        let store = world.store.clone().expect("a store");
        let stores = &world.site.topology.plan().sub_topologies[0].stores;
        let rebuild = |task: TaskId| {
            let inputs = vec![crate::ids::TopicPartition::new("words", task.partition)];
            rebuilder.rebuild(task, inputs, stores)
        };
        let whole: Vec<_> = tasks()
            .into_iter()
            .map(|task| rebuild(task).expect("it is whole"))
            .collect();
        let mut seen: BTreeMap<(&str, Outcome), usize> = BTreeMap::new();
        let objects = by_class(&store);
        let each = objects.iter().flat_map(|(class, objects)| {
            let numbered = objects.iter().enumerate();
            numbered.map(move |(number, object)| (*class, number, object))
        });
        for (class, number, (name, before)) in each {
            for kind in std::iter::once(None).chain(DAMAGE.into_iter().map(Some)) {
                let other = |all: &BTreeMap<&str, Vec<(String, Vec<u8>)>>, at: usize| {
                    let of_class = &all[class];
                    of_class[at % of_class.len()].1.clone()
                };
                let others = Others {
                    swapped: other(&objects, number + 1),
                    foreign: other(&foreign, number),
                };
                let damaged = kind.map(|(_, damage)| {
                    let mut bytes = before.clone();
                    damage(&mut bytes, others);
                    bytes
                });
                let kind = kind.map_or("missing", |(kind, _)| kind);
                store.change(name, |object| *object = damaged);
                for (task, whole) in tasks().into_iter().zip(&whole) {
                    let outcome = match rebuild(task) {
                        Ok(rebuilt) => {
                            let (rebuilt, whole) = (rebuilt.as_ref(), whole.as_ref());
                            let same = rebuilt.map(|(_, stores)| stores) == whole.map(|(_, stores)| stores);
                            assert!(same, "{durability:?}: {name} {kind}: wrong state");
                            Outcome::Exact
                        }
                        Err(error) => Outcome::Loud(code(&error)),
                    };
                    *seen.entry((class, outcome)).or_default() += 1;
                }
                store.put_back(name, Some(before.clone()));
            }
        }
        let loud: BTreeSet<(&str, &str)> = seen
            .keys()
            .filter_map(|(class, outcome)| match outcome {
                Outcome::Exact => None,
                Outcome::Loud(code) => Some((*class, *code)),
            })
            .collect();
        // What a later version has written is not taken for damage, so no older snapshot is taken in its place.
        let mut expected = BTreeSet::from([("manifest", "TG3012")]);
        if durability == Durability::Snapshot {
            expected.insert(("increment", "TG4009"));
        }
        assert_eq!(loud, expected, "{durability:?}: {seen:?}");
        for class in ["manifest", "file"] {
            assert!(seen.contains_key(&(class, Outcome::Exact)), "{durability:?}: {seen:?}");
        }
        eprintln!("{durability:?}: {seen:?}");
    }
}

fn class(name: &str) -> &'static str {
    match name {
        name if name.starts_with(PACKS_FOLDER) => "increment",
        name if name.contains("/manifests/") => "manifest",
        _ => "file",
    }
}
