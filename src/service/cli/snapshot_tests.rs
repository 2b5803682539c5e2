use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::tests::{Outcome, run_line};
use super::*;
use crate::blob::BlobStore;
use crate::blob::metrics::BlobMetrics;
use crate::blob::object::{ObjectBlobs, S3Options};
use crate::codec::{I64Be, Utf8};
use crate::durability::Durability;
use crate::record::Record;
use crate::testkit::TestCluster;
use crate::topology::{Builder, Topic};

/// A repository in memory, of two tasks that have counted words, under a name that no other test uses.
pub(super) struct Repository {
    pub(super) name: &'static str,
    pub(super) blobs: Arc<dyn BlobStore>,
}

pub(super) fn open(url: &str) -> Arc<dyn BlobStore> {
    let configuration = Configuration::load(&Sources::default()).expect("the defaults");
    let limits = configuration.settings().snapshot.limits();
    let blobs = ObjectBlobs::open(url, &S3Options::default(), limits, Arc::new(BlobMetrics::default()));
    blobs.expect("memory is there")
}

pub(super) fn counting(_: &crate::topology::Parameters) -> Result<Topology, BoxError> {
    let words = Topic::new("words", Utf8, Utf8);
    let builder = Builder::new();
    let counts = builder.stream(&words).group_by_key().count("count");
    counts.to_stream().to(&Topic::new("counts", Utf8, I64Be));
    Ok(builder.build()?)
}

pub(super) fn counted(durability: Durability, with_savepoints: bool) -> TestCluster {
    let words = Topic::new("words", Utf8, Utf8);
    let topology = counting(&crate::topology::Parameters::default()).expect("the topology is right");
    let mut cluster = TestCluster::new(topology).partitions(2).durability(durability);
    if with_savepoints {
        cluster = cluster.savepoints();
    }
    for chapter in 0..6 {
        for number in 0..20 {
            let word = format!("w{}", (number + chapter) % 17);
            cluster.pipe(&words, Record::new(word, String::new(), chapter * 20 + number));
        }
        cluster.settle();
        cluster.advance(Duration::from_millis(700));
    }
    cluster
}

impl Repository {
    pub(super) fn new(name: &'static str) -> Self {
        let blobs = open(&format!("memory://{name}/test"));
        counted(Durability::Snapshot, false).copy_store(&*blobs);
        Self { name, blobs }
    }

    pub(super) fn run(&self, line: &str) -> Outcome {
        run_line(&format!("{line} --url memory://{} --application test", self.name))
    }

    pub(super) fn json(&self, line: &str) -> Value {
        let outcome = self.run(&format!("{line} --json"));
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{} {}", outcome.stdout, outcome.stderr))
    }

    /// Changes the bytes of the first object whose name has a word in it, and answers its name.
    pub(super) fn damage(&self, word: &str) -> String {
        let objects = self.blobs.list("").expect("it can be listed");
        let name = objects
            .into_iter()
            .map(|blob| blob.name)
            .find(|name| name.contains(word));
        let name = name.expect("there is one");
        let mut bytes = self.blobs.read(&name).expect("it is there");
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        self.blobs.delete(std::slice::from_ref(&name)).expect("it can go");
        self.blobs.create(&name, &bytes).expect("the name is free");
        name
    }
}

#[test]
fn base_snapshots_are_listed_and_shown_as_table_and_as_json() {
    let repository = Repository::new("listed");
    let list = repository.run("snapshot list");
    assert_eq!(list.code, 0, "{}", list.stderr);
    for part in [
        "listed/test",
        "task",
        "shared",
        "0_0",
        "0_1",
        "+ ",
        "increment",
        "2 tasks",
        "entries",
    ] {
        assert!(list.stdout.contains(part), "{part} is missing in\n{}", list.stdout);
    }
    let json = repository.json("snapshot list");
    let task = &json["tasks"][1];
    assert_eq!(task["task"], "0_1");
    let newest = task["bases"][0]["snapshot"].as_str().expect("a base").to_owned();
    assert!(
        task["bases"][0]["bytes"].as_u64() > Some(0) && task["increments"]["count"].is_number(),
        "{task}"
    );
    let only = repository.run("snapshot list --task 0_1").stdout;
    assert!(only.contains(&newest) && !only.contains("0_0"), "{only}");

    let shown = repository.run(&format!("snapshot show {newest}"));
    for part in [
        "lineage",
        "words-1 at ",
        "utf8 -> row of i64-be",
        "head",
        "tasks/0_1/files/",
    ] {
        assert!(
            shown.stdout.contains(part),
            "{part} is missing in\n{}{}",
            shown.stdout,
            shown.stderr
        );
    }
    assert_eq!(
        repository.run("snapshot show 0_1").stdout,
        shown.stdout,
        "it is the newest of its task"
    );
    assert_eq!(
        repository.json(&format!("snapshot show {newest}"))["snapshot"],
        newest.as_str()
    );
    let pack = repository
        .blobs
        .list("increments/")
        .expect("a list")
        .pop()
        .expect("a pack")
        .name;
    let footer = repository.run(&format!("snapshot show {pack}"));
    assert!(
        footer.stdout.contains("entries") && footer.stdout.contains("words-"),
        "{}",
        footer.stderr
    );
    assert!(repository.json(&format!("snapshot show {pack}"))["tasks"].is_array());
}

#[test]
fn a_repository_is_verified_and_a_damaged_object_is_named_with_exit_code_1() {
    let repository = Repository::new("verified");
    for line in ["snapshot verify", "snapshot verify --task 0_0", "snapshot fsck"] {
        let outcome = repository.run(line);
        assert_eq!(outcome.code, 0, "{line}: {}{}", outcome.stdout, outcome.stderr);
    }
    let whole = repository.json("snapshot verify");
    assert!(
        whole["bytes"].as_u64() > Some(0) && whole["broken"] == serde_json::json!([]),
        "{whole}"
    );
    let object = repository.damage("/files/");
    let verified = repository.run("snapshot verify");
    assert_eq!(verified.code, 1);
    assert!(
        verified
            .stdout
            .contains(&format!("broken [TG3011]: the object {object} is damaged")),
        "{}",
        verified.stdout
    );
    assert!(
        verified.stderr.contains("verified/test: 1, listed above"),
        "{}",
        verified.stderr
    );
    let json = repository.json("snapshot verify");
    assert_eq!(
        (&json["broken"][0]["object"], &json["broken"][0]["code"]),
        (&object.into(), &"TG3011".into())
    );
    let manifest = repository.damage("/manifests/");
    let found = repository.run("snapshot fsck");
    assert_eq!(found.code, 1);
    assert!(
        found.stdout.contains("broken [TG3011]: damaged") && found.stdout.contains(&manifest),
        "{}",
        found.stdout
    );
    assert!(found.stdout.contains("Kafka was not asked"), "{}", found.stdout);
    let json = repository.json("snapshot fsck");
    assert!(
        json["findings"]
            .as_array()
            .expect("a list")
            .iter()
            .any(|found| found["object"] == manifest.as_str())
    );
}

#[test]
fn what_is_not_there_and_where_nothing_is_are_told_apart() {
    let repository = Repository::new("told-apart");
    let unknown = repository.run("snapshot show 1-00000000000000ab");
    assert_eq!(unknown.code, EXIT_USAGE);
    assert!(
        unknown.stderr.starts_with(&format!(
            "error[TG4302]: {} has no base snapshot",
            repository.blobs.root()
        )),
        "{}",
        unknown.stderr
    );
    let nonsense = repository.run("snapshot show nonsense");
    assert!(nonsense.stderr.starts_with("error[TG4302]"), "{}", nonsense.stderr);
    assert_eq!(repository.run("snapshot list --task 7_7").code, EXIT_USAGE);
    let elsewhere = run_line(&format!(
        "snapshot list --url memory://{} --application other",
        repository.name
    ));
    assert_eq!(elsewhere.code, EXIT_USAGE);
    assert!(elsewhere.stderr.starts_with("error[TG4301]"), "{}", elsewhere.stderr);
    let nowhere = run_line("snapshot list --application other");
    assert!(
        nowhere
            .stderr
            .starts_with("error[TG5005]: option snapshot.url is not set"),
        "{}",
        nowhere.stderr
    );
    let dir = tempfile::tempdir().expect("a directory");
    let absent = dir.path().join("absent");
    let line = format!("snapshot fsck --url file://{} --application a", absent.display());
    let outcome = run_line(&line);
    assert!(
        outcome.code == EXIT_USAGE && outcome.stderr.starts_with("error[TG1204]"),
        "{}",
        outcome.stderr
    );
    assert!(!absent.exists(), "looking creates nothing");
}

#[test]
fn a_copy_is_made_and_looked_at_where_it_is_and_nothing_is_deleted_without_kafka() {
    let repository = Repository::new("copied");
    let directory = tempfile::tempdir().expect("a directory");
    let to = format!("file://{}", directory.path().display());
    let copied = repository.run(&format!("snapshot export --to {to} --as copy"));
    assert_eq!(copied.code, 0, "{}", copied.stderr);
    for part in ["copied/test → ", "0_0", "0_1", "copied and read back"] {
        assert!(copied.stdout.contains(part), "{part} is missing in\n{}", copied.stdout);
    }
    let fsck = run_line(&format!("snapshot fsck --url {to} --application copy"));
    assert!(
        fsck.code == 0 && fsck.stdout.contains("0 broken, 0 notes"),
        "{}{}",
        fsck.stdout,
        fsck.stderr
    );
    let diff = repository.run(&format!("state diff 0_0 {to}/copy#0_0"));
    assert_eq!(diff.code, 0, "{}{}", diff.stdout, diff.stderr);
    let again = repository.run(&format!("snapshot export --to {to} --as copy --task 0_0"));
    assert!(
        again.code == EXIT_USAGE && again.stderr.starts_with("error[TG4310]"),
        "{}",
        again.stderr
    );
    let json = repository.json(&format!("snapshot export --to {to} --as second --task 0_1"));
    assert_eq!(
        (&json["tasks"][0]["task"], json["objects"].as_u64() > Some(2)),
        (&"0_1".into(), true)
    );
    let gc = repository.run("snapshot gc --dry-run");
    assert!(
        gc.code == EXIT_USAGE && gc.stderr.starts_with("error[TG4307]"),
        "{}",
        gc.stderr
    );
}
