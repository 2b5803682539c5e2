//! Counts, totals across a repartition topic, order per key, and windows that close.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate::codec::{I64Be, Utf8, Windowed};
use tidegate::operators::{Emit, TumblingWindows};
use tidegate::record::Record;
use tidegate::testkit::TestCluster;
use tidegate::topology::{Builder, Topic, Topology};

use super::{Said, Workload, mixed};

const WORDS: u64 = 13;
const CHAPTER: u64 = 50;
const WINDOW_MS: i64 = 20;

/// See the [module documentation](self).
pub struct Counting {
    seed: u64,
    words: Topic<String, i64>,
    counts: Topic<String, i64>,
    orders: Topic<String, String>,
    totals: Topic<String, i64>,
    windows: Topic<String, i64>,
    lasts: Topic<String, i64>,
    inputs: u64,
    counted: Said<String, i64>,
    ordered: Said<String, String>,
    totalled: Said<String, i64>,
    closed: Said<String, i64>,
    updated: Said<String, i64>,
}

impl Counting {
    /// The workload of a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            words: Topic::new("words", Utf8, I64Be),
            counts: Topic::new("counts", Utf8, I64Be),
            orders: Topic::new("orders", Utf8, Utf8),
            totals: Topic::new("totals", Utf8, I64Be),
            windows: Topic::new("windows", Utf8, I64Be),
            lasts: Topic::new("lasts", Utf8, I64Be),
            inputs: 0,
            counted: Said::default(),
            ordered: Said::default(),
            totalled: Said::default(),
            closed: Said::default(),
            updated: Said::default(),
        }
    }

    fn word(&self, number: u64) -> String {
        let mixed = mixed(self.seed, number);
        let letter = char::from(b'a' + (mixed % 3) as u8);
        format!("{letter}{}", mixed % WORDS)
    }

    fn check(&self) {
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        let mut orders: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut totals: BTreeMap<String, i64> = BTreeMap::new();
        let mut windows: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for number in 0..self.inputs {
            let word = self.word(number);
            let start_ms = number as i64 / WINDOW_MS * WINDOW_MS;
            *totals.entry(word[..1].to_owned()).or_default() += 1;
            let window = windows.entry(format!("{word}@{start_ms}")).or_default();
            window.push(number as i64);
            let order = orders.entry(word.clone()).or_default();
            let before = order.last().map_or(String::new(), |before| format!("{before} "));
            order.push(format!("{before}{number}"));
            *counts.entry(word).or_default() += 1;
        }
        for (what, said, last) in [("counts", &self.counted, counts), ("totals", &self.totalled, totals)] {
            let every = last.into_iter().map(|(key, last)| (key, (1..=last).collect()));
            assert_eq!(said.0, every.collect(), "{what} after {} inputs", self.inputs);
        }
        assert_eq!(self.ordered.0, orders, "order after {} inputs", self.inputs);
        for (window, said) in &self.closed.0 {
            assert_eq!(
                said.as_slice(),
                [windows[window].len() as i64],
                "window {window} after {} inputs",
                self.inputs
            );
        }
        assert_eq!(
            self.updated.0, windows,
            "updates of windows after {} inputs",
            self.inputs
        );
        assert!(
            self.inputs <= CHAPTER || !self.closed.0.is_empty(),
            "no window has closed"
        );
    }
}

/// The key of a window in the outputs.
fn named(record: &Record<Windowed<String>, i64>) -> Option<String> {
    let window = record.key.as_ref()?;
    Some(format!("{}@{}", window.key, window.start_ms))
}

impl Workload for Counting {
    fn topology(&self) -> Topology {
        let builder = Builder::new();
        let stream = builder.stream(&self.words);
        let counted = stream.group_by_key().count("count").to_stream();
        counted.to(&self.counts);
        let letters = counted.group_by("letters", |record| record.key.as_ref().map(|word| word[..1].to_owned()));
        let total = letters.aggregate("total", || 0_i64, |_, _, total| total + 1);
        total.to_stream().to(&self.totals);
        let numbers = stream.map_values(|number: i64| number.to_string()).group_by_key();
        let joined = numbers.reduce("order", |before: String, now: String| {
            // Whoever computes on a state that is ahead of its records shows it here, even if nothing of it is ever committed.
            let last = before.rsplit(' ').next().and_then(|number| number.parse::<u64>().ok());
            assert!(last < now.parse().ok(), "{now} comes to a state that has {last:?}");
            format!("{before} {now}")
        });
        joined.to_stream().to(&self.orders);
        let windowed = stream
            .group_by_key()
            .windowed_by(TumblingWindows::of(Duration::from_millis(WINDOW_MS as u64)));
        let last = windowed.reduce("last", |_, now| now).to_stream().select_key(named);
        last.to(&self.lasts);
        let closing = windowed.emit(Emit::OnClose);
        let counted = closing.aggregate("window", || 0_i64, |_, _, count| count + 1);
        counted.to_stream().select_key(named).to(&self.windows);
        builder.build().expect("the topology is right")
    }

    fn chapter(&mut self, cluster: &mut TestCluster, _chapter: u64) {
        for _ in 0..CHAPTER {
            let number = self.inputs;
            self.inputs += 1;
            cluster.pipe(
                &self.words,
                Record::new(self.word(number), number as i64, number as i64),
            );
        }
        cluster.settle();
        self.counted.read(cluster, &self.counts);
        self.ordered.read(cluster, &self.orders);
        self.totalled.read(cluster, &self.totals);
        self.closed.read(cluster, &self.windows);
        self.updated.read(cluster, &self.lasts);
        self.check();
        for (word, counts) in &self.counted.0 {
            let stored = cluster.look_up("count", Utf8, I64Be, word);
            assert_eq!(stored, counts.last().copied(), "the store of {word}");
        }
    }
}
