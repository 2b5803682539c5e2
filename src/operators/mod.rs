//! Operators: what nodes do with records, and the scope in which they do it.

mod aggregate;
mod ends;
mod outbox;
mod processor;
mod push;
mod rows;
mod scan;
mod scope;
mod stateless;
mod states;
mod tables;
mod timers;
mod windowed_aggregate;
mod windows;

pub use ends::{Feed, TimestampExtractor};
pub use outbox::{Outbox, OutboxEntry};
pub use processor::{Context, ProcessError, Processor};
pub use push::{NodeRef, Outlet, Push, Stateful, Timed};
pub(crate) use rows::decode_row;
pub use scope::{Failure, NodeCounts, OnError, OperatorClock, RecordOrigin, Scope, Scratch};
pub use states::{Declare, MapState, ValueState};
pub use timers::Timers;
pub use windows::{Emit, TumblingWindows};

pub(crate) use aggregate::Aggregate;
pub(crate) use ends::{Sink, Source};
pub(crate) use processor::{Host, HostParts};
pub(crate) use push::Tee;
pub(crate) use rows::{RowError, Rows};
pub(crate) use stateless::{Filter, FlatMap, FlatMapValues, MapValues, Peek, Predicate, SelectKey, Split};
pub(crate) use states::DeclaredStore;
pub(crate) use tables::{JoinTable, TableUpdate};
pub(crate) use windowed_aggregate::WindowedAggregate;
pub(crate) use windows::StartFirst;
