//! An instance: the workers and the membership of one process.

mod error;
#[allow(clippy::module_inception)]
mod instance;
mod member;
mod orphans;
mod preparation;
mod seat;
mod settings;
mod states;
#[cfg(test)]
mod tests;

pub use error::InstanceError;
pub use instance::{Instance, InstanceHandle, Status};
pub use settings::{Backend, Guarantee, InstanceSettings, StateSettings};
