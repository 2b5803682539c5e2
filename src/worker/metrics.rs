//! What workers count.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::ids::TaskId;
use crate::invariants::Violation;
use crate::metrics::{Counter, Gauge, Histogram, Sample, Source, Value};
use crate::operators::NodeCounts;

use super::error::WorkerError;

/// How far the restore of one task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreProgress {
    /// The task.
    pub task: TaskId,
    /// Offsets or bytes passed so far.
    pub passed: u64,
    /// Offsets or bytes to pass.
    pub target: u64,
    /// What is counted.
    pub unit: RestoreUnit,
    /// Offsets or bytes per second, on average since it began.
    pub per_second: u64,
    /// Seconds that it will take at this rate; `None` while nothing can be said.
    pub left_seconds: Option<u64>,
}

/// What the progress of a restore is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreUnit {
    /// Offsets of changelogs.
    Offsets,
    /// Bytes of a base snapshot.
    Bytes,
}

impl RestoreUnit {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            RestoreUnit::Offsets => "offsets",
            RestoreUnit::Bytes => "bytes",
        }
    }
}

/// Counters of all workers of an instance.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    /// Input records processed.
    pub records_processed: Counter,
    /// Input records whose epoch has committed.
    pub records_committed: Counter,
    /// Output records handed to the producer.
    pub records_sent: Counter,
    /// Epochs committed.
    pub commits: Counter,
    /// Time from the barrier to the confirmed commit.
    pub commit_latency: Histogram,
    /// Epochs aborted and redone.
    pub aborts: Counter,
    /// Producers that were fenced.
    pub fenced: Counter,
    /// Producers given up after a time-out, whose last commit had to be read back.
    pub unknown_commits: Counter,
    /// Outputs that were processed behind a commit that failed.
    pub parked_dropped: Counter,
    /// Records read back from changelogs.
    pub restore_records: Counter,
    /// Restores by what was found on disk: fresh, current, replay, rebuild.
    pub opened_fresh: Counter,
    /// Tasks whose disk was at the committed epoch.
    pub opened_current: Counter,
    /// Tasks whose disk was behind and was brought up.
    pub opened_replayed: Counter,
    /// Tasks whose disk could not be used.
    pub opened_rebuilt: Counter,
    /// Tasks that run.
    pub tasks_running: Gauge,
    /// Tasks that are being opened.
    pub tasks_opening: Gauge,
    /// Bytes in active overlays.
    pub overlay_bytes: Gauge,
    /// Bytes of outputs parked behind running commits.
    pub parked_bytes: Gauge,
    /// Records fetched and not yet processed.
    pub buffered_records: Gauge,
    /// Sealed epochs committed and not yet applied.
    pub apply_backlog: Gauge,
    /// Time that applying an epoch to the local database took.
    pub apply_latency: Histogram,
    /// Bytes read back from the snapshot repository.
    pub restored_bytes: Counter,
    /// Reads that waited for a file of a lazy restore, and how long.
    pub lazy_read_waits: Histogram,
    /// Tasks that run and lack files.
    pub tasks_lacking_files: Gauge,
    /// Tasks whose strategy changes.
    pub tasks_changing: Gauge,
    /// Changes that a task which was rolled back went on with.
    pub strategy_changes_anew: Counter,
    /// Tasks whose strategy has changed.
    pub strategy_changes: Counter,
    /// Packs of increments stored.
    pub packs_stored: Counter,
    /// Bytes of them.
    pub pack_bytes: Counter,
    /// Time from a seal until the increments are stored and were read back.
    pub persist_latency: Histogram,
    /// Epochs whose increments went to a spill topic.
    pub spilled_epochs: Counter,
    /// Bytes of them.
    pub spilled_bytes: Counter,
    /// Spilled increments that restores have read.
    pub restored_spilled: Counter,
    /// Base snapshots made.
    pub snapshots: Counter,
    /// Bytes uploaded for them; files that were stored already are not counted.
    pub snapshot_bytes: Counter,
    /// Attempts to make one that came to nothing.
    pub snapshots_failed: Counter,
    /// Parts of savepoints stored.
    pub savepoint_parts: Counter,
    /// Bytes of them.
    pub savepoint_bytes: Counter,
    /// Savepoints that this instance gave up.
    pub savepoints_failed: Counter,
    /// Time for which a worker's tasks stood still for a savepoint.
    pub savepoint_held: Histogram,
    /// Objects deleted that nobody refers to any more.
    pub objects_collected: Counter,
    /// Workers that cannot commit, or make no snapshots, for want of the object store.
    pub degraded: Gauge,
    /// Turns in which the producer's queue was full.
    pub queue_full: Counter,
    /// Times that the instance's static identity was taken from it.
    pub members_fenced: Counter,
    /// Rebalances that were forced because partitions belonged to no member.
    pub rebalances_forced: Counter,
    /// Invariants found violated; must stay 0.
    pub invariant_violations: Counter,
    nodes: Mutex<BTreeMap<String, NodeCounts>>,
    restores: Mutex<BTreeMap<TaskId, RestoreProgress>>,
}

impl WorkerMetrics {
    /// Counts a broken promise of the engine, and stops the instance for it. `who` is about to act on it.
    pub(super) fn hold(&self, who: &str, check: Result<(), Violation>) -> Result<(), WorkerError> {
        check.map_err(|violation| {
            self.invariant_violations.add(1);
            let worker = who.to_owned();
            WorkerError::Invariant { worker, violation }
        })
    }

    /// Adds what a node has counted.
    pub fn add_node_counts(&self, node: &str, counts: NodeCounts) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = nodes.entry(node.to_owned()).or_default();
        sum.late += counts.late;
        sum.dropped += counts.dropped;
        sum.skipped += counts.skipped;
        sum.dead_lettered += counts.dead_lettered;
    }

    /// What each node has counted since the start.
    pub fn node_counts(&self) -> BTreeMap<String, NodeCounts> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes how far a restore is; `None` when it has ended.
    pub fn set_restore(&self, task: TaskId, progress: Option<RestoreProgress>) {
        let mut restores = self.restores.lock().unwrap_or_else(PoisonError::into_inner);
        match progress {
            Some(progress) => restores.insert(task, progress),
            None => restores.remove(&task),
        };
    }

    /// The restores that run now.
    pub fn restores(&self) -> Vec<RestoreProgress> {
        let restores = self.restores.lock().unwrap_or_else(PoisonError::into_inner);
        restores.values().copied().collect()
    }
}

impl Source for WorkerMetrics {
    fn samples(&self, out: &mut Vec<Sample>) {
        let mut add = |name, help, value| {
            out.push(Sample {
                name,
                help,
                labels: Vec::new(),
                value,
            });
        };
        let counter = |counter: &Counter| Value::Counter(counter.get());
        let gauge = |gauge: &Gauge| Value::Gauge(gauge.get() as f64);
        let histogram = |histogram: &Histogram| {
            let (buckets, count, sum) = histogram.snapshot();
            Value::Histogram(buckets, count, sum)
        };
        add(
            "tidegate_records_processed_total",
            "Input records processed.",
            counter(&self.records_processed),
        );
        add(
            "tidegate_records_committed_total",
            "Input records whose epoch has committed.",
            counter(&self.records_committed),
        );
        add(
            "tidegate_records_sent_total",
            "Output records handed to the producer.",
            counter(&self.records_sent),
        );
        add("tidegate_commits_total", "Epochs committed.", counter(&self.commits));
        add(
            "tidegate_commit_latency_seconds",
            "Time from a barrier to its confirmed commit.",
            histogram(&self.commit_latency),
        );
        add(
            "tidegate_aborts_total",
            "Epochs aborted and redone from the committed cut.",
            counter(&self.aborts),
        );
        add(
            "tidegate_producers_fenced_total",
            "Producers fenced by a successor or by the broker's transaction time-out.",
            counter(&self.fenced),
        );
        add(
            "tidegate_commits_unknown_total",
            "Commits that timed out and whose outcome was read back.",
            counter(&self.unknown_commits),
        );
        add(
            "tidegate_parked_outputs_dropped_total",
            "Outputs dropped because they were processed behind a commit that failed; they are made again.",
            counter(&self.parked_dropped),
        );
        add(
            "tidegate_restore_records_total",
            "Records read back from changelog topics.",
            counter(&self.restore_records),
        );
        self.snapshot_samples(&mut add);
        add(
            "tidegate_tasks_running",
            "Tasks that process records.",
            gauge(&self.tasks_running),
        );
        add(
            "tidegate_tasks_opening",
            "Tasks that are being opened or restored.",
            gauge(&self.tasks_opening),
        );
        add(
            "tidegate_overlay_bytes",
            "Bytes written by open epochs and not yet sealed.",
            gauge(&self.overlay_bytes),
        );
        add(
            "tidegate_parked_output_bytes",
            "Bytes of outputs that wait for a running commit.",
            gauge(&self.parked_bytes),
        );
        add(
            "tidegate_buffered_records",
            "Records fetched and not yet processed.",
            gauge(&self.buffered_records),
        );
        add(
            "tidegate_apply_backlog_epochs",
            "Committed epochs that wait to be applied to the local database.",
            gauge(&self.apply_backlog),
        );
        add(
            "tidegate_apply_latency_seconds",
            "Time to apply one epoch of one task to the local database.",
            histogram(&self.apply_latency),
        );
        add(
            "tidegate_producer_queue_full_total",
            "Turns in which the producer's queue was full.",
            counter(&self.queue_full),
        );
        add(
            "tidegate_members_fenced_total",
            "Times that this instance's static identity was taken from it.",
            counter(&self.members_fenced),
        );
        add(
            "tidegate_rebalances_forced_total",
            "Rebalances forced because partitions belonged to no member.",
            counter(&self.rebalances_forced),
        );
        add(
            "tidegate_invariant_violations_total",
            "Invariants found violated; must stay 0.",
            counter(&self.invariant_violations),
        );
        self.labelled_samples(out);
    }
}

impl WorkerMetrics {
    fn snapshot_samples(&self, add: &mut impl FnMut(&'static str, &'static str, Value)) {
        let counters = [
            (
                "tidegate_restored_bytes_total",
                "Bytes read back from the snapshot repository.",
                &self.restored_bytes,
            ),
            (
                "tidegate_packs_stored_total",
                "Packs of increments stored.",
                &self.packs_stored,
            ),
            (
                "tidegate_pack_bytes_total",
                "Bytes of the packs of increments stored.",
                &self.pack_bytes,
            ),
            (
                "tidegate_spilled_epochs_total",
                "Epochs whose increments went to a spill topic, since the object store was away.",
                &self.spilled_epochs,
            ),
            (
                "tidegate_spilled_bytes_total",
                "Bytes of the increments that went to a spill topic.",
                &self.spilled_bytes,
            ),
            (
                "tidegate_restored_spilled_total",
                "Spilled increments that restores have read.",
                &self.restored_spilled,
            ),
            ("tidegate_snapshots_total", "Base snapshots made.", &self.snapshots),
            (
                "tidegate_snapshot_uploaded_bytes_total",
                "Bytes uploaded for base snapshots, without files that were stored already.",
                &self.snapshot_bytes,
            ),
            (
                "tidegate_snapshots_failed_total",
                "Attempts to make a base snapshot that came to nothing.",
                &self.snapshots_failed,
            ),
            (
                "tidegate_savepoint_parts_total",
                "Parts of savepoints stored, one per task.",
                &self.savepoint_parts,
            ),
            (
                "tidegate_savepoint_bytes_total",
                "Bytes of the parts of savepoints stored.",
                &self.savepoint_bytes,
            ),
            (
                "tidegate_savepoints_failed_total",
                "Savepoints that this instance gave up.",
                &self.savepoints_failed,
            ),
            (
                "tidegate_objects_collected_total",
                "Objects deleted from the snapshot repository, since nobody refers to them any more.",
                &self.objects_collected,
            ),
        ];
        for (name, help, counter) in counters {
            add(name, help, Value::Counter(counter.get()));
        }
        let (buckets, count, sum) = self.persist_latency.snapshot();
        add(
            "tidegate_persist_latency_seconds",
            "Time from a seal until the increments are in the object store and were read back.",
            Value::Histogram(buckets, count, sum),
        );
        let (buckets, count, sum) = self.savepoint_held.snapshot();
        add(
            "tidegate_savepoint_held_seconds",
            "Time for which the tasks of a worker stood still for a savepoint.",
            Value::Histogram(buckets, count, sum),
        );
        let (buckets, count, sum) = self.lazy_read_waits.snapshot();
        add(
            "tidegate_lazy_read_wait_seconds",
            "Time that reads waited for files of a lazy restore.",
            Value::Histogram(buckets, count, sum),
        );
        add(
            "tidegate_tasks_lacking_files",
            "Tasks that run while files of their state are still coming.",
            Value::Gauge(self.tasks_lacking_files.get() as f64),
        );
        add(
            "tidegate_tasks_changing_durability",
            "Tasks whose durability strategy changes: both are written.",
            Value::Gauge(self.tasks_changing.get() as f64),
        );
        add(
            "tidegate_durability_changes_total",
            "Tasks whose durability strategy has changed.",
            Value::Counter(self.strategy_changes.get()),
        );
        add(
            "tidegate_degraded",
            "Workers that cannot commit, or make no snapshots, for want of the object store.",
            Value::Gauge(self.degraded.get() as f64),
        );
    }

    fn labelled_samples(&self, out: &mut Vec<Sample>) {
        let opened = [
            ("fresh", &self.opened_fresh),
            ("current", &self.opened_current),
            ("replay", &self.opened_replayed),
            ("rebuild", &self.opened_rebuilt),
        ];
        for (found, counter) in opened {
            out.push(Sample {
                name: "tidegate_tasks_opened_total",
                help: "Tasks opened, by what was found on the local disk.",
                labels: vec![("found", found.to_owned())],
                value: Value::Counter(counter.get()),
            });
        }
        for (node, counts) in self.node_counts() {
            let mut add = |name, help, count| {
                out.push(Sample {
                    name,
                    help,
                    labels: vec![("node", node.clone())],
                    value: Value::Counter(count),
                });
            };
            add(
                "tidegate_records_late_total",
                "Records dropped because their window had closed.",
                counts.late,
            );
            add(
                "tidegate_records_dropped_total",
                "Records dropped for a null key or value or a negative timestamp.",
                counts.dropped,
            );
            add(
                "tidegate_records_skipped_total",
                "Bad records skipped by policy.",
                counts.skipped,
            );
            add(
                "tidegate_records_dead_lettered_total",
                "Bad records written to the dead-letter topic.",
                counts.dead_lettered,
            );
        }
        self.restores().iter().for_each(|restore| restore.samples(out));
    }
}

impl RestoreProgress {
    fn samples(&self, out: &mut Vec<Sample>) {
        let (remaining, remaining_help, rate, rate_help) = match self.unit {
            RestoreUnit::Offsets => (
                "tidegate_restore_remaining_offsets",
                "Offsets that the restore of a task still has to pass.",
                "tidegate_restore_offsets_per_second",
                "Offsets per second that the restore of a task has passed.",
            ),
            RestoreUnit::Bytes => (
                "tidegate_restore_remaining_bytes",
                "Bytes that the restore of a task from a snapshot still has to fetch.",
                "tidegate_restore_bytes_per_second",
                "Bytes per second that the restore of a task has fetched.",
            ),
        };
        let left = self.target.saturating_sub(self.passed);
        let mut add = |name, help, value: u64| {
            out.push(Sample {
                name,
                help,
                labels: vec![("task", self.task.to_string())],
                value: Value::Gauge(value as f64),
            });
        };
        add(remaining, remaining_help, left);
        add(rate, rate_help, self.per_second);
        if let Some(seconds) = self.left_seconds {
            add(
                "tidegate_restore_remaining_seconds",
                "Time that the restore of a task will take at the rate it has had.",
                seconds,
            );
        }
    }
}
