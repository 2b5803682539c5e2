//! The object store of one run: a server and a bucket of its own, and what an instance has to be told about them.

use std::time::Duration;

use tidegate::durability::Durability;
use tidegate::time::HumanDuration;

use crate::s3_server::{ACCESS_KEY, S3Server, SECRET_KEY};

/// Increments behind a base snapshot, so that one is made soon also where instances do not live long.
const CHAIN_OBJECTS: u32 = 50;
/// Base snapshots that are kept of each task.
const KEEP: u32 = 3;

/// Time between two looks for savepoints that are asked for.
const SAVEPOINT_POLL: &str = "1s";

/// A server with one bucket. The container is removed when this is dropped.
pub struct SnapshotStore {
    server: S3Server,
    bucket: String,
}

impl SnapshotStore {
    /// Starts what a strategy needs.
    pub fn start_for(strategy: Durability) -> Option<Self> {
        strategy.has_snapshots().then(Self::start)
    }

    /// Starts a server, whatever the strategy: for savepoints.
    pub fn start() -> Self {
        let server = S3Server::start();
        let bucket = server.bucket();
        Self { server, bucket }
    }

    /// The server, to be disturbed.
    pub fn server(&self) -> &S3Server {
        &self.server
    }

    fn settings(&self, interval: Duration) -> String {
        format!(
            "snapshot.url = \"s3://{bucket}/snapshots\"\n\
             snapshot.interval = \"{interval}\"\n\
             snapshot.keep = {KEEP}\n\
             snapshot.chain_objects = {CHAIN_OBJECTS}\n\
             snapshot.collect_interval = \"{interval}\"\n\
             snapshot.s3.endpoint = \"{endpoint}\"\n\
             snapshot.s3.region = \"us-east-1\"\n\
             snapshot.s3.access_key = \"{ACCESS_KEY}\"\n\
             snapshot.s3.secret_key = \"{SECRET_KEY}\"\n\
             snapshot.s3.allow_http = true\n\
             savepoint.poll = \"{SAVEPOINT_POLL}\"\n",
            bucket = self.bucket,
            endpoint = self.server.endpoint(),
            interval = HumanDuration(interval),
        )
    }
}

/// The lines of a configuration file that choose a strategy, to be put before its first section; base snapshots are made
/// once per `interval`.
pub fn settings(strategy: Durability, store: Option<&SnapshotStore>, interval: Duration) -> String {
    let store = store.map(|store| store.settings(interval));
    format!("durability = \"{}\"\n{}", strategy.word(), store.unwrap_or_default())
}
