//! An instance: the workers and the membership of one process.

mod assembly;
mod error;
#[allow(clippy::module_inception)]
mod instance;
mod member;
mod orphans;
mod preparation;
mod purge;
mod seat;
mod settings;
mod states;
mod stepped;
#[cfg(test)]
mod tests;
mod threads;

pub use assembly::Ports;
pub use error::InstanceError;
pub use instance::{Instance, InstanceHandle, Status};
pub use preparation::prepare;
pub use settings::{Backend, Guarantee, InstanceSettings, SMALL_FILE_BYTES, StateSettings};
pub use states::{Disk, ScratchStates};
pub use stepped::{SteppedInstance, Surroundings};
