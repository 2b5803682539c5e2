//! What an instance tells its workers, and what they answer.

use std::time::Duration;

use crossbeam_channel::Sender;

use crate::ids::TaskId;
use crate::log::GroupMetadata;

/// A message to a worker. Each carries the group metadata as captured when the membership event was served (invariant I6).
#[derive(Debug)]
pub enum Command {
    /// These tasks are this worker's from now on.
    Assign {
        /// The tasks.
        tasks: Vec<TaskId>,
        /// The metadata to commit with.
        group: GroupMetadata,
    },
    /// Commit and close these tasks; whoever waits on `done` gives them up afterwards.
    Revoke {
        /// The tasks.
        tasks: Vec<TaskId>,
        /// The metadata to commit with.
        group: GroupMetadata,
        /// How long the commit may take; after that the epoch is aborted.
        within: Duration,
        /// Told when the tasks are closed.
        done: Sender<()>,
    },
    /// These tasks may belong to somebody else already: close them without a commit.
    Lose {
        /// The tasks.
        tasks: Vec<TaskId>,
        /// The metadata to commit with, for the tasks that stay.
        group: GroupMetadata,
        /// Told when the tasks are closed.
        done: Sender<()>,
    },
    /// The generation moved and nothing changed for this worker.
    Served {
        /// The metadata to commit with.
        group: GroupMetadata,
    },
    /// Commit, close everything and end.
    Stop {
        /// How long the commit may take; after that the epoch is aborted.
        within: Duration,
    },
}
