//! What one task has in a savepoint.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::durability::snapshot::{FormatError, StoredFile, damaged_object};
use crate::ids::{Epoch, Lineage, TaskId, TopicPartition};
use crate::state::StoreSpec;
use crate::time::Millis;

use super::sealed::{seal, unseal};

/// What [`Part::backend`] says of a task without stores.
pub const BACKEND_NONE: &str = "none";
/// What [`Part::backend`] says of sorted rows.
pub const BACKEND_CANONICAL: &str = "canonical";

/// Says that a task stands still at an epoch that is committed. Two owners of the task that say the same write the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The task.
    pub task: TaskId,
    /// The history that its state belongs to.
    pub lineage: Lineage,
    /// The epoch.
    pub epoch: Epoch,
}

#[derive(Serialize, Deserialize)]
struct JsonMarker {
    task: String,
    lineage: String,
    epoch: u64,
}

impl Marker {
    /// The object's bytes.
    pub fn to_json(&self) -> Vec<u8> {
        seal(&JsonMarker {
            task: self.task.to_string(),
            lineage: self.lineage.to_string(),
            epoch: self.epoch.0,
        })
    }
}

/// A task's state in a savepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The task.
    pub task: TaskId,
    /// The history that the state belongs to.
    pub lineage: Lineage,
    /// The committed epoch.
    pub epoch: Epoch,
    /// When that epoch ended by its worker's clock, in milliseconds since the Unix epoch.
    pub ended_ms: Millis,
    /// The committed input offsets.
    pub cut: BTreeMap<TopicPartition, i64>,
    /// The task's stores with their codecs, in order of their ids.
    pub stores: Vec<StoreSpec>,
    /// What the files are: a kind of database, `canonical`, or `none`.
    pub backend: String,
    /// `<instance>/<worker>`, for people.
    pub writer: String,
    /// All files; their objects are relative to the savepoint's folder.
    pub files: Vec<StoredFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JsonPart {
    task: String,
    lineage: String,
    epoch: u64,
    ended_ms: Millis,
    cut: Vec<(String, i32, i64)>,
    stores: Vec<JsonStore>,
    backend: String,
    writer: String,
    files: Vec<StoredFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonStore {
    name: String,
    ordered: bool,
    codecs: String,
}

#[derive(Serialize, Deserialize)]
struct Alone {
    part: JsonPart,
}

impl From<&Part> for JsonPart {
    fn from(part: &Part) -> Self {
        let offset = |(at, offset): (&TopicPartition, &i64)| (at.topic.to_string(), at.partition, *offset);
        let store = |store: &StoreSpec| JsonStore {
            name: store.name.clone(),
            ordered: store.ordered,
            codecs: store.codecs.clone(),
        };
        Self {
            task: part.task.to_string(),
            lineage: part.lineage.to_string(),
            epoch: part.epoch.0,
            ended_ms: part.ended_ms,
            cut: part.cut.iter().map(offset).collect(),
            stores: part.stores.iter().map(store).collect(),
            backend: part.backend.clone(),
            writer: part.writer.clone(),
            files: part.files.clone(),
        }
    }
}

impl JsonPart {
    pub(super) fn read(self, object: &str) -> Result<Part, FormatError> {
        let damaged = |reason: String| damaged_object(object, reason);
        let offset = |(topic, partition, offset): (String, i32, i64)| (TopicPartition::new(topic, partition), offset);
        let store = |store: JsonStore| StoreSpec {
            name: store.name,
            ordered: store.ordered,
            codecs: store.codecs,
        };
        Ok(Part {
            task: self.task.parse().map_err(damaged)?,
            lineage: self.lineage.parse().map_err(damaged)?,
            epoch: Epoch(self.epoch),
            ended_ms: self.ended_ms,
            cut: self.cut.into_iter().map(offset).collect(),
            stores: self.stores.into_iter().map(store).collect(),
            backend: self.backend,
            writer: self.writer,
            files: self.files,
        })
    }
}

impl Part {
    /// Bytes of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The object's bytes.
    pub fn to_json(&self) -> Vec<u8> {
        seal(&Alone { part: self.into() })
    }

    /// Reads the bytes of the object `object`.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn from_json(bytes: &[u8], object: &str) -> Result<Self, FormatError> {
        let alone: Alone = unseal(bytes, object)?;
        alone.part.read(object)
    }
}
