//! The low-level processor: own logic with state handles and event-time timers.

use super::push::{NodeRef, Outlet, Push, Stateful, Timed};
use super::scan::ScanBuffer;
use super::states::Declare;
use super::timers::{self, Timers};
use super::{Failure, RecordOrigin, RowError, Scope};
use crate::codec::CodecError;
use crate::ids::StoreId;
use crate::record::Record;
use crate::state::StateError;
use crate::time::Millis;

/// Logic of one node, for what the other operators do not cover.
///
/// All methods take `&self`: a processor cannot hide mutable state from the changelog. What it remembers lies behind
/// handles that it declares.
///
/// ```
/// use tidegate::codec::{I64Be, Utf8};
/// use tidegate::operators::{Context, Declare, ProcessError, Processor, ValueState};
/// use tidegate::record::Record;
/// use tidegate::topology::{Builder, Topic};
///
/// /// Passes on a reading only if it is larger than all before it.
/// struct Records { highest: ValueState<String, i64> }
///
/// impl Processor for Records {
///     type KeyIn = String;
///     type ValueIn = i64;
///     type KeyOut = String;
///     type ValueOut = i64;
///
///     fn declare(declare: &mut Declare<'_>) -> Self {
///         Records { highest: declare.value("highest", Utf8, I64Be) }
///     }
///
///     fn process(&self, record: Record<String, i64>, cx: &mut Context<'_, String, i64>) -> Result<(), ProcessError> {
///         let (Some(sensor), Some(reading)) = (&record.key, record.value) else {
///             return Err(ProcessError::bad_record("a reading needs a sensor and a value"));
///         };
///         if self.highest.get(cx, sensor)?.is_none_or(|highest| reading > highest) {
///             self.highest.put(cx, sensor, &reading)?;
///             cx.forward(record)?;
///         }
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<(), tidegate::topology::TopologyError> {
/// let builder = Builder::new();
/// let readings = Topic::new("readings", Utf8, I64Be);
/// builder.stream(&readings).process::<Records>("records").to(&Topic::new("records", Utf8, I64Be));
/// let topology = builder.build()?;
/// # assert_eq!(topology.plan().sub_topologies[0].stores[0].name, "records-highest");
/// # Ok(())
/// # }
/// ```
pub trait Processor: Send + Sync + Sized + 'static {
    /// Key of the records that come in.
    type KeyIn: Clone + 'static;
    /// Value of the records that come in.
    type ValueIn: Clone + 'static;
    /// Key of the records that go out.
    type KeyOut: Clone + 'static;
    /// Value of the records that go out.
    type ValueOut: Clone + 'static;

    /// Makes the processor and declares its state. Called once, when the topology is built.
    fn declare(declare: &mut Declare<'_>) -> Self;

    /// Processes one record.
    ///
    /// # Errors
    /// [`ProcessError::BadRecord`] lets the node's policy decide. What the call has changed in its state by then
    /// stays changed if the policy is to go on. Other errors are passed on as they come.
    fn process(
        &self,
        record: Record<Self::KeyIn, Self::ValueIn>,
        cx: &mut Context<'_, Self::KeyOut, Self::ValueOut>,
    ) -> Result<(), ProcessError>;

    /// Acts on a timer that was set with [`Context::timer_at`], once stream time has reached `time_ms`.
    ///
    /// # Errors
    /// As [`Processor::process`].
    fn on_timer(
        &self,
        time_ms: Millis,
        tag: &[u8],
        cx: &mut Context<'_, Self::KeyOut, Self::ValueOut>,
    ) -> Result<(), ProcessError> {
        let _ = (time_ms, tag, cx);
        Ok(())
    }
}

/// Why a processor could not process a record.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The record is bad: the node's policy decides.
    #[error("{0}")]
    BadRecord(String),
    /// Something behind this node or in the state failed; to be passed on.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl ProcessError {
    /// The record is bad, for this reason.
    pub fn bad_record(reason: impl std::fmt::Display) -> Self {
        ProcessError::BadRecord(reason.to_string())
    }
}

impl From<CodecError> for ProcessError {
    fn from(error: CodecError) -> Self {
        ProcessError::bad_record(error)
    }
}

impl From<StateError> for ProcessError {
    fn from(error: StateError) -> Self {
        ProcessError::Failed(error.into())
    }
}

impl From<RowError> for ProcessError {
    fn from(error: RowError) -> Self {
        match error {
            RowError::Codec(error) => error.into(),
            RowError::State(error) => error.into(),
        }
    }
}

/// What a processor can do while it processes a record or a timer.
pub struct Context<'a, K, V> {
    pub(crate) scope: &'a mut Scope,
    pub(crate) timestamp_ms: Millis,
    /// The time of the timer that fires; new timers must lie behind it.
    firing_ms: Option<Millis>,
    parts: &'a HostParts,
    next: &'a dyn Push<Record<K, V>>,
}

impl<K, V> Context<'_, K, V> {
    /// Passes a record on; everything that follows from it has happened when the call returns.
    ///
    /// # Errors
    /// [`ProcessError::BadRecord`] for a negative timestamp; else what a node behind this one answers.
    pub fn forward(&mut self, record: Record<K, V>) -> Result<(), ProcessError> {
        if record.timestamp_ms < 0 {
            let reason = format_args!("the processor forwarded the negative timestamp {}", record.timestamp_ms);
            return Err(ProcessError::bad_record(reason));
        }
        Ok(self.next.push(record, self.scope)?)
    }

    /// The largest timestamp that the task has taken so far.
    pub fn stream_time_ms(&self) -> Millis {
        self.scope.stream_time_ms
    }

    /// Coordinates of the record that is being processed; `None` while a timer fires.
    pub fn origin(&self) -> Option<RecordOrigin> {
        self.scope.origin()
    }

    /// Sets a timer of this node: [`Processor::on_timer`] is called with `tag` once stream time reaches `time_ms`.
    ///
    /// The same time and tag again is the same timer. Timers fire in order of time, then tag, after the record by which
    /// they became due. A time that is not behind the timer that is firing becomes the millisecond after it, so that
    /// timers which set each other come to an end.
    pub fn timer_at(&mut self, timers: &Timers, time_ms: Millis, tag: &[u8]) {
        let earliest_ms = self.firing_ms.map_or(0, |firing_ms| firing_ms.saturating_add(1));
        let store = self.store(timers.index);
        timers::set(self.scope, store, self.parts.clock, time_ms.max(earliest_ms), tag);
    }

    /// Removes a timer; nothing happens if there is none.
    pub fn cancel_timer(&mut self, timers: &Timers, time_ms: Millis, tag: &[u8]) {
        let store = self.store(timers.index);
        timers::cancel(self.scope, store, time_ms, tag);
    }

    pub(crate) fn store(&self, index: usize) -> StoreId {
        self.parts.stores[index]
    }
}

/// What a processor's node got when the topology was built.
pub(crate) struct HostParts {
    pub(crate) node: NodeRef,
    /// The node's stores, in order of declaration.
    pub(crate) stores: Vec<StoreId>,
    /// Index among [`Self::stores`] of the timers, if the processor has any.
    pub(crate) timers: Option<usize>,
    /// Index of the node's clock in [`Scope::clocks`]; unused without timers.
    pub(crate) clock: usize,
}

/// Runs a processor as a node.
pub(crate) struct Host<P: Processor> {
    pub(crate) parts: HostParts,
    pub(crate) processor: P,
    pub(crate) next: Outlet<Record<P::KeyOut, P::ValueOut>>,
}

impl<P: Processor> Host<P> {
    fn settle(&self, outcome: Result<(), ProcessError>, scope: &mut Scope) -> Result<(), Failure> {
        match outcome {
            Ok(()) => Ok(()),
            Err(ProcessError::BadRecord(reason)) => self.parts.node.bad(scope, &reason),
            Err(ProcessError::Failed(failure)) => Err(failure),
        }
    }

    fn fire_one(&self, time_ms: Millis, tag: &[u8], scope: &mut Scope) -> Result<(), Failure> {
        let mut cx = Context {
            scope: &mut *scope,
            timestamp_ms: time_ms,
            firing_ms: Some(time_ms),
            parts: &self.parts,
            next: &*self.next,
        };
        let outcome = self.processor.on_timer(time_ms, tag, &mut cx);
        self.settle(outcome, scope)
    }
}

impl<P: Processor> Push<Record<P::KeyIn, P::ValueIn>> for Host<P> {
    fn push(&self, record: Record<P::KeyIn, P::ValueIn>, scope: &mut Scope) -> Result<(), Failure> {
        let mut cx = Context {
            timestamp_ms: record.timestamp_ms,
            scope: &mut *scope,
            firing_ms: None,
            parts: &self.parts,
            next: &*self.next,
        };
        let outcome = self.processor.process(record, &mut cx);
        self.settle(outcome, scope)
    }
}

impl<P: Processor> Timed for Host<P> {
    fn next_due_ms(&self, scope: &Scope) -> Millis {
        scope.clocks[self.parts.clock].next_timer_ms
    }

    fn fire(&self, scope: &mut Scope) -> Result<(), Failure> {
        let Some(index) = self.parts.timers else {
            return Ok(());
        };
        let store = self.parts.stores[index];
        let clock = self.parts.clock;
        let mut buffer: ScanBuffer = scope.take_scan_buffer();
        while timers::read_first_due(scope, store, clock, &mut buffer)? {
            for (key, _) in buffer.entries() {
                // A timer that was cancelled by one before it does not fire.
                if let Some((time_ms, tag)) = timers::take(scope, store, key)? {
                    self.fire_one(time_ms, tag, scope)?;
                }
            }
        }
        scope.give_scan_buffer(buffer);
        let from_ms = scope.clocks[clock].next_timer_ms;
        timers::find_next(scope, store, clock, from_ms)?;
        Ok(())
    }
}

impl<P: Processor> Stateful for Host<P> {
    fn save(&self, _scope: &mut Scope) -> Result<(), Failure> {
        Ok(())
    }

    fn load(&self, scope: &mut Scope) -> Result<(), Failure> {
        if let Some(index) = self.parts.timers {
            timers::find_next(scope, self.parts.stores[index], self.parts.clock, 0)?;
        }
        Ok(())
    }
}
