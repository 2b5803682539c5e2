//! Databases that are used while their files are still coming, on real files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::lacking::{ARRIVING, MARKER};
use super::tests::{directory, files, shared};
use super::*;
use crate::errors::Coded;
use crate::state::conformance::{ORDERED, PLAIN, entries, increment, meta, stores};
use crate::state::{FileSource, LackingFile, NotFetched, StateFile, TakePiece};
use crate::time::{Clock, SystemClock};

/// What the store of the tests does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Gives,
    IsAway,
    HasDamaged(String),
}

/// A store that has all files of a database.
pub(super) struct Depot {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    mood: Mutex<Mood>,
    fetched: Mutex<Vec<String>>,
    waits: AtomicUsize,
    batch_bytes: u64,
}

impl Depot {
    pub(super) fn of(files: BTreeMap<String, Vec<u8>>) -> Self {
        Self {
            files,
            mood: Mutex::new(Mood::Gives),
            fetched: Mutex::default(),
            waits: AtomicUsize::new(0),
            batch_bytes: 1,
        }
    }

    pub(super) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    pub(super) fn fetched(&self) -> Vec<String> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn fetching(self: &Arc<Self>) -> Fetching {
        Fetching {
            source: Arc::clone(self) as Arc<dyn FileSource>,
            read_wait: Duration::from_millis(20),
        }
    }
}

impl FileSource for Depot {
    fn fetch(&self, files: &[LackingFile], take: &mut TakePiece<'_>) -> StateResult<Result<(), NotFetched>> {
        let mood = self.mood.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (index, file) in files.iter().enumerate() {
            assert_eq!(file.origin, format!("depot of {}", file.name));
            let bytes = &self.files[&file.name];
            for (number, piece) in bytes.chunks(64 << 10).enumerate() {
                take(index, (number * (64 << 10)) as u64, piece)?;
            }
            match &mood {
                Mood::Gives => {}
                Mood::IsAway => return Ok(Err(NotFetched::Passing("the depot is closed".into()))),
                Mood::HasDamaged(name) if *name == file.name => {
                    return Ok(Err(NotFetched::Damaged("the checksum differs".into())));
                }
                Mood::HasDamaged(_) => {}
            }
        }
        let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        fetched.extend(files.iter().map(|file| file.name.clone()));
        Ok(Ok(()))
    }

    fn batch_bytes(&self) -> u64 {
        self.batch_bytes
    }

    fn waited(&self, _time: Duration) {
        self.waits.fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) type Oracle = BTreeMap<(u16, Vec<u8>), Vec<u8>>;

pub(super) const KEYS: u32 = 12_000;
pub(super) const EPOCHS: u64 = 12;

pub(super) fn key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn value(number: u32, epoch: u64) -> Vec<u8> {
    let mut value = vec![0; 120];
    let mut state = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ epoch.wrapping_mul(0x2545_f491_4f6c_dd1d);
    for piece in value.chunks_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        piece.copy_from_slice(&state.to_be_bytes()[..piece.len()]);
    }
    value
}

/// Writes some keys, deletes some, in both stores.
pub(super) fn apply_epoch(backend: &RocksBackend, oracle: &mut Oracle, epoch: u64, numbers: impl Iterator<Item = u32>) {
    let rows: Vec<(StoreId, [u8; 4], Option<Vec<u8>>)> = numbers
        .map(|number| {
            let store = if number.is_multiple_of(3) { ORDERED } else { PLAIN };
            let is_deletion = (u64::from(number) + epoch).is_multiple_of(11);
            (store, key(number), (!is_deletion).then(|| value(number, epoch)))
        })
        .collect();
    let writes: Vec<_> = rows
        .iter()
        .map(|(store, key, value)| (*store, &key[..], value.as_deref()))
        .collect();
    backend.apply(&increment(&writes), &meta(epoch)).expect("it is applied");
    for (store, key, value) in rows {
        match value {
            Some(value) => oracle.insert((store.0, key.to_vec()), value),
            None => oracle.remove(&(store.0, key.to_vec())),
        };
    }
}

/// A database of several levels, as files, and what it holds.
pub(super) struct Origin {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// Those that say what the database is.
    first: Vec<String>,
    pub(super) oracle: Oracle,
}

impl Origin {
    fn make() -> Self {
        let directory = directory();
        let path = directory.path().join("0_0");
        let backend = RocksBackend::open(&path, &stores(), &shared()).expect("it is new");
        let mut oracle = Oracle::new();
        for epoch in 1..=EPOCHS {
            let of_epoch = (0..KEYS).filter(move |number| epoch <= 6 || (u64::from(*number) + epoch).is_multiple_of(7));
            apply_epoch(&backend, &mut oracle, epoch, of_epoch);
            if epoch.is_multiple_of(2) {
                backend.flush().expect("it is flushed");
            }
            if epoch == 6 {
                for handle in backend.store_handles() {
                    backend.db.compact_range_cf(handle, None::<&[u8]>, None::<&[u8]>);
                }
            }
        }
        let copy = backend.checkpoint().expect("a checkpoint is made");
        let mut files = BTreeMap::new();
        for (index, file) in copy.files().iter().enumerate() {
            let mut bytes = vec![0; file.bytes as usize];
            copy.read(index, 0, &mut bytes).expect("it can be read");
            files.insert(file.name.clone(), bytes);
        }
        let live = backend.db.live_files().expect("they are known");
        let first = live.iter().filter(|file| file.column_family_name == METADATA);
        let first = first.map(|file| file.name.trim_start_matches('/').to_owned()).collect();
        Self { files, first, oracle }
    }

    pub(super) fn is_lacking(&self, name: &str) -> bool {
        name.ends_with(".sst") && !self.first.iter().any(|first| first == name)
    }

    pub(super) fn depot(&self) -> Arc<Depot> {
        Arc::new(Depot::of(self.files.clone()))
    }

    /// Puts the database together in `path` without its data files.
    pub(super) fn install(&self, path: &Path, fetching: Fetching) -> Arc<dyn StateBackend> {
        let mut installation = RocksBackend::install(path, &stores(), &shared()).expect("it begins");
        assert!(installation.can_lack_files());
        let (mut all, mut lacking) = (Vec::new(), Vec::new());
        for (name, bytes) in &self.files {
            let file = StateFile {
                name: name.clone(),
                bytes: bytes.len() as u64,
                immutable: name.ends_with(".sst"),
            };
            if self.is_lacking(name) {
                lacking.push(LackingFile {
                    name: name.clone(),
                    bytes: file.bytes,
                    origin: format!("depot of {name}"),
                });
            } else {
                installation.write(name, 0, bytes).expect("it is written");
            }
            all.push(file);
        }
        assert!(
            lacking.len() >= 4,
            "{} files are too few to tell anything",
            lacking.len()
        );
        installation
            .finish_lacking(&all, &lacking, fetching)
            .expect("it is opened")
    }
}

pub(super) fn origin() -> &'static Origin {
    static ORIGIN: std::sync::OnceLock<Origin> = std::sync::OnceLock::new();
    ORIGIN.get_or_init(Origin::make)
}

pub(super) fn resume(path: &Path, depot: &Arc<Depot>) -> StateResult<RocksBackend> {
    RocksBackend::resume(path, &stores(), &shared(), depot.fetching())
}

pub(super) fn get(backend: &dyn StateBackend, store: StoreId, key: &[u8]) -> StateResult<Option<Vec<u8>>> {
    let mut out = Vec::new();
    Ok(backend.get(store, key, &mut out)?.then_some(out))
}

pub(super) fn assert_holds(backend: &dyn StateBackend, oracle: &Oracle) {
    for store in [PLAIN, ORDERED] {
        let expected = oracle.iter().filter(|((of, _), _)| *of == store.0);
        let expected: Vec<_> = expected.map(|((_, key), value)| (key.clone(), value.clone())).collect();
        assert!(
            entries(backend, store, b"", b"") == expected,
            "store {} differs",
            store.0
        );
    }
}

pub(super) fn fetch_all(backend: &dyn StateBackend) {
    while backend.fetch_some().expect("it is there").files > 0 {}
}

#[test]
fn a_read_brings_what_it_needs_and_no_more() {
    let (directory, depot) = (directory(), origin().depot());
    let backend = origin().install(&directory.path().join("0_0"), depot.fetching());
    let before = backend.lacking();
    assert_eq!(backend.meta().expect("it is known"), Some(meta(EPOCHS)));
    assert_eq!(depot.fetched(), Vec::<String>::new(), "opening needs none of them");
    let expected = origin().oracle.get(&(PLAIN.0, key(4).to_vec())).cloned();
    assert_eq!(get(&*backend, PLAIN, &key(4)).expect("it comes"), expected);
    let (after, fetched) = (backend.lacking(), depot.fetched().len());
    assert!(
        fetched > 0 && after.files == before.files - fetched && after.files > 0,
        "{after:?} of {before:?}"
    );
    assert!(depot.waits.load(Ordering::Relaxed) >= fetched);
    get(&*backend, PLAIN, &key(4)).expect("it is here");
    assert_eq!(depot.fetched().len(), fetched, "nothing is fetched twice");
}

#[test]
fn once_all_files_are_here_it_is_a_database_as_any_other() {
    let (directory, depot) = (directory(), origin().depot());
    let path = directory.path().join("0_0");
    let backend = origin().install(&path, depot.fetching());
    assert!(matches!(backend.checkpoint(), Err(StateError::Incomplete { .. })));
    assert!(path.join(MARKER).exists());
    fetch_all(&*backend);
    assert!(!path.join(MARKER).exists());
    assert!(files(&path, |name| name.ends_with(ARRIVING)).is_empty());
    assert_holds(&*backend, &origin().oracle);
    let copy = backend.checkpoint().expect("it can be copied");
    assert!(copy.files().len() >= origin().files.len() - 3);
    drop((copy, backend));
    let opened = RocksBackend::open(&path, &stores(), &shared()).expect("it is opened as any other");
    assert_eq!(opened.lacking(), Lacking::default());
    assert_holds(&opened, &origin().oracle);
}

#[test]
fn what_was_written_while_files_came_is_compacted_afterwards() {
    let (directory, depot) = (directory(), origin().depot());
    let path = directory.path().join("0_0");
    drop(origin().install(&path, depot.fetching()));
    let backend = resume(&path, &depot).expect("it is opened");
    let mut oracle = origin().oracle.clone();
    for epoch in EPOCHS + 1..EPOCHS + 8 {
        apply_epoch(&backend, &mut oracle, epoch, (0..KEYS).step_by(5));
        backend.flush().expect("it is flushed");
    }
    let first_level = |backend: &RocksBackend| {
        let live = backend.db.live_files().expect("they are known");
        live.iter()
            .filter(|file| file.level == 0 && file.column_family_name == "store.plain")
            .count()
    };
    assert!(
        first_level(&backend) >= 7,
        "nothing is compacted while files are lacking"
    );
    fetch_all(&backend);
    let clock = SystemClock::default();
    while first_level(&backend) >= 7 {
        assert!(clock.monotonic() < Duration::from_secs(30), "it is compacted now");
        std::thread::yield_now();
    }
    assert_holds(&backend, &oracle);
}

#[test]
fn a_database_that_lacks_files_is_not_taken_for_a_whole_one() {
    let (directory, depot) = (directory(), origin().depot());
    let path = directory.path().join("0_0");
    drop(origin().install(&path, depot.fetching()));
    for refused in [
        RocksBackend::open(&path, &stores(), &shared()),
        RocksBackend::open_read_only(&path, &stores(), &shared()),
    ] {
        let error = refused.expect_err("it lacks files");
        assert_eq!(error.code(), "TG3016");
        assert!(matches!(error, StateError::Incomplete { files, is_given_up: false, .. } if files >= 4));
    }
    // Also where the list has gone: then RocksDB says that a file is missing, when it is opened or when it is read.
    fs::remove_file(path.join(MARKER)).expect("it was there");
    match RocksBackend::open(&path, &stores(), &shared()) {
        Err(error) => assert!(matches!(error, StateError::Corrupt { .. }), "{error}"),
        Ok(backend) => assert!(matches!(get(&backend, PLAIN, &key(4)), Err(StateError::Corrupt { .. }))),
    }
    RocksBackend::destroy(&path).expect("it can be removed");
    assert!(!path.exists());
}

#[test]
fn a_store_that_is_away_makes_reads_fail_and_not_lie() {
    let (directory, depot) = (directory(), origin().depot());
    let backend = origin().install(&directory.path().join("0_0"), depot.fetching());
    depot.set(Mood::IsAway);
    let error = get(&*backend, PLAIN, &key(4)).expect_err("it cannot come");
    assert!(error.is_about_lacking_files() && error.code() == "TG3014", "{error}");
    assert!(error.to_string().contains("the depot is closed"), "{error}");
    let scanned = backend.scan(ORDERED, b"", b"", &mut |_, _| panic!("nothing is here"));
    assert!(matches!(scanned, Err(StateError::Lacking { .. })));
    assert!(matches!(backend.fetch_some(), Err(StateError::Lacking { .. })));
    assert_eq!(backend.meta().expect("it is here"), Some(meta(EPOCHS)));
    depot.set(Mood::Gives);
    fetch_all(&*backend);
    assert_holds(&*backend, &origin().oracle);
}

#[test]
fn each_file_that_is_damaged_is_found_before_it_is_read() {
    for name in origin().files.keys().filter(|name| origin().is_lacking(name)) {
        let (directory, depot) = (directory(), origin().depot());
        let path = directory.path().join("0_0");
        let backend = origin().install(&path, depot.fetching());
        depot.set(Mood::HasDamaged(name.clone()));
        let failed = loop {
            match backend.fetch_some() {
                Ok(lacking) => assert!(lacking.files > 0, "{name} was taken"),
                Err(error) => break error,
            }
        };
        assert_eq!(failed.code(), "TG3015", "{failed}");
        assert!(
            failed.is_about_lacking_files() && failed.to_string().contains(name.as_str()),
            "{failed}"
        );
        assert!(!path.join(name).exists() && backend.is_given_up());
        drop(backend);
        // It stays so after a restart, until it is replaced by a whole one.
        let refused = resume(&path, &depot).expect_err("it was given up");
        assert!(
            matches!(refused, StateError::Incomplete { is_given_up: true, .. }),
            "{refused}"
        );
    }
    let (directory, depot) = (directory(), origin().depot());
    let path = directory.path().join("0_0");
    let backend = origin().install(&path, depot.fetching());
    let damaged = origin()
        .files
        .keys()
        .rfind(|name| origin().is_lacking(name))
        .expect("there is one");
    depot.set(Mood::HasDamaged(damaged.clone()));
    while backend.fetch_some().is_ok() {}
    drop(backend);
    depot.set(Mood::Gives);
    // What was fetched before is taken from the former one.
    let mut again = RocksBackend::install(&path, &stores(), &shared()).expect("it begins");
    let mut all = Vec::new();
    for (name, bytes) in &origin().files {
        if again.present(name).expect("it can be looked for") != Some(bytes.len() as u64) {
            again.write(name, 0, bytes).expect("it is written");
        }
        all.push(StateFile {
            name: name.clone(),
            bytes: bytes.len() as u64,
            immutable: true,
        });
    }
    assert_holds(&*again.finish(&all).expect("it is whole"), &origin().oracle);
    assert!(!path.join(MARKER).exists());
}
