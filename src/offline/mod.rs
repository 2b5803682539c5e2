//! Tools on a snapshot repository that need no running instance, and harm none that runs (`docs/tools.md`).
//!
//! A [`Catalogue`] is what a repository holds: manifests and footers of packs, read and checked. What is committed, only Kafka says; without it an
//! increment counts as committed where a later one, or a base snapshot, says that it came before it.

mod catalogue;
mod chain;
mod diff;
mod error;
mod export;
mod fsck;
mod gc;
mod heads;
mod import;
mod keys;
mod kinds;
mod offsets;
mod pointers;
mod reshard;
mod savepoint_writer;
mod scratch;
mod shape;
mod verify;
mod view;

pub use catalogue::{Broken, Catalogue, Scope};
pub use chain::{At, Branch};
pub use diff::{Change, StoreDifference, diff};
pub use error::OfflineError;
pub use export::{Chosen, Exported, export};
pub use fsck::{Finding, Grade, fsck};
pub use gc::{Garbage, Unneeded};
pub use import::{Import, Imported};
pub use kinds::{Kind, kind};
pub use offsets::Offsets;
pub use pointers::Pointers;
pub use reshard::{Reshard, Resharded};
pub use scratch::Scratch;
pub use shape::{Reading, Shape, StoreShape, hex, unhex};
pub use verify::{Verified, verify};
pub use view::{Row, Rows, View};

/// Where a tool says how far it is.
pub trait Progress {
    /// Something of so many `unit`s begins.
    fn begin(&self, what: &str, total: u64, unit: Unit);

    /// So many more are done.
    fn advance(&self, by: u64);

    /// It is over.
    fn end(&self);
}

/// What progress is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Objects or rows.
    Items,
}

/// Nobody looks.
pub struct Unseen;

impl Progress for Unseen {
    fn begin(&self, _what: &str, _total: u64, _unit: Unit) {}
    fn advance(&self, _by: u64) {}
    fn end(&self) {}
}
