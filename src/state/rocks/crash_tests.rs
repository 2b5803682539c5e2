//! What is on disk after the process, the machine, or the space is gone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use super::tests::{MIB, directory, files, open, shared};
use super::*;
use crate::state::conformance::{self, ORDERED, PLAIN, increment, meta, stores};
use crate::time::{Clock, SystemClock};

/// Names the directory in which this process plays the child's part of a test.
const CHILD_DIRECTORY: &str = "TIDEGATE_STATE_TEST_CHILD";

fn child_directory() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIRECTORY).map(PathBuf::from)
}

/// The command that runs one test of this file in the role of the child.
fn child(test: &str, directory: &Path, run: impl FnOnce(PathBuf) -> Command) -> Command {
    let binary = std::env::current_exe().unwrap_or_default();
    let mut command = run(binary);
    let (_, module) = module_path!().split_once("::").unwrap_or_default();
    command
        .args([&format!("{module}::{test}"), "--exact", "--nocapture"])
        .env(CHILD_DIRECTORY, directory);
    command
}

fn output(mut command: Command) -> Output {
    match command.output() {
        Ok(output) => output,
        Err(error) => panic!("{command:?} does not start: {error}"),
    }
}

/// One epoch of the history that the tests write: overwrites, growth and deletions in both stores.
fn apply_epoch(backend: &RocksBackend, epoch: u64) -> StateResult<()> {
    let plain = (epoch % 50).to_be_bytes();
    let new = epoch.to_be_bytes();
    let old = epoch.saturating_sub(30).to_be_bytes();
    let mut value = vec![0; 5000];
    value[..8].copy_from_slice(&new);
    let writes: [conformance::Write<'_>; 3] = [
        (PLAIN, &plain, Some(&value)),
        (ORDERED, &new, Some(&value)),
        (ORDERED, &old, None),
    ];
    backend.apply(&increment(&writes), &meta(epoch))
}

fn epoch_of(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// Asserts that the database holds exactly the history up to the epoch that it names, and answers that.
fn assert_is_a_prefix(backend: &RocksBackend) -> u64 {
    let stored = match backend.meta() {
        Ok(stored) => stored,
        Err(error) => panic!("{error}"),
    };
    let epoch = stored.as_ref().map_or(0, |stored| stored.epoch.0);
    assert!(stored.is_none_or(|stored| stored == meta(epoch)));
    let numbers = |store| -> BTreeMap<u64, u64> {
        let entries = conformance::entries(backend, store, b"", b"");
        entries
            .iter()
            .map(|(key, value)| (epoch_of(key), epoch_of(value)))
            .collect()
    };
    let plain: BTreeMap<u64, u64> = (1..=epoch).map(|written| (written % 50, written)).collect();
    assert_eq!(numbers(PLAIN), plain, "after epoch {epoch}");
    let ordered: BTreeMap<u64, u64> = (epoch.saturating_sub(29).max(1)..=epoch)
        .map(|written| (written, written))
        .collect();
    assert_eq!(numbers(ORDERED), ordered, "after epoch {epoch}");
    epoch
}

#[test]
fn a_killed_process_loses_nothing_that_was_applied() {
    if let Some(path) = child_directory() {
        let backend = open(&path);
        for epoch in 1..=100 {
            let applied = apply_epoch(&backend, epoch);
            assert!(applied.is_ok(), "{applied:?}");
        }
        std::process::abort();
    }
    let directory = directory();
    let died = output(child(
        "a_killed_process_loses_nothing_that_was_applied",
        directory.path(),
        Command::new,
    ));
    assert!(!died.status.success(), "the child was to abort");
    assert_eq!(assert_is_a_prefix(&open(directory.path())), 100);
}

#[test]
fn a_lock_holds_against_other_processes() {
    if let Some(path) = child_directory() {
        let refused = RocksBackend::open(&path, &stores(), &shared());
        assert!(matches!(refused, Err(StateError::Locked { .. })), "{refused:?}");
        return;
    }
    let directory = directory();
    let _held = open(directory.path());
    let refused = output(child(
        "a_lock_holds_against_other_processes",
        directory.path(),
        Command::new,
    ));
    assert!(refused.status.success(), "{}", String::from_utf8_lossy(&refused.stderr));
}

/// Writes until the database has flushed by itself, and some epochs more, and dies; answers with the last epoch in the file `last`.
fn write_and_die(path: &Path) {
    let backend = open(&path.join("db"));
    let mut rest = 40;
    for epoch in 1..=20_000 {
        let applied = apply_epoch(&backend, epoch);
        assert!(applied.is_ok(), "{applied:?}");
        let flushed = backend.db.property_int_value("rocksdb.live-sst-files-size");
        if flushed.is_ok_and(|bytes| bytes > Some(0)) {
            rest -= 1;
        }
        if rest == 0 {
            assert!(fs::write(path.join("last"), epoch.to_string()).is_ok());
            std::process::abort();
        }
    }
    panic!("nothing was ever flushed");
}

fn copy(from: &Path, to: &Path) {
    assert!(fs::create_dir(to).is_ok());
    for file in files(from, |_| true) {
        let copied = fs::copy(&file, to.join(file.file_name().unwrap_or_default()));
        assert!(copied.is_ok(), "{copied:?}");
    }
}

/// A machine crash loses what was never synced: the end of the write-ahead log, or all of it.
#[test]
fn a_machine_crash_leaves_a_whole_prefix() {
    if let Some(path) = child_directory() {
        write_and_die(&path);
    }
    let directory = directory();
    let died = output(child(
        "a_machine_crash_leaves_a_whole_prefix",
        directory.path(),
        Command::new,
    ));
    let last = fs::read_to_string(directory.path().join("last")).unwrap_or_default();
    let Ok(last) = last.parse::<u64>() else {
        panic!("{}", String::from_utf8_lossy(&died.stderr));
    };
    let after = |name: &str, damage: &dyn Fn(&[PathBuf])| -> u64 {
        let path = directory.path().join(name);
        copy(&directory.path().join("db"), &path);
        damage(&files(&path, |name| name.ends_with(".log")));
        assert_is_a_prefix(&open(&path))
    };
    assert_eq!(after("whole", &|_| {}), last);
    let flushed = after("without log", &|logs| {
        assert!(logs.iter().all(|log| fs::remove_file(log).is_ok()));
    });
    assert!(0 < flushed && flushed < last, "epoch {flushed} of {last} was flushed");
    // Older logs are synced when a flush closes them, so it is the newest whose end is lost.
    let newest = |logs: &[PathBuf]| logs.last().cloned().unwrap_or_default();
    let mut seen = Vec::new();
    for percent in [0, 1, 10, 25, 50, 75, 90, 99] {
        let cut = after(&format!("cut at {percent} %"), &|logs| {
            let bytes = fs::read(newest(logs)).unwrap_or_default();
            assert!(fs::write(newest(logs), &bytes[..bytes.len() * percent / 100]).is_ok());
        });
        assert!(flushed <= cut && cut < last, "epoch {cut} after a cut at {percent} %");
        seen.push(cut);
        let torn = after(&format!("zeroed from {percent} %"), &|logs| {
            let mut bytes = fs::read(newest(logs)).unwrap_or_default();
            let start = bytes.len() * percent / 100;
            bytes[start..].fill(0);
            assert!(fs::write(newest(logs), bytes).is_ok());
        });
        assert_eq!(torn, cut, "pages that never reached the disk read as zeros");
    }
    assert!(seen.is_sorted());
    assert!(seen.last() > seen.first(), "the log brought some epochs back: {seen:?}");
}

/// Runs its child on a file system of 48 MiB, in a mount namespace of its own: as root, or as anybody where the
/// kernel lets users have namespaces.
#[test]
fn a_full_disk_is_named_and_survived() {
    if let Some(path) = child_directory() {
        fill_the_disk(&path);
        return;
    }
    let directory = directory();
    let on_small_disk = |unshare: &'static str| {
        child("a_full_disk_is_named_and_survived", directory.path(), |binary| {
            let mut command = Command::new("unshare");
            let script = format!("mount -t tmpfs -o size=48m tmpfs \"${CHILD_DIRECTORY}\" && exec \"$0\" \"$@\"");
            command.args([unshare, "sh", "-c", &script]).arg(binary);
            command
        })
    };
    let attempts = ["-m", "-Urm"].map(|unshare| output(on_small_disk(unshare)));
    let ran = attempts
        .iter()
        .find(|attempt| String::from_utf8_lossy(&attempt.stdout).contains("running 1 test"));
    let Some(ran) = ran else {
        panic!("this machine lets nobody mount a small file system: {attempts:?}");
    };
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

fn fill_the_disk(path: &Path) {
    let ballast = path.join("ballast");
    assert!(fs::write(&ballast, vec![1; 16 * MIB]).is_ok());
    let database = path.join("0_0");
    let backend = open(&database);
    // What does not compress, and never twice the same.
    let mut noise = 0x9e37_79b9_7f4a_7c15u64;
    let mut value = |bytes: usize| -> Vec<u8> {
        let words = std::iter::repeat_with(|| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise.to_le_bytes()
        });
        words.take(bytes / 8).flatten().collect()
    };
    let mut epoch = 0u64;
    let error = loop {
        epoch += 1;
        assert!(epoch < 1000, "48 MiB cannot hold this");
        let value = value(100_000);
        if let Err(error) = backend.apply(&increment(&[(PLAIN, &epoch.to_be_bytes(), Some(&value))]), &meta(epoch)) {
            break error;
        }
    };
    assert!(matches!(error, StateError::DiskFull { .. }), "{error:?}");
    assert!(error.to_string().contains(&database.display().to_string()), "{error}");
    assert_eq!(
        backend.meta().ok(),
        Some(Some(meta(epoch - 1))),
        "nothing of the epoch is there"
    );
    assert_eq!(conformance::entries(&backend, PLAIN, b"", b"").len() as u64, epoch - 1);

    assert!(fs::remove_file(ballast).is_ok());
    let clock = SystemClock::default();
    while let Err(error) = backend.apply(
        &increment(&[(PLAIN, &epoch.to_be_bytes(), Some(b"last"))]),
        &meta(epoch),
    ) {
        assert!(matches!(error, StateError::DiskFull { .. }), "{error:?}");
        assert!(
            clock.monotonic() < Duration::from_secs(60),
            "the database never recovers"
        );
        std::thread::park_timeout(Duration::from_millis(50));
    }
    drop(backend);
    let backend = open(&database);
    assert_eq!(backend.meta().ok(), Some(Some(meta(epoch))));
    assert_eq!(conformance::entries(&backend, PLAIN, b"", b"").len() as u64, epoch);
}
