//! Files of frames: each is appended whole, and found whole or torn.
//!
//! ```text
//! file    magic "tidegate", kind (4 bytes), format version (u32), frames
//! frame   length of the payload (u32), checksum of these four bytes, checksum of the payload, payload
//! ```
//!
//! Checksums are CRC-32. The length has one of its own, so that a damaged length is never taken for a torn tail.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tracing::warn;

use super::DirectoryError;

const MAGIC: &[u8; 8] = b"tidegate";
/// Version of everything that is written in a directory.
pub(super) const FORMAT_VERSION: u32 = 1;
const FILE_HEADER_BYTES: u64 = 16;
const FRAME_HEADER_BYTES: usize = 12;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Topics, producers, offsets and the ends of transactions.
    Journal,
    /// The records of one partition.
    Partition,
}

impl Kind {
    fn tag(self) -> &'static [u8; 4] {
        match self {
            Kind::Journal => b"jrnl",
            Kind::Partition => b"part",
        }
    }

    fn header(self) -> Vec<u8> {
        [MAGIC, &self.tag()[..], &FORMAT_VERSION.to_be_bytes()].concat()
    }
}

/// Appends a frame to `buffer`; `write` appends the payload.
pub(super) fn frame(buffer: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    write(buffer);
    let payload = start + FRAME_HEADER_BYTES;
    let length = ((buffer.len() - payload) as u32).to_be_bytes();
    let checksum = crc32fast::hash(&buffer[payload..]).to_be_bytes();
    let header = [length, crc32fast::hash(&length).to_be_bytes(), checksum].concat();
    buffer[start..payload].copy_from_slice(&header);
}

/// A file that frames are appended to.
#[derive(Debug)]
pub(super) struct FrameFile {
    path: PathBuf,
    file: File,
    /// Frames that are not written yet.
    pub buffer: Vec<u8>,
    bytes: u64,
    /// Something was changed that the disk need not have yet.
    is_unsynced: bool,
}

impl FrameFile {
    /// A new file in place of whatever stands there.
    pub fn create(path: &Path, kind: Kind) -> Result<Self, DirectoryError> {
        let created = File::create(path).map_err(|error| DirectoryError::io(path, &error))?;
        let mut file = Self {
            path: path.to_owned(),
            file: created,
            buffer: kind.header(),
            bytes: 0,
            is_unsynced: true,
        };
        file.flush()?;
        Ok(file)
    }

    /// Opens a file, reads its frames, and goes on behind the last whole one; a torn tail is cut off. `visit` answers
    /// `None` for a payload that means nothing.
    pub fn open(path: &Path, kind: Kind, mut visit: impl FnMut(&[u8]) -> Option<()>) -> Result<Self, DirectoryError> {
        let io = |error: std::io::Error| DirectoryError::io(path, &error);
        let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        if length < FILE_HEADER_BYTES {
            warn!(file = %path.display(), bytes = length, "the file was torn when it was made; it is begun anew");
            return Self::create(path, kind);
        }
        let mut reader = BufReader::with_capacity(1 << 20, &mut file);
        check_header(path, kind, &mut reader)?;
        let mut at = FILE_HEADER_BYTES;
        let mut payload = Vec::new();
        while read_frame(path, at, &mut reader, &mut payload)? {
            visit(&payload).ok_or_else(|| DirectoryError::damaged(path, at, "its contents have no meaning"))?;
            at += (FRAME_HEADER_BYTES + payload.len()) as u64;
        }
        drop(reader);
        if at < length {
            warn!(
                file = %path.display(), offset = at, bytes = length - at,
                "the last write was torn by the end of the process and is cut off; nothing of it was acknowledged"
            );
            file.set_len(at).map_err(io)?;
        }
        file.seek(SeekFrom::Start(at)).map_err(io)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            buffer: Vec::new(),
            bytes: at,
            // What a killed process wrote is with the operating system, which may not have written it yet.
            is_unsynced: true,
        })
    }

    /// Bytes of the file and of what waits to be written.
    pub fn bytes(&self) -> u64 {
        self.bytes + self.buffer.len() as u64
    }

    /// Hands everything to the operating system: from then on it outlives the process.
    pub fn flush(&mut self) -> Result<(), DirectoryError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all(&self.buffer);
        written.map_err(|error| DirectoryError::io(&self.path, &error))?;
        self.bytes += self.buffer.len() as u64;
        self.is_unsynced = true;
        self.buffer.clear();
        Ok(())
    }

    /// Hands everything to the disk: from then on it outlives the machine.
    pub fn sync(&mut self) -> Result<(), DirectoryError> {
        self.flush()?;
        if self.is_unsynced {
            let synced = self.file.sync_all();
            synced.map_err(|error| DirectoryError::io(&self.path, &error))?;
            self.is_unsynced = false;
        }
        Ok(())
    }

    /// Takes the place of another file at once. What was there before is gone, so the new one has to be on the disk.
    pub fn replace(&mut self, path: &Path) -> Result<(), DirectoryError> {
        self.sync()?;
        std::fs::rename(&self.path, path).map_err(|error| DirectoryError::io(path, &error))?;
        self.path = path.to_owned();
        Ok(())
    }
}

fn check_header(path: &Path, kind: Kind, reader: &mut impl Read) -> Result<(), DirectoryError> {
    let mut header = [0; FILE_HEADER_BYTES as usize];
    let read = reader.read_exact(&mut header);
    read.map_err(|error| DirectoryError::io(path, &error))?;
    let (named, version) = header.split_at(MAGIC.len() + kind.tag().len());
    if *named != [MAGIC, &kind.tag()[..]].concat() {
        return Err(DirectoryError::damaged(
            path,
            0,
            "it does not begin as a file of the embedded log",
        ));
    }
    if *version == FORMAT_VERSION.to_be_bytes() {
        return Ok(());
    }
    let found = version.try_into().map(u32::from_be_bytes).unwrap_or_default();
    Err(DirectoryError::Version {
        file: path.to_owned(),
        found,
        known: FORMAT_VERSION,
    })
}

/// Reads the frame at offset `at`; answers false at the end of the file, and where the frame is torn.
fn read_frame(path: &Path, at: u64, reader: &mut impl Read, payload: &mut Vec<u8>) -> Result<bool, DirectoryError> {
    let mut header = [0; FRAME_HEADER_BYTES];
    if !read_whole(path, reader, &mut header)? {
        return Ok(false);
    }
    let word = |index: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&header[index * 4..index * 4 + 4]);
        u32::from_be_bytes(bytes)
    };
    if crc32fast::hash(&header[..4]) != word(1) {
        return Err(DirectoryError::damaged(path, at, "the checksum of a length is wrong"));
    }
    // Not more than what is there is ever read, however long the frame says it is.
    payload.clear();
    let length = u64::from(word(0));
    let read = reader.by_ref().take(length).read_to_end(payload);
    let read = read.map_err(|error| DirectoryError::io(path, &error))?;
    if (read as u64) < length {
        return Ok(false);
    }
    if crc32fast::hash(payload) != word(2) {
        return Err(DirectoryError::damaged(path, at, "a checksum is wrong"));
    }
    Ok(true)
}

fn read_whole(path: &Path, reader: &mut impl Read, bytes: &mut [u8]) -> Result<bool, DirectoryError> {
    match reader.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(DirectoryError::io(path, &error)),
    }
}
