//! Taking tasks, opening them, and giving them up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tracing::info;

use crate::durability::Beginning;
use crate::ids::TaskId;
use crate::operators::Scope;
use crate::planted::{Bug, planted};
use crate::state::{MemoryBackend, StateBackend, TaskState};
use crate::task::{Input, Task, TaskParts};

use super::command::Command;
use super::copying::Copying;
use super::error::WorkerError;
use super::held::{CancelOnDrop, CountedAsChanging, Former, Hold, Running, Stage};
use super::opening::{NotOpened, OpenRequest, Opened};
use super::worker::{Ending, Worker, Writer};

/// Pause before a task whose opening failed for want of an answer is tried again.
const OPEN_RETRY: Duration = Duration::from_millis(100);

impl Worker {
    pub(super) fn serve(&mut self, command: Command) -> Result<(), WorkerError> {
        let now = self.clock.monotonic();
        match command {
            Command::Assign { tasks, group } => {
                self.captured = Some(group);
                for task in tasks {
                    self.metrics.tasks_opening.add(1);
                    let stage = Stage::Waiting {
                        from: now,
                        backend: None,
                        former: Former::default(),
                    };
                    let former = self.tasks.insert(task, stage);
                    debug_assert!(former.is_none(), "task {task} was assigned twice");
                }
                Ok(())
            }
            Command::Revoke {
                tasks,
                group,
                within,
                done,
            } => {
                self.captured = Some(group);
                if planted(Bug::CloseMidEpoch) {
                    self.close(&tasks)?;
                    let _ = done.send(());
                    return Ok(());
                }
                let deadline = now + within;
                self.ending = Some(Ending::Revoke { tasks, deadline, done });
                Ok(())
            }
            Command::Lose { tasks, group, done } => {
                self.captured = Some(group);
                if !planted(Bug::LoseWithoutRollBack)
                    && tasks
                        .iter()
                        .any(|task| self.tasks.get(task).is_some_and(|stage| stage.running().is_some()))
                {
                    self.roll_back("tasks were lost to another member", true)?;
                }
                self.close(&tasks)?;
                let _ = done.send(()); // Nobody waits any more if the instance is gone.
                Ok(())
            }
            Command::Served { .. } if planted(Bug::StaleGeneration) => Ok(()),
            Command::Served { group } => {
                self.captured = Some(group);
                Ok(())
            }
            Command::Stop { within } => {
                self.ending = Some(Ending::Stop { deadline: now + within });
                Ok(())
            }
        }
    }

    /// Closes tasks whose epochs have ended.
    pub(super) fn close(&mut self, tasks: &[TaskId]) -> Result<(), WorkerError> {
        let mut was_running = false;
        for task in tasks {
            match self.tasks.remove(task) {
                Some(Stage::Running(_)) => {
                    was_running = true;
                    self.metrics.tasks_running.add(-1);
                }
                Some(_) => self.metrics.tasks_opening.add(-1),
                None => continue,
            }
            self.work.forget(*task);
            info!(%task, worker = %self.settings.name, "task closed");
        }
        if was_running { self.assign_inputs() } else { Ok(()) }
    }

    /// Asks for every waiting task to be opened, once the producer is initialised (invariant I7).
    pub(super) fn open_waiting(&mut self) -> Result<(), WorkerError> {
        if !matches!(self.writer, Writer::Ready(_)) || self.ending.is_some() {
            return Ok(());
        }
        let now = self.clock.monotonic();
        for (id, stage) in &mut self.tasks {
            let Stage::Waiting { from, backend, former } = stage else {
                continue;
            };
            if now < *from {
                continue;
            }
            let cancelled = Arc::new(AtomicBool::new(false));
            self.tickets += 1;
            let sub = &self.topology.plan().sub_topologies[id.sub_topology as usize];
            let request = OpenRequest {
                task: *id,
                application_id: self.settings.application_id.clone(),
                plan: self.plan.clone(),
                inputs: self
                    .topics
                    .inputs(*id)
                    .into_iter()
                    .map(|(_, partition)| partition)
                    .collect(),
                stores: sub.stores.clone(),
                durability: self.settings.durability[usize::from(id.sub_topology)],
                backend: backend.take(),
                begun_at: former.begun_at.clone(),
                new_lineage: (self.new_lineage)(),
                restore_timeout: self.settings.restore_timeout,
                allow_empty_state: self.settings.allow_empty_state,
                cancelled: Arc::clone(&cancelled),
            };
            self.background.open(request, self.tickets);
            *stage = Stage::Opening {
                ticket: self.tickets,
                former: std::mem::take(former),
                _cancelled: CancelOnDrop(cancelled),
            };
        }
        Ok(())
    }

    pub(super) fn take_opened(
        &mut self,
        id: TaskId,
        ticket: u64,
        result: Result<Opened, NotOpened>,
    ) -> Result<(), WorkerError> {
        let mut former = match self.tasks.get_mut(&id) {
            Some(Stage::Opening {
                ticket: ours, former, ..
            }) if *ours == ticket => std::mem::take(former),
            _ => return Ok(()), // The task was given up, or is being opened anew.
        };
        match result {
            Ok(opened) => {
                let running = match self.run(opened, former.copying.take()) {
                    // Reading its clocks needs a file that is not here yet.
                    Err(WorkerError::State(error)) if error.is_about_lacking_files() => {
                        self.note_trouble("open", &error);
                        return self.open_later(id, former);
                    }
                    running => running?,
                };
                self.tasks.insert(id, Stage::Running(Box::new(running)));
                self.metrics.tasks_opening.add(-1);
                self.metrics.tasks_running.add(1);
                self.assign_inputs()
            }
            Err(error @ (NotOpened::Retry(_) | NotOpened::Held(_) | NotOpened::Waits(_) | NotOpened::Outdated)) => {
                match &error {
                    NotOpened::Waits(error) => self.note_trouble("snapshots", error),
                    NotOpened::Held(error) => self.note_trouble("open", error),
                    NotOpened::Retry(error) => self.note_trouble("open", error),
                    _ => {}
                }
                self.open_later(id, former)
            }
            Err(NotOpened::Cancelled) => Ok(()),
            Err(NotOpened::Refused(error)) => Err(error),
        }
    }

    fn open_later(&mut self, id: TaskId, former: Former) -> Result<(), WorkerError> {
        let from = self.clock.monotonic() + OPEN_RETRY;
        let waiting = Stage::Waiting {
            from,
            backend: None,
            former,
        };
        self.tasks.insert(id, waiting);
        Ok(())
    }

    fn run(&mut self, opened: Opened, copied: Option<Copying>) -> Result<Running, WorkerError> {
        let id = opened.task;
        let transition = opened.transition;
        if opened.changelog.len() > self.topics.changelogs(id.sub_topology).len() {
            return Err(WorkerError::StrategyChanged {
                task: id,
                committed: transition.from.word(),
                ours: transition.to.word(),
                reason: "the topics of the former were made after this instance began; start it again",
            });
        }
        let opened_at = Beginning {
            epoch: opened.epoch,
            offsets: opened.changelog.clone(),
        };
        let changing = transition
            .is_under_way()
            .then(|| CountedAsChanging::begin(&self.metrics));
        if changing.is_some() && copied.is_some() {
            self.metrics.strategy_changes_anew.add(1);
        }
        let copying = transition.copies_rows().then(|| match copied {
            Some(copied) => copied.resumed(),
            None => Copying::begin(opened_at.clone()),
        });
        let plan = self.topology.plan();
        let sub = &plan.sub_topologies[id.sub_topology as usize];
        let ordered: Vec<bool> = sub.stores.iter().map(|store| store.ordered).collect();
        let stores: Arc<dyn StateBackend> = match &opened.backend {
            Some(backend) => Arc::clone(backend),
            None => Arc::new(MemoryBackend::new(0)),
        };
        let cache_bytes = if sub.stores.is_empty() {
            0
        } else {
            self.settings.cache_bytes_per_task
        };
        let state = TaskState::new(stores, &ordered, cache_bytes);
        let clocks = self.topology.program(id.sub_topology).clocks();
        let mut scope = Scope::new(state, id.partition, plan.nodes.len(), clocks);
        scope.on_error.clone_from(&self.settings.on_error);
        let sinks = self.topics.sinks(id.sub_topology);
        scope.sink_partitions = sinks
            .iter()
            .map(|topic| self.out_partitions[topic.0 as usize])
            .collect();
        scope.dead_letter_sink = self
            .settings
            .dead_letter_topic
            .as_ref()
            .map(|_| (sinks.len() - 1) as u16);
        scope.source_names = self.topics.sources(id.sub_topology).to_vec();
        let inputs = self.topics.inputs(id).into_iter().zip(&opened.cut);
        let inputs = inputs
            .map(|((source, partition), offset)| Input::new(source, partition, *offset))
            .collect();
        let task = Task::new(TaskParts {
            id,
            topology: Arc::clone(&self.topology),
            scope,
            inputs,
            lineage: opened.lineage,
            epoch: opened.epoch,
        })?;
        let lazy = opened
            .backend
            .as_ref()
            .and_then(|backend| self.fetch_lacking(id, backend));
        Ok(Running {
            task,
            lazy,
            backend: opened.backend,
            begun_at: opened.cut,
            confirmed: opened.epoch,
            opened_at,
            changelog: opened.changelog,
            transition,
            changing,
            has_new_base: false,
            copying,
            since: opened.since,
            chain: opened.chain,
            spill: opened.spill.filter(|_| self.topics.spill(id.sub_topology).is_some()),
            hashes: opened.hashes,
            based_at: self.clock.monotonic(),
            base_not_before: Duration::ZERO,
            base_began: self.moment(),
            basing: None,
            trim: BTreeMap::new(),
            outdated: None,
            sent: 0,
            unapplied: 0,
            sealed_at: self.clock.monotonic(),
            idle_since: None,
            hold: Hold::default(),
        })
    }
}
