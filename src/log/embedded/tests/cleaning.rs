//! Compaction and retention, by a clock that only the test moves.

use super::*;
use crate::log::LogError;

/// Longer than the time between two looks of the broker.
const A_LOOK: Duration = Duration::from_secs(1);
/// A record that is newer by this than another never shares a segment with it.
const SEGMENT_MS: Millis = 60_000;
const COMPACT: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.ms", "60000"),
    ("min.cleanable.dirty.ratio", "0"),
    ("delete.retention.ms", "5000"),
];

/// A topic `t`, a producer without transactions, and the time of its next record.
struct Compacted {
    world: World,
    time_ms: Millis,
}

impl Compacted {
    fn new(config: &[(&str, &str)]) -> Self {
        let world = World::new();
        world.create("t", 1, config);
        let time_ms = world.clock.wall_ms();
        Self { world, time_ms }
    }

    fn record<'a>(&self, key: &'a str, value: Option<&'a str>, headers: &'a Headers) -> OutRecord<'a> {
        OutRecord {
            topic: OutTopic(0),
            partition: 0,
            key: Some(key.as_bytes()),
            value: value.map(str::as_bytes),
            timestamp_ms: self.time_ms,
            headers,
        }
    }

    fn put(&self, producer: &mut dyn Producer, key: &str, value: Option<&str>) {
        producer.send(&self.record(key, value, &Headers::default())).unwrap();
    }

    fn plain(&self, records: &[(&str, Option<&str>)]) {
        let mut producer = self.world.producer(None);
        for (key, value) in records {
            self.put(&mut *producer, key, *value);
        }
    }

    /// Begins a new segment with a record of its own.
    fn roll(&mut self) {
        self.time_ms += SEGMENT_MS + 1;
        self.plain(&[("roll", Some("roll"))]);
    }

    /// Lets time pass, and gives the broker requests to work on.
    fn wait(&self, by: Duration) {
        self.world.clock.advance(by);
        for _ in 0..20 {
            self.world.watermarks("t");
        }
    }

    /// Offset and value of what a reader from 0 sees.
    fn read(&self, isolation: Isolation) -> Vec<(i64, String)> {
        let mut consumer = self.world.consumer(isolation, "t", self.world.watermarks("t").low);
        let mut read = Vec::new();
        while let Some(batch) = consumer.poll(3, ANY).unwrap() {
            let offsets = (0..batch.runs()[0].end).map(|index| batch.record(index).offset);
            read.extend(offsets.zip(values_of(&*batch)));
        }
        assert_eq!(consumer.position(0), consumer.end_offset(0));
        read
    }

    fn offsets(&self) -> Vec<i64> {
        self.read(Isolation::ReadCommitted)
            .iter()
            .map(|(offset, _)| *offset)
            .collect()
    }
}

fn texts(read: &[(i64, String)]) -> Vec<(i64, &str)> {
    read.iter().map(|(offset, value)| (*offset, value.as_str())).collect()
}

#[test]
fn the_last_record_of_each_key_stays_where_it_was() {
    let mut log = Compacted::new(&COMPACT);
    log.plain(&[
        ("a", Some("1")),
        ("b", Some("2")),
        ("a", Some("3")),
        ("c", Some("4")),
        ("b", Some("5")),
    ]);
    log.wait(A_LOOK);
    assert_eq!(log.offsets(), [0, 1, 2, 3, 4], "the active segment is never compacted");
    log.roll();
    log.wait(A_LOOK);
    let read = log.read(Isolation::ReadCommitted);
    assert_eq!(texts(&read), [(2, "3"), (3, "4"), (4, "5"), (5, "roll")]);
    assert_eq!(log.world.watermarks("t"), Watermarks { low: 0, high: 6 });
    let mut consumer = log.world.consumer(Isolation::ReadCommitted, "t", 1);
    let batch = consumer.poll(1, ANY).unwrap().unwrap();
    assert_eq!(batch.record(0).offset, 2, "a hole is a place to start too");
}

#[test]
fn a_reader_behind_goes_on_over_the_holes() {
    let mut log = Compacted::new(&COMPACT);
    log.plain(&[("a", Some("1")), ("b", Some("2")), ("a", Some("3")), ("b", Some("4"))]);
    let mut consumer = log.world.consumer(Isolation::ReadCommitted, "t", 0);
    let held = consumer.poll(1, ANY).unwrap().unwrap();
    log.roll();
    log.wait(A_LOOK);
    assert_eq!(values_of(&*held), ["1"], "what a reader holds stays readable");
    let rest = consumer.poll(10, ANY).unwrap().unwrap();
    assert_eq!(values_of(&*rest), ["3", "4", "roll"]);
    assert_eq!(consumer.position(0), Some(5));
}

#[test]
fn a_later_pass_takes_what_an_earlier_one_kept() {
    let mut log = Compacted::new(&COMPACT);
    for round in 0..5 {
        let value = round.to_string();
        log.plain(&[("a", Some(&value)), ("b", Some(&value))]);
        log.roll();
        log.wait(A_LOOK);
    }
    // Offset 14 began the segment that is active, so the record before it of the same key was not known to be old.
    assert_eq!(log.offsets(), [11, 12, 13, 14]);
}

#[test]
fn a_tombstone_outlives_its_key_for_its_time() {
    let mut log = Compacted::new(&COMPACT);
    log.plain(&[("gone", Some("1")), ("gone", None), ("kept", Some("2"))]);
    log.roll();
    log.wait(A_LOOK);
    assert_eq!(log.offsets(), [1, 2, 3], "the first pass that meets it sets its time");
    log.roll();
    log.wait(A_LOOK);
    assert_eq!(log.offsets()[0], 1, "its time has not come");
    log.wait(Duration::from_secs(5));
    log.roll();
    log.wait(A_LOOK);
    assert_eq!(log.offsets()[0], 2);
}

#[test]
fn a_key_that_comes_back_after_its_tombstone_stays() {
    let mut log = Compacted::new(&COMPACT);
    log.plain(&[("k", Some("1")), ("k", None), ("k", Some("2"))]);
    log.roll();
    log.wait(A_LOOK);
    assert_eq!(texts(&log.read(Isolation::ReadCommitted))[0], (2, "2"));
}

#[test]
fn nothing_from_the_last_stable_offset_on_is_compacted() {
    let mut log = Compacted::new(&COMPACT);
    log.plain(&[("a", Some("1")), ("a", Some("2"))]);
    log.roll();
    log.plain(&[("a", Some("3"))]);
    let mut open = log.world.producer(Some("id"));
    open.begin().unwrap();
    log.put(&mut *open, "b", Some("4"));
    log.plain(&[("a", Some("5")), ("a", Some("6"))]);
    log.roll();
    log.wait(A_LOOK);
    let read = log.read(Isolation::ReadUncommitted);
    let offsets: Vec<_> = read.iter().map(|(offset, _)| *offset).collect();
    // The segment that holds the last stable offset is left alone as a whole.
    assert_eq!(offsets, [1, 2, 3, 4, 5, 6, 7]);
    commit(&mut *open, commit_of(nobody(), &[])).unwrap();
    log.roll();
    log.wait(A_LOOK);
    assert_eq!(log.offsets(), [4, 6, 7, 9]);
}

#[test]
fn aborted_records_and_later_the_markers_vanish_and_offsets_stay_taken() {
    let mut log = Compacted::new(&COMPACT);
    let mut producer = log.world.producer(Some("id"));
    producer.begin().unwrap();
    log.put(&mut *producer, "a", Some("meant"));
    commit(&mut *producer, commit_of(nobody(), &[])).unwrap();
    producer.begin().unwrap();
    log.put(&mut *producer, "a", Some("regretted"));
    producer.abort(ANY).unwrap();
    log.roll();
    log.wait(A_LOOK);
    for isolation in [Isolation::ReadCommitted, Isolation::ReadUncommitted] {
        assert_eq!(
            texts(&log.read(isolation)),
            [(0, "meant"), (4, "roll")],
            "{isolation:?}"
        );
    }
    let stored = |log: &Compacted| log.world.log.link.call(Stored).unwrap();
    assert_eq!(stored(&log), [0, 1, 3, 4], "markers are there as long as records were");
    log.roll();
    log.wait(A_LOOK);
    assert_eq!(stored(&log)[..3], [0, 1, 3], "and some time longer");
    log.wait(Duration::from_secs(5));
    log.roll();
    log.wait(A_LOOK);
    assert_eq!(
        stored(&log)[..2],
        [0, 1],
        "the marker of the transaction that has a record stays"
    );
    assert_eq!(log.read(Isolation::ReadCommitted)[0], (0, "meant".to_owned()));
}

/// Asks for the offsets that are taken by a record, markers included.
#[derive(Clone, Debug)]
struct Stored;

impl super::super::broker::Request for Stored {
    type Answer = Vec<i64>;

    fn handle(
        self,
        broker: &mut super::super::broker::Broker,
        _now: Duration,
    ) -> Result<Vec<i64>, super::super::broker::BrokerError> {
        let partition = broker.topics.partition_mut(&TopicPartition::new("t", 0))?;
        Ok(partition.offsets())
    }
}

#[test]
fn young_records_wait_for_the_compaction_lag() {
    let lag = [COMPACT.as_slice(), &[("min.compaction.lag.ms", "600000")]].concat();
    let mut log = Compacted::new(&lag);
    log.plain(&[("a", Some("1")), ("a", Some("2"))]);
    log.roll();
    log.wait(A_LOOK);
    assert_eq!(log.offsets(), [0, 1, 2]);
    log.wait(Duration::from_secs(600));
    assert_eq!(log.offsets(), [1, 2]);
}

#[test]
fn a_small_dirty_part_waits() {
    let ratio = [COMPACT.as_slice(), &[("min.cleanable.dirty.ratio", "0.9")]].concat();
    let mut log = Compacted::new(&ratio);
    log.plain(&[("a", Some("1")), ("b", Some("1")), ("c", Some("1"))]);
    log.roll();
    log.wait(A_LOOK);
    log.plain(&[("a", Some("2"))]);
    log.roll();
    log.wait(A_LOOK);
    assert_eq!(log.offsets(), [0, 1, 2, 3, 4, 5], "half of it is clean");
}

#[test]
fn a_long_pass_goes_on_while_clients_are_served() {
    const KEYS: usize = 100;
    const RECORDS: usize = 30_000;
    let mut log = Compacted::new(&COMPACT);
    let mut producer = log.world.producer(None);
    for number in 0..RECORDS {
        log.put(
            &mut *producer,
            &format!("{:03}", number % KEYS),
            Some(&number.to_string()),
        );
    }
    log.roll();
    log.world.clock.advance(A_LOOK);
    let mut looks = 0;
    loop {
        looks += 1;
        let mut latest = BTreeMap::new();
        for (offset, value) in log.read(Isolation::ReadCommitted) {
            latest.insert(offset as usize % KEYS, value);
        }
        let expected = (RECORDS - KEYS..RECORDS).map(|number| number.to_string());
        let mut latest: Vec<_> = latest.into_values().filter(|value| value != "roll").collect();
        latest.sort();
        assert!(
            expected
                .clone()
                .skip(1)
                .all(|value| latest.binary_search(&value).is_ok())
        );
        if log.offsets().len() == KEYS + 1 {
            break;
        }
        assert!(looks < 1_000, "the pass ends");
    }
}

#[test]
fn old_segments_are_deleted_and_the_low_watermark_moves() {
    for policy in ["delete", "compact,delete"] {
        let mut log = Compacted::new(&[
            ("cleanup.policy", policy),
            ("segment.ms", "60000"),
            ("retention.ms", "600000"),
        ]);
        log.plain(&[("a", Some("1")), ("b", Some("2"))]);
        log.roll();
        log.wait(A_LOOK);
        assert_eq!(log.world.watermarks("t").low, 0);
        log.wait(Duration::from_secs(620));
        assert_eq!(log.world.watermarks("t"), Watermarks { low: 2, high: 3 }, "{policy}");
        log.wait(Duration::from_secs(62));
        assert_eq!(
            log.world.watermarks("t"),
            Watermarks { low: 3, high: 3 },
            "the active one goes as well"
        );
        let mut behind = log.world.consumer(Isolation::ReadCommitted, "t", 1);
        assert!(matches!(
            behind.poll(1, ANY),
            Err(LogError::OffsetOutOfRange { offset: 1, .. })
        ));
        log.plain(&[("c", Some("3"))]);
        assert_eq!(log.offsets(), [3]);
    }
}

#[test]
fn retention_by_size_keeps_at_least_that_much() {
    let mut log = Compacted::new(&[("segment.bytes", "1048576"), ("retention.bytes", "1048576")]);
    let large = "x".repeat(600_000);
    for _ in 0..4 {
        log.plain(&[("k", Some(&large))]);
    }
    log.wait(A_LOOK);
    assert_eq!(log.world.watermarks("t"), Watermarks { low: 2, high: 4 });
    log.roll();
    log.wait(A_LOOK);
    assert_eq!(log.world.watermarks("t").low, 2, "nothing that would leave less");
}

#[test]
fn retention_stops_at_an_open_transaction() {
    let mut log = Compacted::new(&[("segment.ms", "60000"), ("retention.ms", "1000")]);
    log.plain(&[("a", Some("1"))]);
    log.roll();
    let mut open = log.world.producer(Some("id"));
    open.begin().unwrap();
    log.put(&mut *open, "b", Some("2"));
    log.roll();
    log.wait(Duration::from_secs(200 - 150));
    assert_eq!(log.world.watermarks("t").low, 1);
}

#[test]
fn records_of_a_topic_without_retention_stay_for_ever() {
    let log = Compacted::new(&[]);
    log.plain(&[("a", Some("1"))]);
    log.wait(Duration::from_secs(100 * 365 * 86_400));
    assert_eq!(log.offsets(), [0]);
}

#[test]
fn a_record_without_a_key_is_refused_where_keys_are_what_counts() {
    let log = Compacted::new(&COMPACT);
    let mut producer = log.world.producer(None);
    let headers = Headers::default();
    let keyless = OutRecord {
        key: None,
        ..log.record("", Some("value"), &headers)
    };
    assert!(matches!(producer.send(&keyless), Err(LogError::Abort { .. })));
    assert_eq!(log.world.watermarks("t").high, 0);
}

#[test]
fn the_same_requests_at_the_same_times_clean_the_same() {
    let run = || {
        let mut log = Compacted::new(&COMPACT);
        for round in 0..50 {
            let (key, value) = ((round * 7 % 5).to_string(), round.to_string());
            log.plain(&[(&key, Some(&value))]);
            if round % 10 == 9 {
                log.roll();
            }
            log.wait(Duration::from_millis(200));
        }
        log.read(Isolation::ReadUncommitted)
    };
    assert_eq!(run(), run());
}
