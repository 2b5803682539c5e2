//! What a test's cluster consists of, and its steps.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::{StoreId, TaskId};
use crate::instance::{InstanceError, InstanceSettings};
use crate::log::embedded::{EmbeddedLog, EmbeddedSettings, Waits};
use crate::partitioner::partition_for;
use crate::record::Record;
use crate::state::StateMeta;
use crate::time::Clock;
use crate::topology::{Topic, TopicRef, Topology};

use super::changes::Changes;
use super::clock::{LocalClock, VirtualClock};
use super::faults::Faults;
use super::lifeline::Lifeline;
use super::network::Network;
use super::outside::Outside;
use super::promises::Promises;
use super::rebuilt::Rebuilder;
use super::savepoints::Savepoints;
use super::seed::Seed;
use super::slot::{Nearby, Site, Slot};
use super::store::{DistantStore, SimulatedStore};
use super::story::Story;

pub(super) const APPLICATION: &str = "test";
/// Rounds after which a cluster that still has something to do is taken for stuck.
pub(super) const MAX_ROUNDS: u32 = 100_000;
/// Time that passes in a round even if nobody waits.
const ROUND: Duration = Duration::from_millis(1);
/// After so many rounds in which nothing went on, time passes faster.
pub(super) const QUIET_ROUNDS: u32 = 8;
/// Twice that in each further round, up to this: far below any session.
const LONGEST_QUIET: Duration = Duration::from_millis(250);
/// Of so many records piped in under faults one is followed by a round.
const ROUND_PER_RECORDS: u64 = 2;
/// Rounds between two looks at what must hold at any moment.
const ROUNDS_PER_CHECK: u32 = 32;

/// What a cluster is made by.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) topology: Arc<Topology>,
    pub(super) instances: usize,
    pub(super) partitions: i32,
    pub(super) seed: u64,
    pub(super) static_members: bool,
    pub(super) settings: InstanceSettings,
    /// Whether the strategy is changed now and then, by a restart of one instance after the other.
    pub(super) changes: bool,
    /// Whether things go wrong; and if so, which of them only.
    pub(super) faults: Option<Option<Arc<BTreeSet<u32>>>>,
}

/// A cluster that runs.
pub(super) struct World {
    pub(super) site: Site,
    pub(super) seed: u64,
    pub(super) static_members: bool,
    pub(super) log: Arc<EmbeddedLog>,
    pub(super) outside: Outside,
    /// The object store, where the strategy has one.
    pub(super) store: Option<Arc<SimulatedStore>>,
    pub(super) slots: Vec<Slot>,
    pub(super) faults: Option<Faults>,
    pub(super) activity: u64,
    /// Rounds without any activity.
    pub(super) quiet: u32,
    /// Those of them in which nobody stood still.
    pub(super) rested: u32,
    pub(super) rounds: u32,
    /// How long the next instance stands still that restores a task.
    pub(super) ambush: Option<Duration>,
    pub(super) savepoints: Savepoints,
    pub(super) changes: Changes,
}

impl World {
    pub(super) fn new(setup: &Setup) -> Self {
        let clock = Arc::new(VirtualClock::default());
        let embedded = EmbeddedSettings {
            transaction_timeout: setup.settings.transaction_timeout,
            waits: Waits::Never,
        };
        let log = EmbeddedLog::with_settings(Arc::clone(&clock) as Arc<dyn Clock>, embedded);
        let mut world = Self::on(setup, clock, log);
        for topic in world.external_topics() {
            world.outside.create(topic, setup.partitions);
        }
        for _ in 0..setup.instances {
            world.add();
        }
        world
    }

    /// A cluster without instances on a log that is there.
    pub(super) fn on(setup: &Setup, clock: Arc<VirtualClock>, log: Arc<EmbeddedLog>) -> Self {
        let faults = setup.faults.clone();
        let settings = &setup.settings;
        let has_store =
            settings.durability_with_snapshots().is_some() || !settings.savepoints.poll.is_zero() || setup.changes;
        let store = has_store.then(|| Arc::new(SimulatedStore::new(Arc::clone(&clock))));
        Self {
            site: Site {
                topology: Arc::clone(&setup.topology),
                settings: setup.settings.clone(),
                story: Arc::new(Story::new(Arc::clone(&clock))),
                clock,
                names: Arc::new(Seed::of(setup.seed, 1)),
                order: Arc::new(Seed::of(setup.seed, 2)),
                faults: faults.is_some(),
            },
            seed: setup.seed,
            static_members: setup.static_members,
            outside: Outside::new(Arc::clone(&log), &setup.settings.application_id),
            log,
            store,
            slots: Vec::new(),
            faults: faults.map(|only| Faults::new(Seed::of(setup.seed, 3), &Seed::of(setup.seed, 4), has_store, only)),
            activity: 0,
            quiet: 0,
            rested: 0,
            rounds: 0,
            ambush: None,
            savepoints: Savepoints::default(),
            changes: Changes::new(setup.changes.then(|| Seed::of(setup.seed, 5))),
        }
    }

    pub(super) fn clock(&self) -> Arc<VirtualClock> {
        Arc::clone(&self.site.clock)
    }

    pub(super) fn now(&self) -> Duration {
        self.site.clock.monotonic()
    }

    pub(super) fn story(&self) -> Arc<Story> {
        Arc::clone(&self.site.story)
    }

    /// What the instance has counted that runs at a place.
    #[cfg(test)]
    pub(super) fn counters(&self, number: usize) -> Arc<crate::worker::WorkerMetrics> {
        let instance = self.slots[number].instance.as_ref();
        instance.expect("the instance runs").counters()
    }

    /// Ends all instances, and takes note of what they have counted.
    pub(super) fn end(&mut self) {
        let story = self.story();
        self.slots.iter_mut().for_each(|slot| slot.end(&story));
    }

    /// How many faults were drawn.
    pub(super) fn faults_drawn(&self) -> u32 {
        self.faults.as_ref().map_or(0, Faults::drawn)
    }

    pub(super) fn tell(&self, number: usize, what: &str) {
        self.site.story.tell(&self.slots[number].name, format_args!("{what}"));
    }

    pub(super) fn external_topics(&self) -> Vec<Arc<str>> {
        let plan = self.site.topology.plan();
        let named = plan
            .sub_topologies
            .iter()
            .flat_map(|sub| sub.sources.iter().chain(&sub.sinks));
        let mut names: Vec<Arc<str>> = named
            .filter_map(|topic| match topic {
                TopicRef::External(name) => Some(Arc::clone(name)),
                TopicRef::Repartition(_) => None,
            })
            .collect();
        names.extend(self.site.settings.dead_letter_topic.as_deref().map(Arc::from));
        names.sort();
        names.dedup();
        names
    }

    // ------------------------------------------------------------------------------------------ instances

    /// Starts one more instance; answers its number.
    pub(super) fn add(&mut self) -> usize {
        let number = self.slots.len();
        let mut slot = self.new_slot(format!("instance {number}"));
        slot.static_id = self.static_members.then(|| format!("static-{number}"));
        self.slots.push(slot);
        self.start(number);
        number
    }

    pub(super) fn new_slot(&self, name: String) -> Slot {
        let purpose = 100 + self.slots.len() as u64;
        let lifeline = Arc::new(Lifeline::default());
        let network = Network::new(
            name.clone(),
            Arc::clone(&self.log),
            self.clock(),
            Seed::of(self.seed, purpose),
            self.story(),
            Arc::clone(&lifeline),
        );
        let way = |store: &Arc<SimulatedStore>| {
            let seed = Seed::of(self.seed, 10_000 + purpose);
            DistantStore::new(Arc::clone(store), seed, self.story(), Arc::clone(&lifeline))
        };
        let nearby = Nearby {
            network,
            blobs: self.store.as_ref().map(way),
            clock: Arc::new(LocalClock::new(self.clock())),
            lifeline,
        };
        Slot::new(name, nearby, self.new_identity())
    }

    pub(super) fn new_identity(&self) -> String {
        format!("{:016x}", self.site.names.next())
    }

    pub(super) fn start(&mut self, number: usize) {
        let slot = &mut self.slots[number];
        assert!(slot.instance.is_none(), "instance {number} runs already");
        if let Err(error) = slot.start(&self.site) {
            panic!("instance {number} cannot start: {error}");
        }
        self.tell(number, "starts");
    }

    pub(super) fn crash(&mut self, number: usize) {
        let story = self.story();
        self.slots[number].end(&story);
        self.slots[number].back_at = None;
        self.tell(number, "crashes");
    }

    pub(super) fn lose_disk(&mut self, number: usize) {
        assert!(self.slots[number].instance.is_none(), "instance {number} runs");
        let identity = self.new_identity();
        self.slots[number].lose_disk(identity);
        self.tell(number, "loses its disk");
    }

    pub(super) fn pause(&mut self, number: usize, lasts: Duration) {
        self.slots[number].paused_until = self.now() + lasts;
        self.tell(number, &format!("stands still for {lasts:?}"));
    }

    pub(super) fn cut(&mut self, number: usize, lasts: Duration) {
        self.slots[number].network.cut(lasts);
        self.tell(number, &format!("is cut off for {lasts:?}"));
    }

    pub(super) fn stop(&mut self, number: usize) {
        for _ in 0..MAX_ROUNDS {
            let Some(instance) = &mut self.slots[number].instance else {
                self.slots[number].back_at = None;
                return;
            };
            instance.stop();
            self.round_or_panic();
        }
        panic!("instance {number} does not stop: {}", self.statuses());
    }

    // ------------------------------------------------------------------------------------------ rounds

    /// Every part of every instance takes one step, in an order that the seed decides. An instance that fails is gone.
    pub(super) fn round(&mut self) -> Result<(), InstanceError> {
        self.pass_time();
        self.look_after_savepoints();
        self.renew_next();
        self.cause_faults();
        self.end_faults();
        let mut order: Vec<(usize, usize)> = Vec::new();
        for (number, slot) in self.slots.iter().enumerate() {
            let parts = slot.instance.as_ref().map_or(0, |instance| instance.parts());
            order.extend((0..parts).map(|part| (number, part)));
        }
        self.site.order.shuffle(&mut order);
        for (number, part) in order {
            self.step(number, part)?;
        }
        self.rounds += 1;
        if self.site.faults && self.rounds.is_multiple_of(ROUNDS_PER_CHECK) {
            self.promises().check();
        }
        Ok(())
    }

    pub(super) fn promises(&mut self) -> Promises<'_> {
        let (tasks, rebuilder) = (self.tasks(), self.rebuilder());
        Promises {
            application: &self.site.settings.application_id,
            plan: self.site.topology.plan(),
            tasks,
            outside: &mut self.outside,
            slots: &self.slots,
            rebuilder,
        }
    }

    /// Who restores from the object store, on a calm way to it.
    pub(super) fn rebuilder(&self) -> Option<Rebuilder> {
        let store = self.store.as_ref()?;
        let way = DistantStore::new(Arc::clone(store), Seed::new(0), self.story(), Arc::default());
        Some(Rebuilder {
            log: Arc::clone(&self.log),
            store: Arc::new(way),
            clock: self.clock(),
            settings: self.site.settings.clone(),
            plan: self.site.topology.fingerprint().to_owned(),
        })
    }

    fn step(&mut self, number: usize, part: usize) -> Result<(), InstanceError> {
        let now = self.now();
        let slot = &mut self.slots[number];
        let stalls = slot.stalled.0 == part && slot.stalled.1 > now;
        let Some(instance) = slot.instance.as_mut().filter(|_| slot.paused_until <= now && !stalls) else {
            return Ok(());
        };
        let lines = self.site.story.lines();
        let stepped = instance.step(part);
        if part == 0 && self.site.story.lines() > lines && !instance.counters().restores().is_empty() {
            self.site.story.happened("the group moved while a task was restored");
        }
        let finished = instance.is_finished();
        if slot.lifeline.has_ended() {
            slot.end(&self.site.story);
            self.site.story.happened("a process ended in the midst of a turn");
            self.tell(number, "has ended in the midst of a turn");
            return Ok(());
        }
        if part > 0
            && stepped.is_ok()
            && !instance.counters().restores().is_empty()
            && let Some(lasts) = self.ambush.take()
        {
            slot.paused_until = now + lasts;
            self.site
                .story
                .happened("an instance stood still while it restored a task");
            self.site.story.tell(
                &slot.name,
                format_args!("stands still for {lasts:?} in the midst of a restore"),
            );
        }
        match stepped {
            Ok(()) if finished => {
                slot.end(&self.site.story);
                self.tell(number, "has stopped");
            }
            Ok(()) => {}
            Err(error) => {
                slot.end(&self.site.story);
                let expected = slot.expects(&error, now);
                self.tell(number, &format!("fails: {error}"));
                if !expected {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// At least a little time passes; while nobody does anything, more of it.
    fn pass_time(&mut self) {
        let activity = self.activity_now();
        let now = self.now();
        let held = self.slots.iter().any(|slot| slot.is_held(now));
        // Base snapshots are made in many steps of which nothing is heard.
        let changing = |slot: &Slot| {
            let counters = slot.instance.as_ref().map(|instance| instance.counters());
            counters.is_some_and(|counters| counters.tasks_changing.get() > 0)
        };
        let is_quiet = activity == self.activity && !self.slots.iter().any(changing);
        (self.quiet, self.rested) = match (is_quiet, held) {
            (false, _) => (0, 0),
            (true, true) => (self.quiet + 1, 0),
            (true, false) => (self.quiet + 1, self.rested + 1),
        };
        self.activity = activity;
        let quiet = ROUND * 2_u32.saturating_pow(self.quiet.saturating_sub(QUIET_ROUNDS).min(10));
        self.site
            .clock
            .advance(self.until_somebody_runs().unwrap_or(quiet.min(LONGEST_QUIET)));
    }

    pub(super) fn activity_now(&self) -> u64 {
        let activity: u64 = self.slots.iter().map(Slot::activity).sum();
        activity + self.site.story.lines() as u64
    }

    /// How long nobody does anything, if that is so.
    fn until_somebody_runs(&self) -> Option<Duration> {
        let now = self.now();
        let next = self.slots.iter().filter_map(|slot| match slot.instance {
            Some(_) => Some(slot.paused_until),
            None => slot.back_at,
        });
        next.min()
            .map(|next| next.saturating_sub(now))
            .filter(|wait| !wait.is_zero())
    }

    pub(super) fn round_or_panic(&mut self) {
        if let Err(error) = self.round() {
            panic!("an instance stopped: {error}");
        }
    }

    // ------------------------------------------------------------------------------------------ records and state

    pub(super) fn pipe<K: 'static, V: 'static>(&mut self, topic: &Topic<K, V>, record: &Record<K, V>) {
        self.outside.write(topic, record);
        self.change_now_and_then();
        // What goes wrong should do so in the midst of work.
        if self.faults.is_some() && self.site.order.once_in(ROUND_PER_RECORDS) {
            self.round_or_panic();
        }
    }

    pub(super) fn read<K: 'static, V: 'static>(&mut self, topic: &Topic<K, V>) -> Vec<Record<K, V>> {
        self.outside.read(topic)
    }

    /// The bytes that the store has under `key`, as they were applied last; `partition_bytes` decide the task.
    pub(super) fn look_up(&self, store: &str, key: &[u8], partition_bytes: &[u8]) -> Option<Vec<u8>> {
        let plan = self.site.topology.plan();
        let subs = plan.sub_topologies.iter().enumerate();
        let found = subs.flat_map(|(sub, plan)| {
            let stores = plan.stores.iter().enumerate();
            stores.filter_map(move |(id, spec)| (spec.name == store).then_some((sub, id)))
        });
        let (sub, id) = found
            .into_iter()
            .next()
            .unwrap_or_else(|| panic!("there is no store {store}"));
        let task = TaskId {
            sub_topology: sub as u16,
            partition: partition_for(partition_bytes, self.outside.tasks_of(&plan.sub_topologies[sub]).max(1)),
        };
        let newest = |(meta, _): &(StateMeta, Option<Vec<u8>>)| meta.epoch;
        let copies = self
            .slots
            .iter()
            .filter_map(|slot| slot.disk.read(task, StoreId(id as u16), key));
        copies.max_by_key(newest).and_then(|(_, value)| value)
    }

    /// A digest of the rows of all stores, in order of task, store and key.
    pub(super) fn state_digest(&self) -> u64 {
        let mut digest = crc32fast::Hasher::new();
        let mut rows: u32 = 0;
        for task in self.tasks() {
            let copies = self.slots.iter().filter_map(|slot| slot.disk.contents(task));
            let Some((_, stores)) = copies.max_by_key(|(meta, _)| meta.epoch) else {
                continue;
            };
            for (store, entries) in stores.iter().enumerate() {
                for (key, value) in entries {
                    rows += 1;
                    digest.update(format!("{task} {store} {} {} ", key.len(), value.len()).as_bytes());
                    digest.update(key);
                    digest.update(value);
                }
            }
        }
        u64::from(digest.finalize()) << 32 | u64::from(rows)
    }
}
