use super::*;
use crate::log::LogError;

#[test]
fn a_topic_shows_what_it_was_created_with() {
    let world = World::new();
    let admin = world.log.admin();
    assert_eq!(admin.topic("t", ANY).unwrap(), None);
    world.create(
        "t",
        3,
        &[
            ("cleanup.policy", "compact"),
            ("max.message.bytes", "2000"),
            ("delete.retention.ms", "5000"),
            ("retention.ms", "-1"),
        ],
    );
    let info = admin.topic("t", ANY).unwrap().unwrap();
    assert_eq!(
        (info.partitions, &*info.cleanup_policy, info.max_message_bytes),
        (3, "compact", 2000)
    );
    assert_eq!(info.delete_retention_ms, 5_000);
    world.create("defaults", 1, &[]);
    let info = admin.topic("defaults", ANY).unwrap().unwrap();
    assert_eq!((&*info.cleanup_policy, info.max_message_bytes), ("delete", 1_048_588));
    assert_eq!(info.delete_retention_ms, 86_400_000);
    let again = admin.create_topic(&spec("t", 1, &[]), ANY);
    assert!(matches!(again, Err(LogError::TopicExists { .. })));
}

#[test]
fn impossible_topics_are_refused() {
    let world = World::new();
    let mut replicated = spec("t", 1, &[]);
    replicated.replication = Some(3);
    let refused = [
        spec("", 1, &[]),
        spec("..", 1, &[]),
        spec("white space", 1, &[]),
        spec(&"x".repeat(250), 1, &[]),
        spec("t", 0, &[]),
        spec("t", 1, &[("cleanup.policy", "shred")]),
        spec("t", 1, &[("max.message.bytes", "-1")]),
        spec("t", 1, &[("retention.sm", "1")]),
        replicated,
    ];
    for spec in refused {
        let answer = world.log.admin().create_topic(&spec, ANY);
        assert!(matches!(answer, Err(LogError::Refused { .. })), "{spec:?}: {answer:?}");
    }
}

#[test]
fn a_deleted_topic_is_gone_and_deleting_it_again_is_no_error() {
    let world = World::with_topic();
    send(&mut *world.producer(None), "value");
    let admin = world.log.admin();
    admin.delete_topic("t", ANY).unwrap();
    admin.delete_topic("t", ANY).unwrap();
    assert_eq!(admin.topic("t", ANY).unwrap(), None);
    let watermarks = admin.watermarks(&TopicPartition::new("t", 0), ANY);
    assert!(matches!(watermarks, Err(LogError::UnknownTopic { .. })));
    world.create("t", 1, &[]);
    assert_eq!(world.watermarks("t"), Watermarks { low: 0, high: 0 });
}

#[test]
fn records_of_a_topic_are_deleted_according_to_its_policy() {
    let world = World::new();
    for (topic, policy) in [("d", "delete"), ("c", "compact"), ("cd", "compact,delete")] {
        world.create(topic, 1, &[("cleanup.policy", policy)]);
        let mut producer = world.log.producer("test", None).unwrap();
        producer.prepare(&[topic.into()]).unwrap();
        for _ in 0..10 {
            send(&mut *producer, "value");
        }
    }
    let admin = world.log.admin();
    let before = |topic: &str, offset| [(TopicPartition::new(topic, 0), offset)];
    for topic in ["d", "cd"] {
        admin.delete_records(&before(topic, 4), ANY).unwrap();
        assert_eq!(world.watermarks(topic), Watermarks { low: 4, high: 10 });
        // Below the low watermark there is nothing to do, beyond the high watermark nothing to delete.
        admin.delete_records(&before(topic, 2), ANY).unwrap();
        let beyond = admin.delete_records(&before(topic, 11), ANY);
        assert!(matches!(beyond, Err(LogError::OffsetOutOfRange { offset: 11, .. })));
        assert_eq!(world.watermarks(topic).low, 4);
        let mut consumer = world.consumer(Isolation::ReadCommitted, topic, 4);
        let batch = consumer.poll(100, ANY).unwrap().unwrap();
        assert_eq!((batch.record(0).offset, values_of(&*batch).len()), (4, 6));
    }
    let refused = admin.delete_records(&before("c", 4), ANY);
    assert!(matches!(refused, Err(LogError::Refused { .. })));
    assert_eq!(world.watermarks("c"), Watermarks { low: 0, high: 10 });
    admin.delete_records(&before("d", -1), ANY).unwrap();
    assert_eq!(world.watermarks("d"), Watermarks { low: 10, high: 10 });
}

#[test]
fn one_refusal_does_not_stop_the_deletion_in_other_partitions() {
    let world = World::new();
    world.create("t", 2, &[]);
    send(&mut *world.producer(None), "value");
    let before = [(t([1])[0].clone(), 5), (t([0])[0].clone(), 1)];
    let answer = world.log.admin().delete_records(&before, ANY);
    assert!(matches!(answer, Err(LogError::OffsetOutOfRange { .. })));
    assert_eq!(world.watermarks("t").low, 1);
}

#[test]
fn a_record_that_is_too_large_is_refused_and_leaves_nothing_behind() {
    let world = World::new();
    world.create("t", 1, &[("max.message.bytes", "200")]);
    let mut producer = world.producer(None);
    let too_large = "x".repeat(200);
    let refused = send_to(&mut *producer, OutTopic(0), 0, &too_large);
    assert!(matches!(refused, Err(LogError::RecordTooLarge { bytes: 203, .. })));
    // Batch header 61, length of the record 2, attributes and deltas 3, key 1 + 3, value 2 + 127, header count 1.
    send(&mut *producer, &"x".repeat(127));
    let one_more = send_to(&mut *producer, OutTopic(0), 0, &"x".repeat(128));
    assert!(matches!(one_more, Err(LogError::RecordTooLarge { .. })));
    assert_eq!(world.watermarks("t").high, 1);
}
