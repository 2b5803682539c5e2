//! Increments in a spill topic, where they go while the object store is away.
//!
//! A spilled increment is a pack of one task ([`super::pack`]), cut into records of at most [`CHUNK_BYTES`], in the partition of that task and in
//! the transaction of its epoch. The key of a record is `<task>!<epoch>-<attempt>/<number>/<count>`, in ASCII; the numbers count from 0.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::ids::{Epoch, TaskId, TopicPartition};
use crate::log::{BatchSource, TopicSpec};
use crate::planted::{Bug, planted};

use super::error::FormatError;
use super::names::Attempt;

/// A record holds so much of an increment, at most: half of what brokers and clients take as they are shipped.
pub const CHUNK_BYTES: usize = 512 << 10;
/// What the topic must take in one record.
pub const RECORD_MAX_BYTES: usize = CHUNK_BYTES + 4_096;
/// What the topic is made for: Kafka's own default.
const TOPIC_MAX_BYTES: usize = 1_048_588;

/// Name of the topic to which the tasks of a sub-topology spill, each to the partition of its own number.
pub fn spill_topic(application_id: &str, sub_topology: u16) -> Arc<str> {
    format!("{application_id}-{sub_topology}-spill").into()
}

/// The partition to which a task spills.
pub fn spill_partition(application_id: &str, task: TaskId) -> TopicPartition {
    TopicPartition::new(spill_topic(application_id, task.sub_topology), task.partition)
}

/// The spill topic of a sub-topology with so many tasks. It is trimmed behind base snapshots only, never by time or size.
pub fn spill_topic_spec(application_id: &str, sub_topology: u16, tasks: i32, replication: Option<i32>) -> TopicSpec {
    TopicSpec {
        name: spill_topic(application_id, sub_topology),
        partitions: tasks,
        replication,
        config: vec![
            ("cleanup.policy".into(), "delete".into()),
            ("retention.ms".into(), "-1".into()),
            ("retention.bytes".into(), "-1".into()),
            ("max.message.bytes".into(), TOPIC_MAX_BYTES.to_string()),
            ("message.timestamp.type".into(), "CreateTime".into()),
        ],
    }
}

/// The key of a record in a spill topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpillKey {
    /// The task.
    pub task: TaskId,
    /// The epoch whose writes the increment holds.
    pub epoch: Epoch,
    /// The attempt that wrote it.
    pub attempt: Attempt,
    /// Which of its records this is, from 0.
    pub number: u32,
    /// How many there are.
    pub count: u32,
}

impl fmt::Display for SpillKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            task,
            epoch,
            attempt,
            number,
            count,
        } = self;
        write!(f, "{task}!{epoch}-{attempt}/{number}/{count}")
    }
}

impl FromStr for SpillKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = || {
            let (task, rest) = text.split_once('!')?;
            let (epoch, rest) = rest.split_once('-')?;
            let mut rest = rest.splitn(3, '/');
            let key = SpillKey {
                task: task.parse().ok()?,
                epoch: Epoch(epoch.parse().ok()?),
                attempt: rest.next()?.parse().ok()?,
                number: rest.next()?.parse().ok()?,
                count: rest.next()?.parse().ok()?,
            };
            (key.number < key.count).then_some(key)
        };
        parsed().ok_or_else(|| {
            format!(
                "{text:?} is not the key of a spilled increment; expected <task>!<epoch>-<attempt>/<number>/<count>"
            )
        })
    }
}

/// An increment that goes to a spill topic.
#[derive(Clone)]
pub struct SpilledIncrement {
    task: TaskId,
    epoch: Epoch,
    attempt: Attempt,
    /// A pack of this one task.
    bytes: Arc<[u8]>,
}

impl SpilledIncrement {
    /// The pack `bytes`, which has nothing but `epoch` of `task`.
    pub fn new(task: TaskId, epoch: Epoch, attempt: Attempt, bytes: Vec<u8>) -> Self {
        let bytes = bytes.into();
        Self {
            task,
            epoch,
            attempt,
            bytes,
        }
    }

    /// The attempt.
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}

impl BatchSource for SpilledIncrement {
    fn len(&self) -> usize {
        if planted(Bug::SpillNothing) {
            return 0;
        }
        self.bytes.len().div_ceil(CHUNK_BYTES)
    }

    fn for_each(&self, visit: &mut dyn FnMut(&[u8], Option<&[u8]>)) {
        let count = self.len();
        for (number, chunk) in self.bytes.chunks(CHUNK_BYTES).take(count).enumerate() {
            let key = SpillKey {
                task: self.task,
                epoch: self.epoch,
                attempt: self.attempt,
                number: number as u32,
                count: count as u32,
            };
            visit(key.to_string().as_bytes(), Some(chunk));
        }
    }
}

/// Puts one increment together from the records of a spill topic, in their order.
#[derive(Debug)]
pub struct SpillAssembly {
    task: TaskId,
    epoch: Epoch,
    attempt: Attempt,
    bytes: Vec<u8>,
    next: u32,
}

impl SpillAssembly {
    /// Looks for what `attempt` wrote of `epoch` of `task`.
    pub fn new(task: TaskId, epoch: Epoch, attempt: Attempt) -> Self {
        Self {
            task,
            epoch,
            attempt,
            bytes: Vec::new(),
            next: 0,
        }
    }

    /// Takes the next record of the partition; the pack once it is whole. Records of others are passed over.
    ///
    /// # Errors
    /// [`FormatError::Damaged`] for a record without a key that is one, or where one of the increment's is missing. `at` names the record.
    pub fn take(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, at: &str) -> Result<Option<Vec<u8>>, FormatError> {
        let text = key.and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default();
        let key: SpillKey = text.parse().map_err(|reason| FormatError::damaged(at, reason))?;
        // Without a transaction a record may be there twice.
        let is_wanted = (key.task, key.epoch, key.attempt) == (self.task, self.epoch, self.attempt);
        if !is_wanted || key.number < self.next {
            return Ok(None);
        }
        if key.number > self.next {
            let reason = format!("record {} of {} is missing before it", self.next, key.count);
            return Err(FormatError::damaged(at, reason));
        }
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.next += 1;
        Ok((self.next == key.count).then(|| std::mem::take(&mut self.bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: TaskId = TaskId {
        sub_topology: 1,
        partition: 3,
    };

    fn spilled(attempt: u64, bytes: usize) -> SpilledIncrement {
        let bytes = (0..bytes).map(|at| (at % 251) as u8).collect();
        SpilledIncrement::new(TASK, Epoch(8), Attempt(attempt), bytes)
    }

    fn records(increment: &SpilledIncrement) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut records = Vec::new();
        increment.for_each(&mut |key, value| records.push((key.to_vec(), value.unwrap_or_default().to_vec())));
        records
    }

    fn assembled(records: &[(Vec<u8>, Vec<u8>)]) -> Result<Option<Vec<u8>>, FormatError> {
        let mut assembly = SpillAssembly::new(TASK, Epoch(8), Attempt(2));
        for (key, value) in records {
            if let Some(whole) = assembly.take(Some(key), Some(value), "a record")? {
                return Ok(Some(whole));
            }
        }
        Ok(None)
    }

    #[test]
    fn an_increment_is_put_together_from_its_records_and_from_no_others() {
        let wanted = spilled(2, CHUNK_BYTES * 2 + 10);
        let other = spilled(3, 100);
        assert_eq!(wanted.len(), 3);
        let mut all = records(&other);
        all.extend(records(&wanted));
        assert_eq!(assembled(&all), Ok(Some(wanted.bytes.to_vec())));
        all.insert(2, all[1].clone());
        assert_eq!(
            assembled(&all),
            Ok(Some(wanted.bytes.to_vec())),
            "a record that is there twice"
        );
        assert_eq!(assembled(&records(&other)), Ok(None));
    }

    #[test]
    fn a_record_that_is_missing_or_foreign_is_damage() {
        let mut some = records(&spilled(2, CHUNK_BYTES * 2 + 10));
        some.remove(1);
        assert!(assembled(&some).is_err());
        assert!(assembled(&[(b"some key".to_vec(), Vec::new())]).is_err());
    }

    #[test]
    fn the_key_is_fixed_and_read_back() {
        let (key, _) = records(&spilled(2, 10)).remove(0);
        assert_eq!(key, b"1_3!8-0000000000000002/0/1");
        let text = String::from_utf8(key).expect("ASCII");
        assert_eq!(text.parse::<SpillKey>().map(|key| key.to_string()), Ok(text));
        assert!("1_3!8-0000000000000002/1/1".parse::<SpillKey>().is_err());
    }
}
