//! Savepoints of a cluster, and clusters that start from them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::blob::BlobStore;
use crate::durability::savepoint::{Form, SavepointName};
use crate::durability::snapshot::Attempt;
use crate::ids::{TaskId, TopicPartition};
use crate::instance::ScratchStates;
use crate::log::{Assignment, Isolation, Log};
use crate::savepoint::{Archive, Creation, Origin, Past, SavepointError, Target, Wanted, past, restore};
use crate::time::Clock;
use crate::topology::TopicRef;

use super::cluster::TestCluster;
use super::seed::Seed;
use super::store::{DistantStore, SimulatedStore};
use super::world::{MAX_ROUNDS, World};

/// Often enough for a short test.
const POLL: Duration = Duration::from_millis(300);
const HELD: Duration = Duration::from_secs(4);
/// How long somebody waits for a savepoint.
const WAITED: Duration = Duration::from_secs(60);
/// Under faults one round in so many brings a request, while none waits.
const ONE_REQUEST_IN: u64 = 40;
/// Requests per run under faults.
const MOST_REQUESTS: u32 = 6;

/// What was asked for.
#[derive(Default)]
pub(super) struct Savepoints {
    asked: u32,
    waiting: Option<Creation>,
    /// The folders of applications beside this one.
    folders: BTreeMap<String, Arc<SimulatedStore>>,
    /// The end of each external output when the first application was started beside this one.
    alone_until: Option<BTreeMap<TopicPartition, i64>>,
    /// The same when this cluster began, where it is a fork.
    began_at: BTreeMap<TopicPartition, i64>,
}

impl World {
    /// The way of whoever handles savepoints to the store: a calm one.
    pub(super) fn calm_store(&self) -> Arc<dyn BlobStore> {
        let store = self
            .store
            .as_ref()
            .unwrap_or_else(|| panic!("savepoints are off: there is no object store"));
        Arc::new(DistantStore::new(
            Arc::clone(store),
            Seed::new(0),
            self.story(),
            Arc::default(),
        ))
    }

    pub(super) fn archive(&self) -> Archive {
        Archive {
            store: self.calm_store(),
        }
    }

    fn ask_for(&mut self, name: &str, form: Form) -> Result<Creation, SavepointError> {
        let clock: Arc<dyn Clock> = self.clock();
        let name: SavepointName = name.parse().unwrap_or_else(|error| panic!("{error}"));
        let attempt = Attempt(self.site.names.next());
        self.site
            .story
            .tell("somebody", format_args!("asks for savepoint {name}"));
        Creation::begin(&self.calm_store(), &clock, name, form, WAITED, attempt)
    }

    /// Under faults somebody asks for a savepoint now and then, and finds out whether it came to something.
    pub(super) fn look_after_savepoints(&mut self) {
        if self.site.settings.savepoints.poll.is_zero() || !self.site.faults {
            return;
        }
        let ended = self
            .savepoints
            .waiting
            .as_ref()
            .is_some_and(|creation| match creation.look() {
                Ok(stage) if stage.is_complete => {
                    self.site.story.happened("a savepoint was taken");
                    true
                }
                Err(SavepointError::GivenUp { .. } | SavepointError::TimedOut { .. }) => {
                    self.site.story.happened("a savepoint was given up");
                    true
                }
                _ => false,
            });
        if ended {
            self.savepoints.waiting = None;
        }
        let may_ask = self.savepoints.waiting.is_none() && self.savepoints.asked < MOST_REQUESTS;
        if may_ask && self.site.order.once_in(ONE_REQUEST_IN) {
            self.savepoints.asked += 1;
            let name = format!("s{}", self.savepoints.asked);
            // While the store is away nobody can ask.
            self.savepoints.waiting = self.ask_for(&name, Form::Native).ok();
        }
    }

    /// Every record of an external output from `from` on, per partition and key.
    fn outputs(&self, from: &BTreeMap<TopicPartition, i64>, to: Option<&BTreeMap<TopicPartition, i64>>) -> Outputs {
        let mut outputs = Outputs::new();
        let mut consumer = self
            .log
            .consumer("outputs", Isolation::ReadCommitted)
            .unwrap_or_else(|error| panic!("{error}"));
        let partitions: Vec<TopicPartition> = self.output_partitions();
        let assignments: Vec<Assignment> = partitions
            .iter()
            .enumerate()
            .map(|(slot, partition)| Assignment {
                slot: slot as u32,
                partition: partition.clone(),
                offset: from.get(partition).copied().unwrap_or(0),
            })
            .collect();
        consumer.assign(&assignments).unwrap_or_else(|error| panic!("{error}"));
        while let Ok(Some(batch)) = consumer.poll(10_000, Duration::ZERO) {
            for run in batch.runs() {
                let partition = &partitions[run.slot as usize];
                let end = to.and_then(|to| to.get(partition)).copied().unwrap_or(i64::MAX);
                for record in (run.start..run.end).map(|index| batch.record(index)) {
                    if record.offset < end {
                        let key = (partition.clone(), record.key.unwrap_or_default().to_vec());
                        let value = record.value.unwrap_or_default().to_vec();
                        outputs.entry(key).or_default().push(value);
                    }
                }
            }
        }
        outputs
    }

    fn output_partitions(&self) -> Vec<TopicPartition> {
        let sinks = self
            .site
            .topology
            .plan()
            .sub_topologies
            .iter()
            .flat_map(|sub| &sub.sinks);
        let mut topics: Vec<Arc<str>> = sinks
            .filter_map(|sink| match sink {
                TopicRef::External(name) => Some(Arc::clone(name)),
                TopicRef::Repartition(_) => None,
            })
            .collect();
        topics.sort();
        topics.dedup();
        let partitions = topics.into_iter().flat_map(|topic| {
            (0..self.outside.partitions_of(&topic))
                .map(move |partition| TopicPartition::new(Arc::clone(&topic), partition))
        });
        partitions.collect()
    }

    fn ends(&self) -> BTreeMap<TopicPartition, i64> {
        let admin = self.log.admin();
        let partitions = self.output_partitions().into_iter();
        let end = |partition: &TopicPartition| {
            admin
                .watermarks(partition, Duration::from_secs(1))
                .map_or(0, |marks| marks.high)
        };
        partitions
            .map(|partition| (partition.clone(), end(&partition)))
            .collect()
    }

    /// Rounds of this cluster until `is_over`.
    fn until(&mut self, what: &str, mut is_over: impl FnMut(&mut Self) -> bool) {
        for _ in 0..MAX_ROUNDS {
            if is_over(self) {
                return;
            }
            self.round_or_panic();
        }
        panic!("{what} does not end: {}", self.statuses());
    }
}

type Outputs = BTreeMap<(TopicPartition, Vec<u8>), Vec<Vec<u8>>>;

impl TestCluster {
    /// Lets savepoints be taken, whatever the strategy: gives the cluster an object store.
    #[must_use]
    pub fn savepoints(mut self) -> Self {
        self.setup.settings.savepoints.poll = POLL;
        self.setup.settings.savepoints.timeout = HELD;
        self
    }

    /// Takes a savepoint while the application runs; returns when it is complete.
    ///
    /// ```
    /// # use tidegate::codec::{I64Be, Utf8};
    /// # use tidegate::record::Record;
    /// # use tidegate::testkit::TestCluster;
    /// # use tidegate::topology::{Builder, Topic};
    /// # let words = Topic::new("words", Utf8, Utf8);
    /// # let builder = Builder::new();
    /// # builder.stream(&words).group_by_key().count("count");
    /// # let topology = builder.build()?;
    /// let mut cluster = TestCluster::new(topology).savepoints();
    /// cluster.pipe(&words, Record::new("frost".to_owned(), String::new(), 0));
    /// cluster.settle();
    /// cluster.savepoint("before-the-upgrade");
    /// let mut fork = cluster.fork("before-the-upgrade", "trial");
    /// cluster.pipe(&words, Record::new("frost".to_owned(), String::new(), 1));
    /// cluster.settle();
    /// fork.settle();
    /// assert_eq!(fork.look_up("count", Utf8, I64Be, &"frost".to_owned()), Some(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// Where none comes of it.
    pub fn savepoint(&mut self, name: &str) {
        self.try_savepoint(name, Form::Native)
            .unwrap_or_else(|error| panic!("savepoint {name}: {error}"));
    }

    /// Takes a savepoint as [`savepoint`](Self::savepoint) does, in this form.
    ///
    /// # Errors
    /// As whoever asks for one gets them.
    pub fn try_savepoint(&mut self, name: &str, form: Form) -> Result<(), SavepointError> {
        let world = self.world();
        let creation = world.ask_for(name, form)?;
        let mut outcome = None;
        world.until("a savepoint", |_| {
            outcome = match creation.look() {
                Ok(stage) if stage.is_complete => Some(Ok(())),
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            };
            outcome.is_some()
        });
        if let Some(Err(error)) = outcome {
            creation.abandon()?;
            return Err(error);
        }
        if form == Form::Canonical {
            creation.convert(&scratch(), &mut |_| {})?;
        }
        creation.tidy()
    }

    /// Names of the savepoints that are complete.
    pub fn savepoints_taken(&mut self) -> Vec<String> {
        let found = self.world().archive().list().unwrap_or_else(|error| panic!("{error}"));
        let complete = found.into_iter().filter(|found| found.savepoint.is_some());
        complete.map(|found| found.name.to_string()).collect()
    }

    /// A second application, `application`, that starts from a savepoint of this one, beside it: on the same log, with one instance and with its own
    /// disk and folder in the object store.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn fork(&mut self, savepoint: &str, application: &str) -> TestCluster {
        self.try_fork(savepoint, application, |_| {})
            .unwrap_or_else(|error| panic!("a fork of {savepoint}: {error}"))
    }

    /// The same, with other settings.
    ///
    /// # Errors
    /// Why it cannot be started.
    pub fn try_fork(
        &mut self,
        savepoint: &str,
        application: &str,
        change: impl FnOnce(&mut crate::instance::InstanceSettings),
    ) -> Result<TestCluster, SavepointError> {
        let name: SavepointName = savepoint.parse().unwrap_or_else(|error| panic!("{error}"));
        let archive = self.world().archive();
        let savepoint = archive.read(&name)?;
        let origin = Origin::of_savepoint(archive.store, &savepoint, &name.folder());
        self.fork_of(&origin, application, change)
    }

    /// A second application as of past base snapshots of this one.
    ///
    /// # Errors
    /// Why it cannot be started.
    pub fn try_fork_of_past(&mut self, wanted: &Wanted, application: &str) -> Result<TestCluster, SavepointError> {
        let world = self.world();
        let tasks: Vec<TaskId> = world.tasks();
        let (store, topology) = (world.calm_store(), Arc::clone(&world.site.topology));
        let of = Past {
            store,
            application: &world.site.settings.application_id.clone(),
            plan: topology.plan(),
            tasks,
        };
        let origin = past(&of, wanted)?;
        self.fork_of(&origin, application, |_| {})
    }

    fn fork_of(
        &mut self,
        origin: &Origin,
        application: &str,
        change: impl FnOnce(&mut crate::instance::InstanceSettings),
    ) -> Result<TestCluster, SavepointError> {
        let mut fork = self.beside(application, change);
        put_in_place(origin, fork.world(), &scratch(), false)?;
        fork.world().add();
        Ok(fork)
    }

    /// A cluster of another application on the same log, with a folder of its own in an object store, and without instances.
    pub(super) fn beside(
        &mut self,
        application: &str,
        change: impl FnOnce(&mut crate::instance::InstanceSettings),
    ) -> TestCluster {
        let mut setup = self.setup.clone();
        setup.settings.application_id = application.to_owned();
        setup.instances = 1;
        setup.static_members = false;
        setup.faults = None;
        change(&mut setup.settings);
        let world = self.world();
        let mut beside = World::on(&setup, world.clock(), Arc::clone(&world.log));
        // Names must not be those of the first application.
        beside.site.names = Arc::clone(&world.site.names);
        beside.site.story = world.story();
        let ends = world.ends();
        world.savepoints.alone_until.get_or_insert_with(|| ends.clone());
        beside.savepoints.began_at = ends;
        if let Some(new) = beside.store.take() {
            let folders = &mut world.savepoints.folders;
            let folder = folders.entry(application.to_owned()).or_insert(new);
            beside.store = Some(Arc::clone(folder));
        }
        TestCluster {
            setup,
            world: Some(beside),
        }
    }

    /// Puts a savepoint of this application in place as its state, which is lost. No instance may run.
    ///
    /// # Errors
    /// Why that cannot be done.
    pub fn try_replace(&mut self, savepoint: &str) -> Result<(), SavepointError> {
        let name: SavepointName = savepoint.parse().unwrap_or_else(|error| panic!("{error}"));
        let archive = self.world().archive();
        let savepoint = archive.read(&name)?;
        let origin = Origin::of_savepoint(archive.store, &savepoint, &name.folder());
        put_in_place(&origin, self.world(), &scratch(), true)
    }

    /// Runs this application and a fork of it side by side for so many rounds.
    pub fn rounds_beside(&mut self, fork: &mut TestCluster, rounds: u32) {
        for _ in 0..rounds {
            self.world().round_or_panic();
            fork.world().round_or_panic();
        }
    }

    /// Compares a fork, after everything was worked off by both, with the application that it was forked from: the same rows in all stores; and
    /// where `in_order`, for each output partition and key the fork has said exactly the last of what the application has said. The
    /// application must not have said anything since its first fork began.
    ///
    /// # Panics
    /// Where anything differs.
    pub fn assert_same_as(&mut self, fork: &mut TestCluster, in_order: bool) {
        let (here, there) = (self.state_digest(), fork.state_digest());
        assert_eq!(here, there, "the rows of the application and of its fork");
        let began_at = fork.world().savepoints.began_at.clone();
        let alone_until = self.world().savepoints.alone_until.clone();
        let said = self.world().outputs(&BTreeMap::new(), alone_until.as_ref());
        let said_again = fork.world().outputs(&began_at, None);
        for ((partition, key), values) in &said_again {
            let key_text = String::from_utf8_lossy(key);
            let all = said.get(&(partition.clone(), key.clone()));
            let all = all.unwrap_or_else(|| panic!("{partition}: only the fork says anything of {key_text:?}"));
            assert!(
                values.len() <= all.len(),
                "{partition}: the fork says {} records of {key_text:?}, the application {}",
                values.len(),
                all.len()
            );
            let last = &all[all.len() - values.len()..];
            assert!(
                !in_order || last == &values[..],
                "{partition}: the fork says other things of {key_text:?}"
            );
        }
    }
}

/// Puts state in place for the application of a cluster whose instances do not run.
pub(super) fn put_in_place(
    origin: &Origin,
    world: &World,
    scratch: &ScratchStates,
    replaces: bool,
) -> Result<(), SavepointError> {
    let names = Arc::clone(&world.site.names);
    let target = Target {
        topology: &world.site.topology,
        settings: &world.site.settings,
        log: Arc::clone(&world.log) as Arc<dyn Log>,
        clock: world.clock(),
        blobs: world.store.is_some().then(|| world.calm_store()),
        random: Arc::new(move || names.next()),
        scratch,
        replaces,
    };
    restore(origin, &target, &mut |_| {}).map(drop)
}

/// Databases in memory: the simulated disks have no others.
fn scratch() -> ScratchStates {
    ScratchStates::new(PathBuf::from("no databases on disk in tests"))
}

impl std::fmt::Debug for Savepoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Savepoints")
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

/// What the store of an application has, for tests that damage it.
#[cfg(test)]
pub(super) fn simulated_store(cluster: &mut TestCluster) -> Arc<SimulatedStore> {
    Arc::clone(
        cluster
            .world()
            .store
            .as_ref()
            .unwrap_or_else(|| panic!("there is no object store")),
    )
}
