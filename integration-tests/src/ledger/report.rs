//! The figures of a run and its verdict.

use std::fmt;
use std::time::Duration;

use super::audit::Findings;
use super::epochs::Increments;
use super::faults::Outages;
use super::instance::Metrics;
use super::latency::PhaseLatency;
use super::observer::Seen;
use super::options::{Disk, Fault, Options, Signal};
use super::outages;
use super::scenario::{INVARIANT_VIOLATIONS, Start};
use super::witness::Processed;

/// Changelogs of the topology's stores, by the number of the sub-topology that writes them and by partition.
pub type Changelogs = Vec<Vec<Increments>>;

/// Everything that was found out.
#[derive(Debug)]
pub struct Report {
    /// What was asked for.
    pub options: Options,
    /// The seed that was used.
    pub seed: u64,
    /// Records that the generator wrote.
    pub inputs: u64,
    /// Input records that are not in the topic as the books say.
    pub input_differences: u64,
    /// Output records.
    pub seen: Seen,
    /// What is wrong with them.
    pub findings: Findings,
    /// How often records were processed.
    pub processed: Processed,
    /// All starts.
    pub starts: Vec<Start>,
    /// Sums of some metrics of all processes.
    pub metrics: Metrics,
    /// How much each start may have restored.
    pub restores: Restores,
    /// Number of changelog topics.
    pub changelogs: usize,
    /// How long inputs took until their effect was seen, by what was going on.
    pub latencies: Vec<PhaseLatency>,
    /// What the service did while the object store was away.
    pub outages: Vec<(&'static str, Outages)>,
    /// How long the run took.
    pub duration: Duration,
}

/// What the starts after a stop read back, judged by the epochs in the changelogs, or counted in increments of an epoch each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restores {
    /// Records restored by each start that opened tasks, in ascending order.
    pub by_start: Vec<u64>,
    /// Starts that were stopped before they had opened a task.
    pub too_short: u64,
    /// Tasks that were restored without a word in the log about how much was read.
    pub untold: u64,
    /// Base snapshots put onto disks.
    pub bases: u64,
    /// Tasks whose strategy has changed.
    pub changes: u64,
    /// Tasks opened.
    pub openings: u64,
    /// Restores of a task that read more than the one epoch before the stop.
    pub too_large: Vec<TooLarge>,
}

/// A restore that read more than one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// Which of all starts, from 0.
    pub start: usize,
    /// The task.
    pub task: String,
    /// What it read.
    pub restored: u64,
    /// How much of that the task's last epoch before the stop has.
    pub epoch: u64,
    /// Of what.
    pub unit: &'static str,
}

impl Restores {
    /// Judges all starts that followed a stop; without changelogs by the increments that they read from the object store.
    pub fn judge(starts: &[Start], changelogs: Option<&Changelogs>) -> Self {
        let mut restores = Restores::default();
        for (index, start) in starts.iter().enumerate() {
            let Some(stopped_ms) = start.stopped_ms else { continue };
            if start.openings.is_empty() {
                restores.too_short += 1;
                continue;
            }
            restores
                .by_start
                .push(start.openings.values().map(|opening| opening.restored).sum());
            for (task, opening) in &start.openings {
                restores.openings += 1;
                restores.bases += opening.bases;
                restores.changes += opening.changes;
                restores.untold += u64::from(opening.is_untold());
                let (restored, epoch, unit) = match changelogs {
                    Some(changelogs) => (opening.restored, last_epoch(changelogs, task, stopped_ms), "records"),
                    None => (opening.increments, 1, "increments"),
                };
                if restored > epoch || opening.bases > 0 {
                    restores.too_large.push(TooLarge {
                        start: index,
                        task: task.clone(),
                        restored,
                        epoch,
                        unit,
                    });
                }
            }
        }
        restores.by_start.sort_unstable();
        restores
    }

    fn quantile(&self, per_cent: usize) -> u64 {
        let last = self.by_start.len().saturating_sub(1);
        self.by_start.get(last * per_cent / 100).copied().unwrap_or_default()
    }

    fn without_any(&self) -> usize {
        self.by_start.iter().filter(|restored| **restored == 0).count()
    }
}

fn last_epoch(changelogs: &Changelogs, task: &str, stopped_ms: i64) -> u64 {
    let increments = task.split_once('_').and_then(|(sub_topology, partition)| {
        let changelog = changelogs.get(sub_topology.parse::<usize>().ok()?)?;
        changelog.get(partition.parse::<usize>().ok()?)
    });
    let last = increments.and_then(|increments| increments.last_before(stopped_ms));
    last.map_or(0, |increment| increment.records)
}

impl Report {
    /// What does not hold; empty where everything does.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for ((stage, fault), count) in &self.findings.counts {
            failures.push(format!("{count} × {fault:?} at stage {stage:?}"));
        }
        if self.input_differences > 0 {
            failures.push(format!(
                "{} inputs are not in the topic as they were written",
                self.input_differences
            ));
        }
        if (self.seen.accounts, self.seen.buckets) != (self.inputs, self.inputs) {
            failures.push(format!("{:?} for {} inputs", self.seen, self.inputs));
        }
        if self.processed.distinct != self.inputs {
            failures.push(format!(
                "the witness saw {} of {} inputs",
                self.processed.distinct, self.inputs
            ));
        }
        if self.options.signal == Signal::Term && self.is_alone() && self.processed.repeated() > 0 {
            failures.push(format!(
                "{} records were processed again after a clean stop",
                self.processed.repeated()
            ));
        }
        let violations = self.metrics.get(INVARIANT_VIOLATIONS).copied().unwrap_or_default();
        if violations > 0.0 {
            failures.push(format!("{violations} violations of invariants counted by the service"));
        }
        if self.options.disk == Disk::Same && self.stays_put() {
            failures.extend(self.restore_failures());
        }
        failures.extend(self.strategy_failures());
        failures.extend(outages::failures(&self.options, &self.latencies, &self.outages));
        failures
    }

    /// What is not where the strategy keeps it.
    fn strategy_failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let strategy = self.options.strategy;
        if self.options.changes() {
            if self.restores.changes == 0 && self.options.kills > 0 {
                failures.push("no task has changed its strategy".to_owned());
            }
            return failures;
        }
        if strategy.has_changelogs() != (self.changelogs > 0) {
            failures.push(format!("{} changelogs with {}", self.changelogs, strategy.word()));
        }
        let is_wiped = self.options.disk == Disk::Wiped && self.restores.openings > 0;
        if strategy.has_snapshots() && is_wiped && self.restores.bases == 0 {
            failures.push("no wiped disk was restored from a base snapshot".to_owned());
        }
        failures
    }

    /// Whether one instance has all tasks and nothing but its stops goes wrong.
    fn is_alone(&self) -> bool {
        self.options.instances == 1 && self.options.fault == Fault::None
    }

    /// Whether tasks stay where they are, so that neither a restore from elsewhere nor an aborted epoch is part of the plan.
    fn stays_put(&self) -> bool {
        self.is_alone() && !self.options.changes()
    }

    fn restore_failures(&self) -> Vec<String> {
        let mut failures: Vec<String> = self.restores.too_large.iter().map(ToString::to_string).collect();
        if self.restores.by_start.is_empty() && self.options.kills > 0 {
            failures.push("no log says what was restored".to_owned());
        }
        if self.restores.untold > 0 {
            failures.push(format!(
                "{} restores of which no log says how much they read",
                self.restores.untold
            ));
        }
        if self.options.signal == Signal::Term && self.restores.by_start.iter().any(|restored| *restored > 0) {
            failures.push("records were restored after a clean stop".to_owned());
        }
        failures
    }
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "start {} restored {} {} of task {}, perhaps behind a base; the one epoch before the stop has {}",
            self.start, self.restored, self.unit, self.task, self.epoch
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let restores = &self.restores;
        for finding in &self.findings.first {
            writeln!(f, "look at: {finding}")?;
        }
        writeln!(f, "seed                 {}", self.seed)?;
        writeln!(f, "duration             {:.0} s", self.duration.as_secs_f64())?;
        writeln!(
            f,
            "strategy             {}\nstops                {} × {:?}, disk {:?}, {} instance(s), fault {:?}",
            self.options.strategy.word(),
            if self.options.fault == Fault::None {
                self.options.kills
            } else {
                0
            },
            self.options.signal,
            self.options.disk,
            self.options.instances,
            self.options.fault
        )?;
        writeln!(f, "inputs               {}", self.inputs)?;
        writeln!(
            f,
            "outputs              {} accounts, {} buckets",
            self.seen.accounts, self.seen.buckets
        )?;
        writeln!(
            f,
            "processed            {} times, {} of them again",
            self.processed.total,
            self.processed.repeated()
        )?;
        writeln!(
            f,
            "restored per start   0 in {} of {} starts; median {}, 90 % {}, most {}; {} more opened no task",
            restores.without_any(),
            restores.by_start.len(),
            restores.quantile(50),
            restores.quantile(90),
            restores.quantile(100),
            restores.too_short
        )?;
        writeln!(f, "more than one epoch  {} restores", restores.too_large.len())?;
        if self.options.changes() {
            writeln!(f, "strategies changed   {}, a task each", restores.changes)?;
        }
        if self.options.strategy.has_snapshots() {
            writeln!(
                f,
                "base snapshots used  {} by {} openings",
                restores.bases, restores.openings
            )?;
        }
        for latency in &self.latencies {
            writeln!(f, "latency, {:<21}{latency}", latency.name)?;
        }
        for (name, outage) in &self.outages {
            writeln!(
                f,
                "{name:<20} {} epochs aborted, {} spilled, {} base snapshots made",
                outage.aborts, outage.spilled, outage.bases
            )?;
        }
        for (name, sum) in &self.metrics {
            writeln!(f, "{name} {sum}")?;
        }
        let mut waits: Vec<Duration> = self.starts.iter().filter_map(|start| start.first_output).collect();
        waits.sort_unstable();
        if let (Some(median), Some(most)) = (waits.get(waits.len() / 2), waits.last()) {
            let (median, most) = (median.as_secs_f64(), most.as_secs_f64());
            writeln!(f, "start to new output  median {median:.2} s, most {most:.2} s")?;
        }
        let failures = self.failures();
        for failure in &failures {
            writeln!(f, "FAILED               {failure}")?;
        }
        let verdict = if failures.is_empty() {
            "exact: every input counted exactly once"
        } else {
            "NOT EXACT"
        };
        write!(f, "verdict              {verdict}")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::ledger::openings::Opening;

    fn changelogs() -> Changelogs {
        let mut increments = Increments::default();
        for (offset, timestamp_ms) in [(0, 100), (1, 100), (3, 200), (4, 200), (5, 200)] {
            increments.observe(offset, timestamp_ms);
        }
        vec![vec![increments], vec![Increments::default()]]
    }

    fn start(stopped_ms: Option<i64>, restored: &[(&str, u64)]) -> Start {
        let opening = |restored| Opening {
            found: "an earlier epoch".to_owned(),
            restored,
            is_counted: true,
            ..Opening::default()
        };
        let openings = restored.iter().map(|(task, n)| ((*task).to_owned(), opening(*n)));
        Start {
            instance: 0,
            stopped_ms,
            first_output: None,
            openings: openings.collect(),
        }
    }

    fn report(arguments: &[&str], starts: Vec<Start>) -> Report {
        let arguments = std::iter::once(&"ledger").chain(arguments);
        Report {
            options: Options::parse_from(arguments),
            seed: 1,
            inputs: 10,
            input_differences: 0,
            seen: Seen {
                accounts: 10,
                buckets: 10,
            },
            findings: Findings::default(),
            processed: Processed {
                total: 12,
                distinct: 10,
            },
            restores: Restores::judge(&starts, Some(&changelogs())),
            starts,
            changelogs: 2,
            latencies: Vec::new(),
            outages: Vec::new(),
            metrics: Metrics::new(),
            duration: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_restore_of_the_last_epoch_is_fine_and_of_more_is_not() {
        let starts = [
            start(None, &[("0_0", 50)]),
            start(Some(150), &[("0_0", 2), ("1_0", 0)]),
            start(Some(250), &[("0_0", 4)]),
            start(Some(250), &[]),
            start(Some(250), &[("1_0", 1)]),
        ];
        let restores = Restores::judge(&starts, Some(&changelogs()));
        assert_eq!(restores.by_start, [1, 2, 4]);
        assert_eq!(restores.too_short, 1);
        let too_large = restores
            .too_large
            .iter()
            .map(|large| (large.start, large.restored, large.epoch));
        assert_eq!(too_large.collect::<Vec<_>>(), [(2, 4, 3), (4, 1, 0)]);
    }

    #[test]
    fn work_done_twice_fails_only_after_clean_stops() {
        let starts = || vec![start(Some(150), &[("0_0", 0)])];
        assert_eq!(report(&["--signal", "kill"], starts()).failures(), Vec::<String>::new());
        let failures = report(&["--signal", "term"], starts()).failures();
        assert_eq!(failures, ["2 records were processed again after a clean stop"]);
    }

    #[test]
    fn a_large_restore_fails_only_where_the_disk_was_kept() {
        let starts = || vec![start(Some(150), &[("0_0", 3)])];
        assert_eq!(report(&["--disk", "wiped"], starts()).failures(), Vec::<String>::new());
        let failures = report(&["--disk", "same"], starts()).failures();
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert!(failures[0].contains("restored 3 records of task 0_0"), "{failures:?}");
    }

    #[test]
    fn what_the_log_does_not_tell_and_what_the_service_itself_finds_wrong_are_failures() {
        let mut untold = start(Some(150), &[("0_0", 0)]);
        untold
            .openings
            .values_mut()
            .for_each(|opening| opening.is_counted = false);
        let mut untold = report(&["--signal", "kill"], vec![untold]);
        assert_eq!(
            untold.failures(),
            ["1 restores of which no log says how much they read"]
        );
        untold.metrics.insert(INVARIANT_VIOLATIONS.to_owned(), 2.0);
        assert_eq!(untold.failures().len(), 2, "{:?}", untold.failures());
    }

    #[test]
    fn one_increment_from_the_store_is_one_epoch_and_a_base_is_more() {
        let opened = |increments, bases| {
            let mut start = start(Some(150), &[("0_0", 7)]);
            for opening in start.openings.values_mut() {
                (opening.increments, opening.bases) = (increments, bases);
            }
            start
        };
        let restores = Restores::judge(&[opened(1, 0), opened(2, 0), opened(0, 1)], None);
        let too_large = restores.too_large.iter().map(|large| (large.start, large.restored));
        assert_eq!(too_large.collect::<Vec<_>>(), [(1, 2), (2, 0)]);
        assert_eq!((restores.bases, restores.openings), (1, 3));
    }

    #[test]
    fn nothing_seen_is_not_nothing_wrong() {
        let mut empty = report(&["--signal", "kill"], vec![start(Some(150), &[])]);
        empty.seen = Seen::default();
        empty.processed = Processed::default();
        assert_eq!(empty.failures().len(), 3, "{:?}", empty.failures());
        assert!(empty.to_string().ends_with("NOT EXACT"));
    }
}
