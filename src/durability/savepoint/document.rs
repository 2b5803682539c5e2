//! `savepoint.json`: what a savepoint is, and all of its parts.

use serde::{Deserialize, Serialize};

use crate::durability::snapshot::{FormatError, damaged_object};
use crate::ids::TaskId;
use crate::time::Millis;

use super::names::SavepointName;
use super::part::{JsonPart, Part};
use super::request::Form;
use super::sealed::{seal, unseal};

/// A savepoint. Its object is created last, when everything that it names is stored and was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Savepoint {
    /// The name that it was taken under; its folder may have another one since.
    pub name: SavepointName,
    /// The application that it was taken of.
    pub application: String,
    /// Fingerprint of the topology.
    pub plan: String,
    /// The text that the fingerprint is of, for a readable difference.
    pub plan_text: String,
    /// What its state is made of.
    pub form: Form,
    /// When it was asked for, in milliseconds since the Unix epoch.
    pub asked_ms: Millis,
    /// When it was complete.
    pub made_ms: Millis,
    /// All tasks, in order of their ids.
    pub parts: Vec<Part>,
}

#[derive(Serialize, Deserialize)]
struct Json {
    name: String,
    application: String,
    plan: String,
    plan_text: String,
    form: Form,
    asked_ms: Millis,
    made_ms: Millis,
    parts: Vec<JsonPart>,
}

impl Savepoint {
    /// Bytes of all files together.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(Part::bytes).sum()
    }

    /// The part of a task.
    pub fn part(&self, task: TaskId) -> Option<&Part> {
        self.parts.iter().find(|part| part.task == task)
    }

    /// Names of all objects that it refers to, relative to its folder, each once.
    pub fn objects(&self) -> std::collections::BTreeSet<&str> {
        let files = self.parts.iter().flat_map(|part| &part.files);
        files.filter(|file| file.bytes > 0).map(|file| &*file.object).collect()
    }

    /// The object's bytes.
    pub fn to_json(&self) -> Vec<u8> {
        seal(&Json {
            name: self.name.to_string(),
            application: self.application.clone(),
            plan: self.plan.clone(),
            plan_text: self.plan_text.clone(),
            form: self.form,
            asked_ms: self.asked_ms,
            made_ms: self.made_ms,
            parts: self.parts.iter().map(JsonPart::from).collect(),
        })
    }

    /// Reads the bytes of the object `object`.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn from_json(bytes: &[u8], object: &str) -> Result<Self, FormatError> {
        let json: Json = unseal(bytes, object)?;
        let parts = json.parts.into_iter().map(|part| part.read(object));
        Ok(Self {
            name: json.name.parse().map_err(|reason| damaged_object(object, reason))?,
            application: json.application,
            plan: json.plan,
            plan_text: json.plan_text,
            form: json.form,
            asked_ms: json.asked_ms,
            made_ms: json.made_ms,
            parts: parts.collect::<Result<_, _>>()?,
        })
    }
}
