//! The standard scenario: counts, totals across a repartition topic, and windows that close, of random words.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate::codec::{I64Be, Utf8, Windowed};
use tidegate::operators::{Emit, TumblingWindows};
use tidegate::record::Record;
use tidegate::testkit::TestCluster;
use tidegate::topology::{Builder, Topic, Topology};

const WORDS: u64 = 13;
const RECORDS: u64 = 150;
/// Records after which everything must have come right.
const CHAPTER: u64 = 50;
const WINDOW_MS: i64 = 20;

/// What one seed decides: the cluster, and what is piped into it.
pub struct Scenario {
    seed: u64,
    topology: Arc<Topology>,
    words: Topic<String, String>,
    counts: Topic<String, i64>,
    totals: Topic<String, i64>,
    windows: Topic<String, i64>,
}

impl Scenario {
    /// The scenario of a seed.
    pub fn new(seed: u64) -> Self {
        let words = Topic::new("words", Utf8, Utf8);
        let counts = Topic::new("counts", Utf8, I64Be);
        let totals = Topic::new("totals", Utf8, I64Be);
        let windows = Topic::new("windows", Utf8, I64Be);
        let builder = Builder::new();
        let stream = builder.stream(&words);
        let counted = stream.group_by_key().count("count").to_stream();
        counted.to(&counts);
        let letters = counted.group_by("letters", |record| record.key.as_ref().map(|word| word[..1].to_owned()));
        letters.count("total").to_stream().to(&totals);
        let windowed = stream
            .group_by_key()
            .windowed_by(TumblingWindows::of(Duration::from_millis(WINDOW_MS as u64)))
            .emit(Emit::OnClose);
        let named = |record: &Record<Windowed<String>, i64>| {
            let window = record.key.as_ref()?;
            Some(format!("{}@{}", window.key, window.start_ms))
        };
        windowed.count("window").to_stream().select_key(named).to(&windows);
        Self {
            seed,
            topology: Arc::new(builder.build().expect("the topology is right")),
            words,
            counts,
            totals,
            windows,
        }
    }

    fn word(&self, number: u64) -> String {
        let mixed = (number ^ (self.seed << 20)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let letter = char::from(b'a' + (mixed % 3) as u8);
        format!("{letter}{}", mixed % WORDS)
    }

    /// Runs it.
    ///
    /// # Panics
    /// Where an input does not count exactly once.
    pub fn run(&self) {
        let seed = self.seed;
        let intervals_ms = [1, 10, 100, 1_000];
        TestCluster::new(Arc::clone(&self.topology))
            .instances(1 + (seed % 4) as usize)
            .partitions(1 + (seed / 4 % 4) as i32)
            .settings(|settings| {
                settings.workers = 1 + (seed / 16 % 3) as usize;
                settings.commit_interval = Duration::from_millis(intervals_ms[(seed / 48 % 4) as usize]);
            })
            .chaos([seed], |cluster| self.tell(cluster));
    }

    fn tell(&self, cluster: &mut TestCluster) {
        let mut said = Said::default();
        for number in 0..RECORDS {
            let record = Record::new(self.word(number), String::new(), number as i64);
            cluster.pipe(&self.words, record);
            if number % CHAPTER == CHAPTER - 1 {
                cluster.settle();
                said.read(self, cluster);
                said.check(self, number + 1);
            }
        }
    }
}

/// What was committed so far.
#[derive(Default)]
struct Said {
    counts: BTreeMap<String, Vec<i64>>,
    totals: BTreeMap<String, Vec<i64>>,
    windows: BTreeMap<String, Vec<i64>>,
}

impl Said {
    fn read(&mut self, scenario: &Scenario, cluster: &mut TestCluster) {
        for (said, topic) in [
            (&mut self.counts, &scenario.counts),
            (&mut self.totals, &scenario.totals),
            (&mut self.windows, &scenario.windows),
        ] {
            for record in cluster.read(topic) {
                let (key, value) = (record.key.expect("a key"), record.value.expect("a value"));
                said.entry(key).or_default().push(value);
            }
        }
    }

    fn check(&self, scenario: &Scenario, inputs: u64) {
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        let mut totals: BTreeMap<String, i64> = BTreeMap::new();
        let mut windows: BTreeMap<String, i64> = BTreeMap::new();
        for number in 0..inputs {
            let word = scenario.word(number);
            let start_ms = number as i64 / WINDOW_MS * WINDOW_MS;
            *totals.entry(word[..1].to_owned()).or_default() += 1;
            *windows.entry(format!("{word}@{start_ms}")).or_default() += 1;
            *counts.entry(word).or_default() += 1;
        }
        for (what, said, expected) in [("counts", &self.counts, counts), ("totals", &self.totals, totals)] {
            let every: BTreeMap<String, Vec<i64>> = expected
                .into_iter()
                .map(|(key, last)| (key, (1..=last).collect()))
                .collect();
            assert_eq!(*said, every, "{what} after {inputs} inputs");
        }
        for (window, said) in &self.windows {
            assert_eq!(
                said.as_slice(),
                [windows[window]],
                "window {window} after {inputs} inputs"
            );
        }
        let closed: usize = self.windows.len();
        assert!(inputs < RECORDS || closed > 0, "no window has closed");
    }
}
