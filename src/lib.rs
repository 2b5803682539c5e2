//! Tidegate: Kafka-native stateful stream processing, exactly-once, without a master.
//!
//! A program writes a *topology*: typed streams and tables between Kafka topics. As many instances of it as you like
//! share the work through a consumer group, keep state in RocksDB next to the code, and commit output, input offsets and
//! state in one Kafka transaction. State is made durable by changelog topics, by snapshots in an object store, or by both
//! ([`durability`]). This page is a tutorial; it knows that you may come from Kafka Streams.
//!
//! # A topology
//!
//! ```
//! use tidegate::codec::{I64Be, Utf8};
//! use tidegate::topology::{Builder, Topic};
//!
//! let builder = Builder::new();                                        // StreamsBuilder
//! builder
//!     .stream(&Topic::new("lines", Utf8, Utf8))                        // Consumed.with(serdes)
//!     .flat_map_values(|line: String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
//!     .group_by("by-word", |record| record.value.clone())              // Grouped.as: the repartition topic's name
//!     .count("counts")                                                 // Materialized.as: the store's name
//!     .to_stream()
//!     .to(&Topic::new("word-counts", Utf8, I64Be));                    // Produced.with(serdes)
//! let topology = builder.build()?;
//!
//! // What it compiles to: two sub-topologies, joined by an internal topic.
//! assert_eq!(topology.plan().sub_topologies.len(), 2);
//! println!("{}", topology.describe().mermaid());
//! # Ok::<(), tidegate::topology::TopologyError>(())
//! ```
//!
//! What is different from Kafka Streams, at a glance:
//!
//! - A [`Topic`](topology::Topic) carries its codecs, a stream only its types. Codecs for keys are marked
//!   ([`KeyCodec`](codec::KeyCodec)): equal keys must be equal bytes, so JSON keys do not compile.
//! - Functions are `Fn`, never `FnMut`: state that is not declared would be counted twice after a restart.
//! - Names are asked for where state or an internal topic carries them. The plan has a fingerprint, and a changed plan is
//!   refused with its difference instead of reading somebody else's state.
//! - Key and value of a [`Record`](record::Record) are `Option`: null is visible in the type.
//! - There is no `commit()` and no caching knob that changes results: the commit interval is only a latency.
//!
//! The module [`topology`] lists every operator and each difference of meaning.
//!
//! # Windows, tables, joins
//!
//! ```
//! use std::time::Duration;
//! use tidegate::codec::{I64Be, TimeWindowed, Utf8};
//! use tidegate::operators::{Emit, TumblingWindows};
//! use tidegate::topology::{Builder, Topic};
//!
//! let builder = Builder::new();
//! let users = builder.table(&Topic::new("users", Utf8, Utf8), "users");    // name of the store
//! let clicks = builder.stream(&Topic::new("clicks", Utf8, Utf8));
//!
//! // Each click with its user's region, the table as it was when the click was processed.
//! clicks
//!     .left_join_table("by-user", &users, |page: String, region: Option<String>| format!("{page} from {}", region.unwrap_or_default()))
//!     .to(&Topic::new("regional-clicks", Utf8, Utf8));
//!
//! // Clicks per user and minute, each window once, when it can no longer change.
//! let minutes = TumblingWindows::of(Duration::from_secs(60)).grace(Duration::from_secs(10));
//! let key = TimeWindowed::new(Utf8, minutes.size_ms());
//! clicks
//!     .group_by_key()
//!     .windowed_by(minutes)
//!     .emit(Emit::OnClose)
//!     .count("clicks-per-minute")
//!     .to_stream()
//!     .to(&Topic::new("minutes", key, I64Be));
//! # builder.build()?;
//! # Ok::<(), tidegate::topology::TopologyError>(())
//! ```
//!
//! # An instance
//!
//! A program of your own gets the whole command line (`run`, `topology describe`, `config check|show|reference`), the
//! configuration in TOML, metrics and health checks in one line of `main`:
//!
//! ```no_run
//! # fn word_count(_: &tidegate::topology::Parameters) -> Result<tidegate::topology::Topology, tidegate::service::BoxError> { unimplemented!() }
//! fn main() -> std::process::ExitCode {
//!     tidegate::main(&[("word_count", word_count)])
//! }
//! ```
//!
//! Underneath lies [`instance::Instance`], which runs on any [`log::Log`]: Kafka, or the log inside the process. This is all it takes to run
//! a topology without Kafka:
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use tidegate::codec::{I64Be, Utf8};
//! use tidegate::instance::{Backend, Instance, InstanceSettings, Ports};
//! use tidegate::log::{Log, TopicSpec, embedded::EmbeddedLog};
//! use tidegate::time::{Clock, SystemClock};
//! use tidegate::topology::{Builder, Topic};
//!
//! let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
//! let log = EmbeddedLog::new(Arc::clone(&clock));
//! for name in ["votes", "tallies"] {
//!     let spec = TopicSpec { name: name.into(), partitions: 2, replication: None, config: vec![] };
//!     log.admin().create_topic(&spec, Duration::from_secs(1))?;
//! }
//! let builder = Builder::new();
//! let votes = builder.stream(&Topic::new("votes", Utf8, Utf8));
//! votes.group_by_key().count("tallies").to_stream().to(&Topic::new("tallies", Utf8, I64Be));
//!
//! let mut settings = InstanceSettings::new("election");
//! settings.state.backend = Backend::Memory;
//! let instance = Instance::start(Arc::new(builder.build()?), settings, Ports::new(log, clock))?;
//! assert!(instance.status().live);
//! instance.stop();         // barrier, commit, close
//! instance.join()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to read on
//!
//! - [`topology`]: operators and their meaning; [`operators`]: windows, low-level processors with state and timers.
//! - [`codec`]: formats, those of Kafka's own serializers among them.
//! - [`savepoint`]: savepoints, and applications that start from them.
//! - [`testkit`]: tests of one's own topology, with several instances and crashes, without Kafka.
//! - [`worker`]: the epoch, from the first record to the committed transaction.
//! - [`durability`]: what a commit says about state, and the strategies; [`blob`]: the object store behind two of them.
//! - `ARCHITECTURE.md` for the way through the code, `docs/protocol.md` for what is promised and why it holds,
//!   `docs/repository.md` for what snapshots are made of, `docs/operations.md` for running it.
#![deny(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

/// The README's program compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

pub mod blob;
pub mod codec;
pub mod durability;
pub mod errors;
pub mod ids;
pub mod instance;
pub mod invariants;
pub mod log;
pub mod membership;
pub mod metrics;
pub mod offline;
pub mod operators;
pub mod partitioner;
#[doc(hidden)]
pub mod planted;
pub mod record;
pub mod savepoint;
pub mod service;
pub mod state;
pub mod task;
pub mod testkit;
pub mod threads;
pub mod time;
pub mod topology;
pub mod worker;

pub use service::{Application, main};
