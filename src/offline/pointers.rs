//! What Kafka says is committed of the tasks in a repository.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::durability::Pointer;
use crate::durability::snapshot::Manifest;
use crate::ids::{TaskId, TopicPartition};
use crate::log::Log;

use super::OfflineError;
use super::catalogue::Catalogue;

const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// By task, what the group has committed; `None` where it has committed nothing of the task.
pub type Pointers = BTreeMap<TaskId, Option<Pointer>>;

impl Catalogue {
    /// One input partition of each task that the repository knows, as its base snapshots or increments say.
    pub fn inputs(&self) -> BTreeMap<TaskId, TopicPartition> {
        let mut inputs = BTreeMap::new();
        for (pack, footer) in &self.packs {
            for packed in &footer.tasks {
                let cut = packed.meta(&pack.object()).map(|meta| meta.cut);
                let input = cut.ok().and_then(|cut| cut.into_keys().next());
                if let Some((task, input)) = packed.task().zip(input) {
                    inputs.insert(task, input);
                }
            }
        }
        let newest = self.bases.values().filter_map(|bases| bases.first());
        let of_base = |base: &Manifest| Some((base.task, base.meta.cut.keys().next()?.clone()));
        inputs.extend(newest.filter_map(of_base));
        inputs
    }

    /// Asks what is committed, waiting for pending transactions.
    ///
    /// # Errors
    /// [`OfflineError::Log`], and [`OfflineError::Pointer`] where the group belongs to something else.
    pub fn pointers(&self, log: &dyn Log, group: &str) -> Result<Pointers, OfflineError> {
        let admin = log.admin();
        let mut pointers = Pointers::new();
        for (task, input) in self.inputs() {
            let committed = admin
                .committed(group, &[input], ASK_TIMEOUT)?
                .into_iter()
                .next()
                .flatten();
            let pointer = committed.map(|committed| Pointer::from_metadata(&committed.metadata));
            pointers.insert(task, pointer.transpose()?);
        }
        Ok(pointers)
    }
}
