//! What a task has to say: encoded output records in one arena, in order.

use crate::record::Headers;
use crate::time::Millis;

/// One output record; key and value lie in the outbox's arena.
#[derive(Clone, Debug)]
pub struct OutboxEntry {
    /// Index into the sub-topology's sinks.
    pub sink: u16,
    /// Partition to write to.
    pub partition: i32,
    /// Record timestamp in milliseconds.
    pub timestamp_ms: Millis,
    /// Headers.
    pub headers: Headers,
    start: usize,
    key_bytes: Option<u32>,
    value_bytes: Option<u32>,
}

/// Output records of a task, in the order in which they were emitted.
#[derive(Debug, Default)]
pub struct Outbox {
    entries: Vec<OutboxEntry>,
    arena: Vec<u8>,
}

impl Outbox {
    /// Appends a record whose key and value are written by the closures; `None` from a closure is Kafka's null.
    ///
    /// # Errors
    /// Whatever a closure answers; nothing is appended then.
    pub fn push_with<E>(
        &mut self,
        sink: u16,
        timestamp_ms: Millis,
        headers: Headers,
        key: impl FnOnce(&mut Vec<u8>) -> Result<Option<()>, E>,
        value: impl FnOnce(&mut Vec<u8>) -> Result<Option<()>, E>,
        partition: impl FnOnce(Option<&[u8]>) -> i32,
    ) -> Result<(), E> {
        let start = self.arena.len();
        let encoded = Self::encode(&mut self.arena, start, key, value);
        match encoded {
            Ok((key_bytes, value_bytes)) => {
                let key = key_bytes.map(|bytes| &self.arena[start..start + bytes as usize]);
                let partition = partition(key);
                self.entries.push(OutboxEntry {
                    sink,
                    partition,
                    timestamp_ms,
                    headers,
                    start,
                    key_bytes,
                    value_bytes,
                });
                Ok(())
            }
            Err(error) => {
                self.arena.truncate(start);
                Err(error)
            }
        }
    }

    #[allow(clippy::type_complexity)]
    fn encode<E>(
        arena: &mut Vec<u8>,
        start: usize,
        key: impl FnOnce(&mut Vec<u8>) -> Result<Option<()>, E>,
        value: impl FnOnce(&mut Vec<u8>) -> Result<Option<()>, E>,
    ) -> Result<(Option<u32>, Option<u32>), E> {
        let key_bytes = key(arena)?.map(|()| (arena.len() - start) as u32);
        let value_start = arena.len();
        let value_bytes = value(arena)?.map(|()| (arena.len() - value_start) as u32);
        Ok((key_bytes, value_bytes))
    }

    /// The records from index `from` on.
    pub fn entries(&self, from: usize) -> &[OutboxEntry] {
        &self.entries[from..]
    }

    /// Raw key of an entry.
    pub fn key(&self, entry: &OutboxEntry) -> Option<&[u8]> {
        entry
            .key_bytes
            .map(|bytes| &self.arena[entry.start..entry.start + bytes as usize])
    }

    /// Raw value of an entry.
    pub fn value(&self, entry: &OutboxEntry) -> Option<&[u8]> {
        let start = entry.start + entry.key_bytes.unwrap_or(0) as usize;
        entry
            .value_bytes
            .map(|bytes| &self.arena[start..start + bytes as usize])
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of keys and values held.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// Forgets all records and keeps the memory.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.arena.clear();
    }
}
