//! Putting an instance together: topics, state, membership, workers. What runs it is not decided here.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossbeam_channel::{Sender, bounded, unbounded};

use crate::blob::BlobStore;
use crate::ids::{Lineage, TopicPartition};
use crate::log::{GroupView, Log, MemberSettings};
use crate::membership::Leads;
use crate::operators::OnError;
use crate::state::{RocksShared, StateDirectory};
use crate::time::Clock;
use crate::topology::Topology;
use crate::worker::{
    Background, Opener, Repository, Topics, Worker, WorkerMetrics, WorkerParts, WorkerSettings, commits_topic,
};

use super::error::InstanceError;
use super::instance::Shared;
use super::member::{Member, MemberParts, WorkerLink};
use super::orphans::OrphanWatch;
use super::preparation::Preparation;
use super::purge::{Place, Purge};
use super::seat::Seat;
use super::settings::{Backend, Guarantee, InstanceSettings};
use super::states::{Disk, MemoryStates, RocksStates};
use super::threads::failed;

/// Offsets of repartition topics that wait to be purged, at most.
const PURGE_QUEUE: usize = 1024;

/// Makes what runs beside a worker.
type MakeBackground = dyn Fn(&str, &Arc<Opener>, &Arc<dyn Clock>) -> std::io::Result<Box<dyn Background>>;

/// What differs between an instance on threads and one without.
pub(super) struct Means<'a> {
    pub(super) background: &'a MakeBackground,
    /// For names: identities and lineages.
    pub(super) random: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Where calls are made that wait for the network.
    pub(super) place: Place,
    /// Databases that outlive the instance; `None` for what the settings say.
    pub(super) disk: Option<Disk>,
}

/// What an instance lives on.
#[derive(Clone)]
pub struct Ports {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The application's folder in an object store; needed by strategies with snapshots.
    pub blobs: Option<Arc<dyn BlobStore>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl Ports {
    /// Without an object store.
    pub fn new(log: Arc<dyn Log>, clock: Arc<dyn Clock>) -> Self {
        let blobs = None;
        Self { log, blobs, clock }
    }
}

/// An instance that is a member of its group and does not run yet.
pub(super) struct Assembly {
    pub(super) member: Member,
    pub(super) workers: Vec<(String, Worker)>,
    pub(super) shared: Arc<Shared>,
}

impl Assembly {
    /// Checks topics and plan, opens the state directory, makes the workers and joins the group.
    pub(super) fn of(
        topology: Arc<Topology>,
        settings: InstanceSettings,
        ports: Ports,
        means: &Means<'_>,
    ) -> Result<Self, InstanceError> {
        let Ports { log, blobs, clock } = ports;
        let (topology_ref, settings_ref) = (&*topology, &settings);
        let preparation = Preparation {
            topology: topology_ref,
            settings: settings_ref,
            log: &log,
            clock: &clock,
        };
        let topics = Arc::new(preparation.run()?);
        let Disk { states, identity } = match &means.disk {
            Some(disk) => disk.clone(),
            None => open_states(&settings, (means.random)())?,
        };
        let identity = settings.instance_id.clone().unwrap_or(identity);
        let shared = Arc::new(Shared::default());
        let repository = repository(&settings, blobs.clone(), &log, &clock, &identity, means)?;
        let leads = Leads::new((0..topics.sub_topologies()).map(|sub| (Arc::clone(topics.lead(sub)), sub)));
        let membership = MemberSettings {
            group: settings.application_id.clone(),
            topics: leads.topics(),
            instance_id: settings.instance_id.clone(),
            session_timeout: settings.session_timeout,
        };
        let seat = Seat::take(Arc::clone(&log), membership).map_err(InstanceError::Log)?;
        let (offer, offered) = bounded(PURGE_QUEUE);
        let factory = WorkerFactory {
            topology,
            settings: &settings,
            topics: &topics,
            log: &log,
            clock: &clock,
            opener: Arc::new(Opener {
                log: Arc::clone(&log),
                states,
                clock: Arc::clone(&clock),
                metrics: Arc::clone(&shared.metrics),
                repository: repository.clone(),
            }),
            savepoints: savepoints(&settings, repository.as_ref(), blobs, &log, &clock, &identity, means),
            repository,
            identity: &identity,
            purge: offer,
            means,
        };
        let mut workers = Vec::new();
        let mut links = Vec::new();
        for index in 0..settings.workers.max(1) {
            let (link, worker) = factory.make(index, seat.view(), &shared.metrics)?;
            workers.push((link.name.clone(), worker));
            links.push(link);
        }
        drop(factory);
        let member = Member::new(MemberParts {
            orphans: orphan_watch(&settings, &topics, &log, means.place),
            purge: Purge::new(log, Arc::clone(&clock), settings.purge_interval, means.place, offered),
            seat,
            leads,
            workers: links,
            shared: Arc::clone(&shared),
            settings,
            clock,
        });
        Ok(Self {
            member,
            workers,
            shared,
        })
    }
}

fn orphan_watch(settings: &InstanceSettings, topics: &Topics, log: &Arc<dyn Log>, place: Place) -> Option<OrphanWatch> {
    settings.instance_id.as_ref()?;
    let partitions = (0..topics.sub_topologies()).flat_map(|sub| {
        let lead = topics.lead(sub);
        (0..topics.tasks(sub)).map(|partition| TopicPartition::new(Arc::clone(lead), partition))
    });
    Some(OrphanWatch::new(
        Arc::clone(log),
        &settings.application_id,
        partitions.collect(),
        commits_topic(&settings.application_id),
        settings.session_timeout,
        place,
    ))
}

/// The snapshot repository, where there is an object store: a strategy asks for it, or did so before it was changed. Whether the store can be
/// used at all is found out here, not in the midst of work.
fn repository(
    settings: &InstanceSettings,
    blobs: Option<Arc<dyn BlobStore>>,
    log: &Arc<dyn Log>,
    clock: &Arc<dyn Clock>,
    identity: &str,
    means: &Means<'_>,
) -> Result<Option<Arc<Repository>>, InstanceError> {
    let needed = settings.durability_with_snapshots();
    let store = match (blobs, needed) {
        (Some(store), _) => store,
        (None, None) => return Ok(None),
        (None, Some(durability)) => {
            let durability = durability.word();
            return Err(InstanceError::NoObjectStore { durability });
        }
    };
    match store.list("tasks/none/") {
        Err(error) if !error.is_passing() && needed.is_some() => return Err(InstanceError::ObjectStore(error)),
        Err(error) => tracing::warn!(%error, "the object store does not answer yet"),
        Ok(_) => {}
    }
    Ok(Some(Arc::new(Repository {
        store,
        settings: settings.snapshots.clone(),
        log: Arc::clone(log),
        application_id: settings.application_id.clone(),
        random: Arc::clone(&means.random),
        clock: Arc::clone(clock),
        instance: identity.to_owned(),
    })))
}

/// Where savepoints are asked for: in any object store that there is, whatever the strategy.
fn savepoints(
    settings: &InstanceSettings,
    repository: Option<&Arc<Repository>>,
    blobs: Option<Arc<dyn BlobStore>>,
    log: &Arc<dyn Log>,
    clock: &Arc<dyn Clock>,
    identity: &str,
    means: &Means<'_>,
) -> Option<Arc<Repository>> {
    if settings.savepoints.poll.is_zero() {
        return None;
    }
    if let Some(repository) = repository {
        return Some(Arc::clone(repository));
    }
    Some(Arc::new(Repository {
        store: blobs?,
        settings: settings.snapshots.clone(),
        log: Arc::clone(log),
        application_id: settings.application_id.clone(),
        random: Arc::clone(&means.random),
        clock: Arc::clone(clock),
        instance: identity.to_owned(),
    }))
}

/// Opens the state directory. The identity is what transactional ids are made of where the settings give none.
fn open_states(settings: &InstanceSettings, random: u64) -> Result<Disk, InstanceError> {
    let fresh = format!("{random:016x}");
    match settings.state.backend {
        Backend::Memory => {
            let states = Arc::new(MemoryStates::default());
            Ok(Disk {
                states,
                identity: fresh,
            })
        }
        Backend::RocksDb => {
            let directory = StateDirectory::open(&settings.state.dir, &settings.application_id, &fresh)?;
            let identity = directory.instance_id().to_owned();
            let shared = RocksShared::new(settings.state.block_cache_bytes, settings.state.write_buffer_bytes);
            let directory = Arc::new(directory);
            let states = Arc::new(RocksStates { directory, shared });
            Ok(Disk { states, identity })
        }
    }
}

struct WorkerFactory<'a> {
    topology: Arc<Topology>,
    settings: &'a InstanceSettings,
    topics: &'a Arc<Topics>,
    log: &'a Arc<dyn Log>,
    clock: &'a Arc<dyn Clock>,
    opener: Arc<Opener>,
    repository: Option<Arc<Repository>>,
    savepoints: Option<Arc<Repository>>,
    identity: &'a str,
    purge: Sender<(TopicPartition, i64)>,
    means: &'a Means<'a>,
}

impl WorkerFactory<'_> {
    fn make(
        &self,
        index: usize,
        group: Arc<dyn GroupView>,
        metrics: &Arc<WorkerMetrics>,
    ) -> Result<(WorkerLink, Worker), InstanceError> {
        let name = format!("worker-{index}");
        let background = (self.means.background)(&name, &self.opener, self.clock);
        let (commands, receiver) = unbounded(); // at most a few per membership event
        let random = Arc::clone(&self.means.random);
        let worker = Worker::new(WorkerParts {
            settings: self.worker_settings(index, &name),
            topology: Arc::clone(&self.topology),
            topics: Arc::clone(self.topics),
            log: Arc::clone(self.log),
            clock: Arc::clone(self.clock),
            metrics: Arc::clone(metrics),
            background: background.map_err(|error| failed(&name, error.to_string()))?,
            group,
            commands: receiver,
            purgeable: self.purge.clone(),
            repository: self.repository.clone(),
            savepoints: self.savepoints.clone(),
            new_lineage: Box::new(move || Lineage(random())),
        })?;
        Ok((WorkerLink { name, commands }, worker))
    }

    fn worker_settings(&self, index: usize, name: &str) -> WorkerSettings {
        let settings = self.settings;
        let application = &settings.application_id;
        let tasks: i32 = (0..self.topics.sub_topologies())
            .filter(|sub| !self.topology.plan().sub_topologies[usize::from(*sub)].stores.is_empty())
            .map(|sub| self.topics.tasks(sub))
            .sum();
        WorkerSettings {
            application_id: application.clone(),
            name: name.to_owned(),
            transactional_id: (settings.guarantee == Guarantee::ExactlyOnce)
                .then(|| format!("{application}-{}-{index}", self.identity)),
            durability: {
                let subs = self.topology.plan().sub_topologies.iter();
                subs.map(|sub| settings.durability_of(sub)).collect()
            },
            copy_slice_bytes: settings.copy_slice_bytes,
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
            savepoints: settings.savepoints,
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
