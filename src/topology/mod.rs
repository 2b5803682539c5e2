//! Topologies: the typed builder, the plan it compiles to, and the program that tasks run.
//!
//! Operators have the names and the meaning that Kafka Streams gives them. What differs, and why:
//!
//! | where | Kafka Streams | here |
//! |---|---|---|
//! | functions over values | are called for null values too | see `V`, and are not called for a null value, which stays null |
//! | names | may be left out | are asked for wherever state or an internal topic carries them |
//! | windows that emit on close | some closed windows are lost with the default retention | every closed window comes out exactly once |
//! | windows that emit on close | at most once per second of wall-clock time | with the record that closes them |
//! | closed windows | stay in the store for its retention | leave the store at once |
//! | times that a function or processor sets | a negative one throws | a negative one makes the record bad, and the node's policy decides |
//! | a merged stream that is aggregated | may split a key's records between tasks | its topics have to be co-partitioned |

mod branches;
mod builder;
mod describe;
mod error;
mod fingerprint;
mod graph;
mod grouped;
mod joins;
mod link;
mod parameters;
mod partitions;
mod plan;
mod program;
mod stream;
mod table;
mod topic;
mod windowed;

#[cfg(test)]
mod tests;

pub use branches::Branches;
pub use builder::Builder;
pub use describe::Description;
pub use error::{PlanError, TopologyError};
pub use fingerprint::diff;
pub use grouped::Grouped;
pub use parameters::{ParameterError, Parameters};
pub use partitions::{PartitionCounts, SubTopologyCounts};
pub use plan::{CoPartition, NodeInfo, Plan, RepartitionTopic, SubTopology, TopicRef};
pub use program::Program;
pub use stream::Stream;
pub use table::Table;
pub use topic::{Materialized, Repartitioned, Topic};
pub use windowed::WindowedStream;

use crate::ids::NodeId;
use crate::operators::OnError;

/// A topology that is ready to run: immutable, and shared by all tasks of an instance.
pub struct Topology {
    plan: Plan,
    programs: Vec<Program>,
    on_error: Vec<Option<OnError>>,
    plan_text: String,
}

impl Topology {
    /// Starts to build a topology.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn new(plan: Plan, programs: Vec<Program>, on_error: Vec<Option<OnError>>) -> Self {
        Self {
            plan_text: fingerprint::plan_text(&plan),
            plan,
            programs,
            on_error,
        }
    }

    /// The plan: sub-topologies, internal topics and stores.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What the tasks of sub-topology `sub_topology` of the plan run.
    pub fn program(&self, sub_topology: u16) -> &Program {
        &self.programs[sub_topology as usize]
    }

    /// The policy for bad records that the topology itself sets for a node.
    pub fn on_error(&self, node: NodeId) -> Option<OnError> {
        self.on_error.get(node.0 as usize).copied().flatten()
    }

    /// The topology to look at.
    pub fn describe(&self) -> Description<'_> {
        Description::new(&self.plan)
    }

    /// What state depends on, as text: one line per node with state, per store and per topic. Compare two with [`diff`].
    pub fn plan_text(&self) -> &str {
        &self.plan_text
    }

    /// A hash of [`Topology::plan_text`] in 16 hex digits. State is used again only by a topology of the same fingerprint.
    pub fn fingerprint(&self) -> String {
        fingerprint::fingerprint(&self.plan_text)
    }
}
