//! Windows and timers against plain models, on random records with barriers, restarts and rolled-back epochs in between.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::driver::{Driver, text};
use crate::codec::{I64Be, Utf8};
use crate::operators::{Context, Declare, Emit, ProcessError, Processor, Timers, TumblingWindows};
use crate::record::Record;
use crate::time::Millis;
use crate::topology::{Builder, Topic};

const SIZE_MS: Millis = 10;

/// What happens to a task.
#[derive(Clone, Debug)]
enum Step {
    Record(u8, Millis),
    Restart,
    /// The epoch since the last barrier is processed, rolled back, and processed again.
    Redo,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => (0..4_u8, 0..200 as Millis).prop_map(|(key, time)| Step::Record(key, time)),
        1 => Just(Step::Restart),
        1 => Just(Step::Redo),
    ];
    prop::collection::vec(step, 1..150)
}

/// What a run has committed: what came out, and how many records were late.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    rows: Vec<String>,
    late: u64,
}

fn run(steps: &[Step], node: &str, build: &dyn Fn() -> Builder) -> Outcome {
    let mut driver = Driver::new(build());
    let mut committed = Outcome::default();
    let mut epoch: Vec<(u8, Millis)> = Vec::new();
    let mut rows = Vec::new();
    for step in steps.iter().chain([&Step::Restart]) {
        match step {
            Step::Record(key, time) => {
                epoch.push((*key, *time));
                rows.extend(send(&mut driver, *key, *time));
            }
            Step::Redo => {
                driver.roll_back();
                rows = epoch
                    .iter()
                    .flat_map(|(key, time)| send(&mut driver, *key, *time))
                    .collect();
            }
            Step::Restart => {
                committed.rows.append(&mut rows);
                committed.late += driver.counts(node).late;
                epoch.clear();
                driver = driver.restart(build());
            }
        }
    }
    committed
}

fn send(driver: &mut Driver, key: u8, time: Millis) -> Vec<String> {
    driver.send("in", (format!("{key}").as_str(), "", time))
}

fn windows(emit: Emit, grace_ms: u64) -> Builder {
    let builder = Builder::new();
    let tumbling = TumblingWindows::of(Duration::from_millis(SIZE_MS as u64)).grace(Duration::from_millis(grace_ms));
    let grouped = builder.stream(&text("in")).group_by_key();
    grouped
        .windowed_by(tumbling)
        .emit(emit)
        .count("counts")
        .to_stream()
        .map(|r| Record {
            key: r.key.map(|window| format!("{}/{}", window.start_ms, window.key)),
            value: r.value,
            timestamp_ms: r.timestamp_ms,
            headers: r.headers,
        })
        .to(&Topic::new("out", Utf8, I64Be));
    builder
}

/// The rules of Kafka Streams, read literally, on a map that nothing ever leaves unnoticed.
fn model_of_windows(steps: &[Step], emit: Emit, grace_ms: Millis) -> Outcome {
    let mut outcome = Outcome::default();
    let mut open: BTreeMap<(Millis, String), (i64, Millis)> = BTreeMap::new();
    let mut observed = -1;
    for step in steps {
        let Step::Record(key, time) = step else { continue };
        observed = observed.max(*time);
        let close_time = observed - grace_ms;
        let start = time - time % SIZE_MS;
        if start + SIZE_MS > close_time {
            let window = open.entry((start, key.to_string())).or_insert((0, *time));
            *window = (window.0 + 1, window.1.max(*time));
            if emit == Emit::OnUpdate {
                outcome.rows.push(format!("{start}/{key}={}@{}", window.0, window.1));
            }
        } else {
            outcome.late += 1;
        }
        let still_open = open.split_off(&(close_time - SIZE_MS + 1, String::new()));
        let closed = std::mem::replace(&mut open, still_open);
        if emit == Emit::OnClose {
            let row = |((start, key), (count, time))| format!("{start}/{key}={count}@{time}");
            outcome.rows.extend(closed.into_iter().map(row));
        }
    }
    outcome
}

/// Sets a timer per record, for a time that its key decides.
struct Alarm {
    timers: Timers,
}

const DELAYS_MS: [Millis; 4] = [0, 5, 30, 31];

impl Processor for Alarm {
    type KeyIn = String;
    type ValueIn = String;
    type KeyOut = String;
    type ValueOut = String;

    fn declare(declare: &mut Declare<'_>) -> Self {
        Alarm {
            timers: declare.timers(),
        }
    }

    fn process(
        &self,
        record: Record<String, String>,
        cx: &mut Context<'_, String, String>,
    ) -> Result<(), ProcessError> {
        let key = record.key.unwrap_or_default();
        let delay_ms = DELAYS_MS[key.parse::<usize>().map_err(ProcessError::bad_record)?];
        cx.timer_at(&self.timers, record.timestamp_ms + delay_ms, key.as_bytes());
        Ok(())
    }

    fn on_timer(&self, time_ms: Millis, tag: &[u8], cx: &mut Context<'_, String, String>) -> Result<(), ProcessError> {
        let key = String::from_utf8_lossy(tag).into_owned();
        cx.forward(Record::new(key, String::new(), time_ms))
    }
}

fn alarms() -> Builder {
    let builder = Builder::new();
    builder.stream(&text("in")).process::<Alarm>("alarm").to(&text("out"));
    builder
}

fn model_of_timers(steps: &[Step]) -> Outcome {
    let mut outcome = Outcome::default();
    let mut set: BTreeSet<(Millis, u8)> = BTreeSet::new();
    let mut stream_time = -1;
    for step in steps {
        let Step::Record(key, time) = step else { continue };
        stream_time = stream_time.max(*time);
        set.insert((time + DELAYS_MS[*key as usize], *key));
        let later = set.split_off(&(stream_time + 1, 0));
        for (time, key) in std::mem::replace(&mut set, later) {
            outcome.rows.push(format!("{key}=@{time}"));
        }
    }
    outcome
}

proptest! {
    #[test]
    fn windows_follow_the_rules_through_restarts_and_rolled_back_epochs(steps in steps(), grace in 0..40_i64) {
        for emit in [Emit::OnUpdate, Emit::OnClose] {
            let outcome = run(&steps, "counts", &|| windows(emit, grace as u64));
            prop_assert_eq!(outcome, model_of_windows(&steps, emit, grace));
        }
    }

    #[test]
    fn timers_fire_once_and_in_order_through_restarts_and_rolled_back_epochs(steps in steps()) {
        prop_assert_eq!(run(&steps, "alarm", &alarms), model_of_timers(&steps));
    }
}
