//! What is run under faults: topologies, their input by the number of a record, and what must come out.

mod counting;
mod processing;
mod stateless;
mod tables;

use std::collections::BTreeMap;

use tidegate::instance::InstanceSettings;
use tidegate::record::Record;
use tidegate::testkit::TestCluster;
use tidegate::topology::{Topic, Topology};

pub use counting::Counting;
pub use processing::Processing;
pub use stateless::Stateless;
pub use tables::Tables;

/// A topology with an oracle.
pub trait Workload {
    /// The topology.
    fn topology(&self) -> Topology;

    /// Whether the outputs of each key are the same in each run. Where inputs that wait for each other are taken as they come, they are not.
    fn speaks_in_order(&self) -> bool {
        true
    }

    /// What it needs of the settings.
    fn adapt(&self, _settings: &mut InstanceSettings) {}

    /// Pipes records in, lets everything come right, and checks what was committed.
    ///
    /// # Panics
    /// Where an input does not count exactly once.
    fn chapter(&mut self, cluster: &mut TestCluster, chapter: u64);
}

/// The workload of a seed; seeds take turns with all there are.
pub fn of_seed(seed: u64) -> (&'static str, Box<dyn Workload>) {
    match seed % 4 {
        0 => ("counting", Box::new(Counting::new(seed))),
        1 => ("tables", Box::new(Tables::new(seed))),
        2 => ("processing", Box::new(Processing::new(seed))),
        _ => ("stateless", Box::new(Stateless::new(seed))),
    }
}

/// A number that seems random, by a seed and another number.
fn mixed(seed: u64, number: u64) -> u64 {
    let mixed = (number ^ (seed << 20)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32
}

/// What was committed to a topic so far, by key.
#[derive(Debug)]
struct Said<K, V>(BTreeMap<K, Vec<V>>);

impl<K, V> Default for Said<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + 'static, V: 'static> Said<K, V> {
    /// Reads what has come since; answers how many records that were.
    fn read(&mut self, cluster: &mut TestCluster, topic: &Topic<K, V>) -> usize
    where
        K: Clone,
    {
        self.read_with(cluster, topic, |record| record.value.expect("a value"))
    }

    fn read_with<T: 'static>(
        &mut self,
        cluster: &mut TestCluster,
        topic: &Topic<K, T>,
        value: impl Fn(Record<K, T>) -> V,
    ) -> usize
    where
        K: Clone,
    {
        let records = cluster.read(topic);
        let count = records.len();
        for record in records {
            let key = record.key.clone().expect("a key");
            self.0.entry(key).or_default().push(value(record));
        }
        count
    }
}
