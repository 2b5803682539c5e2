//! What an export is: the document `export.json` says where each task's copy ends, which in the repository that it was taken from others said.

use serde::{Deserialize, Serialize};

use crate::durability::snapshot::{FormatError, IncrementRef, SnapshotId};
use crate::ids::TaskId;
use crate::time::Millis;

const FORMAT: u32 = 1;

/// Name of the object.
pub const EXPORT: &str = "export.json";

/// Where the copy of one task ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The task.
    pub task: TaskId,
    /// Its base snapshot.
    pub base: SnapshotId,
    /// Its last increment; `None` where the base is all.
    pub increment: Option<IncrementRef>,
}

#[derive(Serialize, Deserialize)]
struct Json {
    format: u32,
    /// Where it was taken from, for people.
    from: String,
    made_ms: Millis,
    /// Task, base snapshot, last increment or nothing.
    heads: Vec<(String, String, String)>,
}

/// The bytes of the document.
pub fn write(from: &str, made_ms: Millis, heads: &[Head]) -> Vec<u8> {
    let head = |head: &Head| {
        let increment = head.increment.as_ref().map(ToString::to_string);
        (
            head.task.to_string(),
            head.base.to_string(),
            increment.unwrap_or_default(),
        )
    };
    let json = Json {
        format: FORMAT,
        from: from.to_owned(),
        made_ms,
        heads: heads.iter().map(head).collect(),
    };
    serde_json::to_vec(&json).unwrap_or_default()
}

/// Reads the document.
///
/// # Errors
/// [`FormatError`].
pub fn read(bytes: &[u8]) -> Result<Vec<Head>, FormatError> {
    let damaged = |reason: String| FormatError::Damaged {
        object: EXPORT.to_owned(),
        reason,
    };
    let json: Json = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    if json.format > FORMAT {
        return Err(FormatError::Newer {
            object: EXPORT.to_owned(),
            found: json.format,
            known: FORMAT,
        });
    }
    let head = |(task, base, increment): &(String, String, String)| {
        Ok(Head {
            task: task.parse()?,
            base: base.parse()?,
            increment: match &increment[..] {
                "" => None,
                increment => Some(increment.parse()?),
            },
        })
    };
    let heads = json.heads.iter().map(head);
    heads.collect::<Result<_, String>>().map_err(damaged)
}
