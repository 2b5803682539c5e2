//! Where increments go while the object store is away: to a spill topic, in the transaction of their epoch (`snapshot.spill`).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tracing::{info, warn};

use crate::durability::snapshot::{IncrementRef, PackId, Place, SpillId, SpilledIncrement};
use crate::ids::TaskId;
use crate::planted::{Bug, planted};

use super::background::{Chore, Done, Lane};
use super::error::WorkerError;
use super::held::CancelOnDrop;
use super::snapshots::{PersistTask, Probe, Probed, SnapshotError, Spill, SpillJob, Spilled};
use super::worker::{Phase, Worker};

/// Time between two tries of a store that is away.
const PROBE_PAUSE: Duration = Duration::from_secs(1);
/// A store that comes and goes is tried ever less often, down to this.
const LONGEST_PROBE_PAUSE: Duration = Duration::from_secs(30);
/// A store that was there for so long is not one that comes and goes.
const STEADY: Duration = Duration::from_secs(60);

/// What a worker knows of an object store that it can do without for a while.
#[derive(Default)]
pub(super) struct Spilling {
    is_away: bool,
    /// Epochs spilled since the store went away.
    epochs: u64,
    /// The try that is under way.
    probe: Option<u64>,
    probe_at: Duration,
    pause: Duration,
    back_at: Option<Duration>,
}

impl Spilling {
    pub(super) fn is_away(&self) -> bool {
        self.is_away
    }

    /// The next try of a store that has gone away.
    fn go_away(&mut self, now: Duration) {
        let comes_and_goes = self.back_at.is_some_and(|back_at| now.saturating_sub(back_at) < STEADY);
        self.pause = match comes_and_goes {
            true => (self.pause * 2).min(LONGEST_PROBE_PAUSE),
            false => PROBE_PAUSE,
        };
        self.is_away = true;
        self.epochs = 0;
        self.probe_at = now + self.pause;
    }
}

struct SpillChore(u64, Spill);
struct ProbeChore(u64, Probe);

impl Chore for SpillChore {
    fn step(&mut self) -> Option<Done> {
        let (ticket, result) = (self.0, self.1.step()?);
        Some(Done::Spilled { ticket, result })
    }
}

impl Chore for ProbeChore {
    fn step(&mut self) -> Option<Done> {
        let (ticket, result) = (self.0, self.1.step()?);
        Some(Done::Probed { ticket, result })
    }
}

impl Worker {
    /// Whether increments may go to a spill topic: those of each task whose increments go to the object store.
    pub(super) fn may_spill(&self) -> bool {
        let is_set = self
            .repository
            .as_ref()
            .is_some_and(|repository| repository.settings.spill);
        let running = self.tasks.values().filter_map(|stage| stage.running());
        let mut packed = running.filter(|running| running.chain.is_some() && running.transition.has_packs());
        is_set && packed.all(|running| running.spill.is_some())
    }

    /// Has the increments of the epoch that is being committed packed for the spill topic.
    pub(super) fn spill(&mut self, tasks: Vec<PersistTask>) -> Phase {
        let Some(repository) = self.repository.clone() else {
            return Phase::Stored;
        };
        let cancelled = Arc::new(AtomicBool::new(false));
        let job = SpillJob {
            plan: self.plan.clone(),
            tasks,
            cancelled: Arc::clone(&cancelled),
        };
        let ticket = self.ticket();
        let spill = Spill::new(repository, job);
        self.background.run(Lane::Spill, Box::new(SpillChore(ticket, spill)));
        Phase::Storing {
            ticket,
            _cancelled: CancelOnDrop(cancelled),
        }
    }

    /// Turns to the spill topic where the store has had its time with an epoch.
    pub(super) fn spill_late_epoch(&mut self) {
        let (Some(committing), Some(repository)) = (&self.committing, &self.repository) else {
            return;
        };
        let is_storing = matches!(committing.phase, Phase::Storing { .. });
        let (began, patience) = (committing.began, repository.settings.spill_after);
        if is_storing && self.may_spill() && !self.work.spilling.is_away && self.age(began) >= patience {
            self.spill_instead("it has not taken an epoch in time (snapshot.spill_after)");
        }
    }

    /// The store does not take what is being committed: from now on increments go to the spill topic.
    pub(super) fn spill_instead(&mut self, reason: &str) {
        let now = self.clock.monotonic();
        warn!(worker = %self.settings.name, reason, "the object store is away; increments go to the spill topic until it is back");
        self.work.spilling.go_away(now);
        self.set_degraded(true);
        let Some(committing) = self.committing.take() else {
            return;
        };
        let tasks = self.persist_tasks(&committing.epochs);
        let phase = self.spill(tasks);
        self.committing = Some(super::worker::Committing { phase, ..committing });
    }

    pub(super) fn take_spilled(
        &mut self,
        ticket: u64,
        result: Result<Spilled, SnapshotError>,
    ) -> Result<(), WorkerError> {
        if !self.waits_for(ticket) {
            return Ok(());
        }
        let spilled = match result {
            Ok(spilled) => spilled,
            Err(source) => return self.not_stored(source),
        };
        self.metrics.spilled_epochs.add(1);
        self.work.spilling.epochs += 1;
        for (task, increment) in spilled {
            self.metrics.spilled_bytes.add(increment.bytes());
            self.note_spilled(task, increment);
        }
        if let Some(committing) = &mut self.committing {
            committing.phase = Phase::Stored;
        }
        Ok(())
    }

    /// The epoch of a task carries its own increment.
    fn note_spilled(&mut self, task: TaskId, spilled: SpilledIncrement) {
        let is_transactional = self.settings.transactional_id.is_some();
        let epochs = self.committing.iter_mut().flat_map(|committing| &mut committing.epochs);
        let epoch = epochs.into_iter().find(|epoch| epoch.end.task == task);
        let running = self.tasks.get_mut(&task).and_then(|stage| stage.running_mut());
        let (Some(epoch), Some(running)) = (epoch, running) else {
            return;
        };
        let (Some(chain), Some((partition, from))) = (&mut running.chain, &mut running.spill) else {
            return;
        };
        let increment = IncrementRef {
            epoch: epoch.end.epoch,
            place: Place::Spilled(SpillId {
                from: *from + if planted(Bug::SpillTooFar) { 2 } else { 0 },
                attempt: spilled.attempt(),
            }),
        };
        chain.push(increment.clone(), spilled.bytes());
        if let Some(basing) = &running.basing {
            basing.increments.push(increment);
        }
        // At or before the end of its records: each takes an offset, and so does what ends the transaction.
        *from += crate::log::BatchSource::len(&spilled) as i64 + i64::from(is_transactional);
        epoch.meta.changelog.insert(partition.clone(), *from);
        epoch.state.increment = chain.state_ref().increment.filter(|_| epoch.durability.has_packs());
        epoch.spilled = Some(spilled);
    }

    /// Tries a store that is away, now and then.
    pub(super) fn look_for_store(&mut self) {
        let now = self.clock.monotonic();
        let spilling = &self.work.spilling;
        if !spilling.is_away || spilling.probe.is_some() || now < spilling.probe_at {
            return;
        }
        let Some(repository) = self.repository.clone() else {
            return;
        };
        let pack = PackId {
            writer: self.writer_name(&repository),
            sequence: 0,
            attempt: repository.attempt(),
        };
        let ticket = self.ticket();
        self.work.spilling.probe = Some(ticket);
        let probe = Probe::new(repository, pack);
        self.background.run(Lane::Commit, Box::new(ProbeChore(ticket, probe)));
    }

    pub(super) fn take_probed(&mut self, ticket: u64, result: Probed) -> Result<(), WorkerError> {
        let spilling = &mut self.work.spilling;
        if spilling.probe != Some(ticket) {
            return Ok(());
        }
        spilling.probe = None;
        let now = self.clock.monotonic();
        let patience = self
            .repository
            .as_ref()
            .map(|repository| repository.settings.spill_after);
        match result {
            Ok(took) if patience.is_some_and(|patience| took <= patience) => {
                info!(worker = %self.settings.name, epochs = spilling.epochs, "the object store is back; increments go there again");
                spilling.is_away = false;
                spilling.back_at = Some(now);
                self.set_degraded(false);
                Ok(())
            }
            Err(source) if !source.is_passing() && !source.is_damage() => match self.tasks.keys().next() {
                Some(task) => Err(WorkerError::Snapshot { task: *task, source }),
                None => Ok(()),
            },
            _ => {
                spilling.probe_at = now + spilling.pause;
                Ok(())
            }
        }
    }
}
