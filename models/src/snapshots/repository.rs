//! The repository of one task: files, manifests, and who refers to what.

use tidegate::ids::Epoch;
use tidegate::invariants::{Invariant, objects_are_immutable, snapshot_is_committed_prefix, starts_empty_only_if_told};

use super::rules::Rules;
use crate::checking::Broken;

/// Attempts to write a snapshot, by all writers together. Each uploads one file of its own, so there are as many files.
pub const ATTEMPTS: usize = 3;

/// Epochs that are committed, at most.
pub const EPOCHS: u8 = 2;

/// An object in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct File {
    /// What it holds: the rows that this epoch wrote.
    content: u8,
    /// RocksDB's number of it.
    number: u8,
    /// Whether its bytes are not what was written.
    is_damaged: bool,
    /// Whether nobody has referred to it for the grace.
    pub(super) is_old: bool,
}

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The checkpoint is made; files are to be uploaded.
    Begun,
    /// All files are there.
    Uploaded,
    /// The manifest is there; whether it was verified.
    Created(bool),
    /// The manifest was removed by retention, or its writer died before it made one.
    Over,
}

/// An attempt to write a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    pub(super) writer: u8,
    pub(super) epoch: u8,
    pub(super) own: u8,
    pub(super) shared: Option<u8>,
    pub(super) step: Step,
}

impl Attempt {
    pub(super) fn files(&self) -> impl Iterator<Item = u8> {
        [Some(self.own), self.shared].into_iter().flatten()
    }

    pub(super) fn is_retained(&self) -> bool {
        matches!(self.step, Step::Created(_))
    }

    pub(super) fn is_verified(&self) -> bool {
        self.step == Step::Created(true)
    }

    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.step, Step::Begun | Step::Uploaded)
    }
}

/// How a task was opened from the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opened {
    /// Not yet.
    No,
    /// With its state.
    Restored,
    /// Loudly not.
    Refused,
    /// Without its state.
    Empty,
}

/// The store, the changelog behind it, and the processes that use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The committed epoch.
    pub committed: u8,
    /// The changelog holds the epochs after this one.
    pub trimmed: u8,
    pub(super) files: [Option<File>; ATTEMPTS],
    pub(super) attempts: [Option<Attempt>; ATTEMPTS],
    /// The files of the savepoint, a bit each.
    pub(super) savepoint: Option<u8>,
    /// The files that a reader has pinned.
    pub(super) reader: Option<u8>,
    /// What the collector found to be deleted.
    pub(super) condemned: Option<u8>,
    /// Whether an object may still be damaged, in an upload or in the store.
    pub may_damage: bool,
    /// Whether something that was whole was damaged.
    pub was_damaged: bool,
    /// How the task was opened.
    pub opened: Opened,
    /// Invariants that a step broke.
    pub broken: Broken,
}

pub(super) fn bits(files: impl Iterator<Item = u8>) -> u8 {
    files.fold(0, |bits, file| bits | 1 << file)
}

impl State {
    /// Nothing is committed, nothing is stored.
    pub fn empty() -> Self {
        Self {
            committed: 0,
            trimmed: 0,
            files: [None; ATTEMPTS],
            attempts: [None; ATTEMPTS],
            savepoint: None,
            reader: None,
            condemned: None,
            may_damage: true,
            was_damaged: false,
            opened: Opened::No,
            broken: Broken::default(),
        }
    }

    pub(super) fn attempts(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().flatten()
    }

    fn under_way(&mut self, writer: u8) -> Option<&mut Attempt> {
        let mut attempts = self.attempts.iter_mut().flatten();
        attempts.find(|attempt| attempt.writer == writer && attempt.is_under_way())
    }

    /// The newest manifest that is there, by epoch and attempt.
    pub(super) fn newest(&self) -> Option<usize> {
        let manifest = |at: &usize| self.attempts[*at].is_some_and(|attempt| attempt.is_retained());
        (0..ATTEMPTS)
            .filter(manifest)
            .max_by_key(|at| (self.attempts[*at].map(|attempt| attempt.epoch), *at))
    }

    /// Whether what a manifest refers to is there and is what it was.
    fn is_whole(&self, attempt: &Attempt) -> bool {
        let is_good = |file: u8| self.files[usize::from(file)].is_some_and(|file| !file.is_damaged);
        let own = self.files[usize::from(attempt.own)];
        attempt.files().all(is_good) && own.is_some_and(|own| own.content == attempt.epoch)
    }

    /// All that must stay.
    pub(super) fn referenced(&self) -> u8 {
        let manifests = self.attempts().filter(|attempt| attempt.is_retained());
        bits(manifests.flat_map(Attempt::files)) | self.savepoint.unwrap_or(0) | self.reader.unwrap_or(0)
    }

    /// Whether every file of every manifest is there.
    pub fn has_no_dangling_manifest(&self) -> bool {
        let is_there = |file: u8| self.files[usize::from(file)].is_some();
        let mut manifests = self.attempts().filter(|attempt| attempt.is_retained());
        manifests.all(|attempt| attempt.files().all(is_there))
    }

    /// Whether the state can be restored: from the changelog alone, or from a snapshot and what the changelog has behind it.
    pub fn has_restore_point(&self) -> bool {
        let reaches = |attempt: &Attempt| attempt.is_retained() && attempt.epoch >= self.trimmed;
        self.trimmed == 0
            || self
                .attempts()
                .any(|attempt| reaches(attempt) && self.is_whole(attempt))
    }

    /// Whether no step broke `invariant`.
    pub fn keeps(&self, invariant: Invariant) -> bool {
        self.broken.keeps(invariant)
    }

    /// A writer begins an attempt. It shares the newest file that a retained manifest refers to, and that alone.
    pub fn begin(&mut self, writer: u8) {
        let is_busy = self.under_way(writer).is_some();
        let Some(at) = self.attempts.iter().position(Option::is_none).filter(|_| !is_busy) else {
            return;
        };
        let parent = self.newest().and_then(|parent| self.attempts[parent]);
        let shared = parent
            .filter(|parent| parent.epoch < self.committed)
            .map(|parent| parent.own);
        self.attempts[at] = Some(Attempt {
            writer,
            epoch: self.committed,
            own: at as u8,
            shared,
            step: Step::Begun,
        });
    }

    /// A writer uploads its file, by create-if-absent.
    pub fn upload(&mut self, writer: u8, is_damaged: bool, rules: &Rules) {
        let earlier = self.attempts().filter(|attempt| attempt.writer == writer).count() as u8;
        let Some(attempt) = self.under_way(writer).filter(|attempt| attempt.step == Step::Begun) else {
            return;
        };
        let file = File {
            content: attempt.epoch,
            number: earlier,
            is_damaged,
            is_old: false,
        };
        let at = attempt.own;
        attempt.step = Step::Uploaded;
        let has_name = |stored: &Option<File>| {
            stored.is_some_and(|stored| match rules {
                Rules {
                    names_say_the_content: false,
                    ..
                } => stored.number == file.number,
                Rules {
                    names_say_the_attempt: false,
                    ..
                } => stored.content == file.content,
                _ => false,
            })
        };
        let Some(stored) = self.files.iter().position(has_name) else {
            self.files[usize::from(at)] = Some(file);
            self.may_damage &= !is_damaged;
            return;
        };
        if let Some(attempt) = self.under_way(writer) {
            attempt.own = stored as u8;
        }
        let content = self.files[stored].map(|stored| u64::from(stored.content));
        let outcome = objects_are_immutable(&file.number, content, u64::from(file.content));
        self.broken.note(outcome);
    }

    /// A writer makes its manifest.
    pub fn create(&mut self, writer: u8) {
        let Some(attempt) = self.under_way(writer).filter(|attempt| attempt.step == Step::Uploaded) else {
            return;
        };
        attempt.step = Step::Created(false);
        for file in attempt.files().collect::<Vec<_>>() {
            if let Some(file) = &mut self.files[usize::from(file)] {
                file.is_old = false;
            }
        }
    }

    /// A writer dies, or gives up within the grace.
    pub fn give_up(&mut self, writer: u8) {
        if let Some(attempt) = self.under_way(writer) {
            attempt.step = Step::Over;
        }
    }

    /// A manifest and all it refers to are read back and compared.
    pub fn verify(&mut self, at: usize, rules: &Rules) {
        let Some(attempt) = self.attempts[at].filter(Attempt::is_retained) else {
            return;
        };
        let file = |file: u8| self.files[usize::from(file)];
        let passes = match rules.compares_checksums {
            true => self.is_whole(&attempt),
            false => attempt.files().all(|name| file(name).is_some()),
        };
        if !passes {
            return;
        }
        let is_damaged = |name: u8| file(name).is_some_and(|file| file.is_damaged);
        let digest = match attempt.files().any(is_damaged) {
            true => u64::MAX,
            false => file(attempt.own).map_or(0, |file| u64::from(file.content)),
        };
        let cut = Epoch(u64::from(attempt.epoch));
        self.broken.note(snapshot_is_committed_prefix(cut, digest, cut.0));
        self.attempts[at] = Some(Attempt {
            step: Step::Created(true),
            ..attempt
        });
    }

    /// The user makes a savepoint of a verified snapshot.
    pub fn save(&mut self, at: usize) {
        let manifest = self.attempts[at].filter(|attempt| attempt.is_verified() && self.savepoint.is_none());
        self.savepoint = manifest.map(|attempt| bits(attempt.files())).or(self.savepoint);
    }

    /// A reader pins a verified snapshot, and reads it for as long as it takes.
    pub fn read(&mut self, at: usize) {
        let manifest = self.attempts[at].filter(|attempt| attempt.is_verified() && self.reader.is_none());
        self.reader = manifest.map(|attempt| bits(attempt.files())).or(self.reader);
    }

    /// The reader is done.
    pub fn end_read(&mut self) {
        self.reader = None;
    }

    /// An object loses its bytes.
    pub fn damage(&mut self, at: usize) {
        if let Some(file) = self.files[at].as_mut().filter(|file| !file.is_damaged) {
            file.is_damaged = true;
            self.may_damage = false;
            self.was_damaged = true;
        }
    }

    /// A task is opened from the repository on a new host.
    pub fn open(&mut self, rules: &Rules) {
        self.opened = match (self.has_restore_point(), rules.refuses_to_start_empty) {
            (true, _) => Opened::Restored,
            (false, true) => Opened::Refused,
            (false, false) => Opened::Empty,
        };
        let is_empty = self.opened == Opened::Empty;
        self.broken
            .note(starts_empty_only_if_told(is_empty, self.committed > 0, false));
    }

    /// Whether the collector has found something.
    pub fn has_condemned(&self) -> bool {
        self.condemned.is_some()
    }

    /// Whether somebody reads.
    pub fn is_read(&self) -> bool {
        self.reader.is_some()
    }
}
