//! Which objects the bases of a long history refer to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::blob::BlobLimits;
use crate::blob::metrics::BlobMetrics;
use crate::blob::object::{ObjectBlobs, S3Options};
use crate::durability::snapshot::{ChainLimits, Retention, SnapshotId};
use crate::ids::{Epoch, Lineage, StoreId, TaskId};
use crate::log::embedded::EmbeddedLog;
use crate::state::{Checkpoint, SortedIncrement, StateBackend, StateError, StateFile, StateMeta, StateResult};
use crate::time::SystemClock;

use super::lazy::RestoreMode;
use super::repository::{Repository, SnapshotSettings};
use super::upload::{FileHashes, KnownIncrements, SnapshotJob, Snapshotted, Upload};

const TASK: TaskId = TaskId {
    sub_topology: 0,
    partition: 0,
};
const LINEAGE: Lineage = Lineage(7);

fn repository() -> Arc<Repository> {
    let limits = BlobLimits {
        request_timeout: Duration::from_secs(10),
        call_timeout: Duration::from_secs(20),
        concurrency: 4,
        upload_bytes_per_second: 0,
        download_bytes_per_second: 0,
    };
    let (url, metrics) = ("memory://name", Arc::new(BlobMetrics::default()));
    let store = ObjectBlobs::open(url, &S3Options::default(), limits, metrics).expect("memory can be used");
    let attempts = AtomicU64::new(1);
    Arc::new(Repository {
        store,
        settings: SnapshotSettings {
            limits: ChainLimits {
                interval: Duration::from_secs(1),
                max_objects: 100,
                max_bytes: 1 << 20,
            },
            retention: Retention {
                keep: 1,
                grace: Duration::from_secs(3_600),
            },
            persist_timeout: Duration::from_secs(5),
            small_file_bytes: 1_000,
            collect_interval: Duration::from_secs(600),
            restore: RestoreMode::Full,
            spill: false,
            spill_after: Duration::from_secs(1),
            lazy_timeout: Duration::from_secs(5),
        },
        log: EmbeddedLog::new(Arc::new(SystemClock::default())),
        application_id: "test".to_owned(),
        random: Arc::new(move || attempts.fetch_add(1, Ordering::Relaxed)),
        clock: Arc::new(SystemClock::default()),
        instance: "test".to_owned(),
    })
}

/// A database of which only the files matter.
#[derive(Default)]
struct Files(Mutex<(u64, BTreeMap<String, Vec<u8>>)>);

impl Files {
    fn change(&self, change: impl FnOnce(&mut u64, &mut BTreeMap<String, Vec<u8>>)) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (epoch, files) = &mut *files;
        change(epoch, files);
    }
}

struct Frozen(StateMeta, Vec<StateFile>, Vec<Vec<u8>>);

impl Checkpoint for Frozen {
    fn meta(&self) -> &StateMeta {
        &self.0
    }

    fn kind(&self) -> &'static str {
        "files"
    }

    fn files(&self) -> &[StateFile] {
        &self.1
    }

    fn read(&self, file: usize, offset: u64, into: &mut [u8]) -> StateResult<()> {
        into.copy_from_slice(&self.2[file][offset as usize..offset as usize + into.len()]);
        Ok(())
    }
}

impl StateBackend for Files {
    fn get(&self, _: StoreId, _: &[u8], _: &mut Vec<u8>) -> StateResult<bool> {
        Ok(false)
    }

    fn scan(&self, _: StoreId, _: &[u8], _: &[u8], _: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> StateResult<()> {
        Ok(())
    }

    fn apply(&self, _: &dyn SortedIncrement, _: &StateMeta) -> StateResult<()> {
        Ok(())
    }

    fn meta(&self) -> StateResult<Option<StateMeta>> {
        Ok(None)
    }

    fn checkpoint(&self) -> StateResult<Box<dyn Checkpoint>> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let meta = StateMeta {
            lineage: LINEAGE,
            epoch: Epoch(files.0),
            ended_ms: 0,
            cut: BTreeMap::new(),
            changelog: BTreeMap::new(),
        };
        let list = files.1.iter().map(|(name, bytes)| StateFile {
            name: name.clone(),
            bytes: bytes.len() as u64,
            immutable: name.ends_with(".sst"),
        });
        Ok(Box::new(Frozen(
            meta,
            list.collect(),
            files.1.values().cloned().collect(),
        )))
    }

    fn size_bytes(&self) -> u64 {
        0
    }
}

fn base(
    repository: &Arc<Repository>,
    files: &Arc<Files>,
    parent: Option<SnapshotId>,
) -> Result<Snapshotted, StateError> {
    let job = SnapshotJob {
        task: TASK,
        lineage: LINEAGE,
        backend: Arc::<Files>::clone(files),
        hashes: Arc::<FileHashes>::default(),
        stores: Vec::new(),
        plan: "plan".to_owned(),
        writer: "test/worker-0".to_owned(),
        parent,
        increments: Arc::<KnownIncrements>::default(),
        cancelled: Arc::new(AtomicBool::new(false)),
    };
    let mut upload = Upload::new(Arc::clone(repository), job);
    loop {
        if let Some(outcome) = upload.step() {
            return Ok(outcome.expect("the store takes everything"));
        }
    }
}

#[test]
fn small_files_of_a_long_history_stay_in_few_objects_and_are_rarely_stored_anew() {
    let (repository, files) = (repository(), Arc::<Files>::default());
    let (mut parent, mut written, mut uploaded, mut most) = (None, 0, 0, 0);
    for round in 1..=120_u64 {
        files.change(|epoch, files| {
            *epoch = round;
            // A small file is new in each round and goes 40 rounds later; one that changes is there all the time.
            let bytes: Vec<u8> = (0..700).map(|at| (round * 31 + at) as u8 ^ (at >> 3) as u8).collect();
            written += bytes.len() as u64 + 8;
            files.insert(format!("{round:06}.sst"), bytes);
            files.insert("CURRENT".to_owned(), round.to_be_bytes().to_vec());
            files.remove(&format!("{:06}.sst", round.saturating_sub(40)));
        });
        let made = base(&repository, &files, parent).expect("a base is made");
        uploaded += made.uploaded_bytes;
        let manifest = repository.manifest(TASK, made.id).expect("it is there");
        let objects: BTreeSet<&str> = manifest.files.iter().map(|file| &*file.object).collect();
        most = most.max(objects.len());
        for file in &manifest.files {
            let object = repository.store.read(&file.object).expect("it is there");
            let from = file.offset as usize;
            let stored = &object[from..from + file.bytes as usize];
            files.change(|_, files| assert_eq!(stored, files[&file.name], "{}", file.name));
        }
        parent = Some(made.id);
    }
    assert!(most <= 9, "{most} objects hold the small files of one base");
    assert!(uploaded < 6 * written, "{uploaded} bytes were uploaded for {written}");
}
