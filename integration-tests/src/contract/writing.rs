//! Writing: transactions, increments, fencing.

use std::sync::Arc;

use tidegate::ids::TopicPartition;
use tidegate::log::{BatchSource, Commit, Isolation, Log, LogError, OutBatch, OutTopic};

use crate::broker::unique;
use crate::drive::*;

/// Records, offsets and metadata become visible by one commit.
pub fn offsets_metadata_and_records_commit_together(log: &dyn Log) {
    let (input, output, group) = (unique("input"), unique("output"), unique("group"));
    create(log, &input, 2, &[]);
    create(log, &output, 1, &[]);
    let mut member = sole_member(log, &group, &input, 2);
    let partitions = [0, 1].map(|partition| TopicPartition::new(input.as_str(), partition));
    assert_eq!(committed(log, &group, &partitions[0]), None);

    let mut producer = producer(log, Some(&unique("id")), &[&output]);
    let pointer = "p".repeat(512);
    for (round, metadata) in [pointer.as_str(), "", "pointer ü"].into_iter().enumerate() {
        producer.begin().expect("a transaction");
        send(&mut *producer, 0, &round.to_string());
        let offset = 10 + round as i64;
        let offsets = [
            (partitions[0].clone(), offset, metadata),
            (partitions[1].clone(), offset * 2, "other"),
        ];
        finish(&mut *producer, commit_of(member.metadata(), &offsets)).expect("the transaction commits");
        assert_eq!(
            committed(log, &group, &partitions[0]),
            Some((offset, metadata.to_owned()))
        );
        assert_eq!(
            committed(log, &group, &partitions[1]),
            Some((offset * 2, "other".to_owned()))
        );
        assert_eq!(committed_texts(log, &output, 0).len(), round + 1);
    }
    member.leave();
}

/// Nothing of an aborted transaction counts, offsets included, and the producer goes on.
pub fn an_aborted_transaction_leaves_no_trace(log: &dyn Log) {
    let (input, output, group) = (unique("input"), unique("output"), unique("group"));
    create(log, &input, 1, &[]);
    create(log, &output, 1, &[]);
    let mut member = sole_member(log, &group, &input, 1);
    let partition = TopicPartition::new(input.as_str(), 0);
    let mut producer = producer(log, Some(&unique("id")), &[&output]);
    producer.begin().expect("a transaction");
    send(&mut *producer, 0, "kept");
    finish(
        &mut *producer,
        commit_of(member.metadata(), &[(partition.clone(), 1, "one")]),
    )
    .expect("it commits");

    producer.begin().expect("a transaction");
    send(&mut *producer, 0, "dropped");
    producer.abort(PATIENCE).expect("the transaction can be aborted");
    assert_eq!(committed_texts(log, &output, 0), ["kept"]);
    assert_eq!(committed(log, &group, &partition), Some((1, "one".to_owned())));

    producer.begin().expect("the producer goes on");
    send(&mut *producer, 0, "next");
    finish(
        &mut *producer,
        commit_of(member.metadata(), &[(partition.clone(), 2, "two")]),
    )
    .expect("it commits");
    assert_eq!(committed_texts(log, &output, 0), ["kept", "next"]);
    assert_eq!(committed(log, &group, &partition), Some((2, "two".to_owned())));
    member.leave();
}

/// An epoch in which nothing happened.
pub fn empty_transactions_commit_and_abort(log: &dyn Log) {
    let topic = unique("output");
    create(log, &topic, 1, &[]);
    let mut producer = producer(log, Some(&unique("id")), &[&topic]);
    for _ in 0..2 {
        producer.begin().expect("a transaction");
        finish(&mut *producer, commit_of(no_group(), &[])).expect("an empty transaction commits");
        producer.begin().expect("a transaction");
        producer.abort(PATIENCE).expect("an empty transaction aborts");
    }
    producer.begin().expect("a transaction");
    send(&mut *producer, 0, "alive");
    finish(&mut *producer, commit_of(no_group(), &[])).expect("the transaction commits");
    assert_eq!(committed_texts(log, &topic, 0), ["alive"]);
}

pub(super) struct Increment(pub Vec<(Vec<u8>, Option<Vec<u8>>)>);

impl BatchSource for Increment {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn for_each(&self, visit: &mut dyn FnMut(&[u8], Option<&[u8]>)) {
        for (key, value) in &self.0 {
            visit(key, value.as_deref());
        }
    }
}

/// Increments of two partitions, larger than one portion of any client.
pub fn an_increment_arrives_with_its_transaction(log: &dyn Log) {
    const RECORDS: usize = 25_000;
    let (output, changelog) = (unique("output"), unique("changelog"));
    create(log, &output, 1, &[]);
    create(log, &changelog, 2, &[]);
    let records = |salt: usize| {
        let value = |number: usize| (number % 10 != 3).then(|| format!("{salt}:{number}").into_bytes());
        (0..RECORDS)
            .map(|number| (format!("key-{number}").into_bytes(), value(number)))
            .collect::<Vec<_>>()
    };
    let mut producer = producer(log, Some(&unique("id")), &[&output, &changelog]);
    producer.begin().expect("a transaction");
    send(&mut *producer, 0, "output");
    let batch = |partition, salt| OutBatch {
        topic: OutTopic(1),
        partition,
        records: Arc::new(Increment(records(salt))),
    };
    let batches = vec![batch(0, 7), batch(1, 8)];
    let commit = Commit {
        batches,
        ..commit_of(no_group(), &[])
    };
    finish(&mut *producer, commit).expect("the transaction commits");

    assert_eq!(committed_texts(log, &output, 0), ["output"]);
    for (partition, salt) in [(0, 7), (1, 8)] {
        let end = high(log, &changelog, partition);
        let read = read_until(
            &mut *reader(log, &changelog, partition, 0, Isolation::ReadCommitted),
            end,
        );
        let read: Vec<_> = read
            .into_iter()
            .map(|record| (record.key.unwrap_or_default(), record.value))
            .collect();
        assert!(
            read == records(salt),
            "every record of partition {partition} arrives once, in order"
        );
    }
}

/// One commit at a time.
pub fn a_second_commit_is_refused_while_one_runs(log: &dyn Log) {
    let topic = unique("output");
    create(log, &topic, 1, &[]);
    let mut producer = producer(log, Some(&unique("id")), &[&topic]);
    producer.begin().expect("a transaction");
    send(&mut *producer, 0, "one");
    producer
        .start_commit(commit_of(no_group(), &[]))
        .expect("the commit starts");
    let second = producer.start_commit(commit_of(no_group(), &[]));
    assert!(matches!(second, Err(LogError::Fatal { .. })), "{second:?}");
    let mut outcome = None;
    wait_for("the first commit has an outcome", || {
        outcome = producer.poll_commit(TICK);
        outcome.is_some()
    });
    assert!(matches!(outcome, Some(Ok(()))), "{outcome:?}");
}

/// Two producers of one transactional id.
pub fn a_new_producer_fences_the_old_one_and_ends_its_transaction(log: &dyn Log) {
    let (topic, id) = (unique("output"), unique("id"));
    create(log, &topic, 1, &[]);
    let mut old = producer(log, Some(&id), &[&topic]);
    old.begin().expect("a transaction");
    send(&mut *old, 0, "of the old one");
    wait_for("the record is written", || high(log, &topic, 0) == 1);
    let mut new = producer(log, Some(&id), &[&topic]);
    match finish(&mut *old, commit_of(no_group(), &[])) {
        Err(LogError::Fenced { transactional_id, .. }) => assert_eq!(transactional_id, id),
        other => panic!("the old producer's commit gave {other:?}"),
    }
    assert!(matches!(old.begin(), Err(LogError::Fenced { .. })), "it stays fenced");
    drop(old);
    new.begin().expect("a transaction");
    send(&mut *new, 0, "of the new one");
    finish(&mut *new, commit_of(no_group(), &[])).expect("the new producer commits");
    assert_eq!(committed_texts(log, &topic, 0), ["of the new one"]);
}

/// Metadata that the broker would accept without looking (invariant I6).
pub fn an_unfenced_commit_is_refused(log: &dyn Log) {
    let (input, output, group) = (unique("input"), unique("output"), unique("group"));
    create(log, &input, 1, &[]);
    create(log, &output, 1, &[]);
    let mut member = sole_member(log, &group, &input, 1);
    let partition = TopicPartition::new(input.as_str(), 0);
    let mut producer = producer(log, Some(&unique("id")), &[&output]);
    let fresh = member.metadata();
    let never_joined = tidegate::log::GroupMetadata {
        group: group.clone(),
        ..no_group()
    };
    let nameless = tidegate::log::GroupMetadata {
        member_id: String::new(),
        ..fresh.clone()
    };
    for unfenced in [never_joined, nameless] {
        assert!(!unfenced.is_fencing());
        producer.begin().expect("a transaction");
        send(&mut *producer, 0, "unfenced");
        let refused = finish(&mut *producer, commit_of(unfenced, &[(partition.clone(), 1, "")]));
        assert!(matches!(refused, Err(LogError::NotAMember { .. })), "{refused:?}");
        producer.abort(PATIENCE).expect("the transaction can be aborted");
    }
    assert_eq!(committed(log, &group, &partition), None);
    assert_eq!(committed_texts(log, &output, 0), [""; 0]);
    member.leave();
}
