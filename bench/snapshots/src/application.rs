//! One application as production runs it: a store that counts and keeps the last value per key.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidegate::blob::metrics::BlobMetrics;
use tidegate::blob::object::{ObjectBlobs, S3Options};
use tidegate::blob::{BlobLimits, BlobStore};
use tidegate::codec::Bytes;
use tidegate::durability::Durability;
use tidegate::ids::{Lineage, StoreId, TaskId, TopicPartition};
use tidegate::instance::{Instance, InstanceHandle, InstanceSettings, Ports};
use tidegate::log::kafka::{KafkaLog, KafkaSettings};
use tidegate::log::{Assignment, Isolation, Log, TopicSpec};
use tidegate::state::{Fetching, Installation, RocksBackend, RocksShared, StateBackend, StateResult, StoreSpec};
use tidegate::time::{Clock, SystemClock};
use tidegate::topology::{Builder, Topic, Topology};
use tidegate::worker::{OpenRequest, Opened, Opener, Repository, StateProvider, WorkerMetrics};
use tidegate_integration_tests::Broker;

use crate::Failure;
use crate::records::{COUNT_BYTES, count_of};
use crate::stalls::Stalls;

/// The store's name.
const STORE: &str = "values";
/// The only task.
pub const TASK: TaskId = TaskId {
    sub_topology: 0,
    partition: 0,
};
const LOOK: Duration = Duration::from_millis(20);
const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(120);

/// Where snapshots lie.
#[derive(Clone, Debug)]
pub enum Place {
    /// In a bucket.
    S3 {
        /// The bucket.
        bucket: String,
        /// How to reach the server.
        options: S3Options,
    },
    /// In a directory of this machine.
    Directory(PathBuf),
}

/// An application and what it runs on.
pub struct Application {
    /// Its settings, but for the state directory.
    pub settings: InstanceSettings,
    /// Where it puts its results.
    pub output: String,
    input: String,
    topology: Arc<Topology>,
    log: Arc<KafkaLog>,
    blobs: Option<Arc<dyn BlobStore>>,
    clock: Arc<dyn Clock>,
}

impl Application {
    /// Makes the topics of an application and says what it is made of. Every record passes `stalls`, if there are any.
    ///
    /// # Errors
    /// Where the broker or the object store refuses.
    pub fn new(
        broker: &Broker,
        (id, input): (&str, &str),
        durability: Durability,
        place: Option<&Place>,
        stalls: Option<Arc<Stalls>>,
    ) -> Result<Self, Failure> {
        let mut settings = InstanceSettings::new(id);
        settings.durability = durability;
        let kafka = KafkaSettings::new(broker.address()).with_commit_interval(settings.commit_interval);
        let log = KafkaLog::new(kafka)?;
        let output = format!("{id}-output");
        create_topic(&*log, &output)?;
        Ok(Self {
            settings,
            topology: Arc::new(topology(input, &output, stalls)?),
            output,
            input: input.to_owned(),
            log,
            blobs: place.map(|place| open(place, id)).transpose()?,
            clock: Arc::new(SystemClock::default()),
        })
    }

    /// The log that it runs on.
    pub fn log(&self) -> &Arc<KafkaLog> {
        &self.log
    }

    /// Starts an instance with its state in `directory`.
    ///
    /// # Errors
    /// As [`Instance::start`].
    pub fn start(&self, directory: &Path) -> Result<InstanceHandle, Failure> {
        let mut settings = self.settings.clone();
        settings.state.dir = directory.to_owned();
        let ports = Ports {
            log: Arc::clone(&self.log) as Arc<dyn Log>,
            blobs: self.blobs.clone(),
            clock: Arc::clone(&self.clock),
        };
        Ok(Instance::start(Arc::clone(&self.topology), settings, ports)?)
    }

    /// Brings the state to `directory` as an instance does it when it opens the task.
    ///
    /// # Errors
    /// Where the task cannot be opened.
    pub fn restore(&self, directory: &Path) -> Result<(Duration, Opened), Failure> {
        let state = &self.settings.state;
        let opener = Arc::new(Opener {
            log: Arc::clone(&self.log) as Arc<dyn Log>,
            states: Arc::new(Databases {
                directory: directory.to_owned(),
                shared: RocksShared::new(state.block_cache_bytes, state.write_buffer_bytes),
            }),
            clock: Arc::clone(&self.clock),
            metrics: Arc::new(WorkerMetrics::default()),
            repository: self.repository(),
        });
        let request = OpenRequest {
            task: TASK,
            application_id: self.settings.application_id.clone(),
            plan: self.topology.fingerprint().to_owned(),
            inputs: vec![TopicPartition::new(&*self.input, 0)],
            stores: self.stores(),
            backend: None,
            begun_at: Vec::new(),
            durability: self.settings.durability,
            new_lineage: Lineage(1),
            restore_timeout: self.settings.restore_timeout,
            allow_empty_state: false,
            cancelled: Arc::new(AtomicBool::new(false)),
        };
        let began = Instant::now();
        let opened = opener.open(request).map_err(|error| format!("{error:?}"))?;
        Ok((began.elapsed(), opened))
    }

    fn stores(&self) -> Vec<StoreSpec> {
        self.topology.plan().sub_topologies[0].stores.clone()
    }

    fn repository(&self) -> Option<Arc<Repository>> {
        let attempts = AtomicU64::new(1);
        Some(Arc::new(Repository {
            store: self.blobs.clone()?,
            settings: self.settings.snapshots.clone(),
            log: Arc::clone(&self.log) as Arc<dyn Log>,
            application_id: self.settings.application_id.clone(),
            random: Arc::new(move || attempts.fetch_add(1, Ordering::Relaxed)),
            clock: Arc::clone(&self.clock),
            instance: "bench".to_owned(),
        }))
    }
}

/// Waits until `reached` says so.
///
/// # Errors
/// If that takes longer than `within`, or the instance ends.
pub fn wait_for(
    instance: &InstanceHandle,
    within: Duration,
    what: &str,
    mut reached: impl FnMut(&WorkerMetrics) -> bool,
) -> Result<(), Failure> {
    let deadline = Instant::now() + within;
    let counters = instance.counters();
    while !reached(&counters) {
        if instance.is_finished() {
            return Err(format!("the instance ended while it was waited for {what}").into());
        }
        if Instant::now() > deadline {
            return Err(format!("{what}: not within {} s", within.as_secs()).into());
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Waits until no base snapshot was made for as long as `quiet`, so that there is none to be made.
///
/// # Errors
/// As [`wait_for`].
pub fn wait_for_bases(instance: &InstanceHandle, within: Duration, quiet: Duration) -> Result<(), Failure> {
    let mut seen = (u64::MAX, Instant::now());
    wait_for(instance, within, "the last base snapshot", |counters| {
        let now = counters.snapshots.get();
        if now != seen.0 {
            seen = (now, Instant::now());
        }
        now > 0 && seen.1.elapsed() >= quiet
    })
}

/// Starts an instance and waits for the first record of its output that is committed; answers how long that took, with the instance. The
/// record has to count what the state had of its key.
///
/// # Errors
/// Where the instance does not start, or says nothing in time.
pub fn time_to_first_output(
    application: &Application,
    directory: &Path,
    within: Duration,
) -> Result<(Duration, InstanceHandle), Failure> {
    let log: &dyn Log = &**application.log();
    let partition = TopicPartition::new(&*application.output, 0);
    let offset = log.admin().watermarks(&partition, ADMIN_TIMEOUT)?.high;
    let mut consumer = log.consumer("bench-output", Isolation::ReadCommitted)?;
    consumer.assign(&[Assignment {
        slot: 0,
        partition,
        offset,
    }])?;
    let began = Instant::now();
    let instance = application.start(directory)?;
    while began.elapsed() < within && !instance.is_finished() {
        let Some(batch) = consumer.poll(1, Duration::from_millis(5))? else {
            continue;
        };
        let Some(run) = batch.runs().first().filter(|run| run.end > run.start) else {
            continue;
        };
        let took = began.elapsed();
        let count = batch.record(run.start).value.map_or(0, count_of);
        return match count {
            0 | 1 => Err("the first output does not know the state".into()),
            _ => Ok((took, instance)),
        };
    }
    Err("there was no output in time".into())
}

/// Stops an instance and waits for its end.
///
/// # Errors
/// Why it ended, unless it was asked to; or that it does not end.
pub fn stop(instance: InstanceHandle) -> Result<(), Failure> {
    instance.stop();
    let deadline = Instant::now() + STOP_TIMEOUT;
    while !instance.is_finished() {
        if Instant::now() > deadline {
            return Err("the instance does not stop".into());
        }
        std::thread::sleep(LOOK);
    }
    Ok(instance.join()?)
}

/// Creates a topic of one partition, kept for ever.
///
/// # Errors
/// Where the broker refuses.
pub fn create_topic(log: &dyn Log, name: &str) -> Result<(), Failure> {
    let spec = TopicSpec {
        name: name.into(),
        partitions: 1,
        replication: None,
        config: Vec::new(),
    };
    Ok(log.admin().create_topic(&spec, ADMIN_TIMEOUT)?)
}

/// Entries of the only store, and a sum over all of them that depends on every byte.
///
/// # Errors
/// Where the database cannot be read.
pub fn contents(backend: &dyn StateBackend) -> Result<(u64, u64), Failure> {
    let (mut entries, mut sum) = (0_u64, 0xcbf2_9ce4_8422_2325_u64);
    backend.scan(StoreId(0), &[], &[], &mut |key, value| {
        entries += 1;
        for piece in key.chunks(8).chain(value.chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..piece.len()].copy_from_slice(piece);
            sum = (sum ^ u64::from_le_bytes(bytes))
                .wrapping_mul(0x0000_0100_0000_01b3)
                .rotate_left(23);
        }
        true
    })?;
    Ok((entries, sum))
}

fn topology(input: &str, output: &str, stalls: Option<Arc<Stalls>>) -> Result<Topology, Failure> {
    let builder = Builder::new();
    builder
        .stream(&Topic::new(input, Bytes, Bytes))
        .map_values(move |value: Vec<u8>| {
            if let Some(stalls) = &stalls {
                stalls.passed();
            }
            value
        })
        .group_by_key()
        .reduce(STORE, counted)
        .to_stream()
        .to(&Topic::new(output, Bytes, Bytes));
    Ok(builder.build()?)
}

/// The newer value with the sum of both counts.
fn counted(former: Vec<u8>, mut newer: Vec<u8>) -> Vec<u8> {
    let count = count_of(&former) + count_of(&newer);
    if let Some(bytes) = newer.first_chunk_mut::<COUNT_BYTES>() {
        *bytes = count.to_be_bytes();
    }
    newer
}

fn open(place: &Place, id: &str) -> Result<Arc<dyn BlobStore>, Failure> {
    // The times are those of a busy machine, the rest as it is shipped.
    let limits = BlobLimits {
        request_timeout: Duration::from_secs(20),
        call_timeout: Duration::from_secs(60),
        concurrency: 8,
        upload_bytes_per_second: 0,
        download_bytes_per_second: 0,
    };
    let metrics = Arc::new(BlobMetrics::default());
    Ok(match place {
        Place::S3 { bucket, options } => ObjectBlobs::open(&format!("s3://{bucket}/{id}"), options, limits, metrics)?,
        Place::Directory(directory) => {
            std::fs::create_dir_all(directory)?;
            let url = format!("file://{}/{id}", directory.display());
            ObjectBlobs::open(&url, &S3Options::default(), limits, metrics)?
        }
    })
}

/// Databases as an instance has them, below one directory.
struct Databases {
    directory: PathBuf,
    shared: RocksShared,
}

impl StateProvider for Databases {
    fn open(&self, task: TaskId, stores: &[StoreSpec]) -> StateResult<Arc<dyn StateBackend>> {
        let path = self.directory.join(task.to_string());
        Ok(Arc::new(RocksBackend::open(&path, stores, &self.shared)?))
    }

    fn clear(&self, task: TaskId) -> StateResult<()> {
        RocksBackend::destroy(&self.directory.join(task.to_string()))
    }

    fn install(&self, task: TaskId, stores: &[StoreSpec]) -> StateResult<Box<dyn Installation>> {
        RocksBackend::install(&self.directory.join(task.to_string()), stores, &self.shared)
    }

    fn resume(&self, task: TaskId, stores: &[StoreSpec], fetching: Fetching) -> StateResult<Arc<dyn StateBackend>> {
        let path = self.directory.join(task.to_string());
        Ok(Arc::new(RocksBackend::resume(&path, stores, &self.shared, fetching)?))
    }
}
