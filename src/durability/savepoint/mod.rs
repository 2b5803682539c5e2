//! Savepoints: a copy of all tasks' state at one moment that the user owns (design §6, [docs/repository.md](../../../docs/repository.md)).
//!
//! All that a savepoint names lies in its own folder, so that the folder can be moved or copied. Nothing here does any input or output.

mod canonical;
mod census;
mod document;
mod names;
mod part;
mod request;
mod sealed;
#[cfg(test)]
mod tests;

pub use canonical::{CHUNK_BYTES, Chunk, ChunkWriter};
pub use census::Census;
pub use document::Savepoint;
pub use names::{AttemptFolder, REQUESTS_FOLDER, SAVEPOINTS_FOLDER, SavepointName};
pub use part::{BACKEND_CANONICAL, BACKEND_NONE, Marker, Part};
pub use request::{Failure, Form, Request};
