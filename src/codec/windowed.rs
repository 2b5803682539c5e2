//! Keys of windowed results.

use super::{Codec, CodecError, KeyCodec};
use crate::time::Millis;

/// A key together with the window that a result belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Windowed<K> {
    /// First millisecond of the window.
    pub start_ms: Millis,
    /// First millisecond after the window.
    pub end_ms: Millis,
    /// The key that was grouped by.
    pub key: K,
}

/// Windowed keys as Kafka Streams' `TimeWindowedSerializer` writes them: the key, then the window's start in 8 bytes.
///
/// The size of the windows is not in the bytes; the codec has to know it to restore the window's end.
/// Records go to the partition of the inner key.
#[derive(Clone, Copy, Debug)]
pub struct TimeWindowed<C> {
    inner: C,
    size_ms: Millis,
}

impl<C> TimeWindowed<C> {
    /// Windowed keys of windows of `size_ms`, over keys of `inner`.
    pub fn new(inner: C, size_ms: Millis) -> Self {
        Self { inner, size_ms }
    }
}

impl<C: KeyCodec> Codec for TimeWindowed<C> {
    type Item = Windowed<C::Item>;

    fn encode(&self, item: &Self::Item, out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.inner.encode(&item.key, out)?;
        out.extend_from_slice(&item.start_ms.to_be_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Self::Item, CodecError> {
        let Some((key, start)) = bytes.split_last_chunk::<8>() else {
            return Err(CodecError::Decode {
                codec: self.id(),
                bytes: bytes.len(),
                reason: "a windowed key ends with 8 bytes of window start".into(),
            });
        };
        let start_ms = Millis::from_be_bytes(*start);
        Ok(Windowed {
            start_ms,
            end_ms: start_ms.saturating_add(self.size_ms),
            key: self.inner.decode(key)?,
        })
    }

    fn id(&self) -> String {
        format!("time-windowed({}, {} ms)", self.inner.id(), self.size_ms)
    }
}

impl<C: KeyCodec> KeyCodec for TimeWindowed<C> {
    fn partition_bytes<'a>(&self, encoded: &'a [u8]) -> &'a [u8] {
        let key = &encoded[..encoded.len().saturating_sub(8)];
        self.inner.partition_bytes(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Utf8;

    #[test]
    fn the_key_comes_first_and_alone_decides_the_partition() {
        let codec = TimeWindowed::new(Utf8, 60_000);
        let key = Windowed {
            start_ms: 120_000,
            end_ms: 180_000,
            key: "JFK".to_owned(),
        };
        let mut bytes = Vec::new();
        codec.encode(&key, &mut bytes).unwrap();
        assert_eq!(bytes, b"JFK\x00\x00\x00\x00\x00\x01\xd4\xc0");
        assert_eq!(codec.decode(&bytes).unwrap(), key);
        assert_eq!(codec.partition_bytes(&bytes), b"JFK");
        assert!(codec.decode(b"short").is_err());
    }
}
