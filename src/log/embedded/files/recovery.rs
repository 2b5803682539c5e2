//! Opening a directory: the broker is made again of what is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::path::Path;

use tracing::info;

use super::frames::{FrameFile, Kind, frame};
use super::journal::Entry;
use super::records::replay;
use super::{DirectoryError, Files, JOURNAL, JOURNAL_BYTES, LOCK, NEW_JOURNAL, TOPICS, remove_topic, topic_dir};
use crate::log::TopicSpec;
use crate::log::embedded::broker::Broker;
use crate::log::embedded::packed::TransactionSerial;
use crate::log::embedded::partition::Ending;
use crate::log::embedded::topic::TopicId;
use crate::time::Millis;

/// An end of a transaction, as the journal has it.
#[derive(Clone, Copy)]
struct End {
    serial: TransactionSerial,
    ending: Ending,
    wall_ms: Millis,
}

/// Opens the log in `dir`, which is made if it is not there, and keeps it for this process alone.
///
/// # Errors
/// [`DirectoryError`].
pub fn open(dir: &Path, wall_ms: Millis) -> Result<Broker, DirectoryError> {
    let io = |error: std::io::Error| DirectoryError::io(dir, &error);
    std::fs::create_dir_all(dir).map_err(io)?;
    refuse_foreign(dir)?;
    let lock = lock(dir)?;
    let mut broker = Broker::default();
    broker.wall_ms = wall_ms;
    let path = dir.join(JOURNAL);
    let mut ends = Vec::new();
    let journal = match path.exists() {
        true => FrameFile::open(&path, Kind::Journal, |payload| {
            apply(&mut broker, Entry::read(payload)?, &mut ends)
        })?,
        false => FrameFile::create(&path, Kind::Journal)?,
    };
    let mut files = Files {
        dir: dir.to_owned(),
        _lock: lock,
        journal,
        journal_limit: JOURNAL_BYTES,
        partitions: BTreeMap::new(),
    };
    read_partitions(&mut broker, &mut files)?;
    // Markers go to the files before the journal that tells of them goes.
    broker.store.files = Some(files);
    let aborted = end_transactions(&mut broker, &ends);
    if aborted > 0 {
        info!(dir = %dir.display(), aborted, "transactions that were open when the log ended are aborted");
    }
    let entries = entries(&mut broker);
    broker.store.write(|files| files.begin_journal(&entries));
    match broker.store.failure() {
        Some(failure) => Err(failure.clone()),
        None => Ok(broker),
    }
}

/// Only what the log itself makes may be there, so that a wrong path does no harm.
fn refuse_foreign(dir: &Path) -> Result<(), DirectoryError> {
    let entries = std::fs::read_dir(dir).map_err(|error| DirectoryError::io(dir, &error))?;
    for entry in entries {
        let entry = entry.map_err(|error| DirectoryError::io(dir, &error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if ![LOCK, JOURNAL, NEW_JOURNAL, TOPICS].contains(&name.as_str()) {
            return Err(DirectoryError::Foreign {
                dir: dir.to_owned(),
                found: name,
            });
        }
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, DirectoryError> {
    let path = dir.join(LOCK);
    let file = File::create(&path).map_err(|error| DirectoryError::io(&path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DirectoryError::InUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(DirectoryError::io(&path, &error)),
    }
}

/// Does what a line of the journal says; `None` where that is impossible.
fn apply(broker: &mut Broker, entry: Entry, ends: &mut Vec<End>) -> Option<()> {
    match entry {
        Entry::Topic {
            id,
            name,
            partitions,
            config,
        } => {
            let spec = TopicSpec {
                name: name.into(),
                partitions: i32::try_from(partitions).ok()?,
                replication: None,
                config,
            };
            broker.topics.restore(TopicId::from_number(id), &spec).ok()?;
        }
        Entry::TopicDeleted { id } => broker.topics.remove(TopicId::from_number(id)),
        Entry::Producer {
            name,
            producer_id,
            epoch,
        } => broker.transactions.restore(&name, producer_id, epoch),
        Entry::Counters {
            last_producer_id,
            last_serial,
        } => broker.transactions.raise(last_producer_id, last_serial),
        Entry::Offsets { group, offsets } => {
            broker.group_mut(&group).offsets.write(&group, &offsets).ok()?;
        }
        Entry::Pending { serial, group, offsets } => {
            broker.transactions.raise(0, serial.0);
            let pending = &mut broker.group_mut(&group).offsets;
            pending.write_pending(serial, &group, &offsets).ok()?;
        }
        Entry::End {
            serial,
            ending,
            wall_ms,
        } => {
            broker.transactions.raise(0, serial.0);
            for group in broker.groups.values_mut() {
                group.offsets.end_transaction(serial, ending);
            }
            ends.push(End {
                serial,
                ending,
                wall_ms,
            });
        }
    }
    Some(())
}

/// Reads all partitions of the topics that there are, and removes what is left of others.
fn read_partitions(broker: &mut Broker, files: &mut Files) -> Result<(), DirectoryError> {
    let wall_ms = broker.wall_ms;
    let mut last_serial = 0;
    let mut known = BTreeSet::new();
    for (id, topic) in broker.topics.iter_mut() {
        known.insert(id.number().to_string());
        for (number, partition) in topic.partitions_mut().iter_mut().enumerate() {
            let path = topic_dir(&files.dir, id).join(number.to_string());
            if path.exists() {
                let file = FrameFile::open(&path, Kind::Partition, |payload| {
                    replay(payload, partition, wall_ms, &mut last_serial)
                })?;
                files.partitions.insert((id, number as i32), file);
            }
        }
    }
    broker.transactions.raise(0, last_serial);
    let topics = files.dir.join(TOPICS);
    if !topics.exists() {
        return Ok(());
    }
    let io = |error: std::io::Error| DirectoryError::io(&topics, &error);
    for entry in std::fs::read_dir(&topics).map_err(io)? {
        let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
        if let (false, Ok(id)) = (known.contains(&name), name.parse()) {
            remove_topic(&files.dir, TopicId::from_number(id))?;
        }
    }
    Ok(())
}

/// Writes the markers that are missing, in the order in which the transactions ended, and aborts those that did not end.
/// Answers how many these were.
fn end_transactions(broker: &mut Broker, ends: &[End]) -> usize {
    for end in ends {
        broker.write_missing_markers(end.serial, end.ending, end.wall_ms);
    }
    let mut open = BTreeSet::new();
    for (_, topic) in broker.topics.iter_mut() {
        for partition in topic.partitions_mut() {
            open.extend(partition.open_transactions());
        }
    }
    for group in broker.groups.values() {
        open.extend(group.offsets.pending_transactions());
    }
    for serial in &open {
        broker.write_missing_markers(*serial, Ending::Abort, broker.wall_ms);
        for group in broker.groups.values_mut() {
            group.offsets.end_transaction(*serial, Ending::Abort);
        }
    }
    open.len()
}

impl Broker {
    fn write_missing_markers(&mut self, serial: TransactionSerial, ending: Ending, wall_ms: Millis) {
        for (id, topic) in self.topics.iter_mut() {
            for (number, partition) in topic.partitions_mut().iter_mut().enumerate() {
                if let Some(offset) = partition.end_transaction(serial, ending, wall_ms) {
                    self.store.marker(id, number as i32, offset, serial, ending, wall_ms);
                }
            }
        }
    }

    /// Puts a journal of what is there now in place of one that has grown.
    pub fn shorten_journal(&mut self) {
        if self.store.journal_is_long() {
            let entries = entries(self);
            self.store.write(|files| files.begin_journal(&entries));
        }
    }
}

impl Files {
    /// Puts a journal of these lines in place of the one that is there. The lines that go told of markers too, so these
    /// have to be in their files.
    fn begin_journal(&mut self, entries: &[Entry]) -> Result<(), DirectoryError> {
        for file in self.partitions.values_mut() {
            file.sync()?;
        }
        let mut journal = FrameFile::create(&self.dir.join(NEW_JOURNAL), Kind::Journal)?;
        for entry in entries {
            frame(&mut journal.buffer, |buffer| entry.write(buffer));
        }
        journal.replace(&self.dir.join(JOURNAL))?;
        self.journal_limit = 2 * journal.bytes() + JOURNAL_BYTES;
        self.journal = journal;
        Ok(())
    }
}

/// Everything about the log that is no record.
fn entries(broker: &mut Broker) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (id, topic) in broker.topics.iter_mut() {
        entries.push(Entry::Topic {
            id: id.number(),
            name: topic.name().to_string(),
            partitions: topic.partitions_mut().len() as u32,
            config: topic.config().to_vec(),
        });
    }
    for (name, producer_id, epoch) in broker.transactions.producers() {
        entries.push(Entry::Producer {
            name: name.to_owned(),
            producer_id,
            epoch,
        });
    }
    let (last_producer_id, last_serial) = broker.transactions.counters();
    entries.push(Entry::Counters {
        last_producer_id,
        last_serial,
    });
    for (name, group) in &broker.groups {
        // One line per offset, so that none is longer than what a call may carry.
        entries.extend(group.offsets.written().map(|(serial, offset)| {
            let (group, offsets) = (name.clone(), vec![offset]);
            match serial {
                None => Entry::Offsets { group, offsets },
                Some(serial) => Entry::Pending { serial, group, offsets },
            }
        }));
    }
    entries
}
