//! Transactions of several producers and partitions, and what is left of producers that end.

use tidegate::ids::TopicPartition;
use tidegate::log::{Isolation, Log, LogError, OutBatch, OutRecord, OutTopic, Producer};
use tidegate::record::Headers;

use super::writing::Increment;
use crate::broker::unique;
use crate::drive::*;

/// A transactional producer with one record of an open transaction in the log.
fn with_an_open_record(log: &dyn Log, id: &str, topic: &str, value: &str) -> Box<dyn Producer> {
    let before = high(log, topic, 0);
    let mut producer = producer(log, Some(id), &[topic]);
    producer.begin().expect("a transaction");
    send(&mut *producer, 0, value);
    wait_for("the record is written", || high(log, topic, 0) > before);
    producer
}

/// The end of a partition once it has come to `end`.
fn wait_for_end(log: &dyn Log, topic: &str, end: i64) {
    wait_for("the marker is written", || high(log, topic, 0) == end);
}

/// One marker for each partition that was written to.
pub fn each_transaction_takes_one_offset_for_its_marker_in_each_partition(log: &dyn Log) {
    let topic = unique("markers");
    create(log, &topic, 3, &[]);
    let mut producer = producer(log, Some(&unique("id")), &[&topic]);
    for _ in 0..2 {
        producer.begin().expect("a transaction");
        send(&mut *producer, 0, "one");
        send(&mut *producer, 1, "one");
        send(&mut *producer, 1, "two");
        finish(&mut *producer, commit_of(no_group(), &[])).expect("the transaction commits");
    }
    for (partition, end) in [(0, 4), (1, 6), (2, 0)] {
        wait_for("the markers are written", || high(log, &topic, partition) == end);
    }
}

/// A transaction without records.
pub fn an_empty_transaction_leaves_no_marker(log: &dyn Log) {
    let topic = unique("markers");
    create(log, &topic, 1, &[]);
    let mut producer = producer(log, Some(&unique("id")), &[&topic]);
    for _ in 0..3 {
        producer.begin().expect("a transaction");
        finish(&mut *producer, commit_of(no_group(), &[])).expect("an empty transaction commits");
    }
    producer.begin().expect("a transaction");
    send(&mut *producer, 0, "one");
    finish(&mut *producer, commit_of(no_group(), &[])).expect("the transaction commits");
    wait_for_end(log, &topic, 2);
}

/// Markers are of transactions.
pub fn records_without_a_transaction_have_no_marker(log: &dyn Log) {
    let topic = unique("plain");
    create(log, &topic, 1, &[]);
    let mut producer = producer(log, None, &[&topic]);
    for value in ["one", "two"] {
        producer.begin().expect("an epoch");
        send(&mut *producer, 0, value);
        finish(&mut *producer, commit_of(no_group(), &[])).expect("everything is acknowledged");
    }
    assert_eq!(high(log, &topic, 0), 2);
    assert_eq!(committed_texts(log, &topic, 0), ["one", "two"]);
}

/// What stands behind an open transaction waits for it, whoever wrote it.
pub fn records_without_a_transaction_wait_behind_an_open_one(log: &dyn Log) {
    let topic = unique("mixed");
    create(log, &topic, 1, &[]);
    let mut open = with_an_open_record(log, &unique("id"), &topic, "pending");
    let mut plain = producer(log, None, &[&topic]);
    plain.begin().expect("an epoch");
    send(&mut *plain, 0, "plain");
    finish(&mut *plain, commit_of(no_group(), &[])).expect("everything is acknowledged");
    let mut consumer = reader(log, &topic, 0, 0, Isolation::ReadCommitted);
    wait_for("the reader knows how far it may read", || {
        assert_eq!(read_some(&mut *consumer, TICK), []);
        consumer.end_offset(0) == Some(0)
    });
    open.abort(PATIENCE).expect("the transaction can be aborted");
    let read = read_until(&mut *consumer, 3);
    assert_eq!(read.iter().map(Read::text).collect::<Vec<_>>(), ["plain"]);
}

/// Two open transactions in one partition; the later one ends first.
pub fn the_last_stable_offset_is_that_of_the_oldest_open_transaction(log: &dyn Log) {
    let topic = unique("interleaved");
    create(log, &topic, 1, &[]);
    let mut first = with_an_open_record(log, &unique("id"), &topic, "first");
    let mut second = with_an_open_record(log, &unique("id"), &topic, "second");
    finish(&mut *second, commit_of(no_group(), &[])).expect("the second commits");
    wait_for_end(log, &topic, 3);
    let mut consumer = reader(log, &topic, 0, 0, Isolation::ReadCommitted);
    wait_for("the reader knows how far it may read", || {
        assert_eq!(read_some(&mut *consumer, TICK), []);
        consumer.end_offset(0) == Some(0)
    });
    finish(&mut *first, commit_of(no_group(), &[])).expect("the first commits");
    let read = read_until(&mut *consumer, 4);
    assert_eq!(
        read.iter().map(Read::text).collect::<Vec<_>>(),
        ["first", "second"],
        "in order of their offsets, not of their ends"
    );
}

/// Of two transactions in one partition the first is aborted.
pub fn an_aborted_transaction_takes_nothing_of_its_neighbour_with_it(log: &dyn Log) {
    let topic = unique("neighbours");
    create(log, &topic, 1, &[]);
    let mut first = with_an_open_record(log, &unique("id"), &topic, "regretted");
    let mut second = with_an_open_record(log, &unique("id"), &topic, "meant");
    send(&mut *first, 0, "regretted too");
    wait_for("the record is written", || high(log, &topic, 0) == 3);
    first.abort(PATIENCE).expect("the transaction can be aborted");
    finish(&mut *second, commit_of(no_group(), &[])).expect("the second commits");
    wait_for_end(log, &topic, 5);
    assert_eq!(committed_texts(log, &topic, 0), ["meant"]);
}

/// A reader that starts in the midst of a transaction.
pub fn reading_from_the_midst_of_a_transaction_gives_its_rest(log: &dyn Log) {
    let topic = unique("midst");
    create(log, &topic, 1, &[]);
    write(log, &topic, &["a", "b", "c"]);
    let mut consumer = reader(log, &topic, 0, 1, Isolation::ReadCommitted);
    let read = read_until(&mut *consumer, 4);
    assert_eq!(read.iter().map(Read::text).collect::<Vec<_>>(), ["b", "c"]);
}

/// A reader that starts in the midst of an aborted transaction.
pub fn reading_from_the_midst_of_an_aborted_transaction_gives_nothing_of_it(log: &dyn Log) {
    let topic = unique("midst");
    create(log, &topic, 1, &[]);
    let mut producer = producer(log, Some(&unique("id")), &[&topic]);
    producer.begin().expect("a transaction");
    for value in ["a", "b", "c"] {
        send(&mut *producer, 0, value);
    }
    wait_for("the records are written", || high(log, &topic, 0) == 3);
    producer.abort(PATIENCE).expect("the transaction can be aborted");
    wait_for_end(log, &topic, 4);
    write(log, &topic, &["d"]);
    for start in 0..4 {
        let mut consumer = reader(log, &topic, 0, start, Isolation::ReadCommitted);
        let read = read_until(&mut *consumer, 6);
        assert_eq!(read.iter().map(Read::text).collect::<Vec<_>>(), ["d"], "from {start}");
    }
}

/// The marker itself as a starting point.
pub fn the_position_passes_a_marker_that_it_starts_at(log: &dyn Log) {
    let topic = unique("marker");
    create(log, &topic, 1, &[]);
    write(log, &topic, &["a"]);
    let mut consumer = reader(log, &topic, 0, 1, Isolation::ReadCommitted);
    assert_eq!(read_until(&mut *consumer, 2), []);
    assert_eq!(consumer.position(0), Some(2));
}

/// A crash: nobody ends the transaction.
pub fn an_orphan_transaction_holds_readers_until_its_id_is_initialised_again(log: &dyn Log) {
    let (topic, id) = (unique("orphan"), unique("id"));
    create(log, &topic, 1, &[]);
    drop(with_an_open_record(log, &id, &topic, "orphaned"));
    let mut consumer = reader(log, &topic, 0, 0, Isolation::ReadCommitted);
    wait_for("the log has answered", || {
        assert_eq!(read_some(&mut *consumer, TICK), []);
        consumer.position(0).is_some()
    });
    assert_eq!(consumer.position(0), Some(0), "the orphan holds it, without an error");
    let other = producer(log, Some(&unique("id")), &[&topic]);
    assert_eq!(high(log, &topic, 0), 1, "another id does not help");
    drop(other);
    let successor = producer(log, Some(&id), &[&topic]);
    assert_eq!(read_until(&mut *consumer, 2), []);
    drop(successor);
}

/// Initialising an id does not touch what it has committed.
pub fn what_was_committed_outlives_its_producer(log: &dyn Log) {
    let (topic, id) = (unique("lasting"), unique("id"));
    create(log, &topic, 1, &[]);
    for round in 0..3 {
        let mut producer = producer(log, Some(&id), &[&topic]);
        producer.begin().expect("a transaction");
        send(&mut *producer, 0, &round.to_string());
        finish(&mut *producer, commit_of(no_group(), &[])).expect("the transaction commits");
    }
    wait_for_end(log, &topic, 6);
    assert_eq!(committed_texts(log, &topic, 0), ["0", "1", "2"]);
}

/// Fencing is per id.
pub fn producers_of_different_ids_do_not_fence_each_other(log: &dyn Log) {
    let topic = unique("ids");
    create(log, &topic, 1, &[]);
    let ids = [unique("id"), unique("id")];
    let mut producers = ids.map(|id| producer(log, Some(&id), &[&topic]));
    for round in 0..2 {
        for producer in &mut producers {
            producer.begin().expect("a transaction");
            send(&mut **producer, 0, &round.to_string());
            finish(&mut **producer, commit_of(no_group(), &[])).expect("the transaction commits");
        }
    }
    wait_for_end(log, &topic, 8);
    assert_eq!(committed_texts(log, &topic, 0), ["0", "0", "1", "1"]);
}

/// Of three producers of one id only the last one may write.
pub fn every_earlier_producer_of_an_id_is_fenced(log: &dyn Log) {
    let (topic, id) = (unique("chain"), unique("id"));
    create(log, &topic, 1, &[]);
    let mut producers: Vec<_> = (0..3).map(|_| producer(log, Some(&id), &[&topic])).collect();
    for (number, producer) in producers.iter_mut().enumerate() {
        producer.begin().expect("beginning is local");
        let value = number.to_string();
        let record = OutRecord {
            topic: OutTopic(0),
            partition: 0,
            key: None,
            value: Some(value.as_bytes()),
            timestamp_ms: 1_000,
            headers: &Headers::default(),
        };
        // A client may learn of the fence when it sends or when it commits.
        let sent = producer.send(&record);
        let outcome = sent.and_then(|()| finish(&mut **producer, commit_of(no_group(), &[])));
        match number {
            2 => assert!(outcome.is_ok(), "{outcome:?}"),
            _ => assert!(matches!(outcome, Err(LogError::Fenced { .. })), "{number}: {outcome:?}"),
        }
    }
    assert_eq!(committed_texts(log, &topic, 0), ["2"]);
}

/// Aborting is no way round a fence.
pub fn a_fenced_producer_cannot_abort_either(log: &dyn Log) {
    let (topic, id) = (unique("fenced"), unique("id"));
    create(log, &topic, 1, &[]);
    let mut old = with_an_open_record(log, &id, &topic, "old");
    let new = producer(log, Some(&id), &[&topic]);
    let aborted = old.abort(PATIENCE);
    assert!(matches!(aborted, Err(LogError::Fenced { .. })), "{aborted:?}");
    drop(new);
}

/// Offsets of a fenced producer.
pub fn a_fenced_producer_commits_no_offsets(log: &dyn Log) {
    let (input, output, group, id) = (unique("input"), unique("output"), unique("group"), unique("id"));
    create(log, &input, 1, &[]);
    create(log, &output, 1, &[]);
    let mut member = sole_member(log, &group, &input, 1);
    let partition = TopicPartition::new(input.as_str(), 0);
    let mut old = producer(log, Some(&id), &[&output]);
    old.begin().expect("a transaction");
    let mut new = producer(log, Some(&id), &[&output]);
    let refused = finish(
        &mut *old,
        commit_of(member.metadata(), &[(partition.clone(), 1, "old")]),
    );
    assert!(matches!(refused, Err(LogError::Fenced { .. })), "{refused:?}");
    assert_eq!(committed(log, &group, &partition), None);
    new.begin().expect("a transaction");
    finish(
        &mut *new,
        commit_of(member.metadata(), &[(partition.clone(), 2, "new")]),
    )
    .expect("the new producer commits");
    assert_eq!(committed(log, &group, &partition), Some((2, "new".to_owned())));
    member.leave();
}

/// A transaction of offsets alone.
pub fn offsets_commit_without_any_record(log: &dyn Log) {
    let (input, group) = (unique("input"), unique("group"));
    create(log, &input, 1, &[]);
    let mut member = sole_member(log, &group, &input, 1);
    let partition = TopicPartition::new(input.as_str(), 0);
    let mut producer = producer(log, Some(&unique("id")), &[&input]);
    producer.begin().expect("a transaction");
    finish(
        &mut *producer,
        commit_of(member.metadata(), &[(partition.clone(), 3, "alone")]),
    )
    .expect("the transaction commits");
    assert_eq!(committed(log, &group, &partition), Some((3, "alone".to_owned())));
    assert_eq!(high(log, &input, 0), 0, "the topic itself was not written to");
    member.leave();
}

/// Offsets may go back: nobody but the application knows why.
pub fn committed_offsets_may_go_back(log: &dyn Log) {
    let (input, group) = (unique("input"), unique("group"));
    create(log, &input, 1, &[]);
    let mut member = sole_member(log, &group, &input, 1);
    let partition = TopicPartition::new(input.as_str(), 0);
    let mut producer = producer(log, Some(&unique("id")), &[&input]);
    for offset in [10, 4] {
        producer.begin().expect("a transaction");
        finish(
            &mut *producer,
            commit_of(member.metadata(), &[(partition.clone(), offset, "")]),
        )
        .expect("the transaction commits");
        assert_eq!(committed(log, &group, &partition), Some((offset, String::new())));
    }
    member.leave();
}

/// Longer metadata than a pointer may have.
pub fn metadata_of_more_than_512_bytes_is_refused(log: &dyn Log) {
    let (input, group) = (unique("input"), unique("group"));
    create(log, &input, 1, &[]);
    let mut member = sole_member(log, &group, &input, 1);
    let partition = TopicPartition::new(input.as_str(), 0);
    let mut producer = producer(log, Some(&unique("id")), &[&input]);
    producer.begin().expect("a transaction");
    let long = "x".repeat(513);
    let refused = finish(
        &mut *producer,
        commit_of(member.metadata(), &[(partition.clone(), 1, &long)]),
    );
    assert!(matches!(refused, Err(LogError::Abort { .. })), "{refused:?}");
    producer.abort(PATIENCE).expect("the transaction can be aborted");
    assert_eq!(committed(log, &group, &partition), None);
    member.leave();
}

/// Outputs of the epoch come before its increments where both go to one partition.
pub fn increments_follow_the_records_sent_before(log: &dyn Log) {
    let topic = unique("order");
    create(log, &topic, 1, &[]);
    let mut producer = producer(log, Some(&unique("id")), &[&topic]);
    producer.begin().expect("a transaction");
    send(&mut *producer, 0, "output");
    let records = vec![(b"key".to_vec(), Some(b"increment".to_vec())), (b"gone".to_vec(), None)];
    let batch = OutBatch {
        topic: OutTopic(0),
        partition: 0,
        records: std::sync::Arc::new(Increment(records)),
    };
    let commit = tidegate::log::Commit {
        batches: vec![batch],
        ..commit_of(no_group(), &[])
    };
    finish(&mut *producer, commit).expect("the transaction commits");
    let read = read_until(&mut *reader(log, &topic, 0, 0, Isolation::ReadCommitted), 4);
    assert_eq!(
        read.iter().map(Read::text).collect::<Vec<_>>(),
        ["output", "increment", ""]
    );
    assert_eq!(read[2].value, None, "a tombstone");
}

/// What is committed of a partition that nobody of the group reads.
pub fn the_group_never_checks_who_owns_a_partition(log: &dyn Log) {
    let (input, other, group) = (unique("input"), unique("other"), unique("group"));
    create(log, &input, 1, &[]);
    create(log, &other, 1, &[]);
    let mut member = sole_member(log, &group, &input, 1);
    let foreign = TopicPartition::new(other.as_str(), 0);
    let mut producer = producer(log, Some(&unique("id")), &[&input]);
    producer.begin().expect("a transaction");
    finish(
        &mut *producer,
        commit_of(member.metadata(), &[(foreign.clone(), 9, "")]),
    )
    .expect("member and generation are all that counts");
    assert_eq!(committed(log, &group, &foreign), Some((9, String::new())));
    member.leave();
}

/// Calls in the wrong order are refused and do no harm.
pub fn a_second_begin_is_refused(log: &dyn Log) {
    let topic = unique("order");
    create(log, &topic, 1, &[]);
    let mut producer = producer(log, Some(&unique("id")), &[&topic]);
    producer.begin().expect("a transaction");
    let again = producer.begin();
    assert!(matches!(again, Err(LogError::Fatal { .. })), "{again:?}");
}
