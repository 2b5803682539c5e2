//! What an outage of the object store may do to the service.

use std::time::Duration;

use super::faults::Outages;
use super::latency::PhaseLatency;
use super::options::{Fault, Options};

/// Where the service needs nothing that is away, latencies may be so much longer than before: what a busy machine does.
const LATENCY_FACTOR: u32 = 2;
const LATENCY_SLACK: Duration = Duration::from_secs(1);
/// With a spill topic an outage may raise the latency by so much, in per cent.
const SPILL_PER_CENT: u32 = 20;
/// An outage of so long has less than one input in a hundred that waits until its epoch is spilled instead.
const LONG_OUTAGE: Duration = Duration::from_secs(300);
/// In a shorter one those inputs count: both stages wait for `snapshot.spill_after`, and the epoch after it with them.
const TURN_TO_SPILL: Duration = Duration::from_millis(1_500);

/// A service that does not need the object store goes on as before; one that does aborts, and is itself again afterwards.
pub(super) fn failures(
    options: &Options,
    latencies: &[PhaseLatency],
    outages: &[(&'static str, Outages)],
) -> Vec<String> {
    let mut failures = Vec::new();
    if options.fault != Fault::Store {
        return failures;
    }
    let spills = options.spills();
    let needs_store = options.strategy.has_packs() && !spills;
    for (name, outage) in outages {
        if spills != (outage.spilled > 0.0) {
            failures.push(format!("{} epochs were spilled: {name}", outage.spilled));
        }
        if needs_store != (outage.aborts > 0.0) {
            failures.push(format!("{} epochs were aborted: {name}", outage.aborts));
        }
    }
    let Some(before) = latencies.first() else {
        failures.push("no latencies were measured".to_owned());
        return failures;
    };
    let busy = before.p99 * LATENCY_FACTOR + LATENCY_SLACK;
    let bound = |phase: &PhaseLatency| match phase.is_outage && spills {
        true => before.p99 * (100 + SPILL_PER_CENT) / 100 + phase.turn_to_spill(),
        false => busy,
    };
    let unhindered = latencies.iter().filter(|phase| !(phase.is_outage && needs_store));
    for phase in unhindered.filter(|phase| phase.p99 > bound(phase)) {
        failures.push(format!(
            "latency, {}: {phase}; p99 was {} ms, and {} ms are allowed",
            phase.name,
            before.p99.as_millis(),
            bound(phase).as_millis()
        ));
    }
    failures
}

impl PhaseLatency {
    fn turn_to_spill(&self) -> Duration {
        match self.lasted >= LONG_OUTAGE {
            true => Duration::ZERO,
            false => TURN_TO_SPILL,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn an_outage_of_the_store_aborts_epochs_only_where_they_need_it() {
        let latency = |name, is_outage, p99_ms| PhaseLatency {
            name,
            is_outage,
            lasted: Duration::from_secs(600),
            inputs: 10,
            median: Duration::from_millis(100),
            p99: Duration::from_millis(p99_ms),
            most: Duration::from_millis(p99_ms),
        };
        let failures_of = |arguments: &[&str], aborts, spilled, p99_ms| {
            let options = Options::parse_from([&["ledger", "--fault", "store", "--strategy"], arguments].concat());
            let latencies = [latency("before", false, 300), latency("stopped", true, p99_ms)];
            let outage = Outages {
                aborts,
                bases: 0.0,
                spilled,
            };
            super::failures(&options, &latencies, &[("stopped", outage)]).len()
        };
        let failures = |strategy, aborts, p99_ms| failures_of(&[strategy], aborts, 0.0, p99_ms);
        let spilling = |aborts, spilled, p99_ms| failures_of(&["snapshot", "--spill", "1"], aborts, spilled, p99_ms);
        assert_eq!(spilling(0.0, 100.0, 360), 0);
        assert_eq!(spilling(0.0, 100.0, 361), 1, "a fifth more is the bound");
        assert_eq!(spilling(3.0, 0.0, 30_000), 3);
        assert_eq!(failures("changelog+snapshot", 0.0, 320), 0);
        assert_eq!(failures("changelog+snapshot", 1.0, 3_000), 2);
        assert_eq!(failures("snapshot", 3.0, 30_000), 0);
        assert_eq!(failures("snapshot", 0.0, 30_000), 1);
    }
}
