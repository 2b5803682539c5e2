//! Time travel: the state as of a past base snapshot of each task, with the input offsets that it had.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::blob::BlobStore;
use crate::durability::snapshot::{Manifest, SnapshotId, manifests_folder};
use crate::ids::TaskId;
use crate::time::Millis;
use crate::topology::{Plan, TopicRef};

use super::error::SavepointError;
use super::restore::{Origin, OriginTask};

/// Which snapshots are wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The newest of each task whose state is of this time or before it, in milliseconds since the Unix epoch; `None`: the newest.
    pub as_of_ms: Option<Millis>,
    /// For these tasks this one.
    pub snapshots: BTreeMap<TaskId, SnapshotId>,
}

/// Whose past it is.
pub struct Past<'a> {
    /// The folder of the application.
    pub store: Arc<dyn BlobStore>,
    /// The application.
    pub application: &'a str,
    /// Its topology.
    pub plan: &'a Plan,
    /// Its tasks.
    pub tasks: Vec<TaskId>,
}

/// Chooses a base snapshot of each task.
///
/// # Errors
/// [`SavepointError::NotIndependent`] where records go from task to task, [`SavepointError::NoPast`], and as the store says.
pub fn past(of: &Past<'_>, wanted: &Wanted) -> Result<Origin, SavepointError> {
    let mut sources = of.plan.sub_topologies.iter().flat_map(|sub| &sub.sources);
    if let Some(topic) = sources.find(|topic| matches!(topic, TopicRef::Repartition(_))) {
        return Err(SavepointError::NotIndependent {
            application: of.application.to_owned(),
            topic: topic.full_name(of.application).to_string(),
        });
    }
    let mut plan = String::new();
    let mut tasks = Vec::new();
    for task in &of.tasks {
        let manifest = choose(of, *task, wanted)?;
        plan.clone_from(&manifest.plan);
        tasks.push(OriginTask {
            task: *task,
            lineage: manifest.meta.lineage,
            epoch: manifest.meta.epoch,
            ended_ms: manifest.meta.ended_ms,
            cut: manifest.meta.cut,
            stores: manifest.stores,
            backend: manifest.backend,
            files: manifest.files,
            folder: String::new(),
        });
    }
    Ok(Origin {
        store: Arc::clone(&of.store),
        what: format!("past snapshots of {}", of.application),
        application: of.application.to_owned(),
        plan,
        plan_text: String::new(),
        tasks,
    })
}

fn choose(of: &Past<'_>, task: TaskId, wanted: &Wanted) -> Result<Manifest, SavepointError> {
    let mut there = Vec::new();
    for blob in of.store.list(&manifests_folder(task))? {
        if SnapshotId::of_manifest(task, &blob.name).is_some() {
            there.push(Manifest::from_json(&of.store.read(&blob.name)?, &blob.name)?);
        }
    }
    there.sort_by_key(|manifest| (manifest.meta.ended_ms, manifest.id));
    let hint = match there.first() {
        Some(oldest) => format!(
            "; the oldest is {} of {} ms since 1970",
            oldest.id, oldest.meta.ended_ms
        ),
        None => "; it has none at all".to_owned(),
    };
    let asked = wanted.snapshots.get(&task);
    let fits = |manifest: &Manifest| match asked {
        Some(id) => manifest.id == *id,
        None => wanted
            .as_of_ms
            .is_none_or(|as_of_ms| manifest.meta.ended_ms <= as_of_ms),
    };
    let what = match (asked, wanted.as_of_ms) {
        (Some(id), _) => id.to_string(),
        (None, Some(as_of_ms)) => format!("of {as_of_ms} ms since 1970 or before"),
        (None, None) => "to start from".to_owned(),
    };
    there.into_iter().rfind(fits).ok_or_else(|| SavepointError::NoPast {
        root: of.store.root().to_owned(),
        task,
        wanted: what,
        hint,
    })
}
