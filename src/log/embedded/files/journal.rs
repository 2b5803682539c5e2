//! The journal: everything about an embedded log that is not a record.

use super::bytes::{Reader, Writer};
use crate::ids::TopicPartition;
use crate::log::CommitOffset;
use crate::log::embedded::packed::TransactionSerial;
use crate::log::embedded::partition::Ending;
use crate::time::Millis;

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A topic was created.
    Topic {
        id: u32,
        name: String,
        partitions: u32,
        config: Vec<(String, String)>,
    },
    /// A topic was deleted.
    TopicDeleted { id: u32 },
    /// A transactional id has a new producer.
    Producer { name: String, producer_id: i64, epoch: i16 },
    /// Numbers up to these were given out.
    Counters { last_producer_id: i64, last_serial: u64 },
    /// Offsets were committed.
    Offsets { group: String, offsets: Vec<CommitOffset> },
    /// Offsets wait for the end of a transaction.
    Pending {
        serial: TransactionSerial,
        group: String,
        offsets: Vec<CommitOffset>,
    },
    /// A transaction ended. This line decides, not the markers that follow in the partitions.
    End {
        serial: TransactionSerial,
        ending: Ending,
        wall_ms: Millis,
    },
}

impl Entry {
    pub fn write(&self, buffer: &mut Vec<u8>) {
        let mut writer = Writer(buffer);
        match self {
            Entry::Topic {
                id,
                name,
                partitions,
                config,
            } => {
                writer.u8(1);
                writer.u32(*id);
                writer.text(name);
                writer.u32(*partitions);
                writer.u32(config.len() as u32);
                for (key, value) in config {
                    writer.text(key);
                    writer.text(value);
                }
            }
            Entry::TopicDeleted { id } => {
                writer.u8(2);
                writer.u32(*id);
            }
            Entry::Producer {
                name,
                producer_id,
                epoch,
            } => {
                writer.u8(3);
                writer.text(name);
                writer.i64(*producer_id);
                writer.i64(i64::from(*epoch));
            }
            Entry::Counters {
                last_producer_id,
                last_serial,
            } => {
                writer.u8(4);
                writer.i64(*last_producer_id);
                writer.u64(*last_serial);
            }
            Entry::Offsets { group, offsets } => {
                writer.u8(5);
                writer.text(group);
                write_offsets(&mut writer, offsets);
            }
            Entry::Pending { serial, group, offsets } => {
                writer.u8(6);
                writer.u64(serial.0);
                writer.text(group);
                write_offsets(&mut writer, offsets);
            }
            Entry::End {
                serial,
                ending,
                wall_ms,
            } => {
                writer.u8(7);
                writer.u64(serial.0);
                write_ending(&mut writer, *ending);
                writer.i64(*wall_ms);
            }
        }
    }

    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let entry = match reader.u8()? {
            1 => {
                let (id, name, partitions) = (reader.u32()?, reader.text()?, reader.u32()?);
                let count = reader.u32()?;
                let config: Option<_> = (0..count).map(|_| Some((reader.text()?, reader.text()?))).collect();
                Entry::Topic {
                    id,
                    name,
                    partitions,
                    config: config?,
                }
            }
            2 => Entry::TopicDeleted { id: reader.u32()? },
            3 => Entry::Producer {
                name: reader.text()?,
                producer_id: reader.i64()?,
                epoch: reader.i64()?.try_into().ok()?,
            },
            4 => Entry::Counters {
                last_producer_id: reader.i64()?,
                last_serial: reader.u64()?,
            },
            5 => Entry::Offsets {
                group: reader.text()?,
                offsets: read_offsets(&mut reader)?,
            },
            6 => Entry::Pending {
                serial: TransactionSerial(reader.u64()?),
                group: reader.text()?,
                offsets: read_offsets(&mut reader)?,
            },
            7 => Entry::End {
                serial: TransactionSerial(reader.u64()?),
                ending: read_ending(&mut reader)?,
                wall_ms: reader.i64()?,
            },
            _ => return None,
        };
        reader.is_at_end().then_some(entry)
    }
}

fn write_offsets(writer: &mut Writer<'_>, offsets: &[CommitOffset]) {
    writer.u32(offsets.len() as u32);
    for offset in offsets {
        writer.text(&offset.partition.topic);
        writer.u32(offset.partition.partition as u32);
        writer.i64(offset.offset);
        writer.text(&offset.metadata);
    }
}

fn read_offsets(reader: &mut Reader<'_>) -> Option<Vec<CommitOffset>> {
    let count = reader.u32()?;
    let offset = |reader: &mut Reader<'_>| {
        let topic = reader.text()?;
        let partition = i32::try_from(reader.u32()?).ok()?;
        Some(CommitOffset {
            partition: TopicPartition::new(topic, partition),
            offset: reader.i64()?,
            metadata: reader.text()?,
        })
    };
    (0..count).map(|_| offset(reader)).collect()
}

pub(super) fn write_ending(writer: &mut Writer<'_>, ending: Ending) {
    writer.u8(match ending {
        Ending::Commit => 1,
        Ending::Abort => 2,
    });
}

pub(super) fn read_ending(reader: &mut Reader<'_>) -> Option<Ending> {
    match reader.u8()? {
        1 => Some(Ending::Commit),
        2 => Some(Ending::Abort),
        _ => None,
    }
}
