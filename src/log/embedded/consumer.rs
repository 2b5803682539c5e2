//! A consumer of the embedded log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::broker::BrokerError;
use super::link::{Interest, Link};
use super::topic::{DescribeTopic, Fetch, FetchPartition, Fetched, FetchedPartition, TopicId};
use crate::ids::TopicPartition;
use crate::log::{Assignment, Consumer, Isolation, LogError, LogResult, RecordBatch, Slot};

/// One assigned partition.
struct Assigned {
    slot: Slot,
    partition: TopicPartition,
    /// `None` if it does not exist: real clients learn that when they fetch, so it is told by poll.
    topic: Option<TopicId>,
    next_offset: i64,
    /// The end as the last fetch reported it; `None` before the first.
    end_offset: Option<i64>,
    paused: bool,
    /// The error has been reported (or is about to be); nothing more comes until the next assignment.
    failed: bool,
}

/// See [`Consumer`]. It fetches only inside of [`Consumer::poll`].
pub(super) struct EmbeddedConsumer {
    name: String,
    link: Link,
    isolation: Isolation,
    assigned: Vec<Assigned>,
    by_slot: BTreeMap<Slot, usize>,
    /// Which partition comes first in the next fetch, so that none starves.
    turn: usize,
    /// Errors that came together with records: they are reported after them.
    errors: VecDeque<LogError>,
}

impl EmbeddedConsumer {
    pub fn new(name: &str, link: Link, isolation: Isolation) -> Self {
        Self {
            name: name.to_owned(),
            link,
            isolation,
            assigned: Vec::new(),
            by_slot: BTreeMap::new(),
            turn: 0,
            errors: VecDeque::new(),
        }
    }

    /// The topic of a partition; `None` if there is no such partition.
    fn find_topic(&self, partition: &TopicPartition) -> Option<TopicId> {
        let (topic, info) = self.link.call(DescribeTopic(Arc::clone(&partition.topic))).ok()?;
        (0..info.partitions).contains(&partition.partition).then_some(topic)
    }

    fn misuse(&self, reason: String) -> LogError {
        LogError::Fatal {
            operation: format!("assigning to consumer {}", self.name),
            reason,
        }
    }

    /// Indexes of the partitions to fetch from, beginning with the one whose turn it is.
    fn active(&self) -> Vec<usize> {
        let count = self.assigned.len();
        let turns = (0..count).map(|step| (self.turn + step) % count);
        turns
            .filter(|index| !self.assigned[*index].paused && !self.assigned[*index].failed)
            .collect()
    }

    fn request(&self, active: &[usize], max_records: usize) -> Fetch {
        let partition = |index: &usize| {
            let assigned = &self.assigned[*index];
            FetchPartition {
                topic: assigned.topic,
                partition: assigned.partition.partition,
                offset: assigned.next_offset,
                slot: assigned.slot,
            }
        };
        Fetch {
            partitions: active.iter().map(partition).collect(),
            isolation: self.isolation,
            max_records,
        }
    }

    fn take_note(&mut self, index: usize, fetched: Result<FetchedPartition, BrokerError>) {
        let assigned = &mut self.assigned[index];
        match fetched {
            Ok(fetched) => {
                assigned.next_offset = fetched.next_offset;
                assigned.end_offset = Some(fetched.end_offset);
            }
            Err(BrokerError::OffsetOutOfRange) => {
                assigned.failed = true;
                self.errors.push_back(LogError::OffsetOutOfRange {
                    partition: assigned.partition.clone(),
                    offset: assigned.next_offset,
                });
            }
            Err(_) => {
                assigned.failed = true;
                self.errors.push_back(LogError::UnknownTopic {
                    topic: assigned.partition.topic.to_string(),
                });
            }
        }
    }
}

/// Whether the answer brings anything that `request` did not know: records, an error, or a position past control records.
fn brings_news(request: &Fetch, fetched: &Fetched) -> bool {
    let moved = |(asked, got): (&FetchPartition, &Result<FetchedPartition, BrokerError>)| {
        got.as_ref().is_ok_and(|got| got.next_offset > asked.offset) || got.is_err()
    };
    request.partitions.iter().zip(&fetched.partitions).any(moved)
}

impl Consumer for EmbeddedConsumer {
    fn assign(&mut self, partitions: &[Assignment]) -> LogResult<()> {
        let mut assigned = Vec::with_capacity(partitions.len());
        let mut by_slot = BTreeMap::new();
        for (index, assignment) in partitions.iter().enumerate() {
            if by_slot.insert(assignment.slot, index).is_some() {
                return Err(self.misuse(format!("slot {} is named twice", assignment.slot)));
            }
            assigned.push(Assigned {
                slot: assignment.slot,
                partition: assignment.partition.clone(),
                topic: self.find_topic(&assignment.partition),
                next_offset: assignment.offset,
                end_offset: None,
                paused: false,
                failed: false,
            });
        }
        self.assigned = assigned;
        self.by_slot = by_slot;
        self.turn = 0;
        self.errors.clear();
        Ok(())
    }

    fn pause(&mut self, slots: &[Slot], paused: bool) -> LogResult<()> {
        for slot in slots {
            match self.by_slot.get(slot) {
                Some(index) => self.assigned[*index].paused = paused,
                None => return Err(self.misuse(format!("slot {slot} is not assigned"))),
            }
        }
        Ok(())
    }

    fn poll(&mut self, max_records: usize, wait: Duration) -> LogResult<Option<Arc<dyn RecordBatch>>> {
        if let Some(error) = self.errors.pop_front() {
            return Err(error);
        }
        let active = self.active();
        let request = self.request(&active, max_records);
        let answer = self
            .link
            .call_until(request.clone(), wait, Interest::from(self.isolation), |answer| {
                answer.as_ref().is_ok_and(|fetched| brings_news(&request, fetched))
            });
        let fetched = answer.map_err(|error| LogError::Fatal {
            operation: format!("fetching by consumer {}", self.name),
            reason: error.to_string(),
        })?;
        self.turn = self.turn.wrapping_add(1) % self.assigned.len().max(1);
        for (index, partition) in active.into_iter().zip(fetched.partitions) {
            self.take_note(index, partition);
        }
        if fetched.batch.len() > 0 {
            return Ok(Some(Arc::new(fetched.batch)));
        }
        self.errors.pop_front().map_or(Ok(None), Err)
    }

    fn position(&self, slot: Slot) -> Option<i64> {
        let assigned = &self.assigned[*self.by_slot.get(&slot)?];
        assigned.end_offset.map(|_| assigned.next_offset)
    }

    fn end_offset(&self, slot: Slot) -> Option<i64> {
        self.assigned[*self.by_slot.get(&slot)?].end_offset
    }
}
