//! Deleting what nobody refers to, by the rules and with the code of the collector that instances run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::blob::BlobInfo;
use crate::ids::{TaskId, TopicPartition};
use crate::log::Log;
use crate::time::Clock;
use crate::worker::{Collect, CollectJob, Repository, SnapshotError, SnapshotSettings};

use super::OfflineError;
use super::catalogue::Catalogue;
use super::kinds::{Kind, kind};

const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// Whose garbage it is.
pub struct Garbage<'a> {
    /// Where what is committed is read.
    pub log: Arc<dyn Log>,
    /// The consumer group.
    pub application: &'a str,
    /// The settings that the instances run with.
    pub settings: SnapshotSettings,
    /// How long an object has been nobody's before it goes.
    pub grace: Duration,
    /// A transaction that is open longer is aborted by the broker.
    pub transaction_timeout: Duration,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// An object that nobody refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unneeded {
    /// The object.
    pub blob: BlobInfo,
    /// Why it may go.
    pub why: &'static str,
}

impl Garbage<'_> {
    /// Finds what may go, and deletes it if `deletes`. `catalogue` says which tasks there are.
    ///
    /// Objects are listed first, then it is found out what is referred to, then what is left and old goes: this order is safe however long each
    /// step takes, and beside instances that do the same (invariant I11).
    ///
    /// # Errors
    /// [`OfflineError::Grace`], [`OfflineError::NotKnown`] where what is committed of any task cannot be found out; nothing is deleted then.
    pub fn collect(&self, catalogue: &Catalogue, deletes: bool) -> Result<Vec<Unneeded>, OfflineError> {
        self.check_grace()?;
        self.check_committed(catalogue)?;
        let mut settings = self.settings.clone();
        settings.retention.grace = self.grace;
        let repository = Arc::new(Repository {
            store: Arc::clone(&catalogue.store),
            settings,
            log: Arc::clone(&self.log),
            application_id: self.application.to_owned(),
            random: Arc::new(|| 0),
            clock: Arc::clone(&self.clock),
            instance: "gc".to_owned(),
        });
        let tasks = self.tasks(catalogue)?;
        let job = CollectJob {
            log: Arc::clone(&self.log),
            application_id: self.application.to_owned(),
            folders: tasks.keys().copied().collect(),
            tasks: tasks.into_iter().collect(),
            with_packs: true,
        };
        let mut collect = Collect::new(repository, job);
        if !deletes {
            collect = collect.only_looking();
        }
        let outcome = loop {
            if let Some(outcome) = collect.step() {
                break outcome;
            }
        };
        match outcome {
            Ok(_) => Ok(collect.unreferenced().into_iter().map(unneeded).collect()),
            Err(SnapshotError::Cancelled) => Err(self.not_known(
                catalogue,
                "what is committed of a task could not be read, perhaps since a transaction is open; try again"
                    .to_owned(),
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// What an attempt has written is nobody's until it is named. Instances give an attempt up that is older than half of their own grace, so
    /// no shorter one is safe while there are any.
    fn check_grace(&self) -> Result<(), OfflineError> {
        let too_short = |reason: String| OfflineError::Grace {
            grace_ms: u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX),
            reason,
        };
        let longest = self.transaction_timeout * 2;
        if self.grace < longest {
            return Err(too_short(format!(
                "a transaction may take {} ms (kafka.transaction_timeout), and twice that is the least",
                self.transaction_timeout.as_millis()
            )));
        }
        let running = self.settings.retention.grace;
        if self.grace < running
            && !self
                .log
                .admin()
                .group(self.application, ASK_TIMEOUT)?
                .assigned
                .is_empty()
        {
            return Err(too_short(format!(
                "instances run with snapshot.grace = {} ms, and what they are writing may be that old; stop them or wait that long",
                running.as_millis()
            )));
        }
        Ok(())
    }

    fn check_committed(&self, catalogue: &Catalogue) -> Result<(), OfflineError> {
        let pointers = catalogue.pointers(&*self.log, self.application)?;
        let unknown = pointers
            .iter()
            .find(|(task, pointer)| pointer.is_none() && !catalogue.bases_of(**task).is_empty());
        match unknown {
            None => Ok(()),
            Some((task, _)) => Err(self.not_known(
                catalogue,
                format!(
                    "there are base snapshots of task {task}, and the group {} has committed no offsets of it",
                    self.application
                ),
            )),
        }
    }

    fn not_known(&self, catalogue: &Catalogue, reason: String) -> OfflineError {
        let root = catalogue.root();
        OfflineError::NotKnown { root, reason }
    }

    /// All tasks of the sub-topologies that have written anything, also those that have written nothing: their number is that of the partitions
    /// of their inputs.
    fn tasks(&self, catalogue: &Catalogue) -> Result<BTreeMap<TaskId, TopicPartition>, OfflineError> {
        let known = catalogue.inputs();
        let mut tasks = known.clone();
        for (task, input) in &known {
            let topic = self.log.admin().topic(&input.topic, ASK_TIMEOUT)?;
            let partitions = topic.map_or(0, |topic| topic.partitions);
            for partition in 0..partitions {
                let other = TaskId {
                    sub_topology: task.sub_topology,
                    partition,
                };
                tasks
                    .entry(other)
                    .or_insert_with(|| TopicPartition::new(Arc::clone(&input.topic), partition));
            }
        }
        Ok(tasks)
    }
}

fn unneeded(blob: BlobInfo) -> Unneeded {
    let why = match kind(&blob.name) {
        Kind::Manifest(..) => "neither a commit nor a snapshot that is kept names it",
        Kind::File(_) => "no snapshot that is kept has it",
        Kind::Pack(_) => "its increments are older than all snapshots that are kept, or were never committed",
        Kind::Savepoint | Kind::Export | Kind::Stranger => "no snapshot that is kept names it",
    };
    Unneeded { blob, why }
}
