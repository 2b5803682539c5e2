//! A bounded cache of current values in front of overlays and backend.
//!
//! Entries lie one after another in a ring of bytes: new ones at the head, evictions at the tail. An entry that
//! was read since it came past the tail is moved to the head instead (CLOCK by copying, so that entries of all
//! sizes share the ring without fragmentation). An entry costs 12 bytes of header, rounding to 8, and 11 to 21
//! bytes in the hash table.

use std::ops::Range;

use super::cache_index::{CacheIndex, EntryAt, Slot};
use super::key_hash::KeyHash;
use crate::ids::StoreId;

/// Entry header, little-endian: store `u16`, flags `u8`, unused `u8`, key length `u16`, entry size in words `u16`, value length `u32`.
const HEADER_BYTES: usize = 12;
const WORD_BYTES: usize = 8;
/// Value length of a key that is known to be absent.
const ABSENT: u32 = u32::MAX;
const REFERENCED: u8 = 1;
const DEAD: u8 = 2;
/// An insertion moves at most this many entries, however many were read.
const MAX_SECOND_CHANCES: u32 = 8;
/// Below this size there is no cache.
const MIN_CACHE_BYTES: usize = 1024;

/// Current values of one task by store and key. Also remembers that a key is absent.
#[derive(Debug)]
pub(super) struct ValueCache {
    ring: Box<[u8]>,
    /// Next write; entries are `tail..head`, or `tail..wrap` and `0..head` once it has gone round.
    head: usize,
    tail: usize,
    wrap: usize,
    wrapped: bool,
    index: CacheIndex,
    /// The entry touched last, so that a write after a read needs no second search.
    last: Option<Slot>,
}

#[derive(Clone, Copy)]
struct Header {
    store: StoreId,
    flags: u8,
    key_bytes: usize,
    entry_bytes: usize,
    value_bytes: u32,
}

impl ValueCache {
    /// A cache that takes at most `cache_bytes`, hash table included; nearly none of it until it is used.
    pub(super) fn new(cache_bytes: usize) -> Self {
        let cache_bytes = if cache_bytes < MIN_CACHE_BYTES { 0 } else { cache_bytes };
        // A quarter is what small entries need; with larger ones the table stays smaller than that.
        let index = CacheIndex::new(cache_bytes / 4);
        let ring_words = cache_bytes / 4 * 3 / WORD_BYTES;
        let ring_bytes = ring_words.min(u32::MAX as usize) * WORD_BYTES;
        Self {
            // Zeroed memory comes from the kernel page by page as it is touched.
            ring: vec![0; ring_bytes].into_boxed_slice(),
            head: 0,
            tail: 0,
            wrap: 0,
            wrapped: false,
            index,
            last: None,
        }
    }

    /// Looks `key` up and counts it as read.
    #[inline]
    pub(super) fn read(&mut self, hash: KeyHash, store: StoreId, key: &[u8]) -> Option<EntryAt> {
        let slot = self.find(hash, store, key)?;
        let at = byte(slot.at);
        self.ring[at + 2] |= REFERENCED;
        self.last = Some(slot);
        Some(slot.at)
    }

    /// The value of an entry that was just read; `None`: the key is known to be absent.
    #[inline]
    pub(super) fn value(&self, at: EntryAt) -> Option<&[u8]> {
        let at = byte(at);
        let header = self.header(at);
        let start = at + HEADER_BYTES + header.key_bytes;
        (header.value_bytes != ABSENT).then(|| &self.ring[start..start + header.value_bytes as usize])
    }

    /// The hash of `key`, for free if it was touched last.
    #[inline]
    pub(super) fn hash_of(&self, store: StoreId, key: &[u8]) -> KeyHash {
        match self.last {
            Some(slot) if self.holds(slot.at, store, key) => slot.hash,
            _ => KeyHash::of(store, key),
        }
    }

    /// Makes `value` the current value of `key`; `None`: it is absent. A value too large for the cache is forgotten.
    pub(super) fn write(&mut self, hash: KeyHash, store: StoreId, key: &[u8], value: Option<&[u8]>) {
        let touched = self
            .last
            .filter(|slot| slot.hash == hash && self.holds(slot.at, store, key));
        let found = touched.or_else(|| self.find(hash, store, key));
        if let Some(slot) = found {
            if self.overwrite(byte(slot.at), value) {
                return;
            }
            self.kill(slot);
        }
        self.insert(hash, store, key, value);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.head = 0;
        self.tail = 0;
        self.wrapped = false;
        self.index.clear();
        self.last = None;
    }

    /// Bytes in use, hash table included.
    pub(super) fn bytes(&self) -> usize {
        let used = if self.wrapped {
            self.wrap - self.tail + self.head
        } else {
            self.head - self.tail
        };
        used + self.index.bytes()
    }

    #[inline]
    fn find(&self, hash: KeyHash, store: StoreId, key: &[u8]) -> Option<Slot> {
        self.index.find(hash, |at| self.holds(at, store, key))
    }

    #[inline]
    fn holds(&self, at: EntryAt, store: StoreId, key: &[u8]) -> bool {
        let at = byte(at);
        let header = self.header(at);
        header.store == store && self.ring[key_range(at, &header)] == *key
    }

    /// Replaces the value in place if it fits.
    fn overwrite(&mut self, at: usize, value: Option<&[u8]>) -> bool {
        let header = self.header(at);
        let value_at = at + HEADER_BYTES + header.key_bytes;
        let Some(value) = value else {
            self.set_value_bytes(at, ABSENT);
            return true;
        };
        let Some(entry_bytes) = entry_bytes(header.key_bytes, value.len(), self.ring.len()) else {
            return false;
        };
        if entry_bytes > header.entry_bytes {
            // The typical case is a value put right after its absence was noted: the entry is still the newest.
            let limit = if self.wrapped { self.tail } else { self.ring.len() };
            if at + header.entry_bytes != self.head || at + entry_bytes > limit {
                return false;
            }
            self.head = at + entry_bytes;
            self.set_entry_words(at, entry_bytes);
        }
        self.set_value_bytes(at, value.len() as u32);
        self.ring[value_at..value_at + value.len()].copy_from_slice(value);
        true
    }

    fn insert(&mut self, hash: KeyHash, store: StoreId, key: &[u8], value: Option<&[u8]>) {
        let value_bytes = value.map_or(0, <[u8]>::len);
        let Some(size) = entry_bytes(key.len(), value_bytes, self.ring.len()) else {
            return;
        };
        let at = self.allocate(size);
        self.ring[at..at + 2].copy_from_slice(&store.0.to_le_bytes());
        self.ring[at + 2] = 0;
        self.ring[at + 4..at + 6].copy_from_slice(&(key.len() as u16).to_le_bytes());
        self.set_entry_words(at, size);
        self.set_value_bytes(at, if value.is_some() { value_bytes as u32 } else { ABSENT });
        let key_at = at + HEADER_BYTES;
        self.ring[key_at..key_at + key.len()].copy_from_slice(key);
        let value_at = key_at + key.len();
        self.ring[value_at..value_at + value_bytes].copy_from_slice(value.unwrap_or_default());
        let slot = Slot { hash, at: entry_at(at) };
        self.index.insert(slot);
        self.last = Some(slot);
    }

    /// Takes `size` bytes at the head, evicting as needed.
    fn allocate(&mut self, size: usize) -> usize {
        let mut second_chances = MAX_SECOND_CHANCES;
        while self.index.is_full() {
            self.advance_tail(&mut second_chances);
        }
        while self.room_at_head() < size {
            if self.wrapped {
                self.advance_tail(&mut second_chances);
            } else {
                self.wrap = self.head;
                self.head = 0;
                self.wrapped = true;
                self.unwrap_if_passed();
            }
        }
        let at = self.head;
        self.head += size;
        at
    }

    fn room_at_head(&self) -> usize {
        if self.wrapped {
            self.tail - self.head
        } else {
            self.ring.len() - self.head
        }
    }

    /// Frees the entry at the tail: dropped, or moved to the head if it was read and there is a chance left.
    fn advance_tail(&mut self, second_chances: &mut u32) {
        self.last = None;
        let from = self.tail;
        let header = self.header(from);
        self.tail = from + header.entry_bytes;
        if header.flags & DEAD == 0 {
            let slot = Slot {
                hash: KeyHash::of(header.store, &self.ring[key_range(from, &header)]),
                at: entry_at(from),
            };
            let moves = header.flags & REFERENCED != 0 && *second_chances > 0;
            if moves && self.room_at_head() >= header.entry_bytes {
                *second_chances -= 1;
                self.index.relocate(slot, entry_at(self.head));
                self.ring.copy_within(from..self.tail, self.head);
                self.ring[self.head + 2] &= !REFERENCED;
                self.head += header.entry_bytes;
            } else {
                self.index.remove(slot);
            }
        }
        self.unwrap_if_passed();
    }

    /// Goes back to one stretch of entries once the tail has reached the end of the older one.
    fn unwrap_if_passed(&mut self) {
        if self.wrapped && self.tail == self.wrap {
            self.tail = 0;
            self.wrapped = false;
        }
    }

    fn kill(&mut self, dead: Slot) {
        self.last = None;
        self.index.remove(dead);
        self.ring[byte(dead.at) + 2] |= DEAD;
    }

    #[inline]
    fn header(&self, at: usize) -> Header {
        let bytes = &self.ring[at..at + HEADER_BYTES];
        Header {
            store: StoreId(u16::from_le_bytes([bytes[0], bytes[1]])),
            flags: bytes[2],
            key_bytes: usize::from(u16::from_le_bytes([bytes[4], bytes[5]])),
            entry_bytes: usize::from(u16::from_le_bytes([bytes[6], bytes[7]])) * WORD_BYTES,
            value_bytes: u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]),
        }
    }

    fn set_entry_words(&mut self, at: usize, entry_bytes: usize) {
        let words = (entry_bytes / WORD_BYTES) as u16;
        self.ring[at + 6..at + 8].copy_from_slice(&words.to_le_bytes());
    }

    fn set_value_bytes(&mut self, at: usize, value_bytes: u32) {
        self.ring[at + 8..at + 12].copy_from_slice(&value_bytes.to_le_bytes());
    }
}

fn entry_at(byte: usize) -> EntryAt {
    EntryAt((byte / WORD_BYTES) as u32)
}

#[inline]
fn byte(at: EntryAt) -> usize {
    at.0 as usize * WORD_BYTES
}

fn key_range(at: usize, header: &Header) -> Range<usize> {
    at + HEADER_BYTES..at + HEADER_BYTES + header.key_bytes
}

/// Size of an entry; `None` if it is more than the header can say or an eighth of the ring.
fn entry_bytes(key_bytes: usize, value_bytes: usize, ring_bytes: usize) -> Option<usize> {
    let size = (HEADER_BYTES + key_bytes)
        .checked_add(value_bytes)?
        .next_multiple_of(WORD_BYTES);
    let fits =
        key_bytes <= usize::from(u16::MAX) && size / WORD_BYTES <= usize::from(u16::MAX) && size <= ring_bytes / 8;
    fits.then_some(size)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const STORE: StoreId = StoreId(3);

    /// A repeatable sequence of numbers without a pattern.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % bound
        }
    }

    fn read(cache: &mut ValueCache, key: &[u8]) -> Option<Option<Vec<u8>>> {
        let at = cache.read(KeyHash::of(STORE, key), STORE, key)?;
        Some(cache.value(at).map(<[u8]>::to_vec))
    }

    fn write(cache: &mut ValueCache, key: &[u8], value: Option<&[u8]>) {
        cache.write(KeyHash::of(STORE, key), STORE, key, value);
    }

    #[test]
    fn it_forgets_but_is_never_wrong_and_keeps_its_bound() {
        for cache_bytes in [1024, 5_000, 64_000] {
            let mut cache = ValueCache::new(cache_bytes);
            let mut current: HashMap<[u8; 8], Option<Vec<u8>>> = HashMap::new();
            let mut dice = Dice(cache_bytes as u64);
            let mut hits = 0;
            for _ in 0..200_000 {
                let key = dice.below(2_000).to_be_bytes();
                if dice.below(2) == 0 {
                    if let Some(found) = read(&mut cache, &key) {
                        hits += 1;
                        assert_eq!(Some(&found), current.get(&key));
                    }
                } else {
                    let largest = if dice.below(50) == 0 { 1_000 } else { 60 };
                    let bytes = dice.below(largest);
                    let value = (dice.below(5) > 0).then(|| vec![dice.below(256) as u8; bytes as usize]);
                    write(&mut cache, &key, value.as_deref());
                    current.insert(key, value);
                }
                assert!(
                    cache.bytes() <= cache_bytes,
                    "{} bytes in a cache of {cache_bytes}",
                    cache.bytes()
                );
            }
            assert!(hits > 100, "{hits} hits in {cache_bytes} bytes");
        }
    }

    #[test]
    fn what_is_read_often_outlives_a_flood_of_keys_that_are_not() {
        let mut cache = ValueCache::new(100_000);
        let hot: Vec<[u8; 8]> = (0..200u64).map(u64::to_be_bytes).collect();
        for key in &hot {
            write(&mut cache, key, Some(key));
        }
        let (mut hits, mut reads) = (0, 0);
        let mut dice = Dice(7);
        for cold in 1_000..100_000u64 {
            write(&mut cache, &cold.to_be_bytes(), Some(b"never read"));
            let key = &hot[dice.below(200) as usize];
            reads += 1;
            match read(&mut cache, key) {
                Some(_) => hits += 1,
                None => write(&mut cache, key, Some(key)),
            }
        }
        assert!(hits * 100 > reads * 95, "{hits} of {reads}");
    }

    #[test]
    fn a_million_small_entries_take_less_than_80_mb() {
        let mut cache = ValueCache::new(80_000_000);
        let key = |number: u64| [number.to_be_bytes(), [7; 8]].concat();
        for number in 0..1_000_000 {
            write(&mut cache, &key(number), Some(&key(number)));
        }
        assert!(cache.bytes() < 80_000_000, "{}", cache.bytes());
        let kept = (0..1_000_000)
            .filter(|number| read(&mut cache, &key(*number)) == Some(Some(key(*number))))
            .count();
        assert_eq!(kept, 1_000_000);
    }

    #[test]
    fn a_value_that_does_not_fit_replaces_the_old_one_by_nothing() {
        let mut cache = ValueCache::new(10_000);
        write(&mut cache, b"key", Some(b"small"));
        write(&mut cache, b"key", Some(&[1; 5_000]));
        assert_eq!(read(&mut cache, b"key"), None);
        write(&mut cache, b"key", Some(b"small again"));
        assert_eq!(read(&mut cache, b"key"), Some(Some(b"small again".to_vec())));
    }

    #[test]
    fn absence_is_remembered_and_stores_are_apart() {
        let mut cache = ValueCache::new(10_000);
        write(&mut cache, b"key", None);
        assert_eq!(read(&mut cache, b"key"), Some(None));
        let other = StoreId(4);
        assert_eq!(cache.read(KeyHash::of(other, b"key"), other, b"key"), None);
        cache.clear();
        assert_eq!(read(&mut cache, b"key"), None);
    }

    #[test]
    fn too_little_memory_is_no_cache() {
        let mut cache = ValueCache::new(100);
        write(&mut cache, b"key", Some(b"value"));
        assert_eq!(read(&mut cache, b"key"), None);
        assert_eq!(cache.bytes(), 0);
    }
}
