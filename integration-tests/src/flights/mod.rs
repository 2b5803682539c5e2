//! The flights check: the topology on real Kafka against an evaluator that shares no code with the engine.
//!
//! | file | what it does |
//! |---|---|
//! | `options` | the command line, and the combinations of settings that follow from it |
//! | `evaluator` | what the outputs must be, from the CSV |
//! | `kafka` | what is asked of Kafka directly: ends, committed offsets, records |
//! | `service` | the service as a child process |
//! | `outputs` | what the outputs are, and in what they differ |
//! | `check` | one combination after the other, and the figures |

pub mod check;
pub mod evaluator;
mod kafka;
pub mod options;
pub mod outputs;
mod service;

use std::path::PathBuf;

/// Why a check could not be carried out. A difference in the outputs is not an error but a result.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Kafka does not do as asked.
    #[error("cannot {operation}: {reason}")]
    Kafka {
        /// What was tried.
        operation: String,
        /// What the client says.
        reason: String,
    },
    /// A file or process of this machine does not do as asked.
    #[error("cannot {operation} {path}: {reason}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The service ended although nobody had asked it to, or not as it should.
    #[error("tidegate {what}; the end of its log:\n{log}")]
    Service {
        /// What it did.
        what: String,
        /// The last lines that it wrote.
        log: String,
    },
    /// The service is alive but does not come to the end of its input.
    #[error("{what} not within {patience_s} s; the end of the service's log:\n{log}")]
    TooLate {
        /// What was waited for.
        what: String,
        /// How long, in seconds.
        patience_s: u64,
        /// The last lines that it wrote.
        log: String,
    },
    /// The data set cannot be read.
    #[error("{0}")]
    Data(String),
}

impl CheckError {
    fn kafka(operation: impl Into<String>, reason: &dyn std::fmt::Display) -> Self {
        CheckError::Kafka {
            operation: operation.into(),
            reason: reason.to_string(),
        }
    }

    fn io(operation: &'static str, path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        CheckError::Io {
            operation,
            path: path.into(),
            reason: error.to_string(),
        }
    }
}
