//! Intake: from the data consumer into the tasks' inputs.

use std::time::Duration;

use tracing::warn;

use crate::log::{Assignment, LogError};
use crate::planted::{Bug, planted};
use crate::task::InputProgress;

use super::error::WorkerError;
use super::held::Hold;
use super::worker::Worker;

/// Records fetched at once.
const BATCH_RECORDS: usize = 10_000;
/// How often trouble with the log is logged at most.
const TROUBLE_LOG_INTERVAL: Duration = Duration::from_secs(5);

impl Worker {
    /// Fetches what is there, unless enough waits already.
    pub(super) fn intake(&mut self, wait: Duration) -> Result<(), WorkerError> {
        if self.slots.is_empty() {
            if !wait.is_zero()
                && let Some(done) = self.background.wait(wait)
            {
                self.take_done(done)?;
            }
            return Ok(());
        }
        let mut ready = 0;
        for running in self.tasks.values().filter_map(|stage| stage.running()) {
            // What waits in a task that a savepoint holds keeps nobody else waiting.
            ready += if running.idle_since.is_none() && running.hold == Hold::Free {
                running.task.buffered()
            } else {
                0
            };
        }
        if ready < BATCH_RECORDS && !self.queue_full {
            self.poll_consumer(wait)?;
        }
        self.observe_progress();
        self.balance_inputs()
    }

    fn poll_consumer(&mut self, wait: Duration) -> Result<(), WorkerError> {
        match self.consumer.poll(BATCH_RECORDS, wait) {
            Ok(None) => Ok(()),
            Ok(Some(batch)) => {
                for run in batch.runs() {
                    let (task, input) = self.slots[run.slot as usize];
                    if let Some(running) = self.tasks.get_mut(&task).and_then(|stage| stage.running_mut()) {
                        running.task.enqueue(input, &batch, run.start, run.end);
                    }
                }
                Ok(())
            }
            Err(LogError::OffsetOutOfRange { partition, offset }) => {
                if planted(Bug::PurgedIsGone) {
                    let (task, _) = self.slots[0];
                    return Err(WorkerError::InputGone {
                        task,
                        partition,
                        offset,
                    });
                }
                // Whoever stood still while another had the task finds that what it would read next was worked off and
                // purged. If it is gone without that, opening the task says so.
                let reason = format!("offset {offset} of {partition} is gone");
                self.roll_back(&reason, false)
            }
            Err(error @ (LogError::Unreachable { .. } | LogError::TimedOut { .. })) => {
                self.note_trouble("fetch", &error);
                Ok(())
            }
            Err(error) => Err(WorkerError::Log(error)),
        }
    }

    /// Logs trouble that passes, at most once per interval and kind.
    pub(super) fn note_trouble(&mut self, kind: &'static str, error: &dyn std::error::Error) {
        let now = self.clock.monotonic();
        let quiet_until = self.log_trouble.get(kind).copied().unwrap_or_default();
        if now >= quiet_until {
            warn!(worker = %self.settings.name, %error, "trouble ({kind}); retrying");
            self.log_trouble.insert(kind, now + TROUBLE_LOG_INTERVAL);
        }
    }

    /// Tells tasks that choose between inputs how far each is fetched.
    pub(super) fn observe_progress(&mut self) {
        for (slot, (task, input)) in self.slots.iter().enumerate() {
            let Some(running) = self.tasks.get_mut(task).and_then(|stage| stage.running_mut()) else {
                continue;
            };
            let progress = InputProgress {
                position: self.consumer.position(slot as u32),
                end: self.consumer.end_offset(slot as u32),
            };
            running.task.observe(*input, progress);
        }
    }

    /// Pauses inputs that hold more than their share and resumes those that hold little.
    fn balance_inputs(&mut self) -> Result<(), WorkerError> {
        if self.slots.len() < 2 {
            return Ok(());
        }
        let share = (self.settings.buffered_max_records / self.slots.len()).max(BATCH_RECORDS);
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for (slot, (task, input)) in self.slots.iter().enumerate() {
            let Some(running) = self.tasks.get(task).and_then(|stage| stage.running()) else {
                continue;
            };
            let buffered = running.task.inputs()[*input].buffered();
            if buffered > share && !self.paused[slot] {
                pause.push(slot as u32);
            } else if buffered < share / 2 && self.paused[slot] {
                resume.push(slot as u32);
            }
        }
        for (slots, paused) in [(pause, true), (resume, false)] {
            if !slots.is_empty() {
                self.consumer.pause(&slots, paused).map_err(WorkerError::Log)?;
                slots.iter().for_each(|slot| self.paused[*slot as usize] = paused);
            }
        }
        Ok(())
    }

    /// Makes the consumer read exactly the inputs of the running tasks, each from behind what already waits.
    pub(super) fn assign_inputs(&mut self) -> Result<(), WorkerError> {
        self.slots.clear();
        let mut assignments = Vec::new();
        for (id, stage) in &self.tasks {
            let Some(running) = stage.running() else { continue };
            for (index, input) in running.task.inputs().iter().enumerate() {
                assignments.push(Assignment {
                    slot: self.slots.len() as u32,
                    partition: input.partition.clone(),
                    offset: input.fetch_offset,
                });
                self.slots.push((*id, index));
            }
        }
        self.paused = vec![false; self.slots.len()];
        self.consumer.assign(&assignments).map_err(WorkerError::Log)
    }
}
