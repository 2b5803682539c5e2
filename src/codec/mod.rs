//! Codecs: how keys and values become bytes. They belong to topics and stores, never to streams.

mod json;
mod scalars;
mod windowed;

pub use json::Json;
pub use scalars::{Bytes, I32Be, I64Be, Ignored, Utf8};
pub use windowed::{TimeWindowed, Windowed};

use crate::errors::Coded;

/// Why bytes could not be decoded or an item could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The bytes are not what the codec writes.
    #[error("cannot decode {bytes} bytes as {codec}: {reason}")]
    Decode {
        /// Id of the codec.
        codec: String,
        /// Length of the input in bytes.
        bytes: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The item has no representation in the codec.
    #[error("cannot encode as {codec}: {reason}")]
    Encode {
        /// Id of the codec.
        codec: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Coded for CodecError {
    fn code(&self) -> &'static str {
        match self {
            CodecError::Decode { .. } => "TG0001",
            CodecError::Encode { .. } => "TG0002",
        }
    }
}

/// Turns items into bytes and back.
pub trait Codec: Send + Sync + 'static {
    /// What is encoded.
    type Item: 'static;

    /// Appends the bytes of `item` to `out`.
    ///
    /// # Errors
    /// [`CodecError::Encode`] where the item has no representation.
    fn encode(&self, item: &Self::Item, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Reads an item from exactly these bytes.
    ///
    /// # Errors
    /// [`CodecError::Decode`] where the bytes are not what [`Codec::encode`] writes.
    fn decode(&self, bytes: &[u8]) -> Result<Self::Item, CodecError>;

    /// Stable name of the format, part of the plan's fingerprint, for example `utf8` or `i64-be`.
    fn id(&self) -> String;
}

/// A codec fit for keys: equal items encode to equal bytes.
///
/// JSON is deliberately not a key codec: field order and number formats are not canonical. So this does not compile:
///
/// ```compile_fail,E0277
/// use tidegate::codec::{Json, Utf8};
/// use tidegate::topology::Topic;
///
/// let topic: Topic<Vec<u64>, String> = Topic::new("lines", Json::<Vec<u64>>::new(), Utf8);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a codec for keys",
    note = "keys need a canonical encoding: equal keys, equal bytes; JSON has none"
)]
pub trait KeyCodec: Codec {
    /// The part of an encoded key that decides the partition: all of it, except that a windowed key goes where its
    /// inner key goes (as with Kafka Streams' `WindowedStreamPartitioner`).
    fn partition_bytes<'a>(&self, encoded: &'a [u8]) -> &'a [u8] {
        encoded
    }
}

/// A type with a codec that is used where none is named.
///
/// For a type of your own one line says it, and an internal topic or a store of it then needs only a name:
///
/// ```
/// use tidegate::codec::{DefaultCodec, Json};
///
/// #[derive(Clone, serde::Serialize, serde::Deserialize)]
/// struct Totals { flights: u64, cancelled: u64 }
///
/// impl DefaultCodec for Totals {
///     type Codec = Json<Totals>;
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no default codec",
    note = "implement `DefaultCodec` for it, or name the codec: `Materialized::new(name, value codec)`, `Repartitioned::new(name, key codec, value codec)`"
)]
pub trait DefaultCodec: Sized + 'static {
    /// The codec.
    type Codec: Codec<Item = Self> + Default;
}

/// A type with a codec that is used for keys where none is named. Comes with [`DefaultCodec`] where that is fit for keys.
pub trait DefaultKeyCodec: DefaultCodec<Codec: KeyCodec> {}

impl<T: DefaultCodec<Codec: KeyCodec>> DefaultKeyCodec for T {}
