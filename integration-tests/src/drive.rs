//! Small drivers over the log port: write, read, join, and wait for a condition within a deadline.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::ids::TopicPartition;
use tidegate::log::{
    Assignment, Commit, CommitOffset, Consumer, GroupMember, GroupMetadata, GroupView, Isolation, Log, LogError,
    LogResult, MemberEvent, MemberSettings, OutRecord, OutTopic, Producer, TopicSpec,
};
use tidegate::record::Headers;

/// Long enough for anything that works at all, on a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The length of one wait within a loop that has a deadline.
pub const TICK: Duration = Duration::from_millis(50);

/// A record as it was read, copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Offset in its partition.
    pub offset: i64,
    /// Record time in milliseconds.
    pub timestamp_ms: i64,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value.
    pub value: Option<Vec<u8>>,
    /// Headers.
    pub headers: Headers,
}

impl Read {
    /// The value as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }
}

/// A topic to create, with the broker's replication.
pub fn spec(name: &str, partitions: i32, config: &[(&str, &str)]) -> TopicSpec {
    TopicSpec {
        name: name.into(),
        partitions,
        replication: None,
        config: config
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

/// Creates a topic.
pub fn create(log: &dyn Log, name: &str, partitions: i32, config: &[(&str, &str)]) {
    log.admin()
        .create_topic(&spec(name, partitions, config), PATIENCE)
        .expect("the topic can be created");
}

/// A producer that is ready to begin.
pub fn producer(log: &dyn Log, transactional_id: Option<&str>, topics: &[&str]) -> Box<dyn Producer> {
    let mut producer = log.producer("test", transactional_id).expect("a producer");
    producer.init(PATIENCE).expect("the producer can be initialised");
    let topics: Vec<Arc<str>> = topics.iter().map(|topic| Arc::from(*topic)).collect();
    producer.prepare(&topics).expect("the topics are known");
    producer
}

/// Sends a text to a partition of the first prepared topic.
pub fn send(producer: &mut dyn Producer, partition: i32, value: &str) {
    let record = OutRecord {
        topic: OutTopic(0),
        partition,
        key: Some(b"key"),
        value: Some(value.as_bytes()),
        timestamp_ms: 1_000,
        headers: &Headers::default(),
    };
    producer.send(&record).expect("the record is queued");
}

/// A commit of these offsets on behalf of `group`, and nothing else.
pub fn commit_of(group: GroupMetadata, offsets: &[(TopicPartition, i64, &str)]) -> Commit {
    let offset = |(partition, offset, metadata): &(TopicPartition, i64, &str)| CommitOffset {
        partition: partition.clone(),
        offset: *offset,
        metadata: (*metadata).to_owned(),
    };
    Commit {
        batches: Vec::new(),
        offsets: offsets.iter().map(offset).collect(),
        group,
        timeout: PATIENCE,
    }
}

/// Metadata of nobody, for commits without offsets.
pub fn no_group() -> GroupMetadata {
    GroupMetadata::of_nobody("")
}

/// Starts a commit and waits for its outcome.
pub fn finish(producer: &mut dyn Producer, commit: Commit) -> LogResult<()> {
    producer.start_commit(commit)?;
    let deadline = Instant::now() + PATIENCE + PATIENCE;
    loop {
        if let Some(outcome) = producer.poll_commit(TICK) {
            return outcome;
        }
        assert!(Instant::now() < deadline, "a commit has an outcome");
    }
}

/// Sends texts to partition 0 of `topic` in one transaction, and waits until its marker is there too: a commit is
/// final before that.
pub fn write(log: &dyn Log, topic: &str, values: &[&str]) {
    let end = high(log, topic, 0) + values.len() as i64 + 1;
    let id = crate::broker::unique("writer");
    let mut producer = producer(log, Some(&id), &[topic]);
    producer.begin().expect("a transaction");
    for value in values {
        send(&mut *producer, 0, value);
    }
    finish(&mut *producer, commit_of(no_group(), &[])).expect("the transaction commits");
    wait_for("the marker is written", || high(log, topic, 0) == end);
}

/// A consumer that reads one partition from `offset`, as slot 0.
pub fn reader(log: &dyn Log, topic: &str, partition: i32, offset: i64, isolation: Isolation) -> Box<dyn Consumer> {
    let mut consumer = log.consumer("test", isolation).expect("a consumer");
    let partition = TopicPartition::new(topic, partition);
    consumer
        .assign(&[Assignment {
            slot: 0,
            partition,
            offset,
        }])
        .expect("the partition can be assigned");
    consumer
}

/// Reads slot 0 until the position has reached `end`.
pub fn read_until(consumer: &mut dyn Consumer, end: i64) -> Vec<Read> {
    let mut records = Vec::new();
    wait_for("the position reaches the end", || {
        records.extend(read_some(consumer, TICK));
        consumer.position(0).is_some_and(|position| position >= end)
    });
    records
}

/// What one poll gives.
pub fn read_some(consumer: &mut dyn Consumer, wait: Duration) -> Vec<Read> {
    let Some(batch) = consumer.poll(10_000, wait).expect("the partition can be read") else {
        return Vec::new();
    };
    let mut records = Vec::new();
    for index in batch.runs().iter().flat_map(|run| run.start..run.end) {
        let record = batch.record(index);
        records.push(Read {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: batch.headers(index),
        });
    }
    records
}

/// Polls until an error comes.
pub fn first_error(consumer: &mut dyn Consumer) -> LogError {
    let mut error = None;
    wait_for("an error comes", || {
        error = consumer.poll(100, TICK).err();
        error.is_some()
    });
    error.expect("an error came")
}

/// The high watermark of a partition.
pub fn high(log: &dyn Log, topic: &str, partition: i32) -> i64 {
    let partition = TopicPartition::new(topic, partition);
    log.admin()
        .watermarks(&partition, PATIENCE)
        .expect("the partition has watermarks")
        .high
}

/// All texts of a partition that were committed.
pub fn committed_texts(log: &dyn Log, topic: &str, partition: i32) -> Vec<String> {
    let end = high(log, topic, partition);
    let mut consumer = reader(log, topic, partition, 0, Isolation::ReadCommitted);
    read_until(&mut *consumer, end).iter().map(Read::text).collect()
}

/// What a group has committed for one partition.
pub fn committed(log: &dyn Log, group: &str, partition: &TopicPartition) -> Option<(i64, String)> {
    let offsets = log.admin().committed(group, std::slice::from_ref(partition), PATIENCE);
    let mut offsets = offsets.expect("the committed offsets can be read");
    offsets
        .remove(0)
        .map(|committed| (committed.offset, committed.metadata))
}

/// Repeats `step`, which should wait a little, until it answers true; fails when that takes too long.
pub fn wait_for(what: &str, mut step: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !step() {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
    }
}

/// A group member that takes and gives up partitions as it is told.
pub struct Member {
    member: Option<Box<dyn GroupMember>>,
    /// What it owns.
    pub owned: BTreeSet<TopicPartition>,
    /// Every event so far.
    pub events: Vec<MemberEvent>,
    /// An event that is not completed, because the member was told to hold back.
    pub open: Option<MemberEvent>,
    /// Whether events are completed at once.
    pub obedient: bool,
}

impl Member {
    /// Joins a group as a dynamic member, or as a static one.
    pub fn join(log: &dyn Log, group: &str, topic: &str, instance_id: Option<&str>) -> Self {
        Self::join_for(log, group, &[topic], instance_id)
    }

    /// Joins a group for several topics.
    pub fn join_for(log: &dyn Log, group: &str, topics: &[&str], instance_id: Option<&str>) -> Self {
        let settings = MemberSettings {
            group: group.to_owned(),
            topics: topics.iter().map(|topic| Arc::from(*topic)).collect(),
            instance_id: instance_id.map(str::to_owned),
            session_timeout: Duration::from_secs(6),
        };
        let member = log.member(&settings).expect("a member");
        Self {
            member: Some(member),
            owned: BTreeSet::new(),
            events: Vec::new(),
            open: None,
            obedient: true,
        }
    }

    /// The member itself.
    pub fn inner(&mut self) -> &mut dyn GroupMember {
        &mut **self.member.as_mut().expect("the member has not left")
    }

    /// Serves at most one event.
    pub fn step(&mut self, wait: Duration) -> LogResult<()> {
        let event = match self.inner().poll(wait) {
            Ok(Some(event)) => event,
            // A lost connection comes back by itself.
            Ok(None) | Err(LogError::Unreachable { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.events.push(event.clone());
        self.open = Some(event);
        match self.obedient {
            true => self.complete(),
            false => Ok(()),
        }
    }

    /// Completes the open event, if there is one.
    pub fn complete(&mut self) -> LogResult<()> {
        let Some(event) = self.open.take() else {
            return Ok(());
        };
        match &event {
            MemberEvent::Assigned(partitions) => self.owned.extend(partitions.iter().cloned()),
            MemberEvent::Revoked(partitions) | MemberEvent::Lost(partitions) => {
                self.owned.retain(|partition| !partitions.contains(partition));
            }
        }
        self.inner().complete(&event)
    }

    /// The metadata that the client has now.
    pub fn metadata(&mut self) -> GroupMetadata {
        self.view().metadata()
    }

    /// The view of the metadata.
    pub fn view(&mut self) -> Arc<dyn GroupView> {
        self.inner().view()
    }

    /// Leaves in order.
    pub fn leave(mut self) {
        if let Some(member) = self.member.take() {
            member.leave();
        }
    }
}

/// Serves all members in turn until `done` answers true.
pub fn serve_until(what: &str, members: &mut [&mut Member], mut done: impl FnMut(&mut [&mut Member]) -> bool) {
    wait_for(what, || {
        for member in members.iter_mut() {
            member.step(TICK / 2).expect("the member stays healthy");
        }
        done(members)
    });
}

/// A member that owns everything of a topic with `partitions` partitions.
pub fn sole_member(log: &dyn Log, group: &str, topic: &str, partitions: usize) -> Member {
    let mut member = Member::join(log, group, topic, None);
    serve_until("the only member owns everything", &mut [&mut member], |members| {
        members[0].owned.len() == partitions
    });
    member
}
