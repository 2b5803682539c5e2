//! A cluster in a box, as a test sees it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::instance::{Backend, InstanceError, InstanceSettings};
use crate::record::Record;
use crate::topology::{Topic, Topology};

use super::clock::VirtualClock;
use super::world::{APPLICATION, World};

const SESSION: Duration = Duration::from_secs(6);
const TRANSACTION: Duration = Duration::from_secs(10);

/// A topology on any number of instances and partitions. See the [module documentation](super).
///
/// It is set up by [`instances`](Self::instances), [`partitions`](Self::partitions) and the like, and starts with the first call of another
/// method. All calls panic where the topology or the engine fails, with the error that an instance would stop with:
/// it is made for tests. [`failure`](Self::failure) is for tests that want such an error.
pub struct TestCluster {
    topology: Arc<Topology>,
    instances: usize,
    partitions: i32,
    seed: u64,
    faults: bool,
    settings: InstanceSettings,
    world: Option<World>,
}

impl fmt::Debug for TestCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestCluster")
            .field("instances", &self.instances)
            .field("partitions", &self.partitions)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

impl TestCluster {
    /// A cluster of one instance with one worker, where each topic has one partition.
    pub fn new(topology: impl Into<Arc<Topology>>) -> Self {
        let mut settings = InstanceSettings::new(APPLICATION);
        settings.state.backend = Backend::Memory;
        settings.session_timeout = SESSION;
        settings.transaction_timeout = TRANSACTION;
        Self {
            topology: topology.into(),
            instances: 1,
            partitions: 1,
            seed: 0,
            faults: false,
            settings,
            world: None,
        }
    }

    /// Number of instances at the start.
    #[must_use]
    pub fn instances(mut self, instances: usize) -> Self {
        self.instances = instances;
        self
    }

    /// Number of partitions of each topic that the topology reads or writes.
    #[must_use]
    pub fn partitions(mut self, partitions: i32) -> Self {
        self.partitions = partitions;
        self
    }

    /// Decides in which order instances take their turns, and everything else that is random.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Changes the settings of all instances: number of workers, commit interval, policies for bad records. Identity and
    /// state backend stay as they are.
    #[must_use]
    pub fn settings(mut self, change: impl FnOnce(&mut InstanceSettings)) -> Self {
        change(&mut self.settings);
        self.settings.application_id = APPLICATION.to_owned();
        self.settings.instance_id = None;
        self.settings.state.backend = Backend::Memory;
        self
    }

    /// Writes a record to a topic, into the partition that Java's client would choose; a record without a key goes to the
    /// partitions in turn.
    pub fn pipe<K: 'static, V: 'static>(&mut self, topic: &Topic<K, V>, record: Record<K, V>) {
        self.world().pipe(topic, &record);
    }

    /// Runs until everything that was piped in is worked off and committed, repartition topics included, and all tasks run.
    /// With every instance gone it returns at once.
    pub fn settle(&mut self) {
        let failure = self.world().settle();
        if let Some(error) = failure {
            panic!("an instance stopped: {error}");
        }
    }

    /// Runs as [`settle`](Self::settle) does, for topologies that are expected to fail: answers the error that an instance
    /// stopped with, or `None` where everything was worked off.
    pub fn failure(&mut self) -> Option<InstanceError> {
        self.world().settle()
    }

    /// Lets time pass for all that runs.
    pub fn advance(&mut self, by: Duration) {
        self.world().advance(by);
    }

    /// What was committed to a topic since this was last asked, by partition and offset. Records of open and of aborted
    /// transactions are never among it.
    pub fn read<K: 'static, V: 'static>(&mut self, topic: &Topic<K, V>) -> Vec<Record<K, V>> {
        self.world().read(topic)
    }

    /// Starts one more instance; answers its number.
    pub fn start(&mut self) -> usize {
        self.world().add()
    }

    /// Stops an instance in order: barrier, commit, close, leave.
    pub fn stop(&mut self, instance: usize) {
        self.world().stop(instance);
    }

    /// Ends an instance at once, as `kill -9` on a lost machine would: its open transaction stays behind, its state is gone, and the group
    /// learns of it when the session is over.
    pub fn crash(&mut self, instance: usize) {
        self.world().crash(instance);
    }

    /// Starts an instance again that was stopped or crashed, on an empty disk.
    pub fn restart(&mut self, instance: usize) {
        self.world().start(instance);
    }

    /// Makes this many rounds, in each of which every instance takes one step: for stopping it in the midst of something.
    pub fn rounds(&mut self, rounds: u32) {
        let world = self.world();
        for _ in 0..rounds {
            world.round_or_panic();
        }
    }

    /// The clock of the cluster.
    pub fn clock(&mut self) -> Arc<VirtualClock> {
        self.world().clock()
    }

    /// Runs `scenario` once for each seed, on a cluster in which things go wrong: instances crash in the midst of a step and come back
    /// later, stand still for longer than their session and their transaction, or are stopped in order. Every
    /// [`settle`](Self::settle) ends with all instances back, so what a scenario asserts after it must hold whatever happened.
    ///
    /// ```
    /// # use tidegate::codec::{I64Be, Utf8};
    /// # use tidegate::record::Record;
    /// # use tidegate::testkit::TestCluster;
    /// # use tidegate::topology::{Builder, Topic};
    /// # let words = Topic::new("words", Utf8, Utf8);
    /// # let counts = Topic::new("counts", Utf8, I64Be);
    /// # let builder = Builder::new();
    /// # builder.stream(&words).group_by_key().count("count").to_stream().to(&counts);
    /// # let topology = builder.build()?;
    /// TestCluster::new(topology).instances(3).partitions(2).chaos(0..3, |cluster| {
    ///     for time_ms in 0..20 {
    ///         cluster.pipe(&words, Record::new("hail".to_owned(), String::new(), time_ms));
    ///     }
    ///     cluster.settle();
    ///     let seen: Vec<i64> = cluster.read(&counts).into_iter().filter_map(|record| record.value).collect();
    ///     assert_eq!(seen, (1..=20).collect::<Vec<_>>());
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// As the scenario does, after a line that names the seed. The same seed fails in the same way.
    pub fn chaos(self, seeds: impl IntoIterator<Item = u64>, scenario: impl Fn(&mut TestCluster)) {
        for seed in seeds {
            let mut cluster = TestCluster {
                topology: Arc::clone(&self.topology),
                instances: self.instances,
                partitions: self.partitions,
                seed,
                faults: true,
                settings: self.settings.clone(),
                world: None,
            };
            if let Err(failure) = catch_unwind(AssertUnwindSafe(|| scenario(&mut cluster))) {
                let told = cluster.world.as_ref().map_or(String::new(), World::told);
                eprintln!("chaos: seed {seed} failed; what happened before:\n{told}");
                resume_unwind(failure);
            }
        }
    }

    fn world(&mut self) -> &mut World {
        let Self {
            topology,
            instances,
            partitions,
            seed,
            faults,
            settings,
            world,
        } = self;
        world.get_or_insert_with(|| {
            let mut world = World::new(topology, settings, *partitions, *seed, *faults);
            for _ in 0..*instances {
                world.add();
            }
            world
        })
    }
}
