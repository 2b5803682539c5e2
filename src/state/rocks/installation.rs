//! A database that is put together from the files of a copy.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checkpoint::{Role, read_at, role};
use super::failure::directory_error;
use super::syncing::Syncing;
use super::{RocksBackend, RocksShared, lacking, replacement};
use crate::state::{
    Fetching, Installation, LackingFile, StateBackend, StateError, StateFile, StateResult, StoreSpec, beside,
};

/// A copy of a file on its way to replace a link.
const UNLINKED: &str = "unlinked.tmp";

/// See the module documentation.
pub(super) struct RocksInstallation {
    database: PathBuf,
    directory: PathBuf,
    /// Held on the directory, wherever it is moved.
    lock: File,
    /// Files that were removed are not taken from the present database again.
    removed: BTreeSet<String>,
    /// The file that was written to last: the next piece is mostly of the same one.
    writing: Option<(String, File)>,
    /// Syncs those before it; there once there is one.
    syncing: Option<Syncing>,
    stores: Vec<StoreSpec>,
    shared: RocksShared,
}

impl RocksInstallation {
    pub(super) fn begin(database: &Path, stores: &[StoreSpec], shared: &RocksShared) -> StateResult<Self> {
        replacement::complete(database)?;
        let directory = beside::installing(database);
        fs::create_dir_all(&directory).map_err(|error| directory_error(database, "written", &error))?;
        let lock = replacement::lock(database, &directory)?;
        Ok(Self {
            database: database.to_owned(),
            directory,
            lock: lock.ok_or_else(|| StateError::Locked {
                path: database.to_owned(),
            })?,
            removed: BTreeSet::new(),
            writing: None,
            syncing: None,
            stores: stores.to_vec(),
            shared: shared.clone(),
        })
    }

    fn failed(&self, operation: &'static str, error: &io::Error) -> StateError {
        directory_error(&self.directory, operation, error)
    }

    /// Where a file is or would be. Names come from outside, and none leads elsewhere.
    fn path_of(&self, name: &str) -> StateResult<PathBuf> {
        match role(name) {
            Some(_) => Ok(self.directory.join(name)),
            None => Err(StateError::Corrupt {
                path: self.directory.clone(),
                reason: format!("{name:?} is not a file of a database"),
            }),
        }
    }

    /// The size of a file and the number of its names. A data file of the present database gets a name here when it is first asked
    /// for, and so outlives that database.
    fn look_up(&self, name: &str) -> StateResult<Option<(u64, u64)>> {
        let path = self.path_of(name)?;
        let mut found = look_at(&path);
        if matches!(found, Ok(None)) && role(name) == Some(Role::Data) && !self.removed.contains(name) {
            found = match fs::hard_link(self.database.join(name), &path) {
                Ok(()) => look_at(&path),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            };
        }
        found.map_err(|error| self.failed("read", &error))
    }

    /// Makes a file that also has a name elsewhere one of its own.
    fn unlink(&self, path: &Path) -> io::Result<()> {
        let own = self.directory.join(UNLINKED);
        fs::copy(path, &own)?;
        fs::rename(own, path)
    }

    /// The file of this name, open to be written to and with no other name elsewhere.
    fn opened(&mut self, name: &str) -> StateResult<&File> {
        let file = match self.writing.take_if(|(written, _)| written == name) {
            Some((_, file)) => file,
            None => {
                self.pass_on()?;
                let path = self.path_of(name)?;
                let is_link = self.look_up(name)?.is_some_and(|(_, names)| names > 1);
                let own = if is_link { self.unlink(&path) } else { Ok(()) };
                let opened = own.and_then(|()| File::options().create(true).truncate(false).write(true).open(&path));
                opened.map_err(|error| self.failed("written", &error))?
            }
        };
        Ok(&self.writing.insert((name.to_owned(), file)).1)
    }

    /// Has the file synced that was written to last.
    fn pass_on(&mut self) -> StateResult<()> {
        let Some((_, file)) = self.writing.take() else {
            return Ok(());
        };
        let syncing = match self.syncing.take() {
            Some(syncing) => syncing,
            None => Syncing::begin().map_err(|error| self.failed("written", &error))?,
        };
        self.syncing.insert(syncing).add(file);
        Ok(())
    }

    /// Removes everything but `files`, and checks that they are there.
    fn keep_only(&self, files: &[StateFile]) -> StateResult<()> {
        for file in files {
            match self.look_up(&file.name)? {
                Some((bytes, _)) if bytes == file.bytes => {}
                _ => return Err(StateError::incomplete(&self.directory, file)),
            }
        }
        let listed: BTreeSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
        let removed = fs::read_dir(&self.directory).and_then(|mut entries| {
            entries.try_for_each(|entry| {
                let entry = entry?;
                let name = entry.file_name();
                let name = name.to_string_lossy();
                // What RocksDB writes about itself beside the data is taken away too.
                if listed.contains(&*name) || name == replacement::LOCK {
                    return Ok(());
                }
                fs::remove_file(entry.path())
            })
        });
        removed.map_err(|error| self.failed("written", &error))
    }

    /// Whatever an opening would refuse is to be refused while the former database is still there.
    fn check(&self, is_complete: bool) -> StateResult<()> {
        let opened = RocksBackend::look_into(&self.directory, &self.stores, &self.shared, is_complete)?;
        match opened.meta()? {
            Some(_) => Ok(()),
            None => Err(StateError::Corrupt {
                path: self.directory.clone(),
                reason: "nothing was ever applied to it".into(),
            }),
        }
    }

    fn take_the_place(self) -> StateResult<(PathBuf, Vec<StoreSpec>, RocksShared)> {
        let Self {
            database,
            lock,
            stores,
            shared,
            ..
        } = self;
        replacement::replace(&database, lock)?;
        Ok((database, stores, shared))
    }

    fn sync(&mut self, files: &[StateFile]) -> StateResult<()> {
        self.pass_on()?;
        let syncing = self.syncing.take().map_or(Ok(()), Syncing::finish);
        syncing.map_err(|error| self.failed("written", &error))?;
        let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
        let mut paths = files.iter().map(|file| self.directory.join(&file.name));
        let synced = paths
            .try_for_each(|path| sync(&path))
            .and_then(|()| sync(&self.directory));
        synced.map_err(|error| self.failed("written", &error))
    }
}

fn look_at(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some((metadata.len(), metadata.nlink()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Installation for RocksInstallation {
    fn present(&self, name: &str) -> StateResult<Option<u64>> {
        Ok(self.look_up(name)?.map(|(bytes, _)| bytes))
    }

    fn read(&self, name: &str, offset: u64, into: &mut [u8]) -> StateResult<()> {
        self.look_up(name)?;
        read_at(&self.directory, name, offset, into)
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> StateResult<()> {
        let written = self.opened(name)?.write_all_at(bytes, offset);
        written.map_err(|error| self.failed("written", &error))
    }

    fn remove(&mut self, name: &str) -> StateResult<()> {
        let path = self.path_of(name)?;
        self.removed.insert(name.to_owned());
        self.writing.take_if(|(written, _)| written == name);
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(self.failed("removed", &error)),
            _ => Ok(()),
        }
    }

    fn finish(mut self: Box<Self>, files: &[StateFile]) -> StateResult<Arc<dyn StateBackend>> {
        self.keep_only(files)?;
        self.check(true)?;
        self.sync(files)?;
        let (database, stores, shared) = self.take_the_place()?;
        Ok(Arc::new(RocksBackend::open(&database, &stores, &shared)?))
    }

    fn can_lack_files(&self) -> bool {
        true
    }

    fn finish_lacking(
        mut self: Box<Self>,
        files: &[StateFile],
        lacking: &[LackingFile],
        fetching: Fetching,
    ) -> StateResult<Arc<dyn StateBackend>> {
        let is_lacking = |file: &&StateFile| lacking.iter().any(|lacking| lacking.name == file.name);
        let here: Vec<StateFile> = files.iter().filter(|file| !is_lacking(file)).cloned().collect();
        self.keep_only(&here)?;
        lacking::note(&self.directory, lacking)?;
        self.check(false)?;
        self.sync(&here)?;
        let (database, stores, shared) = self.take_the_place()?;
        Ok(Arc::new(RocksBackend::resume(&database, &stores, &shared, fetching)?))
    }
}
