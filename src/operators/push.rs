//! How records pass from node to node: one typed virtual call per hop.

use std::sync::Arc;

use super::{Failure, Scope};
use crate::ids::NodeId;

/// Takes items from the node before.
pub trait Push<T>: Send + Sync {
    /// Processes one item and everything that follows from it.
    ///
    /// # Errors
    /// [`Failure`] of this node or of one behind it.
    fn push(&self, item: T, scope: &mut Scope) -> Result<(), Failure>;
}

/// What follows a node.
pub type Outlet<T> = Arc<dyn Push<T>>;

/// Identity of a node, as its operator needs it to count and to report.
#[derive(Clone, Debug)]
pub struct NodeRef {
    /// Index into the counts and policies of [`Scope`].
    pub id: NodeId,
    /// Name, for errors and dead letters.
    pub name: Arc<str>,
}

impl NodeRef {
    /// Applies the node's policy to the record that is being processed.
    pub(crate) fn bad(&self, scope: &mut Scope, reason: &dyn std::fmt::Display) -> Result<(), Failure> {
        scope.bad_record(self.id, &self.name, reason)
    }

    /// Counts a record that the node drops because it has no key, no value or no valid time.
    pub(crate) fn count_dropped(&self, scope: &mut Scope) {
        if let Some(counts) = scope.counts.get_mut(self.id.0 as usize) {
            counts.dropped += 1;
        }
    }

    /// Counts a record that came after its window had closed.
    pub(crate) fn count_late(&self, scope: &mut Scope) {
        if let Some(counts) = scope.counts.get_mut(self.id.0 as usize) {
            counts.late += 1;
        }
    }
}

/// Several outlets behind one node; also none at all.
pub(crate) struct Tee<T>(Vec<Outlet<T>>);

impl<T: Clone + 'static> Tee<T> {
    /// One outlet for all of `outlets`, which are served in order.
    pub(crate) fn over(mut outlets: Vec<Outlet<T>>) -> Outlet<T> {
        match outlets.pop() {
            Some(only) if outlets.is_empty() => only,
            Some(last) => {
                outlets.push(last);
                Arc::new(Tee(outlets))
            }
            None => Arc::new(Tee(outlets)),
        }
    }
}

impl<T: Clone> Push<T> for Tee<T> {
    fn push(&self, item: T, scope: &mut Scope) -> Result<(), Failure> {
        let Some((last, others)) = self.0.split_last() else {
            return Ok(());
        };
        for outlet in others {
            outlet.push(item.clone(), scope)?;
        }
        last.push(item, scope)
    }
}

/// An operator that keeps something outside its stores while records flow, such as a clock.
pub trait Stateful: Send + Sync {
    /// At a barrier: writes what is kept outside into the stores, and emits what is held back.
    ///
    /// # Errors
    /// [`Failure`] of this node or of one behind it.
    fn save(&self, scope: &mut Scope) -> Result<(), Failure>;

    /// After the stores were opened, restored or rolled back: reads it again.
    ///
    /// # Errors
    /// [`Failure::State`].
    fn load(&self, scope: &mut Scope) -> Result<(), Failure>;
}

/// An operator with event-time timers.
pub trait Timed: Send + Sync {
    /// The earliest time at which a timer is due; `Millis::MAX` if none is set.
    fn next_due_ms(&self, scope: &Scope) -> crate::time::Millis;

    /// Fires all timers whose time stream time has reached, in order of time, then tag.
    ///
    /// # Errors
    /// [`Failure`] of this node or of one behind it.
    fn fire(&self, scope: &mut Scope) -> Result<(), Failure>;
}
