//! JSON that is exactly what was written: one line with a format, the contents, and a checksum over all of it.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::durability::snapshot::{ContentHash, FormatError, check_format, damaged_object};

/// The format that is written, and the newest that is read.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Sealed<T> {
    format: u32,
    #[serde(flatten)]
    contents: T,
    checksum: String,
}

/// The text of `contents`; the checksum is BLAKE3 of the text with an empty one.
pub(super) fn seal<T: Serialize>(contents: &T) -> Vec<u8> {
    let text = |checksum| {
        let sealed = Sealed {
            format: FORMAT,
            contents,
            checksum,
        };
        serde_json::to_vec(&sealed).unwrap_or_default()
    };
    text(ContentHash::of(&text(String::new())).to_string())
}

/// Reads what [`seal`] wrote.
pub(super) fn unseal<T: Serialize + DeserializeOwned>(bytes: &[u8], object: &str) -> Result<T, FormatError> {
    check_format(bytes, FORMAT, object)?;
    let sealed: Sealed<T> = serde_json::from_slice(bytes).map_err(|error| damaged_object(object, error.to_string()))?;
    match seal(&sealed.contents) == bytes {
        true => Ok(sealed.contents),
        false => Err(damaged_object(
            object,
            "its checksum differs, or its text is not as it was written".into(),
        )),
    }
}
