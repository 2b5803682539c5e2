//! A task: sub-topology × partition. No threads, no clock, no I/O but its local state: records go in, outputs and increments come out.

mod input;
#[allow(clippy::module_inception)]
mod task;

pub use input::{Input, InputProgress};
pub use task::{EpochEnd, Processed, Task, TaskParts};
