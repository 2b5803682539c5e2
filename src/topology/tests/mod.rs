//! Semantics of the operators, row by row of Kafka Streams' rules, and shapes of plans.

mod aggregates;
mod driver;
mod errors;
mod models;
mod partitions;
mod plans;
mod processors;
mod streams;
mod tables;
mod windows;
