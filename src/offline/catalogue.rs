//! What a repository holds: every object by name, every manifest and the footer of every pack, read and checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::blob::{BlobError, BlobInfo, BlobStore, Part};
use crate::durability::snapshot::{
    End, FOOTER_GUESS_BYTES, Footer, FormatError, Manifest, PACKS_FOLDER, PackId, SnapshotId, read_end, task_folder,
};
use crate::ids::{Lineage, TaskId};
use crate::time::Millis;
use crate::worker::SnapshotError;

use super::heads::{self, EXPORT, Head};
use super::kinds::{Kind, kind};
use super::{OfflineError, Progress, Unit};

/// What is read of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Only the folder of this task, and the packs, which hold increments of many.
    pub task: Option<TaskId>,
    /// Whether packs of increments are looked at.
    pub with_packs: bool,
}

impl Scope {
    /// Everything.
    pub const ALL: Scope = Scope {
        task: None,
        with_packs: true,
    };

    /// What concerns one task.
    pub fn of(task: TaskId) -> Self {
        Scope {
            task: Some(task),
            with_packs: true,
        }
    }
}

/// An object that cannot be read.
#[derive(Debug)]
pub struct Broken {
    /// Its name.
    pub object: String,
    /// What is wrong with it.
    pub error: SnapshotError,
}

/// What a repository holds, read and checked. Instances may go on meanwhile: an object that was deleted since it was listed is not in it.
pub struct Catalogue {
    /// The application's folder.
    pub store: Arc<dyn BlobStore>,
    scope: Scope,
    /// All objects by name.
    pub objects: BTreeMap<String, BlobInfo>,
    /// The base snapshots of each task, newest first; those of the lineage that was written to last come first.
    pub bases: BTreeMap<TaskId, Vec<Manifest>>,
    /// What each pack says about itself.
    pub packs: BTreeMap<PackId, Footer>,
    /// Where the tasks of an export end; empty in other repositories.
    pub heads: Vec<Head>,
    /// Manifests and packs that cannot be read.
    pub broken: Vec<Broken>,
}

/// Whether an error is about one object, so that the others may still be looked at.
pub(super) fn is_about_an_object(error: &SnapshotError) -> bool {
    matches!(
        error,
        SnapshotError::Object(_) | SnapshotError::Spilled { .. } | SnapshotError::Blob(BlobError::Missing { .. })
    )
}

impl Catalogue {
    /// Reads what is there.
    ///
    /// # Errors
    /// [`OfflineError::Nothing`] where there is nothing at all, and what the store says. What is wrong with single objects is in [`Catalogue::broken`].
    pub fn read(store: Arc<dyn BlobStore>, scope: Scope, progress: &dyn Progress) -> Result<Self, OfflineError> {
        let mut catalogue = Self {
            store,
            scope,
            objects: BTreeMap::new(),
            bases: BTreeMap::new(),
            packs: BTreeMap::new(),
            heads: Vec::new(),
            broken: Vec::new(),
        };
        catalogue.refresh(progress)?;
        Ok(catalogue)
    }

    /// Reads what has come since, and forgets what has gone.
    ///
    /// # Errors
    /// As [`Catalogue::read`].
    pub fn refresh(&mut self, progress: &dyn Progress) -> Result<(), OfflineError> {
        let listed = self.list()?;
        let former = std::mem::take(&mut self.objects);
        self.objects = listed.into_iter().map(|blob| (blob.name.clone(), blob)).collect();
        let Self {
            objects, bases, packs, ..
        } = self;
        bases
            .values_mut()
            .for_each(|bases| bases.retain(|base| objects.contains_key(&base.object())));
        packs.retain(|pack, _| objects.contains_key(&pack.object()));
        let new = self.objects.values().filter(|blob| !former.contains_key(&blob.name));
        let wanted = new.map(|blob| (blob.clone(), kind(&blob.name)));
        let wanted = wanted.filter(|(_, kind)| matches!(kind, Kind::Manifest(..) | Kind::Pack(_)));
        self.read_objects(&wanted.collect::<Vec<_>>(), progress)?;
        self.heads = heads_of(&*self.store)?;
        self.bases.values_mut().for_each(|bases| sort_newest_first(bases));
        Ok(())
    }

    fn list(&self) -> Result<Vec<BlobInfo>, OfflineError> {
        let store = &self.store;
        let mut listed = match self.scope.task {
            None => store.list("")?,
            Some(task) => store.list(&task_folder(task))?,
        };
        match (self.scope.task, self.scope.with_packs) {
            (Some(_), true) => listed.extend(store.list(PACKS_FOLDER)?),
            (None, false) => listed.retain(|blob| !blob.name.starts_with(PACKS_FOLDER)),
            _ => {}
        }
        if listed.is_empty() && (self.scope.task.is_none() || store.list("")?.is_empty()) {
            return Err(OfflineError::Nothing { root: self.root() });
        }
        Ok(listed)
    }

    fn read_objects(&mut self, wanted: &[(BlobInfo, Kind)], progress: &dyn Progress) -> Result<(), OfflineError> {
        progress.begin("reading manifests and footers", wanted.len() as u64, Unit::Items);
        for some in wanted.chunks(self.store.concurrency().max(1)) {
            let parts = some.iter().map(|(blob, kind)| Part {
                name: blob.name.clone(),
                range: match kind {
                    Kind::Pack(_) => blob.bytes.saturating_sub(FOOTER_GUESS_BYTES)..blob.bytes,
                    _ => 0..blob.bytes,
                },
            });
            let read = self.store.read_parts(&parts.collect::<Vec<_>>());
            for (bytes, (blob, kind)) in read.into_iter().zip(some) {
                let taken = bytes.map_err(SnapshotError::from);
                match taken.and_then(|bytes| self.take(&blob.name, kind, bytes)) {
                    Ok(()) => {}
                    // Somebody has deleted it meanwhile.
                    Err(SnapshotError::Blob(BlobError::Missing { .. })) => {
                        self.objects.remove(&blob.name);
                    }
                    Err(error) if is_about_an_object(&error) => self.broken.push(Broken {
                        object: blob.name.clone(),
                        error,
                    }),
                    Err(error) => return Err(error.into()),
                }
            }
            progress.advance(some.len() as u64);
        }
        progress.end();
        Ok(())
    }

    /// Whether an object is there now.
    ///
    /// # Errors
    /// What the store says.
    pub fn is_there(&self, object: &str) -> Result<bool, OfflineError> {
        let part = Part {
            name: object.to_owned(),
            range: 0..1,
        };
        match self.store.read_parts(&[part]).into_iter().next() {
            Some(Err(BlobError::Missing { .. })) => Ok(false),
            Some(Err(error)) => Err(error.into()),
            _ => Ok(true),
        }
    }

    fn take(&mut self, object: &str, kind: &Kind, bytes: Vec<u8>) -> Result<(), SnapshotError> {
        match kind {
            Kind::Manifest(task, id) => {
                let manifest = Manifest::from_json(&bytes, object)?;
                if (manifest.task, manifest.id) != (*task, *id) {
                    return Err(SnapshotError::Object(FormatError::Foreign {
                        object: object.to_owned(),
                        what: format!("snapshot {} of task {}", manifest.id, manifest.task),
                    }));
                }
                self.bases.entry(*task).or_default().push(manifest);
            }
            Kind::Pack(id) => {
                self.packs.insert(id.clone(), footer_of(&*self.store, object, &bytes)?);
            }
            _ => {}
        }
        Ok(())
    }

    /// The footer of one pack.
    ///
    /// # Errors
    /// What is wrong with it, and what the store says.
    pub fn footer(store: &dyn BlobStore, pack: &PackId) -> Result<Footer, OfflineError> {
        let object = pack.object();
        let end = store.read_end(&object, FOOTER_GUESS_BYTES)?;
        Ok(footer_of(store, &object, &end)?)
    }

    /// Names the store and the folder.
    pub fn root(&self) -> String {
        self.store.root().to_owned()
    }

    /// All tasks that base snapshots or increments are of, in order.
    pub fn tasks(&self) -> Vec<TaskId> {
        let packed = self.packs.values().flat_map(|footer| &footer.tasks);
        let packed = packed.filter_map(|packed| packed.task());
        let mut tasks: Vec<TaskId> = self.bases.keys().copied().chain(packed).collect();
        tasks.sort_unstable();
        tasks.dedup();
        tasks
    }

    /// The base snapshots of a task, newest first.
    pub fn bases_of(&self, task: TaskId) -> &[Manifest] {
        self.bases.get(&task).map(Vec::as_slice).unwrap_or_default()
    }

    /// One base snapshot of a task.
    ///
    /// # Errors
    /// [`OfflineError::Unknown`] where there is none such, with those there are; or what is wrong with its manifest.
    pub fn base(&self, task: TaskId, id: SnapshotId) -> Result<&Manifest, OfflineError> {
        if let Some(base) = self.bases_of(task).iter().find(|base| base.id == id) {
            return Ok(base);
        }
        self.refuse_broken(&id.manifest(task))?;
        Err(self.unknown(
            format!("base snapshot {id} of task {task}"),
            self.bases_of(task).iter().map(|base| base.id.to_string()),
        ))
    }

    /// The newest base snapshot of a task.
    ///
    /// # Errors
    /// [`OfflineError::Unknown`] where it has none.
    pub fn newest(&self, task: TaskId) -> Result<&Manifest, OfflineError> {
        self.bases_of(task).first().ok_or_else(|| {
            self.unknown(
                format!("base snapshot of task {task}"),
                self.bases.keys().map(|task| format!("those of task {task}")),
            )
        })
    }

    /// The task that has this base snapshot.
    ///
    /// # Errors
    /// [`OfflineError::Unknown`] where none has it.
    pub fn task_of(&self, id: SnapshotId) -> Result<TaskId, OfflineError> {
        let has = |(task, bases): (&TaskId, &Vec<Manifest>)| bases.iter().any(|base| base.id == id).then_some(*task);
        if let Some(task) = self.bases.iter().find_map(has) {
            return Ok(task);
        }
        let file = format!("/manifests/{id}.json");
        if let Some(broken) = self.broken.iter().find(|broken| broken.object.ends_with(&file)) {
            self.refuse_broken(&broken.object)?;
        }
        let bases = self.bases.values().flatten();
        Err(self.unknown(format!("base snapshot {id}"), bases.map(|base| base.id.to_string())))
    }

    /// Says what is wrong with an object, where something is.
    fn refuse_broken(&self, object: &str) -> Result<(), OfflineError> {
        match self.broken.iter().find(|broken| broken.object == object) {
            Some(Broken {
                error: SnapshotError::Object(error),
                ..
            }) => Err(error.clone().into()),
            _ => Ok(()),
        }
    }

    /// The error about something that is not there, with some of what there is.
    pub fn unknown(&self, what: String, there: impl Iterator<Item = String>) -> OfflineError {
        const SHOWN: usize = 8;
        let mut there: Vec<String> = there.take(SHOWN + 1).collect();
        if there.len() > SHOWN {
            there[SHOWN] = "…".to_owned();
        }
        let there = match there.is_empty() {
            true => "none".to_owned(),
            false => there.join(", "),
        };
        let root = self.root();
        OfflineError::Unknown { root, what, there }
    }
}

/// Where the tasks of an export end; nothing where it is none.
pub(super) fn heads_of(store: &dyn BlobStore) -> Result<Vec<Head>, OfflineError> {
    match store.read(EXPORT) {
        Ok(bytes) => Ok(heads::read(&bytes)?),
        Err(BlobError::Missing { .. }) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// The footer of a pack of which the end was read; more of it is read where that is too short.
fn footer_of(store: &dyn BlobStore, object: &str, end: &[u8]) -> Result<Footer, SnapshotError> {
    let bytes = match read_end(end, object)? {
        End::Footer(footer) => return Ok(footer),
        End::Longer(bytes) => bytes,
    };
    match read_end(&store.read_end(object, bytes)?, object)? {
        End::Footer(footer) => Ok(footer),
        End::Longer(_) => Err(damaged(object, "it is shorter than it says")),
    }
}

pub(super) fn damaged(object: &str, reason: &str) -> SnapshotError {
    SnapshotError::Object(FormatError::Damaged {
        object: object.to_owned(),
        reason: reason.to_owned(),
    })
}

/// Lineages in the order in which they were written to last; within one, by epoch.
fn sort_newest_first(bases: &mut [Manifest]) {
    let mut written: BTreeMap<Lineage, Millis> = BTreeMap::new();
    for base in bases.iter() {
        let newest = written.entry(base.meta.lineage).or_default();
        *newest = base.made_ms.max(*newest);
    }
    let order = |base: &Manifest| {
        let lineage = base.meta.lineage;
        (written.get(&lineage).copied(), lineage, base.id)
    };
    bases.sort_by_key(|base| std::cmp::Reverse(order(base)));
}
