use super::*;
use crate::log::LogError;

#[test]
fn records_come_back_as_they_were_sent() {
    let world = World::with_topic();
    let mut producer = world.producer(None);
    let mut headers = Headers::default();
    headers.push("trace", Some(vec![1, 2]));
    headers.push("trace", None);
    let record = |key, value, timestamp_ms, headers| OutRecord {
        topic: OutTopic(0),
        partition: 0,
        key,
        value,
        timestamp_ms,
        headers,
    };
    let none = Headers::default();
    producer.send(&record(Some(b"k"), Some(b"v"), 1_234, &headers)).unwrap();
    producer.send(&record(None, Some(b""), -1, &none)).unwrap();
    producer.send(&record(Some(b""), None, -5_000, &none)).unwrap();

    let mut consumer = world.consumer(Isolation::ReadCommitted, "t", 0);
    let batch = consumer.poll(10, ANY).unwrap().unwrap();
    let records: Vec<_> = (0..3).map(|index| batch.record(index)).collect();
    assert_eq!(records.iter().map(|r| r.offset).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(
        records.iter().map(|r| r.timestamp_ms).collect::<Vec<_>>(),
        [1_234, -1, -5_000]
    );
    assert_eq!((records[0].key, records[0].value), (Some(&b"k"[..]), Some(&b"v"[..])));
    assert_eq!((records[1].key, records[1].value), (None, Some(&b""[..])));
    assert_eq!((records[2].key, records[2].value), (Some(&b""[..]), None));
    assert_eq!(batch.headers(0), headers);
    assert_eq!(batch.headers(1), none);
}

#[test]
fn a_batch_stays_valid_while_the_log_goes_on() {
    let world = World::with_topic();
    let mut producer = world.producer(None);
    send(&mut *producer, "first");
    let mut consumer = world.consumer(Isolation::ReadCommitted, "t", 0);
    let batch = consumer.poll(10, ANY).unwrap().unwrap();
    for number in 0..20_000 {
        send(&mut *producer, &number.to_string());
    }
    let admin = world.log.admin();
    admin.delete_records(&[(t([0])[0].clone(), 20_001)], ANY).unwrap();
    admin.delete_topic("t", ANY).unwrap();
    assert_eq!(values_of(&*batch), ["first"]);
}

#[test]
fn every_record_is_delivered_once_whatever_the_size_of_a_poll() {
    let world = World::with_topic();
    let mut producer = world.producer(None);
    let mut consumer = world.consumer(Isolation::ReadCommitted, "t", 0);
    let mut seen = Vec::new();
    for number in 0..25_000 {
        send(&mut *producer, &number.to_string());
        if number % 977 == 0
            && let Some(batch) = consumer.poll(1 + number % 450, ANY).unwrap()
        {
            seen.extend(values_of(&*batch));
        }
    }
    while let Some(batch) = consumer.poll(4_000, ANY).unwrap() {
        assert!(values_of(&*batch).len() <= 4_000);
        seen.extend(values_of(&*batch));
    }
    let sent: Vec<_> = (0..25_000).map(|number| number.to_string()).collect();
    assert!(seen == sent);
}

#[test]
fn a_poll_shares_its_records_among_the_partitions() {
    let world = World::new();
    world.create("t", 3, &[]);
    let mut producer = world.producer(None);
    for number in 0..100 {
        for partition in [0, 2] {
            send_to(&mut *producer, OutTopic(0), partition, &number.to_string()).unwrap();
        }
    }
    let mut consumer = world.log.consumer("test", Isolation::ReadCommitted).unwrap();
    let slots = [(7, 0), (8, 1), (9, 2)];
    let assignments = slots.map(|(slot, partition)| assignment(slot, "t", partition, 0));
    consumer.assign(&assignments).unwrap();
    let batch = consumer.poll(30, ANY).unwrap().unwrap();
    let runs: Vec<_> = batch.runs().iter().map(|run| (run.slot, run.end - run.start)).collect();
    // Partition 1 is empty and leaves its share to the one behind it.
    assert_eq!(runs, [(7, 10), (9, 20)]);
    let polls = std::iter::from_fn(|| consumer.poll(30, ANY).unwrap());
    assert_eq!(polls.map(|batch| values_of(&*batch).len()).sum::<usize>(), 170);
    assert_eq!(
        [7, 8, 9].map(|slot| consumer.position(slot)),
        [Some(100), Some(0), Some(100)]
    );
}

#[test]
fn an_assignment_replaces_the_former_one_wholly() {
    let world = World::new();
    world.create("t", 2, &[]);
    let mut producer = world.producer(None);
    send_to(&mut *producer, OutTopic(0), 0, "zero").unwrap();
    send_to(&mut *producer, OutTopic(0), 1, "one").unwrap();
    let mut consumer = world.log.consumer("test", Isolation::ReadCommitted).unwrap();
    consumer.assign(&[assignment(0, "t", 0, 0)]).unwrap();
    consumer.assign(&[assignment(1, "t", 1, 0)]).unwrap();
    assert_eq!(values_of(&*consumer.poll(10, ANY).unwrap().unwrap()), ["one"]);
    assert!(consumer.poll(10, ANY).unwrap().is_none());
    assert_eq!(consumer.position(0), None);
}

#[test]
fn a_paused_partition_delivers_nothing_until_it_is_resumed() {
    let world = World::with_topic();
    send(&mut *world.producer(None), "value");
    let mut consumer = world.consumer(Isolation::ReadCommitted, "t", 0);
    consumer.pause(&[0], true).unwrap();
    assert!(consumer.poll(10, ANY).unwrap().is_none());
    consumer.pause(&[0], false).unwrap();
    assert_eq!(values_of(&*consumer.poll(10, ANY).unwrap().unwrap()), ["value"]);
}

#[test]
fn position_and_end_are_unknown_before_the_first_fetch() {
    let world = World::with_topic();
    let mut consumer = world.consumer(Isolation::ReadCommitted, "t", 0);
    assert_eq!((consumer.position(0), consumer.end_offset(0)), (None, None));
    assert!(consumer.poll(10, ANY).unwrap().is_none());
    assert_eq!((consumer.position(0), consumer.end_offset(0)), (Some(0), Some(0)));
}

#[test]
fn an_offset_that_is_not_there_is_an_error_and_never_a_jump() {
    let world = World::with_topic();
    let mut producer = world.producer(None);
    for value in ["a", "b", "c"] {
        send(&mut *producer, value);
    }
    let admin = world.log.admin();
    admin.delete_records(&[(t([0])[0].clone(), 2)], ANY).unwrap();
    for offset in [-1, 1, 4] {
        let mut consumer = world.consumer(Isolation::ReadCommitted, "t", offset);
        let error = consumer.poll(10, ANY).err().unwrap();
        assert!(
            matches!(&error, LogError::OffsetOutOfRange { offset: reported, .. } if *reported == offset),
            "{error}"
        );
        assert!(consumer.poll(10, ANY).unwrap().is_none());
    }
    // The end itself is a fine place to wait.
    let mut consumer = world.consumer(Isolation::ReadCommitted, "t", 3);
    assert!(consumer.poll(10, ANY).unwrap().is_none());
}

#[test]
fn one_partition_out_of_range_does_not_hide_the_records_of_another() {
    let world = World::new();
    world.create("t", 2, &[]);
    send(&mut *world.producer(None), "value");
    let mut consumer = world.log.consumer("test", Isolation::ReadCommitted).unwrap();
    let assignments = [assignment(0, "t", 0, 0), assignment(1, "t", 1, 5)];
    consumer.assign(&assignments).unwrap();
    assert_eq!(values_of(&*consumer.poll(10, ANY).unwrap().unwrap()), ["value"]);
    assert!(matches!(
        consumer.poll(10, ANY),
        Err(LogError::OffsetOutOfRange { offset: 5, .. })
    ));
}

#[test]
fn a_partition_that_does_not_exist_is_told_by_the_poll() {
    let world = World::with_topic();
    for (topic, partition) in [("no-such-topic", 0), ("t", 1), ("t", -1)] {
        let mut consumer = world.log.consumer("test", Isolation::ReadCommitted).unwrap();
        consumer.assign(&[assignment(0, topic, partition, 0)]).unwrap();
        let error = consumer.poll(10, ANY).err().unwrap();
        assert!(matches!(&error, LogError::UnknownTopic { topic: named } if named == topic));
        assert_eq!(consumer.position(0), None);
    }
}

#[test]
fn a_slot_names_one_partition() {
    let world = World::with_topic();
    let mut consumer = world.log.consumer("test", Isolation::ReadCommitted).unwrap();
    let twice = consumer.assign(&[assignment(0, "t", 0, 0), assignment(0, "t", 0, 0)]);
    assert!(matches!(twice, Err(LogError::Fatal { .. })));
    assert!(matches!(consumer.pause(&[0], true), Err(LogError::Fatal { .. })));
}

#[test]
fn a_topic_that_is_deleted_under_a_reader_is_an_error() {
    let world = World::with_topic();
    let mut consumer = world.consumer(Isolation::ReadCommitted, "t", 0);
    world.log.admin().delete_topic("t", ANY).unwrap();
    // One of the same name is another topic.
    world.create("t", 1, &[]);
    assert!(matches!(consumer.poll(10, ANY), Err(LogError::UnknownTopic { .. })));
}
