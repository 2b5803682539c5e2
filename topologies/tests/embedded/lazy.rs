//! Lazy restore of whole instances, with RocksDB and an object store that does not always give what is asked.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tidegate::blob::metrics::BlobMetrics;
use tidegate::blob::object::{ObjectBlobs, S3Options};
use tidegate::blob::{BlobError, BlobInfo, BlobLimits, BlobResult, BlobSource, BlobStore, Part};
use tidegate::codec::Bytes;
use tidegate::durability::Durability;
use tidegate::ids::TopicPartition;
use tidegate::instance::{Backend, Instance, InstanceHandle, Ports};
use tidegate::log::embedded::EmbeddedLog;
use tidegate::log::{Assignment, Commit, Isolation, Log, OutRecord, OutTopic, TopicSpec};
use tidegate::record::Headers;
use tidegate::time::{Clock, SystemClock};
use tidegate::topology::{Builder, Topic, Topology};
use tidegate::worker::{RestoreMode, WorkerMetrics};

use crate::instance::{PATIENCE, settings};

const KEYS: u32 = 6_000;
const STRATEGIES: [Durability; 2] = [Durability::Snapshot, Durability::ChangelogAndSnapshot];

/// A directory as a store, whose data files can be held back.
struct Store {
    directory: Arc<dyn BlobStore>,
    holds_back: AtomicBool,
}

impl Store {
    fn new(directory: &Path) -> Arc<Self> {
        let limits = BlobLimits {
            request_timeout: Duration::from_secs(20),
            call_timeout: Duration::from_secs(40),
            concurrency: 4,
            upload_bytes_per_second: 0,
            download_bytes_per_second: 0,
        };
        let url = format!("file://{}/store", directory.display());
        let metrics = Arc::new(BlobMetrics::default());
        let store = ObjectBlobs::open(&url, &S3Options::default(), limits, metrics);
        Arc::new(Self {
            directory: store.expect("the directory can be used"),
            holds_back: AtomicBool::new(false),
        })
    }

    fn data_files(&self) -> Vec<String> {
        let all = self.list("tasks/").expect("it can be listed");
        all.into_iter()
            .map(|blob| blob.name)
            .filter(|name| name.ends_with(".sst"))
            .collect()
    }
}

impl BlobStore for Store {
    fn create(&self, name: &str, bytes: &[u8]) -> BlobResult<()> {
        self.directory.create(name, bytes)
    }

    fn upload(&self, name: &str, source: &dyn BlobSource) -> BlobResult<()> {
        self.directory.upload(name, source)
    }

    fn read(&self, name: &str) -> BlobResult<Vec<u8>> {
        self.directory.read(name)
    }

    fn read_end(&self, name: &str, bytes: u64) -> BlobResult<Vec<u8>> {
        self.directory.read_end(name, bytes)
    }

    fn read_parts(&self, parts: &[Part]) -> Vec<BlobResult<Vec<u8>>> {
        let is_held = parts.iter().any(|part| part.name.ends_with(".sst")) && self.holds_back.load(Ordering::SeqCst);
        if !is_held {
            return self.directory.read_parts(parts);
        }
        std::thread::park_timeout(Duration::from_millis(2));
        let unavailable = |part: &Part| BlobError::Unavailable {
            root: "the store of the test".to_owned(),
            name: part.name.clone(),
            operation: "read",
            attempts: 1,
            waited_ms: 2,
            reason: "it holds data back".to_owned(),
        };
        parts.iter().map(|part| Err(unavailable(part))).collect()
    }

    fn list(&self, prefix: &str) -> BlobResult<Vec<BlobInfo>> {
        self.directory.list(prefix)
    }

    fn delete(&self, names: &[String]) -> BlobResult<()> {
        self.directory.delete(names)
    }

    fn concurrency(&self) -> usize {
        self.directory.concurrency()
    }

    fn root(&self) -> &str {
        self.directory.root()
    }
}

/// An application with 6,000 large rows, its log and its store.
struct World {
    log: Arc<EmbeddedLog>,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    durability: Durability,
    directory: TempDir,
    written: u64,
    counts: BTreeMap<Vec<u8>, u64>,
}

impl World {
    fn new(durability: Durability) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let directory = TempDir::new().expect("a directory");
        let world = Self {
            log: EmbeddedLog::new(Arc::clone(&clock)),
            store: Store::new(directory.path()),
            clock,
            durability,
            directory,
            written: 0,
            counts: BTreeMap::new(),
        };
        for topic in ["rows", "latest"] {
            let spec = TopicSpec {
                name: topic.into(),
                partitions: 1,
                replication: None,
                config: Vec::new(),
            };
            world.log.admin().create_topic(&spec, PATIENCE).expect("it is new");
        }
        world
    }

    /// Counts the records of each key, in rows of 200 bytes.
    fn topology() -> Arc<Topology> {
        let builder = Builder::new();
        builder
            .stream(&Topic::new("rows", Bytes, Bytes))
            .group_by_key()
            .reduce("rows", |former: Vec<u8>, mut newer: Vec<u8>| {
                let count = count_of(&former) + 1;
                newer[..8].copy_from_slice(&count.to_be_bytes());
                newer
            })
            .to_stream()
            .to(&Topic::new("latest", Bytes, Bytes));
        Arc::new(builder.build().expect("it is right"))
    }

    fn write(&mut self, numbers: impl Iterator<Item = u32>) {
        let mut producer = self.log.producer("test", None).expect("a producer");
        producer.init(PATIENCE).expect("the log answers");
        producer.prepare(&["rows".into()]).expect("it is there");
        producer.begin().expect("it begins");
        for number in numbers {
            self.written += 1;
            let key = number.to_be_bytes();
            let mut state = self.written;
            let mut value = vec![0; 200];
            for piece in value.chunks_mut(8) {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                piece.copy_from_slice(&state.to_be_bytes());
            }
            value[..8].copy_from_slice(&1_u64.to_be_bytes());
            *self.counts.entry(key.to_vec()).or_default() += 1;
            let record = OutRecord {
                topic: OutTopic(0),
                partition: 0,
                key: Some(&key),
                value: Some(&value),
                timestamp_ms: 1_000,
                headers: &Headers::default(),
            };
            producer.send(&record).expect("there is room");
        }
        producer
            .start_commit(Commit::of_records(PATIENCE))
            .expect("nothing else is committing");
        while producer.poll_commit(PATIENCE).is_none() {}
    }

    fn start(&self, disk: &Path, restore: RestoreMode) -> InstanceHandle {
        let mut settings = settings(1, Duration::from_millis(20), Backend::RocksDb, disk);
        settings.durability = self.durability;
        settings.state.cache_bytes = 0;
        settings.snapshots.limits.interval = Duration::from_millis(200);
        settings.snapshots.restore = restore;
        settings.snapshots.lazy_timeout = Duration::from_millis(50);
        let ports = Ports {
            log: Arc::clone(&self.log) as Arc<dyn Log>,
            blobs: Some(Arc::clone(&self.store) as Arc<dyn BlobStore>),
            clock: Arc::clone(&self.clock),
        };
        Instance::start(Self::topology(), settings, ports).expect("it starts")
    }

    fn wait_until(&self, instance: &InstanceHandle, what: &str, mut reached: impl FnMut(&WorkerMetrics) -> bool) {
        let (counters, deadline) = (instance.counters(), self.clock.monotonic() + PATIENCE);
        while !reached(&counters) {
            assert!(!instance.is_finished(), "the instance ended: {what}");
            assert!(self.clock.monotonic() < deadline, "{what}: not in time");
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// Fills the state in several parts, with a base snapshot after each.
    fn fill(&mut self) {
        let disk = TempDir::new_in(self.directory.path()).expect("a directory");
        let instance = self.start(disk.path(), RestoreMode::Full);
        for part in 0..3 {
            self.write((0..KEYS).filter(|number| part == 0 || number % 3 == part));
            let (written, bases) = (self.written, instance.counters().snapshots.get());
            self.wait_until(&instance, "a base of all that was written", |counters| {
                counters.records_committed.get() >= written && counters.snapshots.get() >= bases + 2
                    || counters.records_committed.get() >= written && part > 0 && counters.snapshots.get() > bases
            });
        }
        end(instance);
        assert!(
            !self.store.data_files().is_empty(),
            "some files are large enough to be objects of their own"
        );
    }

    /// What consumers see of each key: its counts, in order.
    fn assert_output_is_exact(&self) {
        let mut seen: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
        let partition = TopicPartition::new("latest", 0);
        let end = self
            .log
            .admin()
            .watermarks(&partition, PATIENCE)
            .expect("it answers")
            .high;
        let mut consumer = self
            .log
            .consumer("check", Isolation::ReadCommitted)
            .expect("a consumer");
        let from = Assignment {
            slot: 0,
            partition,
            offset: 0,
        };
        consumer.assign(&[from]).expect("it is there");
        while consumer.position(0).is_none_or(|position| position < end) {
            let Some(batch) = consumer.poll(10_000, Duration::from_millis(10)).expect("it answers") else {
                continue;
            };
            for run in batch.runs() {
                for index in run.start..run.end {
                    let record = batch.record(index);
                    let (key, value) = (record.key.expect("a key"), record.value.expect("a value"));
                    seen.entry(key.to_vec()).or_default().push(count_of(value));
                }
            }
        }
        assert_eq!(seen.len(), self.counts.len());
        for (key, counts) in seen {
            let expected: Vec<u64> = (1..=self.counts[&key]).collect();
            assert_eq!(counts, expected, "key {key:?}");
        }
    }
}

fn count_of(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn end(instance: InstanceHandle) {
    let counters = instance.counters();
    instance.stop();
    instance.join().expect("it ends without a failure");
    assert_eq!(counters.invariant_violations.get(), 0);
}

#[test]
fn a_task_runs_while_its_files_come_and_waits_for_what_it_reads() {
    for durability in STRATEGIES {
        let mut world = World::new(durability);
        world.fill();
        let disk = TempDir::new_in(world.directory.path()).expect("a directory");
        world.store.holds_back.store(true, Ordering::SeqCst);
        let before = world.written;
        world.write((0..KEYS).step_by(7));
        let instance = world.start(disk.path(), RestoreMode::Lazy);
        world.wait_until(&instance, "epochs that wait in vain are aborted", |counters| {
            counters.aborts.get() >= 3
        });
        let counters = instance.counters();
        assert_eq!(counters.records_committed.get(), 0, "nothing is known of the rows");
        assert!(counters.lazy_read_waits.snapshot().1 > 0);
        // A restart in the midst goes on where it was.
        end(instance);
        let instance = world.start(disk.path(), RestoreMode::Lazy);
        world.wait_until(&instance, "the task runs without its files", |counters| {
            counters.tasks_lacking_files.get() == 1
        });
        assert!(instance.status().ready || instance.counters().tasks_opening.get() > 0);
        let bases = instance.counters().snapshots.get();
        assert_eq!(bases, 0, "no base is made of what is not whole");
        world.store.holds_back.store(false, Ordering::SeqCst);
        let written = world.written - before;
        world.wait_until(&instance, "all is committed", |counters| {
            counters.records_committed.get() >= written
        });
        world.wait_until(&instance, "all files are here, and a base is made again", |counters| {
            counters.tasks_lacking_files.get() == 0 && counters.snapshots.get() > 0
        });
        end(instance);
        world.assert_output_is_exact();
    }
}

#[test]
fn damage_that_is_found_while_a_task_runs_leads_to_another_restore() {
    for durability in STRATEGIES {
        let mut world = World::new(durability);
        world.fill();
        // The newest base is not the only one: what it has of its own is lost, and an older one serves.
        let newest = world.store.data_files();
        let newest = newest.iter().max_by_key(|name| {
            let listed = world.store.list("tasks/").expect("it can be listed");
            listed
                .iter()
                .find(|blob| blob.name == **name)
                .map(|blob| blob.written_ms)
        });
        let newest = newest.expect("there is one").clone();
        world.store.delete(&[newest]).expect("it can be removed");
        let disk = TempDir::new_in(world.directory.path()).expect("a directory");
        let before = world.written;
        world.write((0..KEYS).step_by(5));
        let instance = world.start(disk.path(), RestoreMode::Lazy);
        let written = world.written - before;
        world.wait_until(&instance, "all is committed", |counters| {
            counters.records_committed.get() >= written
        });
        end(instance);
        world.assert_output_is_exact();
    }
}
