//! Which packs of a worker hold something that a task may still need: what nobody needs any more is deleted without a look at the repository.

use std::collections::VecDeque;

use crate::durability::snapshot::PackId;
use crate::ids::{Epoch, TaskId};

/// Packs that are remembered at most; of older ones only the collector knows.
const MOST: usize = 200_000;

/// The packs that committed epochs of this worker have named, oldest first, and the tasks that need them.
#[derive(Debug, Default)]
pub(super) struct PackUses {
    packs: VecDeque<(PackId, Vec<(TaskId, Epoch)>)>,
}

impl PackUses {
    /// A commit has named a pack that has these epochs of these tasks.
    pub(super) fn add(&mut self, pack: PackId, uses: Vec<(TaskId, Epoch)>) {
        if self.packs.len() >= MOST {
            self.packs.pop_front();
        }
        self.packs.push_back((pack, uses));
    }

    /// A task needs nothing up to this epoch any more. Answers the packs that nobody needs now.
    pub(super) fn release(&mut self, task: TaskId, upto: Epoch) -> Vec<PackId> {
        let mut free = Vec::new();
        self.packs.retain_mut(|(pack, uses)| {
            uses.retain(|(user, epoch)| *user != task || *epoch > upto);
            if uses.is_empty() {
                free.push(pack.clone());
            }
            !uses.is_empty()
        });
        free
    }

    /// A task belongs to somebody else from now on: when its packs may go is not known here.
    pub(super) fn forget(&mut self, task: TaskId) {
        self.packs
            .retain(|(_, uses)| uses.iter().all(|(user, _)| *user != task));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durability::snapshot::{Attempt, WriterName};

    fn pack(sequence: u64) -> PackId {
        PackId {
            writer: WriterName::new("host", "worker-0"),
            sequence,
            attempt: Attempt(sequence),
        }
    }

    fn task(partition: i32) -> TaskId {
        TaskId {
            sub_topology: 0,
            partition,
        }
    }

    #[test]
    fn a_pack_is_free_when_the_last_of_its_tasks_has_let_go_of_it() {
        let mut uses = PackUses::default();
        uses.add(pack(1), vec![(task(0), Epoch(1)), (task(1), Epoch(7))]);
        uses.add(pack(2), vec![(task(0), Epoch(2))]);
        uses.add(pack(3), vec![(task(0), Epoch(3))]);
        assert_eq!(uses.release(task(0), Epoch(2)), [pack(2)]);
        assert_eq!(uses.release(task(1), Epoch(6)), []);
        assert_eq!(uses.release(task(1), Epoch(7)), [pack(1)]);
        assert_eq!(uses.release(task(0), Epoch(9)), [pack(3)]);
    }

    #[test]
    fn packs_of_a_task_that_has_moved_are_left_to_the_collector() {
        let mut uses = PackUses::default();
        uses.add(pack(1), vec![(task(0), Epoch(1)), (task(1), Epoch(7))]);
        uses.add(pack(2), vec![(task(1), Epoch(8))]);
        uses.forget(task(0));
        assert_eq!(uses.release(task(1), Epoch(8)), [pack(2)]);
    }
}
