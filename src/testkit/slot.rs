//! A place in a cluster where an instance runs, one after the other.

use std::sync::Arc;
use std::time::Duration;

use crate::blob::BlobStore;
use crate::instance::{Backend, Disk, InstanceError, InstanceSettings, Ports, SteppedInstance, Surroundings};
use crate::log::Log;
use crate::time::Clock;
use crate::topology::Topology;

use super::clock::{LocalClock, VirtualClock};
use super::disk::SimulatedDisk;
use super::lifeline::Lifeline;
use super::network::Network;
use super::seed::Seed;
use super::store::DistantStore;
use super::story::Story;

/// Of so many looks at work beside a worker some let nothing go on, where things go wrong: how many differs from process to process.
const HESITATION: u64 = 8;

/// What all slots of a cluster share.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) topology: Arc<Topology>,
    pub(super) settings: InstanceSettings,
    pub(super) clock: Arc<VirtualClock>,
    pub(super) story: Arc<Story>,
    /// For names.
    pub(super) names: Arc<Seed>,
    /// For the order of work.
    pub(super) order: Arc<Seed>,
    /// Whether things go wrong.
    pub(super) faults: bool,
}

/// What is around one place: its ways to log and object store, the life of its process, and its clock.
pub(super) struct Nearby {
    pub(super) network: Network,
    pub(super) blobs: Option<DistantStore>,
    pub(super) lifeline: Arc<Lifeline>,
    pub(super) clock: Arc<LocalClock>,
}

/// A place for an instance, with what outlives it.
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) instance: Option<SteppedInstance>,
    pub(super) network: Network,
    /// Its way to the object store, where there is one.
    pub(super) blobs: Option<DistantStore>,
    pub(super) disk: Arc<SimulatedDisk>,
    /// Of the process that runs here.
    pub(super) lifeline: Arc<Lifeline>,
    /// Of the machine.
    pub(super) clock: Arc<LocalClock>,
    /// The name that is kept on the disk.
    identity: String,
    pub(super) static_id: Option<String>,
    /// Not stepped before this.
    pub(super) paused_until: Duration,
    /// The part that stands still, and until when.
    pub(super) stalled: (usize, Duration),
    pub(super) full_until: Duration,
    /// When it comes back after a fault; `None` for one that the test itself ended.
    pub(super) back_at: Option<Duration>,
    /// A process that was replaced ends for good at this time.
    pub(super) doomed_at: Option<Duration>,
}

impl Slot {
    pub(super) fn new(name: String, surroundings: Nearby, identity: String) -> Self {
        let Nearby {
            network,
            blobs,
            lifeline,
            clock,
        } = surroundings;
        Self {
            name,
            instance: None,
            network,
            blobs,
            disk: Arc::new(SimulatedDisk::new(Arc::clone(&lifeline))),
            lifeline,
            clock,
            identity,
            static_id: None,
            paused_until: Duration::ZERO,
            stalled: (0, Duration::ZERO),
            full_until: Duration::ZERO,
            back_at: None,
            doomed_at: None,
        }
    }

    /// Starts a process here.
    pub(super) fn start(&mut self, site: &Site) -> Result<(), InstanceError> {
        let mut settings = site.settings.clone();
        settings.state.backend = Backend::Memory;
        settings.instance_id.clone_from(&self.static_id);
        let (names, order) = (Arc::clone(&site.names), Arc::clone(&site.order));
        let hesitates = site.faults;
        let pace = 1 + order.below(HESITATION);
        // A process that cannot reach the log at its start waits for that in real time, so it starts on a calm network.
        self.set_rough(false);
        self.lifeline.renew();
        let started = SteppedInstance::start(
            Arc::clone(&site.topology),
            settings,
            Surroundings {
                ports: Ports {
                    log: Arc::new(self.network.clone()) as Arc<dyn Log>,
                    blobs: self.blobs.clone().map(|blobs| Arc::new(blobs) as Arc<dyn BlobStore>),
                    clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
                },
                random: Arc::new(move || names.next()),
                turns: Arc::new(move || !hesitates || order.below(HESITATION) < pace),
                disk: Some(Disk {
                    states: Arc::clone(&self.disk) as _,
                    identity: self.identity.clone(),
                }),
            },
        );
        self.set_rough(site.faults);
        self.instance = Some(started?);
        self.paused_until = Duration::ZERO;
        self.stalled = (0, Duration::ZERO);
        self.back_at = None;
        Ok(())
    }

    /// Calls go wrong from now on, or no more.
    pub(super) fn set_rough(&self, rough: bool) {
        self.network.set_rough(rough);
        if let Some(blobs) = &self.blobs {
            blobs.set_rough(rough);
        }
    }

    /// The disk is gone, and with it the name that was kept on it.
    pub(super) fn lose_disk(&mut self, identity: String) {
        self.disk.wipe();
        self.identity = identity;
    }

    /// Ends the process at once, and takes note of what it has counted.
    pub(super) fn end(&mut self, story: &Story) {
        let Some(instance) = self.instance.take() else { return };
        let counters = instance.counters();
        for (kind, counter) in [
            ("a producer was fenced", &counters.fenced),
            ("an epoch was aborted", &counters.aborts),
            ("the outcome of a commit was unknown", &counters.unknown_commits),
            (
                "outputs parked behind a failed commit were dropped",
                &counters.parked_dropped,
            ),
            ("a static member was fenced", &counters.members_fenced),
            (
                "a rebalance was forced for orphaned partitions",
                &counters.rebalances_forced,
            ),
            ("a task started fresh", &counters.opened_fresh),
            ("a task was opened with a current disk", &counters.opened_current),
            ("a task's disk was brought up to date", &counters.opened_replayed),
            ("a task's disk was rebuilt", &counters.opened_rebuilt),
            ("a record was restored", &counters.restore_records),
            ("increments were stored", &counters.packs_stored),
            ("increments were spilled", &counters.spilled_epochs),
            ("a spilled increment was restored", &counters.restored_spilled),
            ("a base snapshot was made", &counters.snapshots),
            ("a base snapshot came to nothing", &counters.snapshots_failed),
            ("state was fetched from the repository", &counters.restored_bytes),
            ("objects were collected", &counters.objects_collected),
            ("a task changed its strategy", &counters.strategy_changes),
            ("a change of strategy began anew", &counters.strategy_changes_anew),
            ("an epoch was committed", &counters.commits),
        ] {
            story.happened_often(kind, counter.get());
        }
    }

    /// A number that grows while anything goes on here.
    pub(super) fn activity(&self) -> u64 {
        let Some(instance) = &self.instance else { return 0 };
        let counters = instance.counters();
        counters.records_processed.get()
            + counters.commits.get()
            + counters.aborts.get()
            + counters.restore_records.get()
            + counters.restored_bytes.get()
            + counters.snapshots.get()
            + counters.packs_stored.get()
            + counters.spilled_epochs.get()
            + counters.restored_spilled.get()
            + counters.opened_fresh.get()
            + counters.opened_current.get()
            + counters.opened_replayed.get()
            + counters.opened_rebuilt.get()
    }

    /// Whether the process, or a part of it, stands still.
    pub(super) fn is_held(&self, now: Duration) -> bool {
        self.paused_until > now || self.stalled.1 > now
    }

    pub(super) fn is_ready(&self, now: Duration) -> bool {
        match &self.instance {
            Some(instance) => {
                let counters = instance.counters();
                let applied = counters.apply_backlog.get() == 0 && counters.tasks_changing.get() == 0;
                instance.status().ready && applied && !self.is_held(now)
            }
            None => self.back_at.is_none(),
        }
    }
}
