//! How long inputs take until their effect is seen behind both stages, by what was going on when they were written.

use std::fmt;
use std::time::Duration;

/// When inputs were entered and when the output of the last stage was seen, in milliseconds of the run.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    seen: Vec<(u32, u32)>,
}

/// A part of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// What was going on.
    pub name: &'static str,
    /// Whether something was away.
    pub is_outage: bool,
    /// When it began.
    pub from: Duration,
    /// When it ended.
    pub to: Duration,
}

/// The figures of one phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhaseLatency {
    /// What was going on.
    pub name: &'static str,
    /// Whether something was away.
    pub is_outage: bool,
    /// How long it lasted.
    pub lasted: Duration,
    /// Inputs written in it.
    pub inputs: usize,
    /// Half of them took no longer.
    pub median: Duration,
    /// Of a hundred of them 99 took no longer.
    pub p99: Duration,
    /// None took longer.
    pub most: Duration,
}

impl Latencies {
    /// Notes that an input was entered at one time of the run and its effect seen at another.
    pub fn note(&mut self, entered_ms: u32, seen: Duration) {
        self.seen.push((entered_ms, seen.as_millis() as u32));
    }

    /// The latencies of the inputs that were written in a phase; `None` without any.
    pub fn of(&self, phase: &Phase) -> Option<PhaseLatency> {
        let within = phase.from.as_millis() as u32..phase.to.as_millis() as u32;
        let entered = self.seen.iter().filter(|(entered_ms, _)| within.contains(entered_ms));
        let mut latencies: Vec<u32> = entered
            .map(|(entered_ms, seen_ms)| seen_ms.saturating_sub(*entered_ms))
            .collect();
        latencies.sort_unstable();
        let last = latencies.len().checked_sub(1)?;
        let quantile = |per_cent: usize| Duration::from_millis(u64::from(latencies[last * per_cent / 100]));
        Some(PhaseLatency {
            name: phase.name,
            is_outage: phase.is_outage,
            lasted: phase.to.saturating_sub(phase.from),
            inputs: latencies.len(),
            median: quantile(50),
            p99: quantile(99),
            most: quantile(100),
        })
    }
}

impl fmt::Display for PhaseLatency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "median {} ms, p99 {} ms, most {} ms, of {} inputs",
            self.median.as_millis(),
            self.p99.as_millis(),
            self.most.as_millis(),
            self.inputs
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_counts_in_the_phase_in_which_it_was_written() {
        let mut latencies = Latencies::default();
        for entered_ms in 0..200 {
            let slow = if entered_ms >= 100 { 1_000 } else { 10 };
            latencies.note(entered_ms, Duration::from_millis(u64::from(entered_ms) + slow));
        }
        let of = |from, to| {
            latencies.of(&Phase {
                name: "some",
                is_outage: false,
                from: Duration::from_millis(from),
                to: Duration::from_millis(to),
            })
        };
        let calm = of(0, 100).expect("there are inputs");
        assert_eq!(
            (calm.inputs, calm.p99.as_millis(), calm.most.as_millis()),
            (100, 10, 10)
        );
        let mixed = of(0, 110).expect("there are inputs");
        assert_eq!((mixed.median.as_millis(), mixed.p99.as_millis()), (10, 1_000));
        assert_eq!(of(500, 600), None);
    }
}
