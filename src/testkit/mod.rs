//! Tests of one's own topology: several partitions, several instances, crashes and rebalances, in milliseconds and without
//! Kafka.
//!
//! What runs is the engine itself, its workers, its membership and its transactions, on the embedded log, on one thread and by a
//! clock that moves only while nothing else happens. So a test never sleeps, and the same seed gives the same run.
//!
//! - [`TopologyTest`]: one instance and one partition, every record worked off at once; as short as Kafka Streams'
//!   `TopologyTestDriver`.
//! - [`TestCluster`]: as many of both as wanted, and what may happen to them, by hand or by chance ([`TestCluster::chaos`]).
//!
//! ```
//! use tidegate::codec::{I64Be, Utf8};
//! use tidegate::record::Record;
//! use tidegate::testkit::TestCluster;
//! use tidegate::topology::{Builder, Topic};
//!
//! let words = Topic::new("words", Utf8, Utf8);
//! let counts = Topic::new("counts", Utf8, I64Be);
//! let builder = Builder::new();
//! builder.stream(&words).group_by_key().count("count").to_stream().to(&counts);
//!
//! let mut cluster = TestCluster::new(builder.build()?).instances(2).partitions(4).seed(7);
//! for time_ms in 0..10 {
//!     cluster.pipe(&words, Record::new("storm".to_owned(), String::new(), time_ms));
//! }
//! cluster.settle();
//! cluster.crash(0);
//! cluster.pipe(&words, Record::new("storm".to_owned(), String::new(), 10));
//! cluster.settle(); // the other one takes over
//! let seen: Vec<i64> = cluster.read(&counts).into_iter().filter_map(|record| record.value).collect();
//! assert_eq!(seen, (1..=11).collect::<Vec<_>>());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(test)]
mod at_least_once_tests;
#[cfg(test)]
mod change_tests;
mod changes;
mod chaos;
mod clock;
mod cluster;
mod disk;
mod disturbance;
mod faults;
mod lifeline;
mod network;
#[cfg(test)]
mod offline_tests;
mod outside;
mod promises;
mod rebuilt;
#[cfg(test)]
mod reshape_tests;
mod rest;
#[cfg(test)]
mod savepoint_tests;
mod savepoints;
mod seed;
mod slot;
#[cfg(test)]
mod snapshot_tests;
#[cfg(test)]
mod spill_tests;
mod store;
mod story;
#[cfg(test)]
mod tests;
mod topology_test;
mod world;

pub use chaos::Exploration;
pub use clock::VirtualClock;
pub use cluster::TestCluster;
pub use topology_test::TopologyTest;
