//! Random writing, cleaning, time and crashes against a plain map of what was committed last under each key.

use super::*;
use crate::log::embedded::EmbeddedLog;

const SEGMENT_MS: Millis = 60_000;
const CONFIG: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.ms", "60000"),
    ("min.cleanable.dirty.ratio", "0.3"),
    ("delete.retention.ms", "3000"),
];
const PRODUCERS: usize = 3;

/// xorshift64
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A write, by its place in the log.
type Written = (i64, String, Option<String>);

/// What the log must hold.
#[derive(Default)]
struct Model {
    /// Last committed write of each key, by the offset of the write.
    latest: BTreeMap<String, (i64, Option<String>)>,
    high: i64,
}

impl Model {
    fn commit(&mut self, writes: Vec<Written>) {
        for (offset, key, value) in writes {
            let latest = self.latest.entry(key).or_insert((-1, None));
            if latest.0 < offset {
                *latest = (offset, value);
            }
        }
    }

    fn live(&self) -> BTreeMap<String, String> {
        let live = self.latest.iter();
        live.filter_map(|(key, (_, value))| Some((key.clone(), value.clone()?)))
            .collect()
    }
}

struct Run {
    world: World,
    random: Random,
    model: Model,
    /// Transactions under way, by producer.
    open: Vec<Option<(Box<dyn Producer>, Vec<Written>)>>,
    time_ms: Millis,
    dir: Option<tempfile::TempDir>,
}

impl Run {
    fn new(seed: u64, dir: Option<tempfile::TempDir>) -> Self {
        let clock = Arc::new(ManualClock::default());
        let mut run = Self {
            time_ms: clock.wall_ms(),
            world: World {
                log: Self::log(dir.as_ref(), &clock),
                clock,
            },
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            model: Model::default(),
            open: (0..PRODUCERS).map(|_| None).collect(),
            dir,
        };
        run.world.create("t", 1, &CONFIG);
        for _ in 0..300 {
            run.step();
        }
        run
    }

    fn log(dir: Option<&tempfile::TempDir>, clock: &Arc<ManualClock>) -> Arc<EmbeddedLog> {
        let settings = EmbeddedSettings {
            transaction_timeout: Duration::from_secs(3600),
            waits: Waits::Never,
        };
        let clock = Arc::clone(clock) as Arc<dyn Clock>;
        match dir {
            Some(dir) => EmbeddedLog::open(dir.path(), clock, settings).unwrap(),
            None => EmbeddedLog::with_settings(clock, settings),
        }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..=7 => self.write(),
            8..=11 => self.end(),
            12..=14 => {
                let by = self.random.below(1_500);
                self.world.clock.advance(Duration::from_millis(by));
            }
            15 => self.time_ms += SEGMENT_MS + 1,
            16 if self.dir.is_some() => self.crash(),
            _ => self.check(),
        }
    }

    fn write(&mut self) {
        let producer = self.random.below(PRODUCERS as u64 + 1) as usize;
        let (key, value) = (self.random.below(6).to_string(), self.random.below(1_000).to_string());
        let value = (self.random.below(4) > 0).then_some(value);
        let record = OutRecord {
            topic: OutTopic(0),
            partition: 0,
            key: Some(key.as_bytes()),
            value: value.as_deref().map(str::as_bytes),
            timestamp_ms: self.time_ms,
            headers: &Headers::default(),
        };
        let written = (self.model.high, key.clone(), value.clone());
        self.model.high += 1;
        let Some(slot) = self.open.get_mut(producer) else {
            self.world.producer(None).send(&record).unwrap();
            return self.model.commit(vec![written]);
        };
        let (producer, writes) = slot.get_or_insert_with(|| {
            let mut producer = self.world.producer(Some(&format!("id-{producer}")));
            producer.begin().unwrap();
            (producer, Vec::new())
        });
        producer.send(&record).unwrap();
        writes.push(written);
    }

    fn end(&mut self) {
        let slot = self.random.below(PRODUCERS as u64) as usize;
        let Some((mut producer, writes)) = self.open[slot].take() else {
            return;
        };
        match self.random.below(3) {
            0 => producer.abort(ANY).unwrap(),
            _ => {
                commit(&mut *producer, commit_of(nobody(), &[])).unwrap();
                self.model.commit(writes);
            }
        }
        self.model.high += 1;
    }

    /// The process ends in the midst of its transactions, and another one opens what is left.
    fn crash(&mut self) {
        let Some(dir) = &self.dir else { return };
        let left = super::files::killed(dir.path());
        let unfinished = self.open.iter_mut().filter_map(Option::take).count() as i64;
        self.world.log = Self::log(Some(&left), &self.world.clock);
        self.dir = Some(left);
        // Records of transactions without an end may be gone with their offsets.
        let high = self.world.watermarks("t").high;
        assert!(high <= self.model.high + unfinished);
        let committed = self.model.latest.values().map(|(offset, _)| *offset).max();
        assert!(committed.is_none_or(|committed| committed < high));
        self.model.high = high;
    }

    /// A reader of everything ends with the contents of the model, wherever cleaning is.
    fn check(&mut self) {
        let watermarks = self.world.watermarks("t");
        assert_eq!((watermarks.low, watermarks.high), (0, self.model.high));
        let mut consumer = self.world.consumer(Isolation::ReadCommitted, "t", 0);
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        let mut last = -1;
        let most = 1 + self.random.below(20) as usize;
        while let Some(batch) = consumer.poll(most, ANY).unwrap() {
            for index in 0..batch.runs()[0].end {
                let record = batch.record(index);
                assert!(record.offset > last);
                last = record.offset;
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let key = text(record.key.unwrap());
                match record.value {
                    Some(value) => drop(seen.insert(key, text(value))),
                    None => drop(seen.remove(&key)),
                }
            }
        }
        assert_eq!(consumer.position(0), consumer.end_offset(0));
        if self.open.iter().all(Option::is_none) {
            assert_eq!(consumer.position(0), Some(self.model.high));
            assert_eq!(seen, self.model.live());
        }
    }
}

/// Ends everything and lets the broker clean until nothing moves any more.
fn settle(mut run: Run) -> (i64, usize) {
    while run.open.iter().any(Option::is_some) {
        run.end();
    }
    run.check();
    for _ in 0..3 {
        run.time_ms += SEGMENT_MS + 1;
        run.write();
        while run.open.iter().any(Option::is_some) {
            run.end();
        }
        run.world.clock.advance(Duration::from_secs(10));
        for _ in 0..50 {
            run.check();
        }
    }
    let read = run.world.values(Isolation::ReadUncommitted, "t");
    (run.model.high, read.len())
}

#[test]
fn whatever_is_cleaned_a_reader_ends_with_what_was_committed_last() {
    let (mut written, mut left) = (0, 0);
    for seed in 1..=60 {
        let (high, records) = settle(Run::new(seed, None));
        written += high;
        left += records as i64;
    }
    assert!(
        left * 4 < written,
        "{left} of {written} offsets have a record: cleaning did something"
    );
}

#[test]
fn whatever_is_cleaned_and_whenever_the_process_dies_nothing_committed_is_lost() {
    for seed in 1..=8 {
        let dir = tempfile::tempdir().unwrap();
        settle(Run::new(seed, Some(dir)));
    }
}
