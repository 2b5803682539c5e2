//! JSON values by serde.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, CodecError};

/// JSON by serde, for values only: it is no [`super::KeyCodec`], since equal items may have different JSON.
pub struct Json<T>(PhantomData<fn() -> T>);

impl<T> Json<T> {
    /// The codec of `T`.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for Json<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for Json<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Json<T> {}

impl<T> fmt::Debug for Json<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Json")
    }
}

impl<T: Serialize + DeserializeOwned + 'static> Codec for Json<T> {
    type Item = T;

    fn encode(&self, item: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        serde_json::to_writer(out, item).map_err(|error| CodecError::Encode {
            codec: self.id(),
            reason: error.to_string(),
        })
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        serde_json::from_slice(bytes).map_err(|error| CodecError::Decode {
            codec: self.id(),
            bytes: bytes.len(),
            reason: error.to_string(),
        })
    }

    fn id(&self) -> String {
        "json".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Row {
        carrier: String,
        delay: Option<f64>,
    }

    #[test]
    fn rows_survive_and_null_fields_are_none() {
        let codec = Json::<Row>::new();
        let row = codec.decode(br#"{"carrier":"AA","delay":null}"#).unwrap();
        assert_eq!(row.delay, None);
        let mut out = Vec::new();
        codec.encode(&row, &mut out).unwrap();
        assert_eq!(codec.decode(&out).unwrap(), row);
    }

    #[test]
    fn bad_json_names_line_and_column_and_unencodable_items_are_errors() {
        let error = Json::<Row>::new().decode(b"{\"carrier\":1}").unwrap_err().to_string();
        assert!(error.contains("as json") && error.contains("line 1 column"), "{error}");
        let unkeyed = std::collections::BTreeMap::from([(vec![1_u8], 1)]);
        assert!(Json::new().encode(&unkeyed, &mut Vec::new()).is_err());
    }
}
