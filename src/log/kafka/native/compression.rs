//! Compression of batches, by the libraries that consumers use too.

use std::io::{self, Write};

/// What a batch is compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    None,
    Gzip,
    Lz4,
    Zstd,
}

impl Codec {
    /// By the name that options have for it; `None` for one that is not built in.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::None),
            "gzip" => Some(Self::Gzip),
            "lz4" => Some(Self::Lz4),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The bits that name it in a batch.
    pub fn attribute(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }
}

/// The library refused to compress.
#[derive(Debug, thiserror::Error)]
#[error("a batch cannot be compressed: {0}")]
pub(super) struct CompressionError(#[from] io::Error);

/// Compresses one batch after the other.
pub(super) struct Compressor {
    codec: Codec,
    level: Option<i32>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Compressor {
    /// `level`: as the codec counts them; `None` for its own default.
    ///
    /// # Errors
    /// [`CompressionError`] for a level that does not exist.
    pub fn new(codec: Codec, level: Option<i32>) -> Result<Self, CompressionError> {
        let zstd = match codec {
            Codec::Zstd => Some(zstd::bulk::Compressor::new(
                level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL),
            )?),
            _ => None,
        };
        Ok(Self { codec, level, zstd })
    }

    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Appends the compressed form of `plain` to `out`.
    pub fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
        match (self.codec, &mut self.zstd) {
            (Codec::Gzip, _) => {
                let level = self.level.and_then(|level| u32::try_from(level).ok());
                let level = level.map_or_else(flate2::Compression::default, flate2::Compression::new);
                let mut encoder = flate2::write::GzEncoder::new(out, level);
                encoder.write_all(plain)?;
                encoder.finish()?;
            }
            (Codec::Lz4, _) => {
                // Java's reader takes independent blocks only.
                let mut encoder = lz4::EncoderBuilder::new()
                    .block_mode(lz4::BlockMode::Independent)
                    .block_size(lz4::BlockSize::Max64KB)
                    .checksum(lz4::ContentChecksum::NoChecksum)
                    .level(self.level.and_then(|level| u32::try_from(level).ok()).unwrap_or(0))
                    .build(out)?;
                encoder.write_all(plain)?;
                encoder.finish().1?;
            }
            (_, Some(zstd)) => {
                let start = out.len();
                out.resize(start + zstd::zstd_safe::compress_bound(plain.len()), 0);
                let length = zstd.compress_to_buffer(plain, &mut out[start..])?;
                out.truncate(start + length);
            }
            _ => out.extend_from_slice(plain),
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn decompressed(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut plain = Vec::new();
    let read = match codec {
        Codec::None => (&mut &*bytes).read_to_end(&mut plain),
        Codec::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain),
        Codec::Lz4 => lz4::Decoder::new(bytes).and_then(|mut decoder| decoder.read_to_end(&mut plain)),
        Codec::Zstd => zstd::stream::read::Decoder::new(bytes).and_then(|mut decoder| decoder.read_to_end(&mut plain)),
    };
    read.expect("it can be decompressed");
    plain
}
