//! The reader: what the topology has committed so far, as any other consumer sees it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tidegate::errors::Coded;
use tidegate::ids::TopicPartition;
use tidegate::log::{Assignment, Isolation, Log, LogError, Slot};
use tidegate::record::RecordRef;

use super::results::{CarrierTotals, Departures, ManufacturerFlights};
use super::topics;

const MAX_BATCH_RECORDS: usize = 10_000;
/// Longest wait of one poll; polls without records are counted against the time-out.
const POLL_WAIT: Duration = Duration::from_millis(100);

/// Why the results could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A record is not what the topology writes.
    #[error(
        "the record at {partition}@{offset} is not what the flights topology writes: {reason}; delete the topic if something else wrote to it"
    )]
    Decode {
        /// Its partition.
        partition: TopicPartition,
        /// Its offset.
        offset: i64,
        /// What is wrong with it.
        reason: String,
    },
    /// The log does not do as asked.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Coded for ReadError {
    fn code(&self) -> &'static str {
        match self {
            ReadError::Decode { .. } => "TG5107",
            ReadError::Log(error) => error.code(),
        }
    }
}

/// What the three outputs say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results {
    /// Every closed hour, in the order of the log within each partition.
    pub departures: Vec<Departures>,
    /// The latest totals of each airline.
    pub carriers: BTreeMap<String, CarrierTotals>,
    /// The latest count of each manufacturer.
    pub manufacturers: BTreeMap<String, ManufacturerFlights>,
}

/// Reads all that is committed in the three outputs. **Blocks** until their ends are reached.
///
/// # Errors
/// [`ReadError::Decode`], and [`ReadError::Log`], also where nothing comes for `timeout` before the end.
pub fn read_results(log: &dyn Log, timeout: Duration) -> Result<Results, ReadError> {
    let mut results = Results::default();
    for_each_value(log, topics::DEPARTURES, timeout, |departures| {
        results.departures.push(departures)
    })?;
    for_each_value(log, topics::CARRIERS, timeout, |totals: CarrierTotals| {
        results.carriers.insert(totals.carrier.clone(), totals);
    })?;
    for_each_value(log, topics::MANUFACTURERS, timeout, |count: ManufacturerFlights| {
        results.manufacturers.insert(count.manufacturer.clone(), count);
    })?;
    Ok(results)
}

fn for_each_value<V: DeserializeOwned>(
    log: &dyn Log,
    topic: &str,
    timeout: Duration,
    mut take: impl FnMut(V),
) -> Result<(), ReadError> {
    let partitions = log.admin().topic(topic, timeout)?.map_or(0, |info| info.partitions);
    let mut ends: Vec<(Slot, i64)> = Vec::new();
    let mut assignments = Vec::new();
    for partition in 0..partitions {
        let slot = partition as Slot;
        let partition = TopicPartition::new(topic, partition);
        let watermarks = log.admin().watermarks(&partition, timeout)?;
        if watermarks.high > watermarks.low {
            ends.push((slot, watermarks.high));
            assignments.push(Assignment {
                slot,
                partition,
                offset: watermarks.low,
            });
        }
    }
    let mut consumer = log.consumer("flights-reader", Isolation::ReadCommitted)?;
    consumer.assign(&assignments)?;
    let mut waited = Duration::ZERO;
    while ends
        .iter()
        .any(|(slot, end)| consumer.position(*slot).is_none_or(|at| at < *end))
    {
        let Some(batch) = consumer.poll(MAX_BATCH_RECORDS, POLL_WAIT)? else {
            waited += POLL_WAIT;
            if waited >= timeout {
                return Err(ReadError::Log(LogError::TimedOut {
                    operation: format!("reading {topic} to its end"),
                    timeout_ms: timeout.as_millis() as u64,
                }));
            }
            continue;
        };
        waited = Duration::ZERO;
        for run in batch.runs() {
            for index in run.start..run.end {
                take(decode(topic, run.slot, &batch.record(index))?);
            }
        }
    }
    Ok(())
}

fn decode<V: DeserializeOwned>(topic: &str, slot: Slot, record: &RecordRef<'_>) -> Result<V, ReadError> {
    serde_json::from_slice(record.value.unwrap_or_default()).map_err(|error| ReadError::Decode {
        partition: TopicPartition::new(Arc::from(topic), slot as i32),
        offset: record.offset,
        reason: error.to_string(),
    })
}
