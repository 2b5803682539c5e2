//! Tools on the repository of a running instance, on RocksDB and a real S3 server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::blob::metrics::BlobMetrics;
use tidegate::blob::object::{ObjectBlobs, S3Options};
use tidegate::blob::{BlobResult, BlobStore};
use tidegate::codec::{I64Be, Utf8};
use tidegate::durability::Durability;
use tidegate::durability::snapshot::Manifest;
use tidegate::errors::Coded;
use tidegate::instance::{Instance, InstanceSettings, Ports};
use tidegate::log::embedded::EmbeddedLog;
use tidegate::log::{Log, TopicSpec};
use tidegate::offline::{At, Catalogue, Grade, Scope, Scratch, StoreShape, Unseen, View, fsck, verify};
use tidegate::time::{Clock, SystemClock};
use tidegate::topology::{Builder, Topic, Topology};
use tidegate_integration_tests::S3Server;
use tidegate_integration_tests::s3_server::patient;

const APPLICATION: &str = "tools";
const WORDS: i64 = 200;

fn counting() -> Topology {
    let builder = Builder::new();
    let words = builder.stream(&Topic::new("words", Utf8, Utf8));
    words
        .group_by_key()
        .count("count")
        .to_stream()
        .to(&Topic::new("counts", Utf8, I64Be));
    builder.build().expect("the topology is right")
}

/// A log with words of which each is there once, all in one partition.
fn log_with_words(clock: &Arc<dyn Clock>) -> Arc<EmbeddedLog> {
    let log = EmbeddedLog::new(Arc::clone(clock));
    for name in ["words", "counts"] {
        let spec = TopicSpec {
            name: name.into(),
            partitions: 1,
            replication: None,
            config: vec![],
        };
        log.admin()
            .create_topic(&spec, Duration::from_secs(1))
            .expect("it is created");
    }
    let words: Vec<String> = (0..WORDS).map(|number| format!("w{number}")).collect();
    let records: Vec<_> = words
        .iter()
        .map(|word| crate::applications::raw(word.as_bytes(), b""))
        .collect();
    crate::applications::write_records(&*log, "words", &records);
    log
}

fn open(url: &str, options: &S3Options) -> BlobResult<Arc<dyn BlobStore>> {
    Ok(ObjectBlobs::open_existing(
        url,
        options,
        patient(),
        Arc::new(BlobMetrics::default()),
    )?)
}

#[test]
fn the_repository_of_a_running_instance_is_whole_and_its_rows_can_be_read() {
    let server = S3Server::shared();
    let url = format!("s3://{}/{APPLICATION}", server.bucket());
    let store = open(&url, &server.options()).expect("nothing is asked yet");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let log = log_with_words(&clock);
    let directory = tempfile::tempdir().expect("a directory");
    let mut settings = InstanceSettings::new(APPLICATION);
    settings.durability = Durability::Snapshot;
    settings.snapshots.limits.interval = Duration::from_millis(200);
    settings.state.dir = directory.path().to_owned();
    let ports = Ports {
        log: Arc::clone(&log) as _,
        blobs: Some(Arc::clone(&store)),
        clock: Arc::clone(&clock),
    };
    let instance = Instance::start(Arc::new(counting()), settings, ports).expect("it starts");
    let task = "0_0".parse().expect("a task");
    let deadline = Instant::now() + Duration::from_secs(60);
    let (catalogue, pointers) = loop {
        let read = Catalogue::read(Arc::clone(&store), Scope::ALL, &Unseen).ok();
        if let Some(mut catalogue) = read.filter(|catalogue| !catalogue.bases_of(task).is_empty()) {
            let pointers = catalogue.pointers(&*log, APPLICATION).expect("an answer");
            catalogue.refresh(&Unseen).expect("an answer");
            let has_base = |pointer: &tidegate::durability::Pointer| pointer.state.base.is_some();
            let newest = catalogue.newest(task).expect("a base");
            let is_whole = newest.meta.cut.values().all(|offset| *offset >= WORDS);
            if is_whole && pointers[&task].as_ref().is_some_and(has_base) {
                break (catalogue, pointers);
            }
        }
        assert!(Instant::now() < deadline, "no base snapshot of all words is made");
        std::thread::sleep(Duration::from_millis(50));
    };
    let findings = fsck(&catalogue, Some(&pointers), 1_800_000, clock.wall_ms()).expect("an answer");
    assert!(
        findings.iter().all(|finding| finding.grade == Grade::Note),
        "{findings:?}"
    );
    let bases: Vec<&Manifest> = catalogue.bases.values().flatten().collect();
    let verified = verify(&catalogue, &bases, &Unseen).expect("an answer");
    assert!(verified.broken.is_empty() && verified.bytes > 0, "{verified:?}");

    let base = catalogue.newest(task).expect("a base");
    assert_eq!(base.backend, "rocksdb");
    let branch = catalogue.branch(base, &At::Newest).expect("it is whole");
    let view = View::of_repository(&catalogue, base, &branch, &Scratch::new(None, 0), &Unseen).expect("it is whole");
    let (count, spec) = view.store("count").expect("a store");
    let shape = StoreShape::of(&spec.codecs);
    let rows: Vec<_> = view.rows(count, &[], &[]).collect::<Result<_, _>>().expect("rows");
    assert_eq!(rows.len() as i64, WORDS);
    assert!(
        rows.iter()
            .all(|(key, value)| shape.read(key, value).value == Some(1.into()))
    );
    // The instance has its database open, and goes on.
    let live = View::of_directory(directory.path(), Some(APPLICATION), task).expect("it can be looked at");
    assert_eq!(live.rows(count, &[], &[]).count() as i64, WORDS);
    instance.stop();
    instance.join().expect("it ends in order");
}

#[test]
fn wrong_credentials_and_an_absent_bucket_are_told_by_tools_too() {
    let server = S3Server::shared();
    let wrong = S3Options {
        secret_key: Some("not-the-secret".to_owned()),
        ..server.options()
    };
    let url = format!("s3://{}/{APPLICATION}", server.bucket());
    for (url, options, code) in [
        (&url[..], &wrong, "TG1203"),
        ("s3://bucket/tools", &server.options(), "TG1204"),
        (&url[..], &server.options(), "TG4301"),
    ] {
        let store = open(url, options).expect("nothing is asked yet");
        let error = Catalogue::read(store, Scope::ALL, &Unseen)
            .err()
            .expect("there is nothing to read");
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(url), "{error}");
    }
}
