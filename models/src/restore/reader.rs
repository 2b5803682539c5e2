//! The local disk, and the replay of the changelog (`src/worker/opening.rs`).

use std::collections::BTreeMap;

use tidegate::durability::{Decision, Durability, Pointer, decide};
use tidegate::ids::{Epoch, Lineage};
use tidegate::invariants::restore_is_complete;
use tidegate::state::StateMeta;

use super::log::{Entry, KEYS, Log};
use super::rules::Rules;
use super::{Model, State};

/// A wall clock far behind the retention of deletions of a disk written at 0.
const NOW_MS: i64 = i64::MAX / 2;

/// The local disk.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Hash)]
pub struct Disk {
    /// Whether there is one.
    pub exists: bool,
    /// The epoch that it says it holds.
    pub epoch: u8,
    /// The offset of the changelog from which on it lacks records.
    pub offset: u8,
    /// Per key the epoch that wrote its row, 0 for none.
    pub values: [u8; KEYS],
    /// Whether it was last written before deletions that the changelog has forgotten.
    pub is_old: bool,
}

impl Disk {
    /// A disk that has everything that is committed.
    pub fn at(log: &Log) -> Self {
        Self {
            exists: true,
            epoch: log.epoch,
            offset: log.end(),
            values: log.values,
            is_old: false,
        }
    }

    fn meta(&self) -> Option<StateMeta> {
        self.exists.then(|| StateMeta {
            lineage: Lineage(1),
            epoch: Epoch(u64::from(self.epoch)),
            ended_ms: if self.is_old { 0 } else { NOW_MS },
            cut: BTreeMap::new(),
            changelog: BTreeMap::new(),
        })
    }
}

/// A replay under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reader {
    /// The next offset to read.
    pub position: u8,
    /// The high watermark when it began.
    pub high_watermark: u8,
    /// Where it is to end.
    target: u8,
    /// The offset after the last record that it got.
    delivered: u8,
}

impl Reader {
    /// Whether the replay may end here.
    pub fn may_finish(&self, log: &Log, rules: &Rules) -> bool {
        if !rules.ends_by_position {
            return self.delivered == self.target;
        }
        if !rules.ignores_partition_eof && self.position == log.last_stable() {
            return true;
        }
        match rules.compares_at_least {
            true => self.position >= self.target,
            false => self.position == self.target,
        }
    }
}

/// Where the restore is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Not begun; the former owner may still write.
    Before,
    /// Reading.
    Reading(Reader),
    /// The task is open.
    Done,
    /// The task must not start, and says so.
    Refused,
}

impl Model {
    /// `Opener::bring_up`, up to the first fetch.
    pub(super) fn begin(&self, state: &mut State) {
        let (log, disk) = (&state.log, &mut state.disk);
        let pointer = Pointer {
            lineage: Lineage(1),
            epoch: Epoch(u64::from(log.epoch)),
            plan: String::new(),
            durability: Durability::Changelog,
            state: Default::default(),
            since: None,
        };
        if !self.rules.rebuilds_old_disks {
            disk.is_old = false;
        }
        let from = match decide(disk.meta().as_ref(), Some(&pointer), NOW_MS) {
            Ok(Decision::Current) => return state.phase = Phase::Done,
            Ok(Decision::Replay { .. }) => disk.offset,
            Ok(Decision::Fresh | Decision::Rebuild { .. }) => {
                *disk = Disk {
                    exists: true,
                    offset: log.low,
                    values: log.base,
                    ..Disk::default()
                };
                log.low
            }
            Err(_) => return state.phase = Phase::Refused,
        };
        if from < log.low && self.rules.out_of_range_is_an_error {
            state.phase = Phase::Refused;
            return;
        }
        if !self.rules.marks_the_disk_last {
            disk.epoch = log.epoch;
        }
        let target = match self.rules.ends_at_high_watermark {
            true => log.end(),
            false => log.last_stable(),
        };
        state.phase = Phase::Reading(Reader {
            position: from,
            high_watermark: log.end(),
            target,
            delivered: from,
        });
    }

    /// The reader goes on by one offset, or to the last stable one. It gets committed records; everything else it only passes.
    pub(super) fn fetch(&self, state: &mut State, all: bool) {
        let Phase::Reading(reader) = &mut state.phase else {
            return;
        };
        let (log, disk) = (&state.log, &mut state.disk);
        if reader.position < log.low {
            match self.rules.out_of_range_is_an_error {
                true => state.phase = Phase::Refused,
                false => reader.position = log.low,
            }
            return;
        }
        let stable = log.last_stable();
        while reader.position < stable {
            if let Entry::Committed(key, value) = log.entry(reader.position) {
                disk.values[usize::from(key)] = value;
                disk.offset = reader.position + 1;
                reader.delivered = reader.position + 1;
            }
            reader.position += 1;
            if !all {
                break;
            }
        }
    }

    /// The disk gets the committed epoch's mark.
    pub(super) fn finish(&self, state: &mut State) {
        let Phase::Reading(reader) = &state.phase else {
            return;
        };
        let (position, high) = (i64::from(reader.position), i64::from(reader.high_watermark));
        state.broken.note(restore_is_complete(position, high));
        state.disk.offset = reader.position;
        state.disk.epoch = state.log.epoch;
        state.phase = Phase::Done;
    }
}
