//! Looking what is asked for, and how far the others are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::blob::BlobError;
use crate::durability::savepoint::{AttemptFolder, Census, Failure, REQUESTS_FOLDER, Request};
use crate::durability::snapshot::Attempt;
use crate::ids::{TaskId, TopicPartition};
use crate::log::{Log, LogError};
use crate::planted::{Bug, planted};

use super::super::snapshots::{Repository, SnapshotError};
use super::finish::finish;
use super::stages::Stages;

const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// What a worker wants to know.
pub struct LookJob {
    pub repository: Arc<Repository>,
    pub log: Arc<dyn Log>,
    pub stages: Arc<Stages>,
    pub census: Census,
    /// Repartition inputs of its tasks whose ends it does not know yet, each with the sub-topology that reads it.
    pub wanted: Vec<(u16, TopicPartition)>,
    /// The attempt for which `wanted` is.
    pub known: Option<Request>,
    /// Attempts that nothing comes of: they are in nobody's way.
    pub given_up: Vec<Attempt>,
}

/// What there is.
#[derive(Debug, Default)]
pub struct View {
    /// What is asked for; `None` if there is nothing, or nothing any more.
    pub request: Option<Request>,
    /// Tasks that stand still.
    pub frozen: BTreeSet<TaskId>,
    /// Tasks that are stored.
    pub stored: BTreeSet<TaskId>,
    /// Somebody has said that nothing comes of it.
    pub failure: Option<Failure>,
    /// Where the inputs end that were asked about, as far as nothing more comes.
    pub ends: BTreeMap<TopicPartition, i64>,
}

/// Looks once.
pub fn look(job: &LookJob) -> Result<View, SnapshotError> {
    let Some(request) = request(job)? else {
        return Ok(View::default());
    };
    let store = &job.repository.store;
    let folder = request.folder();
    if job.known.as_ref() != Some(&request) {
        store.create(&folder.census(), &job.census.to_json())?;
    }
    let mut view = View::default();
    for blob in store.list(&folder.markers())? {
        match AttemptFolder::task_of(&blob.name) {
            Some(task) => view.frozen.extend([task]),
            None => view.failure = Some(Failure::from_json(&store.read(&blob.name)?, &blob.name)?),
        }
    }
    if view.failure.is_none() && view.frozen.len() == job.stages.tasks().len() {
        let parts = store.list(&folder.parts())?;
        view.stored = parts
            .iter()
            .filter_map(|blob| AttemptFolder::task_of(&blob.name))
            .collect();
    }
    if view.failure.is_none() && job.known.as_ref() == Some(&request) {
        view.ends = ends(job, &view.frozen)?;
    }
    if view.stored.len() == job.stages.tasks().len() && finish(&job.repository, &request, &job.census)? {
        return Ok(View::default());
    }
    view.request = Some(request);
    Ok(view)
}

/// The first request that somebody still waits for.
fn request(job: &LookJob) -> Result<Option<Request>, SnapshotError> {
    let store = &job.repository.store;
    let now_ms = job.repository.clock.wall_ms();
    for blob in store.list(REQUESTS_FOLDER)? {
        let request = match store.read(&blob.name) {
            Ok(bytes) => Request::from_json(&bytes, &blob.name)?,
            Err(BlobError::Missing { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        if now_ms < request.deadline_ms && !job.given_up.contains(&request.attempt) {
            return Ok(Some(request));
        }
    }
    Ok(None)
}

/// Where repartition topics end. All who write to them stood still when the markers were listed, so nothing is added to what is there now.
fn ends(job: &LookJob, frozen: &BTreeSet<TaskId>) -> Result<BTreeMap<TopicPartition, i64>, SnapshotError> {
    let mut ends = BTreeMap::new();
    for (sub_topology, partition) in &job.wanted {
        if !job.stages.has_come(*sub_topology, frozen) && !planted(Bug::SavepointWithoutStages) {
            continue;
        }
        match job.log.admin().watermarks(partition, ASK_TIMEOUT) {
            Ok(marks) => ends.insert(partition.clone(), marks.high),
            // There will be another look.
            Err(LogError::TimedOut { .. } | LogError::Unreachable { .. }) => return Ok(ends),
            Err(error) => return Err(SnapshotError::Log(error)),
        };
    }
    Ok(ends)
}
