//! What can be wrong with an object in the repository.

use serde::Deserialize;

use crate::errors::Coded;

/// Why an object is not what its name promises.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Its bytes are not the ones that were written.
    #[error("the object {object} is damaged: {reason}")]
    Damaged {
        /// Its name.
        object: String,
        /// What is wrong.
        reason: String,
    },
    /// It was written by a later version of Tidegate.
    #[error(
        "the object {object} has format {found}, this version reads up to format {known}; use the version that wrote it, or a later one"
    )]
    Newer {
        /// Its name.
        object: String,
        /// The format that it says it has.
        found: u32,
        /// The newest format that is known here.
        known: u32,
    },
    /// It belongs to something else: another task, lineage or topology.
    #[error("the object {object} does not belong here: it is of {what}")]
    Foreign {
        /// Its name.
        object: String,
        /// What it is of.
        what: String,
    },
}

impl FormatError {
    pub(super) fn damaged(object: &str, reason: String) -> Self {
        FormatError::Damaged {
            object: object.to_owned(),
            reason,
        }
    }

    pub(super) fn foreign(object: &str, what: String) -> Self {
        FormatError::Foreign {
            object: object.to_owned(),
            what,
        }
    }
}

/// The error of an object of `durability` that is damaged.
pub(in crate::durability) fn damaged_object(object: &str, reason: String) -> FormatError {
    FormatError::damaged(object, reason)
}

impl Coded for FormatError {
    fn code(&self) -> &'static str {
        match self {
            FormatError::Damaged { .. } => "TG3011",
            FormatError::Newer { .. } => "TG3012",
            FormatError::Foreign { .. } => "TG3013",
        }
    }
}

/// The part of a JSON object that every version has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// Looks at the format of a JSON object before the rest of it.
pub(in crate::durability) fn check_format(json: &[u8], known: u32, object: &str) -> Result<(), FormatError> {
    let format: Format =
        serde_json::from_slice(json).map_err(|error| FormatError::damaged(object, error.to_string()))?;
    match format.format {
        0 => Err(FormatError::damaged(object, "its format is 0".into())),
        found if found > known => Err(FormatError::Newer {
            object: object.to_owned(),
            found,
            known,
        }),
        _ => Ok(()),
    }
}
