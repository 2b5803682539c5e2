//! From a savepoint of so many tasks to one of another number: every row goes to the task that the records of its key go to.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use crate::blob::BlobStore;
use crate::durability::savepoint::{Form, Part, Savepoint, SavepointName};
use crate::durability::snapshot::Attempt;
use crate::ids::{Lineage, TaskId, TopicPartition};
use crate::savepoint::{Archive, OriginTask, load};
use crate::state::StoreSpec;
use crate::time::Millis;

use super::keys::{Owner, Spread, latest_clock};
use super::offsets::Offsets;
use super::savepoint_writer::{SavepointWriter, StoreWriter, backend};
use super::scratch::Scratch;
use super::shape::hex;
use super::view::{Row, Rows, View};
use super::{OfflineError, Progress, Unit};

/// What is wanted.
pub struct Reshard<'a> {
    /// The folder of the application.
    pub store: Arc<dyn BlobStore>,
    /// The savepoint that there is.
    pub from: SavepointName,
    /// The one that is to be made.
    pub to: SavepointName,
    /// The number of tasks that a sub-topology has which is to get another one; those with another number stay as they are.
    pub tasks_before: i32,
    /// The number that it gets.
    pub tasks_after: i32,
    /// Where the tasks go on reading.
    pub offsets: Offsets<'a>,
    /// Whether stores are taken whose keys cannot be checked.
    pub unchecked: bool,
    /// For names of attempts and lineages.
    pub random: &'a dyn Fn() -> u64,
    /// The time.
    pub now_ms: Millis,
}

/// What was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resharded {
    /// Tasks before, of all sub-topologies.
    pub tasks_before: usize,
    /// Tasks now.
    pub tasks_after: usize,
    /// Rows of each store.
    pub rows: BTreeMap<String, u64>,
    /// Bytes written.
    pub bytes: u64,
}

impl Reshard<'_> {
    /// Makes the savepoint. What it needs is written and read back first; the document that makes it one comes last, so that it is there whole or
    /// not at all.
    ///
    /// # Errors
    /// [`OfflineError::Unkeyed`] where a store's rows do not say which records they are of, [`OfflineError::CutOff`] where an attempt at the new
    /// savepoint was cut off, and what the store and the old one say.
    pub fn run(&self, scratch: &Arc<Scratch>, progress: &dyn Progress) -> Result<Resharded, OfflineError> {
        let archive = Archive {
            store: Arc::clone(&self.store),
        };
        let source = archive.read(&self.from)?;
        let subs: BTreeSet<u16> = source.parts.iter().map(|part| part.task.sub_topology).collect();
        let of_sub = |sub: u16| source.parts.iter().filter(move |part| part.task.sub_topology == sub);
        let count = |sub: u16| of_sub(sub).count() as i32;
        if !subs.iter().any(|sub| count(*sub) == self.tasks_before) {
            return Err(OfflineError::Unknown {
                root: self.store.root().to_owned(),
                what: format!("sub-topology of {} tasks in savepoint {}", self.tasks_before, self.from),
                there: format!("{} tasks in all", source.parts.len()),
            });
        }
        let mut writer = SavepointWriter::begin(Arc::clone(&self.store), &self.to, Attempt((self.random)()))?;
        let mut done = Resharded {
            tasks_before: source.parts.len(),
            ..Resharded::default()
        };
        progress.begin("resharding", source.bytes(), Unit::Bytes);
        let mut parts = Vec::new();
        for sub in subs {
            let sources: Vec<&Part> = of_sub(sub).collect();
            let after = match count(sub) == self.tasks_before {
                true => self.tasks_after,
                false => count(sub),
            };
            parts.extend(self.sub_topology(&sources, after, scratch, &mut writer, &mut done, progress)?);
        }
        progress.end();
        done.tasks_after = parts.len();
        done.bytes = writer.finish(&Savepoint {
            name: self.to.clone(),
            form: Form::Canonical,
            asked_ms: self.now_ms,
            made_ms: self.now_ms,
            parts,
            ..source
        })?;
        Ok(done)
    }

    /// The new parts of one sub-topology.
    fn sub_topology(
        &self,
        sources: &[&Part],
        after: i32,
        scratch: &Arc<Scratch>,
        writer: &mut SavepointWriter,
        done: &mut Resharded,
        progress: &dyn Progress,
    ) -> Result<Vec<Part>, OfflineError> {
        let Some(first) = sources.first() else {
            return Ok(Vec::new());
        };
        let task = |partition| TaskId {
            sub_topology: first.task.sub_topology,
            partition,
        };
        let topics: BTreeSet<&Arc<str>> = first.cut.keys().map(|at| &at.topic).collect();
        let known: BTreeMap<&TopicPartition, i64> = sources
            .iter()
            .flat_map(|part| &part.cut)
            .map(|(at, offset)| (at, *offset))
            .collect();
        let mut parts = Vec::new();
        for partition in 0..after {
            let mut cut = BTreeMap::new();
            for topic in &topics {
                let input = TopicPartition::new(Arc::clone(topic), partition);
                let was = known.get(&input).copied();
                let offset = match after == sources.len() as i32 {
                    true => was.unwrap_or(0),
                    false => self.offsets.of(&input, was)?,
                };
                cut.insert(input, offset);
            }
            parts.push(Part {
                task: task(partition),
                lineage: Lineage((self.random)()),
                cut,
                backend: backend(first).to_owned(),
                writer: "reshard".to_owned(),
                files: Vec::new(),
                ..(*first).clone()
            });
        }
        let views = self.views(sources, scratch, progress)?;
        for (at, spec) in first.stores.iter().enumerate() {
            let mut writers: Vec<StoreWriter> = (0..after)
                .map(|partition| StoreWriter::new(task(partition), at, spec))
                .collect();
            self.spread(spec, &views, &mut writers, writer)?;
            for (part, store) in parts.iter_mut().zip(writers) {
                *done.rows.entry(spec.name.clone()).or_default() += store.rows;
                part.files.extend(store.finish(writer)?);
            }
        }
        Ok(parts)
    }

    /// The state of each task of the old savepoint.
    fn views(
        &self,
        sources: &[&Part],
        scratch: &Arc<Scratch>,
        progress: &dyn Progress,
    ) -> Result<Vec<View>, OfflineError> {
        let mut views = Vec::new();
        for part in sources.iter().filter(|part| !part.stores.is_empty()) {
            let origin = OriginTask::of_part(part, self.from.folder());
            views.push(View::of_savepoint(&*self.store, &origin, scratch)?);
            progress.advance(part.bytes());
        }
        Ok(views)
    }

    /// Merges the rows of a store of all tasks in order of their keys, and hands each on to the task that owns it now.
    fn spread(
        &self,
        spec: &StoreSpec,
        views: &[View],
        writers: &mut [StoreWriter],
        to: &mut SavepointWriter,
    ) -> Result<(), OfflineError> {
        let unkeyed = |reason: String| OfflineError::Unkeyed {
            store: spec.name.clone(),
            reason,
        };
        let (before, after) = (views.len() as i32, writers.len() as i32);
        if before == after {
            return copy_rows(spec, views, writers, to);
        }
        let spread = Spread::of(&spec.codecs).map_err(|reason| unkeyed(reason.to_owned()))?;
        if before == 1 && !self.unchecked {
            let reason = "with one task nothing shows whether its keys are those of the records (--unchecked takes them for that)";
            return Err(unkeyed(reason.to_owned()));
        }
        let mut clocks = Vec::new();
        let mut merged = Merged::new(spec, views)?;
        while let Some((from, (key, value))) = merged.next()? {
            let Owner::Partition(partition) = spread.owner(&key, after) else {
                clocks.push(value);
                continue;
            };
            let Owner::Partition(was) = spread.owner(&key, before) else {
                continue;
            };
            if was != from {
                return Err(unkeyed(format!(
                    "the row 0x{} is in task {from} of {before}, and records with its key go to {was}: its keys are not those of the records, or the producers of its topic have a partitioner of their own",
                    hex(&key)
                )));
            }
            writers[partition as usize].push(&key, &value, to)?;
        }
        // Its key comes after those of all windows.
        if let Some(clock) = latest_clock(&clocks) {
            for writer in writers {
                writer.push(&[0xff], &clock, to)?;
            }
        }
        Ok(())
    }
}

/// Nothing changes owners.
fn copy_rows(
    spec: &StoreSpec,
    views: &[View],
    writers: &mut [StoreWriter],
    to: &mut SavepointWriter,
) -> Result<(), OfflineError> {
    for (view, writer) in views.iter().zip(writers) {
        let (store, _) = view.store(&spec.name)?;
        for row in view.rows(store, &[], &[]) {
            let (key, value) = row?;
            writer.push(&key, &value, to)?;
        }
    }
    Ok(())
}

/// The rows of one store of several tasks, in order of their keys, each with the partition of its task.
struct Merged<'a> {
    sources: Vec<(i32, Rows<'a>)>,
    /// The next row of each.
    heads: BinaryHeap<Reverse<(Row, usize)>>,
}

impl<'a> Merged<'a> {
    fn new(spec: &StoreSpec, views: &'a [View]) -> Result<Self, OfflineError> {
        let mut merged = Self {
            sources: Vec::new(),
            heads: BinaryHeap::new(),
        };
        for (at, view) in views.iter().enumerate() {
            let (store, _) = view.store(&spec.name)?;
            merged.sources.push((view.task.partition, view.rows(store, &[], &[])));
            merged.pull(at)?;
        }
        Ok(merged)
    }

    fn pull(&mut self, at: usize) -> Result<(), OfflineError> {
        if let Some(row) = self.sources[at].1.next() {
            self.heads.push(Reverse((row?, at)));
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<(i32, Row)>, OfflineError> {
        let Some(Reverse((row, at))) = self.heads.pop() else {
            return Ok(None);
        };
        self.pull(at)?;
        Ok(Some((self.sources[at].0, row)))
    }
}

impl View {
    /// The state of one task of a savepoint whose folder is that of `origin`.
    ///
    /// # Errors
    /// What is missing or damaged, by name.
    pub fn of_savepoint(
        store: &dyn BlobStore,
        origin: &OriginTask,
        scratch: &Arc<Scratch>,
    ) -> Result<Self, OfflineError> {
        let kind = match &origin.backend[..] {
            "entries" => "entries",
            _ => "rocksdb",
        };
        // Another lineage, since it is not where the application goes on.
        let meta = crate::state::StateMeta {
            lineage: Lineage(!origin.lineage.0),
            epoch: origin.epoch,
            ended_ms: origin.ended_ms,
            cut: origin.cut.clone(),
            changelog: BTreeMap::new(),
        };
        let backend = load(store, origin, &scratch.states, kind, &meta)?;
        Ok(Self::of_database(
            backend,
            origin.task,
            origin.stores.clone(),
            meta,
            format!("{} {}", store.root(), origin.folder),
            scratch,
        ))
    }
}
