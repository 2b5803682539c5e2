//! What RocksDB adds to the suite of copies: directories, hard links, crashes between the steps of a replacement.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::replacement::LOCK;
use super::tests::{directory, files, open, shared};
use super::*;
use crate::state::conformance::{self, ORDERED, PLAIN, increment, meta, stores};
use crate::state::{StateFile, beside};

fn install(database: &Path) -> Box<dyn Installation> {
    RocksBackend::install(database, &stores(), &shared()).expect("an installation begins")
}

fn write(backend: &dyn StateBackend, epoch: u64) {
    let keys: Vec<[u8; 4]> = (0..500u32).map(u32::to_be_bytes).collect();
    let value = epoch.to_be_bytes();
    let value = &value;
    let of = |store| keys.iter().map(move |key| (store, &key[..], Some(&value[..])));
    let writes: Vec<conformance::Write<'_>> = of(PLAIN).chain(of(ORDERED)).collect();
    backend.apply(&increment(&writes), &meta(epoch)).expect("it is applied");
}

/// Copies a database into an installation that lacks nothing but its end.
fn send(source: &dyn StateBackend, database: &Path) -> (Box<dyn Installation>, Vec<StateFile>) {
    let copy = source.checkpoint().expect("a checkpoint is made");
    let mut installation = install(database);
    for (index, file) in copy.files().iter().enumerate() {
        let mut content = vec![0; file.bytes as usize];
        copy.read(index, 0, &mut content).expect("it can be read");
        installation.write(&file.name, 0, &content).expect("it can be written");
    }
    (installation, copy.files().to_vec())
}

fn epoch(backend: &dyn StateBackend) -> Option<u64> {
    let epoch = backend.meta().expect("it can be read").map(|meta| meta.epoch.0);
    let expected = epoch.map_or(0, |_| 500);
    for store in [PLAIN, ORDERED] {
        let entries = conformance::entries(backend, store, b"", b"");
        assert_eq!(entries.len(), expected);
        let is_of = |value: &[u8]| epoch.is_some_and(|epoch| value == epoch.to_be_bytes());
        assert!(entries.iter().all(|(_, value)| is_of(value)), "a mixture");
    }
    epoch
}

fn sst(name: &str) -> bool {
    name.ends_with(".sst")
}

#[test]
fn a_copy_is_a_directory_of_links_that_goes_with_it() {
    let directory = directory();
    let backend = open(&directory.path().join("0_0"));
    write(&backend, 1);
    let copy = backend.checkpoint().expect("a checkpoint is made");
    let copies = files(directory.path(), |name| name.starts_with("0_0.checkpoint-"));
    assert_eq!(copies.len(), 1);
    let data = files(&copies[0], sst);
    assert!(!data.is_empty());
    for file in data {
        assert_eq!(fs::metadata(file).expect("it is there").nlink(), 2);
    }
    let names: Vec<&str> = copy.files().iter().map(|file| &*file.name).collect();
    assert!(names.contains(&"CURRENT"), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("LO")), "{names:?}");
    let immutable = copy.files().iter().filter(|file| file.immutable);
    assert!(immutable.clone().count() > 0);
    assert!(immutable.clone().all(|file| sst(&file.name)));
    drop(backend);
    open(&directory.path().join("0_0"));
    assert!(copies[0].exists(), "another opening does not take it away");
    drop(copy);
    assert!(!copies[0].exists());
    assert_eq!(files(directory.path(), |_| true).len(), 1, "the database is left");
}

#[test]
fn a_database_without_a_log_is_copied_whole() {
    let directory = directory();
    let path = directory.path().join("0_0");
    let backend = RocksBackend::open(&path, &stores(), &shared().without_log()).expect("it opens");
    write(&backend, 1);
    let target = directory.path().join("0_1");
    let (installation, files) = send(&backend, &target);
    let installed = installation.finish(&files).expect("the installation ends");
    assert_eq!(epoch(&*installed), Some(1));
}

#[test]
fn a_link_to_the_former_database_is_never_written_through() {
    let directory = directory();
    let database = directory.path().join("0_0");
    let backend = open(&database);
    write(&backend, 1);
    drop(backend.checkpoint().expect("it flushes"));
    let data = files(&database, sst);
    let contents: Vec<Vec<u8>> = data.iter().map(|file| fs::read(file).expect("it is there")).collect();
    let names = data
        .iter()
        .map(|file| file.file_name().unwrap_or_default().to_string_lossy());
    let names: Vec<String> = names.map(|name| name.into_owned()).collect();
    let installation = install(&database);
    for name in &names {
        assert!(installation.present(name).expect("it answers").is_some());
    }
    drop(installation);
    // Another process goes on, and does not know which of the files are links.
    let mut installation = install(&database);
    for name in &names {
        installation
            .write(name, 3, b"something else")
            .expect("it can be written");
    }
    let after: Vec<Vec<u8>> = data.iter().map(|file| fs::read(file).expect("it is there")).collect();
    assert_eq!(after, contents);
    let own = files(&beside::installing(&database), sst);
    assert_eq!(own.len(), data.len());
    for (own, content) in own.iter().zip(&contents) {
        let written = fs::read(own).expect("it is there");
        assert_eq!(written[3..17], *b"something else");
        assert_eq!((&written[..3], &written[17..]), (&content[..3], &content[17..]));
    }
}

#[test]
fn a_linked_file_outlives_the_database_that_had_it() {
    let directory = directory();
    let database = directory.path().join("0_0");
    let backend = open(&database);
    write(&backend, 1);
    let copy = backend.checkpoint().expect("a checkpoint is made");
    let mut installation = install(&database);
    for (index, file) in copy.files().iter().enumerate() {
        if installation.present(&file.name).expect("it answers").is_none() {
            assert!(!file.immutable);
            let mut content = vec![0; file.bytes as usize];
            copy.read(index, 0, &mut content).expect("it can be read");
            installation.write(&file.name, 0, &content).expect("it can be written");
        }
    }
    let listed = copy.files().to_vec();
    drop(copy);
    drop(backend);
    let installed = installation.finish(&listed).expect("the installation ends");
    assert_eq!(epoch(&*installed), Some(1));
    drop(installed);
    assert_eq!(epoch(&open(&database)), Some(1));
    assert_eq!(files(directory.path(), |_| true), [database]);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let directory = directory();
    let database = directory.path().join("0_0");
    let mut installation = install(&database);
    for name in [
        "../0_0/CURRENT",
        "/etc/passwd",
        "..",
        "",
        LOCK,
        "LOCK",
        "MANIFEST-1/../2",
        "1.sst/x",
        "sst",
        ".sst",
    ] {
        let refused = installation.write(name, 0, b"x");
        assert!(
            matches!(refused, Err(StateError::Corrupt { .. })),
            "{name:?}: {refused:?}"
        );
        assert!(installation.present(name).is_err() && installation.remove(name).is_err());
    }
    for name in [
        "CURRENT",
        "MANIFEST-000005",
        "OPTIONS-000007",
        "000012.sst",
        "000012.log",
        "000012.blob",
    ] {
        assert!(installation.write(name, 0, b"x").is_ok(), "{name:?}");
    }
}

/// The databases of a crash: epoch 1 is the former one, epoch 2 complete and to replace it.
fn before_the_end(directory: &Path) -> (PathBuf, PathBuf, Vec<StateFile>) {
    let source = open(&directory.join("1_0"));
    write(&source, 2);
    let database = directory.join("0_0");
    write(&open(&database), 1);
    let (installation, listed) = send(&source, &database);
    drop(installation);
    (beside::installing(&database), database, listed)
}

#[test]
fn a_crash_before_the_new_database_is_complete_leaves_the_former() {
    let directory = directory();
    let (installing, database, _) = before_the_end(directory.path());
    assert_eq!(epoch(&open(&database)), Some(1));
    assert!(!installing.exists(), "the leftover is stale");
}

#[test]
fn a_crash_once_the_new_database_is_complete_leaves_that() {
    type Crash = (&'static str, fn(&Path));
    let crashes: [Crash; 4] = [
        ("before anything is destroyed", |_| {}),
        ("while the former is destroyed", |database| {
            assert!(fs::remove_file(database.join("CURRENT")).is_ok());
        }),
        ("when the former is destroyed", |database| {
            assert!(fs::remove_dir_all(database).is_ok());
        }),
        ("when the new one has the task's name", |database| {
            assert!(fs::remove_dir_all(database).is_ok());
            assert!(fs::rename(beside::installed(database), database).is_ok());
        }),
    ];
    for (when, crash) in crashes {
        let directory = directory();
        let (installing, database, _) = before_the_end(directory.path());
        assert!(fs::rename(&installing, beside::installed(&database)).is_ok());
        crash(&database);
        assert_eq!(epoch(&open(&database)), Some(2), "{when}");
        assert_eq!(epoch(&open(&database)), Some(2), "again, {when}");
        assert_eq!(
            files(directory.path(), |name| name.starts_with("0_0")),
            [&*database],
            "{when}"
        );
        RocksBackend::destroy(&database).expect("it is destroyed");
        assert!(!database.exists());
    }
}

#[test]
fn an_installation_completes_the_replacement_that_was_cut_off_before_it() {
    let directory = directory();
    let (installing, database, _) = before_the_end(directory.path());
    assert!(fs::rename(&installing, beside::installed(&database)).is_ok());
    drop(install(&database));
    assert!(!beside::installed(&database).exists());
    assert_eq!(epoch(&open(&database)), Some(2));
}

#[test]
fn without_a_database_the_leftover_is_kept_until_one_is_there() {
    let directory = directory();
    let (installing, database, listed) = before_the_end(directory.path());
    assert!(fs::remove_dir_all(&database).is_ok());
    assert_eq!(epoch(&open(&database)), None);
    assert!(installing.exists());
    let installed = install(&database)
        .finish(&listed)
        .expect("nothing has to be written again");
    assert_eq!(epoch(&*installed), Some(2));
}

#[test]
fn a_replacement_that_goes_on_is_left_alone() {
    let directory = directory();
    let (installing, database, _) = before_the_end(directory.path());
    let installed = beside::installed(&database);
    assert!(fs::rename(&installing, &installed).is_ok());
    let held = File::open(installed.join(LOCK)).expect("it is there");
    held.lock().expect("it is free");
    for refused in [
        RocksBackend::open(&database, &stores(), &shared()).err(),
        RocksBackend::install(&database, &stores(), &shared()).err(),
        RocksBackend::destroy(&database).err(),
    ] {
        assert!(matches!(refused, Some(StateError::Locked { .. })), "{refused:?}");
    }
    drop(held);
    RocksBackend::destroy(&database).expect("it is destroyed");
    assert_eq!(
        files(directory.path(), |name| name.starts_with("0_0")),
        [] as [PathBuf; 0]
    );
}

#[test]
fn a_database_of_other_stores_is_not_installed() {
    let directory = directory();
    let (_, database, listed) = before_the_end(directory.path());
    let mut other = stores();
    other[0].codecs = "utf8/i64-be".into();
    let installation = RocksBackend::install(&database, &other, &shared()).expect("it begins");
    let refused = installation.finish(&listed).err();
    assert!(matches!(refused, Some(StateError::Foreign { .. })), "{refused:?}");
    assert_eq!(epoch(&open(&database)), Some(1));
}
