//! Reading increments that were spilled to a topic of the log (invariant I8).

use std::sync::Arc;
use std::time::Duration;

use crate::durability::snapshot::{IncrementRef, SpillAssembly, SpillId, spill_partition};
use crate::ids::{Epoch, TaskId, TopicPartition};
use crate::log::{Assignment, Consumer, Isolation, Log, LogError, RecordBatch};

use super::error::SnapshotError;
use super::repository::damaged;

const BATCH_RECORDS: usize = 64;
/// Longest wait for records in one step.
const WAIT: Duration = Duration::from_millis(20);
/// Steps after which a read that nobody can put off is given up for now.
const STEPS: u32 = 100;
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
const SLOT: u32 = 0;

/// Reads the spilled increments of one task, best in the order in which they were written.
pub(super) struct SpillReader {
    log: Arc<dyn Log>,
    task: TaskId,
    partition: TopicPartition,
    reading: Option<Reading>,
}

/// Where a reader is.
struct Reading {
    consumer: Box<dyn Consumer>,
    /// The end of the partition when the consumer was placed.
    target: i64,
    /// Records that were fetched and not looked at yet.
    rest: Option<(Arc<dyn RecordBatch>, u32)>,
    /// Offset after the last record that was looked at.
    at: i64,
    /// The increment that is being put together, or was the last.
    wanted: (Epoch, SpillId),
    assembly: SpillAssembly,
}

impl SpillReader {
    pub(super) fn new(log: &Arc<dyn Log>, application_id: &str, task: TaskId) -> Self {
        Self {
            log: Arc::clone(log),
            task,
            partition: spill_partition(application_id, task),
            reading: None,
        }
    }

    /// Reads the increment of `epoch`, however many steps it takes within a bound.
    pub(super) fn read(&mut self, epoch: Epoch, spilled: SpillId) -> Result<Vec<u8>, SnapshotError> {
        for _ in 0..STEPS {
            if let Some(bytes) = self.step(epoch, spilled)? {
                return Ok(bytes);
            }
        }
        Err(self.waits())
    }

    /// What to say while an increment is not there yet.
    pub(super) fn waits(&self) -> SnapshotError {
        SnapshotError::Spill(LogError::TimedOut {
            operation: format!("reading a spilled increment of {}", self.partition),
            timeout_ms: u64::try_from((WAIT * STEPS).as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Goes on a little and waits little; the increment, as a pack of this one task, once it is whole.
    pub(super) fn step(&mut self, epoch: Epoch, spilled: SpillId) -> Result<Option<Vec<u8>>, SnapshotError> {
        let mut reading = match self.reading.take() {
            Some(reading) if reading.wanted == (epoch, spilled) => reading,
            Some(reading) if reading.wanted.0 < epoch && spilled.from <= reading.at => Reading {
                wanted: (epoch, spilled),
                assembly: SpillAssembly::new(self.task, epoch, spilled.attempt),
                ..reading
            },
            _ => self.place(epoch, spilled)?,
        };
        let outcome = reading.go_on(&self.partition);
        if outcome.is_ok() {
            self.reading = Some(reading);
        }
        outcome
    }

    fn place(&self, epoch: Epoch, spilled: SpillId) -> Result<Reading, SnapshotError> {
        let watermarks = self.log.admin().watermarks(&self.partition, ASK_TIMEOUT)?;
        if spilled.from < watermarks.low {
            return Err(LogError::OffsetOutOfRange {
                partition: self.partition.clone(),
                offset: spilled.from,
            }
            .into());
        }
        let name = format!("spilled-{}", self.task);
        let mut consumer = self.log.consumer(&name, Isolation::ReadCommitted)?;
        consumer.assign(&[Assignment {
            slot: SLOT,
            partition: self.partition.clone(),
            offset: spilled.from,
        }])?;
        Ok(Reading {
            consumer,
            target: watermarks.high,
            rest: None,
            at: spilled.from,
            wanted: (epoch, spilled),
            assembly: SpillAssembly::new(self.task, epoch, spilled.attempt),
        })
    }
}

impl Reading {
    fn go_on(&mut self, partition: &TopicPartition) -> Result<Option<Vec<u8>>, SnapshotError> {
        if self.rest.is_none() {
            match self.consumer.poll(BATCH_RECORDS, WAIT) {
                Ok(batch) => self.rest = batch.map(|batch| (batch, 0)),
                Err(LogError::Unreachable { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        if let Some((batch, from)) = self.rest.take() {
            let end = batch.runs().iter().map(|run| run.end).max().unwrap_or(0);
            for index in from..end {
                let record = batch.record(index);
                self.at = record.offset + 1;
                let at = format!("offset {} of {partition}", record.offset);
                let whole = self.assembly.take(record.key, record.value, &at)?;
                if whole.is_some() {
                    self.rest = (index + 1 < end).then(|| (Arc::clone(&batch), index + 1));
                    return Ok(whole);
                }
            }
            return Ok(None);
        }
        // An open transaction of a former owner keeps the position before the end: then there is more to come.
        if self
            .consumer
            .position(SLOT)
            .is_some_and(|position| position >= self.target)
        {
            let (epoch, spilled) = self.wanted;
            let increment = IncrementRef {
                epoch,
                place: crate::durability::snapshot::Place::Spilled(spilled),
            };
            let reason = format!("it is not in {partition} between its offset and {}", self.target);
            return Err(damaged(&increment.place_name(), &reason));
        }
        Ok(None)
    }
}
