//! Compaction and retention. A broker cleans in its own time: every case waits for what must come, and then looks at
//! what must not have happened with it.
//!
//! Segments are closed by time stamps alone: a record that is newer by `segment.ms` than the first one of the active
//! segment begins the next one, whatever the clock says.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use tidegate::ids::TopicPartition;
use tidegate::log::{Isolation, Log, LogError, OutRecord, OutTopic, Producer, Watermarks};
use tidegate::record::Headers;

use crate::broker::unique;
use crate::drive::*;

/// `segment.ms` of the topics here: longer than a case takes, so that no marker begins a segment.
const SEGMENT_MS: i64 = 600_000;
const COMPACT: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.ms", "600000"),
    ("min.cleanable.dirty.ratio", "0"),
    ("delete.retention.ms", "0"),
];

fn wall_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.expect("a clock after 1970").as_millis() as i64
}

/// A topic of one partition, and the time of the records that are written next.
struct Topic<'a> {
    log: &'a dyn Log,
    name: String,
    time_ms: i64,
}

impl<'a> Topic<'a> {
    fn new(log: &'a dyn Log, config: &[(&str, &str)]) -> Self {
        let name = unique("cleaned");
        create(log, &name, 1, config);
        Self {
            log,
            name,
            time_ms: wall_ms(),
        }
    }

    fn compacted(log: &'a dyn Log) -> Self {
        Self::new(log, &COMPACT)
    }

    fn put(&self, producer: &mut dyn Producer, key: &str, value: Option<&str>) {
        let record = OutRecord {
            topic: OutTopic(0),
            partition: 0,
            key: Some(key.as_bytes()),
            value: value.map(str::as_bytes),
            timestamp_ms: self.time_ms,
            headers: &Headers::default(),
        };
        producer.send(&record).expect("the record is queued");
    }

    /// Writes records outside of transactions.
    fn write(&self, records: &[(&str, Option<&str>)]) {
        let mut producer = producer(self.log, None, &[&self.name]);
        producer.begin().expect("an epoch");
        for (key, value) in records {
            self.put(&mut *producer, key, *value);
        }
        finish(&mut *producer, commit_of(no_group(), &[])).expect("everything is acknowledged");
    }

    /// Begins a new segment with one record, whose value is its offset.
    fn roll(&mut self) {
        self.time_ms += SEGMENT_MS + 1;
        let end = self.watermarks().high.to_string();
        self.write(&[("roll", Some(&end))]);
    }

    fn watermarks(&self) -> Watermarks {
        let partition = TopicPartition::new(self.name.as_str(), 0);
        let watermarks = self.log.admin().watermarks(&partition, PATIENCE);
        watermarks.expect("the partition has watermarks")
    }

    /// What a new reader sees from the low watermark on, by offset; its position comes to the high watermark.
    fn read(&self, isolation: Isolation) -> BTreeMap<i64, Option<String>> {
        let Watermarks { low, high } = self.watermarks();
        let mut consumer = reader(self.log, &self.name, 0, low, isolation);
        let records = read_until(&mut *consumer, high);
        assert_eq!(consumer.position(0), Some(high));
        let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
        records
            .into_iter()
            .map(|record| (record.offset, record.value.map(text)))
            .collect()
    }

    fn offsets(&self) -> Vec<i64> {
        self.read(Isolation::ReadCommitted).into_keys().collect()
    }

    fn wait_for_offsets(&self, offsets: &[i64]) {
        wait_for(&format!("{offsets:?} are what is left"), || {
            pause();
            self.offsets() == offsets
        });
    }
}

/// Between two looks at a partition.
fn pause() {
    std::thread::park_timeout(TICK);
}

/// Of several records with one key the last one stays, at its offset; the start of the log stays as well.
pub fn compaction_leaves_the_last_record_of_each_key(log: &dyn Log) {
    let mut topic = Topic::compacted(log);
    topic.write(&[
        ("a", Some("1")),
        ("b", Some("2")),
        ("a", Some("3")),
        ("c", Some("4")),
        ("b", Some("5")),
    ]);
    topic.roll();
    topic.write(&[("a", Some("6")), ("a", Some("7"))]);
    // What stands in the active segment replaces nothing yet.
    topic.wait_for_offsets(&[2, 3, 4, 5, 6, 7]);
    assert_eq!(topic.watermarks(), Watermarks { low: 0, high: 8 });
    let mut consumer = reader(log, &topic.name, 0, 1, Isolation::ReadCommitted);
    let read = read_until(&mut *consumer, 8);
    assert_eq!(read[0].offset, 2, "one may start in a hole");
    assert_eq!(read.iter().map(Read::text).collect::<Vec<_>>()[..3], ["3", "4", "5"]);
}

/// A restore that is overtaken by compaction ends all the same, with the right contents.
pub fn a_reader_behind_compaction_goes_on_over_the_holes(log: &dyn Log) {
    const ROUNDS: i64 = 400;
    let mut topic = Topic::compacted(log);
    let records: Vec<_> = (0..ROUNDS)
        .flat_map(|round| ["a", "b", "c"].map(|key| (key, round.to_string())))
        .collect();
    let records: Vec<_> = records
        .iter()
        .map(|(key, value)| (*key, Some(value.as_str())))
        .collect();
    topic.write(&records);
    let mut consumer = reader(log, &topic.name, 0, 0, Isolation::ReadCommitted);
    let mut latest = BTreeMap::new();
    let mut last = -1;
    let mut read = |consumer: &mut dyn tidegate::log::Consumer, most: usize| {
        let Some(batch) = consumer.poll(most, TICK).expect("the partition can be read") else {
            return;
        };
        for index in 0..batch.runs()[0].end {
            let record = batch.record(index);
            assert!(record.offset > last, "offsets rise");
            last = record.offset;
            latest.insert(record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
        }
    };
    wait_for("the reader has begun", || {
        read(&mut *consumer, 5);
        consumer.position(0).is_some_and(|position| position > 0)
    });
    topic.roll();
    let end = ROUNDS * 3;
    topic.wait_for_offsets(&[end - 3, end - 2, end - 1, end]);
    wait_for("the position reaches the end", || {
        read(&mut *consumer, 100);
        consumer.position(0).is_some_and(|position| position > end)
    });
    let bytes = |text: String| Some(text.into_bytes());
    let last_round = (ROUNDS - 1).to_string();
    for key in ["a", "b", "c"] {
        assert_eq!(latest[&bytes(key.to_owned())], bytes(last_round.clone()), "{key}");
    }
}

/// Aborted records go; behind the last record that is left stand offsets of nothing, and the position passes them.
pub fn compaction_takes_aborted_records_and_offsets_stay_taken(log: &dyn Log) {
    let mut topic = Topic::compacted(log);
    let mut producer = producer(log, Some(&unique("id")), &[&topic.name]);
    for (value, commits) in [("meant", true), ("regretted", false)] {
        let before = topic.watermarks().high;
        producer.begin().expect("a transaction");
        topic.put(&mut *producer, "a", Some(value));
        wait_for("the record is written", || topic.watermarks().high == before + 1);
        match commits {
            true => finish(&mut *producer, commit_of(no_group(), &[])).expect("the transaction commits"),
            false => producer.abort(PATIENCE).expect("the transaction can be aborted"),
        }
        wait_for("the marker is written", || topic.watermarks().high == before + 2);
    }
    // The marker that stands in the active segment afterwards is the last offset of the log.
    topic.time_ms += SEGMENT_MS + 1;
    producer.begin().expect("a transaction");
    topic.put(&mut *producer, "b", Some("last"));
    finish(&mut *producer, commit_of(no_group(), &[])).expect("the transaction commits");
    wait_for("the marker is written", || topic.watermarks().high == 6);
    wait_for("the aborted record is gone", || {
        pause();
        topic.read(Isolation::ReadUncommitted).into_keys().eq([0, 4])
    });
    assert_eq!(topic.offsets(), [0, 4]);
    assert_eq!(topic.watermarks(), Watermarks { low: 0, high: 6 });
}

/// The record of a deletion is there for those who have not read it yet, and goes with a later cleaning.
pub fn a_tombstone_is_kept_by_the_first_cleaning_that_meets_it(log: &dyn Log) {
    let mut topic = Topic::compacted(log);
    topic.write(&[("gone", Some("1")), ("kept", Some("2")), ("gone", None)]);
    topic.roll();
    topic.wait_for_offsets(&[1, 2, 3]);
    assert_eq!(topic.read(Isolation::ReadCommitted)[&2], None, "the tombstone");
    // Its time is over, delete.retention.ms being 0; what brings the next cleaning about is something to clean.
    topic.write(&[("kept", Some("3"))]);
    topic.roll();
    topic.wait_for_offsets(&[3, 4, 5]);
    assert_eq!(topic.watermarks().low, 0);
}

/// With Kafka's default a tombstone outlives any number of cleanings of the next day.
pub fn a_tombstone_stays_for_its_time(log: &dyn Log) {
    let mut topic = Topic::new(log, &COMPACT[..3]);
    topic.write(&[("gone", Some("1")), ("gone", None), ("kept", Some("2"))]);
    topic.roll();
    topic.wait_for_offsets(&[1, 2, 3]);
    topic.write(&[("kept", Some("3"))]);
    topic.roll();
    topic.wait_for_offsets(&[1, 3, 4, 5]);
}

/// A key that is written again after its deletion.
pub fn a_key_that_comes_back_replaces_its_tombstone(log: &dyn Log) {
    let mut topic = Topic::compacted(log);
    topic.write(&[("k", Some("1")), ("k", None), ("k", Some("2"))]);
    topic.roll();
    topic.wait_for_offsets(&[2, 3]);
}

/// Nobody knows yet whether what stands behind will count.
pub fn compaction_stops_at_an_open_transaction(log: &dyn Log) {
    let mut topic = Topic::compacted(log);
    topic.write(&[("a", Some("1")), ("a", Some("2"))]);
    topic.roll();
    topic.write(&[("a", Some("3"))]);
    let mut open = producer(log, Some(&unique("id")), &[&topic.name]);
    open.begin().expect("a transaction");
    topic.put(&mut *open, "b", Some("pending"));
    wait_for("the record is written", || topic.watermarks().high == 5);
    topic.write(&[("a", Some("5")), ("a", Some("6"))]);
    topic.roll();
    wait_for("the segment before it is compacted", || {
        pause();
        topic.read_uncommitted_offsets()[0] == 1
    });
    assert_eq!(
        topic.read_uncommitted_offsets(),
        [1, 2, 3, 4, 5, 6, 7],
        "its own segment is left alone as a whole"
    );
    finish(&mut *open, commit_of(no_group(), &[])).expect("the transaction commits");
    // One key is in both segments that are cleaned now; the marker stands in the active one.
    topic.wait_for_offsets(&[2, 4, 6, 7]);
}

impl Topic<'_> {
    /// Offsets up to the high watermark, open transactions included.
    fn read_uncommitted_offsets(&self) -> Vec<i64> {
        self.read(Isolation::ReadUncommitted).into_keys().collect()
    }
}

/// What a compacted topic cannot keep apart it does not take.
pub fn a_compacted_topic_refuses_records_without_a_key(log: &dyn Log) {
    let topic = Topic::compacted(log);
    let mut producer = producer(log, Some(&unique("id")), &[&topic.name]);
    producer.begin().expect("a transaction");
    let record = OutRecord {
        topic: OutTopic(0),
        partition: 0,
        key: None,
        value: Some(b"value"),
        timestamp_ms: topic.time_ms,
        headers: &Headers::default(),
    };
    // A client may learn of it when it sends or when it commits.
    let sent = producer.send(&record);
    let outcome = sent.and_then(|()| finish(&mut *producer, commit_of(no_group(), &[])));
    assert!(matches!(outcome, Err(LogError::Abort { .. })), "{outcome:?}");
    drop(producer);
    assert_eq!(topic.watermarks(), Watermarks { low: 0, high: 0 });
}

/// Segments whose newest record is too old go, the start of the log moves, and a reader behind is told.
pub fn retention_by_time_moves_the_start_of_the_log(log: &dyn Log) {
    for policy in ["delete", "compact,delete"] {
        let mut topic = Topic::new(
            log,
            &[
                ("cleanup.policy", policy),
                ("segment.ms", "600000"),
                ("retention.ms", "3600000"),
            ],
        );
        topic.time_ms -= 2 * 3_600_000;
        topic.write(&[("a", Some("1")), ("b", Some("2"))]);
        topic.time_ms += 2 * 3_600_000;
        topic.write(&[("c", Some("3"))]);
        wait_for("the old segment is deleted", || {
            pause();
            topic.watermarks() == Watermarks { low: 2, high: 3 }
        });
        assert_eq!(topic.offsets(), [2]);
        let mut behind = reader(log, &topic.name, 0, 1, Isolation::ReadCommitted);
        let error = first_error(&mut *behind);
        assert!(matches!(error, LogError::OffsetOutOfRange { offset: 1, .. }), "{error}");
    }
}

/// The active segment is no exception, and offsets go on where they were.
pub fn retention_may_leave_nothing_but_the_end(log: &dyn Log) {
    let mut topic = Topic::new(log, &[("retention.ms", "3600000")]);
    topic.time_ms -= 2 * 3_600_000;
    topic.write(&[("a", Some("1")), ("b", Some("2"))]);
    wait_for("everything is deleted", || {
        pause();
        topic.watermarks() == Watermarks { low: 2, high: 2 }
    });
    topic.time_ms += 2 * 3_600_000;
    topic.write(&[("c", Some("3"))]);
    assert_eq!(topic.offsets(), [2]);
}

/// The oldest segments go while at least `retention.bytes` are left.
pub fn retention_by_size_keeps_at_least_that_much(log: &dyn Log) {
    const VALUE_BYTES: usize = 600_000;
    let topic = Topic::new(log, &[("segment.bytes", "1048576"), ("retention.bytes", "1048576")]);
    for number in 0..4_u64 {
        topic.write(&[("k", Some(&noise(number, VALUE_BYTES)))]);
    }
    wait_for("two segments are deleted", || {
        pause();
        topic.watermarks() == Watermarks { low: 2, high: 4 }
    });
    assert_eq!(topic.offsets(), [2, 3]);
}

/// Text that no compression makes much shorter.
fn noise(seed: u64, bytes: usize) -> String {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let letters = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'!' + (state % 90) as u8)
    });
    letters.take(bytes).collect()
}

/// A topic that is only compacted keeps its last records for ever.
pub fn a_compacted_topic_has_no_retention(log: &dyn Log) {
    let with_retention = [COMPACT.as_slice(), &[("retention.ms", "3600000")]].concat();
    let mut topic = Topic::new(log, &with_retention);
    topic.time_ms -= 2 * 3_600_000;
    topic.write(&[("a", Some("1")), ("b", Some("2")), ("a", Some("3"))]);
    topic.roll();
    topic.wait_for_offsets(&[1, 2, 3]);
    assert_eq!(topic.watermarks().low, 0);
}

/// Settings of segments and cleaning that no broker takes.
pub fn impossible_settings_of_cleaning_are_refused(log: &dyn Log) {
    for (name, value) in [
        ("segment.bytes", "1048575"),
        ("segment.ms", "0"),
        ("min.cleanable.dirty.ratio", "1.5"),
        ("delete.retention.ms", "-1"),
        ("min.compaction.lag.ms", "-1"),
        ("retention.ms", "-2"),
        ("retention.ms", "soon"),
    ] {
        let refused = log
            .admin()
            .create_topic(&spec(&unique("refused"), 1, &[(name, value)]), PATIENCE);
        assert!(
            matches!(refused, Err(LogError::Refused { .. })),
            "{name}={value}: {refused:?}"
        );
    }
}

/// A trim of a topic with both policies.
pub fn a_trimmed_log_is_compacted_from_its_new_start(log: &dyn Log) {
    let both = [&[("cleanup.policy", "compact,delete")], &COMPACT[1..]].concat();
    let mut topic = Topic::new(log, &both);
    topic.write(&[
        ("a", Some("1")),
        ("b", Some("2")),
        ("b", Some("3")),
        ("c", Some("4")),
        ("c", Some("5")),
    ]);
    let partition = TopicPartition::new(topic.name.as_str(), 0);
    log.admin()
        .delete_records(&[(partition, 1)], PATIENCE)
        .expect("the policy allows it");
    topic.roll();
    topic.wait_for_offsets(&[2, 4, 5]);
    assert_eq!(topic.watermarks(), Watermarks { low: 1, high: 6 });
}
