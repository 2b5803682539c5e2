//! The hash table of the cache: from a key's hash to where its entry lies.
//!
//! A table that evicts all the time must not collect tombstones, whose clearing would stall a worker: deletion
//! shifts the entries after it back. The bucket is taken from the top bits, so that growing copies in order.

use super::key_hash::KeyHash;

/// Where an entry lies, in words from the start of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryAt(pub(super) u32);

const NOWHERE: EntryAt = EntryAt(u32::MAX);
const MIN_SLOTS: usize = 64;

/// One entry of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) hash: KeyHash,
    pub(super) at: EntryAt,
}

const EMPTY: Slot = Slot {
    hash: KeyHash(0),
    at: NOWHERE,
};

/// Linear probing over a power of two of slots, at most three quarters of them full.
#[derive(Debug)]
pub(super) struct CacheIndex {
    slots: Vec<Slot>,
    len: usize,
    max_slots: usize,
}

impl CacheIndex {
    /// An empty table that never takes more than `max_bytes`.
    pub(super) fn new(max_bytes: usize) -> Self {
        let max_slots = (max_bytes / size_of::<Slot>())
            .checked_ilog2()
            .map_or(0, |bits| 1 << bits);
        Self {
            slots: Vec::new(),
            len: 0,
            max_slots,
        }
    }

    /// Whether an entry has to go before another can come.
    pub(super) fn is_full(&self) -> bool {
        self.len >= self.max_slots / 4 * 3
    }

    /// Bytes that the table takes.
    pub(super) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot>()
    }

    /// Finds an entry by hash and `is_it`.
    #[inline]
    pub(super) fn find(&self, hash: KeyHash, is_it: impl Fn(EntryAt) -> bool) -> Option<Slot> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.home(hash);
        loop {
            let slot = self.slots[at];
            if slot.at == NOWHERE {
                return None;
            }
            if slot.hash == hash && is_it(slot.at) {
                return Some(slot);
            }
            at = self.after(at);
        }
    }

    /// Adds an entry whose key is not in the table, which is not full.
    pub(super) fn insert(&mut self, slot: Slot) {
        debug_assert!(!self.is_full());
        if self.len >= self.slots.len() / 4 * 3 {
            self.grow();
        }
        self.len += 1;
        self.place(slot);
    }

    /// Notes that `slot` lies elsewhere now.
    pub(super) fn relocate(&mut self, slot: Slot, to: EntryAt) {
        if let Some(position) = self.position(slot) {
            self.slots[position].at = to;
        }
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, slot: Slot) {
        let Some(mut hole) = self.position(slot) else {
            return;
        };
        self.len -= 1;
        let mask = self.slots.len() - 1;
        let mut next = self.after(hole);
        while self.slots[next].at != NOWHERE {
            let from_home = next.wrapping_sub(self.home(self.slots[next].hash)) & mask;
            if from_home >= next.wrapping_sub(hole) & mask {
                self.slots[hole] = self.slots[next];
                hole = next;
            }
            next = self.after(next);
        }
        self.slots[hole] = EMPTY;
    }

    /// Takes all entries out and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.slots.fill(EMPTY);
        self.len = 0;
    }

    fn position(&self, slot: Slot) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.home(slot.hash);
        while self.slots[at].at != slot.at {
            if self.slots[at].at == NOWHERE {
                return None;
            }
            at = self.after(at);
        }
        Some(at)
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).max(MIN_SLOTS).min(self.max_slots);
        let grown = vec![EMPTY; slots];
        for slot in std::mem::replace(&mut self.slots, grown) {
            if slot.at != NOWHERE {
                self.place(slot);
            }
        }
    }

    fn place(&mut self, slot: Slot) {
        let mut at = self.home(slot.hash);
        while self.slots[at].at != NOWHERE {
            at = self.after(at);
        }
        self.slots[at] = slot;
    }

    #[inline]
    fn home(&self, hash: KeyHash) -> usize {
        // Multiplying by the number of slots and dropping 32 bits takes the top bits.
        ((u64::from(hash.0) * self.slots.len() as u64) >> 32) as usize
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Few hashes at both ends of the range, so that runs are long and wrap around.
    fn hash() -> impl Strategy<Value = u32> {
        prop_oneof![0..40u32, (u32::MAX - 40)..=u32::MAX, any::<u32>()]
    }

    proptest! {
        #[test]
        fn every_entry_is_found_until_it_is_removed(
            steps in proptest::collection::vec((hash(), 0..3u8), 1..2000),
        ) {
            let mut index = CacheIndex::new(1024 * size_of::<Slot>());
            let mut model: BTreeMap<u32, Slot> = BTreeMap::new();
            for (at, (hash, step)) in (0u32..).zip(steps) {
                let slot = Slot { hash: KeyHash(hash), at: EntryAt(at) };
                let victim = model.range(hash / 2..).next().map(|(at, slot)| (*at, *slot));
                match (step, victim) {
                    (0, Some((key, victim))) => {
                        index.remove(victim);
                        model.remove(&key);
                    }
                    (1, Some((key, victim))) => {
                        index.relocate(victim, slot.at);
                        model.remove(&key);
                        model.insert(at, Slot { at: slot.at, ..victim });
                    }
                    _ if !index.is_full() => {
                        index.insert(slot);
                        model.insert(at, slot);
                    }
                    _ => prop_assert_eq!(model.len(), 768),
                }
                for slot in model.values() {
                    let found = index.find(slot.hash, |at| at == slot.at);
                    prop_assert_eq!(found.map(|found| found.at), Some(slot.at));
                }
                prop_assert_eq!(index.len, model.len());
            }
            let missing = index.find(KeyHash(7), |at| at == EntryAt(u32::MAX - 1));
            prop_assert!(missing.is_none());
        }
    }
}
