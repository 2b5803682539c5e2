//! What restoring state and making snapshots cost: programs that run production code on a Kafka and an S3 server in containers, and write pages.

// They wait in real time; every wait has a deadline.
#![allow(clippy::disallowed_methods)]

pub mod application;
pub mod machine;
pub mod page;
pub mod records;
pub mod stalls;

/// Whatever ends a benchmark early.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
