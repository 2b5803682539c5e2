//! The manifest of a base snapshot: one JSON object that names all files of a task's database as of one epoch.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, Lineage, TaskId, TopicPartition};
use crate::state::{StateFile, StateMeta, StoreSpec};
use crate::time::Millis;

use super::error::{FormatError, check_format};
use super::hash::ContentHash;
use super::names::SnapshotId;
use super::reference::IncrementRef;

const FORMAT: u32 = 1;

/// A file of a database, and where its bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Its name within the database.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether later snapshots may have the same file.
    pub immutable: bool,
    /// BLAKE3 of its bytes.
    pub hash: ContentHash,
    /// The object that holds it, relative to the application's folder.
    pub object: String,
    /// Where in the object it begins, in bytes: several small files share one.
    pub offset: u64,
}

impl StoredFile {
    /// The file as the database knows it.
    pub fn state_file(&self) -> StateFile {
        StateFile {
            name: self.name.clone(),
            bytes: self.bytes,
            immutable: self.immutable,
        }
    }
}

/// An older base snapshot that is retained, and when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retained {
    /// The snapshot.
    pub id: SnapshotId,
    /// When it was made, by its writer's clock, in milliseconds since the Unix epoch.
    pub made_ms: Millis,
}

/// A base snapshot: exactly the committed state of a task up to a cut (invariant I13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The task.
    pub task: TaskId,
    /// Which snapshot this is.
    pub id: SnapshotId,
    /// What the state is; its epoch is that of `id`.
    pub meta: StateMeta,
    /// Fingerprint of the plan that wrote it.
    pub plan: String,
    /// The task's stores with their codecs, in order of their ids.
    pub stores: Vec<StoreSpec>,
    /// What the files are: the backend that wrote them, with its version.
    pub backend: String,
    /// The instance and worker that wrote it, for people.
    pub writer: String,
    /// When it was made, by the writer's clock, in milliseconds since the Unix epoch.
    pub made_ms: Millis,
    /// All files.
    pub files: Vec<StoredFile>,
    /// Older snapshots of the task that are retained, newest first.
    pub history: Vec<Retained>,
    /// The increments between the snapshot before it and this one, newest first: with them an older snapshot leads here, too.
    pub increments: Vec<IncrementRef>,
    /// How many increments there had been since the lineage began.
    pub depth: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    format: u32,
    task: String,
    snapshot: String,
    lineage: String,
    ended_ms: Millis,
    cut: Vec<(String, i32, i64)>,
    changelog: Vec<(String, i32, i64)>,
    plan: String,
    stores: Vec<JsonStore>,
    backend: String,
    writer: String,
    made_ms: Millis,
    files: Vec<StoredFile>,
    history: Vec<(String, Millis)>,
    increments: Vec<String>,
    depth: u64,
    checksum: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonStore {
    name: String,
    ordered: bool,
    codecs: String,
}

fn list(offsets: &BTreeMap<TopicPartition, i64>) -> Vec<(String, i32, i64)> {
    let entry = |(at, offset): (&TopicPartition, &i64)| (at.topic.to_string(), at.partition, *offset);
    offsets.iter().map(entry).collect()
}

fn map(list: Vec<(String, i32, i64)>) -> BTreeMap<TopicPartition, i64> {
    let entry = |(topic, partition, offset): (String, i32, i64)| (TopicPartition::new(topic, partition), offset);
    list.into_iter().map(entry).collect()
}

/// The hash of the JSON with an empty checksum.
fn checksum(json: &Json) -> String {
    ContentHash::of(&serde_json::to_vec(json).unwrap_or_default()).to_string()
}

impl Manifest {
    /// Name of its object.
    pub fn object(&self) -> String {
        self.id.manifest(self.task)
    }

    /// Bytes of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// This snapshot and the older ones that are retained, newest first.
    pub fn retained(&self) -> impl Iterator<Item = Retained> {
        let own = Retained {
            id: self.id,
            made_ms: self.made_ms,
        };
        std::iter::once(own).chain(self.history.iter().copied())
    }

    /// The object's bytes.
    pub fn to_json(&self) -> Vec<u8> {
        let store = |store: &StoreSpec| JsonStore {
            name: store.name.clone(),
            ordered: store.ordered,
            codecs: store.codecs.clone(),
        };
        let mut json = Json {
            format: FORMAT,
            task: self.task.to_string(),
            snapshot: self.id.to_string(),
            lineage: self.meta.lineage.to_string(),
            ended_ms: self.meta.ended_ms,
            cut: list(&self.meta.cut),
            changelog: list(&self.meta.changelog),
            plan: self.plan.clone(),
            stores: self.stores.iter().map(store).collect(),
            backend: self.backend.clone(),
            writer: self.writer.clone(),
            made_ms: self.made_ms,
            files: self.files.clone(),
            history: self
                .history
                .iter()
                .map(|older| (older.id.to_string(), older.made_ms))
                .collect(),
            increments: self.increments.iter().map(IncrementRef::to_string).collect(),
            depth: self.depth,
            checksum: String::new(),
        };
        json.checksum = checksum(&json);
        serde_json::to_vec(&json).unwrap_or_default()
    }

    /// Reads the bytes of the object `object`.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn from_json(bytes: &[u8], object: &str) -> Result<Self, FormatError> {
        let damaged = |reason: String| FormatError::damaged(object, reason);
        check_format(bytes, FORMAT, object)?;
        let mut json: Json = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        let found = std::mem::take(&mut json.checksum);
        if checksum(&json) != found {
            return Err(damaged("its checksum differs".into()));
        }
        let id: SnapshotId = json.snapshot.parse().map_err(damaged)?;
        let lineage: Lineage = json.lineage.parse().map_err(damaged)?;
        let history = json.history.into_iter().map(|(id, made_ms)| {
            Ok(Retained {
                id: id.parse()?,
                made_ms,
            })
        });
        let increments = json.increments.iter().map(|increment| increment.parse());
        let store = |store: JsonStore| StoreSpec {
            name: store.name,
            ordered: store.ordered,
            codecs: store.codecs,
        };
        let manifest = Self {
            task: json.task.parse().map_err(damaged)?,
            id,
            meta: StateMeta {
                lineage,
                epoch: id.epoch,
                ended_ms: json.ended_ms,
                cut: map(json.cut),
                changelog: map(json.changelog),
            },
            plan: json.plan,
            stores: json.stores.into_iter().map(store).collect(),
            backend: json.backend,
            writer: json.writer,
            made_ms: json.made_ms,
            files: json.files,
            history: history.collect::<Result<_, String>>().map_err(damaged)?,
            increments: increments.collect::<Result<_, String>>().map_err(damaged)?,
            depth: json.depth,
        };
        // The checksum is of what the text says; there is one text that says it.
        match manifest.to_json() == bytes {
            true => Ok(manifest),
            false => Err(damaged("its text is not as it was written".into())),
        }
    }

    /// Whether it is what somebody who looked for the snapshot `id` of `task` in `lineage`, to be used with `stores`, wants.
    ///
    /// # Errors
    /// [`FormatError::Foreign`].
    pub fn check_belongs(
        &self,
        task: TaskId,
        id: SnapshotId,
        lineage: Lineage,
        stores: &[StoreSpec],
    ) -> Result<(), FormatError> {
        let foreign = |what: String| Err(FormatError::foreign(&id.manifest(task), what));
        if (self.task, self.id) != (task, id) {
            return foreign(format!("snapshot {} of task {}", self.id, self.task));
        }
        if self.meta.lineage != lineage {
            return foreign(format!("lineage {}, not {lineage}", self.meta.lineage));
        }
        let names = |stores: &[StoreSpec]| -> Vec<(String, String)> {
            stores
                .iter()
                .map(|store| (store.name.clone(), store.codecs.clone()))
                .collect()
        };
        if names(&self.stores) != names(stores) {
            return foreign(format!(
                "other stores: {:?}, not {:?}",
                names(&self.stores),
                names(stores)
            ));
        }
        Ok(())
    }

    /// The epoch whose state it holds.
    pub fn epoch(&self) -> Epoch {
        self.id.epoch
    }
}
