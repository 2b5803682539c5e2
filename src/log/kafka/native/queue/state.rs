//! What is in the queue, without locks and clocks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::super::records::{Batch, Identity, Parts};
use super::{Fate, Limits, Taken};
use crate::log::{LogError, OutTopic};

/// Pause between two questions for leaders that are not known.
const REFRESH_PAUSE: Duration = Duration::from_millis(50);

/// While the coordinator writes the markers of the last transaction it takes no partition into the next one, and a leader that asks
/// for that waits 20 ms. So records that may wait do so for as long as markers take at most times.
const MARKERS: Duration = Duration::from_millis(10);

/// Bytes of buffers that are kept for batches to come.
const SPARE_BYTES: usize = 4 << 20;

/// Buffers of batches that are done with.
#[derive(Default)]
pub(super) struct Spare {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Spare {
    /// An empty batch, in a buffer that was used before if there is one.
    pub fn batch(&mut self) -> Batch {
        let buffer = self.buffers.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        Batch::in_buffer(buffer)
    }

    fn give(&mut self, buffer: Vec<u8>) {
        if self.bytes + buffer.capacity() <= SPARE_BYTES {
            self.bytes += buffer.capacity();
            self.buffers.push(buffer);
        }
    }
}

pub(super) struct Topic {
    pub name: Arc<str>,
    pub first: usize,
    pub partitions: usize,
}

pub(super) struct Partition {
    pub topic: usize,
    pub index: i32,
    /// Negative while it is not known.
    pub leader: i32,
    pub open: Option<Batch>,
    pub sealed: VecDeque<Batch>,
    pub in_flight: bool,
    /// Not before this.
    pub from: Duration,
    pub sequence: i32,
}

impl Partition {
    pub fn seal(&mut self) {
        self.sealed.extend(self.open.take());
    }

    pub fn oldest(&self) -> Option<&Batch> {
        self.sealed.front().or(self.open.as_ref())
    }
}

#[derive(Default)]
pub(super) struct State {
    pub topics: Vec<Topic>,
    pub partitions: Vec<Partition>,
    pub identity: Option<Identity>,
    pub records: usize,
    pub bytes: usize,
    pub in_flight: usize,
    /// Whether anything of the transaction may have reached a broker.
    pub touched: bool,
    /// The epoch is complete: nothing waits for company any more.
    pub urgent: bool,
    /// The queue was full and is not yet half empty: nothing waits for company.
    pub pressed: bool,
    /// Increments are being queued, and go together.
    pub gathering: bool,
    /// When the markers of the last transaction are likely to be written.
    pub settled: Duration,
    /// What is not acknowledged will not be sent again.
    pub discarding: bool,
    pub failure: Option<LogError>,
    pub stopped: bool,
    pub refresh_from: Duration,
    pub spare: Spare,
}

impl State {
    /// Sets the topics, with the leaders of their partitions.
    pub fn prepare(&mut self, topics: &[(Arc<str>, Vec<i32>)]) {
        for (topic, (name, leaders)) in topics.iter().enumerate() {
            // A topic that is named twice is one.
            if let Some(same) = self.topics.iter().find(|known| known.name == *name) {
                let (first, partitions) = (same.first, same.partitions);
                self.topics.push(Topic {
                    name: Arc::clone(name),
                    first,
                    partitions,
                });
                continue;
            }
            self.topics.push(Topic {
                name: Arc::clone(name),
                first: self.partitions.len(),
                partitions: leaders.len(),
            });
            let partition = |(index, leader): (i32, &i32)| Partition {
                topic,
                index,
                leader: *leader,
                open: None,
                sealed: VecDeque::new(),
                in_flight: false,
                from: Duration::ZERO,
                sequence: 0,
            };
            self.partitions.extend((0..).zip(leaders).map(partition));
        }
    }

    /// The leaders of a topic's partitions, as they are by now.
    pub fn set_leaders(&mut self, topic: &str, leaders: &[i32]) {
        if let Some(known) = self.topics.iter().find(|known| &*known.name == topic) {
            let partitions = known.first..known.first + known.partitions;
            for (partition, leader) in self.partitions[partitions].iter_mut().zip(leaders) {
                partition.leader = *leader;
            }
        }
    }

    /// Every broker that leads a partition.
    pub fn leaders(&self) -> Vec<i32> {
        let mut leaders: Vec<i32> = self.partitions.iter().map(|partition| partition.leader).collect();
        leaders.sort_unstable();
        leaders.dedup();
        leaders.retain(|leader| *leader >= 0);
        leaders
    }

    #[inline]
    pub fn place(&self, topic: OutTopic, partition: i32) -> Option<usize> {
        let topic = self.topics.get(usize::from(topic.0))?;
        let partition = usize::try_from(partition).ok()?;
        (partition < topic.partitions).then_some(topic.first + partition)
    }

    pub fn is_half_full(&self, limits: &Limits) -> bool {
        self.records > limits.records / 2 || self.bytes > limits.bytes / 2
    }

    pub fn is_full(&self, limits: &Limits, records: usize, bytes: usize) -> bool {
        self.records > 0 && (self.records + records > limits.records || self.bytes + bytes > limits.bytes)
    }

    /// Answers whether there is news for senders: a batch was begun, or is full.
    #[inline]
    pub fn push(&mut self, place: usize, parts: &Parts<'_>, limits: &Limits, now: impl Fn() -> Duration) -> bool {
        let Self { partitions, spare, .. } = self;
        let partition = &mut partitions[place];
        if let Some(batch) = &mut partition.open {
            if batch.len() < limits.batch_records && batch.push(parts, limits.batch_bytes) {
                return false;
            }
            partition.seal();
        }
        let mut batch = spare.batch();
        batch.opened = now();
        batch.push(parts, limits.batch_bytes);
        partition.open = Some(batch);
        true
    }

    /// The producer that sends, if there is something to send now; else when there will be.
    pub fn ready(&self, leader: i32, now: Duration, limits: &Limits) -> Result<Identity, Option<Duration>> {
        let gathers = self.gathering && !self.urgent && !self.pressed;
        let sends = self.failure.is_none() && !self.discarding && !gathers;
        let Some(identity) = self.identity.filter(|_| sends) else {
            return Err(None);
        };
        let mut next = None;
        for partition in &self.partitions {
            if partition.leader != leader || partition.in_flight {
                continue;
            }
            let due = match (partition.sealed.is_empty(), &partition.open) {
                (false, _) => partition.from,
                (true, Some(_)) if self.urgent || self.pressed => partition.from,
                (true, Some(open)) => partition.from.max(open.opened + limits.linger).max(self.settled),
                (true, None) => continue,
            };
            if due <= now {
                return Ok(identity);
            }
            next = Some(next.map_or(due, |next: Duration| next.min(due)));
        }
        Err(next)
    }

    /// One batch of each partition: whoever is not yet due goes with those that are.
    pub fn take(&mut self, leader: i32, now: Duration, limits: &Limits) -> Vec<Taken> {
        let mut taken: Vec<Taken> = Vec::new();
        let mut bytes = 0;
        for (place, partition) in self.partitions.iter_mut().enumerate() {
            if partition.leader != leader || partition.in_flight || partition.from > now {
                continue;
            }
            let Some(next) = partition.oldest() else { continue };
            if !taken.is_empty() && bytes + next.bytes() > limits.request_bytes {
                break;
            }
            if partition.sealed.is_empty() {
                partition.seal();
            }
            let Some(mut batch) = partition.sealed.pop_front() else {
                continue;
            };
            bytes += batch.bytes();
            partition.sequence = batch.place(partition.sequence);
            partition.in_flight = true;
            self.in_flight += 1;
            taken.push(Taken {
                place,
                topic: Arc::clone(&self.topics[partition.topic].name),
                partition: partition.index,
                batch,
            });
        }
        self.touched = true;
        taken
    }

    pub fn settle(&mut self, taken: Taken, fate: Fate, now: Duration, limits: &Limits) {
        let Taken { place, mut batch, .. } = taken;
        let partition = &mut self.partitions[place];
        partition.in_flight = false;
        self.in_flight -= 1;
        match fate {
            Fate::Acknowledged => self.forget(batch),
            Fate::Again { pause, moved } => {
                if moved {
                    partition.leader = -1;
                }
                if self.discarding || self.failure.is_some() {
                    return self.forget(batch);
                }
                batch.attempts += 1;
                partition.from = now + pause;
                partition.sealed.push_front(batch);
            }
            Fate::Failed(error) => {
                self.forget(batch);
                self.fail(error);
            }
        }
        self.pressed &= self.is_half_full(limits);
    }

    /// Begins a transaction, of which there is nothing yet.
    pub fn begin(&mut self) {
        self.touched = false;
        self.urgent = false;
        self.pressed = false;
        self.gathering = false;
        self.discarding = false;
        self.failure = None;
    }

    /// Who the producer is from now on: its sequence numbers begin again.
    pub fn set_identity(&mut self, identity: Identity, now: Duration) {
        self.identity = Some(identity);
        self.settled = now + MARKERS;
        for partition in &mut self.partitions {
            partition.sequence = 0;
        }
    }

    /// The first failure is the one that counts; nothing more is sent after it.
    pub fn fail(&mut self, error: LogError) {
        self.failure.get_or_insert(error);
        self.drop_waiting();
    }

    pub fn forget(&mut self, batch: Batch) {
        self.records -= batch.len();
        self.bytes -= batch.payload_bytes();
        self.spare.give(batch.into_buffer());
    }

    pub fn drop_waiting(&mut self) {
        let waiting: Vec<Batch> = self
            .partitions
            .iter_mut()
            .flat_map(|partition| partition.sealed.drain(..).chain(partition.open.take()))
            .collect();
        for batch in waiting {
            self.forget(batch);
        }
    }

    /// Fails the transaction if a batch has waited for too long; answers whether it did.
    pub fn expire(&mut self, now: Duration, limits: &Limits) -> bool {
        let late = |partition: &&Partition| {
            let oldest = partition.sealed.front();
            oldest.is_some_and(|batch| batch.opened + limits.delivery < now)
        };
        let Some(partition) = self.partitions.iter().find(late) else {
            return false;
        };
        let (topic, index) = (&self.topics[partition.topic].name, partition.index);
        let error = LogError::Abort {
            operation: format!("producing to {topic}-{index}"),
            reason: format!("not acknowledged within {} ms", limits.delivery.as_millis()),
        };
        self.fail(error);
        true
    }

    /// Whether leaders have to be asked for now; only one sender is told so.
    pub fn refreshes(&mut self, now: Duration) -> bool {
        let waits = |partition: &Partition| partition.leader < 0 && partition.oldest().is_some();
        let refreshes = now >= self.refresh_from && self.partitions.iter().any(waits);
        if refreshes {
            self.refresh_from = now + REFRESH_PAUSE;
        }
        refreshes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Headers;

    const LIMITS: Limits = Limits {
        records: 100,
        bytes: 10_000,
        batch_bytes: 1_000,
        batch_records: 2,
        request_bytes: 10_000,
        linger: Duration::from_millis(5),
        delivery: Duration::from_secs(10),
    };
    const AGAIN: Fate = Fate::Again {
        pause: Duration::from_millis(3),
        moved: false,
    };

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Two partitions of a topic, the first led by broker 1, the second by 2.
    fn state() -> State {
        let mut state = State::default();
        state.prepare(&[(Arc::from("topic"), vec![1, 2])]);
        state.identity = Some(Identity { id: 1, epoch: 0 });
        state
    }

    fn push(state: &mut State, place: usize, now: Duration) {
        let parts = Parts {
            key: None,
            value: Some(b"value"),
            timestamp_ms: 0,
            headers: &Headers::default(),
        };
        state.push(place, &parts, &LIMITS, || now);
        state.records += 1;
        state.bytes += parts.payload_bytes();
    }

    fn take(state: &mut State, leader: i32, now: Duration) -> Vec<Taken> {
        match state.ready(leader, now, &LIMITS) {
            Ok(_) => state.take(leader, now, &LIMITS),
            Err(_) => Vec::new(),
        }
    }

    /// Sequence number and number of records of what was taken.
    fn places(taken: &[Taken]) -> Vec<(Option<i32>, usize)> {
        taken
            .iter()
            .map(|taken| (taken.batch.sequence(), taken.batch.len()))
            .collect()
    }

    #[test]
    fn a_record_goes_when_its_linger_is_over_or_its_batch_is_full() {
        let mut state = state();
        push(&mut state, 0, at(0));
        assert_eq!(state.ready(1, at(4), &LIMITS), Err(Some(at(5))));
        assert_eq!(
            state.ready(2, at(4), &LIMITS),
            Err(None),
            "another broker has nothing to do with it"
        );
        assert!(state.ready(1, at(5), &LIMITS).is_ok());
        push(&mut state, 0, at(1));
        push(&mut state, 0, at(2));
        assert!(state.ready(1, at(2), &LIMITS).is_ok(), "two records are a batch");
        state.identity = None;
        assert_eq!(state.ready(1, at(9), &LIMITS), Err(None), "nobody can send yet");
    }

    #[test]
    fn one_batch_of_a_partition_is_on_its_way_and_what_comes_again_keeps_its_place() {
        let mut state = state();
        for _ in 0..5 {
            push(&mut state, 0, at(0));
        }
        let mut first = take(&mut state, 1, at(0));
        assert_eq!(places(&first), [(Some(0), 2)]);
        assert!(
            take(&mut state, 1, at(0)).is_empty(),
            "the second batch waits for the first"
        );
        state.settle(first.remove(0), AGAIN, at(0), &LIMITS);
        assert!(take(&mut state, 1, at(2)).is_empty(), "there is a pause");
        let mut again = take(&mut state, 1, at(3));
        assert_eq!(places(&again), [(Some(0), 2)]);
        state.settle(again.remove(0), Fate::Acknowledged, at(3), &LIMITS);
        let mut second = take(&mut state, 1, at(3));
        assert_eq!(places(&second), [(Some(2), 2)]);
        state.settle(second.remove(0), Fate::Acknowledged, at(3), &LIMITS);
        assert_eq!((state.records, state.in_flight), (1, 0));
    }

    #[test]
    fn what_may_wait_keeps_away_from_the_markers_of_the_last_transaction() {
        let mut state = state();
        state.set_identity(Identity { id: 1, epoch: 1 }, at(100));
        push(&mut state, 0, at(101));
        assert_eq!(state.ready(1, at(107), &LIMITS), Err(Some(at(100) + MARKERS)));
        state.urgent = true;
        assert!(state.ready(1, at(107), &LIMITS).is_ok(), "a commit does not wait");
    }

    #[test]
    fn increments_that_are_gathered_go_together_unless_there_is_much_of_them() {
        let mut state = state();
        state.gathering = true;
        push(&mut state, 0, at(0));
        push(&mut state, 0, at(0));
        push(&mut state, 0, at(0));
        assert_eq!(state.ready(1, at(50), &LIMITS), Err(None), "not even a full batch");
        state.pressed = true;
        assert!(state.ready(1, at(50), &LIMITS).is_ok());
        let mut taken = take(&mut state, 1, at(50));
        state.settle(taken.remove(0), Fate::Acknowledged, at(50), &LIMITS);
        assert!(!state.pressed, "the queue is not even half full");
    }

    #[test]
    fn a_partition_whose_leader_moved_waits_for_the_new_one() {
        let mut state = state();
        push(&mut state, 0, at(0));
        let mut taken = take(&mut state, 1, at(5));
        let moved = Fate::Again {
            pause: Duration::ZERO,
            moved: true,
        };
        state.settle(taken.remove(0), moved, at(5), &LIMITS);
        assert!(take(&mut state, 1, at(6)).is_empty());
        assert!(state.refreshes(at(6)));
        assert!(!state.refreshes(at(7)), "one sender asks");
        assert!(
            state.refreshes(at(6) + REFRESH_PAUSE),
            "and again, as long as there is none"
        );
        state.set_leaders("topic", &[2, 2]);
        assert!(!state.refreshes(at(500)));
        push(&mut state, 1, at(500));
        let taken = take(&mut state, 2, at(500));
        assert_eq!(
            places(&taken),
            [(Some(0), 1), (Some(0), 1)],
            "both partitions in one request"
        );
    }

    #[test]
    fn after_a_failure_nothing_is_sent_and_the_first_one_counts() {
        let mut state = state();
        push(&mut state, 0, at(0));
        push(&mut state, 1, at(0));
        let mut first = take(&mut state, 1, at(5));
        let mut second = take(&mut state, 2, at(5));
        push(&mut state, 0, at(5));
        let failed = |reason: &str| {
            Fate::Failed(LogError::Abort {
                operation: "producing".to_owned(),
                reason: reason.to_owned(),
            })
        };
        state.settle(first.remove(0), failed("first"), at(6), &LIMITS);
        state.settle(second.remove(0), AGAIN, at(6), &LIMITS);
        state.fail(LogError::QueueFull);
        assert!(
            state
                .failure
                .as_ref()
                .is_some_and(|error| error.to_string().contains("first"))
        );
        assert_eq!((state.records, state.bytes, state.in_flight), (0, 0, 0));
        assert_eq!(state.ready(1, at(99), &LIMITS), Err(None));
    }

    #[test]
    fn a_batch_that_nobody_acknowledges_fails_the_transaction() {
        let mut state = state();
        push(&mut state, 0, at(0));
        let mut taken = take(&mut state, 1, at(5));
        state.settle(taken.remove(0), AGAIN, at(5), &LIMITS);
        assert!(!state.expire(at(10_000), &LIMITS));
        assert!(state.expire(at(10_001), &LIMITS));
        assert!(matches!(&state.failure, Some(LogError::Abort { operation, .. }) if operation.contains("topic-0")));
    }
}
