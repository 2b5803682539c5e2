//! Checks of Tidegate against real Kafka, and what they and the tests need: brokers in containers, and assertions that
//! every log must satisfy.

// What runs against a real broker waits in real time; every wait has a deadline.
#![allow(clippy::disallowed_methods)]

pub mod broker;
pub mod contract;
pub mod drive;
pub mod flights;
pub mod halfway;
pub mod ledger;
pub mod simulation;

pub use broker::Broker;
