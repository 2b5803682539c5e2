//! Transactions that stop halfway: what the port never does, and a crash or a slow client may.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{DefaultProducerContext, Producer as RawProducer, ThreadedProducer};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::{Offset, types::RDKafkaErrorCode};
use tidegate::log::embedded::{EmbeddedLog, EmbeddedSettings};
use tidegate::log::kafka::{KafkaLog, KafkaSettings, ProducerEngine};
use tidegate::log::{CommitOffset, GroupMetadata, Log, LogError, Producer};
use tidegate::time::SystemClock;

use crate::drive::{PATIENCE, commit_of};

/// A transaction that has sent offsets, and not ended.
pub trait Halfway {
    /// Commits it.
    fn commit(self: Box<Self>);
    /// Tries to commit it and asserts that its producer is fenced.
    fn is_fenced(self: Box<Self>);
    /// Asks for its commit and does not wait for the answer.
    fn give_up(self: Box<Self>);
}

/// Opens a transaction of an id, and sends an offset in it for a member.
pub type LeaveHalfway = Box<dyn Fn(&str, GroupMetadata, CommitOffset) -> Box<dyn Halfway>>;

/// A log, and the way to leave transactions halfway in it.
pub struct Halves {
    /// The log; its transactions time out.
    pub log: Arc<dyn Log>,
    /// See [`LeaveHalfway`].
    pub leave_halfway: LeaveHalfway,
}

impl Halves {
    /// On Kafka at `address`, with producers of one library.
    pub fn kafka(address: &str, transaction_timeout: Duration, engine: ProducerEngine) -> Self {
        let mut settings = KafkaSettings::new(address);
        settings.producer_engine = engine;
        settings.transaction_timeout = transaction_timeout;
        let log = KafkaLog::new(settings).expect("the settings are valid");
        let address = address.to_owned();
        let leave_halfway = move |id: &str, group: GroupMetadata, offset: CommitOffset| {
            RawTransaction::open(&address, transaction_timeout, id, &group, &offset)
        };
        Self {
            log,
            leave_halfway: Box::new(leave_halfway),
        }
    }

    /// On an embedded log of its own.
    pub fn embedded(transaction_timeout: Duration) -> Self {
        let settings = EmbeddedSettings {
            transaction_timeout,
            ..EmbeddedSettings::default()
        };
        let log: Arc<dyn Log> = EmbeddedLog::with_settings(Arc::new(SystemClock::default()), settings);
        let of = Arc::clone(&log);
        let leave_halfway = move |id: &str, group: GroupMetadata, offset: CommitOffset| {
            EmbeddedTransaction::open(&*of, id, group, &offset)
        };
        Self {
            log,
            leave_halfway: Box::new(leave_halfway),
        }
    }
}

/// Made with the client library itself, in the name of a group's outsider, whom no broker fences.
struct RawTransaction {
    producer: ThreadedProducer<DefaultProducerContext>,
}

impl RawTransaction {
    fn open(
        address: &str,
        timeout: Duration,
        id: &str,
        group: &GroupMetadata,
        offset: &CommitOffset,
    ) -> Box<dyn Halfway> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", address);
        let outsider: BaseConsumer = config
            .clone()
            .set("group.id", &group.group)
            .create()
            .expect("a consumer");
        config.set("transactional.id", id).set("retry.backoff.ms", "10");
        config.set("transaction.timeout.ms", timeout.as_millis().to_string());
        let producer: ThreadedProducer<DefaultProducerContext> = config.create().expect("a producer");
        producer
            .init_transactions(PATIENCE)
            .expect("the producer can be initialised");
        producer.begin_transaction().expect("a transaction");
        let mut offsets = TopicPartitionList::new();
        let partition = &offset.partition;
        let mut element = offsets.add_partition(&partition.topic, partition.partition);
        element
            .set_offset(Offset::Offset(offset.offset))
            .expect("a valid offset");
        element.set_metadata(&offset.metadata);
        let metadata = outsider.group_metadata().expect("the consumer has a group");
        producer
            .send_offsets_to_transaction(&offsets, &metadata, PATIENCE)
            .expect("the offsets are taken");
        Box::new(Self { producer })
    }
}

impl Halfway for RawTransaction {
    fn commit(self: Box<Self>) {
        self.producer
            .commit_transaction(PATIENCE)
            .expect("the transaction commits");
    }

    fn is_fenced(self: Box<Self>) {
        let refused = self.producer.commit_transaction(PATIENCE).expect_err("it is too late");
        assert_eq!(
            refused.rdkafka_error_code(),
            Some(RDKafkaErrorCode::Fenced),
            "{refused}"
        );
    }

    fn give_up(self: Box<Self>) {
        // Whatever it answers: nobody can rely on it.
        let _ = self.producer.commit_transaction(Duration::from_millis(1));
    }
}

/// A commit that nobody goes on with: the embedded log makes one step of it per poll that does not wait.
struct EmbeddedTransaction {
    producer: Box<dyn Producer>,
}

impl EmbeddedTransaction {
    fn open(log: &dyn Log, id: &str, group: GroupMetadata, offset: &CommitOffset) -> Box<dyn Halfway> {
        let mut producer = crate::drive::producer(log, Some(id), &[]);
        producer.begin().expect("a transaction");
        let offsets = [(offset.partition.clone(), offset.offset, offset.metadata.as_str())];
        producer
            .start_commit(commit_of(group, &offsets))
            .expect("a commit starts");
        for step in ["increments", "offsets"] {
            assert!(
                producer.poll_commit(Duration::ZERO).is_none(),
                "after the {step} there is more"
            );
        }
        Box::new(Self { producer })
    }
}

impl Halfway for EmbeddedTransaction {
    fn commit(mut self: Box<Self>) {
        let outcome = self.producer.poll_commit(PATIENCE);
        outcome.expect("an outcome").expect("the transaction commits");
    }

    fn is_fenced(mut self: Box<Self>) {
        let outcome = self.producer.poll_commit(PATIENCE);
        assert!(matches!(outcome, Some(Err(LogError::Fenced { .. }))), "{outcome:?}");
    }

    fn give_up(mut self: Box<Self>) {
        let _ = self.producer.poll_commit(Duration::ZERO);
    }
}
