//! A transactional producer of our own: Kafka's protocol without librdkafka.
//!
//! It speaks version 2 of the transaction protocol (KIP-890) and sends one request to a broker for all its partitions, both of which
//! librdkafka lacks and short commit intervals need ([ADR 12](../../../../docs/adr/0012-a-producer-of-our-own.md)).
//! Its threads: one that leads it through its transactions (`thread`, `transaction`), and one per broker that it sends to (`sender`). Between
//! the worker and them stands the `queue`.

mod api;
mod cluster;
mod codes;
mod compression;
mod connection;
mod coordinators;
mod failures;
mod options;
mod producer;
mod queue;
mod records;
mod security;
mod sender;
mod thread;
mod transaction;
mod wire;

pub(super) use producer::{InitFailure, NativeProducer};

use cluster::Cluster;
use options::Options;
use queue::Queue;
use sender::Senders;

/// What the threads of one producer share.
struct Shared {
    /// The transactional id.
    id: String,
    /// The producer's name in those of its threads.
    name: String,
    options: Options,
    cluster: Cluster,
    queue: Queue,
    senders: Senders,
}

impl Shared {
    /// The time of the wall clock in milliseconds.
    // It only stamps records of changelogs, which nothing reads the time of.
    #[allow(clippy::disallowed_methods)]
    fn now_ms(&self) -> i64 {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}
