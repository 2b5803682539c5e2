//! Histories of databases that lack files: any order of reads, writes and arrivals, many threads, kills; on real files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::lacking_tests::{Depot, EPOCHS, KEYS, Mood, apply_epoch, assert_holds, fetch_all, get, key, origin, resume};
use super::tests::{directory, files, shared};
use super::*;
use crate::state::conformance::{ORDERED, PLAIN, increment, meta, stores};
use crate::state::{FileSource, LackingFile, NotFetched, TakePiece};
use crate::time::{Clock, SystemClock};

/// What a history does next.
#[derive(Clone, Debug)]
enum Step {
    Get(u32),
    Scan(u32, u32, usize),
    Apply(u32, usize),
    Fetch,
    FetchThis(usize),
    Reopen,
    Away(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..KEYS).prop_map(Step::Get),
        3 => (0..KEYS, 0..2_000u32, 0..100usize).prop_map(|(from, span, stop)| Step::Scan(from, span, stop)),
        3 => (0..KEYS, 1..400usize).prop_map(|(from, every)| Step::Apply(from, every)),
        1 => Just(Step::Fetch),
        1 => (0..64usize).prop_map(Step::FetchThis),
        1 => Just(Step::Reopen),
        1 => any::<bool>().prop_map(Step::Away),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Reads and writes against an oracle, while files come in any order, in between restarts, and while the store is away at times.
    #[test]
    fn any_history_reads_what_was_written(steps in steps()) {
        let (directory, depot) = (directory(), origin().depot());
        let path = directory.path().join("0_0");
        drop(origin().install(&path, depot.fetching()));
        let mut backend = Some(resume(&path, &depot).expect("it is opened"));
        let (mut oracle, mut epoch) = (origin().oracle.clone(), EPOCHS);
        for step in steps {
            let open = backend.as_ref().expect("it is open");
            match step {
                Step::Get(number) => {
                    for store in [PLAIN, ORDERED] {
                        match get(open, store, &key(number)) {
                            Ok(found) => prop_assert_eq!(found.as_ref(), oracle.get(&(store.0, key(number).to_vec()))),
                            Err(error) => prop_assert!(error.is_about_lacking_files(), "{}", error),
                        }
                    }
                }
                Step::Scan(from, span, stop) => {
                    let (from, to) = (key(from), key(from + span));
                    let mut found = Vec::new();
                    let scanned = open.scan(ORDERED, &from, &to, &mut |key, value| {
                        found.push((key.to_vec(), value.to_vec()));
                        found.len() <= stop
                    });
                    let range = (ORDERED.0, from.to_vec())..(ORDERED.0, to.to_vec().max(from.to_vec()));
                    let expected = oracle.range(range).map(|((_, key), value)| (key.clone(), value.clone()));
                    let expected: Vec<_> = expected.take(stop + 1).collect();
                    match scanned {
                        Ok(()) => prop_assert_eq!(found, expected),
                        Err(error) => {
                            prop_assert!(error.is_about_lacking_files(), "{}", error);
                            prop_assert_eq!(&found[..], &expected[..found.len()], "what was seen is right");
                        }
                    }
                }
                Step::Apply(from, every) => {
                    epoch += 1;
                    apply_epoch(open, &mut oracle, epoch, (from..KEYS).step_by(every));
                }
                Step::Fetch => {
                    let fetched = open.fetch_some();
                    let is_fine = matches!(fetched, Ok(_) | Err(StateError::Lacking { .. }));
                    prop_assert!(is_fine);
                }
                Step::FetchThis(number) => {
                    let lacking: Vec<&String> = origin().files.keys().filter(|name| origin().is_lacking(name)).collect();
                    let error = format!("IO error: No such file: /{}: no", lacking[number % lacking.len()]);
                    if let Some(lack) = &open.lack {
                        let brought = lack.bring_what(&error, &mut Patience::default());
                        let is_fine = matches!(brought, Ok(_) | Err(StateError::Lacking { .. }));
                        prop_assert!(is_fine);
                    }
                }
                Step::Reopen => {
                    drop(backend.take());
                    backend = Some(resume(&path, &depot).expect("it is opened again"));
                }
                Step::Away(is_away) => depot.set(if is_away { Mood::IsAway } else { Mood::Gives }),
            }
        }
        depot.set(Mood::Gives);
        let open = backend.take().expect("it is open");
        assert_holds(&open, &oracle);
        fetch_all(&open);
        assert_holds(&open, &oracle);
        prop_assert_eq!(open.meta().expect("it is known"), Some(meta(epoch)));
    }
}

#[test]
fn readers_and_fetchers_do_not_get_in_each_others_way() {
    let (directory, depot) = (directory(), origin().depot());
    let backend = origin().install(&directory.path().join("0_0"), depot.fetching());
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let fetchers = [(); 2].map(|()| scope.spawn(|| fetch_all(&*backend)));
        for first in 0..3 {
            let (backend, is_over) = (&backend, &is_over);
            scope.spawn(move || {
                let mut number = first;
                while !is_over.load(Ordering::Relaxed) {
                    let expected = origin().oracle.get(&(PLAIN.0, key(number).to_vec()));
                    match get(&**backend, PLAIN, &key(number)) {
                        Ok(found) => assert_eq!(found.as_ref(), expected),
                        Err(error) => assert!(matches!(error, StateError::Lacking { .. }), "{error}"),
                    }
                    number = (number + 1_009) % KEYS;
                }
            });
        }
        for fetcher in fetchers {
            assert!(fetcher.join().is_ok());
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_holds(&*backend, &origin().oracle);
    let mut fetched = depot.fetched();
    let all = fetched.len();
    fetched.sort();
    fetched.dedup();
    assert_eq!(fetched.len(), all, "no file was fetched twice");
}

/// Names the directory in which this process plays the child's part, and how many files it fetches before it hangs.
const CHILD: &str = "TIDEGATE_LACKING_TEST_CHILD";

#[test]
fn a_killed_process_leaves_a_restore_that_goes_on() {
    if let Some(path) = std::env::var_os(CHILD).map(PathBuf::from) {
        fetch_until_killed(&path);
    }
    for files in [0, 1, 3, usize::MAX] {
        let (directory, depot) = (directory(), origin().depot());
        let path = directory.path().join("0_0");
        drop(origin().install(&path, depot.fetching()));
        fs::write(directory.path().join("files"), files.to_string()).expect("it is written");
        for (name, bytes) in &origin().files {
            fs::write(directory.path().join(format!("depot-{name}")), bytes).expect("it is written");
        }
        let (_, module) = module_path!().split_once("::").unwrap_or_default();
        let mut child = Command::new(std::env::current_exe().expect("this is one"))
            .args([
                &format!("{module}::a_killed_process_leaves_a_restore_that_goes_on"),
                "--exact",
                "--nocapture",
            ])
            .env(CHILD, directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let clock = SystemClock::default();
        while !directory.path().join("reached").exists() {
            assert!(clock.monotonic() < Duration::from_secs(60), "the child gets so far");
            assert!(
                child.try_wait().expect("it is ours").is_none(),
                "the child lives until it is killed"
            );
            std::thread::yield_now();
        }
        child.kill().expect("it is killed");
        child.wait().expect("it is ours");
        let backend = resume(&path, &depot).expect("it goes on");
        let lacking = origin().files.keys().filter(|name| origin().is_lacking(name)).count();
        assert_eq!(backend.lacking().files, lacking.saturating_sub(files));
        let mut oracle = origin().oracle.clone();
        oracle.insert((PLAIN.0, b"of the child".to_vec()), b"row".to_vec());
        assert_holds(&backend, &oracle);
        fetch_all(&backend);
        assert_holds(&backend, &oracle);
        assert_eq!(backend.meta().expect("it is known"), Some(meta(EPOCHS + 1)));
    }
}

/// Applies an epoch, fetches some files, and says so in the midst of the next one.
fn fetch_until_killed(directory: &Path) {
    let mut depot = Depot::of(BTreeMap::new());
    for file in files(directory, |name| name.starts_with("depot-")) {
        let name = file.file_name().unwrap_or_default().to_string_lossy()["depot-".len()..].to_owned();
        depot.files.insert(name, fs::read(file).expect("it is there"));
    }
    let count = fs::read_to_string(directory.join("files")).expect("it is there");
    let hanging = Arc::new(Hanging {
        depot,
        left: AtomicUsize::new(count.parse().expect("a number")),
        reached: directory.join("reached"),
    });
    let fetching = Fetching {
        source: Arc::clone(&hanging) as Arc<dyn FileSource>,
        read_wait: Duration::ZERO,
    };
    let backend = RocksBackend::resume(&directory.join("0_0"), &stores(), &shared(), fetching).expect("it is opened");
    let written = increment(&[(PLAIN, b"of the child", Some(b"row"))]);
    backend.apply(&written, &meta(EPOCHS + 1)).expect("it is applied");
    fetch_all(&backend);
    hanging.hang();
}

/// A depot that writes half of a file and then nothing more, after so many files.
struct Hanging {
    depot: Depot,
    left: AtomicUsize,
    reached: PathBuf,
}

impl Hanging {
    fn hang(&self) -> ! {
        fs::write(&self.reached, b"").expect("it is written");
        loop {
            std::thread::park();
        }
    }
}

impl FileSource for Hanging {
    fn fetch(&self, files: &[LackingFile], take: &mut TakePiece<'_>) -> StateResult<Result<(), NotFetched>> {
        if self.left.load(Ordering::Relaxed) == 0 {
            let bytes = &self.depot.files[&files[0].name];
            take(0, 0, &bytes[..bytes.len() / 2])?;
            self.hang();
        }
        self.left.fetch_sub(1, Ordering::Relaxed);
        self.depot.fetch(files, take)
    }

    fn batch_bytes(&self) -> u64 {
        1
    }

    fn waited(&self, _time: Duration) {}
}
