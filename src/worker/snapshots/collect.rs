//! Deleting what nobody refers to any more (invariants I10, I11). Anybody may do it, at any time, and stand still in the midst of it.
//!
//! First the objects are listed, then it is found out what is referred to, then what is old and unreferenced goes. In this order nothing goes
//! wrong however long each step takes: what was older than the grace when it was listed was named by a commit before that, or never will be,
//! since a commit that would name something older is given up; files are shared only with manifests that are retained; and a name is given
//! once. The other way round a commit between the two steps would go unnoticed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::blob::BlobInfo;
use crate::durability::Pointer;
use crate::durability::snapshot::{
    IncrementRef, Manifest, PACKS_FOLDER, Retention, SnapshotId, manifests_folder, task_folder,
};
use crate::ids::{Epoch, TaskId, TopicPartition};
use crate::log::Log;
use crate::planted::{Bug, planted};

use super::error::SnapshotError;
use super::repository::Repository;

const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// What to look at.
pub struct CollectJob {
    /// Where what is committed is read, and under which group.
    pub log: Arc<dyn Log>,
    /// The consumer group.
    pub application_id: String,
    /// Tasks with one of their inputs each: all of the application where the packs are looked at, else those whose folders are.
    pub tasks: Vec<(TaskId, TopicPartition)>,
    /// The tasks whose folders are looked at.
    pub folders: Vec<TaskId>,
    /// Whether packs of increments are looked at.
    pub with_packs: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collection {
    /// Objects that were deleted.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One look for what may be deleted.
pub struct Collect {
    repository: Arc<Repository>,
    job: CollectJob,
    /// The tasks that were not looked at yet.
    waiting: Vec<(TaskId, TopicPartition)>,
    referenced: BTreeSet<String>,
    manifests: BTreeMap<(TaskId, SnapshotId), Manifest>,
    folders: Vec<(Option<TaskId>, String)>,
    /// What was old when its folder was listed, and what young manifests there were.
    old: Vec<BlobInfo>,
    young: Vec<(TaskId, SnapshotId)>,
    found: Collection,
    deletes: bool,
}

impl Collect {
    /// Begins; the first step looks at the first folder.
    pub fn new(repository: Arc<Repository>, job: CollectJob) -> Self {
        let of_tasks = job.folders.iter().map(|task| (Some(*task), task_folder(*task)));
        let of_packs = job.with_packs.then(|| (None, PACKS_FOLDER.to_owned()));
        let folders = of_tasks.chain(of_packs).collect();
        Self {
            repository,
            waiting: job.tasks.clone(),
            job,
            referenced: BTreeSet::new(),
            manifests: BTreeMap::new(),
            folders,
            old: Vec::new(),
            young: Vec::new(),
            found: Collection::default(),
            deletes: true,
        }
    }

    /// Finds what may be deleted, and leaves it.
    #[must_use]
    pub fn only_looking(self) -> Self {
        Self { deletes: false, ..self }
    }

    /// What nobody refers to and is old, once all steps are done.
    pub fn unreferenced(&self) -> Vec<BlobInfo> {
        let unreferenced = self.old.iter().filter(|blob| !self.referenced.contains(&blob.name));
        unreferenced.cloned().collect()
    }

    /// Looks at one task, or at one folder; the outcome at the end. Where something cannot be read nothing is deleted.
    pub fn step(&mut self) -> Option<Result<Collection, SnapshotError>> {
        let too_early = planted(Bug::CollectBeforeListing) && !self.waiting.is_empty();
        if let Some((task, folder)) = self.folders.pop_if(|_| !too_early) {
            return self.list(task, &folder).err().map(Err);
        }
        if let Some((task, input)) = self.waiting.pop() {
            let Some(pointer) = self.pointer(&input) else {
                // What is not known is not deleted; there will be another look.
                return Some(Err(SnapshotError::Cancelled));
            };
            return self.refer(task, pointer).err().map(Err);
        }
        if let Some((task, id)) = self.young.pop() {
            return self.refer_to_young(task, id).err().map(Err);
        }
        Some(self.delete().map(|()| self.found))
    }

    /// What is committed; `None` where that cannot be found out now.
    fn pointer(&self, input: &TopicPartition) -> Option<Option<Pointer>> {
        let inputs = std::slice::from_ref(input);
        let committed = self
            .job
            .log
            .admin()
            .committed(&self.job.application_id, inputs, ASK_TIMEOUT);
        match committed.ok()?.into_iter().next()? {
            Some(committed) => Pointer::from_metadata(&committed.metadata).ok().map(Some),
            None => Some(None),
        }
    }

    /// Takes note of all that a task's committed state refers to.
    fn refer(&mut self, task: TaskId, pointer: Option<Pointer>) -> Result<(), SnapshotError> {
        let Some(pointer) = pointer else {
            // Offsets that were deleted do not say that nothing is referred to.
            return match self.repository.store.list(&manifests_folder(task))?.is_empty() {
                true => Ok(()),
                false => Err(SnapshotError::Cancelled),
            };
        };
        let mut oldest = Epoch(0);
        if let Some(base) = pointer.state.base {
            let manifest = self.repository.manifest(task, base)?;
            let newest_only = if planted(Bug::CollectOlderBases) { 1 } else { usize::MAX };
            let retained = manifest.retained().take(newest_only);
            let retained: Vec<SnapshotId> = retained.map(|retained| retained.id).collect();
            for id in retained.iter().skip(1) {
                let older = self.repository.manifest(task, *id)?;
                self.refer_to_manifest(&older);
                self.manifests.insert((task, *id), older);
            }
            self.refer_to_manifest(&manifest);
            self.manifests.insert((task, base), manifest);
            oldest = retained.last().map_or(base.epoch, |oldest| oldest.epoch);
            for manifest in retained.iter().filter_map(|id| self.manifests.get(&(task, *id))) {
                let behind = manifest.increments.iter().filter(|increment| increment.epoch > oldest);
                self.referenced.extend(behind.filter_map(IncrementRef::object));
            }
        }
        if let Some(newest) = pointer.state.increment.filter(|newest| newest.epoch > oldest) {
            self.refer_to_increments(task, &newest, pointer.state.base, oldest)?;
        }
        Ok(())
    }

    fn refer_to_manifest(&mut self, manifest: &Manifest) {
        self.referenced.insert(manifest.object());
        self.referenced
            .extend(manifest.files.iter().map(|file| file.object.clone()));
    }

    fn refer_to_increments(
        &mut self,
        task: TaskId,
        newest: &IncrementRef,
        base: Option<SnapshotId>,
        oldest: Epoch,
    ) -> Result<(), SnapshotError> {
        let from = base.map_or(oldest, |base| base.epoch);
        self.referenced.extend(newest.object());
        if newest.epoch > from {
            let links = self.repository.links(task, newest, from)?;
            self.referenced
                .extend(links.increments.iter().filter_map(IncrementRef::object));
        }
        Ok(())
    }

    fn list(&mut self, task: Option<TaskId>, folder: &str) -> Result<(), SnapshotError> {
        let retention = self.repository.settings.retention;
        let grace = match planted(Bug::CollectAtOnce) {
            true => Duration::ZERO,
            false => retention.grace,
        };
        let now_ms = self.repository.clock.wall_ms();
        let listing = self.repository.store.list(folder)?;
        let retention = Retention { grace, ..retention };
        let (old, young): (Vec<_>, Vec<_>) = listing.into_iter().partition(|blob| retention.is_old(blob, now_ms));
        let manifests = young.iter().filter_map(|blob| {
            let task = task?;
            Some((task, SnapshotId::of_manifest(task, &blob.name)?))
        });
        self.young.extend(manifests);
        self.old.extend(old);
        Ok(())
    }

    /// A manifest that is too young to be deleted may be named by the next commit: what it refers to stays as well.
    fn refer_to_young(&mut self, task: TaskId, id: SnapshotId) -> Result<(), SnapshotError> {
        if self.manifests.contains_key(&(task, id)) || planted(Bug::CollectAtOnce) {
            return Ok(());
        }
        match self.repository.manifest(task, id) {
            Ok(manifest) => self.refer_to_manifest(&manifest),
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Manifests go first: none of those that are left names something that is gone.
    fn delete(&mut self) -> Result<(), SnapshotError> {
        if !self.deletes {
            return Ok(());
        }
        let unreferenced = self.old.iter().filter(|blob| !self.referenced.contains(&blob.name));
        let (manifests, others): (Vec<_>, Vec<_>) = unreferenced.partition(|blob| blob.name.ends_with(".json"));
        for blobs in [manifests, others] {
            let names: Vec<String> = blobs.iter().map(|blob| blob.name.clone()).collect();
            if !names.is_empty() {
                self.repository.store.delete(&names)?;
            }
            self.found.objects += names.len() as u64;
            self.found.bytes += blobs.iter().map(|blob| blob.bytes).sum::<u64>();
        }
        Ok(())
    }
}
