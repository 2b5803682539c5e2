//! Several threads on one log, in real time: calls wake up when there is something, and not before.

use std::thread;

use super::*;
use crate::time::SystemClock;

/// Longer than any test may take: whoever waits this long was not woken.
const LONG: Duration = Duration::from_secs(3600);

/// Returns once another thread sleeps in a call.
fn await_sleeper(log: &EmbeddedLog) {
    while log.link.sleepers() == 0 {
        thread::yield_now();
    }
}

fn log() -> Arc<EmbeddedLog> {
    let log = EmbeddedLog::new(Arc::new(SystemClock::default()));
    log.admin().create_topic(&spec("t", 1, &[]), ANY).unwrap();
    log
}

fn producer(log: &EmbeddedLog, transactional_id: Option<&str>) -> Box<dyn Producer> {
    let mut producer = log.producer("test", transactional_id).unwrap();
    producer.init(ANY).unwrap();
    producer.prepare(&["t".into()]).unwrap();
    producer
}

#[test]
fn a_waiting_consumer_is_woken_by_the_commit() {
    let log = log();
    let mut producer = producer(&log, Some("id"));
    producer.begin().unwrap();
    send(&mut *producer, "value");
    let mut consumer = log.consumer("test", Isolation::ReadCommitted).unwrap();
    consumer.assign(&[assignment(0, "t", 0, 0)]).unwrap();
    let reader = thread::spawn(move || values_of(&*consumer.poll(10, LONG).unwrap().unwrap()));
    await_sleeper(&log);
    commit(&mut *producer, commit_of(nobody(), &[])).unwrap();
    assert_eq!(reader.join().unwrap(), ["value"]);
}

#[test]
fn a_waiting_reader_of_uncommitted_records_is_woken_by_the_record() {
    let log = log();
    let mut consumer = log.consumer("test", Isolation::ReadUncommitted).unwrap();
    consumer.assign(&[assignment(0, "t", 0, 0)]).unwrap();
    let reader = thread::spawn(move || values_of(&*consumer.poll(10, LONG).unwrap().unwrap()));
    let mut producer = producer(&log, Some("id"));
    producer.begin().unwrap();
    await_sleeper(&log);
    send(&mut *producer, "value");
    assert_eq!(reader.join().unwrap(), ["value"]);
}

#[test]
fn committed_waits_for_the_end_of_a_pending_transaction() {
    let log = log();
    let pending = PendingOffsets::write(&log, "id", 5);
    let admin = log.admin();
    let reader = thread::spawn(move || admin.committed(GROUP, &t([0]), LONG));
    await_sleeper(&log);
    pending.end(Ending::Commit);
    let committed = reader.join().unwrap().unwrap();
    assert_eq!(committed[0].as_ref().map(|committed| committed.offset), Some(5));
}

#[test]
fn the_clock_wakes_a_reader_when_it_ends_a_transaction() {
    let settings = EmbeddedSettings {
        transaction_timeout: Duration::from_millis(20),
        waits: Waits::RealTime,
    };
    let log = EmbeddedLog::with_settings(Arc::new(SystemClock::default()), settings);
    log.admin().create_topic(&spec("t", 1, &[]), ANY).unwrap();
    let mut orphan = producer(&log, Some("id"));
    orphan.begin().unwrap();
    send(&mut *orphan, "orphaned");
    send(&mut *producer(&log, None), "behind it");
    let mut consumer = log.consumer("test", Isolation::ReadCommitted).unwrap();
    consumer.assign(&[assignment(0, "t", 0, 0)]).unwrap();
    assert_eq!(values_of(&*consumer.poll(10, LONG).unwrap().unwrap()), ["behind it"]);
}

#[test]
fn a_waiting_member_is_woken_by_a_rebalance() {
    let log = log();
    let settings = MemberSettings {
        group: GROUP.to_owned(),
        topics: vec!["t".into()],
        instance_id: None,
        session_timeout: LONG,
    };
    let mut first = log.member(&settings).unwrap();
    let event = first.poll(LONG).unwrap().unwrap();
    first.complete(&event).unwrap();
    let waiting = thread::spawn(move || first.poll(LONG).unwrap().unwrap());
    await_sleeper(&log);
    let mut second = log.member(&settings).unwrap();
    assert_eq!(second.poll(LONG).unwrap(), Some(MemberEvent::Assigned(vec![])));
    assert_eq!(waiting.join().unwrap(), MemberEvent::Assigned(vec![]));
}

#[test]
fn many_threads_lose_and_repeat_nothing() {
    const WRITERS: usize = 4;
    const TRANSACTIONS: usize = 50;
    let log = log();
    let seen: Shared<Vec<String>> = Arc::default();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let log = &log;
            scope.spawn(move || {
                let mut producer = producer(log, Some(&format!("writer-{writer}")));
                for transaction in 0..TRANSACTIONS {
                    producer.begin().unwrap();
                    for record in 0..10 {
                        send(&mut *producer, &format!("{writer}/{transaction:02}/{record}"));
                    }
                    if transaction % 5 == 4 {
                        producer.abort(ANY).unwrap();
                    } else {
                        commit(&mut *producer, commit_of(nobody(), &[])).unwrap();
                    }
                }
            });
        }
        scope.spawn(|| {
            let mut consumer = log.consumer("test", Isolation::ReadCommitted).unwrap();
            consumer.assign(&[assignment(0, "t", 0, 0)]).unwrap();
            let mut values = Vec::new();
            while values.len() < WRITERS * TRANSACTIONS * 8 {
                if let Some(batch) = consumer.poll(100, LONG).unwrap() {
                    values.extend(values_of(&*batch));
                }
            }
            seen.lock().unwrap().extend(values);
        });
    });
    let mut values = seen.lock().unwrap().clone();
    for writer in 0..WRITERS {
        let of_writer: Vec<_> = values
            .iter()
            .filter(|value| value.starts_with(&format!("{writer}/")))
            .collect();
        assert!(of_writer.is_sorted(), "order within a writer");
    }
    values.sort();
    values.dedup();
    assert_eq!(values.len(), WRITERS * TRANSACTIONS * 8);
    assert!(!values.iter().any(|value| value.contains("/04/")));
}
