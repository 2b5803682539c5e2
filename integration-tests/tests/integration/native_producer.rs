//! What the producer without librdkafka does beyond the contract: connections that end at the wrong moment, compression,
//! log-in, and brokers that it cannot work with.

use std::sync::Arc;
use std::time::Duration;

use tidegate::ids::TopicPartition;
use tidegate::log::kafka::{KafkaLog, KafkaSettings, ProducerEngine};
use tidegate::log::{Isolation, Log, LogError, OutRecord, OutTopic};
use tidegate::record::{Header, Headers};
use tidegate_integration_tests::Broker;
use tidegate_integration_tests::broker::unique;
use tidegate_integration_tests::drive::*;
use tidegate_integration_tests::ledger::link::Link;

fn native(mut settings: KafkaSettings) -> Arc<KafkaLog> {
    settings.producer_engine = ProducerEngine::Native;
    KafkaLog::new(settings).expect("valid settings")
}

#[test]
fn connections_that_end_in_the_midst_of_commits_lose_and_repeat_nothing() {
    const ROUNDS: u64 = 60;
    let link = Link::open().expect("a link");
    let broker = Broker::start_with(&[("KAFKA_ADVERTISED", &link.address().to_string())]);
    link.lead_to(broker.address().parse().expect("an address"));
    let log = native(KafkaSettings::new(link.address().to_string()));
    let (input, output, group) = (unique("input"), unique("output"), unique("group"));
    create(&*log, &input, 1, &[]);
    create(&*log, &output, 1, &[]);
    let partition = TopicPartition::new(input.as_str(), 0);
    let mut member = sole_member(&*log, &group, &input, 1);
    let mut producer = producer(&*log, Some(&unique("id")), &[&output]);
    for round in 0..ROUNDS {
        producer.begin().expect("a transaction");
        send(&mut *producer, 0, &round.to_string());
        let offsets = [(partition.clone(), round as i64 + 1, "")];
        producer
            .start_commit(commit_of(member.metadata(), &offsets))
            .expect("the commit starts");
        // A little later each time, so that the cut hits requests and answers of every step.
        let early = producer.poll_commit(Duration::from_micros(round % 20 * 300));
        link.cut();
        let outcome = early.or_else(|| producer.poll_commit(PATIENCE));
        outcome
            .expect("the commit has an outcome in time")
            .expect("what was cut off is sent again");
        serve_until("the member is in its group", &mut [&mut member], |members| {
            members[0].owned.len() == 1 && members[0].metadata().is_fencing()
        });
    }
    let expected: Vec<_> = (0..ROUNDS).map(|round| round.to_string()).collect();
    assert_eq!(committed_texts(&*log, &output, 0), expected, "each once, and in order");
    assert_eq!(
        committed(&*log, &group, &partition),
        Some((ROUNDS as i64, String::new()))
    );
    member.leave();
}

#[test]
fn what_it_compresses_kafka_and_its_clients_read() {
    const RECORDS: usize = 3_000;
    for codec in ["none", "gzip", "lz4", "zstd"] {
        let mut settings = Broker::shared().settings();
        settings
            .producer
            .insert("compression.type".to_owned(), codec.to_owned());
        let log = native(settings);
        let topic = unique(codec);
        // The broker looks into the batches: a compacted topic takes no record without a key.
        create(&*log, &topic, 1, &[("cleanup.policy", "compact")]);
        let mut producer = producer(&*log, Some(&unique("id")), &[&topic]);
        producer.begin().expect("a transaction");
        let headers = Headers::new(vec![Header {
            name: "größe".into(),
            value: Some(vec![1, 2]),
        }]);
        for number in 0..RECORDS {
            let value = format!("value {number} ").repeat(20);
            let record = OutRecord {
                topic: OutTopic(0),
                partition: 0,
                key: Some(&number.to_be_bytes()),
                value: (number % 7 != 0).then_some(value.as_bytes()),
                timestamp_ms: number as i64 - 5,
                headers: if number % 3 == 0 { &headers } else { &Headers::default() },
            };
            producer.send(&record).expect("the record is queued");
        }
        finish(&mut *producer, commit_of(no_group(), &[])).expect("the transaction commits");
        let end = high(&*log, &topic, 0);
        let read = read_until(&mut *reader(&*log, &topic, 0, 0, Isolation::ReadCommitted), end);
        assert_eq!(read.len(), RECORDS, "{codec}");
        for (number, record) in read.iter().enumerate() {
            assert_eq!(record.timestamp_ms, number as i64 - 5, "{codec}: every time, zero too");
            assert_eq!(record.value.is_some(), number % 7 != 0);
            assert_eq!(record.headers == headers, number % 3 == 0);
        }
    }
}

#[test]
fn it_logs_in_by_every_mechanism_and_says_so_when_it_may_not() {
    let broker = Broker::start_with(&[("KAFKA_SECURITY", "sasl"), ("KAFKA_USERS", "anna:sesame")]);
    let settings = |mechanism: &str, user: &str, password: &str| {
        let mut settings = broker.settings();
        for (name, value) in [
            ("security.protocol", "sasl_plaintext"),
            ("sasl.mechanism", mechanism),
            ("sasl.username", user),
            ("sasl.password", password),
        ] {
            settings.common.insert(name.to_owned(), value.to_owned());
        }
        settings
    };
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let log = native(settings(mechanism, "anna", "sesame"));
        let topic = unique("secured");
        create(&*log, &topic, 1, &[]);
        let mut producer = producer(&*log, Some(&unique("id")), &[&topic]);
        producer.begin().expect("a transaction");
        send(&mut *producer, 0, mechanism);
        finish(&mut *producer, commit_of(no_group(), &[])).expect("the transaction commits");
        assert_eq!(committed_texts(&*log, &topic, 0), [mechanism]);

        let stranger = native(settings(mechanism, "anna", "guessed"));
        let mut refused = stranger.producer("test", Some("id")).expect("a producer");
        match refused.init(Duration::from_secs(2)) {
            Err(LogError::Unreachable { reason, .. }) => {
                assert!(reason.contains("authentication failed"), "{reason}");
            }
            other => panic!("{mechanism}: a wrong password gave {other:?}"),
        }
    }
}

/// Whether the brokers take the native producer, and else why not.
fn initialised(log: &KafkaLog) -> Result<(), String> {
    let mut producer = log.producer("test", Some(&unique("id"))).expect("a producer");
    producer.init(PATIENCE).map_err(|error| error.to_string())
}

#[test]
fn brokers_without_the_transaction_protocol_are_left_to_librdkafka() {
    let broker = Broker::start();
    let log = native(broker.settings());
    initialised(&log).expect("the test image's brokers speak the protocol");
    broker.run(&[
        "java",
        "-Xmx128m",
        "-cp",
        "/opt/kafka/jars/*",
        "org.apache.kafka.tools.FeatureCommand",
        "--bootstrap-server",
        "localhost:9094",
        "downgrade",
        "--feature",
        "transaction.version=1",
    ]);
    let mut reason = String::new();
    wait_for("the broker knows of its downgrade", || match initialised(&log) {
        Ok(()) => false,
        Err(error) => {
            reason = error;
            true
        }
    });
    assert!(reason.contains("transaction.version is 1"), "{reason}");

    let chosen = broker.log_with(ProducerEngine::Auto);
    let topic = unique("older");
    create(&*chosen, &topic, 1, &[]);
    let mut producer = producer(&*chosen, Some(&unique("id")), &[&topic]);
    producer.begin().expect("a transaction");
    send(&mut *producer, 0, "by the library");
    finish(&mut *producer, commit_of(no_group(), &[])).expect("the transaction commits");
    assert_eq!(committed_texts(&*chosen, &topic, 0), ["by the library"]);
}

#[test]
fn settings_that_only_librdkafka_has_are_left_to_it_or_refused() {
    let mut settings = Broker::shared().settings();
    settings
        .common
        .insert("socket.keepalive.enable".to_owned(), "true".to_owned());
    let refused = native(settings.clone()).producer("test", Some("id")).err();
    let refused = refused.expect("it has no such option").to_string();
    assert!(refused.contains("socket.keepalive.enable"), "{refused}");

    let chosen = KafkaLog::new(settings).expect("valid settings");
    let topic = unique("kept-alive");
    create(&*chosen, &topic, 1, &[]);
    let mut producer = producer(&*chosen, Some(&unique("id")), &[&topic]);
    producer.begin().expect("a transaction");
    send(&mut *producer, 0, "by the library");
    finish(&mut *producer, commit_of(no_group(), &[])).expect("the transaction commits");
    assert_eq!(committed_texts(&*chosen, &topic, 0), ["by the library"]);
}
