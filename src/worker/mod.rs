//! A worker: a thread that runs tasks and owns one transactional producer.
//!
//! [`Worker::turn`] is one step of its life: commands, commit, intake, processing, barrier. It never waits for longer
//! than it is told, keeps no time of its own, and leaves slow work to a [`Background`]; so the same code runs on threads and,
//! step by step, in simulation.

mod background;
mod command;
mod commit;
mod copying;
mod epoch;
mod error;
mod held;
mod intake;
mod lazy_work;
mod metrics;
mod opener;
mod opening;
mod pack_uses;
mod replay;
mod repository_work;
mod restore_pace;
mod savepoints;
mod settings;
mod settling;
mod snapshots;
mod spilling;
mod stepped;
mod tenure;
mod topics;
#[allow(clippy::module_inception)]
mod worker;

pub use background::{ApplyJob, Background, Chore, Done, Lane, Threads};
pub use command::Command;
pub use epoch::{Action, EpochMachine, Facts, Limits};
pub use error::WorkerError;
pub use metrics::{RestoreProgress, RestoreUnit, WorkerMetrics};
pub use opener::Opener;
pub use opening::{NotOpened, OpenRequest, Opened, StateProvider};
pub use savepoints::{BaseSnapshot, SavepointSettings, assemble_savepoint};
pub use settings::WorkerSettings;
pub use settling::committed_strategies;
pub use snapshots::{
    Collect, CollectJob, Collection, Repository, RestoreMode, SnapshotError, SnapshotSettings, rebuild,
};
pub use stepped::{Stepped, Turns};
pub use topics::{StateTopics, Topics, commits_topic, repartition_topic, topic_of};
pub use worker::{Turn, Worker, WorkerParts};
