//! Strategy `changelog`: each store's increments go to a compacted topic, inside the transaction.
//!
//! A changelog record is the store's own bytes: raw key, raw value as the store keeps it (a tombstone for
//! a deletion), so that a restore is a copy.

use std::sync::Arc;

use super::Durability;
use crate::ids::StoreId;
use crate::log::{BatchSource, TopicSpec};
use crate::planted::{Bug, planted};
use crate::state::Overlay;
use crate::time::Millis;

/// How long a changelog keeps the record of a deletion at least, in milliseconds (`delete.retention.ms`, a day as is Kafka's
/// default). A replay from an earlier offset could miss deletions.
pub const DELETIONS_KEPT_MS: Millis = 86_400_000;

/// Name of a store's changelog topic, as Kafka Streams names it.
pub fn topic_name(application_id: &str, store: &str) -> Arc<str> {
    format!("{application_id}-{store}-changelog").into()
}

/// The changelog topic of a store. Never deleted by time: expired windows are deleted by tombstones, so event time far in the past cannot
/// make the broker drop live state. Compacted, or else trimmed behind snapshots; never both, since compaction forgets deletions (ADR 9).
pub fn topic_spec(
    application_id: &str,
    store: &str,
    durability: Durability,
    partitions: i32,
    replication: Option<i32>,
) -> TopicSpec {
    let mut config = settings(durability);
    config.push(("message.timestamp.type".into(), "CreateTime".into()));
    TopicSpec {
        name: topic_name(application_id, store),
        partitions,
        replication,
        config,
    }
}

/// The settings of a changelog topic that differ between strategies.
pub fn settings(durability: Durability) -> Vec<(String, String)> {
    match durability.has_snapshots() {
        false => vec![
            ("cleanup.policy".into(), "compact".into()),
            ("delete.retention.ms".into(), DELETIONS_KEPT_MS.to_string()),
        ],
        true => vec![
            ("cleanup.policy".into(), "delete".into()),
            ("retention.ms".into(), "-1".into()),
            ("retention.bytes".into(), "-1".into()),
        ],
    }
}

/// The increment of one store: what an epoch wrote to it, coalesced per key, in order of first write.
pub struct StoreIncrement {
    overlay: Arc<Overlay>,
    store: StoreId,
}

impl StoreIncrement {
    /// The entries of `store` in a sealed overlay.
    pub fn new(overlay: Arc<Overlay>, store: StoreId) -> Self {
        Self { overlay, store }
    }
}

impl BatchSource for StoreIncrement {
    fn len(&self) -> usize {
        self.overlay.store_len(self.store)
    }

    fn for_each(&self, visit: &mut dyn FnMut(&[u8], Option<&[u8]>)) {
        for (key, value) in self.overlay.entries(self.store) {
            if value.is_some() || !planted(Bug::ForgetDeletions) {
                visit(key, value);
            }
        }
    }
}
