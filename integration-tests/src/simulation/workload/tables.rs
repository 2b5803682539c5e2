//! A table with deletions, and a stream that is joined with it: tasks with two inputs, one of which is idle at times.

use std::collections::BTreeMap;

use tidegate::codec::{I64Be, Utf8};
use tidegate::record::Record;
use tidegate::testkit::TestCluster;
use tidegate::topology::{Builder, Topic, Topology};

use super::{Said, Workload, mixed};

const KEYS: u64 = 9;
const ROWS: u64 = 25;
const CLICKS: u64 = 25;

/// See the [module documentation](self).
pub struct Tables {
    seed: u64,
    rows: Topic<String, i64>,
    clicks: Topic<String, i64>,
    updates: Topic<String, i64>,
    joined: Topic<String, String>,
    matched: Topic<String, i64>,
    piped: u64,
    table: BTreeMap<String, i64>,
    expected_updates: BTreeMap<String, Vec<Option<i64>>>,
    expected_joined: BTreeMap<String, Vec<String>>,
    expected_matched: BTreeMap<String, Vec<i64>>,
    last_clicks: BTreeMap<String, i64>,
    updated: Said<String, Option<i64>>,
    said: Said<String, String>,
    said_matched: Said<String, i64>,
}

impl Tables {
    /// The workload of a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            rows: Topic::new("rows", Utf8, I64Be),
            clicks: Topic::new("clicks", Utf8, I64Be),
            updates: Topic::new("updates", Utf8, I64Be),
            joined: Topic::new("joined", Utf8, Utf8),
            matched: Topic::new("matched", Utf8, I64Be),
            piped: 0,
            table: BTreeMap::new(),
            expected_updates: BTreeMap::new(),
            expected_joined: BTreeMap::new(),
            expected_matched: BTreeMap::new(),
            last_clicks: BTreeMap::new(),
            updated: Said::default(),
            said: Said::default(),
            said_matched: Said::default(),
        }
    }

    fn next(&mut self) -> (u64, String, i64) {
        self.piped += 1;
        let mixed = mixed(self.seed, self.piped);
        (mixed, format!("k{}", mixed % KEYS), self.piped as i64)
    }

    fn pipe_rows(&mut self, cluster: &mut TestCluster) {
        for _ in 0..ROWS {
            let (mixed, key, number) = self.next();
            let value = (!(mixed / KEYS).is_multiple_of(3)).then_some(number);
            match value {
                Some(value) => self.table.insert(key.clone(), value),
                None => self.table.remove(&key),
            };
            self.expected_updates.entry(key.clone()).or_default().push(value);
            let mut record = Record::new(key, number, number);
            record.value = value;
            cluster.pipe(&self.rows, record);
        }
    }

    fn pipe_clicks(&mut self, cluster: &mut TestCluster) {
        for _ in 0..CLICKS {
            let (_, key, number) = self.next();
            let row = self.table.get(&key).copied();
            let all = self.expected_joined.entry(key.clone()).or_default();
            all.push(format!("{number} of {row:?}"));
            if let Some(row) = row {
                self.expected_matched.entry(key.clone()).or_default().push(row + number);
            }
            self.last_clicks.insert(key.clone(), number);
            cluster.pipe(&self.clicks, Record::new(key, number, number));
        }
    }

    fn check(&mut self, cluster: &mut TestCluster) {
        self.updated.read_with(cluster, &self.updates, |record| record.value);
        self.said.read(cluster, &self.joined);
        self.said_matched.read(cluster, &self.matched);
        assert_eq!(
            self.said_matched.0, self.expected_matched,
            "matches after {} records",
            self.piped
        );
        assert_eq!(
            self.updated.0, self.expected_updates,
            "updates after {} records",
            self.piped
        );
        assert_eq!(self.said.0, self.expected_joined, "joins after {} records", self.piped);
        for key in (0..KEYS).map(|key| format!("k{key}")) {
            let stored = cluster.look_up("rows", Utf8, I64Be, &key);
            assert_eq!(stored, self.table.get(&key).copied(), "the row of {key}");
            let clicked = cluster.look_up("last-click", Utf8, I64Be, &key);
            assert_eq!(clicked, self.last_clicks.get(&key).copied(), "the last click of {key}");
        }
    }
}

impl Workload for Tables {
    fn topology(&self) -> Topology {
        let builder = Builder::new();
        let rows = builder.table(&self.rows, "rows");
        rows.to_stream().to(&self.updates);
        let clicks = builder.stream(&self.clicks);
        clicks
            .left_join_table("join", &rows, |click: i64, row: Option<i64>| {
                assert!(row < Some(click), "click {click} comes to a table that has {row:?}");
                format!("{click} of {row:?}")
            })
            .to(&self.joined);
        clicks
            .join_table("match", &rows, |click: i64, row: i64| row + click)
            .to(&self.matched);
        clicks.to_table("last-click");
        builder.build().expect("the topology is right")
    }

    fn chapter(&mut self, cluster: &mut TestCluster, _chapter: u64) {
        // A click is joined with the row that is there when it comes, so rows and clicks do not come at once.
        self.pipe_rows(cluster);
        cluster.settle();
        self.check(cluster);
        self.pipe_clicks(cluster);
        cluster.settle();
        self.check(cluster);
    }
}
