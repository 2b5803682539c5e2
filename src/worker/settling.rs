//! What follows when a task has changed its strategy: its topics are kept as the new one wants them, once no task needs them otherwise.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::durability::{Durability, Pointer, changelog};
use crate::ids::{TaskId, TopicPartition};
use crate::log::{Log, LogResult};

use super::background::{Chore, Done, Lane};
use super::worker::Worker;

const TIMEOUT: Duration = Duration::from_secs(5);

/// The strategies that the last commits of tasks were made under; `None` for a task that has never committed. Each task comes with one of its inputs.
///
/// # Errors
/// As [`crate::log::Admin::committed`]. Offsets that Tidegate has not written count as none: whoever opens the task says so.
pub fn committed_strategies(
    log: &dyn Log,
    application_id: &str,
    tasks: &[(TaskId, TopicPartition)],
) -> LogResult<Vec<Option<Durability>>> {
    let inputs: Vec<TopicPartition> = tasks.iter().map(|(_, input)| input.clone()).collect();
    let committed = log.admin().committed(application_id, &inputs, TIMEOUT)?;
    let strategy = |metadata: &str| Pointer::from_metadata(metadata).ok().map(|pointer| pointer.durability);
    let strategies = committed.into_iter().map(|committed| strategy(&committed?.metadata));
    Ok(strategies.collect())
}

/// Looks whether all tasks are with `changelog`, and has their changelogs compacted then.
struct Compact {
    log: Arc<dyn Log>,
    application_id: String,
    tasks: Vec<(TaskId, TopicPartition)>,
    changelogs: Vec<Arc<str>>,
}

impl Compact {
    /// Whether they are compacted now.
    fn try_once(&self) -> LogResult<bool> {
        let strategies = committed_strategies(&*self.log, &self.application_id, &self.tasks)?;
        let is_there = |strategy: &Option<Durability>| *strategy == Some(Durability::Changelog);
        if !strategies.iter().all(is_there) {
            return Ok(false);
        }
        for topic in &self.changelogs {
            self.log
                .admin()
                .alter_topic(topic, &changelog::settings(Durability::Changelog), TIMEOUT)?;
        }
        Ok(true)
    }
}

impl Chore for Compact {
    fn step(&mut self) -> Option<Done> {
        match self.try_once() {
            Ok(true) => {
                info!(changelogs = ?self.changelogs, "compacted from now on: all tasks have changed to changelog")
            }
            Ok(false) => {}
            Err(error) => warn!(%error, "changelogs are not compacted yet; the next instance that starts sees to it"),
        }
        Some(Done::Settled)
    }
}

impl Worker {
    /// A commit has named the new strategy of a task.
    pub(super) fn strategy_changed(&mut self, task: TaskId, durability: Durability) {
        self.metrics.strategy_changes.add(1);
        if !durability.has_packs() {
            self.work.forget(task);
        }
        if durability == Durability::Changelog {
            let compact = Compact {
                log: Arc::clone(&self.log),
                application_id: self.settings.application_id.clone(),
                tasks: self.topics.tasks_with_input(task.sub_topology),
                changelogs: self.topics.changelog_names(task.sub_topology),
            };
            self.background.run(Lane::Idle, Box::new(compact));
        }
    }
}
