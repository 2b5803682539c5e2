//! Reading.

use std::time::Duration;

use tidegate::ids::TopicPartition;
use tidegate::log::{Assignment, Isolation, Log, LogError, OutRecord, OutTopic};
use tidegate::record::{Header, Headers};

use crate::broker::unique;
use crate::drive::*;

/// Keys, values, their absence, their emptiness, time and headers survive.
pub fn a_record_comes_back_as_it_was_sent(log: &dyn Log) {
    let topic = unique("record");
    create(log, &topic, 2, &[]);
    let headers = Headers::new(vec![
        Header {
            name: "origin".into(),
            value: Some(b"JFK".to_vec()),
        },
        Header {
            name: "origin".into(),
            value: None,
        },
        Header {
            name: "".into(),
            value: Some(Vec::new()),
        },
    ]);
    type Sent<'a> = (Option<&'a [u8]>, Option<&'a [u8]>, i64, Headers);
    let sent: [Sent<'_>; 4] = [
        (Some(b"key"), Some(b"value"), 1, Headers::default()),
        (None, Some(b""), 1_700_000_000_123, headers),
        (Some(b""), None, 42, Headers::default()),
        (None, None, 42, Headers::default()),
    ];
    let id = unique("writer");
    let mut producer = producer(log, Some(&id), &[]);
    let counts = producer.prepare(&[topic.as_str().into()]).expect("the topic is known");
    assert_eq!(counts, [2]);
    producer.begin().expect("a transaction");
    for (key, value, timestamp_ms, headers) in &sent {
        let record = OutRecord {
            topic: OutTopic(0),
            partition: 1,
            key: *key,
            value: *value,
            timestamp_ms: *timestamp_ms,
            headers,
        };
        producer.send(&record).expect("the record is queued");
    }
    finish(&mut *producer, commit_of(no_group(), &[])).expect("the transaction commits");

    let end = high(log, &topic, 1);
    let read = read_until(&mut *reader(log, &topic, 1, 0, Isolation::ReadCommitted), end);
    assert_eq!(read.len(), sent.len());
    for ((index, read), (key, value, timestamp_ms, headers)) in read.iter().enumerate().zip(&sent) {
        assert_eq!(read.offset, index as i64);
        assert_eq!(read.key.as_deref(), *key);
        assert_eq!(read.value.as_deref(), *value);
        assert_eq!(read.timestamp_ms, *timestamp_ms);
        assert_eq!(read.headers, *headers);
    }
    assert_eq!(
        read_until(&mut *reader(log, &topic, 0, 0, Isolation::ReadCommitted), 0),
        []
    );
}

/// Batches of several partitions: each run belongs to one slot, offsets rise, and the limit of a batch holds.
pub fn records_come_in_order_and_in_runs(log: &dyn Log) {
    const RECORDS: usize = 3_000;
    const LIMIT: usize = 256;
    let topic = unique("runs");
    create(log, &topic, 3, &[]);
    let mut producer = producer(log, None, &[&topic]);
    producer.begin().expect("an epoch");
    for number in 0..RECORDS {
        send(&mut *producer, (number % 3) as i32, &number.to_string());
    }
    finish(&mut *producer, commit_of(no_group(), &[])).expect("everything is acknowledged");

    let mut consumer = log.consumer("test", Isolation::ReadCommitted).expect("a consumer");
    let slots = [(70, 0), (50, 1), (60, 2)];
    let assignment = slots.map(|(slot, partition)| Assignment {
        slot,
        partition: TopicPartition::new(topic.as_str(), partition),
        offset: 0,
    });
    consumer.assign(&assignment).expect("the partitions can be assigned");
    let mut next = [0_i64; 3];
    let mut batches = Vec::new();
    wait_for("all records are read", || {
        let Some(batch) = consumer.poll(LIMIT, TICK).expect("the partitions can be read") else {
            return false;
        };
        let mut expected_start = 0;
        for run in batch.runs() {
            assert_eq!(run.start, expected_start, "runs follow each other");
            assert!(run.end > run.start, "no run is empty");
            expected_start = run.end;
            let (_, partition) = slots
                .iter()
                .find(|(slot, _)| *slot == run.slot)
                .expect("a slot that was assigned");
            let partition = *partition as usize;
            for index in run.start..run.end {
                let record = batch.record(index);
                assert_eq!(record.offset, next[partition]);
                let number = next[partition] as usize * 3 + partition;
                assert_eq!(record.value, Some(number.to_string().as_bytes()));
                next[partition] += 1;
            }
        }
        assert!(expected_start as usize <= LIMIT);
        batches.push(batch);
        next.iter().sum::<i64>() == RECORDS as i64
    });
    // Batches stay readable while the consumer goes on, and after it is gone.
    drop(consumer);
    let kept: usize = batches
        .iter()
        .flat_map(|batch| batch.runs())
        .map(|run| (run.end - run.start) as usize)
        .sum();
    assert_eq!(kept, RECORDS);
    assert!(batches[0].record(0).value.is_some());
}

/// An aborted transaction.
pub fn aborted_records_are_seen_only_by_who_reads_uncommitted(log: &dyn Log) {
    let topic = unique("aborted");
    create(log, &topic, 1, &[]);
    let id = unique("writer");
    let mut producer = producer(log, Some(&id), &[&topic]);
    producer.begin().expect("a transaction");
    send(&mut *producer, 0, "regretted");
    // What is still queued would be dropped; it must have reached the log to be aborted there.
    wait_for("the record is written", || high(log, &topic, 0) == 1);
    producer.abort(PATIENCE).expect("the transaction can be aborted");
    producer.begin().expect("the next transaction");
    send(&mut *producer, 0, "meant");
    finish(&mut *producer, commit_of(no_group(), &[])).expect("the transaction commits");

    let end = high(log, &topic, 0);
    let texts = |isolation| {
        let read = read_until(&mut *reader(log, &topic, 0, 0, isolation), end);
        read.iter().map(Read::text).collect::<Vec<_>>()
    };
    assert_eq!(texts(Isolation::ReadCommitted), ["meant"]);
    assert_eq!(texts(Isolation::ReadUncommitted), ["regretted", "meant"]);
}

/// A committed reader stops at the last stable offset and says so.
pub fn an_open_transaction_holds_committed_readers_back(log: &dyn Log) {
    let topic = unique("held");
    create(log, &topic, 1, &[]);
    write(log, &topic, &["first"]);
    let stable = high(log, &topic, 0);
    let id = unique("writer");
    let mut open = producer(log, Some(&id), &[&topic]);
    open.begin().expect("a transaction");
    send(&mut *open, 0, "pending");
    wait_for("the pending record is written", || high(log, &topic, 0) == stable + 1);
    write(log, &topic, &["behind"]);
    let end = high(log, &topic, 0);

    let mut committed = reader(log, &topic, 0, 0, Isolation::ReadCommitted);
    assert_eq!(read_until(&mut *committed, stable).len(), 1);
    wait_for("the reader knows how far it may read", || {
        assert_eq!(read_some(&mut *committed, TICK), []);
        committed.end_offset(0) == Some(stable)
    });
    assert_eq!(committed.position(0), Some(stable));

    let mut uncommitted = reader(log, &topic, 0, 0, Isolation::ReadUncommitted);
    assert_eq!(read_until(&mut *uncommitted, end).len(), 3);
    assert_eq!(uncommitted.end_offset(0), Some(end));

    finish(&mut *open, commit_of(no_group(), &[])).expect("the transaction commits");
    wait_for("the marker is written", || high(log, &topic, 0) == end + 1);
    let end = end + 1;
    let texts: Vec<_> = read_until(&mut *committed, end).iter().map(Read::text).collect();
    assert_eq!(texts, ["pending", "behind"]);
    assert_eq!(committed.position(0), Some(end));
}

/// The end of a restore is told by the position alone (invariant I8).
pub fn the_position_passes_control_records_and_aborted_records(log: &dyn Log) {
    let topic = unique("position");
    create(log, &topic, 1, &[]);
    write(log, &topic, &["kept"]);
    let id = unique("writer");
    let mut producer = producer(log, Some(&id), &[&topic]);
    let before = high(log, &topic, 0);
    producer.begin().expect("a transaction");
    for _ in 0..10 {
        send(&mut *producer, 0, "regretted");
    }
    wait_for("the records are written", || high(log, &topic, 0) == before + 10);
    producer.abort(PATIENCE).expect("the transaction can be aborted");
    wait_for("the marker is written", || high(log, &topic, 0) == before + 11);

    let end = high(log, &topic, 0);
    let mut consumer = reader(log, &topic, 0, 0, Isolation::ReadCommitted);
    let read = read_until(&mut *consumer, end);
    assert_eq!(read.len(), 1, "control records and aborted records are not delivered");
    assert!(read[0].offset < end - 1, "the last record is not at the end");
    assert_eq!(consumer.position(0), Some(end));
    assert_eq!(consumer.end_offset(0), Some(end));
}

/// An empty range: nothing will ever be delivered, and the position must still arrive.
pub fn the_position_of_an_empty_read_is_its_start(log: &dyn Log) {
    let topic = unique("empty");
    create(log, &topic, 1, &[]);
    let mut consumer = reader(log, &topic, 0, 0, Isolation::ReadCommitted);
    assert_eq!(read_until(&mut *consumer, 0), []);
    assert_eq!(consumer.position(0), Some(0));
    write(log, &topic, &["one", "two"]);
    let end = high(log, &topic, 0);
    let again = Assignment {
        slot: 0,
        partition: TopicPartition::new(topic.as_str(), 0),
        offset: end,
    };
    consumer.assign(&[again]).expect("the partition can be assigned again");
    assert_eq!(read_until(&mut *consumer, end), []);
    assert_eq!(consumer.position(0), Some(end));
    assert_eq!(
        consumer.position(1),
        None,
        "a slot that is not assigned has no position"
    );
}

/// Records that were fetched ahead for an older assignment are gone with it.
pub fn a_new_assignment_never_delivers_records_of_an_older_one(log: &dyn Log) {
    const RECORDS: i64 = 2_000;
    let topic = unique("assignments");
    create(log, &topic, 2, &[]);
    let mut producer = producer(log, None, &[&topic]);
    producer.begin().expect("an epoch");
    for number in 0..RECORDS {
        send(&mut *producer, 0, &format!("a{number}"));
        send(&mut *producer, 1, &format!("b{number}"));
    }
    finish(&mut *producer, commit_of(no_group(), &[])).expect("everything is acknowledged");

    let mut consumer = log.consumer("test", Isolation::ReadCommitted).expect("a consumer");
    let assignment = |slot, partition, offset| Assignment {
        slot,
        partition: TopicPartition::new(topic.as_str(), partition),
        offset,
    };
    for round in 0..20 {
        let offset = (round * 97) % RECORDS;
        consumer
            .assign(&[assignment(1, 0, offset), assignment(2, 1, 0)])
            .expect("two partitions");
        // A small batch leaves much that was fetched ahead.
        wait_for("something comes", || {
            consumer.poll(3, TICK).expect("readable").is_some()
        });
        let other = (offset + 1_000) % RECORDS;
        consumer
            .assign(&[assignment(3, 0, other)])
            .expect("one of them, elsewhere");
        wait_for("the new assignment delivers", || {
            let Some(batch) = consumer.poll(3, TICK).expect("readable") else {
                return false;
            };
            assert_eq!(batch.runs().len(), 1);
            assert_eq!(batch.runs()[0].slot, 3);
            assert_eq!(batch.record(0).offset, other);
            assert_eq!(batch.record(0).value, Some(format!("a{other}").as_bytes()));
            true
        });
    }
    consumer.assign(&[]).expect("nothing can be assigned too");
    assert!(consumer.poll(10, TICK).expect("nothing to read").is_none());
    assert_eq!(consumer.position(3), None);
}

/// Pausing and resuming in the midst of reading.
pub fn a_paused_partition_loses_nothing(log: &dyn Log) {
    const RECORDS: i64 = 5_000;
    let topic = unique("pause");
    create(log, &topic, 1, &[]);
    let mut producer = producer(log, None, &[&topic]);
    producer.begin().expect("an epoch");
    for number in 0..RECORDS {
        send(&mut *producer, 0, &number.to_string());
    }
    finish(&mut *producer, commit_of(no_group(), &[])).expect("everything is acknowledged");

    let mut consumer = reader(log, &topic, 0, 0, Isolation::ReadCommitted);
    let mut offsets = Vec::new();
    let mut polls = 0;
    wait_for("everything is read", || {
        if let Some(batch) = consumer.poll(100, TICK).expect("readable") {
            offsets.extend((0..batch.runs()[0].end).map(|index| batch.record(index).offset));
        }
        polls += 1;
        if polls % 7 == 0 {
            consumer.pause(&[0], true).expect("the partition can be paused");
            // What was fetched before may still come; then there is silence.
            while let Some(batch) = consumer.poll(100, Duration::from_millis(1)).expect("readable") {
                offsets.extend((0..batch.runs()[0].end).map(|index| batch.record(index).offset));
            }
            consumer.pause(&[0], false).expect("the partition can go on");
        }
        offsets.len() as i64 >= RECORDS
    });
    assert_eq!(offsets, (0..RECORDS).collect::<Vec<_>>());
}

/// Before the low watermark and beyond the end.
pub fn an_offset_that_is_not_there_is_an_error(log: &dyn Log) {
    let topic = unique("range");
    create(log, &topic, 1, &[("cleanup.policy", "delete")]);
    write(log, &topic, &["a", "b", "c"]);
    let partition = TopicPartition::new(topic.as_str(), 0);
    log.admin()
        .delete_records(&[(partition.clone(), 2)], PATIENCE)
        .expect("records can be deleted");
    let end = high(log, &topic, 0);
    for offset in [0, end + 5] {
        let mut consumer = reader(log, &topic, 0, offset, Isolation::ReadCommitted);
        match first_error(&mut *consumer) {
            LogError::OffsetOutOfRange {
                partition: named,
                offset: asked,
            } => {
                assert_eq!((named, asked), (partition.clone(), offset));
            }
            other => panic!("offset {offset} gave {other}"),
        }
        // The same consumer reads on from a better offset.
        let better = Assignment {
            slot: 0,
            partition: partition.clone(),
            offset: 2,
        };
        consumer.assign(&[better]).expect("the partition can be assigned again");
        assert_eq!(
            read_until(&mut *consumer, end)
                .iter()
                .map(Read::text)
                .collect::<Vec<_>>(),
            ["c"]
        );
    }
}

/// Following a partition.
pub fn a_reader_at_the_end_gets_what_comes_later(log: &dyn Log) {
    let topic = unique("tail");
    create(log, &topic, 1, &[]);
    let mut consumer = reader(log, &topic, 0, 0, Isolation::ReadCommitted);
    let mut end = 0;
    for value in ["a", "b", "c"] {
        assert_eq!(read_until(&mut *consumer, end), []);
        write(log, &topic, &[value]);
        end += 2;
        let read = read_until(&mut *consumer, end);
        assert_eq!(read.iter().map(Read::text).collect::<Vec<_>>(), [value]);
    }
}

/// Each partition has its own place.
pub fn partitions_are_read_from_places_of_their_own(log: &dyn Log) {
    let topic = unique("places");
    create(log, &topic, 2, &[]);
    let mut producer = producer(log, None, &[&topic]);
    producer.begin().expect("an epoch");
    for number in 0..5 {
        send(&mut *producer, 0, &format!("a{number}"));
        send(&mut *producer, 1, &format!("b{number}"));
    }
    finish(&mut *producer, commit_of(no_group(), &[])).expect("everything is acknowledged");
    let mut consumer = log.consumer("test", Isolation::ReadCommitted).expect("a consumer");
    let assignment = |slot, partition, offset| Assignment {
        slot,
        partition: TopicPartition::new(topic.as_str(), partition),
        offset,
    };
    consumer
        .assign(&[assignment(0, 0, 3), assignment(1, 1, 1)])
        .expect("the partitions can be assigned");
    let mut texts = Vec::new();
    wait_for("both are read", || {
        texts.extend(read_some(&mut *consumer, TICK).iter().map(Read::text));
        consumer.position(0) == Some(5) && consumer.position(1) == Some(5)
    });
    texts.sort();
    assert_eq!(texts, ["a3", "a4", "b1", "b2", "b3", "b4"]);
}

/// A pause is of its partition only.
pub fn a_paused_partition_does_not_hold_up_another(log: &dyn Log) {
    let topic = unique("pause");
    create(log, &topic, 2, &[]);
    let mut consumer = log.consumer("test", Isolation::ReadCommitted).expect("a consumer");
    let assignment = |slot: u32| Assignment {
        slot,
        partition: TopicPartition::new(topic.as_str(), slot as i32),
        offset: 0,
    };
    consumer
        .assign(&[assignment(0), assignment(1)])
        .expect("the partitions can be assigned");
    consumer.pause(&[0], true).expect("the partition can be paused");
    let mut producer = producer(log, None, &[&topic]);
    producer.begin().expect("an epoch");
    send(&mut *producer, 0, "paused");
    send(&mut *producer, 1, "flowing");
    finish(&mut *producer, commit_of(no_group(), &[])).expect("everything is acknowledged");
    let mut texts = Vec::new();
    wait_for("the other partition is read", || {
        texts.extend(read_some(&mut *consumer, TICK).iter().map(Read::text));
        consumer.position(1) == Some(1)
    });
    assert_eq!(texts, ["flowing"]);
    consumer.pause(&[0], false).expect("the partition can go on");
    wait_for("the paused partition is read", || {
        texts.extend(read_some(&mut *consumer, TICK).iter().map(Read::text));
        texts.len() == 2
    });
    assert_eq!(texts, ["flowing", "paused"]);
}

/// Trimming behind a reader is none of its business.
pub fn deleting_records_behind_a_reader_does_not_disturb_it(log: &dyn Log) {
    let topic = unique("behind");
    create(log, &topic, 1, &[]);
    write(log, &topic, &["a", "b"]);
    let mut consumer = reader(log, &topic, 0, 0, Isolation::ReadCommitted);
    assert_eq!(read_until(&mut *consumer, 3).len(), 2);
    log.admin()
        .delete_records(&[(TopicPartition::new(topic.as_str(), 0), 3)], PATIENCE)
        .expect("the policy allows it");
    write(log, &topic, &["c"]);
    let read = read_until(&mut *consumer, 5);
    assert_eq!(read.iter().map(Read::text).collect::<Vec<_>>(), ["c"]);
}
