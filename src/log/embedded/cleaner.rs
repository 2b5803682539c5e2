//! The broker's housekeeping: retention and compaction, a little at a time.
//!
//! There is no thread. Whenever a partition may hold something to clean, the next look is due [`INTERVAL`] later by the
//! broker's clock, and whichever request comes then makes it. A look deletes what retention gives up, and chooses
//! the partition with the largest share of bytes that were never cleaned, if that is more than its topic's
//! `min.cleanable.dirty.ratio`. Its compaction then goes on by one step per request.

use std::time::Duration;

use super::broker::Broker;
use super::compaction::{Horizon, Pass};
use super::partition::Partition;
use super::settings::TopicSettings;
use super::topic::TopicId;
use crate::time::Millis;

/// Time between two looks. Kafka's are 15 s (`log.cleaner.backoff.ms`) and 5 min (`log.retention.check.interval.ms`).
const INTERVAL: Duration = Duration::from_millis(500);

/// What the housekeeping is at.
#[derive(Debug, Default)]
pub(super) struct Cleaner {
    /// When there is something to do next.
    due: Option<Duration>,
    compaction: Option<Compaction>,
}

#[derive(Debug)]
struct Compaction {
    topic: TopicId,
    partition: i32,
    pass: Pass,
}

impl Cleaner {
    /// When there is something to do next.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.due
    }
}

impl Partition {
    /// Whether housekeeping should look at this partition.
    pub fn needs_a_look(&self, settings: &TopicSettings) -> bool {
        let policy = settings.cleanup_policy;
        (policy.delete && self.segments.may_expire(settings))
            || (policy.compact && self.segments.active_base() > self.cleaned_until.max(self.low_watermark()))
    }
}

impl Broker {
    /// After records were written: housekeeping may have to look at the partition.
    pub fn expect_cleaning(&mut self, now: Duration) {
        if self.cleaner.due.is_none() {
            let due = now + INTERVAL;
            self.cleaner.due = Some(due);
            self.expect_deadline(due);
        }
    }

    /// Does what is due, but no more than one step of a compaction.
    pub fn clean(&mut self, now: Duration) {
        if self.cleaner.due.is_none_or(|due| now < due) {
            return;
        }
        let wall_ms = self.wall_ms;
        if self.cleaner.compaction.is_none() {
            self.expire_segments(wall_ms);
            self.cleaner.compaction = self.choose(wall_ms);
        }
        self.cleaner.due = match self.cleaner.compaction.take() {
            Some(compaction) => {
                self.cleaner.compaction = self.go_on(compaction, wall_ms);
                Some(now)
            }
            None => self.needs_another_look().then(|| now + INTERVAL),
        };
    }

    fn expire_segments(&mut self, wall_ms: Millis) {
        for (id, topic) in self.topics.iter_mut() {
            let settings = topic.settings().clone();
            if !settings.cleanup_policy.delete {
                continue;
            }
            for (number, partition) in topic.partitions_mut().iter_mut().enumerate() {
                if partition.expire(&settings, wall_ms) {
                    self.store.cleaned(id, number as i32, partition);
                }
            }
        }
    }

    /// The partition that needs compaction most.
    fn choose(&mut self, wall_ms: Millis) -> Option<Compaction> {
        let mut chosen = None;
        let mut most = 0.0;
        for (topic_id, topic) in self.topics.iter_mut() {
            let settings = topic.settings().clone();
            if !settings.cleanup_policy.compact {
                continue;
            }
            for (number, partition) in topic.partitions_mut().iter().enumerate() {
                let from = partition.cleaned_until.max(partition.low_watermark());
                let stable = partition.last_stable_offset();
                let Some(cleanable) = partition.segments.cleanable(&settings, from, stable, wall_ms) else {
                    continue;
                };
                if cleanable.dirty_ratio > settings.min_cleanable_dirty_ratio.max(most) {
                    most = cleanable.dirty_ratio;
                    chosen = Some(Compaction {
                        topic: topic_id,
                        partition: number as i32,
                        pass: Pass::new(cleanable),
                    });
                }
            }
        }
        chosen
    }

    /// Makes one step; answers the compaction unless that was the last one, or the topic is gone.
    fn go_on(&mut self, mut compaction: Compaction, wall_ms: Millis) -> Option<Compaction> {
        let topic = self.topics.get_mut(compaction.topic).ok()?;
        let horizon = Horizon {
            wall_ms,
            delete_retention_ms: topic.settings().delete_retention_ms,
        };
        let partition = topic.partition_mut(compaction.partition).ok()?;
        let complete = compaction.pass.step(partition, horizon);
        if complete {
            self.store.cleaned(compaction.topic, compaction.partition, partition);
        }
        (!complete).then_some(compaction)
    }

    fn needs_another_look(&mut self) -> bool {
        self.topics.iter_mut().any(|(_, topic)| {
            let settings = topic.settings().clone();
            let mut partitions = topic.partitions_mut().iter();
            partitions.any(|partition| partition.needs_a_look(&settings))
        })
    }
}
