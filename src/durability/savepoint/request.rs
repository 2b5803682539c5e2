//! What is asked of a running application.

use serde::{Deserialize, Serialize};

use crate::durability::snapshot::{Attempt, FormatError, damaged_object};
use crate::time::Millis;

use super::names::{AttemptFolder, SavepointName};
use super::sealed::{seal, unseal};

/// What a savepoint's state is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// The files of the databases.
    Native,
    /// Sorted rows, the same for all backends and versions.
    Canonical,
}

/// Asks all instances for a savepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The savepoint.
    pub name: SavepointName,
    /// Which attempt to take it.
    pub attempt: Attempt,
    /// What it is to be made of in the end.
    pub form: Form,
    /// When it was asked for, by the asking machine's clock, in milliseconds since the Unix epoch.
    pub asked_ms: Millis,
    /// When nobody waits for it any more.
    pub deadline_ms: Millis,
}

#[derive(Serialize, Deserialize)]
struct Json {
    name: String,
    attempt: String,
    form: Form,
    asked_ms: Millis,
    deadline_ms: Millis,
}

impl Request {
    /// The folder of its attempt.
    pub fn folder(&self) -> AttemptFolder {
        AttemptFolder::new(&self.name, self.attempt)
    }

    /// The object's bytes.
    pub fn to_json(&self) -> Vec<u8> {
        seal(&Json {
            name: self.name.to_string(),
            attempt: self.attempt.to_string(),
            form: self.form,
            asked_ms: self.asked_ms,
            deadline_ms: self.deadline_ms,
        })
    }

    /// Reads the bytes of the object `object`.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn from_json(bytes: &[u8], object: &str) -> Result<Self, FormatError> {
        let json: Json = unseal(bytes, object)?;
        let damaged = |reason: String| damaged_object(object, reason);
        Ok(Self {
            name: json.name.parse().map_err(damaged)?,
            attempt: json.attempt.parse().map_err(damaged)?,
            form: json.form,
            asked_ms: json.asked_ms,
            deadline_ms: json.deadline_ms,
        })
    }
}

/// Says that nothing comes of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Who says so: `<instance>/<worker>`.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl Failure {
    /// The object's bytes.
    pub fn to_json(&self) -> Vec<u8> {
        seal(self)
    }

    /// Reads the bytes of the object `object`.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn from_json(bytes: &[u8], object: &str) -> Result<Self, FormatError> {
        unseal(bytes, object)
    }
}
