//! A broker that stops, dies or hangs.

use std::time::Duration;

use tidegate::ids::TopicPartition;
use tidegate::log::kafka::ProducerEngine;
use tidegate::log::{Commit, Isolation, Log, LogError};
use tidegate_integration_tests::broker::unique;
use tidegate_integration_tests::drive::*;
use tidegate_integration_tests::{Broker, contract, tests_with_both_producers};

tests_with_both_producers! {
    after_a_commit_that_timed_out_a_new_producer_finds_records_and_offsets_in_step
    clients_go_on_when_a_broker_that_stopped_or_died_is_back
    a_hung_broker_times_calls_out_and_drops_stay_short
}

fn after_a_commit_that_timed_out_a_new_producer_finds_records_and_offsets_in_step(engine: ProducerEngine) {
    let broker = Broker::start();
    let log = broker.log_with(engine);
    let (input, output, group) = (unique("input"), unique("output"), unique("group"));
    create(&*log, &input, 1, &[]);
    create(&*log, &output, 1, &[]);
    let partition = TopicPartition::new(input.as_str(), 0);
    let id = unique("id");
    let mut member = sole_member(&*log, &group, &input, 1);
    let mut expected = 0;
    for round in 0..4_u64 {
        let mut producer = producer(&*log, Some(&id), &[&output]);
        // Initialising ended whatever was open, so what is read now stays true (invariant I7).
        let offset = committed(&*log, &group, &partition).map_or(0, |(offset, _)| offset);
        let records = committed_texts(&*log, &output, 0).len() as i64;
        assert_eq!(
            records, offset,
            "round {round}: a record is there if and only if its offset is"
        );
        assert!((expected - 1..=expected).contains(&offset), "round {round}");

        producer.begin().expect("a transaction");
        send(&mut *producer, 0, "record");
        let mut commit = commit_of(member.metadata(), &[(partition.clone(), offset + 1, "")]);
        commit.timeout = Duration::from_millis(1_500);
        producer.start_commit(commit).expect("the commit starts");
        // A little later each time, so that the pause hits different steps.
        let early = producer.poll_commit(Duration::from_millis(round));
        broker.pause();
        let outcome = early
            .or_else(|| producer.poll_commit(PATIENCE))
            .expect("the commit has an outcome in time");
        match &outcome {
            Ok(()) => {}
            Err(LogError::TimedOut { .. }) => {
                assert!(
                    matches!(producer.begin(), Err(LogError::TimedOut { .. })),
                    "the producer is dead"
                );
            }
            other => panic!("round {round}: the commit gave {other:?}"),
        }
        drop(producer);
        broker.unpause();
        expected = offset + 1;
        serve_until("the member is in its group", &mut [&mut member], |members| {
            members[0].owned.len() == 1 && members[0].metadata().is_fencing()
        });
    }
    member.leave();
}

fn clients_go_on_when_a_broker_that_stopped_or_died_is_back(engine: ProducerEngine) {
    let broker = Broker::start();
    let log = broker.log_with(engine);
    let (input, output, group) = (unique("input"), unique("output"), unique("group"));
    create(&*log, &input, 1, &[]);
    create(&*log, &output, 1, &[]);
    let partition = TopicPartition::new(input.as_str(), 0);
    let id = unique("id");
    let mut producer_before = producer(&*log, Some(&id), &[&output]);
    let mut consumer = reader(&*log, &output, 0, 0, Isolation::ReadCommitted);
    let mut member = sole_member(&*log, &group, &input, 1);
    producer_before.begin().expect("a transaction");
    send(&mut *producer_before, 0, "before");
    finish(
        &mut *producer_before,
        commit_of(member.metadata(), &[(partition.clone(), 1, "")]),
    )
    .expect("it commits");
    assert_eq!(read_one(&mut *consumer), "before");

    for (round, end) in ["stop", "kill"].into_iter().enumerate() {
        match end {
            "stop" => broker.stop(),
            _ => broker.kill(),
        }
        let error = first_error(&mut *consumer);
        assert!(
            matches!(&error, LogError::Unreachable { addresses, .. } if addresses == broker.address()),
            "{error}"
        );
        let asked = log.admin().topic(&output, Duration::from_secs(2));
        assert!(matches!(asked, Err(LogError::Unreachable { .. })), "{asked:?}");
        broker.start_again();

        // The consumer goes on where it was, the member comes back, and a new producer takes over the id.
        let mut producer = producer(&*log, Some(&id), &[&output]);
        serve_until("the member is back in its group", &mut [&mut member], |members| {
            members[0].owned.len() == 1 && members[0].metadata().is_fencing()
        });
        wait_for("a commit goes through", || {
            producer.begin().expect("a transaction");
            send(&mut *producer, 0, end);
            let offsets = [(partition.clone(), 2 + round as i64, "")];
            member.step(TICK).expect("the member stays healthy");
            match finish(&mut *producer, commit_of(member.metadata(), &offsets)) {
                Ok(()) => true,
                // The member may have to join again first.
                Err(LogError::IllegalGeneration { .. } | LogError::NotAMember { .. } | LogError::Abort { .. }) => {
                    producer.abort(PATIENCE).expect("the transaction can be aborted");
                    false
                }
                Err(other) => panic!("the commit gave {other}"),
            }
        });
        assert_eq!(read_one(&mut *consumer), end);
        assert_eq!(
            committed(&*log, &group, &partition),
            Some((2 + round as i64, String::new()))
        );
    }
    member.leave();
}

/// The next text, whatever errors of the connection come before it.
fn read_one(consumer: &mut dyn tidegate::log::Consumer) -> String {
    let mut text = None;
    wait_for("a record comes", || {
        match consumer.poll(1, TICK) {
            Ok(Some(batch)) => {
                text = batch
                    .record(0)
                    .value
                    .map(|value| String::from_utf8_lossy(value).into_owned());
            }
            Ok(None) | Err(LogError::Unreachable { .. }) => {}
            Err(other) => panic!("reading gave {other}"),
        }
        text.is_some()
    });
    text.unwrap_or_default()
}

fn a_hung_broker_times_calls_out_and_drops_stay_short(engine: ProducerEngine) {
    let broker = Broker::start();
    let log = broker.log_with(engine);
    let topic = unique("hung");
    create(&*log, &topic, 1, &[]);
    let mut producer = producer(&*log, Some(&unique("id")), &[&topic]);
    let member = sole_member(&*log, &unique("group"), &topic, 1);
    producer.begin().expect("a transaction");
    broker.pause();
    for _ in 0..1_000 {
        send(&mut *producer, 0, "unacknowledged");
    }
    let commit = Commit {
        timeout: Duration::from_secs(1),
        ..commit_of(no_group(), &[])
    };
    let outcome = finish(&mut *producer, commit);
    assert!(matches!(outcome, Err(LogError::TimedOut { .. })), "{outcome:?}");
    let asked = log.admin().topic(&topic, Duration::from_secs(1));
    assert!(matches!(asked, Err(LogError::TimedOut { .. })), "{asked:?}");
    // Neither waits for an answer that cannot come; a wait would outlast the test's patience.
    let begun = std::time::Instant::now();
    drop(producer);
    member.leave();
    assert!(begun.elapsed() < PATIENCE / 2);
    broker.unpause();
}

#[test]
fn a_broker_that_creates_topics_by_itself_is_not_led_to() {
    let broker = Broker::start_with(&[("KAFKA_PROPERTIES", "auto.create.topics.enable=true")]);
    contract::a_missing_topic_is_named(&*broker.log());
}
