//! What makes state durable: the pointer that a commit carries, and the strategy behind it.
//!
//! Everything here is a pure function of what was read; the workers do the reading and writing.

mod beginning;
pub mod changelog;
mod decision;
mod pointer;
mod record;
pub mod savepoint;
pub mod snapshot;
mod strategy;
mod transition;

pub use beginning::Beginning;
pub use decision::{Decision, Refusal, decide};
pub use pointer::{Pointer, PointerError};
pub use record::{CommitRecord, CommitRecordError, PLAN_KEY};
pub use strategy::Durability;
pub use transition::Transition;
