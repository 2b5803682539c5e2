//! Asking a running application for a savepoint, and waiting for it.

use std::sync::Arc;
use std::time::Duration;

use crate::blob::{BlobError, BlobStore};
use crate::durability::savepoint::{AttemptFolder, Census, Failure, Form, Request, SavepointName};
use crate::durability::snapshot::Attempt;
use crate::time::{Clock, Millis};

use super::archive::Archive;
use super::error::SavepointError;

/// How far a savepoint is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stage {
    /// All tasks; 0 while no instance has seen the request.
    pub tasks: usize,
    /// Those that stand still, or stood.
    pub frozen: usize,
    /// Those that are stored.
    pub stored: usize,
    /// Whether it is complete, or, of form canonical, all of its native parts are.
    pub is_complete: bool,
}

/// A savepoint that was asked for.
pub struct Creation {
    archive: Archive,
    clock: Arc<dyn Clock>,
    pub(super) request: Request,
}

impl Creation {
    /// Asks for a savepoint of the application whose folder `store` is. Nobody waits for it longer than `timeout`.
    ///
    /// # Errors
    /// [`SavepointError::Exists`], and as the store says.
    pub fn begin(
        store: &Arc<dyn BlobStore>,
        clock: &Arc<dyn Clock>,
        name: SavepointName,
        form: Form,
        timeout: Duration,
        attempt: Attempt,
    ) -> Result<Self, SavepointError> {
        let archive = Archive {
            store: Arc::clone(store),
        };
        let exists = || SavepointError::Exists {
            root: store.root().to_owned(),
            name: name.to_string(),
        };
        match archive.read(&name) {
            Err(SavepointError::NotFound { .. }) => {}
            Err(SavepointError::Object(_)) | Ok(_) => return Err(exists()),
            Err(error) => return Err(error),
        }
        let asked_ms = clock.wall_ms();
        let request = Request {
            deadline_ms: asked_ms + Millis::try_from(timeout.as_millis()).unwrap_or(Millis::MAX / 2),
            name: name.clone(),
            attempt,
            form,
            asked_ms,
        };
        remove_expired(store, &request.name.request(), asked_ms)?;
        match store.create(&request.name.request(), &request.to_json()) {
            Err(BlobError::Exists { .. }) => return Err(exists()),
            created => created?,
        }
        Ok(Self {
            archive,
            clock: Arc::clone(clock),
            request,
        })
    }

    /// The savepoint's name.
    pub fn name(&self) -> &SavepointName {
        &self.request.name
    }

    /// Looks how far it is. After an error nothing comes of it any more, but for one that passes.
    ///
    /// # Errors
    /// [`SavepointError::GivenUp`], [`SavepointError::TimedOut`], and as the store says.
    pub fn look(&self) -> Result<Stage, SavepointError> {
        let stage = self.stage()?;
        if !stage.is_complete && self.clock.wall_ms() >= self.request.deadline_ms {
            let waited = self.request.deadline_ms - self.request.asked_ms;
            let Stage {
                tasks, frozen, stored, ..
            } = stage;
            let progress = match tasks {
                0 => "no instance has seen the request".to_owned(),
                _ => format!("of {tasks} tasks {frozen} stood still and {stored} were stored"),
            };
            return Err(SavepointError::TimedOut {
                name: self.request.name.to_string(),
                timeout_ms: u64::try_from(waited).unwrap_or(0),
                progress,
            });
        }
        Ok(stage)
    }

    fn stage(&self) -> Result<Stage, SavepointError> {
        let store = &self.archive.store;
        let folder = self.request.folder();
        let Some(census) = self.census()? else {
            return Ok(Stage::default());
        };
        let mut frozen = 0;
        for blob in store.list(&folder.markers())? {
            match AttemptFolder::task_of(&blob.name) {
                Some(_) => frozen += 1,
                None => {
                    let failure = Failure::from_json(&store.read(&blob.name)?, &blob.name)?;
                    return Err(SavepointError::GivenUp {
                        name: self.request.name.to_string(),
                        by: failure.by,
                        reason: failure.reason,
                    });
                }
            }
        }
        let parts = store.list(&folder.parts())?;
        let stored = parts
            .iter()
            .filter_map(|blob| AttemptFolder::task_of(&blob.name))
            .count();
        let is_complete = match self.request.form {
            Form::Native => !matches!(
                self.archive.read(&self.request.name),
                Err(SavepointError::NotFound { .. })
            ),
            Form::Canonical => stored == census.tasks.len(),
        };
        Ok(Stage {
            tasks: census.tasks.len(),
            frozen,
            stored,
            is_complete,
        })
    }

    /// What the instances say of the application; `None` while none has seen the request.
    pub(super) fn census(&self) -> Result<Option<Census>, SavepointError> {
        let object = self.request.folder().census();
        match self.archive.store.read(&object) {
            Ok(bytes) => Ok(Some(Census::from_json(&bytes, &object)?)),
            Err(BlobError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what was only needed on the way.
    ///
    /// # Errors
    /// As the store says.
    pub fn tidy(&self) -> Result<(), SavepointError> {
        let folder = self.request.folder();
        let store = &self.archive.store;
        store.delete(&[self.request.name.request()])?;
        let mut names = vec![folder.census()];
        for left in [folder.markers(), folder.parts()] {
            names.extend(store.list(&left)?.into_iter().map(|blob| blob.name));
        }
        Ok(store.delete(&names)?)
    }

    /// Takes the request back, tells the instances, and removes what is there of the attempt. What an instance still writes later goes with
    /// `savepoint delete`. True if the savepoint has become complete in the last moment: then it stays.
    ///
    /// # Errors
    /// As the store says.
    pub fn abandon(&self) -> Result<bool, SavepointError> {
        let store = &self.archive.store;
        store.delete(&[self.request.name.request()])?;
        let failure = Failure {
            by: "whoever asked for it".to_owned(),
            reason: "it is not waited for any more".to_owned(),
        };
        match store.create(&self.request.folder().failure(), &failure.to_json()) {
            Ok(()) | Err(BlobError::Exists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if self.archive.read(&self.request.name).is_ok() {
            return Ok(true);
        }
        let left = store.list(&self.request.folder().path())?;
        let names: Vec<String> = left.into_iter().map(|blob| blob.name).collect();
        store.delete(&names)?;
        Ok(false)
    }

    /// The savepoints of its application.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// What it is to be made of.
    pub fn form(&self) -> Form {
        self.request.form
    }

    /// Whether nobody waits for it any more.
    pub fn is_over(&self) -> bool {
        self.now_ms() >= self.request.deadline_ms
    }

    pub(super) fn store(&self) -> &Arc<dyn BlobStore> {
        &self.archive.store
    }

    pub(super) fn now_ms(&self) -> Millis {
        self.clock.wall_ms()
    }
}

/// A request that nobody waits for any more is in nobody's way.
fn remove_expired(store: &Arc<dyn BlobStore>, object: &str, now_ms: Millis) -> Result<(), SavepointError> {
    let bytes = match store.read(object) {
        Ok(bytes) => bytes,
        Err(BlobError::Missing { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let is_over = Request::from_json(&bytes, object).is_ok_and(|request| request.deadline_ms <= now_ms);
    if is_over {
        store.delete(&[object.to_owned()])?;
    }
    Ok(())
}
