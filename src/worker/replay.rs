//! Replaying the changelogs of one task (invariant I8), step by step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::info;

use crate::durability::Decision;
use crate::ids::{Epoch, StoreId, TaskId, TopicPartition};
use crate::invariants;
use crate::log::{Assignment, Consumer, Isolation, LogError, RecordBatch};
use crate::planted::{Bug, planted};
use crate::state::{Overlay, StateMeta};
use crate::time::Millis;

use super::error::WorkerError;
use super::metrics::RestoreUnit;
use super::opener::{Opener, changelog_partitions};
use super::opening::{Begun, Found, NotOpened, Opened, Stage};
use super::restore_pace::RestorePace;

const BATCH_RECORDS: usize = 10_000;
/// Longest wait for records in one step.
const WAIT: Duration = Duration::from_millis(20);
/// Between two looks more time than this passes only where the process itself stood still, which is nobody's fault.
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// One replay.
pub struct Replay {
    opener: Arc<Opener>,
    task: TaskId,
    /// `None` once the outcome is out.
    found: Option<Found>,
    consumer: Box<dyn Consumer>,
    assignments: Vec<Assignment>,
    /// Per store, the end of its changelog when the replay began.
    targets: Vec<i64>,
    partitions: Vec<TopicPartition>,
    /// What the disk says about itself until the replay has ended.
    meta: StateMeta,
    pace: RestorePace,
    restored: u64,
    last_passed: i64,
    looked_at: Duration,
    /// Time without progress.
    waited: Duration,
}

impl Replay {
    pub(super) fn begin(
        opener: Arc<Opener>,
        found: Found,
        assignments: Vec<Assignment>,
        targets: Vec<i64>,
    ) -> Result<Self, NotOpened> {
        let name = format!("restore-{}", found.request.task);
        let isolation = match planted(Bug::RestoreUncommitted) {
            true => Isolation::ReadUncommitted,
            false => Isolation::ReadCommitted,
        };
        let mut consumer = opener.log.consumer(&name, isolation)?;
        consumer.assign(&assignments)?;
        Ok(Self {
            task: found.request.task,
            meta: interim_meta(&found, opener.clock.wall_ms()),
            partitions: changelog_partitions(&found.request, found.transition),
            looked_at: opener.clock.monotonic(),
            waited: Duration::ZERO,
            pace: RestorePace::begin(
                found.request.task,
                RestoreUnit::Offsets,
                &opener.metrics,
                opener.clock.monotonic(),
            ),
            opener,
            found: Some(found),
            consumer,
            assignments,
            targets,
            restored: 0,
            last_passed: -1,
        })
    }

    /// Everything up to the targets is there; but is it the state of the committed cut? Whoever took the task over meanwhile
    /// has committed more, and some of that was read. Then nobody may compute on it.
    fn end(&mut self, found: Found) -> Result<Opened, NotOpened> {
        let committed = self.opener.committed(&found.request)?;
        if committed.pointer != found.pointer && !planted(Bug::RestoreBeyondCut) {
            return Err(NotOpened::Outdated);
        }
        for assigned in &self.assignments {
            let (position, target) = (self.position(assigned), self.targets[assigned.slot as usize]);
            let check = invariants::restore_is_complete(position, target);
            self.opener.metrics.hold(&format!("restore of {}", self.task), check)?;
            self.targets[assigned.slot as usize] = position;
        }
        info!(task = %self.task, records = self.restored, offsets = self.last_passed, "changelogs replayed");
        self.opener.finish(found, std::mem::take(&mut self.targets))
    }

    /// Whether everything is there.
    fn read(&mut self, found: &Found) -> Result<bool, NotOpened> {
        if found.request.cancelled.load(Ordering::Relaxed) {
            return Err(NotOpened::Cancelled);
        }
        match self.consumer.poll(BATCH_RECORDS, WAIT) {
            Ok(Some(batch)) => self.apply(found, &*batch)?,
            Ok(None) | Err(LogError::Unreachable { .. }) => {}
            // Whoever took the task over meanwhile has trimmed behind its own snapshots.
            Err(LogError::OffsetOutOfRange { .. })
                if self.opener.committed(&found.request)?.pointer != found.pointer && !planted(Bug::TrimmedIsGone) =>
            {
                return Err(NotOpened::Outdated);
            }
            Err(error) => return Err(error.into()),
        }
        let passed = self
            .assignments
            .iter()
            .map(|assigned| self.position(assigned) - assigned.offset);
        let passed = passed.sum::<i64>();
        let now = self.opener.clock.monotonic();
        let longest = if planted(Bug::SleepIsStall) {
            Duration::MAX
        } else {
            LONGEST_LOOK
        };
        self.waited += now.saturating_sub(self.looked_at).min(longest);
        self.looked_at = now;
        if passed != self.last_passed {
            self.last_passed = passed;
            self.waited = Duration::ZERO;
            self.report(passed);
        }
        match self.assignments.iter().find(|assigned| !self.is_there(assigned)) {
            None => Ok(true),
            Some(behind) => self.check_progress(found, behind).map(|()| false),
        }
    }

    fn position(&self, assigned: &Assignment) -> i64 {
        self.consumer.position(assigned.slot).unwrap_or(assigned.offset)
    }

    fn is_there(&self, assigned: &Assignment) -> bool {
        let mut target = self.targets[assigned.slot as usize];
        if planted(Bug::RestoreToStableOffset) {
            target = self.consumer.end_offset(assigned.slot).unwrap_or(target);
        }
        self.position(assigned) >= target
    }

    fn report(&mut self, passed: i64) {
        let assigned = self.assignments.iter();
        let total = assigned.map(|assigned| self.targets[assigned.slot as usize] - assigned.offset);
        let total = u64::try_from(total.sum::<i64>()).unwrap_or(0);
        self.pace
            .report(self.looked_at, u64::try_from(passed).unwrap_or(0), total);
    }

    fn check_progress(&self, found: &Found, behind: &Assignment) -> Result<(), NotOpened> {
        if self.waited < found.request.restore_timeout {
            return Ok(());
        }
        Err(NotOpened::Refused(WorkerError::RestoreStalled {
            task: self.task,
            partition: behind.partition.clone(),
            position: self.position(behind),
            target: self.targets[behind.slot as usize],
            waited_ms: u64::try_from(self.waited.as_millis()).unwrap_or(u64::MAX),
            cause: "an open transaction of a former owner holds the last stable offset (it ends with its time-out), or the broker does not answer",
        }))
    }

    /// Applies one batch and moves the interim metadata with it.
    fn apply(&mut self, found: &Found, batch: &dyn RecordBatch) -> Result<(), NotOpened> {
        let request = &found.request;
        let mut overlay = Overlay::new(&vec![false; request.stores.len()]);
        let mut count = 0;
        for run in batch.runs() {
            let store = StoreId(run.slot as u16);
            for index in run.start..run.end {
                let record = batch.record(index);
                let Some(key) = record.key else { continue };
                match record.value {
                    Some(value) => overlay.put(store, key, value),
                    None => overlay.delete(store, key),
                }
                count += 1;
            }
            if run.end > run.start {
                let next = batch.record(run.end - 1).offset + 1;
                let partition = self.partitions[run.slot as usize].clone();
                self.meta.changelog.insert(partition, next);
            }
        }
        if count > 0 && found.pointer.is_none() && !request.allow_empty_state {
            // Whoever took the task over meanwhile has committed them, with its offsets.
            if self.opener.committed(request)?.pointer.is_some() && !planted(Bug::TakenOverIsLost) {
                return Err(NotOpened::Outdated);
            }
            let (task, found) = (self.task, "committed records in its changelog".to_owned());
            return Err(WorkerError::OffsetsGone { task, found }.into());
        }
        if let Some(backend) = &found.backend {
            backend.apply(&overlay, &self.meta)?;
        }
        self.restored += count;
        self.opener.metrics.restore_records.add(count);
        Ok(())
    }
}

impl Stage for Replay {
    /// Reads and applies some records.
    fn step(&mut self) -> Option<Result<Begun, NotOpened>> {
        let found = self.found.take()?;
        let outcome = match self.read(&found) {
            Ok(false) => {
                self.found = Some(found);
                return None;
            }
            Ok(true) => self.end(found),
            Err(error) => Err(error),
        };
        Some(outcome.map(Begun::opened))
    }
}

/// What the disk says about itself while a replay is under way: the epoch it had, so that an interrupted
/// replay is recognised and goes on.
fn interim_meta(found: &Found, now_ms: Millis) -> StateMeta {
    match (&found.decision, &found.local) {
        (Decision::Replay { .. }, Some(local)) => local.clone(),
        _ => StateMeta {
            lineage: found.lineage,
            epoch: Epoch(0),
            ended_ms: now_ms,
            cut: BTreeMap::new(),
            changelog: BTreeMap::new(),
        },
    }
}
