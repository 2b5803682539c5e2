//! From rows to a savepoint: the way in for state that comes from somewhere else.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::blob::BlobStore;
use crate::durability::savepoint::{Form, Part, Savepoint, SavepointName};
use crate::durability::snapshot::Attempt;
use crate::ids::{Epoch, Lineage, StoreId, TaskId, TopicPartition};
use crate::state::{Overlay, StateBackend, StateMeta, StoreSpec};
use crate::time::Millis;
use crate::topology::{TopicRef, Topology};

use super::OfflineError;
use super::keys::{Owner, Spread};
use super::offsets::Offsets;
use super::savepoint_writer::{SavepointWriter, StoreWriter, backend};
use super::scratch::Scratch;
use super::shape::{StoreShape, unhex};
use super::view::View;

/// Rows of a task are written to its database in batches of so many.
const BATCH_ROWS: usize = 10_000;
/// The first epoch of the new history.
const FIRST: Epoch = Epoch(1);

/// What is wanted.
pub struct Import<'a> {
    /// The folder of the application.
    pub store: Arc<dyn BlobStore>,
    /// The savepoint that is to be made.
    pub to: SavepointName,
    /// The application.
    pub application: &'a str,
    /// Its topology.
    pub topology: &'a Topology,
    /// The number of tasks of each sub-topology: of partitions of its inputs.
    pub tasks: i32,
    /// Where the tasks begin to read.
    pub offsets: Offsets<'a>,
    /// For names of attempts and lineages.
    pub random: &'a dyn Fn() -> u64,
    /// The time.
    pub now_ms: Millis,
}

/// What was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Tasks of all sub-topologies.
    pub tasks: usize,
    /// Rows of each store.
    pub rows: BTreeMap<String, u64>,
    /// Bytes written.
    pub bytes: u64,
}

/// A row as `state scan --json` writes it. Bytes come first; where there are none, what they are read as is written by the store's codecs.
#[derive(Deserialize)]
struct JsonRow {
    store: String,
    task: Option<String>,
    key: Option<String>,
    value: Option<String>,
    #[serde(rename = "as", default)]
    read: JsonReading,
}

#[derive(Default, Deserialize)]
struct JsonReading {
    key: Option<Value>,
    time_ms: Option<Millis>,
    value: Option<Value>,
}

/// Databases that rows are collected in, by task.
struct Collected {
    databases: BTreeMap<TaskId, (Arc<dyn StateBackend>, Overlay)>,
    batches: u64,
}

impl Import<'_> {
    /// Makes the savepoint of rows, one JSON object per line. The document that makes it one comes last.
    ///
    /// # Errors
    /// [`OfflineError::BadRow`] with its line, [`OfflineError::Unkeyed`], [`OfflineError::CutOff`], and what the store says.
    pub fn run(
        &self,
        lines: &mut dyn Iterator<Item = std::io::Result<String>>,
        scratch: &Arc<Scratch>,
    ) -> Result<Imported, OfflineError> {
        let mut writer = SavepointWriter::begin(Arc::clone(&self.store), &self.to, Attempt((self.random)()))?;
        let mut collected = Collected {
            databases: BTreeMap::new(),
            batches: 0,
        };
        for (number, line) in lines.enumerate() {
            let bad = |reason: String| OfflineError::BadRow {
                line: number as u64 + 1,
                reason,
            };
            let line = line.map_err(|error| bad(error.to_string()))?;
            if line.trim().is_empty() {
                continue;
            }
            let row: JsonRow = serde_json::from_str(&line).map_err(|error| bad(error.to_string()))?;
            self.take(&row, scratch, &mut collected, &bad)?;
        }
        let mut imported = Imported::default();
        let mut parts = Vec::new();
        for task in self.all_tasks() {
            parts.push(self.part(task, scratch, &mut collected, &mut writer, &mut imported)?);
        }
        imported.tasks = parts.len();
        imported.bytes = writer.finish(&Savepoint {
            name: self.to.clone(),
            application: self.application.to_owned(),
            plan: self.topology.fingerprint().to_owned(),
            plan_text: self.topology.plan_text().to_owned(),
            form: Form::Canonical,
            asked_ms: self.now_ms,
            made_ms: self.now_ms,
            parts,
        })?;
        Ok(imported)
    }

    fn all_tasks(&self) -> Vec<TaskId> {
        let subs = 0..self.topology.plan().sub_topologies.len() as u16;
        let of = |sub_topology| {
            (0..self.tasks).map(move |partition| TaskId {
                sub_topology,
                partition,
            })
        };
        subs.flat_map(of).collect()
    }

    fn stores(&self, task: TaskId) -> &[StoreSpec] {
        &self.topology.plan().sub_topologies[usize::from(task.sub_topology)].stores
    }

    /// The sub-topology that has a store, the store's number in it, and what it is.
    fn find(&self, name: &str) -> Option<(u16, StoreId, &StoreSpec)> {
        let subs = self.topology.plan().sub_topologies.iter().enumerate();
        subs.flat_map(|(sub, of)| {
            of.stores
                .iter()
                .enumerate()
                .map(move |(at, spec)| (sub as u16, StoreId(at as u16), spec))
        })
        .find(|(_, _, spec)| spec.name == name)
    }

    fn take(
        &self,
        row: &JsonRow,
        scratch: &Arc<Scratch>,
        collected: &mut Collected,
        bad: &dyn Fn(String) -> OfflineError,
    ) -> Result<(), OfflineError> {
        let (sub_topology, store, spec) = self.find(&row.store).ok_or_else(|| {
            let subs = self.topology.plan().sub_topologies.iter();
            let names: BTreeSet<&str> = subs.flat_map(|sub| &sub.stores).map(|store| &store.name[..]).collect();
            let names: Vec<&str> = names.into_iter().collect();
            bad(format!(
                "the topology has no store {:?}; it has {}",
                row.store,
                names.join(", ")
            ))
        })?;
        let (key, value) = bytes(row, &StoreShape::of(&spec.codecs)).map_err(bad)?;
        let given = row
            .task
            .as_ref()
            .and_then(|task| task.parse::<TaskId>().ok())
            .map(|task| task.partition);
        let owner = Spread::of(&spec.codecs).map(|spread| spread.owner(&key, self.tasks));
        let partitions: Vec<i32> = match (owner, given) {
            (Ok(Owner::Partition(partition)), _) => vec![partition],
            (Ok(Owner::Clock) | Err(_), Some(given)) => vec![given],
            (Ok(Owner::Clock), None) => (0..self.tasks).collect(),
            (Err(reason), None) => {
                return Err(OfflineError::Unkeyed {
                    store: row.store.clone(),
                    reason: format!("{reason}; rows of it have to name their tasks"),
                });
            }
        };
        for partition in partitions {
            if !(0..self.tasks).contains(&partition) {
                return Err(bad(format!(
                    "it is of partition {partition}, and there are {} tasks",
                    self.tasks
                )));
            }
            let task = TaskId {
                sub_topology,
                partition,
            };
            self.put(task, store, (&key, &value), scratch, collected)?;
        }
        Ok(())
    }

    fn put(
        &self,
        task: TaskId,
        store: StoreId,
        (key, value): (&[u8], &[u8]),
        scratch: &Arc<Scratch>,
        collected: &mut Collected,
    ) -> Result<(), OfflineError> {
        let stores = self.stores(task);
        let empty = || Overlay::new(&vec![false; stores.len()]);
        let (database, overlay) = match collected.databases.entry(task) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(vacant) => {
                let databases = scratch.states.databases("rocksdb")?;
                databases.clear(task)?;
                vacant.insert((databases.open(task, stores)?, empty()))
            }
        };
        overlay.put(store, key, value);
        if overlay.len() >= BATCH_ROWS {
            collected.batches += 1;
            database.apply(&std::mem::replace(overlay, empty()), &unfinished(collected.batches))?;
        }
        Ok(())
    }

    fn part(
        &self,
        task: TaskId,
        scratch: &Arc<Scratch>,
        collected: &mut Collected,
        writer: &mut SavepointWriter,
        imported: &mut Imported,
    ) -> Result<Part, OfflineError> {
        let stores = self.stores(task).to_vec();
        let mut cut = BTreeMap::new();
        for source in &self.topology.plan().sub_topologies[usize::from(task.sub_topology)].sources {
            let input = TopicPartition::new(source.full_name(self.application), task.partition);
            let offset = match source {
                TopicRef::External(_) => self.offsets.of(&input, None)?,
                // There is nothing in it that is not in the state.
                TopicRef::Repartition(_) => 0,
            };
            cut.insert(input, offset);
        }
        let mut part = Part {
            task,
            lineage: Lineage((self.random)()),
            epoch: FIRST,
            ended_ms: self.now_ms,
            cut,
            stores,
            backend: String::new(),
            writer: "import".to_owned(),
            files: Vec::new(),
        };
        part.backend = backend(&part).to_owned();
        let Some((database, overlay)) = collected.databases.remove(&task) else {
            return Ok(part);
        };
        collected.batches += 1;
        let meta = unfinished(collected.batches);
        database.apply(&overlay, &meta)?;
        let view = View::of_database(
            database,
            task,
            part.stores.clone(),
            meta,
            "imported rows".to_owned(),
            scratch,
        );
        for (at, spec) in part.stores.iter().enumerate() {
            let mut store = StoreWriter::new(task, at, spec);
            for row in view.rows(StoreId(at as u16), &[], &[]) {
                let (key, value) = row?;
                store.push(&key, &value, writer)?;
            }
            *imported.rows.entry(spec.name.clone()).or_default() += store.rows;
            part.files.extend(store.finish(writer)?);
        }
        Ok(part)
    }
}

/// Of a database that is not complete yet: a lineage that is another one each time.
fn unfinished(number: u64) -> StateMeta {
    StateMeta {
        lineage: Lineage(number),
        epoch: Epoch(0),
        ended_ms: 0,
        cut: BTreeMap::new(),
        changelog: BTreeMap::new(),
    }
}

/// Key and value of a row.
fn bytes(row: &JsonRow, shape: &StoreShape) -> Result<(Vec<u8>, Vec<u8>), String> {
    let hexadecimal =
        |digits: &str| unhex(digits).ok_or_else(|| format!("{digits:?} are not bytes in hexadecimal digits"));
    let key = match (&row.key, &row.read.key) {
        (Some(digits), _) => hexadecimal(digits)?,
        (None, Some(key)) => shape.key.encode(key)?,
        (None, None) => return Err("it has neither key nor as.key".to_owned()),
    };
    let value = match (&row.value, &row.read.value) {
        (Some(digits), _) => hexadecimal(digits)?,
        (None, Some(value)) => {
            let value = shape.value.encode(value)?;
            match (shape.has_time, row.read.time_ms) {
                (true, Some(time_ms)) => [&time_ms.to_be_bytes()[..], &value].concat(),
                (true, None) => return Err("it has no as.time_ms, the time of its last change".to_owned()),
                (false, _) => value,
            }
        }
        (None, None) => return Err("it has neither value nor as.value".to_owned()),
    };
    Ok((key, value))
}
