//! An instance over the embedded log, from its start until it has worked off a known number of records.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidegate::instance::{Backend, Guarantee, Instance, InstanceSettings, Ports, StateSettings};
use tidegate::log::embedded::EmbeddedLog;
use tidegate::operators::OnError;
use tidegate::time::{Clock, SystemClock};
use tidegate::topology::Topology;
use tidegate::worker::WorkerMetrics;

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub fn settings(workers: usize, commit_interval: Duration, backend: Backend, state: &Path) -> InstanceSettings {
    InstanceSettings {
        application_id: "embedded-test".to_owned(),
        instance_id: None,
        workers,
        guarantee: Guarantee::ExactlyOnce,
        commit_interval,
        overlay_max_bytes: 32 << 20,
        parked_max_bytes: 32 << 20,
        buffered_max_records: 100_000,
        max_task_idle: Duration::ZERO,
        transaction_timeout: Duration::from_secs(60),
        session_timeout: Duration::from_secs(45),
        startup_timeout: PATIENCE,
        revoke_timeout: Duration::from_secs(20),
        restore_timeout: PATIENCE,
        purge_interval: Duration::from_secs(30),
        replication_factor: None,
        state: StateSettings {
            dir: state.to_owned(),
            backend,
            cache_bytes: 8 << 20,
            block_cache_bytes: 8 << 20,
            write_buffer_bytes: 8 << 20,
        },
        default_on_error: OnError::Stop,
        on_error: BTreeMap::new(),
        dead_letter_topic: None,
        allow_empty_state: false,
        ..InstanceSettings::new("embedded-test")
    }
}

/// Runs the topology until it has committed exactly `records` input records, and closes it.
pub fn run_until(
    topology: Topology,
    settings: InstanceSettings,
    log: &Arc<EmbeddedLog>,
    records: u64,
) -> Arc<WorkerMetrics> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let instance = Instance::start(
        Arc::new(topology),
        settings,
        Ports::new(log.clone(), Arc::clone(&clock)),
    )
    .expect("it starts");
    let counters = instance.counters();
    let deadline = clock.monotonic() + PATIENCE;
    while counters.records_committed.get() < records {
        assert!(!instance.is_finished(), "it ended: {:?}", instance.join().err());
        let committed = counters.records_committed.get();
        assert!(
            clock.monotonic() < deadline,
            "{committed} of {records} records are committed"
        );
        std::thread::park_timeout(Duration::from_millis(5));
    }
    instance.stop();
    instance.join().expect("it ends without a failure");
    assert_eq!(counters.records_committed.get(), records);
    assert_eq!(counters.invariant_violations.get(), 0);
    counters
}
