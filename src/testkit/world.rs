//! What a test's cluster consists of, and its steps.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::{StoreId, TaskId, TopicPartition};
use crate::instance::{InstanceError, InstanceSettings};
use crate::log::embedded::{EmbeddedLog, EmbeddedSettings, Waits};
use crate::partitioner::partition_for;
use crate::record::Record;
use crate::state::{StateError, StateMeta};
use crate::time::Clock;
use crate::topology::{Topic, TopicRef, Topology};
use crate::worker::WorkerError;

use super::clock::VirtualClock;
use super::faults::{Fault, Faults, Next};
use super::network::Network;
use super::outside::Outside;
use super::promises::Promises;
use super::seed::Seed;
use super::slot::{Site, Slot};
use super::story::Story;

pub(super) const APPLICATION: &str = "test";
/// Steps of time in which instances are stepped while time is moved.
const STRIDE: Duration = Duration::from_millis(500);
/// Rounds after which a cluster that still has something to do is taken for stuck.
const MAX_ROUNDS: u32 = 100_000;
/// Time that passes in a round even if nobody waits.
const ROUND: Duration = Duration::from_millis(1);
/// After so many rounds in which nothing went on, time passes faster.
const QUIET_ROUNDS: u32 = 8;
/// Rounds without any activity, and in which nobody stood still, that are taken for rest.
const REST_ROUNDS: u32 = 2;
/// Twice that in each further round, up to this: far below any session.
const LONGEST_QUIET: Duration = Duration::from_millis(250);
/// Of so many records piped in under faults one is followed by a round.
const ROUND_PER_RECORDS: u64 = 2;
/// How long a replaced process goes on after it has stood still.
const AFTERLIFE: Duration = Duration::from_secs(3);
/// Rounds between two looks at what must hold at any moment.
const ROUNDS_PER_CHECK: u32 = 32;
/// The longest that all machines sleep.
const LONGEST_SLEEP_MS: u64 = 4 * 3_600_000;

/// What a cluster is made by.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) topology: Arc<Topology>,
    pub(super) instances: usize,
    pub(super) partitions: i32,
    pub(super) seed: u64,
    pub(super) static_members: bool,
    pub(super) settings: InstanceSettings,
    /// Whether things go wrong; and if so, which of them only.
    pub(super) faults: Option<Option<Arc<BTreeSet<u32>>>>,
}

/// A cluster that runs.
pub(super) struct World {
    site: Site,
    seed: u64,
    static_members: bool,
    log: Arc<EmbeddedLog>,
    outside: Outside,
    slots: Vec<Slot>,
    faults: Option<Faults>,
    activity: u64,
    /// Rounds without any activity.
    quiet: u32,
    /// Those of them in which nobody stood still.
    rested: u32,
    rounds: u32,
    /// How long the next instance stands still that restores a task.
    ambush: Option<Duration>,
}

impl World {
    pub(super) fn new(setup: &Setup) -> Self {
        let clock = Arc::new(VirtualClock::default());
        let embedded = EmbeddedSettings {
            transaction_timeout: setup.settings.transaction_timeout,
            waits: Waits::Never,
        };
        let log = EmbeddedLog::with_settings(Arc::clone(&clock) as Arc<dyn Clock>, embedded);
        let faults = setup.faults.clone();
        let mut world = Self {
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
            outside: Outside::new(Arc::clone(&log)),
            log,
            slots: Vec::new(),
            faults: faults.map(|only| Faults::new(Seed::of(setup.seed, 3), only)),
            activity: 0,
            quiet: 0,
            rested: 0,
            rounds: 0,
            ambush: None,
        };
        for topic in world.external_topics() {
            world.outside.create(topic, setup.partitions);
        }
        for _ in 0..setup.instances {
            world.add();
        }
        world
    }

    pub(super) fn clock(&self) -> Arc<VirtualClock> {
        Arc::clone(&self.site.clock)
    }

    fn now(&self) -> Duration {
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

    fn tell(&self, number: usize, what: &str) {
        self.site.story.tell(&self.slots[number].name, format_args!("{what}"));
    }

    fn external_topics(&self) -> Vec<Arc<str>> {
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

    fn new_slot(&self, name: String) -> Slot {
        let purpose = 100 + self.slots.len() as u64;
        let network = Network::new(
            name.clone(),
            Arc::clone(&self.log),
            self.clock(),
            Seed::of(self.seed, purpose),
            self.story(),
        );
        Slot::new(name, network, self.new_identity())
    }

    fn new_identity(&self) -> String {
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

    fn promises(&mut self) -> Promises<'_> {
        Promises {
            plan: self.site.topology.plan(),
            outside: &mut self.outside,
            slots: &self.slots,
        }
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
        (self.quiet, self.rested) = match (activity == self.activity, held) {
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

    fn activity_now(&self) -> u64 {
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

    // ------------------------------------------------------------------------------------------ faults

    /// Something goes wrong, if it is time for that.
    fn cause_faults(&mut self) {
        let quiet = self.quiet > QUIET_ROUNDS;
        let fault = self.faults.as_mut().and_then(|faults| faults.next(quiet));
        let Some(fault) = fault else { return };
        let lasts = fault.lasts;
        match fault.kind {
            Fault::Outage => {
                for slot in &self.slots {
                    slot.network.cut(lasts);
                }
                self.tell_fault(&fault, "nobody reaches the log");
                return;
            }
            Fault::Sleep => {
                let by = Duration::from_millis(fault.part % LONGEST_SLEEP_MS);
                self.tell_fault(&fault, &format!("all machines sleep for {by:?}"));
                self.site.clock.advance(by);
                return;
            }
            Fault::Ambush => {
                self.ambush = Some(self.site.settings.session_timeout + lasts / 4);
                self.tell_fault(&fault, "the next instance that restores a task stands still");
                return;
            }
            _ => {}
        }
        if let Some(number) = self.victim(fault.victim) {
            self.cause(number, &fault);
        }
    }

    /// Whom a fault meets. Half of the faults look for an instance that restores a task: those are rare, and it is difficult there.
    fn victim(&self, number: u64) -> Option<usize> {
        let running = |index: &usize| self.slots[*index].instance.is_some();
        let restores = |index: &usize| {
            let instance = self.slots[*index].instance.as_ref();
            instance.is_some_and(|instance| !instance.counters().restores().is_empty())
        };
        let restoring: Vec<usize> = (0..self.slots.len()).filter(restores).collect();
        let among = match number % 2 {
            0 if !restoring.is_empty() => restoring,
            _ => (0..self.slots.len()).collect(),
        };
        let victim = among[(number / 2 % among.len() as u64) as usize];
        Some(victim).filter(running)
    }

    fn tell_fault(&self, fault: &Next, what: &str) {
        let (ordinal, lasts) = (fault.ordinal, fault.lasts);
        self.site
            .story
            .tell("*", format_args!("fault {ordinal}, for {lasts:?}: {what}"));
    }

    fn cause(&mut self, number: usize, fault: &Next) {
        let now = self.now();
        let until = now + fault.lasts;
        self.tell_fault(fault, &format!("{} meets {:?}", self.slots[number].name, fault.kind));
        let story = self.story();
        let identity = self.new_identity();
        let slot = &mut self.slots[number];
        match fault.kind {
            Fault::Crash => slot.end(&story),
            Fault::PowerCut => {
                slot.end(&story);
                if slot.disk.lose_power(&self.site.order) > 0 {
                    story.happened("a power failure took applied epochs");
                }
            }
            Fault::MachineLoss => {
                slot.end(&story);
                slot.lose_disk(identity);
            }
            Fault::Stop => {
                if let Some(instance) = &mut slot.instance {
                    instance.stop();
                }
            }
            Fault::Pause => slot.paused_until = until,
            Fault::Stall => {
                let parts = slot.instance.as_ref().map_or(1, |instance| instance.parts());
                // Longer than the budget of a revocation, at times.
                slot.stalled = ((fault.part % parts as u64) as usize, now + fault.lasts * 3);
            }
            // One that was replaced is not replaced again: two that go on under one name are nobody's fault but the operator's.
            Fault::Replace if slot.doomed_at.is_some() => return,
            Fault::Replace => return self.replace(number, until),
            Fault::Cut => slot.network.cut(fault.lasts),
            Fault::LostAnswer => slot.network.lose_answer(),
            Fault::FullDisk => {
                slot.disk.set_full(true);
                slot.full_until = until;
            }
            Fault::Outage | Fault::Sleep | Fault::Ambush => {}
        }
        slot.back_at = Some(until);
    }

    /// The process goes on elsewhere with all it has, after standing still; here another takes its place, without a disk.
    fn replace(&mut self, number: usize, until: Duration) {
        let mut fresh = self.new_slot(format!("{}+", self.slots[number].name));
        fresh.static_id.clone_from(&self.slots[number].static_id);
        fresh.back_at = Some(self.now());
        let mut old = std::mem::replace(&mut self.slots[number], fresh);
        old.paused_until = until;
        old.doomed_at = Some(until + AFTERLIFE);
        self.slots.push(old);
    }

    /// What lasted long enough is over.
    fn end_faults(&mut self) {
        let now = self.now();
        let all_over = self.faults.as_ref().is_some_and(Faults::are_over);
        for number in 0..self.slots.len() {
            let slot = &mut self.slots[number];
            slot.network.deliver();
            if slot.full_until > Duration::ZERO && (slot.full_until <= now || all_over) {
                slot.full_until = Duration::ZERO;
                slot.disk.set_full(false);
            }
            if slot.doomed_at.is_some_and(|doomed_at| doomed_at <= now) && slot.instance.is_some() {
                let story = self.story();
                self.slots[number].end(&story);
                self.slots[number].back_at = None;
                self.tell(number, "ends for good");
                continue;
            }
            let is_due = slot.back_at.is_some_and(|back_at| back_at <= now);
            if is_due && slot.doomed_at.is_some() {
                slot.back_at = None;
            } else if is_due && slot.instance.is_none() && !slot.network.is_cut() && slot.full_until == Duration::ZERO {
                self.start(number);
            }
        }
    }

    /// From now on the networks are calm, or not.
    fn calm(&self, calm: bool) {
        for slot in &self.slots {
            slot.network.set_rough(!calm);
            if calm {
                slot.network.mend();
            }
        }
    }

    // ------------------------------------------------------------------------------------------ time and rest

    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.now() + by;
        while self.now() < end {
            let rest = end - self.now();
            self.site.clock.advance(rest.min(STRIDE));
            self.round_or_panic();
        }
    }

    pub(super) fn settle(&mut self) -> Option<InstanceError> {
        let settled = self.come_to_rest();
        if settled.is_none() {
            self.promises().check_at_rest();
        }
        self.ambush = None;
        if let Some(faults) = &mut self.faults {
            faults.begin_anew();
            self.calm(false);
        }
        settled
    }

    fn come_to_rest(&mut self) -> Option<InstanceError> {
        for _ in 0..MAX_ROUNDS {
            let nobody = self
                .slots
                .iter()
                .all(|slot| slot.instance.is_none() && slot.back_at.is_none());
            let over = self.faults.as_ref().is_none_or(Faults::are_over);
            if self.faults.is_some() && over {
                self.calm(true);
            }
            if nobody || (over && self.is_settled()) {
                return None;
            }
            if let Err(error) = self.round() {
                return Some(error);
            }
        }
        panic!("the cluster does not come to rest: {}", self.statuses());
    }

    fn is_settled(&self) -> bool {
        let now = self.now();
        // In rounds without any activity every member has asked the group, and nobody holds what he does not know to be lost.
        self.rested >= REST_ROUNDS
            && self.activity == self.activity_now()
            && self.slots.iter().all(|slot| {
                slot.is_ready(now) && !slot.network.is_busy() && (slot.doomed_at.is_none() || slot.instance.is_none())
            })
            && self.runs_every_task()
            && self.outside.is_consumed(APPLICATION, &self.sources())
            && self.external_topics().iter().all(|topic| self.outside.is_stable(topic))
    }

    fn runs_every_task(&self) -> bool {
        let running = self.slots.iter().filter_map(|slot| slot.instance.as_ref());
        let running: i64 = running.map(|instance| instance.counters().tasks_running.get()).sum();
        let subs = self.site.topology.plan().sub_topologies.len();
        let tasks: i32 = (0..subs).map(|sub| self.tasks_of(sub)).sum();
        running == i64::from(tasks)
    }

    /// The number of tasks of a sub-topology: its largest source decides.
    fn tasks_of(&self, sub: usize) -> i32 {
        let sources = self.site.topology.plan().sub_topologies[sub].sources.iter();
        let partitions = sources.map(|topic| self.outside.partitions_of(&topic.full_name(APPLICATION)));
        partitions.max().unwrap_or(0)
    }

    fn sources(&self) -> Vec<TopicPartition> {
        let subs = self.site.topology.plan().sub_topologies.iter();
        let topics = subs.flat_map(|sub| sub.sources.iter());
        let mut sources = Vec::new();
        for topic in topics {
            let name = topic.full_name(APPLICATION);
            let partitions = 0..self.outside.partitions_of(&name);
            sources.extend(partitions.map(|partition| TopicPartition::new(Arc::clone(&name), partition)));
        }
        sources
    }

    fn statuses(&self) -> String {
        let status = |slot: &Slot| match &slot.instance {
            Some(instance) => format!("{}: {}", slot.name, instance.status().detail),
            None => format!("{}: gone", slot.name),
        };
        let statuses: Vec<String> = self.slots.iter().map(status).collect();
        let is_consumed = |partition: &TopicPartition| {
            let one = std::slice::from_ref(partition);
            self.outside.is_consumed(APPLICATION, one)
        };
        let waiting = self.sources().into_iter().filter(|partition| !is_consumed(partition));
        let waiting: Vec<String> = waiting.map(|partition| partition.to_string()).collect();
        format!("{}; not consumed: {}", statuses.join(", "), waiting.join(" "))
    }

    // ------------------------------------------------------------------------------------------ records and state

    pub(super) fn pipe<K: 'static, V: 'static>(&mut self, topic: &Topic<K, V>, record: &Record<K, V>) {
        self.outside.write(topic, record);
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
            partition: partition_for(partition_bytes, self.tasks_of(sub).max(1)),
        };
        let newest = |(meta, _): &(StateMeta, Option<Vec<u8>>)| meta.epoch;
        let copies = self
            .slots
            .iter()
            .filter_map(|slot| slot.disk.read(task, StoreId(id as u16), key));
        copies.max_by_key(newest).and_then(|(_, value)| value)
    }
}

impl Slot {
    /// Whether a failure is what a fault leads to.
    fn expects(&mut self, error: &InstanceError, now: Duration) -> bool {
        let full = matches!(
            error,
            InstanceError::State(StateError::DiskFull { .. })
                | InstanceError::Worker(WorkerError::State(StateError::DiskFull { .. }))
        );
        let replaced = matches!(error, InstanceError::InstanceIdTaken { .. });
        let expected = full || replaced;
        if expected && self.doomed_at.is_none() {
            self.back_at = Some(now + Duration::from_secs(1));
        }
        expected
    }
}
