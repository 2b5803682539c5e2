//! How a cluster comes to rest, and how one knows.

use std::sync::Arc;
use std::time::Duration;

use crate::ids::{TaskId, TopicPartition};
use crate::instance::{Guarantee, InstanceError, SteppedInstance};

use super::faults::Faults;
use super::slot::Slot;
use super::world::{MAX_ROUNDS, World};

/// Steps of time in which instances are stepped while time is moved.
const STRIDE: Duration = Duration::from_millis(500);
/// Rounds without any activity, and in which nobody stood still, that are taken for rest.
const REST_ROUNDS: u32 = 2;

impl World {
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
        // It compares all state, which a test that settles after each record would feel; and without transactions a changelog may
        // be ahead of what is committed.
        let exactly_once = self.site.settings.guarantee == Guarantee::ExactlyOnce;
        if settled.is_none() && self.site.faults && exactly_once {
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

    pub(super) fn is_settled(&self) -> bool {
        let now = self.now();
        // In rounds without any activity every member has asked the group, and nobody holds what he does not know to be lost.
        self.rested >= REST_ROUNDS
            && self.changes.are_over()
            && self.activity == self.activity_now()
            && self.slots.iter().all(|slot| {
                slot.is_ready(now) && !slot.network.is_busy() && (slot.doomed_at.is_none() || slot.instance.is_none())
            })
            && self.runs_every_task()
            && self
                .outside
                .is_consumed(&self.site.settings.application_id, &self.sources())
            && self.external_topics().iter().all(|topic| self.outside.is_stable(topic))
    }

    /// Whether each task runs once: one that a worker has lost and does not know of would hide one that nobody runs.
    pub(super) fn runs_every_task(&self) -> bool {
        let running = self.slots.iter().filter_map(|slot| slot.instance.as_ref());
        let mut running: Vec<TaskId> = running.flat_map(SteppedInstance::running_tasks).collect();
        running.sort_unstable();
        running == self.tasks()
    }

    /// All tasks, in order.
    pub(super) fn tasks(&self) -> Vec<TaskId> {
        let subs = self.site.topology.plan().sub_topologies.iter().enumerate();
        let tasks = subs.flat_map(|(sub, plan)| {
            (0..self.outside.tasks_of(plan)).map(move |partition| TaskId {
                sub_topology: sub as u16,
                partition,
            })
        });
        tasks.collect()
    }

    pub(super) fn sources(&self) -> Vec<TopicPartition> {
        let subs = self.site.topology.plan().sub_topologies.iter();
        let topics = subs.flat_map(|sub| sub.sources.iter());
        let mut sources = Vec::new();
        for topic in topics {
            let name = topic.full_name(&self.site.settings.application_id);
            let partitions = 0..self.outside.partitions_of(&name);
            sources.extend(partitions.map(|partition| TopicPartition::new(Arc::clone(&name), partition)));
        }
        sources
    }

    pub(super) fn statuses(&self) -> String {
        let status = |slot: &Slot| match &slot.instance {
            Some(instance) => {
                let counters = instance.counters();
                let (changing, failed) = (counters.tasks_changing.get(), counters.snapshots_failed.get());
                let detail = instance.status().detail;
                format!(
                    "{}: {detail}, {changing} changing their strategy, {failed} bases failed",
                    slot.name
                )
            }
            None => format!("{}: gone", slot.name),
        };
        let statuses: Vec<String> = self.slots.iter().map(status).collect();
        let is_consumed = |partition: &TopicPartition| {
            let one = std::slice::from_ref(partition);
            self.outside.is_consumed(&self.site.settings.application_id, one)
        };
        let waiting = self.sources().into_iter().filter(|partition| !is_consumed(partition));
        let waiting: Vec<String> = waiting.map(|partition| partition.to_string()).collect();
        format!("{}; not consumed: {}", statuses.join(", "), waiting.join(" "))
    }
}
