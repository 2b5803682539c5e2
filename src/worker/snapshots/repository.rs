//! The repository as workers use it, and the small things that are read of it.

use std::sync::Arc;
use std::time::Duration;

use crate::blob::BlobStore;
use crate::durability::snapshot::{
    Attempt, ChainLimits, End, FOOTER_GUESS_BYTES, Footer, IncrementRef, Manifest, PackId, PackedTask, Place,
    Retention, SnapshotId, read_end,
};
use crate::ids::{Epoch, TaskId};
use crate::log::Log;
use crate::time::Clock;

use super::error::SnapshotError;
use super::lazy::RestoreMode;
use super::spilled::SpillReader;

/// Settings of the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSettings {
    /// When a base snapshot is made.
    pub limits: ChainLimits,
    /// How long snapshots are kept.
    pub retention: Retention,
    /// An epoch whose increment is not stored within this time is aborted. Shorter than a transaction may take.
    pub persist_timeout: Duration,
    /// Whether an increment that the store does not take goes to a spill topic.
    pub spill: bool,
    /// For so long the store is waited for before that.
    pub spill_after: Duration,
    /// Files of a database that are smaller share an object with others.
    pub small_file_bytes: u64,
    /// Time between two looks at the whole repository for what may be deleted.
    pub collect_interval: Duration,
    /// Whether a task waits for all files of a base before it runs.
    pub restore: RestoreMode,
    /// A read of a task that runs already waits for a file that it needs for so long; then the epoch is aborted.
    pub lazy_timeout: Duration,
}

/// The snapshot repository of an application; shared by the workers of an instance.
pub struct Repository {
    /// The application's folder.
    pub store: Arc<dyn BlobStore>,
    /// Settings.
    pub settings: SnapshotSettings,
    /// The log, for increments that were spilled to it.
    pub log: Arc<dyn Log>,
    /// Prefix of its spill topics.
    pub application_id: String,
    /// For names of attempts.
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The name of the instance in names of objects.
    pub instance: String,
}

/// A task's increments as the newest of them says, newest first.
pub(super) struct Links {
    /// All increments behind the epoch that was asked for, and perhaps some more.
    pub(super) increments: Vec<IncrementRef>,
    /// How many there have been since the lineage began, the newest included.
    pub(super) depth: u64,
    /// Bytes of those after the base that the newest one knew.
    pub(super) bytes: u64,
}

impl Repository {
    /// A name for the next attempt.
    pub(in crate::worker) fn attempt(&self) -> Attempt {
        Attempt((self.random)())
    }

    pub(super) fn manifest(&self, task: TaskId, id: SnapshotId) -> Result<Manifest, SnapshotError> {
        let object = id.manifest(task);
        Ok(Manifest::from_json(&self.store.read(&object)?, &object)?)
    }

    /// Who reads what a task has spilled.
    pub(super) fn spill_reader(&self, task: TaskId) -> SpillReader {
        SpillReader::new(&self.log, &self.application_id, task)
    }

    fn footer(&self, pack: &PackId) -> Result<Footer, SnapshotError> {
        let object = pack.object();
        let mut bytes = FOOTER_GUESS_BYTES;
        loop {
            match read_end(&self.store.read_end(&object, bytes)?, &object)? {
                End::Footer(footer) => return Ok(footer),
                End::Longer(needed) if needed > bytes => bytes = needed,
                End::Longer(_) => return Err(damaged(&object, "it is shorter than it says")),
            }
        }
    }

    /// What the pack of `increment` says about `task`, wherever it lies.
    fn packed(
        &self,
        task: TaskId,
        increment: &IncrementRef,
        spilled: &mut SpillReader,
    ) -> Result<PackedTask, SnapshotError> {
        let footer = match &increment.place {
            Place::Pack(pack) => self.footer(pack)?,
            Place::Spilled(id) => whole(&spilled.read(increment.epoch, *id)?, &increment.place_name())?,
        };
        packed_in(&footer, task, increment)
    }

    /// Follows the links from `newest` back until all increments after `from` are known.
    pub(super) fn links(&self, task: TaskId, newest: &IncrementRef, from: Epoch) -> Result<Links, SnapshotError> {
        let mut spilled = self.spill_reader(task);
        let mut packed = self.packed(task, newest, &mut spilled)?;
        let mut links = Links {
            increments: vec![newest.clone()],
            depth: packed.depth + 1,
            bytes: packed.chain_bytes,
        };
        loop {
            let object = links.increments[links.increments.len() - 1].place_name();
            let further = packed.links(&object)?;
            let leads_on = packed.depth > further.len() as u64;
            let before = links.increments[links.increments.len() - 1].epoch;
            if further.first().is_some_and(|first| first.epoch >= before) || (further.is_empty() && packed.depth > 0) {
                return Err(damaged(
                    &object,
                    "what it says of the increments before it is not in order",
                ));
            }
            links.increments.extend(further);
            let oldest = &links.increments[links.increments.len() - 1];
            if !leads_on || oldest.epoch <= from {
                return Ok(links);
            }
            packed = self.packed(task, oldest, &mut spilled)?;
        }
    }
}

/// The footer of a pack of which all bytes are here.
pub(super) fn whole(bytes: &[u8], object: &str) -> Result<Footer, SnapshotError> {
    match read_end(bytes, object)? {
        End::Footer(footer) => Ok(footer),
        End::Longer(_) => Err(damaged(object, "it is shorter than it says")),
    }
}

pub(super) fn packed_in(footer: &Footer, task: TaskId, increment: &IncrementRef) -> Result<PackedTask, SnapshotError> {
    let object = increment.place_name();
    let packed = footer
        .of(task)
        .ok_or_else(|| damaged(&object, &format!("it has nothing of task {task}")))?;
    if packed.epoch() != increment.epoch {
        let reason = format!(
            "it has epoch {} of task {task}, not {}",
            packed.epoch(),
            increment.epoch
        );
        return Err(damaged(&object, &reason));
    }
    Ok(packed.clone())
}

pub(super) fn damaged(object: &str, reason: &str) -> SnapshotError {
    SnapshotError::Object(crate::durability::snapshot::FormatError::Damaged {
        object: object.to_owned(),
        reason: reason.to_owned(),
    })
}
