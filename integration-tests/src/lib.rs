//! Checks of Tidegate against real Kafka, and what they and the tests need: brokers and an S3 server in containers, and
//! assertions that every log and every object store must satisfy.

// What runs against a real broker waits in real time; every wait has a deadline.
#![allow(clippy::disallowed_methods)]

pub mod blob_contract;
pub mod broker;
pub mod contract;
pub mod drive;
pub mod flights;
pub mod halfway;
pub mod ledger;
pub mod s3_server;
pub mod savepoints;
pub mod simulation;
pub mod snapshot_store;

pub use broker::Broker;
pub use s3_server::S3Server;
pub use snapshot_store::SnapshotStore;
