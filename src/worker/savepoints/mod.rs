//! Taking part in savepoints: all tasks of all instances at one moment, without a master (docs/protocol.md, "Savepoints").
//!
//! `work` is what a worker does in its turns: it holds tasks, and knows how far a savepoint is. The rest are steps beside it, each of which makes few
//! calls: `look` at what is asked for and what others have done, `freeze` a task, `confirm` that all stand still, `store` a part, `finish`.

mod base;
mod confirm;
mod finish;
mod freeze;
mod look;
mod stages;
mod store;
mod work;

pub use base::BaseSnapshot;
pub use finish::assemble_savepoint;
pub(super) use stages::Stages;
pub(super) use work::{Done, SavepointWork};

use std::time::Duration;

/// Settings of savepoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavepointSettings {
    /// Time between two looks for what is asked for.
    pub poll: Duration,
    /// Tasks stand still for so long at most.
    pub timeout: Duration,
}
