//! Savepoints as their owner handles them: taking one of a running application, looking at what there is, and starting applications from it.
//!
//! Everything here works on the repository and the log alone, from wherever it is called; the instances take part by themselves
//! ([`crate::worker`]). What it is for and how it holds together: `docs/protocol.md`, "Savepoints".

mod archive;
mod convert;
mod create;
mod error;
mod load;
mod past;
mod restore;
mod rows;
mod seat;

pub use archive::{Archive, Found, Verified};
pub use create::{Creation, Stage};
pub use error::SavepointError;
pub use load::{Scratch, load};
pub use past::{Past, Wanted, past};
pub use restore::{Origin, OriginTask, Progress, Restored, Target, restore};
