//! The end of a savepoint: whoever sees all parts creates the object that names them.

use crate::blob::{BlobError, BlobStore};
use crate::durability::savepoint::{Census, Form, Part, Request, Savepoint};
use crate::ids::TaskId;
use crate::time::Millis;

use super::super::snapshots::{Repository, SnapshotError};

/// Creates `savepoint.json` of an attempt all of whose parts are there; true if it is there. One of form canonical is left to whoever asked for it.
///
/// # Errors
/// [`SnapshotError`]: a part is damaged, or the store does not answer.
pub(super) fn finish(repository: &Repository, request: &Request, census: &Census) -> Result<bool, SnapshotError> {
    if request.form != Form::Native {
        return Ok(false);
    }
    let (store, object) = (&repository.store, request.name.document());
    match store.read(&object) {
        Err(BlobError::Missing { .. }) => {}
        Err(error) => return Err(error.into()),
        Ok(_) => {
            store.delete(&[request.name.request()])?;
            return Ok(true);
        }
    }
    let savepoint = assemble_savepoint(&**store, request, census, repository.clock.wall_ms())?;
    // Whoever asked may have given it up, and be about to remove what it would name.
    if !is_asked_for(&**store, request)? {
        return Ok(false);
    }
    match store.create(&object, &savepoint.to_json()) {
        // Another one was faster, and its time differs.
        Ok(()) | Err(BlobError::Exists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Savepoint::from_json(&store.read(&object)?, &object)?;
    store.delete(&[request.name.request()])?;
    let (tasks, bytes) = (savepoint.parts.len(), savepoint.bytes());
    tracing::info!(savepoint = %request.name, tasks, bytes, "savepoint complete");
    Ok(true)
}

fn is_asked_for(store: &dyn BlobStore, request: &Request) -> Result<bool, SnapshotError> {
    match store.read(&request.name.request()) {
        Ok(bytes) => Ok(bytes == request.to_json()),
        Err(BlobError::Missing { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The savepoint of all parts of an attempt.
///
/// # Errors
/// [`SnapshotError`]: a part is missing or damaged, or the store does not answer.
pub fn assemble_savepoint(
    store: &dyn BlobStore,
    request: &Request,
    census: &Census,
    made_ms: Millis,
) -> Result<Savepoint, SnapshotError> {
    let folder = request.folder();
    let part = |task: &TaskId| -> Result<Part, SnapshotError> {
        let object = folder.part(*task);
        Ok(Part::from_json(&store.read(&object)?, &object)?)
    };
    Ok(Savepoint {
        name: request.name.clone(),
        application: census.application.clone(),
        plan: census.plan.clone(),
        plan_text: census.plan_text.clone(),
        form: Form::Native,
        asked_ms: request.asked_ms,
        made_ms,
        parts: census.tasks.iter().map(part).collect::<Result<_, _>>()?,
    })
}
