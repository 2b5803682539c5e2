//! The records of the benchmarks: 16-byte keys, 100-byte values that do not compress, each of which carries a count.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::log::{Commit, Log, LogError, OutRecord, OutTopic, Producer};
use tidegate::partitioner::partition_for;
use tidegate::record::Headers;

use crate::Failure;

/// Bytes of a key.
pub const KEY_BYTES: usize = 16;
/// Bytes of a value.
pub const VALUE_BYTES: usize = 100;
/// Bytes of a value that count; the rest is noise.
pub const COUNT_BYTES: usize = 8;

const DELIVERY_TIMEOUT: Duration = Duration::from_secs(600);
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// A generator of numbers that look random and are the same in every run.
pub struct Random(u64);

impl Random {
    /// A sequence of its own per seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (splitmix64).
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// The key with this number. Numbers that follow each other have keys that lie apart.
pub fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut random = Random::new(number);
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&random.draw().to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// A value that counts one.
pub fn value(random: &mut Random) -> [u8; VALUE_BYTES] {
    let mut value = [0; VALUE_BYTES];
    value[..COUNT_BYTES].copy_from_slice(&1_u64.to_be_bytes());
    for piece in value[COUNT_BYTES..].chunks_mut(8) {
        piece.copy_from_slice(&random.draw().to_be_bytes()[..piece.len()]);
    }
    value
}

/// How many records a value stands for.
pub fn count_of(value: &[u8]) -> u64 {
    value
        .first_chunk::<COUNT_BYTES>()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// Writes records of keys with these numbers to a topic, and returns when the broker has all of them.
///
/// # Errors
/// Where the broker does not take them.
pub fn write(log: &dyn Log, topic: &str, seed: u64, numbers: impl Iterator<Item = u64>) -> Result<u64, Failure> {
    let mut producer = log.producer("bench-input", None)?;
    producer.init(DELIVERY_TIMEOUT)?;
    let partitions = producer.prepare(&[Arc::from(topic)])?;
    producer.begin()?;
    let mut random = Random::new(seed);
    let headers = Headers::default();
    let mut written = 0;
    for number in numbers {
        let (key, value) = (key(number), value(&mut random));
        let record = OutRecord {
            topic: OutTopic(0),
            partition: partition_for(&key, partitions[0]),
            key: Some(&key),
            value: Some(&value),
            timestamp_ms: i64::try_from(written)?,
            headers: &headers,
        };
        send(&mut *producer, &record)?;
        written += 1;
    }
    producer.start_commit(Commit::of_records(DELIVERY_TIMEOUT))?;
    loop {
        if let Some(delivered) = producer.poll_commit(Duration::from_millis(100)) {
            return Ok(delivered.map(|()| written)?);
        }
    }
}

fn send(producer: &mut dyn Producer, record: &OutRecord<'_>) -> Result<(), Failure> {
    let deadline = Instant::now() + DELIVERY_TIMEOUT;
    loop {
        match producer.send(record) {
            Err(LogError::QueueFull) if Instant::now() < deadline => std::thread::sleep(FULL_PAUSE),
            sent => return Ok(sent?),
        }
    }
}
