//! The files that a database lacks, and how a read gets the one that it needs.
//!
//! A data file that is not here does not exist, neither under its own name nor as a placeholder. RocksDB opens data files when it first
//! reads them, so a read that needs one fails with an error that names it; the read then brings the file and tries again. So it is RocksDB
//! itself that says what a read needs, and a mistake here would be an error, not a wrong answer (`docs/adr/0017-lazy-restore.md`).
//!
//! The list of what was lacking at first lies beside the data until nothing is lacking. A file that is here under its own name has been
//! compared and is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rocksdb::DB;
use serde::{Deserialize, Serialize};

use super::failure::directory_error;
use crate::state::{Fetching, Lacking, LackingFile, NotFetched, StateError, StateResult};
use crate::time::{Clock, SystemClock};

/// The list of files, in the database's directory.
pub(super) const MARKER: &str = "lacking.json";
/// Ends the names of files that are not whole yet.
pub(super) const ARRIVING: &str = ".arriving";
const FORMAT: u32 = 1;
/// Readers look again after this time whether somebody else has brought what they wait for.
const LOOK: Duration = Duration::from_millis(50);
/// A read that fails so often for want of a file that is here fails for another reason.
const MAX_RETRIES: u32 = 3;

/// What the marker says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    format: u32,
    is_given_up: bool,
    files: Vec<LackingFile>,
}

fn read_marker(directory: &Path) -> StateResult<Option<Marker>> {
    let text = match fs::read(directory.join(MARKER)) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(directory_error(directory, "opened", &error)),
    };
    let marker: Result<Marker, _> = serde_json::from_slice(&text);
    match marker {
        Ok(marker) if marker.format == FORMAT => Ok(Some(marker)),
        Ok(marker) => Err(StateError::Foreign {
            path: directory.to_owned(),
            reason: format!(
                "{MARKER} has format {}, this build reads format {FORMAT}",
                marker.format
            ),
        }),
        Err(error) => Err(StateError::Corrupt {
            path: directory.to_owned(),
            reason: format!("{MARKER} cannot be read: {error}"),
        }),
    }
}

/// Appears whole or not at all, durably.
fn write_marker(directory: &Path, is_given_up: bool, files: Vec<LackingFile>) -> StateResult<()> {
    let marker = Marker {
        format: FORMAT,
        is_given_up,
        files,
    };
    let beside = directory.join(format!("{MARKER}{ARRIVING}"));
    let written = serde_json::to_vec(&marker).map_err(io::Error::from).and_then(|text| {
        fs::write(&beside, text)?;
        File::open(&beside)?.sync_all()?;
        fs::rename(&beside, directory.join(MARKER))?;
        File::open(directory)?.sync_all()
    });
    written.map_err(|error| directory_error(directory, "written", &error))
}

/// Notes what a database lacks that is put together in `directory`.
///
/// # Errors
/// [`StateError::DiskFull`], [`StateError::Io`].
pub(super) fn note(directory: &Path, lacking: &[LackingFile]) -> StateResult<()> {
    write_marker(directory, false, lacking.to_vec())
}

/// Refuses a database that lacks files, or may lack some.
///
/// # Errors
/// [`StateError::Incomplete`], and as the marker cannot be read.
pub(super) fn refuse(directory: &Path) -> StateResult<()> {
    match read_marker(directory)? {
        None => Ok(()),
        Some(marker) => Err(incomplete(directory, &marker)),
    }
}

fn incomplete(directory: &Path, marker: &Marker) -> StateError {
    let is_here = |file: &&LackingFile| directory.join(&file.name).exists();
    StateError::Incomplete {
        path: directory.to_owned(),
        files: marker.files.len() - marker.files.iter().filter(is_here).count(),
        is_given_up: marker.is_given_up,
    }
}

/// What a database lacks while it is open.
pub(super) struct Lack {
    directory: PathBuf,
    fetching: Fetching,
    clock: SystemClock,
    /// All that the marker names.
    listed: BTreeSet<String>,
    of_bytes: u64,
    files: Mutex<Files>,
    changed: Condvar,
}

struct Files {
    /// What is not here.
    lacking: BTreeMap<String, LackingFile>,
    /// In which order they are fetched where no read needs one: from the back.
    order: Vec<String>,
    underway: BTreeSet<String>,
    /// Reads that wait.
    readers: usize,
    /// The file that cannot be had, and why.
    given_up: Option<(String, String)>,
    /// Whether the database is one as any other by now.
    is_over: bool,
}

/// How long a read has waited, and for what.
#[derive(Default)]
pub(super) struct Patience {
    since: Option<Duration>,
    in_vain: u32,
}

impl Lack {
    /// What the database in `directory` lacks; `None` if it lacks nothing any more, or never did.
    ///
    /// # Errors
    /// [`StateError::Incomplete`] where it was given up; [`StateError::Foreign`], [`StateError::Corrupt`], [`StateError::Io`].
    pub(super) fn of(directory: &Path, fetching: Fetching) -> StateResult<Option<Self>> {
        let Some(marker) = read_marker(directory)? else {
            return Ok(None);
        };
        if marker.is_given_up {
            return Err(incomplete(directory, &marker));
        }
        let listed = marker.files.iter().map(|file| file.name.clone()).collect();
        let of_bytes = marker.files.iter().map(|file| file.bytes).sum();
        let is_lacking = |file: &LackingFile| !directory.join(&file.name).exists();
        let lacking = marker.files.into_iter().filter(is_lacking);
        let lacking: BTreeMap<_, _> = lacking.map(|file| (file.name.clone(), file)).collect();
        if lacking.is_empty() {
            remove_marker(directory)?;
            return Ok(None);
        }
        Ok(Some(Self {
            directory: directory.to_owned(),
            fetching,
            clock: SystemClock::default(),
            listed,
            of_bytes,
            files: Mutex::new(Files {
                order: lacking.keys().cloned().collect(),
                lacking,
                underway: BTreeSet::new(),
                readers: 0,
                given_up: None,
                is_over: false,
            }),
            changed: Condvar::new(),
        }))
    }

    /// Files of the upper levels are fetched first: they hold what changed last. Of one level the newer ones.
    pub(super) fn order_by_level(&self, db: &DB) {
        let levels: BTreeMap<String, i32> = db
            .live_files()
            .unwrap_or_default()
            .into_iter()
            .map(|file| (file.name.trim_start_matches('/').to_owned(), file.level))
            .collect();
        let level = |name: &String| levels.get(name).copied().unwrap_or(i32::MAX);
        let mut files = self.lock();
        files
            .order
            .sort_by(|a, b| level(b).cmp(&level(a)).then_with(|| a.cmp(b)));
    }

    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause<'a>(&self, files: MutexGuard<'a, Files>) -> MutexGuard<'a, Files> {
        let waited = self.changed.wait_timeout(files, LOOK);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// What is lacking.
    pub(super) fn lacking(&self) -> Lacking {
        let files = self.lock();
        Lacking {
            files: files.lacking.len(),
            bytes: files.lacking.values().map(|file| file.bytes).sum(),
            of_bytes: self.of_bytes,
        }
    }

    /// Whether the database is one as any other by now.
    pub(super) fn is_over(&self) -> bool {
        self.lock().is_over
    }

    /// Whether a file cannot be had.
    pub(super) fn is_given_up(&self) -> bool {
        self.lock().given_up.is_some()
    }

    /// The error of a copy of a database that lacks something.
    pub(super) fn incomplete(&self) -> StateError {
        let files = self.lock();
        StateError::Incomplete {
            path: self.directory.clone(),
            files: files.lacking.len(),
            is_given_up: files.given_up.is_some(),
        }
    }

    /// Brings the file for want of which a read has failed with these words; false if that was not the reason.
    ///
    /// # Errors
    /// [`StateError::Lacking`] if it does not come in time, [`StateError::Unobtainable`]; those of the disk.
    pub(super) fn bring_what(&self, error: &str, patience: &mut Patience) -> StateResult<bool> {
        let Some(name) = file_named_in(error).filter(|name| self.listed.contains(name)) else {
            return Ok(false);
        };
        let since = *patience.since.get_or_insert_with(|| self.clock.monotonic());
        let mut files = self.lock();
        if !files.lacking.contains_key(&name) {
            // Somebody else has brought it since the read failed.
            patience.in_vain += 1;
            return Ok(patience.in_vain <= MAX_RETRIES);
        }
        files.readers += 1;
        let brought = self.bring(files, &name, since);
        self.lock().readers -= 1;
        self.changed.notify_all();
        self.fetching
            .source
            .waited(self.clock.monotonic().saturating_sub(since));
        brought.map(|()| true)
    }

    fn bring<'a>(&'a self, mut files: MutexGuard<'a, Files>, name: &str, since: Duration) -> StateResult<()> {
        let mut reason = "it is being fetched".to_owned();
        loop {
            self.check(&files)?;
            let Some(file) = files.lacking.get(name).cloned() else {
                return Ok(());
            };
            if files.underway.contains(name) {
                files = self.pause(files);
            } else {
                files.underway.insert(name.to_owned());
                drop(files);
                let fetched = self.fetch(std::slice::from_ref(&file))?;
                files = self.lock();
                if let Err(passing) = fetched {
                    reason = passing;
                    // A store that refuses at once is not asked again at once.
                    files = self.pause(files);
                }
            }
            let waited = self.clock.monotonic().saturating_sub(since);
            if waited >= self.fetching.read_wait && files.lacking.contains_key(name) {
                return Err(self.still_lacking(name, waited, reason));
            }
        }
    }

    fn check(&self, files: &Files) -> StateResult<()> {
        match &files.given_up {
            None => Ok(()),
            Some((file, reason)) => Err(StateError::Unobtainable {
                path: self.directory.clone(),
                file: file.clone(),
                reason: reason.clone(),
            }),
        }
    }

    fn still_lacking(&self, file: &str, waited: Duration, reason: String) -> StateError {
        StateError::Lacking {
            path: self.directory.clone(),
            file: file.to_owned(),
            waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
            reason,
        }
    }

    /// Fetches the next files, unless reads do: what they need comes first.
    ///
    /// # Errors
    /// As [`crate::state::StateBackend::fetch_some`].
    pub(super) fn fetch_some(&self) -> StateResult<()> {
        let mut files = self.lock();
        if files.readers > 0 {
            files = self.pause(files);
        }
        self.check(&files)?;
        let batch = files.claim(self.fetching.source.batch_bytes());
        let Some(first) = batch.first() else {
            // Readers have the rest in their hands.
            drop(self.pause(files));
            return Ok(());
        };
        drop(files);
        match self.fetch(&batch)? {
            Ok(()) => Ok(()),
            Err(reason) => {
                drop(self.pause(self.lock()));
                Err(self.still_lacking(&first.name, Duration::ZERO, reason))
            }
        }
    }

    /// Fetches files that were claimed; the inner error may pass.
    fn fetch(&self, batch: &[LackingFile]) -> StateResult<Result<(), String>> {
        let fetched = self.receive(batch);
        let mut files = self.lock();
        for file in batch {
            files.underway.remove(&file.name);
            if matches!(fetched, Ok(Ok(()))) {
                files.lacking.remove(&file.name);
            }
        }
        self.changed.notify_all();
        match fetched? {
            Ok(()) => Ok(Ok(())),
            Err(NotFetched::Passing(reason)) => Ok(Err(reason)),
            Err(NotFetched::Damaged(reason)) => {
                let name = batch.first().map(|file| file.name.clone()).unwrap_or_default();
                files.given_up.get_or_insert((name, reason));
                let rest = files.lacking.values().cloned().collect();
                write_marker(&self.directory, true, rest)?;
                self.check(&files).map(|()| Ok(()))
            }
        }
    }

    /// Writes files beside, and gives them their names once all of it was compared and is durable.
    fn receive(&self, batch: &[LackingFile]) -> StateResult<Result<(), NotFetched>> {
        let failed = |error: io::Error| directory_error(&self.directory, "written", &error);
        let arriving = |file: &LackingFile| self.directory.join(format!("{}{ARRIVING}", file.name));
        let mut open: Vec<Option<File>> = batch.iter().map(|_| None).collect();
        let mut take = |index: usize, offset: u64, bytes: &[u8]| {
            let written = match &open[index] {
                Some(file) => file.write_all_at(bytes, offset),
                None => File::create(arriving(&batch[index])).and_then(|file| {
                    let written = file.write_all_at(bytes, offset);
                    open[index] = Some(file);
                    written
                }),
            };
            written.map_err(failed)
        };
        if let Err(not_fetched) = self.fetching.source.fetch(batch, &mut take)? {
            return Ok(Err(not_fetched));
        }
        let named = batch.iter().zip(open).try_for_each(|(file, open)| {
            let received = match open {
                Some(received) => received,
                None => File::create(arriving(file))?,
            };
            received.sync_all()?;
            fs::rename(arriving(file), self.directory.join(&file.name))
        });
        let durable = named.and_then(|()| File::open(&self.directory)?.sync_all());
        durable.map_err(failed).map(Ok)
    }

    /// Ends it: true the first time that nothing is lacking.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub(super) fn end(&self) -> StateResult<bool> {
        let mut files = self.lock();
        if files.is_over || !files.lacking.is_empty() {
            return Ok(false);
        }
        remove_marker(&self.directory)?;
        files.is_over = true;
        Ok(true)
    }
}

impl Files {
    /// Takes the next files that nobody fetches, of so many bytes or a little more.
    fn claim(&mut self, bytes: u64) -> Vec<LackingFile> {
        let mut batch: Vec<LackingFile> = Vec::new();
        let mut claimed = 0;
        while claimed < bytes {
            let Some(name) = self.order.pop() else {
                // What failed before, or was begun by a reader that gave up.
                let rest = self.lacking.keys().filter(|name| !self.underway.contains(*name));
                self.order = rest.cloned().collect();
                if self.order.is_empty() || !batch.is_empty() {
                    break;
                }
                continue;
            };
            let Some(file) = self.lacking.get(&name).filter(|_| !self.underway.contains(&name)) else {
                continue;
            };
            claimed += file.bytes.max(1);
            batch.push(file.clone());
            self.underway.insert(name);
        }
        batch
    }
}

fn remove_marker(directory: &Path) -> StateResult<()> {
    let removed = fs::remove_file(directory.join(MARKER)).and_then(|()| File::open(directory)?.sync_all());
    removed.map_err(|error| directory_error(directory, "written", &error))
}

/// The data file that an error of RocksDB names. Where a file is missing it also looks for one with the suffix of former versions.
fn file_named_in(error: &str) -> Option<String> {
    error.split('/').find_map(|piece| {
        let end = piece.find(|c: char| !c.is_ascii_alphanumeric() && c != '.');
        let (number, suffix) = piece[..end.unwrap_or(piece.len())].split_once('.')?;
        let is_data = matches!(suffix.trim_end_matches('.'), "sst" | "ldb");
        let number: u64 = number.parse().ok().filter(|_| is_data)?;
        Some(format!("{number:06}.sst"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_rocksdb_name_the_file() {
        let missing = "IO error: No such file or directory: While open a file for random read: /a b/0_0/000012.sst: No such file or directory";
        assert_eq!(file_named_in(missing).as_deref(), Some("000012.sst"));
        assert_eq!(
            file_named_in("IO error: /x.y/1234567.ldb").as_deref(),
            Some("1234567.sst")
        );
        assert_eq!(file_named_in("Corruption: /a/MANIFEST-000013: bad"), None);
        assert_eq!(file_named_in("block checksum mismatch"), None);
    }
}
