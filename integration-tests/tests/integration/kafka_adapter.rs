//! What the Kafka adapter does beyond the contract: limits, settings, time-outs, and what the broker leaves to us.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate::ids::TopicPartition;
use tidegate::log::kafka::{KafkaLog, KafkaSettings, ProducerEngine};
use tidegate::log::{Commit, Isolation, Log, LogError, OutRecord, OutTopic, Producer};
use tidegate::record::Headers;
use tidegate_integration_tests::broker::unique;
use tidegate_integration_tests::drive::*;
use tidegate_integration_tests::{Broker, tests_with_both_producers};

tests_with_both_producers! {
    a_megabyte_passes_and_more_is_refused_when_it_is_sent
    a_record_that_only_the_topic_refuses_fails_the_commit
    a_full_queue_says_so_and_takes_the_record_later
    a_transaction_that_the_broker_times_out_looks_like_fencing_and_then_readers_go_on
    a_producer_with_much_in_flight_is_dropped_without_waiting_for_it
}

fn send_bytes(producer: &mut dyn Producer, bytes: usize) -> Result<(), LogError> {
    let value = vec![7; bytes];
    producer.send(&OutRecord {
        topic: OutTopic(0),
        partition: 0,
        key: Some(b"key"),
        value: Some(&value),
        timestamp_ms: 1,
        headers: &Headers::default(),
    })
}

fn a_megabyte_passes_and_more_is_refused_when_it_is_sent(engine: ProducerEngine) {
    let log = Broker::shared().log_with(engine);
    let topic = unique("large");
    create(&*log, &topic, 1, &[]);
    let mut producer = producer(&*log, Some(&unique("id")), &[&topic]);
    producer.begin().expect("a transaction");
    send_bytes(&mut *producer, 1_000_000).expect("a megabyte is taken");
    // The largest value for which the broker's default still has room, found by what the adapter refuses.
    let limit = (1_048_000..1_048_600)
        .rev()
        .find(|bytes| send_bytes(&mut *producer, *bytes).is_ok());
    assert!(limit.is_some());
    match send_bytes(&mut *producer, 1_100_000) {
        Err(LogError::RecordTooLarge { topic: named, bytes }) => assert_eq!((named, bytes), (topic.clone(), 1_100_003)),
        other => panic!("a record that is too large gave {other:?}"),
    }
    finish(&mut *producer, commit_of(no_group(), &[])).expect("the refused records do not hurt the transaction");
    let end = high(&*log, &topic, 0);
    let read = read_until(&mut *reader(&*log, &topic, 0, 0, Isolation::ReadCommitted), end);
    let sizes: Vec<_> = read
        .iter()
        .map(|record| record.value.as_ref().map_or(0, Vec::len))
        .collect();
    assert_eq!(sizes, [1_000_000, limit.unwrap_or_default()]);
}

/// Commits one record that the topic refuses, and names it.
fn commit_what_the_topic_refuses(producer: &mut dyn Producer, topic: &str, commit: Commit) {
    producer.begin().expect("an epoch");
    send_bytes(producer, 5_000).expect("the client cannot know the topic's limit");
    match finish(producer, commit) {
        Err(LogError::RecordTooLarge { topic: named, bytes }) => assert_eq!((named.as_str(), bytes), (topic, 5_003)),
        other => panic!("the commit gave {other:?}"),
    }
}

fn commit_a_small_record(producer: &mut dyn Producer) {
    producer.begin().expect("an epoch");
    send_bytes(producer, 10).expect("a small record is taken");
    finish(producer, commit_of(no_group(), &[])).expect("the next epoch commits");
}

fn a_record_that_only_the_topic_refuses_fails_the_commit(engine: ProducerEngine) {
    let log = Broker::shared().log_with(engine);
    let topic = unique("narrow");
    create(&*log, &topic, 1, &[("max.message.bytes", "1000")]);

    // Offsets are sent while records are on their way, and must not hide which of these was refused.
    let (group, partition) = (unique("group"), TopicPartition::new(topic.as_str(), 0));
    let mut member = sole_member(&*log, &group, &topic, 1);
    let id = unique("id");
    let mut transactional = producer(&*log, Some(&id), &[&topic]);
    let with_offsets = commit_of(member.metadata(), &[(partition.clone(), 1, "")]);
    commit_what_the_topic_refuses(&mut *transactional, &topic, with_offsets);
    let aborted = transactional.abort(PATIENCE);
    match engine {
        // The refused record leaves a gap in the sequence numbers, over which the library stumbles.
        ProducerEngine::Librdkafka => {
            assert!(matches!(aborted, Err(LogError::Fatal { .. })), "{aborted:?}");
            drop(transactional);
            commit_a_small_record(&mut *producer(&*log, Some(&id), &[&topic]));
        }
        // Each transaction has sequence numbers of its own.
        _ => {
            aborted.expect("the transaction can be aborted");
            commit_a_small_record(&mut *transactional);
        }
    }
    assert_eq!(committed(&*log, &group, &partition), None, "the offsets went with it");
    member.leave();

    let mut idempotent = producer(&*log, None, &[&topic]);
    commit_what_the_topic_refuses(&mut *idempotent, &topic, commit_of(no_group(), &[]));
    idempotent.abort(PATIENCE).expect("the epoch can be given up");
    commit_a_small_record(&mut *idempotent);

    let end = high(&*log, &topic, 0);
    let read = read_until(&mut *reader(&*log, &topic, 0, 0, Isolation::ReadCommitted), end);
    assert_eq!(read.len(), 2);
}

fn a_full_queue_says_so_and_takes_the_record_later(engine: ProducerEngine) {
    let mut settings = Broker::shared().settings();
    settings.producer_engine = engine;
    settings.send_buffer_records = 100;
    settings.linger = Duration::from_millis(200);
    let log = KafkaLog::new(settings).expect("valid settings");
    let topic = unique("full");
    create(&*log, &topic, 1, &[]);
    let mut producer = producer(&*log, Some(&unique("id")), &[&topic]);
    producer.begin().expect("a transaction");
    let mut full = 0;
    for _ in 0..1_000 {
        wait_for("there is room again", || match send_bytes(&mut *producer, 100) {
            Ok(()) => true,
            Err(LogError::QueueFull) => {
                full += 1;
                std::thread::yield_now();
                false
            }
            Err(other) => panic!("sending gave {other}"),
        });
    }
    assert!(full > 0, "the queue was full at times");
    finish(&mut *producer, commit_of(no_group(), &[])).expect("the transaction commits");
    assert_eq!(producer.in_flight(), 0);
    assert_eq!(committed_texts(&*log, &topic, 0).len(), 1_000);
}

#[test]
fn time_zero_is_written_as_time_one() {
    let log = Broker::shared().log();
    let topic = unique("zero");
    create(&*log, &topic, 1, &[]);
    let mut producer = producer(&*log, None, &[&topic]);
    producer.begin().expect("an epoch");
    for timestamp_ms in [0, -1, 5] {
        let record = OutRecord {
            topic: OutTopic(0),
            partition: 0,
            key: None,
            value: Some(b"v"),
            timestamp_ms,
            headers: &Headers::default(),
        };
        producer.send(&record).expect("the record is queued");
    }
    finish(&mut *producer, commit_of(no_group(), &[])).expect("everything is acknowledged");
    let read = read_until(&mut *reader(&*log, &topic, 0, 0, Isolation::ReadCommitted), 3);
    // The library takes 0 for "now"; a second in 1970 is closer to the truth.
    assert_eq!(
        read.iter().map(|record| record.timestamp_ms).collect::<Vec<_>>(),
        [1, -1, 5]
    );
}

fn a_transaction_that_the_broker_times_out_looks_like_fencing_and_then_readers_go_on(engine: ProducerEngine) {
    let mut settings = Broker::shared().settings();
    settings.producer_engine = engine;
    settings.transaction_timeout = Duration::from_secs(1);
    let log = KafkaLog::new(settings).expect("valid settings");
    let topic = unique("orphan");
    create(&*log, &topic, 1, &[]);
    let mut orphan = producer(&*log, Some(&unique("id")), &[&topic]);
    orphan.begin().expect("a transaction");
    send(&mut *orphan, 0, "orphaned");
    wait_for("the record is written", || high(&*log, &topic, 0) == 1);
    // The reader stays at the last stable offset, without an error, until the broker gives the transaction up.
    let mut consumer = reader(&*log, &topic, 0, 0, Isolation::ReadCommitted);
    wait_for("the log has answered", || {
        assert_eq!(read_some(&mut *consumer, TICK), []);
        consumer.position(0).is_some()
    });
    assert_eq!(
        read_until(&mut *consumer, 2),
        [],
        "the abort's marker moved the end by one"
    );
    let outcome = finish(&mut *orphan, commit_of(no_group(), &[]));
    assert!(matches!(outcome, Err(LogError::Fenced { .. })), "{outcome:?}");
}

#[test]
fn nobody_at_the_address_is_said_with_the_address() {
    let log = KafkaLog::new(KafkaSettings::new("127.0.0.1:1")).expect("valid settings");
    let wait = Duration::from_secs(2);
    let unreachable = |error: LogError| match error {
        LogError::Unreachable { addresses, reason } => {
            assert_eq!(addresses, "127.0.0.1:1");
            assert!(reason.contains("refused"), "{reason}");
        }
        other => panic!("expected an unreachable log, got {other}"),
    };
    unreachable(log.admin().topic("any", wait).expect_err("nobody answers"));
    for id in [Some("id"), None] {
        unreachable(
            log.producer("test", id)
                .expect("a producer")
                .init(wait)
                .expect_err("nobody answers"),
        );
    }
    let mut consumer = reader(&*log, "any", 0, 0, Isolation::ReadCommitted);
    unreachable(first_error(&mut *consumer));
    let committed = log.admin().committed("group", &[TopicPartition::new("any", 0)], wait);
    unreachable(committed.expect_err("nobody answers"));
}

#[test]
fn settings_are_checked_at_once_and_never_show_a_secret() {
    let settings = |section: fn(&mut KafkaSettings) -> &mut BTreeMap<String, String>, name: &str, value: &str| {
        let mut settings = KafkaSettings::new("127.0.0.1:1");
        section(&mut settings).insert(name.to_owned(), value.to_owned());
        settings
    };
    let refused = |settings: KafkaSettings| KafkaLog::new(settings).expect_err("refused").to_string();
    let unknown = refused(settings(|settings| &mut settings.consumer, "fetch.wait.max.mss", "5"));
    assert!(
        unknown.contains("fetch.wait.max.mss") && unknown.contains("kafka.consumer"),
        "{unknown}"
    );
    let reserved = refused(settings(|settings| &mut settings.producer, "transactional.id", "mine"));
    assert!(reserved.contains("transactional.id"), "{reserved}");
    let bad = refused(settings(
        |settings| &mut settings.common,
        "security.protocol",
        "hunter2",
    ));
    assert!(bad.contains("security.protocol") && !bad.contains("hunter2"), "{bad}");

    let secret = settings(|settings| &mut settings.common, "sasl.password", "hunter2");
    let log = KafkaLog::new(secret.clone()).expect("valid settings");
    for shown in [format!("{secret:?}"), format!("{log:?}")] {
        assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
    }
}

fn a_producer_with_much_in_flight_is_dropped_without_waiting_for_it(engine: ProducerEngine) {
    let log = Broker::shared().log_with(engine);
    let topic = unique("dropped");
    create(&*log, &topic, 1, &[]);
    let mut producer = producer(&*log, Some(&unique("id")), &[&topic]);
    producer.begin().expect("a transaction");
    for _ in 0..10_000 {
        send(&mut *producer, 0, "never committed");
    }
    drop(producer);
    assert_eq!(committed_texts_after_init(&log, &topic), [""; 0]);
}

/// What is committed once the transactions of all producers before are ended.
fn committed_texts_after_init(log: &Arc<KafkaLog>, topic: &str) -> Vec<String> {
    let end = high(&**log, topic, 0);
    let mut consumer = reader(&**log, topic, 0, 0, Isolation::ReadCommitted);
    let mut texts = Vec::new();
    wait_for("the log has answered", || {
        texts.extend(read_some(&mut *consumer, TICK).iter().map(Read::text));
        consumer.position(0).is_some()
    });
    assert!(end >= 0);
    texts
}
