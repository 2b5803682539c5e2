//! Why the demo did not come to its end.

use tidegate::errors::Coded;

/// Why the demo did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// There is no room for its state.
    #[error("no temporary directory for the demo's state: {reason}; set TMPDIR to one that can be written to")]
    State {
        /// What the system says.
        reason: String,
    },
    /// A signal asked for the end.
    #[error("interrupted")]
    Interrupted,
    /// The instance ended by itself.
    #[error("the instance ended after {committed} of {total} records; its log says why")]
    Ended {
        /// Records committed.
        committed: u64,
        /// Records to commit.
        total: u64,
    },
    /// Nothing was committed for a long time.
    #[error(
        "nothing was committed for {stalled_s} s, after {committed} of {total} records; look at the log above, and whether the brokers are well"
    )]
    Stalled {
        /// Records committed.
        committed: u64,
        /// Records to commit.
        total: u64,
        /// How long nothing happened, in seconds.
        stalled_s: u64,
    },
}

impl Coded for DemoError {
    fn code(&self) -> &'static str {
        match self {
            DemoError::State { .. } => "TG5121",
            DemoError::Interrupted => "TG5122",
            DemoError::Ended { .. } => "TG5123",
            DemoError::Stalled { .. } => "TG5124",
        }
    }
}
