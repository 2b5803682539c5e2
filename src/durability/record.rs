//! The full form of the pointer: a record of the compacted topic `<app>-commits`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::errors::Coded;
use crate::ids::{Epoch, Lineage, TaskId, TopicPartition};

use super::snapshot::StateRef;
use super::{Beginning, Durability};

/// Key of the record that holds the plan's text.
pub const PLAN_KEY: &str = "plan";

/// What one commit says about one task, in full. Key: the task id; value: JSON with a checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitRecord {
    /// The task.
    pub task: TaskId,
    /// The history that the state belongs to.
    pub lineage: Lineage,
    /// The epoch that this commit ends.
    pub epoch: Epoch,
    /// Fingerprint of the plan.
    pub plan: String,
    /// All input offsets after the epoch.
    pub cut: BTreeMap<TopicPartition, i64>,
    /// Per changelog partition, an offset at or before the end of the epoch's records.
    pub changelog: BTreeMap<TopicPartition, i64>,
    /// The strategy that the commit was made under.
    pub durability: Durability,
    /// Where the state is stored; empty under strategy `changelog`.
    pub state: StateRef,
    /// As in [`super::Pointer::since`].
    pub since: Option<Beginning>,
}

/// Why a record of the commits topic cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitRecordError {
    /// The value is not what Tidegate writes, or its checksum differs.
    #[error("the commit record of {key} is damaged: {reason}")]
    Damaged {
        /// Key of the record.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

impl Coded for CommitRecordError {
    fn code(&self) -> &'static str {
        match self {
            CommitRecordError::Damaged { .. } => "TG3003",
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    format: u32,
    task: String,
    lineage: String,
    epoch: u64,
    plan: String,
    cut: Vec<(String, i32, i64)>,
    changelog: Vec<(String, i32, i64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    durability: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    increment: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    crc: u32,
}

fn list(offsets: &BTreeMap<TopicPartition, i64>) -> Vec<(String, i32, i64)> {
    let entry = |(at, offset): (&TopicPartition, &i64)| (at.topic.to_string(), at.partition, *offset);
    offsets.iter().map(entry).collect()
}

fn map(list: Vec<(String, i32, i64)>) -> BTreeMap<TopicPartition, i64> {
    let entry = |(topic, partition, offset): (String, i32, i64)| (TopicPartition::new(topic, partition), offset);
    list.into_iter().map(entry).collect()
}

impl CommitRecord {
    /// The record's value.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = Json {
            format: 1,
            task: self.task.to_string(),
            lineage: self.lineage.to_string(),
            epoch: self.epoch.0,
            plan: self.plan.clone(),
            cut: list(&self.cut),
            changelog: list(&self.changelog),
            durability: self
                .durability
                .has_snapshots()
                .then(|| self.durability.word().to_owned()),
            base: self.state.base.map(|base| base.to_string()),
            increment: self.state.increment.as_ref().map(ToString::to_string),
            since: self.since.as_ref().map(ToString::to_string),
            crc: 0,
        };
        json.crc = checksum(&json);
        serde_json::to_vec(&json).unwrap_or_default()
    }

    /// Reads the value of the record with key `key`.
    ///
    /// # Errors
    /// [`CommitRecordError::Damaged`].
    pub fn from_json(key: &str, value: &[u8]) -> Result<Self, CommitRecordError> {
        let damaged = |reason: String| CommitRecordError::Damaged {
            key: key.to_owned(),
            reason,
        };
        let mut json: Json = serde_json::from_slice(value).map_err(|error| damaged(error.to_string()))?;
        let crc = std::mem::take(&mut json.crc);
        if checksum(&json) != crc {
            return Err(damaged("the checksum differs".into()));
        }
        let durability = match &json.durability {
            None => Durability::Changelog,
            Some(word) => Durability::of_word(word).ok_or_else(|| damaged(format!("{word:?} is not a strategy")))?,
        };
        Ok(CommitRecord {
            durability,
            task: json.task.parse().map_err(damaged)?,
            lineage: json.lineage.parse().map_err(damaged)?,
            epoch: Epoch(json.epoch),
            plan: json.plan,
            cut: map(json.cut),
            changelog: map(json.changelog),
            since: json.since.map(|since| since.parse()).transpose().map_err(damaged)?,
            state: StateRef {
                base: json.base.map(|base| base.parse()).transpose().map_err(damaged)?,
                increment: json
                    .increment
                    .map(|increment| increment.parse())
                    .transpose()
                    .map_err(damaged)?,
            },
        })
    }
}

/// CRC-32 of the JSON with a `crc` of 0.
fn checksum(json: &Json) -> u32 {
    crc32fast::hash(&serde_json::to_vec(json).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> CommitRecord {
        CommitRecord {
            task: TaskId {
                sub_topology: 1,
                partition: 2,
            },
            lineage: Lineage(9),
            epoch: Epoch(3),
            plan: "beef".into(),
            cut: BTreeMap::from([(TopicPartition::new("in", 2), 77)]),
            changelog: BTreeMap::from([(TopicPartition::new("app-counts-changelog", 2), 12)]),
            durability: Durability::Changelog,
            state: StateRef::default(),
            since: None,
        }
    }

    #[test]
    fn a_record_survives_the_topic() {
        let bytes = record().to_json();
        assert_eq!(CommitRecord::from_json("1_2", &bytes), Ok(record()));
        let changed = CommitRecord {
            since: Some(Beginning {
                epoch: Epoch(2),
                offsets: vec![12],
            }),
            ..record()
        };
        assert_eq!(CommitRecord::from_json("1_2", &changed.to_json()), Ok(changed));
    }

    #[test]
    fn a_changed_offset_is_noticed() {
        let text = String::from_utf8(record().to_json()).expect("JSON is text");
        let changed = text.replace("77", "78");
        assert!(CommitRecord::from_json("1_2", changed.as_bytes()).is_err());
        assert!(CommitRecord::from_json("1_2", b"").is_err());
    }
}
