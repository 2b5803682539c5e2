//! The transaction coordinator: producer ids, epochs and fencing, open transactions and their end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::broker::{Broker, BrokerError, Request, Wake};
use super::packed::{Packed, TransactionSerial};
use super::partition::Ending;
use super::topic::TopicId;
use crate::log::{CommitOffset, GroupMetadata};

/// Producer ids are exhausted one epoch before the largest number, as in Kafka.
const LAST_EPOCH: i16 = i16::MAX - 1;

/// What a transactional producer is known by after its initialisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProducerIdentity {
    /// Where the coordinator keeps the transactional id.
    index: usize,
    producer_id: i64,
    epoch: i16,
}

/// The coordinator's view of one transactional id.
#[derive(Debug)]
struct TransactionalId {
    name: String,
    producer_id: i64,
    epoch: i16,
    timeout: Duration,
    open: Option<OpenTransaction>,
}

/// A transaction that has written something and has not ended.
#[derive(Debug)]
struct OpenTransaction {
    serial: TransactionSerial,
    since: Duration,
    partitions: BTreeSet<(TopicId, i32)>,
    groups: BTreeSet<String>,
}

/// All transactional ids.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    ids: Vec<TransactionalId>,
    names: BTreeMap<String, usize>,
    last_producer_id: i64,
    last_serial: u64,
}

impl Transactions {
    /// When the next open transaction times out.
    pub fn next_deadline(&self) -> Option<Duration> {
        let open = self
            .ids
            .iter()
            .filter_map(|id| Some(id.open.as_ref()?.since + id.timeout));
        open.min()
    }

    /// Every transactional id with its producer.
    pub fn producers(&self) -> impl Iterator<Item = (&str, i64, i16)> {
        self.ids.iter().map(|id| (id.name.as_str(), id.producer_id, id.epoch))
    }

    /// The last producer id and the last serial number that were given out.
    pub fn counters(&self) -> (i64, u64) {
        (self.last_producer_id, self.last_serial)
    }

    /// Numbers up to these are taken.
    pub fn raise(&mut self, last_producer_id: i64, last_serial: u64) {
        self.last_producer_id = self.last_producer_id.max(last_producer_id);
        self.last_serial = self.last_serial.max(last_serial);
    }

    /// A transactional id had this producer when the log ended.
    pub fn restore(&mut self, name: &str, producer_id: i64, epoch: i16) {
        let index = self.initialise(name, Duration::ZERO);
        self.ids[index].producer_id = producer_id;
        self.ids[index].epoch = epoch;
        self.raise(producer_id, 0);
    }

    fn initialise(&mut self, name: &str, timeout: Duration) -> usize {
        if let Some(index) = self.names.get(name) {
            self.ids[*index].timeout = timeout;
            return *index;
        }
        self.last_producer_id += 1;
        self.ids.push(TransactionalId {
            name: name.to_owned(),
            producer_id: self.last_producer_id,
            // The first initialisation raises it to 0.
            epoch: -1,
            timeout,
            open: None,
        });
        self.names.insert(name.to_owned(), self.ids.len() - 1);
        self.ids.len() - 1
    }

    /// From now on earlier producers of this id are refused.
    fn fence(&mut self, index: usize) {
        let id = &mut self.ids[index];
        if id.epoch < LAST_EPOCH {
            id.epoch += 1;
        } else {
            self.last_producer_id += 1;
            id.producer_id = self.last_producer_id;
            id.epoch = 0;
        }
    }

    fn identity(&self, index: usize) -> ProducerIdentity {
        ProducerIdentity {
            index,
            producer_id: self.ids[index].producer_id,
            epoch: self.ids[index].epoch,
        }
    }

    fn check(&self, producer: ProducerIdentity) -> Result<&TransactionalId, BrokerError> {
        let id = &self.ids[producer.index];
        if (id.producer_id, id.epoch) == (producer.producer_id, producer.epoch) {
            Ok(id)
        } else {
            Err(BrokerError::InvalidProducerEpoch)
        }
    }

    /// The producer's open transaction, opened now if need be; and when it times out.
    fn open(
        &mut self,
        producer: ProducerIdentity,
        now: Duration,
    ) -> Result<(&mut OpenTransaction, Duration), BrokerError> {
        self.check(producer)?;
        let id = &mut self.ids[producer.index];
        let last_serial = &mut self.last_serial;
        let open = id.open.get_or_insert_with(|| {
            *last_serial += 1;
            OpenTransaction {
                serial: TransactionSerial(*last_serial),
                since: now,
                partitions: BTreeSet::new(),
                groups: BTreeSet::new(),
            }
        });
        let deadline = open.since + id.timeout;
        Ok((open, deadline))
    }
}

impl Broker {
    /// From now on earlier producers of this id are refused.
    fn fence(&mut self, index: usize) {
        self.transactions.fence(index);
        let id = &self.transactions.ids[index];
        self.store.producer(&id.name, id.producer_id, id.epoch);
    }

    /// Ends the open transaction of a transactional id, if there is one, everywhere at once.
    fn end_transaction(&mut self, index: usize, ending: Ending, now: Duration) {
        let Some(open) = self.transactions.ids[index].open.take() else {
            return;
        };
        let wall_ms = self.wall_ms;
        self.store.end(open.serial, ending, wall_ms, &open.partitions);
        let mut needs_a_look = false;
        for (id, partition) in open.partitions {
            // A topic that was deleted meanwhile needs no marker.
            let topic = self.topics.get_mut(id).ok();
            let marker = topic.and_then(|topic| topic.end_transaction(partition, open.serial, ending, wall_ms));
            if let Some((offset, look)) = marker {
                self.store.marker(id, partition, offset, open.serial, ending, wall_ms);
                needs_a_look |= look;
            }
        }
        if needs_a_look {
            self.expect_cleaning(now);
        }
        for group in &open.groups {
            self.group_mut(group).offsets.end_transaction(open.serial, ending);
        }
        self.wake(Wake::Everybody);
    }

    /// Aborts transactions that are open for too long. Their producers are fenced, as by a successor.
    pub fn expire_transactions(&mut self, now: Duration) {
        for index in 0..self.transactions.ids.len() {
            let id = &self.transactions.ids[index];
            if id.open.as_ref().is_some_and(|open| open.since + id.timeout <= now) {
                self.fence(index);
                self.end_transaction(index, Ending::Abort, now);
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------- requests

/// Makes the sender the only valid producer of the transactional id and aborts the open transaction of its predecessor.
#[derive(Clone, Debug)]
pub(super) struct InitProducer {
    /// The id.
    pub transactional_id: String,
    /// A transaction that is open longer is aborted.
    pub timeout: Duration,
}

impl Request for InitProducer {
    type Answer = ProducerIdentity;

    fn handle(self, broker: &mut Broker, now: Duration) -> Result<ProducerIdentity, BrokerError> {
        let index = broker.transactions.initialise(&self.transactional_id, self.timeout);
        broker.fence(index);
        broker.end_transaction(index, Ending::Abort, now);
        Ok(broker.transactions.identity(index))
    }
}

/// Appends records to one partition, all or none.
#[derive(Clone, Debug)]
pub(super) struct Produce {
    /// The transactional producer; `None` for one without transactions.
    pub producer: Option<ProducerIdentity>,
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: i32,
    /// The records.
    pub records: Packed,
}

impl Request for Produce {
    type Answer = ();

    fn handle(self, broker: &mut Broker, now: Duration) -> Result<(), BrokerError> {
        if let Some(producer) = self.producer {
            broker.transactions.check(producer)?;
        }
        let topic = broker.topics.get_mut(self.topic)?;
        topic.check(self.partition, &self.records)?;
        let mut serial = None;
        if let Some(producer) = self.producer {
            let (open, deadline) = broker.transactions.open(producer, now)?;
            open.partitions.insert((self.topic, self.partition));
            serial = Some((open.serial, deadline));
        }
        let written_by = serial.map(|(serial, _)| serial);
        let (offset, needs_a_look) = topic.append(self.partition, &self.records, written_by, broker.wall_ms)?;
        let store = &mut broker.store;
        store.append(self.topic, self.partition, offset, written_by, &self.records);
        if needs_a_look {
            broker.expect_cleaning(now);
        }
        match serial {
            Some((_, deadline)) => {
                broker.expect_deadline(deadline);
                broker.wake(Wake::UncommittedReaders);
            }
            None => broker.wake(Wake::Everybody),
        }
        Ok(())
    }
}

/// Writes offsets that take effect when the transaction commits.
#[derive(Clone, Debug)]
pub(super) struct CommitOffsetsInTransaction {
    /// The producer.
    pub producer: ProducerIdentity,
    /// The member on whose behalf it is done.
    pub group: GroupMetadata,
    /// The offsets.
    pub offsets: Vec<CommitOffset>,
}

impl Request for CommitOffsetsInTransaction {
    type Answer = ();

    fn handle(self, broker: &mut Broker, now: Duration) -> Result<(), BrokerError> {
        let (open, deadline) = broker.transactions.open(self.producer, now)?;
        // The transaction learns of the group before the group judges the offsets, as AddOffsetsToTxn comes first.
        open.groups.insert(self.group.group.clone());
        let serial = open.serial;
        broker.expect_deadline(deadline);
        let group = broker.group_mut(&self.group.group);
        group.check_transactional_commit(&self.group)?;
        group.offsets.write_pending(serial, &self.group.group, &self.offsets)?;
        broker.store.pending_offsets(serial, &self.group.group, &self.offsets);
        broker.wake(Wake::Everybody);
        Ok(())
    }
}

/// Ends the open transaction.
#[derive(Clone, Debug)]
pub(super) struct EndTransaction {
    /// The producer.
    pub producer: ProducerIdentity,
    /// How it ends.
    pub ending: Ending,
}

impl Request for EndTransaction {
    type Answer = ();

    fn handle(self, broker: &mut Broker, now: Duration) -> Result<(), BrokerError> {
        if broker.transactions.check(self.producer)?.open.is_none() {
            return Err(BrokerError::InvalidTxnState);
        }
        broker.end_transaction(self.producer.index, self.ending, now);
        Ok(())
    }
}
