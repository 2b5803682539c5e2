//! What the application is that a savepoint is taken of. The first instance that sees the request says so, and all say the same.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::durability::snapshot::{FormatError, damaged_object};
use crate::ids::TaskId;

use super::sealed::{seal, unseal};

/// An application and all of its tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    /// The application.
    pub application: String,
    /// Fingerprint of the topology.
    pub plan: String,
    /// The text that it is of.
    pub plan_text: String,
    /// All tasks.
    pub tasks: BTreeSet<TaskId>,
}

#[derive(Serialize, Deserialize)]
struct Json {
    application: String,
    plan: String,
    plan_text: String,
    tasks: Vec<String>,
}

impl Census {
    /// The object's bytes.
    pub fn to_json(&self) -> Vec<u8> {
        seal(&Json {
            application: self.application.clone(),
            plan: self.plan.clone(),
            plan_text: self.plan_text.clone(),
            tasks: self.tasks.iter().map(TaskId::to_string).collect(),
        })
    }

    /// Reads the bytes of the object `object`.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn from_json(bytes: &[u8], object: &str) -> Result<Self, FormatError> {
        let json: Json = unseal(bytes, object)?;
        let tasks = json.tasks.iter().map(|task| task.parse());
        let tasks: Result<_, String> = tasks.collect();
        Ok(Self {
            application: json.application,
            plan: json.plan,
            plan_text: json.plan_text,
            tasks: tasks.map_err(|reason| damaged_object(object, reason))?,
        })
    }
}
