//! Bytes, text and integers, in the formats of Kafka's own serdes.

use super::{Codec, CodecError, DefaultCodec, KeyCodec};

/// Bytes as they are, like Kafka's `ByteArraySerde`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bytes;

impl Codec for Bytes {
    type Item = Vec<u8>;

    fn encode(&self, item: &Vec<u8>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(item);
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
        Ok(bytes.to_vec())
    }

    fn id(&self) -> String {
        "bytes".into()
    }
}

impl KeyCodec for Bytes {}

impl DefaultCodec for Vec<u8> {
    type Codec = Bytes;
}

/// Text in UTF-8, like Kafka's `StringSerde`. Bytes that are not UTF-8 are refused, not replaced.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8;

impl Codec for Utf8 {
    type Item = String;

    fn encode(&self, item: &String, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(item.as_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<String, CodecError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(CodecError::Decode {
                codec: self.id(),
                bytes: bytes.len(),
                reason: error.to_string(),
            }),
        }
    }

    fn id(&self) -> String {
        "utf8".into()
    }
}

impl KeyCodec for Utf8 {}

impl DefaultCodec for String {
    type Codec = Utf8;
}

macro_rules! big_endian {
    ($codec:ident, $item:ty, $id:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $codec;

        impl Codec for $codec {
            type Item = $item;

            fn encode(&self, item: &$item, out: &mut Vec<u8>) -> Result<(), CodecError> {
                out.extend_from_slice(&item.to_be_bytes());
                Ok(())
            }

            fn decode(&self, bytes: &[u8]) -> Result<$item, CodecError> {
                match bytes.try_into() {
                    Ok(exact) => Ok(<$item>::from_be_bytes(exact)),
                    Err(_) => Err(CodecError::Decode {
                        codec: self.id(),
                        bytes: bytes.len(),
                        reason: format!("it takes exactly {} bytes", size_of::<$item>()),
                    }),
                }
            }

            fn id(&self) -> String {
                $id.into()
            }
        }

        impl KeyCodec for $codec {}

        impl DefaultCodec for $item {
            type Codec = $codec;
        }
    };
}

big_endian!(
    I64Be,
    i64,
    "i64-be",
    "64-bit integers in 8 bytes, big-endian, like Kafka's `LongSerde`."
);
big_endian!(
    I32Be,
    i32,
    "i32-be",
    "32-bit integers in 4 bytes, big-endian, like Kafka's `IntegerSerde`."
);

/// Values that nobody looks at: decoding reads nothing and allocates nothing, encoding writes no bytes.
///
/// For topologies that need only key, time or headers of a topic, for example to count its records.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ignored;

impl Codec for Ignored {
    type Item = ();

    fn encode(&self, _item: &(), _out: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(())
    }

    fn decode(&self, _bytes: &[u8]) -> Result<(), CodecError> {
        Ok(())
    }

    fn id(&self) -> String {
        "ignored".into()
    }
}

impl DefaultCodec for () {
    type Codec = Ignored;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded<C: Codec>(codec: &C, item: &C::Item) -> Vec<u8> {
        let mut out = vec![0xee];
        codec.encode(item, &mut out).expect("encodes");
        assert_eq!(out.remove(0), 0xee, "encoding appends");
        out
    }

    #[test]
    fn integers_have_the_bytes_of_kafkas_serdes() {
        assert_eq!(encoded(&I64Be, &-2), [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]);
        assert_eq!(encoded(&I32Be, &258), [0, 0, 1, 2]);
        assert_eq!(I64Be.decode(&encoded(&I64Be, &i64::MIN)).unwrap(), i64::MIN);
        assert_eq!(I32Be.decode(&[0x7f, 0xff, 0xff, 0xff]).unwrap(), i32::MAX);
    }

    #[test]
    fn wrong_bytes_are_refused_with_their_length_and_the_codecs_id() {
        let error = I64Be.decode(&[0; 7]).unwrap_err().to_string();
        assert!(error.contains("7 bytes as i64-be"), "{error}");
        let error = Utf8.decode(b"a\xff").unwrap_err().to_string();
        assert!(error.contains("2 bytes as utf8"), "{error}");
        assert!(Utf8.decode(b"").unwrap().is_empty());
    }

    #[test]
    fn ignored_values_decode_from_anything() {
        assert!(Ignored.decode(b"\xff{").is_ok());
        assert!(encoded(&Ignored, &()).is_empty());
        assert_eq!(Bytes.decode(b"\xff{").unwrap(), b"\xff{");
    }
}
