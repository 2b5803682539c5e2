//! Administration.

use tidegate::ids::TopicPartition;
use tidegate::log::{Isolation, Log, LogError, Watermarks};

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
    let again = spec(&topic, 3, &[]);
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

/// Settings change one by one: a compacted topic whose records may be deleted from now on.
pub fn a_setting_of_a_topic_changes_and_the_others_stay(log: &dyn Log) {
    let topic = unique("altered");
    let given = [("cleanup.policy", "compact"), ("delete.retention.ms", "90000000")];
    create(log, &topic, 1, &given);
    write(log, &topic, &["a", "b", "c"]);
    let alter = |config: &[(&str, &str)]| {
        let config = config
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        log.admin().alter_topic(&topic, &config.collect::<Vec<_>>(), PATIENCE)
    };
    alter(&[("cleanup.policy", "delete"), ("retention.ms", "-1")]).expect("settings can be changed");
    let info = log.admin().topic(&topic, PATIENCE).expect("the log answers");
    let info = info.expect("the topic exists");
    assert_eq!((info.cleanup_policy.as_str(), info.retention_ms), ("delete", -1));
    assert_eq!(info.retention_bytes, -1);
    assert_eq!(info.delete_retention_ms, 90_000_000, "what was not named stays");
    let partition = TopicPartition::new(topic.as_str(), 0);
    log.admin()
        .delete_records(&[(partition.clone(), 2)], PATIENCE)
        .expect("the new policy allows it");
    let watermarks = log.admin().watermarks(&partition, PATIENCE).expect("the log answers");
    assert_eq!(watermarks.low, 2);
    alter(&[("cleanup.policy", "compact")]).expect("settings can be changed back");
    match log.admin().delete_records(&[(partition, 3)], PATIENCE) {
        Err(LogError::Refused { .. }) => {}
        other => panic!("deleting from a compacted topic gave {other:?}"),
    }
    match alter(&[("cleanup.policy", "sometimes")]) {
        Err(LogError::Refused { .. }) => {}
        other => panic!("a policy that does not exist gave {other:?}"),
    }
    match log.admin().alter_topic(&unique("missing"), &[], PATIENCE) {
        Err(LogError::UnknownTopic { .. }) => {}
        other => panic!("altering a topic that does not exist gave {other:?}"),
    }
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

/// A partition that nothing was written to.
pub fn the_watermarks_of_an_empty_partition_are_zero(log: &dyn Log) {
    let topic = unique("empty");
    create(log, &topic, 1, &[]);
    let partition = TopicPartition::new(topic.as_str(), 0);
    let watermarks = log.admin().watermarks(&partition, PATIENCE).expect("the log answers");
    assert_eq!(watermarks, Watermarks { low: 0, high: 0 });
}

/// What is not said is as Kafka has it.
pub fn a_topic_has_kafkas_defaults(log: &dyn Log) {
    let topic = unique("defaults");
    create(log, &topic, 2, &[]);
    let info = log.admin().topic(&topic, PATIENCE).expect("the log answers");
    let info = info.expect("the topic exists");
    assert_eq!(info.partitions, 2);
    assert_eq!(info.cleanup_policy, "delete");
    assert_eq!(info.delete_retention_ms, 86_400_000);
    assert_eq!(info.max_message_bytes, 1_048_588);
}

/// Topics that cannot be.
pub fn impossible_topics_are_refused(log: &dyn Log) {
    let good = unique("good");
    for impossible in [
        spec("not/a/name", 1, &[]),
        spec(&good, 1, &[("cleanup.policy", "shred")]),
        spec(&good, 1, &[("no.such.setting", "1")]),
    ] {
        let refused = log.admin().create_topic(&impossible, PATIENCE);
        assert!(
            matches!(refused, Err(LogError::Refused { .. })),
            "{impossible:?} gave {refused:?}"
        );
    }
    assert_eq!(log.admin().topic(&good, PATIENCE).expect("the log answers"), None);
}

/// Trimming twice, and less than before.
pub fn deleting_records_never_moves_the_start_back(log: &dyn Log) {
    let topic = unique("trim");
    create(log, &topic, 1, &[]);
    write(log, &topic, &["a", "b", "c"]);
    let partition = TopicPartition::new(topic.as_str(), 0);
    for (before, low) in [(2, 2), (2, 2), (1, 2), (4, 4)] {
        log.admin()
            .delete_records(&[(partition.clone(), before)], PATIENCE)
            .expect("the policy allows it");
        let watermarks = log.admin().watermarks(&partition, PATIENCE).expect("the log answers");
        assert_eq!(watermarks, Watermarks { low, high: 4 });
    }
}

/// Trimming cuts into open transactions.
pub fn records_may_be_deleted_beyond_the_last_stable_offset(log: &dyn Log) {
    let topic = unique("beyond");
    create(log, &topic, 1, &[("cleanup.policy", "delete")]);
    let mut open = producer(log, Some(&unique("id")), &[&topic]);
    open.begin().expect("a transaction");
    send(&mut *open, 0, "pending");
    wait_for("the record is written", || high(log, &topic, 0) == 1);
    let partition = TopicPartition::new(topic.as_str(), 0);
    log.admin()
        .delete_records(&[(partition, 1)], PATIENCE)
        .expect("the broker is no guard here");
    finish(&mut *open, commit_of(no_group(), &[])).expect("the transaction commits all the same");
    wait_for("the marker is written", || high(log, &topic, 0) == 2);
    let mut consumer = reader(log, &topic, 0, 1, Isolation::ReadCommitted);
    assert_eq!(read_until(&mut *consumer, 2), [], "and its record is gone");
}

/// Partition counts come in the order in which topics were named.
pub fn a_producer_learns_the_partition_counts_in_order(log: &dyn Log) {
    let topics = [3, 1, 2].map(|partitions| {
        let topic = unique("counts");
        create(log, &topic, partitions, &[]);
        topic
    });
    let mut producer = log.producer("test", Some(&unique("id"))).expect("a producer");
    producer.init(PATIENCE).expect("the producer can be initialised");
    let names: Vec<std::sync::Arc<str>> = topics.iter().map(|topic| topic.as_str().into()).collect();
    assert_eq!(producer.prepare(&names).expect("the topics are known"), [3, 1, 2]);
}
