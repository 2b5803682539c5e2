//! The embedded log for a topology that runs by itself: its topics have to be made first.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::log::embedded::{EmbeddedLog, EmbeddedSettings};
use crate::log::{Log, LogError, TopicSpec};
use crate::service::error::ServiceError;
use crate::time::Clock;
use crate::topology::{TopicRef, Topology};

/// The log answers at once; the time-out is a formality.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An embedded log, in `dir` if one is given, with the topics that `topology` reads and writes, and the dead-letter topic,
/// if any. Topics that are there already stay as they are.
pub fn embedded_log(
    dir: Option<&Path>,
    topology: &Topology,
    dead_letter_topic: Option<&str>,
    partitions: i32,
    settings: EmbeddedSettings,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Log>, ServiceError> {
    let log = match dir {
        Some(dir) => EmbeddedLog::open(dir, clock, settings).map_err(ServiceError::start)?,
        None => EmbeddedLog::with_settings(clock, settings),
    };
    let used = topology
        .plan()
        .sub_topologies
        .iter()
        .flat_map(|sub| sub.sources.iter().chain(&sub.sinks));
    let external = used.filter_map(|topic| match topic {
        TopicRef::External(name) => Some(Arc::clone(name)),
        TopicRef::Repartition(_) => None,
    });
    let names: BTreeSet<Arc<str>> = external.chain(dead_letter_topic.map(Arc::from)).collect();
    let admin = log.admin();
    for name in names {
        let spec = TopicSpec {
            name,
            partitions,
            replication: None,
            config: Vec::new(),
        };
        match admin.create_topic(&spec, TIMEOUT) {
            Ok(()) | Err(LogError::TopicExists { .. }) => {}
            Err(e) => return Err(ServiceError::start(e)),
        }
    }
    Ok(log)
}
