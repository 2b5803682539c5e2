//! Starting an application from state that another one has left, or an earlier one of the same name.
//!
//! Nothing of it can be seen before one Kafka transaction has committed all input offsets, each with the pointer to the state at that cut. Until
//! then the group has no offsets, and an instance that starts finds state without them and refuses to (TG4004); what an interrupted restore has
//! left is nobody's, and the restore can be run again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use crate::blob::BlobStore;
use crate::durability::savepoint::{Part, Savepoint};
use crate::durability::snapshot::{StateRef, StoredFile};
use crate::durability::{Beginning, CommitRecord, Durability, Pointer};
use crate::ids::{Epoch, Lineage, StoreId, TaskId, TopicPartition};
use crate::instance::{Backend, InstanceSettings, prepare};
use crate::log::{Commit, CommitOffset, GroupMetadata, Log, LogError, OutBatch, OutTopic, Producer};
use crate::state::{StateBackend, StateMeta, StoreSpec};
use crate::time::{Clock, Millis};
use crate::topology::{Plan, Topology, diff};
use crate::worker::{BaseSnapshot, Repository, Topics, topic_of};

use super::error::SavepointError;
use super::load::{Scratch, load};
use super::rows::{Rows, for_each_batch};
use super::seat::Seat;

const ASK_TIMEOUT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);
/// The first epoch of the new lineage: the one that the restore commits.
const FIRST: Epoch = Epoch(1);

/// A task's state as it was left.
#[derive(Clone, Debug)]
pub struct OriginTask {
    /// The task.
    pub task: TaskId,
    /// The history that it is of.
    pub lineage: Lineage,
    /// The epoch.
    pub epoch: Epoch,
    /// When that epoch ended, in milliseconds since the Unix epoch.
    pub ended_ms: Millis,
    /// Input offsets.
    pub cut: BTreeMap<TopicPartition, i64>,
    /// Its stores.
    pub stores: Vec<StoreSpec>,
    /// What the files are.
    pub backend: String,
    /// All files.
    pub files: Vec<StoredFile>,
    /// What their objects are relative to, relative to the application's folder.
    pub folder: String,
}

impl OriginTask {
    /// A part of a savepoint whose folder, relative to that of the application, is `folder`.
    pub fn of_part(part: &Part, folder: String) -> Self {
        Self {
            task: part.task,
            lineage: part.lineage,
            epoch: part.epoch,
            ended_ms: part.ended_ms,
            cut: part.cut.clone(),
            stores: part.stores.clone(),
            backend: part.backend.clone(),
            files: part.files.clone(),
            folder,
        }
    }

    fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// An application's state as it was left.
pub struct Origin {
    /// The folder of the application.
    pub store: Arc<dyn BlobStore>,
    /// What it is, for people.
    pub what: String,
    /// The application that it was taken of: part of the names of its repartition topics.
    pub application: String,
    /// Fingerprint of the topology.
    pub plan: String,
    /// The text that it is of; empty where it is not known.
    pub plan_text: String,
    /// All tasks.
    pub tasks: Vec<OriginTask>,
}

impl Origin {
    /// A savepoint whose folder, relative to `store`, is `folder`.
    pub fn of_savepoint(store: Arc<dyn BlobStore>, savepoint: &Savepoint, folder: &str) -> Self {
        let part = |part: &Part| OriginTask::of_part(part, folder.to_owned());
        Self {
            store,
            what: format!("savepoint {}", savepoint.name),
            application: savepoint.application.clone(),
            plan: savepoint.plan.clone(),
            plan_text: savepoint.plan_text.clone(),
            tasks: savepoint.parts.iter().map(part).collect(),
        }
    }
}

/// The application that is to start from it.
pub struct Target<'a> {
    /// Its topology.
    pub topology: &'a Topology,
    /// Its settings.
    pub settings: &'a InstanceSettings,
    /// The log.
    pub log: Arc<dyn Log>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Its folder; `None` under strategy `changelog`.
    pub blobs: Option<Arc<dyn BlobStore>>,
    /// For lineages and names of attempts.
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Where databases are put together.
    pub scratch: &'a dyn Scratch,
    /// Whether committed offsets that it has may be replaced, and with them its state.
    pub replaces: bool,
}

/// How far a restore is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Tasks that are done.
    pub tasks: usize,
    /// Bytes of their files.
    pub bytes: u64,
    /// Bytes of the files of all tasks.
    pub all_bytes: u64,
}

/// What was put in place.
#[derive(Debug)]
pub struct Restored {
    /// The new lineage of each task.
    pub lineages: BTreeMap<TaskId, Lineage>,
    /// Bytes that were read.
    pub bytes: u64,
}

/// Puts `origin` in place as the state of `target`, and commits where it goes on. **Blocks** until then.
///
/// # Errors
/// [`SavepointError`]; nothing is committed then, unless the last commit had no answer: then running it again tells.
pub fn restore(
    origin: &Origin,
    target: &Target<'_>,
    seen: &mut dyn FnMut(Progress),
) -> Result<Restored, SavepointError> {
    check_plan(origin, target.topology)?;
    let topics = prepare(target.topology, target.settings, &target.log, &target.clock)?;
    check_tasks(origin, target.topology.plan(), &topics)?;
    let settings = target.settings;
    let group = &settings.application_id;
    let seat = Seat::take(&target.log, &target.clock, group, &topics, settings.session_timeout)?;
    let mut restore = Restore {
        origin,
        target,
        topics,
        seat,
        producer: None,
        restored: Restored {
            lineages: BTreeMap::new(),
            bytes: 0,
        },
        offsets: Vec::new(),
        records: Vec::new(),
    };
    let done = restore.run(seen);
    drop(restore.producer.take());
    restore.seat.leave();
    done.map(|()| restore.restored)
}

fn check_plan(origin: &Origin, topology: &Topology) -> Result<(), SavepointError> {
    if origin.plan == topology.fingerprint() {
        return Ok(());
    }
    let difference = match origin.plan_text.is_empty() {
        true => None,
        false => diff(&origin.plan_text, topology.plan_text()),
    };
    Err(SavepointError::PlanDiffers {
        what: origin.what.clone(),
        difference: difference.unwrap_or_else(|| format!("- {}\n+ {}", origin.plan, topology.fingerprint())),
    })
}

fn check_tasks(origin: &Origin, plan: &Plan, topics: &Topics) -> Result<(), SavepointError> {
    let all = (0..topics.sub_topologies()).flat_map(|sub_topology| {
        (0..topics.tasks(sub_topology)).map(move |partition| TaskId {
            sub_topology,
            partition,
        })
    });
    let needs: Vec<TaskId> = all.collect();
    let has: Vec<TaskId> = origin.tasks.iter().map(|task| task.task).collect();
    let list = |tasks: &[TaskId]| tasks.iter().map(TaskId::to_string).collect::<Vec<_>>().join(" ");
    if has != needs {
        return Err(SavepointError::TasksDiffer {
            what: origin.what.clone(),
            has: list(&has),
            needs: list(&needs),
        });
    }
    for task in &origin.tasks {
        let stores = &plan.sub_topologies[usize::from(task.task.sub_topology)].stores;
        if *stores != task.stores {
            let names = |stores: &[StoreSpec]| {
                stores
                    .iter()
                    .map(|store| format!("{} ({})", store.name, store.codecs))
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            return Err(SavepointError::StoresDiffer {
                task: task.task,
                name: origin.what.clone(),
                has: names(&task.stores),
                needs: names(stores),
            });
        }
    }
    Ok(())
}

struct Restore<'a> {
    origin: &'a Origin,
    target: &'a Target<'a>,
    topics: Topics,
    seat: Seat,
    producer: Option<Box<dyn Producer>>,
    restored: Restored,
    /// What is committed in the end.
    offsets: Vec<CommitOffset>,
    records: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Restore<'_> {
    fn run(&mut self, seen: &mut dyn FnMut(Progress)) -> Result<(), SavepointError> {
        self.open_producer()?;
        self.check_offsets()?;
        let all_bytes = self.origin.tasks.iter().map(OriginTask::bytes).sum();
        for (tasks, task) in self.origin.tasks.iter().enumerate() {
            self.put_in_place(task)?;
            self.restored.bytes += task.bytes();
            seen(Progress {
                tasks: tasks + 1,
                bytes: self.restored.bytes,
                all_bytes,
            });
        }
        self.seat.stay()?;
        let records = Rows {
            store: StoreId(0),
            rows: std::mem::take(&mut self.records),
        };
        let batch = OutBatch {
            topic: self.topics.commits(),
            partition: 0,
            records: Arc::new(records),
        };
        let offsets = std::mem::take(&mut self.offsets);
        let group = self.seat.metadata();
        self.commit(vec![batch], offsets, group)?;
        info!(
            application = self.target.settings.application_id,
            from = self.origin.what,
            bytes = self.restored.bytes,
            "state is in place"
        );
        Ok(())
    }

    fn durability(&self, task: TaskId) -> Durability {
        let sub_topologies = &self.target.topology.plan().sub_topologies;
        self.target
            .settings
            .durability_of(&sub_topologies[usize::from(task.sub_topology)])
    }

    /// Before any offset is read (invariant I7). One restore at a time: the second one fences the first.
    fn open_producer(&mut self) -> Result<(), SavepointError> {
        self.producer = None;
        let id = format!("{}-restore", self.target.settings.application_id);
        let mut producer = self.target.log.producer("restore", Some(&id))?;
        producer.init(ASK_TIMEOUT)?;
        producer.prepare(self.topics.out())?;
        self.producer = Some(producer);
        Ok(())
    }

    fn check_offsets(&self) -> Result<(), SavepointError> {
        let admin = self.target.log.admin();
        let application = &self.target.settings.application_id;
        for task in &self.origin.tasks {
            let inputs: Vec<TopicPartition> = self.inputs(task.task).into_iter().map(|(_, input)| input).collect();
            let committed = admin.committed(application, &inputs, ASK_TIMEOUT)?;
            if let Some(index) = committed
                .iter()
                .position(Option::is_some)
                .filter(|_| !self.target.replaces)
            {
                return Err(SavepointError::HasOffsets {
                    application: application.clone(),
                    partition: inputs[index].clone(),
                });
            }
        }
        Ok(())
    }

    fn inputs(&self, task: TaskId) -> Vec<(usize, TopicPartition)> {
        self.topics.inputs(task)
    }

    fn changelogs(&self, task: TaskId) -> Vec<(OutTopic, TopicPartition)> {
        let names = self.topics.out();
        let partition = |topic: &OutTopic| {
            let name = Arc::clone(&names[usize::from(topic.0)]);
            (*topic, TopicPartition::new(name, task.partition))
        };
        let changelogs = self.topics.changelogs(task.sub_topology).iter();
        changelogs
            .filter(|_| self.durability(task).has_changelogs())
            .map(partition)
            .collect()
    }

    fn put_in_place(&mut self, task: &OriginTask) -> Result<(), SavepointError> {
        let lineage = Lineage((self.target.random)());
        let cut = self.cut(task)?;
        let (mut changelog, mut since) = (BTreeMap::new(), Vec::new());
        for (_, partition) in self.changelogs(task.task) {
            let marks = self.target.log.admin().watermarks(&partition, ASK_TIMEOUT)?;
            changelog.insert(partition, marks.high);
            since.push(marks.high);
        }
        // What is in them is of another history, or left of an earlier attempt.
        let has_former = self.durability(task.task).has_changelogs() && since.iter().any(|offset| *offset > 0);
        let since = Beginning {
            epoch: FIRST,
            offsets: since,
        };
        let since = Some(since).filter(|_| has_former);
        let meta = StateMeta {
            lineage,
            epoch: FIRST,
            ended_ms: task.ended_ms,
            cut: cut.clone(),
            changelog,
        };
        let mut state = StateRef::default();
        if !task.stores.is_empty() {
            let kind = match self.target.settings.state.backend {
                Backend::RocksDb => "rocksdb",
                Backend::Memory => "entries",
            };
            let backend = load(&*self.origin.store, task, self.target.scratch, kind, &meta)?;
            self.seat.stay()?;
            match self.durability(task.task) {
                Durability::Changelog => self.write_changelogs(task, &backend)?,
                _ => state = self.write_base(task, &backend, lineage)?,
            }
            drop(backend);
            self.target.scratch.databases(kind)?.clear(task.task)?;
        }
        self.note(task.task, &meta, state, since);
        self.restored.lineages.insert(task.task, lineage);
        self.seat.stay()
    }

    /// Where the task goes on. What was in repartition topics had all been read, and those of the application hold nothing that is its own yet.
    fn cut(&self, task: &OriginTask) -> Result<BTreeMap<TopicPartition, i64>, SavepointError> {
        let sources = &self.target.topology.plan().sub_topologies[usize::from(task.task.sub_topology)].sources;
        let mut cut = BTreeMap::new();
        for (source, input) in self.inputs(task.task) {
            let marks = self.target.log.admin().watermarks(&input, ASK_TIMEOUT)?;
            if self.topics.is_repartition(task.task.sub_topology, source) {
                cut.insert(input, marks.high);
                continue;
            }
            let was = TopicPartition::new(topic_of(&self.origin.application, &sources[source]), input.partition);
            let Some(offset) = task.cut.get(&was).copied() else {
                return Err(SavepointError::TasksDiffer {
                    what: self.origin.what.clone(),
                    has: format!("{} without {was}", task.task),
                    needs: format!("{} with it", task.task),
                });
            };
            if offset < marks.low || offset > marks.high {
                return Err(SavepointError::InputGone {
                    task: task.task,
                    partition: input,
                    offset,
                    low: marks.low,
                    high: marks.high,
                });
            }
            cut.insert(input, offset);
        }
        Ok(cut)
    }

    fn write_changelogs(&mut self, task: &OriginTask, backend: &Arc<dyn StateBackend>) -> Result<(), SavepointError> {
        for (store, (topic, partition)) in self.changelogs(task.task).into_iter().enumerate() {
            for_each_batch(backend, StoreId(store as u16), &mut |rows| {
                let batch = OutBatch {
                    topic,
                    partition: partition.partition,
                    records: Arc::new(rows),
                };
                self.seat.stay()?;
                self.commit(vec![batch], Vec::new(), GroupMetadata::of_nobody(""))
            })?;
        }
        Ok(())
    }

    fn write_base(
        &mut self,
        task: &OriginTask,
        backend: &Arc<dyn StateBackend>,
        lineage: Lineage,
    ) -> Result<StateRef, SavepointError> {
        let store = self.target.blobs.clone().ok_or(SavepointError::NoObjectStore)?;
        let repository = Arc::new(Repository {
            store,
            settings: self.target.settings.snapshots.clone(),
            log: Arc::clone(&self.target.log),
            application_id: self.target.settings.application_id.clone(),
            random: Arc::clone(&self.target.random),
            clock: Arc::clone(&self.target.clock),
            instance: "restore".to_owned(),
        });
        let plan = self.target.topology.fingerprint();
        let mut base = BaseSnapshot::begin(
            repository,
            task.task,
            lineage,
            Arc::clone(backend),
            task.stores.clone(),
            &plan,
        );
        loop {
            if let Some(made) = base.step() {
                let base = Some(made?);
                return Ok(StateRef { base, increment: None });
            }
            self.seat.stay()?;
        }
    }

    fn note(&mut self, task: TaskId, meta: &StateMeta, state: StateRef, since: Option<Beginning>) {
        let (plan, durability) = (self.target.topology.fingerprint().to_owned(), self.durability(task));
        let pointer = Pointer {
            lineage: meta.lineage,
            epoch: meta.epoch,
            plan: plan.clone(),
            durability,
            state: state.clone(),
            since: since.clone(),
        };
        let metadata = pointer.to_metadata();
        let offsets = meta.cut.iter().map(|(partition, offset)| CommitOffset {
            partition: partition.clone(),
            offset: *offset,
            metadata: metadata.clone(),
        });
        self.offsets.extend(offsets);
        let record = CommitRecord {
            task,
            lineage: meta.lineage,
            epoch: meta.epoch,
            plan,
            cut: meta.cut.clone(),
            changelog: meta.changelog.clone(),
            durability,
            state,
            since,
        };
        self.records.push((task.to_string().into_bytes(), record.to_json()));
    }

    /// One transaction.
    fn commit(
        &mut self,
        batches: Vec<OutBatch>,
        offsets: Vec<CommitOffset>,
        group: GroupMetadata,
    ) -> Result<(), SavepointError> {
        let timeout = self.target.settings.transaction_timeout;
        let group_name = self.target.settings.application_id.clone();
        let Some(producer) = &mut self.producer else {
            return Err(SavepointError::Log(LogError::QueueFull));
        };
        producer.begin()?;
        producer.start_commit(Commit {
            batches,
            offsets,
            group,
            timeout,
        })?;
        loop {
            match producer.poll_commit(LOOK) {
                None => {}
                Some(Err(error @ (LogError::IllegalGeneration { .. } | LogError::NotAMember { .. }))) => {
                    let _ = producer.abort(timeout); // It ends with the producer in any case.
                    return Err(SavepointError::GroupLost {
                        group: group_name,
                        reason: error.to_string(),
                    });
                }
                Some(ended) => return Ok(ended?),
            }
        }
    }
}
