//! Administration of the embedded log.

use std::sync::Arc;
use std::time::Duration;

use super::broker::BrokerError;
use super::link::{Interest, Link};
use super::member::DescribeGroup;
use super::offsets::FetchOffsets;
use super::topic::{AlterTopic, CreateTopic, DeleteRecords, DeleteTopic, DescribeTopic, ListOffsets};
use crate::ids::TopicPartition;
use crate::log::{Admin, CommittedOffset, GroupState, LogError, LogResult, TopicInfo, TopicSpec, Watermarks};
use crate::planted::{Bug, planted};

/// See [`Admin`]; nothing but [`Admin::committed`] ever waits.
pub(super) struct EmbeddedAdmin {
    link: Link,
}

impl EmbeddedAdmin {
    pub fn new(link: Link) -> Self {
        Self { link }
    }
}

fn refused(operation: &str, subject: impl ToString, error: &BrokerError) -> LogError {
    LogError::Refused {
        operation: operation.to_owned(),
        subject: subject.to_string(),
        reason: error.to_string(),
    }
}

fn unknown(topic: &str) -> LogError {
    LogError::UnknownTopic {
        topic: topic.to_owned(),
    }
}

impl Admin for EmbeddedAdmin {
    fn topic(&self, name: &str, _timeout: Duration) -> LogResult<Option<TopicInfo>> {
        match self.link.call(DescribeTopic(name.into())) {
            Ok((_, info)) => Ok(Some(info)),
            Err(BrokerError::UnknownTopicOrPartition) => Ok(None),
            Err(error) => Err(refused("describing a topic", name, &error)),
        }
    }

    fn create_topic(&self, spec: &TopicSpec, _timeout: Duration) -> LogResult<()> {
        self.link.call(CreateTopic(spec.clone())).map_err(|error| match error {
            BrokerError::TopicAlreadyExists => LogError::TopicExists {
                topic: spec.name.to_string(),
            },
            error => refused("creating a topic", &spec.name, &error),
        })
    }

    fn alter_topic(&self, name: &str, config: &[(String, String)], _timeout: Duration) -> LogResult<()> {
        let altered = self.link.call(AlterTopic {
            name: name.into(),
            config: config.to_vec(),
        });
        altered.map_err(|error| match error {
            BrokerError::UnknownTopicOrPartition => unknown(name),
            error => refused("altering a topic", name, &error),
        })
    }

    fn delete_topic(&self, name: &str, _timeout: Duration) -> LogResult<()> {
        match self.link.call(DeleteTopic(Arc::from(name))) {
            Ok(()) | Err(BrokerError::UnknownTopicOrPartition) => Ok(()),
            Err(error) => Err(refused("deleting a topic", name, &error)),
        }
    }

    fn watermarks(&self, partition: &TopicPartition, _timeout: Duration) -> LogResult<Watermarks> {
        let answer = self.link.call(ListOffsets(partition.clone()));
        answer.map_err(|error| match error {
            BrokerError::UnknownTopicOrPartition => unknown(&partition.topic),
            error => refused("reading watermarks", partition, &error),
        })
    }

    fn delete_records(&self, before: &[(TopicPartition, i64)], _timeout: Duration) -> LogResult<()> {
        let mut outcome = Ok(());
        for (partition, offset) in before {
            // One partition's refusal does not stop the others; the first is reported.
            let deleted = self.link.call(DeleteRecords {
                partition: partition.clone(),
                before: *offset,
            });
            outcome = outcome.and(deleted.map_err(|error| match error {
                BrokerError::OffsetOutOfRange => LogError::OffsetOutOfRange {
                    partition: partition.clone(),
                    offset: *offset,
                },
                BrokerError::UnknownTopicOrPartition => unknown(&partition.topic),
                error => refused("deleting records", partition, &error),
            }));
        }
        outcome
    }

    fn committed(
        &self,
        group: &str,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> LogResult<Vec<Option<CommittedOffset>>> {
        let request = FetchOffsets {
            group: group.to_owned(),
            partitions: partitions.to_vec(),
            require_stable: !planted(Bug::IgnorePendingOffsets),
        };
        let answer = self.link.call_until(request, timeout, Interest::Settled, Result::is_ok);
        answer.map_err(|error| LogError::TimedOut {
            operation: format!("reading the committed offsets of group {group} ({error})"),
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        })
    }

    fn group(&self, group: &str, _timeout: Duration) -> LogResult<GroupState> {
        let answer = self.link.call(DescribeGroup(group.to_owned()));
        answer.map_err(|error| refused("describing a group", group, &error))
    }
}
