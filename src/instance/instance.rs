//! Starting an instance, and the handle on a running one.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded, unbounded};
use tracing::{error, info};

use crate::errors::Coded;
use crate::ids::{Lineage, TopicPartition};
use crate::log::{GroupView, Log, MemberSettings};
use crate::membership::Leads;
use crate::metrics::Source;
use crate::operators::OnError;
use crate::state::{RocksShared, StateDirectory};
use crate::time::Clock;
use crate::topology::Topology;
use crate::worker::{
    Opener, RestoreProgress, StateProvider, Threads, Topics, Turn, Worker, WorkerMetrics, WorkerParts, WorkerSettings,
    commits_topic,
};

use super::error::InstanceError;
use super::member::{Member, WorkerHandle};
use super::orphans::OrphanWatch;
use super::preparation::Preparation;
use super::seat::Seat;
use super::settings::{Backend, Guarantee, InstanceSettings};
use super::states::{MemoryStates, RocksStates};

/// Offsets of repartition topics that wait to be purged, at most.
const PURGE_QUEUE: usize = 1024;

/// Makes and starts instances.
#[derive(Debug)]
pub struct Instance;

/// What an instance tells about itself, for health checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether its threads are alive.
    pub live: bool,
    /// Whether it has joined and all its tasks run.
    pub ready: bool,
    /// One line for people.
    pub detail: String,
    /// Tasks that are being restored, and how far they are.
    pub restores: Vec<RestoreProgress>,
}

/// What the threads of an instance share.
pub(super) struct Shared {
    pub(super) stop: AtomicBool,
    pub(super) joined: AtomicBool,
    pub(super) finished: AtomicBool,
    pub(super) metrics: Arc<WorkerMetrics>,
    failure: Mutex<Option<InstanceError>>,
}

impl Shared {
    /// Notes why the instance must stop; the first reason stays.
    pub(super) fn fail(&self, error: InstanceError) {
        error!(code = error.code(), %error, "the instance stops");
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// A running instance. Dropping the handle stops it without waiting for its end.
pub struct InstanceHandle {
    shared: Arc<Shared>,
    member: Option<JoinHandle<()>>,
}

impl Instance {
    /// Checks topics and plan, opens the state directory, starts the workers and joins the group. **Blocks** until then,
    /// at most for `startup_timeout` while no broker answers.
    ///
    /// # Errors
    /// [`InstanceError`]: nothing runs then.
    pub fn start(
        topology: Arc<Topology>,
        settings: InstanceSettings,
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
    ) -> Result<InstanceHandle, InstanceError> {
        let (topology_ref, settings_ref) = (&*topology, &settings);
        let preparation = Preparation {
            topology: topology_ref,
            settings: settings_ref,
            log: &log,
            clock: &clock,
        };
        let topics = Arc::new(preparation.run()?);
        let (states, identity) = open_states(&settings)?;
        let metrics = Arc::new(WorkerMetrics::default());
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            joined: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            metrics: Arc::clone(&metrics),
            failure: Mutex::new(None),
        });
        let leads = Leads::new((0..topics.sub_topologies()).map(|sub| (Arc::clone(topics.lead(sub)), sub)));
        let membership = MemberSettings {
            group: settings.application_id.clone(),
            topics: leads.topics(),
            instance_id: settings.instance_id.clone(),
            session_timeout: settings.session_timeout,
        };
        let seat = Seat::take(Arc::clone(&log), membership).map_err(InstanceError::Log)?;
        let opener = Arc::new(Opener {
            log: Arc::clone(&log),
            states,
            clock: Arc::clone(&clock),
            metrics,
        });
        let (purge_sender, purge_receiver) = bounded(PURGE_QUEUE);
        let factory = WorkerFactory {
            topology,
            settings: &settings,
            topics: &topics,
            log: &log,
            clock: &clock,
            opener: &opener,
            identity: &identity,
            purge: purge_sender,
        };
        let mut workers = Vec::new();
        for index in 0..settings.workers.max(1) {
            workers.push(factory.spawn(index, seat.view(), &shared)?);
        }
        drop(factory);
        let orphans = settings.instance_id.as_ref().map(|_| {
            let partitions = (0..topics.sub_topologies()).flat_map(|sub| {
                let lead = topics.lead(sub);
                (0..topics.tasks(sub)).map(|partition| TopicPartition::new(Arc::clone(lead), partition))
            });
            OrphanWatch::new(
                Arc::clone(&log),
                &settings.application_id,
                partitions.collect(),
                commits_topic(&settings.application_id),
                settings.session_timeout,
            )
        });
        let loop_state = Member::new(
            seat,
            leads,
            workers,
            Arc::clone(&shared),
            settings,
            log,
            clock,
            purge_receiver,
            orphans,
        );
        let thread = std::thread::Builder::new()
            .name("tidegate-member".into())
            .spawn(move || loop_state.run());
        let thread = thread.map_err(|error| thread_failed("tidegate-member", &error))?;
        Ok(InstanceHandle {
            shared,
            member: Some(thread),
        })
    }
}

fn thread_failed(thread: &str, error: &std::io::Error) -> InstanceError {
    InstanceError::Thread {
        thread: thread.to_owned(),
        reason: error.to_string(),
    }
}

/// Opens the state directory and settles the identity that transactional ids are made of.
fn open_states(settings: &InstanceSettings) -> Result<(Arc<dyn StateProvider>, String), InstanceError> {
    let fresh = format!("{:016x}", random());
    match settings.state.backend {
        Backend::Memory => {
            let identity = settings.instance_id.clone().unwrap_or(fresh);
            Ok((Arc::new(MemoryStates::default()), identity))
        }
        Backend::RocksDb => {
            let directory = StateDirectory::open(&settings.state.dir, &settings.application_id, &fresh)?;
            let kept = directory.instance_id().to_owned();
            let shared = RocksShared::new(settings.state.block_cache_bytes, settings.state.write_buffer_bytes);
            let identity = settings.instance_id.clone().unwrap_or(kept);
            Ok((
                Arc::new(RocksStates {
                    directory: Arc::new(directory),
                    shared,
                }),
                identity,
            ))
        }
    }
}

/// Randomness for names: the standard library seeds every `RandomState` from the system.
fn random() -> u64 {
    RandomState::new().hash_one(0_u64)
}

struct WorkerFactory<'a> {
    topology: Arc<Topology>,
    settings: &'a InstanceSettings,
    topics: &'a Arc<Topics>,
    log: &'a Arc<dyn Log>,
    clock: &'a Arc<dyn Clock>,
    opener: &'a Arc<Opener>,
    identity: &'a str,
    purge: Sender<(TopicPartition, i64)>,
}

impl WorkerFactory<'_> {
    fn spawn(
        &self,
        index: usize,
        group: Arc<dyn GroupView>,
        shared: &Arc<Shared>,
    ) -> Result<WorkerHandle, InstanceError> {
        let name = format!("worker-{index}");
        let background =
            Threads::start(&name, self.opener, self.clock).map_err(|error| thread_failed(&name, &error))?;
        let (commands, receiver) = unbounded(); // at most a few per membership event
        let worker = Worker::new(WorkerParts {
            settings: self.worker_settings(index, &name),
            topology: Arc::clone(&self.topology),
            topics: Arc::clone(self.topics),
            log: Arc::clone(self.log),
            clock: Arc::clone(self.clock),
            metrics: Arc::clone(&shared.metrics),
            background: Box::new(background),
            group,
            commands: receiver,
            purgeable: self.purge.clone(),
            new_lineage: Box::new(|| Lineage(random())),
        })?;
        let thread_shared = Arc::clone(shared);
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || run_worker(worker, &thread_shared));
        let thread = thread.map_err(|error| thread_failed(&name, &error))?;
        Ok(WorkerHandle {
            name,
            commands,
            thread: Some(thread),
        })
    }

    fn worker_settings(&self, index: usize, name: &str) -> WorkerSettings {
        let settings = self.settings;
        let application = &settings.application_id;
        let tasks: i32 = (0..self.topics.sub_topologies())
            .filter(|sub| !self.topics.changelogs(*sub).is_empty())
            .map(|sub| self.topics.tasks(sub))
            .sum();
        WorkerSettings {
            application_id: application.clone(),
            name: name.to_owned(),
            transactional_id: (settings.guarantee == Guarantee::ExactlyOnce)
                .then(|| format!("{application}-{}-{index}", self.identity)),
            commit_interval: settings.commit_interval,
            overlay_max_bytes: settings.overlay_max_bytes,
            parked_max_bytes: settings.parked_max_bytes,
            buffered_max_records: settings.buffered_max_records,
            max_task_idle: settings.max_task_idle,
            transaction_timeout: settings.transaction_timeout,
            restore_timeout: settings.restore_timeout,
            cache_bytes_per_task: settings.state.cache_bytes / usize::try_from(tasks.max(1)).unwrap_or(1),
            on_error: self.policies(),
            dead_letter_topic: settings.dead_letter_topic.as_deref().map(Arc::from),
            allow_empty_state: settings.allow_empty_state,
        }
    }

    /// The policy of each node: by its name in the settings, else what the topology says, else the default.
    fn policies(&self) -> Vec<OnError> {
        let named: &BTreeMap<String, OnError> = &self.settings.on_error;
        let nodes = self.topology.plan().nodes.iter().enumerate();
        let policy = |(index, node): (usize, &crate::topology::NodeInfo)| {
            let declared = self.topology.on_error(crate::ids::NodeId(index as u16));
            named
                .get(&*node.name)
                .copied()
                .or(declared)
                .unwrap_or(self.settings.default_on_error)
        };
        nodes.map(policy).collect()
    }
}

fn run_worker(mut worker: Worker, shared: &Shared) {
    loop {
        match worker.turn() {
            Ok(Turn::Again) => {}
            Ok(Turn::Stopped) => return,
            Err(error) => return shared.fail(InstanceError::Worker(error)),
        }
    }
}

impl InstanceHandle {
    /// The instance's metrics.
    pub fn metrics(&self) -> Arc<dyn Source> {
        Arc::<WorkerMetrics>::clone(&self.shared.metrics)
    }

    /// The workers' counters.
    pub fn counters(&self) -> Arc<WorkerMetrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// Whether the instance lives and is ready.
    pub fn status(&self) -> Status {
        let live = !self.is_finished();
        let joined = self.shared.joined.load(Ordering::SeqCst);
        let stopping = self.shared.stop.load(Ordering::SeqCst);
        let opening = self.shared.metrics.tasks_opening.get();
        let running = self.shared.metrics.tasks_running.get();
        let detail = match (live, stopping, joined) {
            (false, ..) => "ended".to_owned(),
            (_, true, _) => "stopping".to_owned(),
            (_, _, false) => "joining the group".to_owned(),
            _ => format!("{running} tasks running, {opening} opening"),
        };
        Status {
            live,
            ready: live && joined && !stopping && opening == 0,
            detail,
            restores: self.shared.metrics.restores(),
        }
    }

    /// Asks the instance to commit, close and leave. Returns at once.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }

    /// Whether everything has ended.
    pub fn is_finished(&self) -> bool {
        self.shared.finished.load(Ordering::SeqCst) || self.member.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// Why it stopped, unless it was asked to.
    pub fn join(mut self) -> Result<(), InstanceError> {
        if let Some(member) = self.member.take()
            && member.join().is_err()
        {
            let reason = "it panicked; see the log".to_owned();
            return Err(InstanceError::Thread {
                thread: "tidegate-member".into(),
                reason,
            });
        }
        info!("instance ended");
        match self
            .shared
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }
}

impl Drop for InstanceHandle {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

/// Why a worker that did not fail has ended.
pub(super) fn worker_vanished(name: &str) -> InstanceError {
    InstanceError::Thread {
        thread: name.to_owned(),
        reason: "it ended without a reason; see the log".into(),
    }
}
