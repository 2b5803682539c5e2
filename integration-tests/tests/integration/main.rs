//! Tests against real Kafka, in one binary so that they share a broker.

// Tests against a real broker wait in real time; every wait has a deadline.
#![allow(clippy::disallowed_methods)]

mod applications;
mod broker_faults;
mod contract;
mod embedded_contract;
mod kafka_adapter;
mod kafka_client_facts;
mod kafka_membership;
mod programs;
