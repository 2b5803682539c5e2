//! The data consumer: manual assignment, batches of borrowed records.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::batch::KafkaBatch;
use super::errors::Connections;
use super::not_made;
use super::raw::{
    self, Client, Code, Event, Fetched, Kind, Messages, NativeError, PartitionList, Queue, Scratch, Topic,
};
use super::settings::KafkaSettings;
use crate::ids::TopicPartition;
use crate::log::{Assignment, BatchRun, Consumer, Isolation, LogError, LogResult, RecordBatch, Slot};

/// One partition that is being read.
struct Assigned {
    slot: Slot,
    partition: TopicPartition,
    topic: Arc<Topic>,
    /// Offset of the first record to deliver.
    start: i64,
    /// Whether an answer about this partition was there before it was assigned.
    known_before: bool,
    paused: bool,
    /// The partition has reported an error after which librdkafka's own position is wrong.
    failed: bool,
    /// The last stable offset, as the last statistics told it.
    last_stable: Option<i64>,
}

/// Reads partitions without a group.
pub(super) struct KafkaConsumer {
    client: Arc<Client>,
    events: Queue,
    connections: Connections,
    isolation: Isolation,
    topics: BTreeMap<Arc<str>, Arc<Topic>>,
    /// Sorted by topic address and partition number.
    assigned: Vec<Assigned>,
    /// Where the partitions of this assignment are fetched to; dropped with it.
    fetched: Option<Queue>,
    /// Errors not yet reported; at most one per partition and event.
    errors: VecDeque<LogError>,
    scratch: Scratch,
}

impl KafkaConsumer {
    pub fn new(settings: &KafkaSettings, name: &str, isolation: Isolation) -> LogResult<Self> {
        let properties = settings.consumer_properties(name, isolation);
        let made = |reason| not_made(&format!("consumer {name}"), reason);
        let client = Client::new(Kind::Consumer, &properties, raw::ERRORS | raw::STATISTICS).map_err(made)?;
        let events = client
            .main_queue()
            .ok_or_else(|| made("it has no event queue".to_owned()))?;
        Ok(Self {
            client,
            events,
            connections: Connections::new(&settings.bootstrap_servers),
            isolation,
            topics: BTreeMap::new(),
            assigned: Vec::new(),
            fetched: None,
            errors: VecDeque::new(),
            scratch: Scratch::default(),
        })
    }

    fn stop_all(&mut self) -> LogResult<()> {
        for assigned in std::mem::take(&mut self.assigned) {
            // A pause outlives the assignment in librdkafka, so it is taken back.
            if assigned.paused {
                self.set_paused(&assigned.partition, false)?;
            }
            let stopped = assigned.topic.stop(assigned.partition.partition);
            stopped.map_err(|error| fatal(&format!("stopping to read {}", assigned.partition), &error))?;
        }
        self.fetched = None;
        self.errors.clear();
        Ok(())
    }

    fn set_paused(&self, partition: &TopicPartition, paused: bool) -> LogResult<()> {
        let failed = |error: NativeError| fatal(&format!("pausing {partition}"), &error);
        let list = PartitionList::with_capacity(1);
        let mut list = list.ok_or_else(|| failed(NativeError::plain(Code::CriticalSystemResource)))?;
        list.push(partition, 0, "").map_err(failed)?;
        self.client.pause(&list, paused).map_err(failed)
    }

    fn topic(&mut self, name: &Arc<str>) -> LogResult<Arc<Topic>> {
        if let Some(topic) = self.topics.get(name) {
            return Ok(Arc::clone(topic));
        }
        let topic = Topic::new(&self.client, name).map_err(|_| LogError::UnknownTopic {
            topic: name.to_string(),
        })?;
        let topic = Arc::new(topic);
        self.topics.insert(Arc::clone(name), Arc::clone(&topic));
        Ok(topic)
    }

    fn by_slot(&self, slot: Slot) -> Option<&Assigned> {
        self.assigned.iter().find(|assigned| assigned.slot == slot)
    }

    /// Works off what the client tells beside the records.
    fn serve_events(&mut self, mut wait: Duration) {
        loop {
            let (connections, errors, assigned) = (&self.connections, &mut self.errors, &mut self.assigned);
            let served = self.events.serve(wait, &mut |event| match event {
                Event::Error(error) if error.fatal => errors.push_back(fatal("reading", &error)),
                Event::Error(error) if connections.note(&error) => errors.push_back(connections.unreachable(&error)),
                Event::Statistics(json) => note_last_stable(assigned, &json),
                _ => {}
            });
            if !served {
                break;
            }
            wait = Duration::ZERO;
        }
        for error in self.client.take_reported() {
            self.connections.note(&error);
            if Client::is_unknown(error.code) {
                // The text begins with the partition: `topic [3]: …`.
                let topic = error.reason.split(" [").next().unwrap_or_default().to_owned();
                self.errors.push_back(LogError::UnknownTopic { topic });
            }
        }
    }

    /// Sorts messages into runs of records and errors.
    fn sort(&mut self, mut messages: Messages) -> Option<Arc<dyn RecordBatch>> {
        let mut runs: Vec<BatchRun> = Vec::new();
        let mut current: Option<(usize, i32)> = None;
        let mut count = 0;
        let (connections, errors, assigned) = (&self.connections, &mut self.errors, &mut self.assigned);
        messages.sort(|fetched| match fetched {
            Fetched::Record { topic, partition } => {
                if current == Some((topic, partition)) {
                    count += 1;
                    if let Some(run) = runs.last_mut() {
                        run.end = count;
                    }
                    return true;
                }
                let Some(index) = find(assigned, topic, partition) else {
                    return false;
                };
                current = Some((topic, partition));
                let (slot, start) = (assigned[index].slot, count);
                count += 1;
                runs.push(BatchRun {
                    slot,
                    start,
                    end: count,
                });
                true
            }
            Fetched::Failed {
                topic,
                partition,
                offset,
                error,
            } => {
                if let Some(index) = find(assigned, topic, partition) {
                    assigned[index].failed = true;
                    errors.push_back(partition_error(connections, &assigned[index].partition, offset, &error));
                }
                false
            }
        });
        if messages.is_empty() {
            return None;
        }
        self.connections.answered();
        Some(Arc::new(KafkaBatch::new(messages, runs)))
    }
}

/// Where a message belongs; asked once per run, not per record.
fn find(assigned: &[Assigned], topic: usize, partition: i32) -> Option<usize> {
    let key = |assigned: &Assigned| (assigned.topic.address(), assigned.partition.partition);
    assigned.binary_search_by_key(&(topic, partition), key).ok()
}

fn partition_error(
    connections: &Connections,
    partition: &TopicPartition,
    offset: i64,
    error: &NativeError,
) -> LogError {
    match error.code {
        Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation => LogError::OffsetOutOfRange {
            partition: partition.clone(),
            offset,
        },
        _ => connections.failed("reading", &partition.topic, Duration::ZERO, error),
    }
}

fn fatal(operation: &str, error: &NativeError) -> LogError {
    LogError::Fatal {
        operation: operation.to_owned(),
        reason: error.reason.clone(),
    }
}

/// What is read of librdkafka's statistics.
#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    topics: HashMap<String, TopicStatistics>,
}

#[derive(Deserialize)]
struct TopicStatistics {
    #[serde(default)]
    partitions: HashMap<String, PartitionStatistics>,
}

#[derive(Deserialize)]
struct PartitionStatistics {
    #[serde(default)]
    ls_offset: i64,
}

fn note_last_stable(assigned: &mut [Assigned], json: &str) {
    // Statistics are the client library's own output; without them only the reported end is less precise.
    let Ok(statistics) = serde_json::from_str::<Statistics>(json) else {
        return;
    };
    for assigned in assigned {
        let partition = &assigned.partition;
        let told = statistics.topics.get(&*partition.topic);
        let told = told.and_then(|topic| topic.partitions.get(&partition.partition.to_string()));
        assigned.last_stable = told.map(|told| told.ls_offset).filter(|offset| *offset >= 0);
    }
}

impl Consumer for KafkaConsumer {
    fn assign(&mut self, partitions: &[Assignment]) -> LogResult<()> {
        self.stop_all()?;
        let no_queue = || fatal("assigning", &NativeError::plain(Code::CriticalSystemResource));
        let queue = self.client.new_queue().ok_or_else(no_queue)?;
        for Assignment {
            slot,
            partition,
            offset,
        } in partitions
        {
            let topic = self.topic(&partition.topic)?;
            let known_before = self.client.cached_watermarks(partition).is_some();
            let started = topic.start(partition.partition, *offset, &queue);
            started.map_err(|error| fatal(&format!("reading {partition} from offset {offset}"), &error))?;
            self.assigned.push(Assigned {
                slot: *slot,
                partition: partition.clone(),
                topic,
                start: *offset,
                known_before,
                paused: false,
                failed: false,
                last_stable: None,
            });
        }
        self.assigned
            .sort_by_key(|assigned| (assigned.topic.address(), assigned.partition.partition));
        self.fetched = Some(queue);
        Ok(())
    }

    fn pause(&mut self, slots: &[Slot], paused: bool) -> LogResult<()> {
        for index in 0..self.assigned.len() {
            let assigned = &self.assigned[index];
            if slots.contains(&assigned.slot) && assigned.paused != paused {
                self.set_paused(&assigned.partition, paused)?;
                self.assigned[index].paused = paused;
            }
        }
        Ok(())
    }

    fn poll(&mut self, max_records: usize, wait: Duration) -> LogResult<Option<Arc<dyn RecordBatch>>> {
        // With nothing assigned there is only the client itself to wait for.
        let idle = self.assigned.is_empty();
        self.serve_events(if idle { wait } else { Duration::ZERO });
        if let Some(error) = self.errors.pop_front() {
            return Err(error);
        }
        let Some(queue) = self.fetched.as_ref().filter(|_| !idle && max_records > 0) else {
            return Ok(None);
        };
        let max_records = max_records.min(u32::MAX as usize);
        let messages = Messages::fetch(queue, max_records, wait, &mut self.scratch);
        let batch = self.sort(messages);
        match (batch, self.errors.is_empty()) {
            (None, false) => self.errors.pop_front().map_or(Ok(None), Err),
            (batch, _) => Ok(batch),
        }
    }

    fn position(&self, slot: Slot) -> Option<i64> {
        let assigned = self.by_slot(slot).filter(|assigned| !assigned.failed)?;
        if let Some(position) = self.client.position(&assigned.partition) {
            return Some(position);
        }
        // Nothing was delivered or skipped yet. The start counts as reached once the log has answered that it exists:
        // with the first answer ever, or, for a partition read before, by what it said then.
        let (low, high) = self.client.cached_watermarks(&assigned.partition)?;
        let confirmed = !assigned.known_before || (low..=high).contains(&assigned.start);
        confirmed.then_some(assigned.start)
    }

    fn end_offset(&self, slot: Slot) -> Option<i64> {
        let assigned = self.by_slot(slot)?;
        let (_, high) = self.client.cached_watermarks(&assigned.partition)?;
        if self.isolation == Isolation::ReadUncommitted {
            return Some(high);
        }
        // librdkafka caches the last stable offset but shows it only in its statistics, twice a second. One that lies
        // behind the position is out of date; then only the high watermark is sure not to be too low.
        let position = self.position(slot).unwrap_or(assigned.start);
        Some(
            assigned
                .last_stable
                .filter(|stable| *stable >= position)
                .map_or(high, |stable| stable.min(high)),
        )
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        // Errors do not matter any more: the handle goes away.
        let _ = self.stop_all();
    }
}
