//! Checkpoints and installations of databases in memory, for every backend that keeps its entries there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::entries::Entries;
use super::entry_files::{self, Files, HEAD};
use super::{Checkpoint, Installation, StateBackend, StateError, StateFile, StateMeta, StateResult};
use crate::ids::TaskId;

/// A copy of a database in memory.
#[derive(Debug)]
pub(crate) struct EntryCheckpoint {
    path: PathBuf,
    meta: StateMeta,
    files: Vec<StateFile>,
    contents: Vec<Vec<u8>>,
}

impl EntryCheckpoint {
    /// Copies the database in `path`, in files of `chunk_bytes` on average.
    ///
    /// # Errors
    /// [`StateError::Io`] where nothing was ever applied.
    pub(crate) fn of(path: &Path, stores: &[Entries], meta: Option<&StateMeta>, chunk_bytes: u32) -> StateResult<Self> {
        let meta = meta.ok_or_else(|| StateError::nothing_to_copy(path))?;
        let files = entry_files::write(stores, meta, chunk_bytes);
        let file = |(name, content): (&String, &Vec<u8>)| StateFile {
            name: name.clone(),
            bytes: content.len() as u64,
            immutable: name != HEAD,
        };
        Ok(Self {
            path: path.to_owned(),
            meta: meta.clone(),
            files: files.iter().map(file).collect(),
            contents: files.into_values().collect(),
        })
    }

    /// The files that later copies may share.
    fn into_immutable(self) -> Files {
        let files = self.files.into_iter().zip(self.contents);
        let immutable = files.filter(|(file, _)| file.immutable);
        immutable.map(|(file, content)| (file.name, content)).collect()
    }
}

impl Checkpoint for EntryCheckpoint {
    fn kind(&self) -> &'static str {
        "entries"
    }

    fn meta(&self) -> &StateMeta {
        &self.meta
    }

    fn files(&self) -> &[StateFile] {
        &self.files
    }

    fn read(&self, file: usize, offset: u64, into: &mut [u8]) -> StateResult<()> {
        let name = self.files.get(file).map_or("", |file| &file.name);
        read_at(&self.path, name, self.contents.get(file), offset, into)
    }
}

fn read_at(path: &Path, name: &str, content: Option<&Vec<u8>>, offset: u64, into: &mut [u8]) -> StateResult<()> {
    let from = usize::try_from(offset).ok();
    let wanted = from.zip(content).and_then(|(from, content)| {
        let to = from.checked_add(into.len())?;
        content.get(from..to)
    });
    match wanted {
        Some(wanted) => into.copy_from_slice(wanted),
        None => {
            return Err(StateError::Io {
                path: path.to_owned(),
                operation: "read",
                reason: format!("{} bytes at {offset} of {name:?} are not there", into.len()),
            });
        }
    }
    Ok(())
}

/// Files of installations that have not ended, by task.
#[derive(Debug, Default)]
pub(crate) struct Unfinished(Mutex<BTreeMap<TaskId, Arc<Mutex<Files>>>>);

impl Unfinished {
    fn tasks(&self) -> MutexGuard<'_, BTreeMap<TaskId, Arc<Mutex<Files>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is there of a task, for one installation at a time.
    fn take_up(&self, task: TaskId, path: &Path) -> StateResult<Arc<Mutex<Files>>> {
        let mut tasks = self.tasks();
        let files = tasks.entry(task).or_default();
        if Arc::strong_count(files) > 1 {
            return Err(StateError::Locked { path: path.to_owned() });
        }
        Ok(Arc::clone(files))
    }

    /// Forgets what is there of a task; false if an installation of it is going on.
    pub(crate) fn discard(&self, task: TaskId) -> bool {
        let mut tasks = self.tasks();
        let idle = tasks.get(&task).is_none_or(|files| Arc::strong_count(files) == 1);
        if idle {
            tasks.remove(&task);
        }
        idle
    }

    /// Takes away the files that `lost` answers true for; answers how many.
    pub(crate) fn lose(&self, lost: &dyn Fn() -> bool) -> usize {
        let mut count = 0;
        for files in self.tasks().values() {
            locked(files).retain(|_, _| {
                let stays = !lost();
                count += usize::from(!stays);
                stays
            });
        }
        count
    }

    /// Takes away everything.
    pub(crate) fn clear(&self) {
        self.tasks().clear();
    }
}

fn locked(files: &Mutex<Files>) -> MutexGuard<'_, Files> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a database in memory is put once all of it is there.
pub(crate) trait Place: Send {
    /// # Errors
    /// Why nothing can be written now.
    fn admit(&self) -> StateResult<()>;

    /// Replaces the task's database and opens the new one.
    ///
    /// # Errors
    /// [`StateError::Locked`] while the former is open.
    fn replace(self: Box<Self>, meta: StateMeta, stores: Vec<Entries>) -> StateResult<Arc<dyn StateBackend>>;
}

/// A database in memory that is being put together.
pub(crate) struct EntryInstallation {
    path: PathBuf,
    files: Arc<Mutex<Files>>,
    /// Immutable files of the database that the task has now.
    former: Files,
    stores: usize,
    place: Box<dyn Place>,
}

impl EntryInstallation {
    /// Begins one, or goes on with one that was cut off.
    ///
    /// # Errors
    /// [`StateError::Locked`] while there is another one of the task.
    pub(crate) fn begin(
        (task, path): (TaskId, &Path),
        unfinished: &Unfinished,
        former: Option<EntryCheckpoint>,
        stores: usize,
        place: Box<dyn Place>,
    ) -> StateResult<Self> {
        Ok(Self {
            path: path.to_owned(),
            files: unfinished.take_up(task, path)?,
            former: former.map(EntryCheckpoint::into_immutable).unwrap_or_default(),
            stores,
            place,
        })
    }

    /// The files that are listed, and no others.
    fn listed(&self, listed: &[StateFile]) -> StateResult<Files> {
        let files = locked(&self.files);
        let mut found = Files::new();
        for file in listed {
            let content = files.get(&file.name).or_else(|| self.former.get(&file.name));
            let content = content.filter(|content| content.len() as u64 == file.bytes);
            let content = content.ok_or_else(|| StateError::incomplete(&self.path, file))?;
            found.insert(file.name.clone(), content.clone());
        }
        Ok(found)
    }
}

impl Installation for EntryInstallation {
    fn present(&self, name: &str) -> StateResult<Option<u64>> {
        let files = locked(&self.files);
        let content = files.get(name).or_else(|| self.former.get(name));
        Ok(content.map(|content| content.len() as u64))
    }

    fn read(&self, name: &str, offset: u64, into: &mut [u8]) -> StateResult<()> {
        let files = locked(&self.files);
        let content = files.get(name).or_else(|| self.former.get(name));
        read_at(&self.path, name, content, offset, into)
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> StateResult<()> {
        self.place.admit()?;
        let end = usize::try_from(offset)
            .ok()
            .and_then(|from| from.checked_add(bytes.len()));
        let end = end.ok_or_else(|| StateError::Io {
            path: self.path.clone(),
            operation: "written",
            reason: format!("{name:?} cannot have {} bytes at {offset}", bytes.len()),
        })?;
        let mut files = locked(&self.files);
        let former = || self.former.get(name).cloned().unwrap_or_default();
        let content = files.entry(name.to_owned()).or_insert_with(former);
        content.resize(content.len().max(end), 0);
        content[end - bytes.len()..end].copy_from_slice(bytes);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> StateResult<()> {
        self.former.remove(name);
        locked(&self.files).remove(name);
        Ok(())
    }

    fn finish(self: Box<Self>, files: &[StateFile]) -> StateResult<Arc<dyn StateBackend>> {
        self.place.admit()?;
        let found = self.listed(files)?;
        let (meta, stores) = entry_files::read(&found, self.stores).map_err(|unreadable| unreadable.at(&self.path))?;
        let Self { files, place, .. } = *self;
        let backend = place.replace(meta, stores)?;
        locked(&files).clear();
        Ok(backend)
    }
}
