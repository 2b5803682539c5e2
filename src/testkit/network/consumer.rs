//! A consumer at the other end of a network.

use std::sync::Arc;
use std::time::Duration;

use crate::log::{Assignment, Consumer, LogError, LogResult, RecordBatch, Slot};

use super::Network;

/// Records that one fetch brings at most while the network is rough.
const FEW: u64 = 12;

pub(super) struct DistantConsumer {
    network: Network,
    inner: Box<dyn Consumer>,
}

impl DistantConsumer {
    pub(super) fn new(network: Network, inner: Box<dyn Consumer>) -> Self {
        Self { network, inner }
    }
}

impl Consumer for DistantConsumer {
    fn assign(&mut self, partitions: &[Assignment]) -> LogResult<()> {
        self.inner.assign(partitions)
    }

    fn pause(&mut self, slots: &[Slot], paused: bool) -> LogResult<()> {
        self.inner.pause(slots, paused)
    }

    fn poll(&mut self, max_records: usize, wait: Duration) -> LogResult<Option<Arc<dyn RecordBatch>>> {
        let network = &self.network;
        if network.is_in_vain() {
            network.waited(wait);
            if network.hitch(8) {
                return Err(LogError::Unreachable {
                    addresses: "the embedded log".to_owned(),
                    reason: "the network is cut".to_owned(),
                });
            }
            return Ok(None);
        }
        if network.hitch(4) {
            network.waited(wait);
            return Ok(None);
        }
        let few = match network.condition().rough {
            true => 1 + network.shared.seed.below(FEW) as usize,
            false => max_records,
        };
        self.inner.poll(max_records.min(few), wait)
    }

    fn position(&self, slot: Slot) -> Option<i64> {
        self.inner.position(slot)
    }

    fn end_offset(&self, slot: Slot) -> Option<i64> {
        self.inner.end_offset(slot)
    }
}
