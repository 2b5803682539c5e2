//! A processor with values, a map and event-time timers.

use std::collections::BTreeMap;

use tidegate::codec::{I64Be, Utf8};
use tidegate::operators::{Context, Declare, MapState, ProcessError, Processor, Timers, ValueState};
use tidegate::partitioner::partition_for;
use tidegate::record::Record;
use tidegate::testkit::TestCluster;
use tidegate::time::Millis;
use tidegate::topology::{Builder, Topic, Topology};

use super::{Said, Workload, mixed};

const KEYS: u64 = 7;
const CHAPTER: u64 = 50;
const DELAY_MS: Millis = 11;

/// Numbers the records of a key, and says later that they have come.
struct Echo {
    seen: ValueState<String, i64>,
    pending: MapState<i64, String>,
    timers: Timers,
}

impl Processor for Echo {
    type KeyIn = String;
    type ValueIn = i64;
    type KeyOut = String;
    type ValueOut = String;

    fn declare(declare: &mut Declare<'_>) -> Self {
        Self {
            seen: declare.value("seen", Utf8, I64Be),
            pending: declare.map("pending", I64Be, Utf8),
            timers: declare.timers(),
        }
    }

    fn process(&self, record: Record<String, i64>, cx: &mut Context<'_, String, String>) -> Result<(), ProcessError> {
        let (Some(key), Some(number)) = (record.key, record.value) else {
            return Err(ProcessError::bad_record("a key and a value are needed"));
        };
        let seen = self.seen.get(cx, &key)?.unwrap_or(0) + 1;
        self.seen.put(cx, &key, &seen)?;
        self.pending.put(cx, &number, &key)?;
        cx.timer_at(&self.timers, record.timestamp_ms + DELAY_MS, &number.to_be_bytes());
        cx.forward(Record::new(key, format!("record {seen}"), record.timestamp_ms))
    }

    fn on_timer(&self, time_ms: Millis, tag: &[u8], cx: &mut Context<'_, String, String>) -> Result<(), ProcessError> {
        let number = tag.try_into().map(i64::from_be_bytes);
        let number = number.map_err(|_| ProcessError::bad_record("a timer's tag is a number"))?;
        let key = self.pending.get(cx, &number)?;
        let key = key.ok_or_else(|| ProcessError::bad_record("a timer fires once"))?;
        self.pending.delete(cx, &number)?;
        cx.forward(Record::new(key, format!("echo of {number}"), time_ms))
    }
}

/// See the [module documentation](self).
pub struct Processing {
    seed: u64,
    input: Topic<String, i64>,
    output: Topic<String, String>,
    piped: Vec<String>,
    said: Said<String, String>,
}

impl Processing {
    /// The workload of a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            input: Topic::new("input", Utf8, I64Be),
            output: Topic::new("output", Utf8, Utf8),
            piped: Vec::new(),
            said: Said::default(),
        }
    }

    /// What each key's records lead to. A timer fires when a record of its partition is late enough; each partition's records come
    /// in order of their time, which is their number.
    fn expected(&self, partitions: i32) -> BTreeMap<String, Vec<String>> {
        let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        let mut waiting: BTreeMap<i32, Vec<(Millis, usize)>> = BTreeMap::new();
        for (number, key) in self.piped.iter().enumerate() {
            let now = number as Millis;
            let count = counts.entry(key).or_default();
            *count += 1;
            expected.entry(key.clone()).or_default().push(format!("record {count}"));
            let waiting = waiting.entry(partition_for(key.as_bytes(), partitions)).or_default();
            waiting.push((now + DELAY_MS, number));
            let due: Vec<_> = waiting.extract_if(.., |(time, _)| *time <= now).collect();
            for (_, number) in due {
                let echoes = expected.entry(self.piped[number].clone()).or_default();
                echoes.push(format!("echo of {number}"));
            }
        }
        expected
    }
}

impl Workload for Processing {
    fn topology(&self) -> Topology {
        let builder = Builder::new();
        let echoes = builder.stream(&self.input).process::<Echo>("echo");
        echoes.to(&self.output);
        builder.build().expect("the topology is right")
    }

    fn chapter(&mut self, cluster: &mut TestCluster, _chapter: u64) {
        for _ in 0..CHAPTER {
            let number = self.piped.len() as u64;
            let key = format!("k{}", mixed(self.seed, number) % KEYS);
            self.piped.push(key.clone());
            cluster.pipe(&self.input, Record::new(key, number as i64, number as Millis));
        }
        cluster.settle();
        self.said.read(cluster, &self.output);
        let expected = self.expected(cluster.partition_count());
        assert_eq!(self.said.0, expected, "after {} records", self.piped.len());
    }
}
