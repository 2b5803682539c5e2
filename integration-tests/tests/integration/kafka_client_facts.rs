//! What the protocol takes for granted of Kafka and of its client library, asserted on the library itself: where a new
//! broker or client behaves otherwise, one of these fails before the engine does.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::{ClientConfig, Offset};
use tidegate::ids::TopicPartition;
use tidegate::log::Log;
use tidegate_integration_tests::Broker;
use tidegate_integration_tests::broker::unique;
use tidegate_integration_tests::drive::{PATIENCE, TICK, committed, create, high, wait_for};

type RawProducer = ThreadedProducer<DefaultProducerContext>;

fn config() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", Broker::shared().address());
    config
}

fn raw_producer(id: &str) -> RawProducer {
    let mut config = config();
    config.set("transactional.id", id).set("retry.backoff.ms", "10");
    let producer: RawProducer = config.create().expect("a producer");
    producer
        .init_transactions(PATIENCE)
        .expect("the producer can be initialised");
    producer
}

fn raw_consumer(group: &str, isolation: &str) -> BaseConsumer {
    let mut config = config();
    config
        .set("group.id", group)
        .set("isolation.level", isolation)
        .set("enable.auto.commit", "false");
    config
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", "6000");
    config.create().expect("a consumer")
}

fn raw_member(group: &str, topic: &str) -> BaseConsumer {
    let member = raw_consumer(group, "read_committed");
    member.subscribe(&[topic]).expect("the topic can be subscribed to");
    wait_for("the member owns something", || {
        let _ = member.poll(TICK);
        member.assignment().is_ok_and(|assignment| assignment.count() > 0)
    });
    member
}

fn metadata_of(consumer: &BaseConsumer) -> ConsumerGroupMetadata {
    consumer.group_metadata().expect("the consumer has a group")
}

fn offsets(topic: &str, list: &[(i32, i64, &str)]) -> TopicPartitionList {
    let mut offsets = TopicPartitionList::new();
    for (partition, offset, metadata) in list {
        let mut element = offsets.add_partition(topic, *partition);
        element.set_offset(Offset::Offset(*offset)).expect("a valid offset");
        element.set_metadata(*metadata);
    }
    offsets
}

fn abortable(outcome: Result<(), KafkaError>) -> RDKafkaErrorCode {
    match outcome {
        Err(KafkaError::Transaction(error)) => {
            assert!(error.txn_requires_abort() && !error.is_fatal(), "{error:?}");
            error.code()
        }
        other => panic!("expected an abortable error, got {other:?}"),
    }
}

fn input(partitions: i32) -> (String, String) {
    let log = Broker::shared().log();
    let topic = unique("input");
    create(&*log, &topic, partitions, &[]);
    (topic, unique("group"))
}

#[test]
fn offset_metadata_ends_at_4096_bytes() {
    let (topic, group) = input(2);
    let member = raw_member(&group, &topic);
    let producer = raw_producer(&unique("id"));
    let longest = "x".repeat(4096);
    producer.begin_transaction().expect("a transaction");
    let sent =
        producer.send_offsets_to_transaction(&offsets(&topic, &[(0, 1, &longest)]), &metadata_of(&member), PATIENCE);
    sent.expect("4096 bytes are taken");
    producer.commit_transaction(PATIENCE).expect("it commits");

    producer.begin_transaction().expect("a transaction");
    let longer = "x".repeat(4097);
    let list = offsets(&topic, &[(0, 2, &longer), (1, 2, "")]);
    let refused = producer.send_offsets_to_transaction(&list, &metadata_of(&member), PATIENCE);
    assert_eq!(abortable(refused), RDKafkaErrorCode::OffsetMetadataTooLarge);
    producer.abort_transaction(PATIENCE).expect("it aborts");

    let log = Broker::shared().log();
    let partition = |number| TopicPartition::new(topic.as_str(), number);
    assert_eq!(committed(&*log, &group, &partition(0)), Some((1, longest)));
    assert_eq!(
        committed(&*log, &group, &partition(1)),
        None,
        "nothing of the refused call counts"
    );
}

#[test]
fn metadata_of_a_consumer_that_never_joined_commits_without_a_fence() {
    let (topic, group) = input(1);
    let _member = raw_member(&group, &topic);
    let outsider = raw_consumer(&group, "read_committed");
    let producer = raw_producer(&unique("id"));
    producer.begin_transaction().expect("a transaction");
    let sent = producer.send_offsets_to_transaction(&offsets(&topic, &[(0, 7, "")]), &metadata_of(&outsider), PATIENCE);
    sent.expect("the broker takes it although the group has a live member");
    producer.commit_transaction(PATIENCE).expect("it commits");
    let partition = TopicPartition::new(topic.as_str(), 0);
    assert_eq!(
        committed(&*Broker::shared().log(), &group, &partition),
        Some((7, String::new()))
    );
}

#[test]
fn the_broker_does_not_check_who_owns_a_partition() {
    let (topic, group) = input(1);
    let log = Broker::shared().log();
    let other = unique("other");
    create(&*log, &other, 1, &[]);
    let member = raw_member(&group, &topic);
    let producer = raw_producer(&unique("id"));
    producer.begin_transaction().expect("a transaction");
    // Not even a subscription is needed, let alone an assignment.
    let sent = producer.send_offsets_to_transaction(&offsets(&other, &[(0, 9, "")]), &metadata_of(&member), PATIENCE);
    sent.expect("any member may commit any partition");
    producer.commit_transaction(PATIENCE).expect("it commits");
    assert_eq!(
        committed(&*log, &group, &TopicPartition::new(other.as_str(), 0)),
        Some((9, String::new()))
    );
}

#[test]
fn one_pending_offset_blocks_the_whole_read_of_who_reads_committed_only() {
    let (topic, group) = input(2);
    let log = Broker::shared().log();
    let member = raw_member(&group, &topic);
    let partitions = [0, 1].map(|number| TopicPartition::new(topic.as_str(), number));
    let producer = raw_producer(&unique("id"));
    producer.begin_transaction().expect("a transaction");
    let both = offsets(&topic, &[(0, 1, "old"), (1, 1, "old")]);
    producer
        .send_offsets_to_transaction(&both, &metadata_of(&member), PATIENCE)
        .expect("offsets are sent");
    producer.commit_transaction(PATIENCE).expect("it commits");
    assert_eq!(committed(&*log, &group, &partitions[0]), Some((1, "old".to_owned())));

    producer.begin_transaction().expect("a transaction");
    let one = offsets(&topic, &[(0, 2, "new")]);
    producer
        .send_offsets_to_transaction(&one, &metadata_of(&member), PATIENCE)
        .expect("offsets are sent");
    let read = log.admin().committed(&group, &partitions, Duration::from_millis(700));
    assert!(
        matches!(read, Err(tidegate::log::LogError::TimedOut { .. })),
        "{read:?}"
    );
    assert_eq!(
        committed(&*log, &group, &partitions[1]),
        Some((1, "old".to_owned())),
        "alone it answers"
    );

    let careless = raw_consumer(&group, "read_uncommitted");
    let mut asked = TopicPartitionList::new();
    asked.add_partition(&topic, 0);
    let answer = careless.committed_offsets(asked, PATIENCE).expect("it answers at once");
    assert_eq!(
        answer.elements()[0].offset(),
        Offset::Offset(1),
        "and what it says is old"
    );

    producer.commit_transaction(PATIENCE).expect("it commits");
    assert_eq!(committed(&*log, &group, &partitions[0]), Some((2, "new".to_owned())));
}

#[test]
fn of_two_pending_offsets_the_one_written_later_wins() {
    let (topic, group) = input(1);
    let member = raw_member(&group, &topic);
    let (first, second) = (raw_producer(&unique("id")), raw_producer(&unique("id")));
    for (producer, offset) in [(&first, 1), (&second, 2)] {
        producer.begin_transaction().expect("a transaction");
        let list = offsets(&topic, &[(0, offset, "")]);
        let sent = producer.send_offsets_to_transaction(&list, &metadata_of(&member), PATIENCE);
        sent.expect("no conflict is reported");
    }
    second.commit_transaction(PATIENCE).expect("it commits");
    first.commit_transaction(PATIENCE).expect("it commits");
    let partition = TopicPartition::new(topic.as_str(), 0);
    let outcome = committed(&*Broker::shared().log(), &group, &partition);
    assert_eq!(outcome, Some((2, String::new())), "not the one that committed later");
}

#[test]
fn a_fenced_producer_learns_of_it_at_its_first_contact_with_the_broker() {
    let log = Broker::shared().log();
    let (topic, group) = input(1);
    let member = raw_member(&group, &topic);
    let fatal = |outcome: Result<(), KafkaError>| match outcome {
        Err(KafkaError::Transaction(error)) => {
            assert!(error.is_fatal(), "{error:?}");
            assert_eq!(error.code(), RDKafkaErrorCode::Fenced);
        }
        other => panic!("expected a fatal error, got {other:?}"),
    };
    for contact in ["commit", "abort", "offsets"] {
        let id = unique("id");
        let zombie = raw_producer(&id);
        zombie.begin_transaction().expect("a transaction");
        let before = high(&*log, &topic, 0);
        zombie
            .send(BaseRecord::<(), str>::to(&topic).partition(0).payload("zombie"))
            .expect("the record is queued");
        wait_for("the record is written", || high(&*log, &topic, 0) > before);
        let _successor = raw_producer(&id);
        match contact {
            "commit" => fatal(zombie.commit_transaction(PATIENCE)),
            "abort" => fatal(zombie.abort_transaction(PATIENCE)),
            _ => {
                let list = offsets(&topic, &[(0, 1, "")]);
                fatal(zombie.send_offsets_to_transaction(&list, &metadata_of(&member), PATIENCE));
            }
        }
    }
}
