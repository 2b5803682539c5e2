//! Tools on the repositories of whole applications.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::blob::metrics::BlobMetrics;
use crate::blob::object::{ObjectBlobs, S3Options};
use crate::blob::{BlobStore, Part};
use crate::codec::Utf8;
use crate::durability::Durability;
use crate::durability::snapshot::{IncrementRef, Manifest};
use crate::errors::Coded;
use crate::ids::Epoch;
use crate::offline::{
    At, Catalogue, Change, Chosen, Finding, Garbage, Grade, Kind, OfflineError, Pointers, Scope, Scratch, Unseen, View,
    diff, export, fsck, kind, verify,
};
use crate::record::Record;
use crate::time::Clock;
use crate::topology::{Builder, Topic};

use super::TestCluster;
use super::store::SimulatedStore;
use super::world::APPLICATION;

/// Counts words for some chapters, so that there are several bases and increments after the last of them.
fn counted(durability: Durability, chapters: i64) -> TestCluster {
    let words = Topic::new("words", Utf8, Utf8);
    let builder = Builder::new();
    builder.stream(&words).group_by_key().count("count");
    let topology = builder.build().expect("the topology is right");
    let cluster = TestCluster::new(topology).partitions(2).durability(durability);
    let mut cluster = cluster.settings(|settings| settings.snapshots.limits.interval = Duration::from_secs(2));
    for chapter in 0..chapters {
        for number in 0..20 {
            let word = format!("w{}", (number + chapter) % 17);
            cluster.pipe(&words, Record::new(word, String::new(), chapter * 20 + number));
        }
        cluster.settle();
        cluster.advance(Duration::from_millis(700));
    }
    cluster.settle();
    cluster
}

/// The repository of a cluster that has stopped, and what is committed.
struct Site {
    store: Arc<SimulatedStore>,
    blobs: Arc<dyn BlobStore>,
    pointers: Pointers,
    now_ms: i64,
}

impl Site {
    fn of(cluster: &mut TestCluster) -> Self {
        let blobs = cluster.world().rebuilder().expect("a store").store;
        let catalogue = read(&blobs);
        Self {
            pointers: catalogue
                .pointers(&*cluster.log(), APPLICATION)
                .expect("nothing is pending"),
            store: cluster.world().store.clone().expect("a store"),
            now_ms: cluster.clock().wall_ms(),
            blobs,
        }
    }

    fn fsck(&self, with_pointers: bool) -> Vec<Finding> {
        let pointers = with_pointers.then_some(&self.pointers);
        fsck(&read(&self.blobs), pointers, 40_000, self.now_ms).expect("the store answers")
    }
}

fn read(blobs: &Arc<dyn BlobStore>) -> Catalogue {
    Catalogue::read(Arc::clone(blobs), Scope::ALL, &Unseen).expect("the store answers")
}

fn broken(findings: &[Finding]) -> BTreeSet<&str> {
    let broken = findings.iter().filter(|finding| finding.grade == Grade::Broken);
    broken.map(|finding| &finding.object[..]).collect()
}

fn epochs(increments: &[IncrementRef]) -> Vec<u64> {
    increments.iter().map(|increment| increment.epoch.0).collect()
}

#[test]
fn the_increments_that_lead_to_an_epoch_are_found_without_kafka() {
    let mut cluster = counted(Durability::Snapshot, 14);
    let site = Site::of(&mut cluster);
    let catalogue = read(&site.blobs);
    let mut checked = 0;
    for task in catalogue.tasks() {
        let pointer = site.pointers[&task].clone().expect("it is committed");
        for base in catalogue.bases_of(task) {
            let committed = catalogue
                .branch(base, &At::Committed(pointer.state.increment.clone()))
                .expect("it is whole");
            let newest = catalogue.branch(base, &At::Newest).expect("it is whole");
            // Of the last one nothing in the repository says that it was committed.
            let all = [&newest.increments[..], &newest.unconfirmed[..]].concat();
            assert_eq!(epochs(&all), epochs(&committed.increments), "{task} {}", base.id);
            assert!(newest.unconfirmed.len() <= 1);
            for (at, increment) in committed.increments.iter().enumerate() {
                let branch = catalogue
                    .branch(base, &At::Epoch(increment.epoch))
                    .expect("it is there");
                assert_eq!(branch.increments, committed.increments[..=at]);
                checked += 1;
            }
            let own = catalogue
                .branch(base, &At::Epoch(base.epoch()))
                .expect("the base itself");
            assert!(own.increments.is_empty());
            let before = base.epoch().0.checked_sub(1).map(Epoch);
            for beyond in before.into_iter().chain([Epoch(10_000)]) {
                match catalogue.branch(base, &At::Epoch(beyond)) {
                    Err(error @ OfflineError::NoWay { .. }) => assert_eq!(error.code(), "TG4304"),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    assert!(checked > 10, "{checked}");
}

#[test]
fn a_repository_that_is_whole_has_no_findings_whether_kafka_is_asked_or_not() {
    for durability in [Durability::Snapshot, Durability::ChangelogAndSnapshot] {
        let mut cluster = counted(durability, 14);
        let site = Site::of(&mut cluster);
        for with_pointers in [false, true] {
            let findings = site.fsck(with_pointers);
            assert!(broken(&findings).is_empty(), "{durability:?}: {findings:?}");
        }
        let catalogue = read(&site.blobs);
        let bases: Vec<&Manifest> = catalogue.bases.values().flatten().collect();
        let verified = verify(&catalogue, &bases, &Unseen).expect("the store answers");
        assert!(verified.broken.is_empty(), "{durability:?}: {:?}", verified.broken);
        assert!(verified.bases >= 4 && verified.bytes > 0, "{verified:?}");
        assert_eq!(durability.has_packs(), verified.increments > 0, "{verified:?}");
    }
}

/// What verify and fsck say is wrong.
fn said(site: &Site) -> BTreeSet<String> {
    let catalogue = read(&site.blobs);
    let bases: Vec<&Manifest> = catalogue.bases.values().flatten().collect();
    let verified = verify(&catalogue, &bases, &Unseen).expect("the store answers");
    let verified = verified.broken.into_iter().map(|broken| broken.object);
    let found = site.fsck(true);
    let found = broken(&found).into_iter().map(str::to_owned);
    verified.chain(found).collect()
}

#[test]
fn any_single_object_that_is_missing_truncated_flipped_empty_or_swapped_is_named() {
    type Damage = (&'static str, fn(Vec<u8>, Vec<u8>) -> Option<Vec<u8>>);
    let kinds: [Damage; 5] = [
        ("missing", |_, _| None),
        ("truncated", |bytes, _| Some(bytes[..bytes.len() / 2].to_vec())),
        ("flipped", |mut bytes, _| {
            let at = bytes.len() / 3;
            bytes[at] ^= 1;
            Some(bytes)
        }),
        ("empty", |_, _| Some(Vec::new())),
        ("swapped", |_, other| Some(other)),
    ];
    for durability in [Durability::Snapshot, Durability::ChangelogAndSnapshot] {
        let mut cluster = counted(durability, 8);
        let site = Site::of(&mut cluster);
        let unreferenced: BTreeSet<String> = site.fsck(true).into_iter().map(|finding| finding.object).collect();
        let blobs: Vec<String> = site.store.objects().into_iter().map(|blob| blob.name).collect();
        let mut seen = 0;
        for name in blobs.iter().filter(|name| !unreferenced.contains(*name)) {
            let word = kind(name).word();
            let other = blobs
                .iter()
                .rev()
                .find(|other| *other != name && kind(other).word() == word);
            let other = site
                .blobs
                .read(other.expect("there are several of each"))
                .expect("it is there");
            for (damage, change) in kinds {
                let mut before = None;
                site.store.change(name, |object| {
                    before.clone_from(object);
                    *object = change(object.take().expect("an object"), other.clone());
                });
                let said = said(&site);
                assert!(said.contains(name), "{durability:?}: {name} {damage}: {said:?}");
                site.store.put_back(name, before);
                seen += 1;
            }
        }
        assert!(seen >= 5 * 8, "{seen}");
        assert!(said(&site).is_empty(), "all is mended");
    }
}

#[test]
fn a_later_format_a_stranger_and_what_nobody_needs_are_told_apart() {
    let mut cluster = counted(Durability::Snapshot, 8);
    let site = Site::of(&mut cluster);
    let catalogue = read(&site.blobs);
    let base = catalogue.bases.values().flatten().next().expect("a base");
    let text = String::from_utf8(base.to_json())
        .expect("text")
        .replacen("\"format\":1", "\"format\":2", 1);
    site.store.put_back(&base.object(), Some(text.into_bytes()));
    site.store.put_back("notes.txt", Some(b"mine".to_vec()));
    let leftover = format!(
        "{}00000000000000aa-0.pack",
        crate::durability::snapshot::files_folder(base.task)
    );
    site.store.put_back(&leftover, Some(vec![1; 10]));
    cluster.stop(0);
    let mut site = site;
    let find = |site: &Site, object: &str| {
        let findings = site.fsck(true);
        findings
            .into_iter()
            .find(|finding| finding.object == object)
            .expect("it is found")
    };
    let newer = find(&site, &base.object());
    assert_eq!((newer.grade, newer.code), (Grade::Broken, Some("TG3012")));
    assert!(
        newer.what.contains("format 2") && newer.remedy.contains("version of tidegate"),
        "{newer:?}"
    );
    let stranger = find(&site, "notes.txt");
    assert!(
        stranger.grade == Grade::Note && stranger.remedy.contains("never touches"),
        "{stranger:?}"
    );
    let young = find(&site, &leftover);
    assert!(
        young.grade == Grade::Note && young.remedy.contains("grace"),
        "{young:?}"
    );
    site.now_ms += 3_600_000;
    let old = find(&site, &leftover);
    assert!(
        old.remedy.contains("gc") && old.age_ms >= Some(3_600_000) && old.bytes == 10,
        "{old:?}"
    );
}

#[test]
fn state_that_the_group_knows_nothing_of_is_told() {
    let mut cluster = counted(Durability::Snapshot, 4);
    let mut site = Site::of(&mut cluster);
    site.pointers.values_mut().for_each(|pointer| *pointer = None);
    let findings = site.fsck(true);
    let codes: BTreeSet<_> = findings.iter().filter_map(|finding| finding.code).collect();
    assert_eq!(codes, BTreeSet::from(["TG4004"]), "{findings:?}");
}

#[test]
fn a_snapshot_that_is_deleted_while_it_is_looked_at_is_no_finding() {
    let mut cluster = counted(Durability::ChangelogAndSnapshot, 8);
    let site = Site::of(&mut cluster);
    let catalogue = read(&site.blobs);
    let bases: Vec<&Manifest> = catalogue.bases.values().flatten().collect();
    let oldest = catalogue.bases_of(bases[0].task).last().expect("a base");
    let newest: BTreeSet<&str> = catalogue.bases_of(oldest.task)[0]
        .files
        .iter()
        .map(|file| &file.object[..])
        .collect();
    site.store.put_back(&oldest.object(), None);
    for file in oldest.files.iter().filter(|file| !newest.contains(&file.object[..])) {
        site.store.put_back(&file.object, None);
    }
    let parts = oldest.files.iter().map(|file| Part {
        name: file.object.clone(),
        range: 0..1,
    });
    let gone = site.blobs.read_parts(&parts.collect::<Vec<_>>());
    assert!(gone.iter().any(Result::is_err), "something went with it");
    let verified = verify(&catalogue, &[oldest, &catalogue.bases_of(oldest.task)[0]], &Unseen).expect("it answers");
    assert!(verified.broken.is_empty(), "{:?}", verified.broken);
    assert!(matches!(kind(&oldest.object()), Kind::Manifest(task, _) if task == oldest.task));
}

#[test]
fn the_rows_of_every_task_are_those_that_a_new_host_would_restore() {
    let mut cluster = counted(Durability::Snapshot, 14);
    let site = Site::of(&mut cluster);
    let catalogue = read(&site.blobs);
    let rebuilder = cluster.world().rebuilder().expect("a store");
    let stores = cluster.world().site.topology.plan().sub_topologies[0].stores.clone();
    for task in catalogue.tasks() {
        let inputs = vec![crate::ids::TopicPartition::new("words", task.partition)];
        let restored = rebuilder
            .rebuild(task, inputs, &stores)
            .expect("it is whole")
            .expect("there is state");
        let pointer = site.pointers[&task].clone().expect("it is committed");
        // From every base, the increments lead to the same rows.
        for base in catalogue.bases_of(task) {
            let branch = catalogue
                .branch(base, &At::Committed(pointer.state.increment.clone()))
                .expect("it is whole");
            let scratch = Scratch::new(None, 0);
            let view = View::of_repository(&catalogue, base, &branch, &scratch, &Unseen).expect("it is whole");
            assert_eq!(view.meta.epoch, branch.epoch(base));
            let (store, _) = view.store("count").expect("it has one");
            let rows: Vec<_> = view
                .rows(store, &[], &[])
                .collect::<Result<_, _>>()
                .expect("they can be read");
            let expected = restored.1[0].iter().map(|(key, value)| (key.to_vec(), value.to_vec()));
            assert_eq!(rows, expected.collect::<Vec<_>>(), "{task} from {}", base.id);
            let (key, value) = &rows[0];
            assert_eq!(view.get(store, key).expect("it can be read").as_ref(), Some(value));
            let within: Vec<_> = view
                .rows(store, &rows[1].0, &rows[2].0)
                .collect::<Result<_, _>>()
                .expect("rows");
            assert_eq!(within, rows[1..2]);
        }
    }
}

#[test]
fn two_epochs_of_a_task_differ_in_the_rows_that_were_written_between() {
    let mut cluster = counted(Durability::Snapshot, 14);
    let site = Site::of(&mut cluster);
    let catalogue = read(&site.blobs);
    let task = catalogue.tasks()[0];
    let base = catalogue.bases_of(task).last().expect("a base");
    let view = |at: &At| {
        let branch = catalogue.branch(base, at).expect("it is there");
        View::of_repository(&catalogue, base, &branch, &Scratch::new(None, 0), &Unseen).expect("it is whole")
    };
    let (older, newer) = (view(&At::Epoch(base.epoch())), view(&At::Newest));
    let mut changes = Vec::new();
    let found = diff(&older, &newer, &mut |_, change| changes.push(change)).expect("rows");
    assert!(
        found[0].is_different() && found[0].rows() == changes.len() as u64,
        "{found:?}"
    );
    let back = diff(&newer, &older, &mut |_, _| {}).expect("rows");
    assert_eq!(
        (back[0].added, back[0].removed, back[0].changed),
        (found[0].removed, found[0].added, found[0].changed)
    );
    for change in &changes {
        let (key, before, after) = match change {
            Change::Added((key, value)) => (key, None, Some(value.clone())),
            Change::Removed((key, value)) => (key, Some(value.clone()), None),
            Change::Changed(key, before, after) => (key, Some(before.clone()), Some(after.clone())),
        };
        let (store, _) = older.store("count").expect("a store");
        assert_eq!(
            (
                older.get(store, key).expect("a row"),
                newer.get(store, key).expect("a row")
            ),
            (before, after)
        );
    }
    let same = diff(&newer, &view(&At::Newest), &mut |_, change| panic!("{change:?}")).expect("rows");
    assert!(!same[0].is_different() && same[0].same > 0);
}

#[test]
fn a_state_that_needs_a_damaged_object_is_not_shown_and_the_object_is_named() {
    let mut cluster = counted(Durability::Snapshot, 14);
    let site = Site::of(&mut cluster);
    let catalogue = read(&site.blobs);
    let task = catalogue.tasks()[0];
    let base = catalogue.newest(task).expect("a base");
    let branch = catalogue.branch(base, &At::Newest).expect("it is whole");
    let older = catalogue.bases_of(task).last().expect("a base");
    let long = catalogue.branch(older, &At::Newest).expect("it is whole");
    let pack = long.increments[0].object().expect("a pack");
    let file = base
        .files
        .iter()
        .find(|file| file.bytes > 0)
        .expect("a file")
        .object
        .clone();
    for (object, base, branch) in [(pack, older, &long), (file, base, &branch)] {
        let mut whole = None;
        site.store.change(&object, |bytes| {
            whole.clone_from(bytes);
            let bytes = bytes.as_mut().expect("an object");
            bytes.truncate(bytes.len() / 2);
        });
        let shown = View::of_repository(&catalogue, base, branch, &Scratch::new(None, 0), &Unseen);
        let error = shown.err().expect("it is damaged");
        assert_eq!(error.code(), "TG3011");
        assert!(error.to_string().contains(&object), "{error}");
        site.store.put_back(&object, None);
        let error = View::of_repository(&catalogue, base, branch, &Scratch::new(None, 0), &Unseen)
            .err()
            .expect("it is gone");
        assert_eq!(error.code(), "TG1201");
        site.store.put_back(&object, whole);
    }
}

/// Who collects garbage, with the settings of the cluster.
fn garbage(cluster: &mut TestCluster, grace_s: u64) -> Garbage<'static> {
    Garbage {
        log: cluster.log(),
        application: APPLICATION,
        settings: cluster.setup.settings.snapshots.clone(),
        grace: Duration::from_secs(grace_s),
        transaction_timeout: cluster.setup.settings.transaction_timeout,
        clock: cluster.clock(),
    }
}

#[test]
fn what_a_dry_run_names_is_what_goes_and_what_is_needed_stays() {
    for durability in [Durability::Snapshot, Durability::ChangelogAndSnapshot] {
        let mut cluster = counted(durability, 14);
        cluster.stop(0);
        let site = Site::of(&mut cluster);
        let task = read(&site.blobs).tasks()[0];
        let leftover = format!(
            "{}00000000000000aa-0.pack",
            crate::durability::snapshot::files_folder(task)
        );
        site.store.put_back(&leftover, Some(vec![1; 10]));
        let before = site.store.objects();
        let young = garbage(&mut cluster, 40)
            .collect(&read(&site.blobs), true)
            .expect("it is known");
        assert!(young.iter().all(|unneeded| unneeded.blob.name != leftover), "{young:?}");
        cluster.advance(Duration::from_secs(60));
        let unneeded = garbage(&mut cluster, 40)
            .collect(&read(&site.blobs), false)
            .expect("it is known");
        assert!(
            unneeded
                .iter()
                .any(|unneeded| unneeded.blob.name == leftover && unneeded.why.contains("no snapshot"))
        );
        let gone = garbage(&mut cluster, 40)
            .collect(&read(&site.blobs), true)
            .expect("it is known");
        assert_eq!(gone, unneeded, "{durability:?}");
        let there: BTreeSet<String> = site.store.objects().into_iter().map(|blob| blob.name).collect();
        assert!(gone.iter().all(|unneeded| !there.contains(&unneeded.blob.name)));
        assert_eq!(before.len(), there.len() + gone.len() + young.len(), "{durability:?}");
        assert!(
            broken(&site.fsck(true)).is_empty() && said(&site).is_empty(),
            "{durability:?}"
        );
        let rest = garbage(&mut cluster, 40)
            .collect(&read(&site.blobs), true)
            .expect("it is known");
        assert!(rest.is_empty(), "{rest:?}");
    }
}

#[test]
fn nothing_is_deleted_where_it_could_be_needed() {
    let mut cluster = counted(Durability::Snapshot, 8);
    let site = Site::of(&mut cluster);
    let before = site.store.objects();
    let refused = |garbage: Garbage<'_>| {
        let error = garbage.collect(&read(&site.blobs), true).expect_err("it is refused");
        assert_eq!(site.store.objects(), before, "{error}");
        error.code()
    };
    assert_eq!(
        refused(garbage(&mut cluster, 19)),
        "TG4309",
        "a transaction may be as old"
    );
    assert_eq!(
        refused(garbage(&mut cluster, 39)),
        "TG4309",
        "an instance may be writing"
    );
    let other = Garbage {
        application: "other",
        ..garbage(&mut cluster, 40)
    };
    assert_eq!(refused(other), "TG4308", "nothing is committed");
    cluster.stop(0);
    cluster.advance(Duration::from_secs(1));
    let alone = garbage(&mut cluster, 39).collect(&read(&site.blobs), false);
    assert!(alone.is_ok(), "{alone:?}");
}

fn memory(name: &str) -> Arc<dyn BlobStore> {
    let limits = crate::blob::BlobLimits {
        request_timeout: Duration::from_secs(1),
        call_timeout: Duration::from_secs(1),
        concurrency: 2,
        upload_bytes_per_second: 0,
        download_bytes_per_second: 0,
    };
    let metrics = Arc::new(BlobMetrics::default());
    ObjectBlobs::open(&format!("memory://{name}"), &S3Options::default(), limits, metrics).expect("memory")
}

#[test]
fn an_export_stands_alone_and_shows_the_same_state() {
    let mut cluster = counted(Durability::Snapshot, 14);
    let site = Site::of(&mut cluster);
    let catalogue = read(&site.blobs);
    let choose = |task| {
        // From the oldest base, so that there is a chain.
        let base = catalogue.bases_of(task).last().expect("a base");
        let branch = catalogue.branch(base, &At::Newest).expect("it is whole");
        Chosen { base, branch }
    };
    let chosen: Vec<Chosen<'_>> = catalogue.tasks().into_iter().map(choose).collect();
    let to = memory("an-export-that-stands-alone");
    for _ in 0..2 {
        // Also a second time: it may have been cut off.
        let exported = export(&catalogue, &chosen, &to, 7, &Unseen).expect("there is room");
        assert!(
            exported.verified.broken.is_empty() && exported.bytes > 0,
            "{exported:?}"
        );
        assert_eq!(exported.objects, to.list("").expect("a list").len());
    }
    let copy = read(&to);
    assert!(
        fsck(&copy, None, 0, 0).expect("it answers").is_empty(),
        "nothing is missing, and nothing too much"
    );
    for Chosen { base, branch } in &chosen {
        let own = View::of_repository(&catalogue, base, branch, &Scratch::new(None, 0), &Unseen).expect("it is whole");
        let (copied, at) = copy.choose(base.task, None, None).expect("it is there");
        assert!(copied.history.is_empty() && copied.id == base.id);
        let branch = copy.branch(copied, &at).expect("it is whole");
        assert!(branch.unconfirmed.is_empty(), "the export says where it ends");
        let copied = View::of_repository(&copy, copied, &branch, &Scratch::new(None, 0), &Unseen).expect("it is whole");
        assert_eq!(copied.meta, own.meta);
        let differences = diff(&own, &copied, &mut |_, change| panic!("{change:?}")).expect("rows");
        assert!(differences[0].same > 0 && !differences[0].is_different());
    }
    let one = export(&catalogue, &chosen[..1], &to, 7, &Unseen).expect_err("it holds another export");
    assert_eq!(one.code(), "TG4310");
    let file = chosen[0]
        .base
        .files
        .iter()
        .find(|file| file.bytes > 0)
        .expect("a file")
        .object
        .clone();
    site.store.put_back(&file, None);
    let missing =
        export(&catalogue, &chosen, &memory("an-export-of-what-is-gone"), 7, &Unseen).expect_err("it is gone");
    assert!(
        missing.code() == "TG1201" && missing.to_string().contains(&file),
        "{missing}"
    );
}
