//! The `tidegate` program: Tidegate's commands, the shipped topologies, and a demo.

mod demo;

use std::process::ExitCode;

use tidegate::service::{Application, BoxError};
use tidegate::topology::{Parameters, Topology};
use tidegate_topologies::{flights, ledger, word_count};

/// Also serves librdkafka and RocksDB: their many small buffers fragment the C library's heap (ADR 0005).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    Application::new("tidegate", env!("CARGO_PKG_VERSION"))
        .topology("word_count", build_word_count)
        .topology("flights", build_flights)
        .topology("ledger", build_ledger)
        .command("demo", demo::ABOUT, demo::run)
        .run()
}

fn build_word_count(parameters: &Parameters) -> Result<Topology, BoxError> {
    parameters.parse::<()>()?;
    Ok(word_count::topology()?)
}

fn build_flights(parameters: &Parameters) -> Result<Topology, BoxError> {
    Ok(flights::topology(&parameters.parse()?)?)
}

fn build_ledger(parameters: &Parameters) -> Result<Topology, BoxError> {
    Ok(ledger::topology(&parameters.parse()?)?)
}
