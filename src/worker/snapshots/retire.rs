//! Deleting what a base snapshot has superseded, once a commit has named it (invariants I10, I11).
//!
//! Whoever made the base knows which older ones do not stay, and what only they had: nothing is listed for it. Names are given once, so whoever
//! stands still in the midst of this deletes nothing else later. What is left over where it does not come to its end, the collector finds.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::durability::snapshot::{Manifest, PackId, SnapshotId, Superseded};
use crate::ids::TaskId;

use super::collect::Collection;
use super::error::SnapshotError;
use super::repository::Repository;

/// Calls that the store does not answer before it is left to the collector.
const ATTEMPTS: u32 = 5;

/// What may go.
pub struct RetireJob {
    pub task: TaskId,
    /// Snapshots that do not stay, each with those beside it that do.
    pub superseded: Vec<Superseded>,
    /// Packs of which no task needs anything.
    pub packs: Vec<PackId>,
}

/// One deletion.
pub struct Retire {
    repository: Arc<Repository>,
    task: TaskId,
    unread: Vec<(SnapshotId, Vec<SnapshotId>)>,
    /// Manifests first, so that none of those that are left names something that is gone.
    manifests: Vec<String>,
    objects: BTreeSet<String>,
    failures: u32,
    found: Collection,
}

impl Retire {
    pub fn new(repository: Arc<Repository>, job: RetireJob) -> Self {
        let superseded = job.superseded.into_iter();
        Self {
            repository,
            task: job.task,
            unread: superseded.map(|gone| (gone.id, gone.neighbours)).collect(),
            manifests: Vec::new(),
            objects: job.packs.iter().map(PackId::object).collect(),
            failures: 0,
            found: Collection::default(),
        }
    }

    /// Reads what one snapshot had, or deletes; the outcome at the end.
    pub fn step(&mut self) -> Option<Result<Collection, SnapshotError>> {
        match self.go_on() {
            Ok(false) => None,
            Ok(true) => Some(Ok(self.found)),
            Err(error) if error.is_passing() && self.failures < ATTEMPTS => {
                self.failures += 1;
                None
            }
            Err(error) => Some(Err(error)),
        }
    }

    fn go_on(&mut self) -> Result<bool, SnapshotError> {
        if let Some((id, neighbours)) = self.unread.last() {
            match self.own_objects(*id, neighbours) {
                Ok(objects) => {
                    self.manifests.push(id.manifest(self.task));
                    self.objects.extend(objects);
                }
                // What it had is not known, or what the others have: the collector will see.
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
            self.unread.pop();
            return Ok(false);
        }
        let names = match self.manifests.is_empty() {
            false => std::mem::take(&mut self.manifests),
            true => self.objects.iter().cloned().collect(),
        };
        if names.is_empty() {
            return Ok(true);
        }
        if let Err(error) = self.repository.store.delete(&names) {
            if names.iter().any(|name| !self.objects.contains(name)) {
                self.manifests = names;
            }
            return Err(error.into());
        }
        self.found.objects += names.len() as u64;
        self.objects.retain(|object| !names.contains(object));
        Ok(false)
    }

    /// The objects of a snapshot that none of its neighbours has. A manifest shares objects with the one before it only, so what a snapshot
    /// has in common with any other it has in common with those beside it.
    fn own_objects(&self, id: SnapshotId, neighbours: &[SnapshotId]) -> Result<BTreeSet<String>, SnapshotError> {
        let objects = |manifest: &Manifest| -> BTreeSet<String> {
            manifest.files.iter().map(|file| file.object.clone()).collect()
        };
        let mut own = objects(&self.repository.manifest(self.task, id)?);
        for neighbour in neighbours {
            let shared = objects(&self.repository.manifest(self.task, *neighbour)?);
            own.retain(|object| !shared.contains(object));
        }
        Ok(own)
    }
}
