//! The service around an instance: configuration, command line, HTTP, logs, signals, exit codes.

mod application;
mod cli;
pub mod config;
mod embedded;
mod error;
mod exit;
mod http;
pub mod logging;
mod monitor;
mod observed;
mod progress;
mod report;
mod run;
mod signals;

pub use application::{Application, BoxError, CommandFunction, TopologyFunction, main};
pub use error::ServiceError;
pub use exit::{EXIT_CLEAN, EXIT_FAILED, EXIT_UNREACHABLE, EXIT_USAGE};
pub use monitor::{Monitor, MonitorSettings};
pub use observed::{Health, Observed, Restore};
pub use run::{open_log, run_topology};
