//! One partition of a changelog, as a broker keeps it.

/// Keys of the store.
pub const KEYS: usize = 2;

/// Offsets of the log.
const LENGTH: usize = 8;

/// What stands at an offset.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// Nothing: compaction removed it.
    #[default]
    Gone,
    /// A committed record: key, and the epoch that wrote it; 0 deletes the key.
    Committed(u8, u8),
    /// A record of an aborted transaction.
    Aborted,
    /// A record of a transaction that is open.
    Open,
    /// A control record that ends a transaction.
    Marker,
}

/// How a broker makes room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cleanup {
    Compacts,
    Trims,
}

/// The changelog, and what the group has committed.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Hash)]
pub struct Log {
    entries: [Entry; LENGTH],
    end: u8,
    /// The first offset that is there.
    pub low: u8,
    /// What the verified snapshot holds up to `low`, per key.
    pub base: [u8; KEYS],
    /// The committed epoch.
    pub epoch: u8,
    /// A topic is compacted or trimmed, never both.
    cleanup: Option<Cleanup>,
    /// The committed state: per key the epoch that wrote it, 0 for none.
    pub values: [u8; KEYS],
}

impl Log {
    /// The high watermark.
    pub fn end(&self) -> u8 {
        self.end
    }

    /// The last stable offset: the first record of an open transaction, or the end.
    pub fn last_stable(&self) -> u8 {
        let open = self.entries.iter().position(|entry| *entry == Entry::Open);
        open.map_or(self.end, |offset| offset as u8)
    }

    /// What stands at an offset.
    pub fn entry(&self, offset: u8) -> Entry {
        self.entries[usize::from(offset)]
    }

    /// Whether `count` entries fit, and the marker of an open transaction.
    pub fn has_room(&self, count: u8) -> bool {
        self.end + count + u8::from(self.has_orphan()) <= LENGTH as u8
    }

    /// Whether a transaction is open.
    pub fn has_orphan(&self) -> bool {
        self.entries.contains(&Entry::Open)
    }

    fn append(&mut self, entry: Entry) {
        self.entries[usize::from(self.end)] = entry;
        self.end += 1;
    }

    /// The owner commits an epoch.
    pub fn commit(&mut self, key: u8, deletes: bool) {
        self.epoch += 1;
        let value = if deletes { 0 } else { self.epoch };
        self.values[usize::from(key)] = value;
        self.append(Entry::Committed(key, value));
        self.append(Entry::Marker);
    }

    /// A transaction is aborted.
    pub fn abort(&mut self, _key: u8) {
        self.append(Entry::Aborted);
        self.append(Entry::Marker);
    }

    /// A producer writes and dies.
    pub fn orphan(&mut self, _key: u8) {
        self.append(Entry::Open);
    }

    /// The broker aborts what the dead producer left open.
    pub fn end_orphan(&mut self) {
        for entry in &mut self.entries {
            if *entry == Entry::Open {
                *entry = Entry::Aborted;
            }
        }
        self.append(Entry::Marker);
    }

    /// Removes aborted records, markers, and records that a later one of the same key supersedes; up to the last stable
    /// offset.
    pub fn compact(&mut self) {
        if *self.cleanup.get_or_insert(Cleanup::Compacts) != Cleanup::Compacts {
            return;
        }
        let stable = usize::from(self.last_stable());
        for offset in 0..stable {
            let is_superseded = |key: u8| {
                let later = &self.entries[offset + 1..stable];
                later
                    .iter()
                    .any(|later| matches!(later, Entry::Committed(other, _) if *other == key))
            };
            match self.entries[offset] {
                Entry::Aborted | Entry::Marker => self.entries[offset] = Entry::Gone,
                Entry::Committed(key, _) if is_superseded(key) => self.entries[offset] = Entry::Gone,
                _ => {}
            }
        }
    }

    /// Removes records of deletions. Answers the offset of the last one.
    pub fn forget_deletions(&mut self) -> Option<u8> {
        self.compact();
        let mut newest = None;
        if self.cleanup != Some(Cleanup::Compacts) {
            return newest;
        }
        for offset in 0..self.last_stable() {
            if let Entry::Committed(_, 0) = self.entry(offset) {
                self.entries[usize::from(offset)] = Entry::Gone;
                newest = Some(offset);
            }
        }
        newest
    }

    /// A verified snapshot takes over what is before the last stable offset.
    pub fn trim(&mut self) {
        if *self.cleanup.get_or_insert(Cleanup::Trims) != Cleanup::Trims {
            return;
        }
        let stable = self.last_stable();
        for offset in self.low..stable {
            if let Entry::Committed(key, value) = self.entry(offset) {
                self.base[usize::from(key)] = value;
            }
            self.entries[usize::from(offset)] = Entry::Gone;
        }
        self.low = stable;
    }
}
