//! Changes of the strategy while a cluster runs: the setting first, then one instance after the other starts again with it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::durability::Durability;

use super::seed::Seed;
use super::world::World;

/// Rounds between the restarts of two instances.
const ROUNDS_PER_RESTART: u32 = 24;
/// Records between two changes of the strategy, at most.
const RECORDS_PER_CHANGE: u64 = 120;
/// How long an instance is away that starts again.
const AWAY: Duration = Duration::from_millis(5);

/// What is left to do of changes, and when the next one comes.
pub(super) struct Changes {
    /// Decides on changes; `None` where only the test does.
    seed: Option<Seed>,
    records_until: u64,
    /// Instances that have still to start again.
    renewing: VecDeque<usize>,
}

impl Changes {
    pub(super) fn new(seed: Option<Seed>) -> Self {
        let records_until = seed.as_ref().map_or(0, |seed| seed.below(RECORDS_PER_CHANGE));
        Self {
            seed,
            records_until,
            renewing: VecDeque::new(),
        }
    }

    /// Whether every instance has the setting.
    pub(super) fn are_over(&self) -> bool {
        self.renewing.is_empty()
    }
}

impl World {
    /// From now on instances start with this strategy, and those that run start again one after the other.
    pub(super) fn change_durability(&mut self, to: Durability) {
        self.site
            .story
            .tell("*", format_args!("durability = {:?} from now on", to.word()));
        self.site.settings.durability = to;
        self.changes.renewing = (0..self.slots.len()).collect();
    }

    /// A record was written: perhaps it is time for another strategy.
    pub(super) fn change_now_and_then(&mut self) {
        let Some(seed) = &self.changes.seed else { return };
        if self.changes.records_until > 0 {
            self.changes.records_until -= 1;
            return;
        }
        let others = Durability::ALL
            .iter()
            .filter(|other| **other != self.site.settings.durability);
        let others: Vec<Durability> = others.copied().collect();
        let to = others[seed.below(others.len() as u64) as usize];
        self.changes.records_until = 1 + seed.below(RECORDS_PER_CHANGE);
        self.change_durability(to);
    }

    /// Has the next instance start again.
    pub(super) fn renew_next(&mut self) {
        if self.changes.renewing.is_empty() || !self.rounds.is_multiple_of(ROUNDS_PER_RESTART) {
            return;
        }
        let Some(number) = self.changes.renewing.pop_front() else {
            return;
        };
        let back_at = self.now() + AWAY;
        let slot = &mut self.slots[number];
        // One that was replaced ends anyway; one that is away comes back with the setting that there is then.
        if let Some(instance) = slot.instance.as_mut().filter(|_| slot.doomed_at.is_none()) {
            instance.stop();
            slot.back_at = Some(back_at);
            self.tell(number, "is to start again with another setting");
        }
    }
}
