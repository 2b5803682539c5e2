//! Where tasks of another number go on reading.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::TopicPartition;
use crate::log::Log;

use super::OfflineError;

const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// How the input offsets of tasks are chosen whose partitions did not exist, or not all of them.
pub enum Offsets<'a> {
    /// The topics were given more partitions: those that there were go on where they were, new ones begin at 0.
    Grown,
    /// Every partition from its first record on.
    Earliest(&'a dyn Log),
    /// Every partition from its end on.
    Latest(&'a dyn Log),
    /// These.
    Given(BTreeMap<TopicPartition, i64>),
}

impl Offsets<'_> {
    /// Reads a list of `[topic, partition, offset]` in JSON.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let list: Vec<(String, i32, i64)> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let entry = |(topic, partition, offset): (String, i32, i64)| (TopicPartition::new(topic, partition), offset);
        Ok(Offsets::Given(list.into_iter().map(entry).collect()))
    }

    /// The offset of an input partition; `was` is where it had been, if it was there.
    ///
    /// # Errors
    /// [`OfflineError::NoOffset`] where none is given, [`OfflineError::Log`].
    pub fn of(&self, input: &TopicPartition, was: Option<i64>) -> Result<i64, OfflineError> {
        let none = |reason: String| OfflineError::NoOffset {
            partition: input.clone(),
            reason,
        };
        let marks = |log: &dyn Log| {
            let admin = log.admin();
            let partitions = admin
                .topic(&input.topic, ASK_TIMEOUT)?
                .map_or(0, |topic| topic.partitions);
            match input.partition < partitions {
                true => Ok(admin.watermarks(input, ASK_TIMEOUT)?),
                false => Err(none(format!(
                    "the topic has {partitions} partitions; there are to be as many tasks as its inputs have partitions"
                ))),
            }
        };
        match self {
            Offsets::Grown => Ok(was.unwrap_or(0)),
            Offsets::Earliest(log) => Ok(marks(*log)?.low),
            Offsets::Latest(log) => Ok(marks(*log)?.high),
            Offsets::Given(given) => {
                let given = given.get(input).copied();
                given.ok_or_else(|| none("name it in the file of --offsets".to_owned()))
            }
        }
    }
}
