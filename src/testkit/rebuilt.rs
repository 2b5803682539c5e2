//! A task's state as a new host would have it: restored from the repository alone, by the code that does it in production.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::blob::BlobStore;
use crate::durability::snapshot::{Manifest, SnapshotId, task_folder};
use crate::ids::{Lineage, TaskId, TopicPartition};
use crate::instance::InstanceSettings;
use crate::log::Log;
use crate::log::embedded::EmbeddedLog;
use crate::state::entries::Entries;
use crate::state::{StateMeta, StoreSpec};
use crate::time::Clock;
use crate::worker::{NotOpened, OpenRequest, Opener, Repository};

use super::disk::SimulatedDisk;
use super::seed::Seed;

/// Who restores, and from where.
#[derive(Clone)]
pub(super) struct Rebuilder {
    pub(super) log: Arc<EmbeddedLog>,
    pub(super) store: Arc<dyn BlobStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) settings: InstanceSettings,
    pub(super) plan: String,
}

impl Rebuilder {
    /// The state of a task with these inputs and stores.
    pub(super) fn rebuild(
        &self,
        task: TaskId,
        inputs: Vec<TopicPartition>,
        stores: &[StoreSpec],
    ) -> Result<Option<(StateMeta, Vec<Entries>)>, NotOpened> {
        let disk = Arc::new(SimulatedDisk::default());
        let seed = Seed::new(0);
        let repository = Repository {
            store: Arc::clone(&self.store),
            settings: self.settings.snapshots.clone(),
            log: Arc::clone(&self.log) as Arc<dyn Log>,
            application_id: self.settings.application_id.clone(),
            random: Arc::new(move || seed.next()),
            clock: Arc::clone(&self.clock),
            instance: "rebuilt".to_owned(),
        };
        let opener = Arc::new(Opener {
            log: Arc::clone(&self.log) as Arc<dyn Log>,
            states: Arc::clone(&disk) as _,
            clock: Arc::clone(&self.clock),
            metrics: Arc::default(),
            repository: Some(Arc::new(repository)),
        });
        let opened = opener.open(OpenRequest {
            task,
            application_id: self.settings.application_id.clone(),
            plan: self.plan.clone(),
            inputs,
            stores: stores.to_vec(),
            durability: self.settings.durability,
            backend: None,
            begun_at: Vec::new(),
            new_lineage: Lineage(0),
            restore_timeout: Duration::from_secs(60),
            allow_empty_state: false,
            cancelled: Arc::default(),
        })?;
        drop(opened);
        Ok(disk.contents(task))
    }

    /// Objects that a retained snapshot of the task refers to and that are not there (invariant I11).
    pub(super) fn missing(&self, task: TaskId, base: Option<SnapshotId>) -> Vec<String> {
        let Some(base) = base else { return Vec::new() };
        let there = self.store.list(&task_folder(task)).unwrap_or_default();
        let there: BTreeSet<String> = there.into_iter().map(|blob| blob.name).collect();
        let manifest = |id: SnapshotId| {
            let bytes = self.store.read(&id.manifest(task)).ok()?;
            Manifest::from_json(&bytes, "a manifest").ok()
        };
        let Some(newest) = manifest(base) else {
            return vec![base.manifest(task)];
        };
        let older = newest.history.iter().map(|older| (older.id, manifest(older.id)));
        let mut missing = Vec::new();
        for (id, manifest) in older.collect::<Vec<_>>().into_iter().chain([(base, Some(newest))]) {
            let Some(manifest) = manifest else {
                missing.push(id.manifest(task));
                continue;
            };
            let files = manifest.files.into_iter().map(|file| file.object);
            missing.extend(files.filter(|file| !there.contains(file)));
        }
        missing
    }
}
