//! Tests against real Kafka and a real S3 server, in one binary so that they share a broker and a server.

// Tests against a real broker wait in real time; every wait has a deadline.
#![allow(clippy::disallowed_methods)]

mod applications;
mod blob_contract;
mod broker_faults;
mod contract;
mod embedded_contract;
mod kafka_adapter;
mod kafka_client_facts;
mod kafka_membership;
mod native_producer;
mod object_store_faults;
mod programs;
mod repository_tools;
