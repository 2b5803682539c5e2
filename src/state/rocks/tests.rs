//! What RocksDB adds to the conformance suite: files, locks, damage, foreign directories.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use rocksdb::{DB, Options};

use super::*;
use crate::errors::Coded;
use crate::state::conformance::{self, ORDERED, PLAIN, increment, meta, stores};
use crate::state::task_state_tests::{check_against_model, step};

pub(super) const MIB: usize = 1024 * 1024;

/// `tempfile` where a failure to make one ends the test.
pub(super) fn directory() -> tempfile::TempDir {
    match tempfile::tempdir() {
        Ok(directory) => directory,
        Err(error) => panic!("no temporary directory: {error}"),
    }
}

pub(super) fn shared() -> RocksShared {
    RocksShared::new(4 * MIB, 8 * MIB)
}

pub(super) fn open(path: &Path) -> RocksBackend {
    match RocksBackend::open(path, &stores(), &shared()) {
        Ok(backend) => backend,
        Err(error) => panic!("{error}"),
    }
}

fn refusal(path: &Path, stores: &[StoreSpec]) -> StateError {
    match RocksBackend::open(path, stores, &shared()) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error,
    }
}

fn apply(backend: &RocksBackend, epoch: u64, writes: &[conformance::Write<'_>]) {
    let applied = backend.apply(&increment(writes), &meta(epoch));
    assert!(applied.is_ok(), "{applied:?}");
}

/// A database with 2000 entries per store in SST files and nothing in its log.
fn flushed_database(path: &Path) {
    let backend = open(path);
    let keys: Vec<[u8; 4]> = (0..2000u32).map(u32::to_be_bytes).collect();
    let of = |store| keys.iter().map(move |key| (store, &key[..], Some(&key[..])));
    let writes: Vec<conformance::Write<'_>> = of(PLAIN).chain(of(ORDERED)).collect();
    apply(&backend, 1, &writes);
    let handles: Vec<_> = [METADATA, "store.plain", "store.ordered"]
        .iter()
        .filter_map(|name| backend.db.cf_handle(name))
        .collect();
    let flushed = backend.db.flush_cfs_opt(&handles, &FlushOptions::default());
    assert!(flushed.is_ok(), "{flushed:?}");
}

pub(super) fn files(path: &Path, matches: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let listing = fs::read_dir(path).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = listing
        .filter(|entry| matches(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

fn assert_names(error: &StateError, path: &Path) {
    let message = error.to_string();
    assert!(
        message.contains(&path.display().to_string()),
        "{message:?} does not name the directory"
    );
}

#[test]
fn rocksdb_conforms() {
    let directory = directory();
    let opened = std::cell::Cell::new(0);
    conformance::run(&|| {
        opened.set(opened.get() + 1);
        Arc::new(open(&directory.path().join(opened.get().to_string())))
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn reads_over_rocksdb_see_every_write_so_far(
        cache_bytes in prop_oneof![Just(0), Just(1200), Just(1 << 20)],
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let directory = directory();
        check_against_model(Arc::new(open(directory.path())), cache_bytes, steps);
    }
}

#[test]
fn a_database_is_found_again() {
    let directory = directory();
    apply(&open(directory.path()), 3, &[(PLAIN, b"a", Some(b"1"))]);
    let backend = open(directory.path());
    assert_eq!(backend.meta().ok(), Some(Some(meta(3))));
    assert_eq!(
        conformance::entries(&backend, PLAIN, b"", b""),
        [(b"a".to_vec(), b"1".to_vec())]
    );
}

#[test]
fn a_second_opening_is_refused_until_the_first_closes() {
    let directory = directory();
    let first = open(directory.path());
    let error = refusal(directory.path(), &stores());
    assert!(matches!(error, StateError::Locked { .. }), "{error:?}");
    assert_eq!(error.code(), "TG1101");
    assert_names(&error, directory.path());
    let error = RocksBackend::destroy(directory.path());
    assert!(matches!(error, Err(StateError::Locked { .. })), "{error:?}");
    drop(first);
    open(directory.path());
}

#[test]
fn a_reader_looks_beside_the_writer_and_cannot_write() {
    let directory = directory();
    let error = RocksBackend::open_read_only(directory.path(), &stores(), &shared());
    assert!(
        matches!(error, Err(StateError::Io { .. })),
        "nothing is created: {error:?}"
    );
    let writer = open(directory.path());
    apply(&writer, 1, &[(PLAIN, b"a", Some(b"1"))]);
    let reader = match RocksBackend::open_read_only(directory.path(), &stores(), &shared()) {
        Ok(reader) => reader,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(reader.meta().ok(), Some(Some(meta(1))));
    assert_eq!(conformance::entries(&reader, PLAIN, b"", b"").len(), 1);
    assert!(reader.apply(&increment(&[]), &meta(2)).is_err());
    apply(&writer, 2, &[(PLAIN, b"a", Some(b"2"))]);
}

#[test]
fn a_destroyed_database_is_gone() {
    let directory = directory();
    let path = directory.path().join("0_0");
    assert!(RocksBackend::destroy(&path).is_ok(), "nothing to do");
    flushed_database(&path);
    let destroyed = RocksBackend::destroy(&path);
    assert!(destroyed.is_ok(), "{destroyed:?}");
    assert!(!path.exists());
    assert_eq!(open(&path).meta().ok(), Some(None));
}

#[test]
fn a_directory_of_somebody_else_is_left_alone() {
    let directory = directory();
    let file = directory.path().join("thesis.tex");
    assert!(fs::write(&file, "precious").is_ok());
    let error = refusal(directory.path(), &stores());
    assert!(matches!(error, StateError::Foreign { .. }), "{error:?}");
    assert!(error.to_string().contains("thesis.tex"), "{error}");
    let destroyed = RocksBackend::destroy(directory.path());
    assert!(matches!(destroyed, Err(StateError::Foreign { .. })), "{destroyed:?}");
    assert_eq!(fs::read_dir(directory.path()).map(Iterator::count).ok(), Some(1));
}

#[test]
fn other_stores_are_refused_with_the_difference() {
    let directory = directory();
    drop(open(directory.path()));
    let mut other = stores();
    other[0].codecs = "utf8/i64-be".into();
    other[1].name = "sorted".into();
    let error = refusal(directory.path(), &other);
    assert!(matches!(error, StateError::Foreign { .. }), "{error:?}");
    let message = error.to_string();
    for difference in [
        "its store \"plain\" holds bytes/bytes, not utf8/i64-be",
        "it has no store \"sorted\"",
        "its store \"ordered\" is not in the topology",
    ] {
        assert!(message.contains(difference), "{message}");
    }
    let fewer = &stores()[..1];
    assert!(matches!(refusal(directory.path(), fewer), StateError::Foreign { .. }));
    let renumbered: Vec<StoreSpec> = stores().into_iter().rev().collect();
    assert!(
        RocksBackend::open(directory.path(), &renumbered, &shared()).is_ok(),
        "stores go by name"
    );
}

/// Changes what a closed database says about itself.
fn write_metadata(path: &Path, key: &[u8], value: &[u8]) {
    let names = [METADATA, "store.plain", "store.ordered"];
    let written = DB::open_cf(&Options::default(), path, names).and_then(|db| db.put(key, value));
    assert!(written.is_ok(), "{written:?}");
}

#[test]
fn a_database_of_a_later_version_is_refused() {
    let directory = directory();
    drop(open(directory.path()));
    write_metadata(directory.path(), LAYOUT_KEY, br#"{"format":2,"tables":[]}"#);
    let error = refusal(directory.path(), &stores());
    assert!(
        matches!(&error, StateError::Foreign { reason, .. } if reason.contains("format is 2")),
        "{error:?}"
    );
}

#[test]
fn damaged_metadata_is_noticed_at_the_opening() {
    for (key, damage) in [(META_KEY, b"TGSM and then nothing".as_slice()), (LAYOUT_KEY, b"{")] {
        let directory = directory();
        apply(&open(directory.path()), 1, &[]);
        write_metadata(directory.path(), key, damage);
        let error = refusal(directory.path(), &stores());
        assert!(matches!(error, StateError::Corrupt { .. }), "{error:?}");
    }
}

#[test]
fn a_flipped_byte_in_a_data_file_is_found_by_whoever_reads_it() {
    let directory = directory();
    flushed_database(directory.path());
    for file in files(directory.path(), |name| name.ends_with(".sst")) {
        let mut bytes = fs::read(&file).unwrap_or_default();
        // Data blocks come first.
        for byte in bytes.iter_mut().take(2000).skip(20) {
            *byte ^= 0x55;
        }
        assert!(fs::write(&file, bytes).is_ok());
    }
    let error = match RocksBackend::open(directory.path(), &stores(), &shared()) {
        Err(error) => error,
        Ok(backend) => {
            let read = backend.get(PLAIN, &7u32.to_be_bytes(), &mut Vec::new());
            let scanned = backend.scan(ORDERED, b"", b"", &mut |_, _| true);
            assert!(matches!(scanned, Err(StateError::Corrupt { .. })), "{scanned:?}");
            match read {
                Err(error) => error,
                Ok(found) => panic!("a damaged block was read: {found}"),
            }
        }
    };
    assert!(matches!(error, StateError::Corrupt { .. }), "{error:?}");
    assert_eq!(error.code(), "TG1103");
    assert_names(&error, directory.path());
}

#[test]
fn missing_and_cut_files_are_damage_never_an_empty_start() {
    type Damage = (&'static str, fn(&Path));
    let damages: [Damage; 5] = [
        ("an SST is deleted", |path| remove(path, |name| name.ends_with(".sst"))),
        ("MANIFEST is cut", |path| {
            for manifest in files(path, |name| name.starts_with("MANIFEST")) {
                let bytes = fs::read(&manifest).unwrap_or_default();
                assert!(fs::write(&manifest, &bytes[..bytes.len() / 3]).is_ok());
            }
        }),
        ("MANIFEST is empty", |path| {
            for manifest in files(path, |name| name.starts_with("MANIFEST")) {
                assert!(fs::write(&manifest, b"").is_ok());
            }
        }),
        ("MANIFEST is deleted", |path| {
            remove(path, |name| name.starts_with("MANIFEST"))
        }),
        ("CURRENT is deleted", |path| remove(path, |name| name == "CURRENT")),
    ];
    for (damage, inflict) in damages {
        let directory = directory();
        flushed_database(directory.path());
        inflict(directory.path());
        let opened = RocksBackend::open(directory.path(), &stores(), &shared());
        let Err(error) = opened else {
            panic!("the database was opened although {damage}");
        };
        assert!(matches!(error, StateError::Corrupt { .. }), "{damage}: {error:?}");
        assert_names(&error, directory.path());
        let destroyed = RocksBackend::destroy(directory.path());
        assert!(destroyed.is_ok(), "the remedy works after {damage}: {destroyed:?}");
        assert_eq!(open(directory.path()).meta().ok(), Some(None));
    }
}

fn remove(path: &Path, matches: impl Fn(&str) -> bool) {
    let doomed = files(path, matches);
    assert!(!doomed.is_empty());
    for file in doomed {
        assert!(fs::remove_file(file).is_ok());
    }
}

#[test]
fn a_creation_that_was_cut_off_is_finished() {
    let directory = directory();
    let before_anything = directory.path().join("early");
    assert!(fs::create_dir(&before_anything).is_ok());
    assert!(fs::write(before_anything.join("LOCK"), b"").is_ok());
    assert_eq!(open(&before_anything).meta().ok(), Some(None));
    let without_stores = directory.path().join("late");
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    assert!(DB::open_cf(&options, &without_stores, [METADATA, "store.plain"]).is_ok());
    let backend = open(&without_stores);
    apply(&backend, 1, &[(ORDERED, b"a", Some(b"1"))]);
}

#[test]
fn memory_of_all_databases_is_bounded_together() {
    let directory = directory();
    let shared = RocksShared::new(4 * MIB, 8 * MIB);
    let backends: Vec<RocksBackend> = (0..3)
        .filter_map(|task| RocksBackend::open(&directory.path().join(task.to_string()), &stores(), &shared).ok())
        .collect();
    assert_eq!(backends.len(), 3);
    let value = vec![7; 10_000];
    for epoch in 1..=300u64 {
        for backend in &backends {
            let keys: Vec<[u8; 8]> = (0..10).map(|key| (epoch * 10 + key).to_be_bytes()).collect();
            let writes: Vec<conformance::Write<'_>> =
                keys.iter().map(|key| (PLAIN, &key[..], Some(&value[..]))).collect();
            apply(backend, epoch, &writes);
        }
        // Flushes run in the background: each of the three stores has at most four memtables, of a quarter of the bound each, and begins some
        // pieces more.
        let bytes = shared.write_buffer_bytes();
        assert!(bytes <= 3 * 8 * MIB + 2 * MIB, "{bytes} bytes of memtables");
    }
    let blocks = shared.block_cache_bytes();
    assert!(blocks <= 5 * MIB, "{blocks} bytes of blocks");
    assert!(backends[0].size_bytes() > 0);
}
