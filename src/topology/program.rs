//! Programs: what a task runs for its sub-topology.

use std::sync::Arc;

use crate::operators::{Failure, Feed, Scope, Stateful, Timed};
use crate::record::{Headers, RecordRef};
use crate::time::Millis;

/// The linked operators of one sub-topology. Immutable; all tasks of the sub-topology share it, each with its own [`Scope`].
pub struct Program {
    sources: Vec<Box<dyn Feed>>,
    stateful: Vec<Arc<dyn Stateful>>,
    timed: Vec<Arc<dyn Timed>>,
    clocks: usize,
}

impl Program {
    pub(crate) fn new(
        sources: Vec<Box<dyn Feed>>,
        stateful: Vec<Arc<dyn Stateful>>,
        timed: Vec<Arc<dyn Timed>>,
        clocks: usize,
    ) -> Self {
        Self {
            sources,
            stateful,
            timed,
            clocks,
        }
    }

    /// Processes one record of source `source`, an index into the sub-topology's sources: decodes it, advances stream
    /// time, passes it through the graph, then fires the event-time timers that have become due. While timers fire the
    /// scope has no current record.
    ///
    /// # Errors
    /// [`Failure`]: the record is bad and the node's policy is to stop, or the state fails.
    pub fn feed(
        &self,
        source: usize,
        record: &RecordRef<'_>,
        headers: Headers,
        scope: &mut Scope,
    ) -> Result<(), Failure> {
        self.sources[source].feed(record, headers, scope)?;
        for timed in &self.timed {
            if timed.next_due_ms(scope) <= scope.stream_time_ms {
                scope.clear_current();
                timed.fire(scope)?;
            }
        }
        Ok(())
    }

    /// The event time that [`Program::feed`] will give a record, by which a task chooses among its partitions.
    /// Decodes the record only where its topic has a timestamp extractor.
    pub fn event_time_ms(&self, source: usize, record: &RecordRef<'_>, headers: Headers) -> Millis {
        self.sources[source].event_time_ms(record, headers)
    }

    /// At a barrier, before the overlay is sealed: operators save their clocks and emit what they hold back.
    ///
    /// # Errors
    /// As [`Program::feed`].
    pub fn barrier(&self, scope: &mut Scope) -> Result<(), Failure> {
        self.stateful.iter().try_for_each(|operator| operator.save(scope))
    }

    /// After the state was opened, restored or rolled back, before the next record: operators read their clocks.
    ///
    /// # Errors
    /// [`Failure::State`].
    pub fn restored(&self, scope: &mut Scope) -> Result<(), Failure> {
        self.stateful.iter().try_for_each(|operator| operator.load(scope))
    }

    /// Number of clocks that a [`Scope`] for this program has.
    pub fn clocks(&self) -> usize {
        self.clocks
    }

    /// Number of sources.
    pub fn sources(&self) -> usize {
        self.sources.len()
    }
}
