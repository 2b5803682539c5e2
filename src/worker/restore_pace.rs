//! How far a restore is, how fast it goes and how long it will take: for the log, metrics and the terminal.

use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use crate::ids::TaskId;

use super::metrics::{RestoreProgress, RestoreUnit, WorkerMetrics};

/// How often the log says how far a restore is.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Follows one restore; when it is dropped there is nothing to be shown any more.
pub(super) struct RestorePace {
    task: TaskId,
    unit: RestoreUnit,
    metrics: Arc<WorkerMetrics>,
    began: Duration,
    /// What was there when it began.
    passed_at_first: Option<u64>,
    logged_at: Duration,
}

impl RestorePace {
    pub(super) fn begin(task: TaskId, unit: RestoreUnit, metrics: &Arc<WorkerMetrics>, now: Duration) -> Self {
        Self {
            task,
            unit,
            metrics: Arc::clone(metrics),
            began: now,
            passed_at_first: None,
            logged_at: now,
        }
    }

    /// So much of all is there at this moment.
    pub(super) fn report(&mut self, now: Duration, passed: u64, target: u64) {
        let at_first = *self.passed_at_first.get_or_insert(passed);
        let seconds = now.saturating_sub(self.began).as_secs_f64();
        let done = passed.saturating_sub(at_first) as f64;
        let per_second = if seconds > 0.0 { (done / seconds) as u64 } else { 0 };
        let left = target.saturating_sub(passed);
        let progress = RestoreProgress {
            task: self.task,
            passed,
            target,
            unit: self.unit,
            per_second,
            left_seconds: left.checked_div(per_second),
        };
        self.metrics.set_restore(self.task, Some(progress));
        if now.saturating_sub(self.logged_at) >= LOG_INTERVAL {
            self.logged_at = now;
            info!(task = %self.task, passed, target, unit = self.unit.word(), per_second, left_seconds = progress.left_seconds, "restoring");
        }
    }
}

impl Drop for RestorePace {
    fn drop(&mut self) {
        self.metrics.set_restore(self.task, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_time_left_are_those_of_what_was_fetched() {
        let metrics = Arc::new(WorkerMetrics::default());
        let task: TaskId = "0_3".parse().expect("a task");
        let mut pace = RestorePace::begin(task, RestoreUnit::Bytes, &metrics, Duration::from_secs(100));
        pace.report(Duration::from_secs(100), 500, 10_500);
        let shown = |metrics: &WorkerMetrics| metrics.restores().first().map(|it| (it.per_second, it.left_seconds));
        assert_eq!(shown(&metrics), Some((0, None)), "nothing can be said yet");
        pace.report(Duration::from_secs(104), 2_500, 10_500);
        assert_eq!(shown(&metrics), Some((500, Some(16))));
        drop(pace);
        assert_eq!(shown(&metrics), None);
    }
}
