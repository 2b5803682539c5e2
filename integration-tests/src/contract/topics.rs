//! Administration.

use tidegate::ids::TopicPartition;
use tidegate::log::{Isolation, Log, LogError, TopicSpec, Watermarks};

use crate::broker::unique;
use crate::drive::*;

/// A topic that does not exist, from every side.
pub fn a_missing_topic_is_named(log: &dyn Log) {
    let topic = unique("missing");
    assert_eq!(log.admin().topic(&topic, PATIENCE).expect("the log answers"), None);
    let is_named = |error: LogError| match error {
        LogError::UnknownTopic { topic: named } => assert_eq!(named, topic),
        other => panic!("expected an unknown topic, got {other}"),
    };
    let mut producer = log.producer("test", Some(&unique("writer"))).expect("a producer");
    producer.init(PATIENCE).expect("the producer can be initialised");
    is_named(
        producer
            .prepare(&[topic.as_str().into()])
            .expect_err("the topic is missing"),
    );
    is_named(first_error(&mut *reader(log, &topic, 0, 0, Isolation::ReadCommitted)));
    let partition = TopicPartition::new(topic.as_str(), 0);
    is_named(
        log.admin()
            .watermarks(&partition, PATIENCE)
            .expect_err("the topic is missing"),
    );
}

/// The life of a topic.
pub fn topics_are_created_described_and_deleted(log: &dyn Log) {
    let topic = unique("topic");
    create(
        log,
        &topic,
        3,
        &[
            ("cleanup.policy", "compact"),
            ("delete.retention.ms", "90000000"),
            ("max.message.bytes", "200000"),
        ],
    );
    let info = log
        .admin()
        .topic(&topic, PATIENCE)
        .expect("the log answers")
        .expect("the topic exists");
    assert_eq!(
        (info.partitions, info.cleanup_policy.as_str(), info.max_message_bytes),
        (3, "compact", 200_000)
    );
    assert_eq!(info.delete_retention_ms, 90_000_000);
    let again = TopicSpec {
        name: topic.as_str().into(),
        partitions: 3,
        replication: None,
        config: Vec::new(),
    };
    match log.admin().create_topic(&again, PATIENCE) {
        Err(LogError::TopicExists { topic: named }) => assert_eq!(named, topic),
        other => panic!("a second topic of the same name gave {other:?}"),
    }
    log.admin()
        .delete_topic(&topic, PATIENCE)
        .expect("the topic can be deleted");
    assert_eq!(log.admin().topic(&topic, PATIENCE).expect("the log answers"), None);
    log.admin()
        .delete_topic(&topic, PATIENCE)
        .expect("deleting what is not there is no error");
}

/// Trimming a log.
pub fn records_are_deleted_only_where_the_policy_allows_it(log: &dyn Log) {
    for (policy, allowed) in [("delete", true), ("compact,delete", true), ("compact", false)] {
        let topic = unique("trim");
        create(log, &topic, 1, &[("cleanup.policy", policy)]);
        write(log, &topic, &["a", "b", "c"]);
        let partition = TopicPartition::new(topic.as_str(), 0);
        let end = high(log, &topic, 0);
        let deleted = log.admin().delete_records(&[(partition.clone(), 2)], PATIENCE);
        match deleted {
            Ok(()) => assert!(allowed, "{policy} must refuse"),
            Err(LogError::Refused { .. }) => assert!(!allowed, "{policy} must allow"),
            Err(other) => panic!("{policy} gave {other}"),
        }
        let low = if allowed { 2 } else { 0 };
        let watermarks = log.admin().watermarks(&partition, PATIENCE).expect("the log answers");
        assert_eq!(watermarks, Watermarks { low, high: end });
        if allowed {
            let beyond = log.admin().delete_records(&[(partition, end + 1)], PATIENCE);
            assert!(matches!(beyond, Err(LogError::OffsetOutOfRange { .. })), "{beyond:?}");
        }
    }
}
