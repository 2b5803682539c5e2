//! What stands in the file of a partition.

use super::bytes::{Reader, Writer};
use super::journal::{read_ending, write_ending};
use crate::log::embedded::packed::{Packed, TransactionSerial};
use crate::log::embedded::partition::{Ending, Partition};
use crate::time::Millis;

/// Everything about a partition that no record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub low: i64,
    pub high: i64,
    pub cleaned_until: i64,
}

/// Writes what was appended: records of one writer whose offsets follow each other.
pub(super) fn write_records(
    buffer: &mut Vec<u8>,
    first_offset: i64,
    transaction: Option<TransactionSerial>,
    records: &Packed,
    range: std::ops::Range<usize>,
) {
    let mut writer = Writer(buffer);
    writer.u8(1);
    writer.i64(first_offset);
    writer.u64(transaction.map_or(0, |serial| serial.0));
    writer.u32(range.len() as u32);
    for index in range {
        let record = records.lend(index);
        writer.i64(record.timestamp_ms);
        writer.bytes(record.key);
        writer.bytes(record.value);
        writer.headers(&records.records()[index].headers);
    }
}

/// Writes the end marker of a transaction.
pub(super) fn write_marker(
    buffer: &mut Vec<u8>,
    offset: i64,
    serial: TransactionSerial,
    ending: Ending,
    wall_ms: Millis,
) {
    let mut writer = Writer(buffer);
    writer.u8(2);
    writer.i64(offset);
    writer.u64(serial.0);
    write_ending(&mut writer, ending);
    writer.i64(wall_ms);
}

/// Writes that the log of the partition begins and ends elsewhere than its records say.
pub(super) fn write_bounds(buffer: &mut Vec<u8>, bounds: Bounds) {
    let mut writer = Writer(buffer);
    writer.u8(3);
    writer.i64(bounds.low);
    writer.i64(bounds.high);
    writer.i64(bounds.cleaned_until);
}

/// Writes that a segment begins.
pub(super) fn write_segment(buffer: &mut Vec<u8>, base_offset: i64) {
    let mut writer = Writer(buffer);
    writer.u8(4);
    writer.i64(base_offset);
}

/// Does to `partition` what a frame says, and raises `last_serial` to that of its transaction.
pub(super) fn replay(payload: &[u8], partition: &mut Partition, wall_ms: Millis, last_serial: &mut u64) -> Option<()> {
    let mut reader = Reader(payload);
    match reader.u8()? {
        1 => {
            let (first_offset, serial, count) = (reader.i64()?, reader.u64()?, reader.u32()?);
            let mut records = Packed::default();
            for _ in 0..count {
                let timestamp_ms = reader.i64()?;
                let (key, value) = (reader.bytes()?, reader.bytes()?);
                records.push(key, value, timestamp_ms, reader.headers()?);
            }
            *last_serial = (*last_serial).max(serial);
            let transaction = (serial != 0).then_some(TransactionSerial(serial));
            partition.skip_to(first_offset)?;
            partition.append(&records, transaction, wall_ms);
        }
        2 => {
            let (offset, serial) = (reader.i64()?, TransactionSerial(reader.u64()?));
            let (ending, written_ms) = (read_ending(&mut reader)?, reader.i64()?);
            *last_serial = (*last_serial).max(serial.0);
            partition.skip_to(offset)?;
            partition.write_marker(serial, ending, written_ms);
        }
        3 => {
            let (low, high, cleaned_until) = (reader.i64()?, reader.i64()?, reader.i64()?);
            partition.skip_to(high.max(partition.high_watermark()))?;
            partition.delete_before(low).ok()?;
            partition.cleaned_until = partition.cleaned_until.max(cleaned_until);
        }
        4 => {
            let base_offset = reader.i64()?;
            partition.skip_to(base_offset)?;
            partition.begin_segment();
        }
        _ => return None,
    }
    reader.is_at_end().then_some(())
}

/// Calls `visit` for the frames that say everything that the partition holds now.
pub(super) fn snapshot(partition: &Partition, visit: &mut dyn FnMut(&dyn Fn(&mut Vec<u8>))) {
    let cleaned_until = partition.cleaned_until;
    let (low, high) = (partition.low_watermark(), partition.high_watermark());
    let begin = Bounds {
        low,
        high: low,
        cleaned_until,
    };
    visit(&|buffer| write_bounds(buffer, begin));
    let mut bases = partition.segments.bases().filter(|base| *base > low).peekable();
    for chunk in partition.chunks() {
        let records = chunk.records();
        let mut start = 0;
        while let Some(first) = records.get(start) {
            while let Some(base) = bases.next_if(|base| *base <= first.offset) {
                visit(&|buffer| write_segment(buffer, base));
            }
            if let Some(serial) = chunk.ended_by(start) {
                let ending = partition.ending_of(serial);
                visit(&|buffer| write_marker(buffer, first.offset, serial, ending, first.timestamp_ms));
                start += 1;
                continue;
            }
            let next_base = bases.peek().copied();
            let follows = |after: &usize| {
                let record = &records[*after];
                record.writer == first.writer
                    && record.offset == first.offset + (*after - start) as i64
                    && next_base.is_none_or(|base| record.offset < base)
            };
            let length = (start..records.len()).take_while(follows).count();
            let range = start..start + length;
            visit(&|buffer| write_records(buffer, first.offset, first.writer.transaction(), chunk, range.clone()));
            start += length;
        }
    }
    for base in bases {
        visit(&|buffer| write_segment(buffer, base));
    }
    let end = Bounds {
        low,
        high,
        cleaned_until,
    };
    visit(&|buffer| write_bounds(buffer, end));
}
