//! An embedded log in a directory: what the broker knows outlives the process.
//!
//! ```text
//! lock                       held while a process has the log open
//! journal                    topics, producers, offsets of groups, ends of transactions
//! topics/<id>/<partition>    records and end markers of one partition
//! ```
//!
//! The log is in memory all the same; the files are what it is made of again. They are only appended to, by frames with
//! checksums, and made anew when most of what they hold is gone ([`frames`], [`records`], [`journal`]).
//!
//! **When the process dies**, however it does, nothing is lost that was acknowledged: a record without a transaction, an
//! offset, a topic and the end of a transaction are with the operating system before the answer. Records of an open
//! transaction may wait in memory, for they count only with its end. One line of the journal is that end, in all
//! partitions and groups at once; markers that are missing in partitions are written again when the log is opened.
//! Transactions without an end are then aborted, as Kafka does when their id is initialised again or when they time out.
//! A torn tail is what was being written; it is cut off with a warning. Members of groups are gone with their process.
//!
//! **When the machine dies**, what was written since the last clean end may be lost or damaged: only a clean end, and a file
//! that is made anew, wait for the disk. Damage is found at the opening and refused ([`DirectoryError::Damaged`]).
//!
//! Records that compaction took may be there again after an opening, until they are compacted again; what was deleted is
//! not. When compaction will take a tombstone is not kept: its time begins again.

mod bytes;
mod error;
mod frames;
mod journal;
mod records;
mod recovery;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use tracing::{error, warn};

use super::packed::{Packed, TransactionSerial};
use super::partition::{Ending, Partition};
use super::topic::TopicId;
use crate::log::{CommitOffset, TopicSpec};
use crate::time::Millis;
pub use error::DirectoryError;
use frames::{FrameFile, Kind, frame};
use journal::Entry;
use records::{Bounds, snapshot, write_bounds, write_marker, write_records};
pub(super) use recovery::open;

/// A partition's records of open transactions wait in memory up to this size.
const BUFFER_BYTES: usize = 256 << 10;
/// A file is made anew when it is larger by this than twice what it has to hold.
const GARBAGE_BYTES: u64 = 1 << 20;
/// The journal is made anew when it is larger by this than twice what it had to hold.
const JOURNAL_BYTES: u64 = 4 << 20;

const LOCK: &str = "lock";
const JOURNAL: &str = "journal";
const NEW_JOURNAL: &str = "journal.new";
const TOPICS: &str = "topics";

/// Where the broker writes down what it does; nowhere by default.
///
/// The first write that fails is kept. The broker answers nothing but that failure from then on, so nobody is told of
/// anything that is not written.
#[derive(Default)]
pub(super) struct Store {
    files: Option<Files>,
    failure: Option<DirectoryError>,
}

/// The open files of a directory.
struct Files {
    dir: PathBuf,
    /// Locked until it is closed.
    _lock: File,
    journal: FrameFile,
    /// Size at which the journal is made anew.
    journal_limit: u64,
    partitions: BTreeMap<(TopicId, i32), FrameFile>,
}

impl Store {
    /// Why nothing can be written any more.
    pub fn failure(&self) -> Option<&DirectoryError> {
        self.failure.as_ref()
    }

    fn write(&mut self, write: impl FnOnce(&mut Files) -> Result<(), DirectoryError>) {
        let Some(files) = self.files.as_mut().filter(|_| self.failure.is_none()) else {
            return;
        };
        if let Err(failure) = write(files) {
            error!(%failure, "the log cannot be written any more");
            self.failure = Some(failure);
        }
    }

    /// Whether most of the journal is about what is over.
    fn journal_is_long(&self) -> bool {
        let files = self.files.as_ref();
        files.is_some_and(|files| files.journal.bytes() > files.journal_limit)
    }

    /// A topic was created, or has other settings.
    pub fn topic_described(&mut self, id: TopicId, spec: &TopicSpec) {
        self.write(|files| {
            files.journal(&Entry::Topic {
                id: id.number(),
                name: spec.name.to_string(),
                partitions: spec.partitions.unsigned_abs(),
                config: spec.config.clone(),
            })
        });
    }

    /// A topic was deleted, and its records with it.
    pub fn topic_deleted(&mut self, id: TopicId) {
        self.write(|files| {
            files.journal(&Entry::TopicDeleted { id: id.number() })?;
            files.partitions.retain(|(topic, _), _| *topic != id);
            remove_topic(&files.dir, id)
        });
    }

    /// A transactional id has a new producer.
    pub fn producer(&mut self, name: &str, producer_id: i64, epoch: i16) {
        self.write(|files| {
            files.journal(&Entry::Producer {
                name: name.to_owned(),
                producer_id,
                epoch,
            })
        });
    }

    /// Offsets were committed outside of a transaction.
    pub fn offsets(&mut self, group: &str, offsets: &[CommitOffset]) {
        self.write(|files| {
            files.journal(&Entry::Offsets {
                group: group.to_owned(),
                offsets: offsets.to_vec(),
            })
        });
    }

    /// Offsets wait for the end of a transaction.
    pub fn pending_offsets(&mut self, serial: TransactionSerial, group: &str, offsets: &[CommitOffset]) {
        self.write(|files| {
            files.journal(&Entry::Pending {
                serial,
                group: group.to_owned(),
                offsets: offsets.to_vec(),
            })
        });
    }

    /// Records were appended at `first_offset`.
    pub fn append(
        &mut self,
        topic: TopicId,
        partition: i32,
        first_offset: i64,
        transaction: Option<TransactionSerial>,
        records: &Packed,
    ) {
        self.write(|files| {
            let file = files.partition(topic, partition)?;
            let all = 0..records.len();
            frame(&mut file.buffer, |buffer| {
                write_records(buffer, first_offset, transaction, records, all);
            });
            match transaction.is_none() || file.buffer.len() >= BUFFER_BYTES {
                true => file.flush(),
                false => Ok(()),
            }
        });
    }

    /// A transaction ends that has written to `partitions`. From here on it has ended everywhere.
    pub fn end(
        &mut self,
        serial: TransactionSerial,
        ending: Ending,
        wall_ms: Millis,
        partitions: &BTreeSet<(TopicId, i32)>,
    ) {
        self.write(|files| {
            for place in partitions {
                if let Some(file) = files.partitions.get_mut(place) {
                    file.flush()?;
                }
            }
            files.journal(&Entry::End {
                serial,
                ending,
                wall_ms,
            })
        });
    }

    /// An end marker was appended. It may wait: the journal tells of it already.
    pub fn marker(
        &mut self,
        topic: TopicId,
        partition: i32,
        offset: i64,
        serial: TransactionSerial,
        ending: Ending,
        wall_ms: Millis,
    ) {
        self.write(|files| {
            let file = files.partition(topic, partition)?;
            frame(&mut file.buffer, |buffer| {
                write_marker(buffer, offset, serial, ending, wall_ms);
            });
            Ok(())
        });
    }

    /// Records of a partition were deleted or compacted.
    pub fn cleaned(&mut self, topic: TopicId, number: i32, partition: &Partition) {
        self.write(|files| {
            let dir = topic_dir(&files.dir, topic);
            let file = files.partition(topic, number)?;
            if file.bytes() > 2 * partition.segments.bytes() + GARBAGE_BYTES {
                let path = dir.join(number.to_string());
                *file = write_anew(&path, partition)?;
                return Ok(());
            }
            let bounds = Bounds {
                low: partition.low_watermark(),
                high: partition.high_watermark(),
                // What compaction took is still in the file, and has to be compacted again after an opening.
                cleaned_until: 0,
            };
            frame(&mut file.buffer, |buffer| write_bounds(buffer, bounds));
            file.flush()
        });
    }
}

impl Files {
    fn journal(&mut self, entry: &Entry) -> Result<(), DirectoryError> {
        frame(&mut self.journal.buffer, |buffer| entry.write(buffer));
        self.journal.flush()
    }

    fn partition(&mut self, topic: TopicId, partition: i32) -> Result<&mut FrameFile, DirectoryError> {
        match self.partitions.entry((topic, partition)) {
            std::collections::btree_map::Entry::Occupied(open) => Ok(open.into_mut()),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                let dir = topic_dir(&self.dir, topic);
                std::fs::create_dir_all(&dir).map_err(|error| DirectoryError::io(&dir, &error))?;
                let path = dir.join(partition.to_string());
                Ok(vacant.insert(FrameFile::create(&path, Kind::Partition)?))
            }
        }
    }

    fn sync(&mut self) -> Result<(), DirectoryError> {
        for file in self.partitions.values_mut() {
            file.sync()?;
        }
        self.journal.sync()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Err(failure) = self.sync() {
            warn!(%failure, "the log was not closed cleanly");
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.files {
            Some(files) => write!(f, "files in {}", files.dir.display()),
            None => write!(f, "memory"),
        }
    }
}

/// A file of what the partition holds now, in place of the one that is there.
fn write_anew(path: &Path, partition: &Partition) -> Result<FrameFile, DirectoryError> {
    let mut file = FrameFile::create(&path.with_extension("new"), Kind::Partition)?;
    let mut written = Ok(());
    snapshot(partition, &mut |write| {
        frame(&mut file.buffer, write);
        if file.buffer.len() >= BUFFER_BYTES && written.is_ok() {
            written = file.flush();
        }
    });
    written?;
    file.replace(path)?;
    Ok(file)
}

fn topic_dir(dir: &Path, topic: TopicId) -> PathBuf {
    dir.join(TOPICS).join(topic.number().to_string())
}

fn remove_topic(dir: &Path, topic: TopicId) -> Result<(), DirectoryError> {
    let dir = topic_dir(dir, topic);
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(DirectoryError::io(&dir, &error)),
        _ => Ok(()),
    }
}
