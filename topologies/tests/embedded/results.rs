//! What the topology commits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate::instance::{Backend, InstanceSettings};
use tidegate::log::embedded::EmbeddedLog;
use tidegate::time::{HumanDuration, SystemClock};
use tidegate_topologies::flights::{self, Dataset, LoadOptions, Parameters, Results};

use crate::evaluator;
use crate::instance::{PATIENCE, run_until, settings};

/// Runs the sample through an instance; answers what was committed and the number of late records.
fn run(settings: InstanceSettings, partitions: i32, grace_ms: i64) -> (Results, u64) {
    let log = EmbeddedLog::new(Arc::new(SystemClock::default()));
    let data = Dataset::sample().expect("the sample is sound");
    let options = LoadOptions {
        partitions,
        ..LoadOptions::default()
    };
    flights::create_topics(&*log, &options).expect("topics are made");
    flights::load(&*log, &data, &options, &mut |_| {}).expect("the sample is loaded");
    let parameters = Parameters {
        grace: HumanDuration(Duration::from_millis(grace_ms as u64)),
    };
    let topology = flights::topology(&parameters).expect("it is consistent");
    let counters = run_until(topology, settings, &log, flights::processed_records(&data));
    let late = counters.node_counts().values().map(|counts| counts.late).sum();
    let results = flights::read_results(&*log, PATIENCE).expect("the results are readable");
    (results, late)
}

fn check(settings: InstanceSettings, partitions: u32, grace_ms: i64) {
    let data = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/data"));
    let expected = evaluator::evaluate(&data, partitions, grace_ms).expect("the sample is sound");
    let (results, late) = run(settings, partitions as i32, grace_ms);
    assert_eq!(late, expected.late);

    let hours: BTreeSet<_> = results
        .departures
        .iter()
        .map(|hour| (hour.origin.clone(), hour.window_start_ms))
        .collect();
    assert_eq!(hours.len(), results.departures.len(), "each closed hour comes out once");
    let hours = results.departures.into_iter().map(|hour| {
        let key = (hour.origin, hour.window_start_ms);
        (key, (hour.count, hour.sum_dep_delay, hour.max_dep_delay))
    });
    let wanted = expected.departures.into_iter();
    let wanted = wanted.map(|(key, hour)| (key, (hour.count, hour.sum_dep_delay, hour.max_dep_delay)));
    assert_eq!(hours.collect::<BTreeMap<_, _>>(), wanted.collect::<BTreeMap<_, _>>());

    let carriers = results.carriers.into_values();
    let carriers = carriers.map(|totals| (totals.carrier, (totals.flights, totals.cancelled, totals.sum_arr_delay)));
    let wanted = expected.carriers.into_iter();
    let wanted = wanted.map(|(carrier, totals)| (carrier, (totals.flights, totals.cancelled, totals.sum_arr_delay)));
    assert_eq!(carriers.collect::<BTreeMap<_, _>>(), wanted.collect::<BTreeMap<_, _>>());

    let manufacturers = results.manufacturers.into_values();
    let manufacturers = manufacturers.map(|count| (count.manufacturer, count.flights as u64));
    let wanted = expected
        .manufacturers
        .into_iter()
        .map(|(name, manufacturer)| (name, manufacturer.flights));
    assert_eq!(
        manufacturers.collect::<BTreeMap<_, _>>(),
        wanted.collect::<BTreeMap<_, _>>()
    );
}

const HOUR_MS: i64 = 3_600_000;

#[test]
fn results_equal_the_evaluation_with_a_day_of_grace() {
    let state = tempfile::tempdir().expect("a directory");
    let interval = Duration::from_millis(100);
    check(settings(1, interval, Backend::RocksDb, state.path()), 1, 24 * HOUR_MS);
}

#[test]
fn results_and_late_records_equal_the_evaluation_with_two_hours_of_grace() {
    let state = tempfile::tempdir().expect("a directory");
    let interval = Duration::from_millis(100);
    check(settings(1, interval, Backend::Memory, state.path()), 1, 2 * HOUR_MS);
}

#[test]
fn workers_partitions_and_the_commit_interval_leave_results_alone() {
    let state = tempfile::tempdir().expect("a directory");
    let interval = Duration::from_millis(10);
    check(settings(3, interval, Backend::RocksDb, state.path()), 3, 2 * HOUR_MS);
}
