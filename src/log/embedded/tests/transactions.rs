use super::*;
use crate::log::LogError;

#[test]
fn records_become_visible_with_their_commit() {
    let world = World::with_topic();
    let mut producer = world.producer(Some("id"));
    producer.begin().unwrap();
    send(&mut *producer, "a");
    send(&mut *producer, "b");
    assert_eq!(world.committed_values(), [""; 0]);
    assert_eq!(world.values(Isolation::ReadUncommitted, "t"), ["a", "b"]);
    commit(&mut *producer, commit_of(nobody(), &[])).unwrap();
    assert_eq!(world.committed_values(), ["a", "b"]);
}

#[test]
fn aborted_records_stay_invisible_to_those_who_read_committed() {
    let world = World::with_topic();
    let mut producer = world.producer(Some("id"));
    produce(&mut *producer, &["a"]);
    producer.begin().unwrap();
    send(&mut *producer, "aborted");
    producer.abort(ANY).unwrap();
    produce(&mut *producer, &["b"]);
    assert_eq!(world.committed_values(), ["a", "b"]);
    assert_eq!(world.values(Isolation::ReadUncommitted, "t"), ["a", "aborted", "b"]);
}

#[test]
fn transactions_that_interleave_end_each_for_itself() {
    let world = World::with_topic();
    let mut committing = world.producer(Some("committing"));
    let mut aborting = world.producer(Some("aborting"));
    let mut plain = world.producer(None);
    committing.begin().unwrap();
    aborting.begin().unwrap();
    for round in ["1", "2"] {
        send(&mut *committing, &format!("committed-{round}"));
        send(&mut *aborting, &format!("aborted-{round}"));
        send(&mut *plain, &format!("plain-{round}"));
    }
    aborting.abort(ANY).unwrap();
    // The oldest open transaction holds everything behind it back, also what is not of any transaction.
    assert_eq!(world.committed_values(), [""; 0]);
    commit(&mut *committing, commit_of(nobody(), &[])).unwrap();
    assert_eq!(
        world.committed_values(),
        ["committed-1", "plain-1", "committed-2", "plain-2"]
    );
}

#[test]
fn control_records_take_offsets_and_the_position_passes_them() {
    let world = World::with_topic();
    let mut producer = world.producer(Some("id"));
    for _ in 0..10 {
        produce(&mut *producer, &["value"; 100]);
    }
    assert_eq!(world.watermarks("t").high, 1010);
    producer.begin().unwrap();
    for _ in 0..50 {
        send(&mut *producer, "aborted");
    }
    producer.abort(ANY).unwrap();
    assert_eq!(world.watermarks("t").high, 1061);
    for isolation in [Isolation::ReadCommitted, Isolation::ReadUncommitted] {
        let mut consumer = world.consumer(isolation, "t", 0);
        let mut last_offset = -1;
        while let Some(batch) = consumer.poll(64, ANY).unwrap() {
            last_offset = batch.record(batch.runs()[0].end - 1).offset;
        }
        let expected_last = match isolation {
            Isolation::ReadCommitted => 1008,
            Isolation::ReadUncommitted => 1059,
        };
        assert_eq!(last_offset, expected_last);
        assert_eq!((consumer.position(0), consumer.end_offset(0)), (Some(1061), Some(1061)));
    }
}

#[test]
fn an_orphan_transaction_holds_the_position_at_the_last_stable_offset_without_a_word() {
    let world = World::with_topic();
    let mut producer = world.producer(Some("id"));
    produce(&mut *producer, &["a", "b"]);
    let mut orphan = world.producer(Some("orphan"));
    orphan.begin().unwrap();
    send(&mut *orphan, "orphaned");
    drop(orphan);
    produce(&mut *producer, &["c"]);

    let mut consumer = world.consumer(Isolation::ReadCommitted, "t", 0);
    assert_eq!(values_of(&*consumer.poll(10, ANY).unwrap().unwrap()), ["a", "b"]);
    assert!(consumer.poll(10, ANY).unwrap().is_none());
    assert_eq!((consumer.position(0), consumer.end_offset(0)), (Some(3), Some(3)));
    assert_eq!(world.watermarks("t").high, 6);

    world.clock.advance(Duration::from_secs(60));
    assert_eq!(values_of(&*consumer.poll(10, ANY).unwrap().unwrap()), ["c"]);
    assert!(consumer.poll(10, ANY).unwrap().is_none());
    // The abort marker has moved the high watermark by one.
    assert_eq!(world.watermarks("t").high, 7);
    assert_eq!(consumer.position(0), Some(7));
}

#[test]
fn deletion_may_cut_into_an_open_transaction() {
    let world = World::with_topic();
    let mut producer = world.producer(Some("id"));
    producer.begin().unwrap();
    for _ in 0..12 {
        send(&mut *producer, "value");
    }
    let admin = world.log.admin();
    admin.delete_records(&[(t([0])[0].clone(), 12)], ANY).unwrap();
    commit(&mut *producer, commit_of(nobody(), &[])).unwrap();
    assert_eq!(world.watermarks("t"), Watermarks { low: 12, high: 13 });
    let mut consumer = world.consumer(Isolation::ReadCommitted, "t", 12);
    assert!(consumer.poll(10, ANY).unwrap().is_none());
    assert_eq!(consumer.position(0), Some(13));
}

#[test]
fn a_reader_within_a_cut_transaction_waits_for_its_end() {
    let world = World::with_topic();
    let mut producer = world.producer(Some("id"));
    producer.begin().unwrap();
    for value in ["a", "b", "c"] {
        send(&mut *producer, value);
    }
    let admin = world.log.admin();
    admin.delete_records(&[(t([0])[0].clone(), 1)], ANY).unwrap();
    let mut consumer = world.consumer(Isolation::ReadCommitted, "t", 1);
    assert!(consumer.poll(10, ANY).unwrap().is_none());
    assert_eq!((consumer.position(0), consumer.end_offset(0)), (Some(1), Some(1)));
    commit(&mut *producer, commit_of(nobody(), &[])).unwrap();
    assert_eq!(values_of(&*consumer.poll(10, ANY).unwrap().unwrap()), ["b", "c"]);
}

#[test]
fn increments_are_part_of_the_transaction() {
    let world = World::with_topic();
    let mut producer = world.producer(Some("id"));
    producer.begin().unwrap();
    let mut with_increment = commit_of(nobody(), &[]);
    with_increment.batches = vec![increment(&[("a", Some("1")), ("b", None)])];
    commit(&mut *producer, with_increment).unwrap();
    let mut consumer = world.consumer(Isolation::ReadCommitted, "t", 0);
    let batch = consumer.poll(10, ANY).unwrap().unwrap();
    assert_eq!(
        (batch.record(0).key, batch.record(0).value),
        (Some(&b"a"[..]), Some(&b"1"[..]))
    );
    assert_eq!((batch.record(1).key, batch.record(1).value), (Some(&b"b"[..]), None));
    assert_eq!(batch.record(0).timestamp_ms, world.clock.wall_ms());
    assert_eq!(world.watermarks("t").high, 3);
}

#[test]
fn an_increment_too_large_for_one_request_arrives_whole_and_in_order() {
    let world = World::with_topic();
    let mut producer = world.producer(Some("id"));
    producer.begin().unwrap();
    let value = "x".repeat(1000);
    let keys: Vec<_> = (0..3_000).map(|number| format!("{number:05}")).collect();
    let records: Vec<_> = keys.iter().map(|key| (&**key, Some(&*value))).collect();
    let mut with_increment = commit_of(nobody(), &[]);
    with_increment.batches = vec![increment(&records)];
    commit(&mut *producer, with_increment).unwrap();
    let mut consumer = world.consumer(Isolation::ReadCommitted, "t", 0);
    let batch = consumer.poll(10_000, ANY).unwrap().unwrap();
    let read = (0..batch.runs()[0].end).map(|index| batch.record(index).key.map(<[u8]>::to_vec));
    assert!(read.eq(keys.iter().map(|key| Some(key.as_bytes().to_vec()))));
}

#[test]
fn an_increment_with_a_record_too_large_aborts_the_transaction_as_a_whole() {
    let world = World::new();
    world.create("t", 1, &[("max.message.bytes", "200")]);
    let mut producer = world.producer(Some("id"));
    producer.begin().unwrap();
    send(&mut *producer, "small");
    let mut with_increment = commit_of(nobody(), &[]);
    with_increment.batches = vec![increment(&[("a", Some("1")), ("b", Some(&"x".repeat(300)))])];
    let outcome = commit(&mut *producer, with_increment);
    assert!(matches!(outcome, Err(LogError::RecordTooLarge { bytes: 301, .. })));
    // Committing again answers the same; only an abort helps.
    let again = commit(&mut *producer, commit_of(nobody(), &[]));
    assert!(matches!(again, Err(LogError::RecordTooLarge { .. })));
    producer.abort(ANY).unwrap();
    produce(&mut *producer, &["after"]);
    assert_eq!(world.committed_values(), ["after"]);
}

#[test]
fn a_transaction_without_records_leaves_no_trace() {
    let world = World::with_topic();
    let mut producer = world.producer(Some("id"));
    produce(&mut *producer, &[]);
    producer.begin().unwrap();
    producer.abort(ANY).unwrap();
    assert_eq!(world.watermarks("t").high, 0);
    produce(&mut *producer, &["a"]);
    assert_eq!(world.committed_values(), ["a"]);
}

#[test]
fn records_without_a_transaction_are_visible_at_once() {
    let world = World::with_topic();
    let mut producer = world.producer(None);
    producer.begin().unwrap();
    send(&mut *producer, "a");
    assert_eq!(world.committed_values(), ["a"]);
    commit(&mut *producer, commit_of(nobody(), &[])).unwrap();
    assert_eq!(world.watermarks("t").high, 1);
}

#[test]
fn calls_out_of_order_are_errors_and_change_nothing() {
    let world = World::with_topic();
    let fatal = |answer: LogResult<()>| assert!(matches!(answer, Err(LogError::Fatal { .. })), "{answer:?}");
    let mut producer = world.log.producer("test", Some("id")).unwrap();
    fatal(producer.begin());
    producer.init(ANY).unwrap();
    fatal(producer.init(ANY));
    producer.prepare(&["t".into()]).unwrap();
    fatal(send_to(&mut *producer, OutTopic(0), 0, "no transaction"));
    fatal(producer.abort(ANY));
    fatal(producer.start_commit(commit_of(nobody(), &[])));
    fatal(producer.poll_commit(ANY).unwrap());
    producer.begin().unwrap();
    fatal(producer.begin());
    fatal(send_to(&mut *producer, OutTopic(1), 0, "no such topic"));
    fatal(send_to(&mut *producer, OutTopic(0), 1, "no such partition"));
    send(&mut *producer, "a");
    producer.start_commit(commit_of(nobody(), &[])).unwrap();
    fatal(producer.start_commit(commit_of(nobody(), &[])));
    fatal(send_to(&mut *producer, OutTopic(0), 0, "during the commit"));
    fatal(producer.abort(ANY));
    producer.poll_commit(ANY).unwrap().unwrap();
    assert_eq!(world.committed_values(), ["a"]);
}

#[test]
fn a_topic_deleted_within_a_transaction_makes_it_abort() {
    let world = World::with_topic();
    let mut producer = world.producer(Some("id"));
    producer.begin().unwrap();
    send(&mut *producer, "a");
    world.log.admin().delete_topic("t", ANY).unwrap();
    let refused = send_to(&mut *producer, OutTopic(0), 0, "b");
    assert!(matches!(refused, Err(LogError::Abort { .. })));
    let outcome = commit(&mut *producer, commit_of(nobody(), &[]));
    assert!(matches!(outcome, Err(LogError::Abort { .. })));
    producer.abort(ANY).unwrap();
    producer.begin().unwrap();
}

#[test]
fn an_unknown_topic_cannot_be_prepared() {
    let world = World::with_topic();
    let mut producer = world.log.producer("test", None).unwrap();
    let unknown = producer.prepare(&["t".into(), "no-such-topic".into()]);
    assert!(matches!(unknown, Err(LogError::UnknownTopic { topic }) if topic == "no-such-topic"));
    world.create("u", 5, &[]);
    assert_eq!(producer.prepare(&["u".into(), "t".into()]).unwrap(), [5, 1]);
}
