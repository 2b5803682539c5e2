//! Finding out whether all tasks stood still at one moment.
//!
//! Whoever has seen the markers of all tasks reads what is committed of its own. If that is still the epoch of its marker, the task has not gone on
//! before the last one was frozen, whoever has owned it meanwhile. This does not rest on clocks, on the group, or on anybody's memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::durability::Pointer;
use crate::durability::savepoint::Marker;
use crate::ids::{TaskId, TopicPartition};
use crate::log::{Log, LogError};

const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// What is committed for a task.
pub type Cut = BTreeMap<TopicPartition, i64>;

/// The tasks of a worker that were frozen, with their inputs.
pub struct ConfirmJob {
    pub log: Arc<dyn Log>,
    pub application_id: String,
    pub tasks: Vec<(Marker, Vec<TopicPartition>)>,
}

/// What came of it.
#[derive(Debug)]
pub enum Confirmed {
    /// All stand still; what is committed for each.
    Still(BTreeMap<TaskId, Cut>),
    /// One has gone on.
    Moved(String),
    /// The log did not answer in time.
    NoAnswer,
}

/// Reads what is committed.
pub fn confirm(job: &ConfirmJob) -> Confirmed {
    let mut cuts = BTreeMap::new();
    for (marker, inputs) in &job.tasks {
        match committed(job, marker, inputs) {
            Ok(Ok(cut)) => cuts.insert(marker.task, cut),
            Ok(Err(reason)) => return Confirmed::Moved(reason),
            Err(_) => return Confirmed::NoAnswer,
        };
    }
    Confirmed::Still(cuts)
}

fn committed(job: &ConfirmJob, marker: &Marker, inputs: &[TopicPartition]) -> Result<Result<Cut, String>, LogError> {
    let committed = job.log.admin().committed(&job.application_id, inputs, ASK_TIMEOUT)?;
    let task = marker.task;
    let mut cut = Cut::new();
    for (input, committed) in inputs.iter().zip(committed) {
        let Some(committed) = committed else {
            return Ok(Err(format!("task {task} has no committed offset of {input}")));
        };
        let is_at = |pointer: Pointer| (pointer.lineage, pointer.epoch) == (marker.lineage, marker.epoch);
        let stands = Pointer::from_metadata(&committed.metadata).is_ok_and(is_at);
        if !stands {
            let reason = format!(
                "task {task} has gone on from epoch {} before all tasks were frozen",
                marker.epoch
            );
            return Ok(Err(reason));
        }
        cut.insert(input.clone(), committed.offset);
    }
    Ok(Ok(cut))
}
