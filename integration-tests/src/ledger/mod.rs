//! The ledger: proof by bookkeeping that every input record counts exactly once, whatever happens to the processes.
//!
//! A generator writes records at a steady rate, the service counts them as real child processes, and something is
//! killed, stopped or paused all the while. An auditor reads the output as any `read_committed` consumer would and
//! compares it with the books of the generator, record by record.
//!
//! | file | what it does |
//! |---|---|
//! | `options` | the command line |
//! | `inputs`, `generator` | what is written, and the books of it |
//! | `audit` | compares output with the books: duplicates, gaps, reorderings, wrong totals |
//! | `epochs`, `changelogs` | finds the epochs in a changelog, to judge how much a restore may read |
//! | `latency` | how long inputs take until their effect is seen |
//! | `witness` | how often each record was processed, from a file that the topology writes |
//! | `observer` | reads outputs and the input |
//! | `kafka` | the few things that are asked of Kafka directly |
//! | `link` | the connection to the broker, which can be held up |
//! | `instance` | the service as a child process |
//! | `openings` | what its log says about restores |
//! | `scenario` | what is done to the processes |
//! | `faults` | what is done to the broker and to the object store |
//! | `outages` | what an outage of the object store may do |
//! | `report`, `run` | the figures and the verdict, and everything in order |

use std::fmt::Display;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod audit;
pub mod changelogs;
pub mod epochs;
pub mod faults;
pub mod generator;
pub mod inputs;
pub mod instance;
pub mod kafka;
pub mod latency;
pub mod link;
pub mod observer;
pub mod openings;
pub mod options;
mod outages;
pub mod random;
pub mod report;
pub mod run;
pub mod scenario;
pub mod wait;
pub mod witness;

/// Why a run could not be brought to its end.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// A client of Kafka failed.
    #[error("cannot {what}: {reason}")]
    Kafka {
        /// What was tried.
        what: String,
        /// What the client says.
        reason: String,
    },
    /// The operating system refused.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What it says.
        source: io::Error,
    },
    /// Something that has to happen did not.
    #[error("waited {waited_s} s in vain for {what}")]
    TooLate {
        /// What was waited for.
        what: String,
        /// How long, in seconds.
        waited_s: u64,
    },
    /// An instance ended although nobody had stopped it, or did not end as it should.
    #[error("instance {name} {what}; its log is {log}")]
    Instance {
        /// Name of the instance.
        name: String,
        /// What happened.
        what: String,
        /// Where to look.
        log: String,
    },
    /// The output is wrong already; the findings say how.
    #[error("the output is not exact")]
    NotExact,
    /// Anything else.
    #[error("{0}")]
    Broken(String),
}

impl LedgerError {
    fn kafka(what: &str, reason: &dyn Display) -> Self {
        LedgerError::Kafka {
            what: what.to_owned(),
            reason: reason.to_string(),
        }
    }

    fn io(what: &str, source: io::Error) -> Self {
        LedgerError::Io {
            what: what.to_owned(),
            source,
        }
    }
}

/// The books, for whoever audits by himself.
pub fn lock_inputs(inputs: &Mutex<inputs::Inputs>) -> MutexGuard<'_, inputs::Inputs> {
    lock(inputs)
}

/// Locks, also after a panic elsewhere: the books are only ever appended to.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
