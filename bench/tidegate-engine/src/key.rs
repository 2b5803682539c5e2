//! The benchmark's keys: 16 bytes, so no key needs the heap.

use tidegate::codec::{Codec, CodecError, DefaultCodec, KeyCodec};

/// A key of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub [u8; 16]);

/// The bytes as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyBytes;

impl Codec for KeyBytes {
    type Item = Key;

    fn encode(&self, key: &Key, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(&key.0);
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Key, CodecError> {
        bytes.try_into().map(Key).map_err(|_| CodecError::Decode {
            codec: self.id(),
            bytes: bytes.len(),
            reason: "a key has 16 bytes".to_owned(),
        })
    }

    fn id(&self) -> String {
        "bytes-16".to_owned()
    }
}

impl KeyCodec for KeyBytes {}

impl DefaultCodec for Key {
    type Codec = KeyBytes;
}
