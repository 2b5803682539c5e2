//! A cluster in a box, as a test sees it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::{Codec, KeyCodec};
use crate::durability::Durability;
use crate::durability::snapshot::{ChainLimits, Retention};
use crate::instance::{Backend, InstanceError, InstanceSettings};
use crate::operators::decode_row;
use crate::record::Record;
use crate::topology::{Topic, Topology};
use crate::worker::{RestoreMode, SnapshotSettings};

use super::clock::VirtualClock;
use super::world::{APPLICATION, Setup, World};

const CACHE_BYTES: usize = 64 << 10;
/// Small enough that copying a test's state takes several epochs.
const COPY_SLICE_BYTES: usize = 100;
const SESSION: Duration = Duration::from_secs(6);
const TRANSACTION: Duration = Duration::from_secs(10);

/// A topology on any number of instances and partitions. See the [module documentation](super).
///
/// It is set up by [`instances`](Self::instances), [`partitions`](Self::partitions) and the like, and starts with the first call of another
/// method. All calls panic where the topology or the engine fails, with the error that an instance would stop with:
/// it is made for tests. [`failure`](Self::failure) is for tests that want such an error.
pub struct TestCluster {
    pub(super) setup: Setup,
    pub(super) world: Option<World>,
}

impl fmt::Debug for TestCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestCluster")
            .field("instances", &self.setup.instances)
            .field("partitions", &self.setup.partitions)
            .field("seed", &self.setup.seed)
            .finish_non_exhaustive()
    }
}

/// Often enough that a short test sees snapshots, chains, and what is deleted of them.
fn snapshots() -> SnapshotSettings {
    SnapshotSettings {
        limits: ChainLimits {
            interval: Duration::from_secs(1),
            max_objects: 6,
            max_bytes: 1 << 20,
        },
        retention: Retention {
            keep: 2,
            grace: Duration::from_secs(40),
        },
        persist_timeout: Duration::from_secs(3),
        spill: false,
        spill_after: Duration::from_millis(200),
        // Some of the files that a test makes are larger.
        small_file_bytes: 150,
        collect_interval: Duration::from_secs(5),
        restore: RestoreMode::Full,
        lazy_timeout: Duration::from_secs(5),
    }
}

impl TestCluster {
    /// A cluster of one instance with one worker, where each topic has one partition.
    pub fn new(topology: impl Into<Arc<Topology>>) -> Self {
        let mut settings = InstanceSettings::new(APPLICATION);
        settings.state.backend = Backend::Memory;
        // Clearing the memory of large caches would take most of the time of a test.
        settings.state.cache_bytes = CACHE_BYTES;
        settings.session_timeout = SESSION;
        settings.transaction_timeout = TRANSACTION;
        settings.snapshots = snapshots();
        settings.savepoints.poll = Duration::ZERO;
        settings.copy_slice_bytes = COPY_SLICE_BYTES;
        Self {
            setup: Setup {
                topology: topology.into(),
                instances: 1,
                partitions: 1,
                seed: 0,
                static_members: false,
                settings,
                changes: false,
                faults: None,
            },
            world: None,
        }
    }

    /// Number of instances at the start.
    #[must_use]
    pub fn instances(mut self, instances: usize) -> Self {
        self.setup.instances = instances;
        self
    }

    /// Number of partitions of each topic that the topology reads or writes.
    #[must_use]
    pub fn partitions(mut self, partitions: i32) -> Self {
        self.setup.partitions = partitions;
        self
    }

    /// Decides in which order instances take their turns, and everything else that is random.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.setup.seed = seed;
        self
    }

    /// Changes the settings of all instances: number of workers, commit interval, policies for bad records. Identities and
    /// where state is kept stay as they are.
    #[must_use]
    pub fn settings(mut self, change: impl FnOnce(&mut InstanceSettings)) -> Self {
        change(&mut self.setup.settings);
        self.setup.settings.application_id = APPLICATION.to_owned();
        self.setup.settings.instance_id = None;
        self
    }

    /// What makes state durable. Strategies with snapshots get an object store that lives in the test.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.setup.settings.durability = durability;
        self
    }

    /// Has the strategy changed now and then while records are written, to one that the seed decides on.
    #[must_use]
    pub fn durability_changes(mut self) -> Self {
        self.setup.changes = true;
        self
    }

    /// Gives each instance an identity of its own in the group (`group.instance.id`), which it keeps over restarts.
    #[must_use]
    pub fn static_members(mut self) -> Self {
        self.setup.static_members = true;
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

    /// Changes what makes state durable, as one would in production: the instances start again one after the other with the new setting, while those
    /// that have it not yet go on. [`settle`](Self::settle) returns when every task has changed.
    ///
    /// ```
    /// # use tidegate::codec::{I64Be, Utf8};
    /// # use tidegate::durability::Durability;
    /// # use tidegate::record::Record;
    /// # use tidegate::testkit::TestCluster;
    /// # use tidegate::topology::{Builder, Topic};
    /// # let words = Topic::new("words", Utf8, Utf8);
    /// # let builder = Builder::new();
    /// # builder.stream(&words).group_by_key().count("count");
    /// # let topology = builder.build()?;
    /// let mut cluster = TestCluster::new(topology).instances(2).durability(Durability::ChangelogAndSnapshot);
    /// cluster.pipe(&words, Record::new("sleet".to_owned(), String::new(), 0));
    /// cluster.change_durability(Durability::Snapshot);
    /// cluster.pipe(&words, Record::new("sleet".to_owned(), String::new(), 1));
    /// cluster.settle();
    /// assert_eq!(cluster.look_up("count", Utf8, I64Be, &"sleet".to_owned()), Some(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// Where the new strategy needs an object store and the cluster was made without one: by a strategy without snapshots, and without
    /// [`durability_changes`](Self::durability_changes).
    pub fn change_durability(&mut self, to: Durability) {
        let world = self.world();
        assert!(
            !to.has_snapshots() || world.store.is_some(),
            "the cluster has no object store"
        );
        world.change_durability(to);
    }

    /// Starts one more instance; answers its number.
    pub fn start(&mut self) -> usize {
        self.world().add()
    }

    /// Stops an instance in order: barrier, commit, close, leave.
    pub fn stop(&mut self, instance: usize) {
        self.world().stop(instance);
    }

    /// Ends an instance at once, as `kill -9` would: its open transaction stays behind, and the group learns of it when the
    /// session is over. Its disk stays.
    pub fn crash(&mut self, instance: usize) {
        self.world().crash(instance);
    }

    /// Takes the disk from an instance that does not run: when it starts again, its state comes from the log.
    ///
    /// # Panics
    /// Where the instance runs.
    pub fn lose_disk(&mut self, instance: usize) {
        self.world().lose_disk(instance);
    }

    /// Lets an instance do nothing for a while, as a stopped virtual machine would, and then go on as if nothing had been.
    pub fn pause(&mut self, instance: usize, lasts: Duration) {
        self.world().pause(instance, lasts);
    }

    /// Cuts an instance off from the log for a while.
    pub fn partition(&mut self, instance: usize, lasts: Duration) {
        self.world().cut(instance, lasts);
    }

    /// The value that a store has under `key`, as it was committed and applied last; call [`settle`](Self::settle) before.
    /// `key_codec` and `value_codec` are those that the topology gives the store; the key is the one that the store's input is
    /// partitioned by.
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
    /// let mut cluster = TestCluster::new(topology).partitions(4);
    /// cluster.pipe(&words, Record::new("sleet".to_owned(), String::new(), 0));
    /// cluster.settle();
    /// assert_eq!(cluster.look_up("count", Utf8, I64Be, &"sleet".to_owned()), Some(1));
    /// assert_eq!(cluster.look_up("count", Utf8, I64Be, &"snow".to_owned()), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// Where there is no such store, or its bytes are not what the codecs say.
    pub fn look_up<KC: KeyCodec, VC: Codec>(
        &mut self,
        store: &str,
        key_codec: KC,
        value_codec: VC,
        key: &KC::Item,
    ) -> Option<VC::Item> {
        let mut bytes = Vec::new();
        key_codec
            .encode(key, &mut bytes)
            .unwrap_or_else(|error| panic!("a key of {store} cannot be encoded: {error}"));
        let value = self.world().look_up(store, &bytes, key_codec.partition_bytes(&bytes))?;
        let row = decode_row(&value_codec, &value);
        Some(
            row.map(|row| row.value)
                .unwrap_or_else(|error| panic!("a value of {store} cannot be decoded: {error}")),
        )
    }

    /// A digest of all state: the same rows in the same stores give the same, whatever instance has them. Of each task it is the copy of
    /// the latest epoch; after [`settle`](Self::settle) that is the committed one.
    pub fn state_digest(&mut self) -> u64 {
        self.world().state_digest()
    }

    /// Starts an instance again that was stopped or crashed, on what its disk has.
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

    /// Number of partitions of each topic that the topology reads or writes.
    pub fn partition_count(&self) -> i32 {
        self.setup.partitions
    }

    /// The clock of the cluster.
    pub fn clock(&mut self) -> Arc<VirtualClock> {
        self.world().clock()
    }

    /// Copies all objects of the cluster's object store.
    #[cfg(test)]
    pub(crate) fn copy_store(&mut self, to: &dyn crate::blob::BlobStore) {
        let store = self.world().store.clone().expect("a strategy with snapshots");
        for blob in store.objects() {
            let mut bytes = None;
            store.change(&blob.name, |object| bytes.clone_from(object));
            to.create(&blob.name, &bytes.expect("an object"))
                .expect("it takes everything");
        }
    }

    /// The log of the cluster.
    #[cfg(test)]
    pub(crate) fn log(&mut self) -> Arc<dyn crate::log::Log> {
        Arc::clone(&self.world().log) as _
    }

    pub(super) fn world(&mut self) -> &mut World {
        let Self { setup, world } = self;
        world.get_or_insert_with(|| World::new(setup))
    }
}
