//! Topic administration and reads of offsets. Every call blocks, bounded by its time-out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::deadline::Deadline;
use super::errors::Connections;
use super::not_made;
use super::raw::{self, Client, Code, Event, Kind, NativeError, NewTopic, PartitionList, Queue, Topic};
use super::settings::KafkaSettings;
use crate::ids::TopicPartition;
use crate::log::{Admin, CommittedOffset, GroupState, LogError, LogResult, TopicInfo, TopicSpec, Watermarks};

/// Pause between two looks at something that is about to change.
const PAUSE: Duration = Duration::from_millis(20);

/// How long one answer is waited for before the question is asked again over a new connection. The client has left questions
/// unanswered for minutes while the broker worked (confluentinc/librdkafka#2588 tells of such a hang).
const ATTEMPT: Duration = Duration::from_secs(10);

/// Clients are kept for this many groups; a process works for one, a tool for few.
const KEPT_GROUPS: usize = 8;

/// A client with what is known of its connections.
struct AdminClient {
    client: Arc<Client>,
    events: Queue,
    connections: Connections,
}

impl AdminClient {
    fn new(settings: &KafkaSettings, group: Option<&str>) -> LogResult<Self> {
        let made = |reason| not_made("a client for administration", reason);
        let client = Client::new(Kind::Consumer, &settings.admin_properties(group), raw::ERRORS).map_err(made)?;
        let events = client
            .main_queue()
            .ok_or_else(|| made("it has no event queue".to_owned()))?;
        let connections = Connections::new(&settings.bootstrap_servers);
        Ok(Self {
            client,
            events,
            connections,
        })
    }

    /// Works off what the client has told meanwhile.
    fn serve_events(&self) {
        let note = &mut |event| {
            if let Event::Error(error) = event {
                self.connections.note(&error);
            }
        };
        while self.events.serve(Duration::ZERO, note) {}
    }

    /// Sorts the outcome of a call.
    fn outcome<T>(
        &self,
        outcome: Result<T, NativeError>,
        operation: &str,
        subject: &str,
        given: Duration,
    ) -> LogResult<T> {
        self.serve_events();
        match outcome {
            Ok(value) => {
                self.connections.answered();
                Ok(value)
            }
            Err(error) => Err(self.connections.failed(operation, subject, given, &error)),
        }
    }

    /// The partition count, or `None` where the topic does not exist. Waits until every partition has a leader.
    fn partitions(&self, name: &str, deadline: &Deadline) -> LogResult<Option<i32>> {
        const OPERATION: &str = "describing topic";
        let given = deadline.given();
        let topic = self.outcome(Topic::new(&self.client, &Arc::from(name)), OPERATION, name, given)?;
        loop {
            let answer = self.client.metadata(Some(&topic), deadline.remaining());
            let answer = self.outcome(answer, OPERATION, name, given)?;
            let error = answer.as_ref().and_then(|answer| answer.error);
            match (answer, error) {
                (None, _) => return Ok(None),
                (_, Some(code)) if Client::is_unknown(code) => return Ok(None),
                (Some(answer), None) if answer.led => return Ok(Some(answer.partitions)),
                (_, None | Some(Code::LeaderNotAvailable)) if !deadline.is_over() => std::thread::park_timeout(PAUSE),
                (_, None) => return Err(deadline.timed_out(format!("waiting for leaders of topic {name}"))),
                (_, Some(code)) => {
                    let error = Err(NativeError::plain(code));
                    return self.outcome(error, OPERATION, name, given);
                }
            }
        }
    }
}

/// Administration of a Kafka cluster.
pub(super) struct KafkaAdmin {
    settings: KafkaSettings,
    general: Mutex<Option<Arc<AdminClient>>>,
    by_group: Mutex<BTreeMap<String, Arc<AdminClient>>>,
}

impl KafkaAdmin {
    pub fn new(settings: KafkaSettings) -> Self {
        Self {
            settings,
            general: Mutex::new(None),
            by_group: Mutex::new(BTreeMap::new()),
        }
    }

    fn general(&self) -> LogResult<Arc<AdminClient>> {
        let mut general = self.general.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*general {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(AdminClient::new(&self.settings, None)?);
        Ok(Arc::clone(general.insert(client)))
    }

    /// Lets the next call connect anew, unless another thread has seen to that.
    fn replace_general(&self, silent: &Arc<AdminClient>) {
        let mut general = self.general.lock().unwrap_or_else(PoisonError::into_inner);
        if general.as_ref().is_some_and(|client| Arc::ptr_eq(client, silent)) {
            tracing::warn!(
                "a question to the cluster was not answered within {ATTEMPT:?}: asking over a new connection"
            );
            *general = None;
        }
    }

    fn of_group(&self, group: &str) -> LogResult<Arc<AdminClient>> {
        let mut clients = self.by_group.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(group) {
            return Ok(Arc::clone(client));
        }
        if clients.len() >= KEPT_GROUPS {
            clients.pop_first();
        }
        let client = Arc::new(AdminClient::new(&self.settings, Some(group))?);
        clients.insert(group.to_owned(), Arc::clone(&client));
        Ok(client)
    }
}

fn list<'a>(partitions: impl ExactSizeIterator<Item = (&'a TopicPartition, i64)>) -> LogResult<PartitionList> {
    let failed = |error: NativeError| LogError::Fatal {
        operation: "listing partitions".to_owned(),
        reason: error.reason,
    };
    let list = PartitionList::with_capacity(partitions.len());
    let mut list = list.ok_or_else(|| failed(NativeError::plain(Code::CriticalSystemResource)))?;
    for (partition, offset) in partitions {
        list.push(partition, offset, "").map_err(failed)?;
    }
    Ok(list)
}

impl Admin for KafkaAdmin {
    fn topic(&self, name: &str, timeout: Duration) -> LogResult<Option<TopicInfo>> {
        let admin = self.general()?;
        let deadline = Deadline::after(timeout);
        let Some(partitions) = admin.partitions(name, &deadline)? else {
            return Ok(None);
        };
        let config = admin.client.topic_config(name, deadline.remaining());
        let config = match admin.outcome(config, "reading the settings of topic", name, timeout) {
            Err(LogError::UnknownTopic { .. }) => return Ok(None),
            config => config?,
        };
        let setting = |key: &str| config.get(key).cloned().unwrap_or_default();
        Ok(Some(TopicInfo {
            partitions,
            cleanup_policy: setting("cleanup.policy"),
            retention_ms: setting("retention.ms").parse().unwrap_or(0),
            retention_bytes: setting("retention.bytes").parse().unwrap_or(0),
            delete_retention_ms: setting("delete.retention.ms").parse().unwrap_or(0),
            max_message_bytes: setting("max.message.bytes").parse().unwrap_or(usize::MAX),
        }))
    }

    fn create_topic(&self, spec: &TopicSpec, timeout: Duration) -> LogResult<()> {
        let admin = self.general()?;
        let deadline = Deadline::after(timeout);
        let new = NewTopic {
            name: &spec.name,
            partitions: spec.partitions,
            replication: spec.replication.unwrap_or(-1),
            config: &spec.config,
        };
        let created = admin.client.create_topic(&new, deadline.remaining());
        admin.outcome(created, "creating topic", &spec.name, timeout)?;
        while admin.partitions(&spec.name, &deadline)? != Some(spec.partitions) {
            if deadline.is_over() {
                return Err(deadline.timed_out(format!("waiting for the new topic {}", spec.name)));
            }
            std::thread::park_timeout(PAUSE);
        }
        Ok(())
    }

    fn alter_topic(&self, name: &str, config: &[(String, String)], timeout: Duration) -> LogResult<()> {
        let admin = self.general()?;
        let deadline = Deadline::after(timeout);
        let altered = admin.client.alter_topic(name, config, deadline.remaining());
        admin.outcome(altered, "altering topic", name, timeout)?;
        // The controller has decided; a broker may tell of the former settings for a moment longer.
        loop {
            let known = admin.client.topic_config(name, deadline.remaining());
            let known = admin.outcome(known, "reading the settings of topic", name, timeout)?;
            if config.iter().all(|(key, value)| known.get(key) == Some(value)) {
                return Ok(());
            }
            if deadline.is_over() {
                return Err(deadline.timed_out(format!("waiting for the new settings of topic {name}")));
            }
            std::thread::park_timeout(PAUSE);
        }
    }

    fn delete_topic(&self, name: &str, timeout: Duration) -> LogResult<()> {
        let admin = self.general()?;
        let deadline = Deadline::after(timeout);
        let deleted = admin.client.delete_topic(name, deadline.remaining());
        match admin.outcome(deleted, "deleting topic", name, timeout) {
            Err(LogError::UnknownTopic { .. }) => return Ok(()),
            deleted => deleted?,
        }
        // The controller has decided; a broker may tell of the topic for a moment longer.
        while admin.partitions(name, &deadline)?.is_some() {
            if deadline.is_over() {
                return Err(deadline.timed_out(format!("waiting for topic {name} to be gone")));
            }
            std::thread::park_timeout(PAUSE);
        }
        Ok(())
    }

    fn watermarks(&self, partition: &TopicPartition, timeout: Duration) -> LogResult<Watermarks> {
        let deadline = Deadline::after(timeout);
        loop {
            let admin = self.general()?;
            let attempt = deadline.remaining().min(ATTEMPT);
            let answer = admin
                .client
                .query_watermarks(&partition.topic, partition.partition, attempt);
            match admin.outcome(answer, "reading the ends of", &partition.topic, timeout) {
                Err(LogError::TimedOut { .. }) if !deadline.is_over() => self.replace_general(&admin),
                outcome => return outcome.map(|(low, high)| Watermarks { low, high }),
            }
        }
    }

    fn delete_records(&self, before: &[(TopicPartition, i64)], timeout: Duration) -> LogResult<()> {
        if before.is_empty() {
            return Ok(());
        }
        let admin = self.general()?;
        let request = list(before.iter().map(|(partition, offset)| (partition, *offset)))?;
        let results = admin.client.delete_records(&request, timeout);
        let results = admin.outcome(results, "deleting records of", &before[0].0.topic, timeout)?;
        for result in results {
            let asked = before.iter().find(|(partition, _)| *partition == result.partition);
            match result.error {
                None => {}
                Some(Code::OffsetOutOfRange) => {
                    return Err(LogError::OffsetOutOfRange {
                        offset: asked.map_or(result.offset, |(_, offset)| *offset),
                        partition: result.partition,
                    });
                }
                Some(code) => {
                    let subject = result.partition.to_string();
                    let error = NativeError::plain(code);
                    return Err(admin.connections.failed("deleting records", &subject, timeout, &error));
                }
            }
        }
        Ok(())
    }

    fn committed(
        &self,
        group: &str,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> LogResult<Vec<Option<CommittedOffset>>> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let admin = self.of_group(group)?;
        let request = list(partitions.iter().map(|partition| (partition, -1)))?;
        let answer = admin.client.committed(&request, timeout);
        admin.outcome(answer, "reading the committed offsets of group", group, timeout)?;
        let mut committed: BTreeMap<_, _> = request
            .read()
            .into_iter()
            .map(|result| (result.partition.clone(), result))
            .collect();
        let mut offsets = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let result = committed.remove(partition);
            if let Some(code) = result.as_ref().and_then(|result| result.error) {
                let error = NativeError::plain(code);
                let subject = format!("{group} for {partition}");
                return Err(admin
                    .connections
                    .failed("reading the committed offset of", &subject, timeout, &error));
            }
            offsets.push(
                result
                    .filter(|result| result.offset >= 0)
                    .map(|result| CommittedOffset {
                        offset: result.offset,
                        metadata: result.metadata,
                    }),
            );
        }
        Ok(offsets)
    }

    fn group(&self, group: &str, timeout: Duration) -> LogResult<GroupState> {
        let admin = self.general()?;
        let described = admin.client.describe_group(group, timeout);
        let (is_stable, assignments) = admin.outcome(described, "describing group", group, timeout)?;
        let mut assigned = BTreeSet::new();
        for assignment in &assignments {
            let partitions = decode_assignment(assignment).ok_or_else(|| LogError::Fatal {
                operation: format!("describing group {group}"),
                reason: "a member's assignment is not what consumers write".to_owned(),
            })?;
            assigned.extend(partitions);
        }
        Ok(GroupState { is_stable, assigned })
    }
}

/// What a member was given, as `ConsumerProtocolAssignment` encodes it: version (2 bytes), number of topics (4), then for each the length of
/// its name (2), the name, the number of partitions (4) and the partitions (4 each). What follows is the members' own.
fn decode_assignment(bytes: &[u8]) -> Option<Vec<TopicPartition>> {
    let mut rest = bytes;
    if rest.is_empty() {
        return Some(Vec::new()); // A member that has not been given anything yet.
    }
    let _version = i16::from_be_bytes(take(&mut rest)?);
    let topics = i32::from_be_bytes(take(&mut rest)?);
    let mut partitions = Vec::new();
    for _ in 0..topics {
        let name_bytes = usize::try_from(i16::from_be_bytes(take(&mut rest)?)).ok()?;
        let (name, after) = rest.split_at_checked(name_bytes)?;
        let name: Arc<str> = std::str::from_utf8(name).ok()?.into();
        rest = after;
        for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
            let partition = i32::from_be_bytes(take(&mut rest)?);
            partitions.push(TopicPartition::new(Arc::clone(&name), partition));
        }
    }
    Some(partitions)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read_as_consumers_write_it() {
        let bytes = b"\0\x01\0\0\0\x02\0\x02in\0\0\0\x02\0\0\0\0\0\0\0\x05\0\x01x\0\0\0\0\xff\xff\xff\xff";
        let expected = [TopicPartition::new("in", 0), TopicPartition::new("in", 5)];
        assert_eq!(decode_assignment(bytes), Some(expected.to_vec()));
        assert_eq!(decode_assignment(b""), Some(Vec::new()));
        for end in 1..bytes.len() - 4 {
            assert_eq!(decode_assignment(&bytes[..end]), None, "cut after {end} bytes");
        }
    }
}
