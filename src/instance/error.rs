//! Why an instance does not start, or stops.

use std::path::PathBuf;

use crate::blob::BlobError;
use crate::errors::Coded;
use crate::log::LogError;
use crate::state::StateError;
use crate::topology::PlanError;
use crate::worker::WorkerError;

/// Why an instance does not start, or stops.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// No broker answered within the start-up time-out.
    #[error("the log did not answer within {timeout_ms} ms, tried {attempts} times: {source}")]
    LogUnreachable {
        /// How long it was tried, in milliseconds.
        timeout_ms: u64,
        /// How often.
        attempts: u32,
        /// The last failure; names the addresses.
        source: LogError,
    },
    /// A topic that the topology reads or writes does not exist.
    #[error("topic {topic}, {role} of the topology, does not exist; create it, or correct its name")]
    MissingTopic {
        /// The topic.
        topic: String,
        /// What it is to the topology.
        role: &'static str,
    },
    /// The plan does not fit the topics, for example co-partitioned inputs with different counts.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// An internal topic exists with other settings than it must have.
    #[error("internal topic {topic} has {setting} = {found}, it must be {expected}; {remedy}")]
    InternalTopic {
        /// The topic.
        topic: String,
        /// The setting that differs.
        setting: &'static str,
        /// What the broker says.
        found: String,
        /// What it must be.
        expected: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The topology is not the one that wrote the application's state.
    #[error(
        "the topology has changed since application {application_id} was last run:\n{difference}\ngo back to the former topology, or give the new one its own application.id"
    )]
    PlanChanged {
        /// The application.
        application_id: String,
        /// What changed, line by line.
        difference: String,
    },
    /// Local state cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The identity of this instance cannot be kept.
    #[error("cannot read or write {path}: {reason}; state.dir must be writable")]
    Identity {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// Another process uses the same static instance id.
    #[error(
        "instance.id {instance_id} is in use by another process, which has taken this one's place in the group; give every instance its own"
    )]
    InstanceIdTaken {
        /// The id.
        instance_id: String,
    },
    /// The log failed for good.
    #[error(transparent)]
    Log(LogError),
    /// The strategy needs an object store, and none was given.
    #[error(
        "durability = {durability:?} keeps state in an object store; set snapshot.url, or give the instance a store"
    )]
    NoObjectStore {
        /// The strategy.
        durability: &'static str,
    },
    /// The settings of single stores cannot be followed.
    #[error("stores.durability: {reason}")]
    StoreDurability {
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The object store cannot be used.
    #[error(transparent)]
    ObjectStore(BlobError),
    /// A worker stopped.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// A thread could not be started, or ended without saying why.
    #[error("thread {thread} failed: {reason}")]
    Thread {
        /// The thread.
        thread: String,
        /// What is known.
        reason: String,
    },
}

impl Coded for InstanceError {
    fn code(&self) -> &'static str {
        match self {
            InstanceError::LogUnreachable { .. } => "TG4101",
            InstanceError::MissingTopic { .. } => "TG4102",
            InstanceError::Plan(error) => error.code(),
            InstanceError::InternalTopic { .. } => "TG4103",
            InstanceError::PlanChanged { .. } => "TG4104",
            InstanceError::State(error) => error.code(),
            InstanceError::Identity { .. } => "TG4105",
            InstanceError::InstanceIdTaken { .. } => "TG4106",
            InstanceError::Log(error) => error.code(),
            InstanceError::NoObjectStore { .. } => "TG4108",
            InstanceError::StoreDurability { .. } => "TG4109",
            InstanceError::ObjectStore(error) => error.code(),
            InstanceError::Worker(error) => error.code(),
            InstanceError::Thread { .. } => "TG4107",
        }
    }
}
