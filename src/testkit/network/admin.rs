//! Administration at the other end of a network.

use std::sync::Arc;
use std::time::Duration;

use crate::ids::TopicPartition;
use crate::log::{Admin, CommittedOffset, GroupState, LogResult, TopicInfo, TopicSpec, Watermarks};

use super::Network;

/// One question in so many gets no answer while the network is rough.
const UNANSWERED: u64 = 40;

pub(super) struct DistantAdmin {
    network: Network,
    inner: Arc<dyn Admin>,
}

impl DistantAdmin {
    pub(super) fn new(network: Network, inner: Arc<dyn Admin>) -> Self {
        Self { network, inner }
    }

    /// Asks; whether what was asked for has been done when no answer comes is open.
    fn ask<T>(&self, operation: &str, timeout: Duration, ask: impl FnOnce(&dyn Admin) -> LogResult<T>) -> LogResult<T> {
        if self.network.is_in_vain() {
            return Err(self.network.timed_out(operation, timeout));
        }
        let answer = ask(&*self.inner);
        match self.network.hitch(UNANSWERED) {
            true => Err(self.network.timed_out(operation, timeout)),
            false => answer,
        }
    }
}

impl Admin for DistantAdmin {
    fn topic(&self, name: &str, timeout: Duration) -> LogResult<Option<TopicInfo>> {
        self.ask("describing a topic", timeout, |inner| inner.topic(name, timeout))
    }

    fn create_topic(&self, spec: &TopicSpec, timeout: Duration) -> LogResult<()> {
        self.ask("creating a topic", timeout, |inner| inner.create_topic(spec, timeout))
    }

    fn alter_topic(&self, name: &str, config: &[(String, String)], timeout: Duration) -> LogResult<()> {
        self.ask("altering a topic", timeout, |inner| {
            inner.alter_topic(name, config, timeout)
        })
    }

    fn delete_topic(&self, name: &str, timeout: Duration) -> LogResult<()> {
        self.ask("deleting a topic", timeout, |inner| inner.delete_topic(name, timeout))
    }

    fn watermarks(&self, partition: &TopicPartition, timeout: Duration) -> LogResult<Watermarks> {
        self.ask("reading watermarks", timeout, |inner| {
            inner.watermarks(partition, timeout)
        })
    }

    fn delete_records(&self, before: &[(TopicPartition, i64)], timeout: Duration) -> LogResult<()> {
        self.ask("deleting records", timeout, |inner| {
            inner.delete_records(before, timeout)
        })
    }

    fn committed(
        &self,
        group: &str,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> LogResult<Vec<Option<CommittedOffset>>> {
        self.ask("reading committed offsets", timeout, |inner| {
            let answer = inner.committed(group, partitions, timeout);
            if answer.is_err() {
                self.network.happened("committed offsets were asked for while pending");
            }
            answer
        })
    }

    fn group(&self, group: &str, timeout: Duration) -> LogResult<GroupState> {
        self.ask("describing a group", timeout, |inner| inner.group(group, timeout))
    }
}
