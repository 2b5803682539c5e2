//! Names of things: tasks, partitions, epochs, lineages, stores.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A task: sub-topology × partition number. Printed as `<sub-topology>_<partition>`, as Kafka Streams does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// Number of the sub-topology within the plan, from 0.
    pub sub_topology: u16,
    /// Number of the partition of the sub-topology's lead topic, from 0.
    pub partition: i32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.sub_topology, self.partition)
    }
}

impl FromStr for TaskId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('_').and_then(|(sub_topology, partition)| {
            Some(TaskId {
                sub_topology: sub_topology.parse().ok()?,
                partition: partition.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| format!("{text:?} is not a task id; expected <sub-topology>_<partition>"))
    }
}

/// One partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Number of the partition, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Names partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self {
            topic: topic.into(),
            partition,
        }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Number of an epoch within a task's lineage. The first committed epoch is 1; 0 means "nothing committed yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Epoch(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Identity of one unbroken history of a task: 8 random bytes, printed as 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lineage(pub u64);

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Lineage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match u64::from_str_radix(text, 16) {
            Ok(bits) if text.len() == 16 => Ok(Lineage(bits)),
            _ => Err(format!("{text:?} is not a lineage; expected 16 hex digits")),
        }
    }
}

/// Index of a store within its sub-topology, in order of declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub u16);

/// Index of a node within the whole topology, in order of declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_printing_and_parsing() {
        let task = TaskId {
            sub_topology: 3,
            partition: 17,
        };
        assert_eq!(task.to_string(), "3_17");
        assert_eq!("3_17".parse(), Ok(task));
        assert!("3-17".parse::<TaskId>().is_err());
        assert!("3_".parse::<TaskId>().is_err());
        let lineage = Lineage(0xabc);
        assert_eq!(lineage.to_string(), "0000000000000abc");
        assert_eq!("0000000000000abc".parse(), Ok(lineage));
        assert!("abc".parse::<Lineage>().is_err());
    }
}
