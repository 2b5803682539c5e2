//! The writes of one epoch of one task, coalesced per key.

use std::cmp::Ordering;
use std::sync::OnceLock;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as TableEntry;

use super::SortedIncrement;
use super::key_hash::KeyHash;
use super::ordered_index::{OrderedEntries, OrderedIndex};
use crate::ids::StoreId;

/// `value_bytes` of an entry that deletes its key.
const DELETED: u32 = u32::MAX;

/// The writes of one epoch of one task, coalesced per key, in an arena.
///
/// While it is active one worker writes to it; once sealed it is shared and never changes again.
#[derive(Debug, Default)]
pub struct Overlay {
    arena: Vec<u8>,
    entries: Vec<Entry>,
    index: HashTable<u32>,
    stores: Vec<StoreWrites>,
    sorted: OnceLock<Vec<u32>>,
}

/// Key and value lie together in the arena, the value with room to grow.
#[derive(Debug)]
struct Entry {
    start: usize,
    hash: KeyHash,
    key_bytes: u32,
    value_bytes: u32,
    value_room: u32,
    store: StoreId,
}

#[derive(Debug, Default)]
struct StoreWrites {
    len: usize,
    /// Only for stores that are scanned by range.
    ordered: Option<OrderedIndex>,
}

impl Entry {
    fn value_start(&self) -> usize {
        self.start + self.key_bytes as usize
    }

    fn end(&self) -> usize {
        self.value_start() + self.value_room as usize
    }
}

impl Overlay {
    /// An empty overlay; `ordered[i]` says whether store `i` is scanned by range.
    pub fn new(ordered: &[bool]) -> Self {
        let stores = ordered.iter().map(|ordered| StoreWrites {
            len: 0,
            ordered: ordered.then(OrderedIndex::default),
        });
        Self {
            stores: stores.collect(),
            ..Self::default()
        }
    }

    /// Sets the value of `key`.
    ///
    /// # Panics
    /// For keys and values of 4 GiB and more, which no Kafka record can hold.
    pub fn put(&mut self, store: StoreId, key: &[u8], value: &[u8]) {
        self.write(KeyHash::of(store, key), store, key, Some(value));
    }

    /// Deletes `key`.
    pub fn delete(&mut self, store: StoreId, key: &[u8]) {
        self.write(KeyHash::of(store, key), store, key, None);
    }

    /// What this epoch wrote to `key`: nothing (`None`), a deletion (`Some(None)`) or a value.
    pub fn get(&self, store: StoreId, key: &[u8]) -> Option<Option<&[u8]>> {
        let entry = self.find(KeyHash::of(store, key), store, key)?;
        Some(self.value(entry))
    }

    /// The entries of one store in the order in which their keys were first written; `None` is a deletion.
    pub fn entries(&self, store: StoreId) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let of_store = self.entries.iter().filter(move |entry| entry.store == store);
        of_store.map(|entry| (self.key_of(entry), self.value_of(entry)))
    }

    /// Number of entries in one store.
    pub fn store_len(&self, store: StoreId) -> usize {
        self.stores.get(store.0 as usize).map_or(0, |writes| writes.len)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes in use: keys, values, what outgrown values left behind, and the index.
    pub fn bytes(&self) -> usize {
        // A table slot takes 4 bytes and a tag.
        self.arena.len() + self.entries.len() * (size_of::<Entry>() + 5)
    }

    /// Forgets all entries and keeps the memory, as far as the last use came near to filling it.
    pub fn clear(&mut self) {
        if self.arena.capacity() > 4 * self.arena.len() {
            self.arena.shrink_to(2 * self.arena.len());
        }
        if self.entries.capacity() > 4 * self.entries.len() {
            self.entries.shrink_to(2 * self.entries.len());
            self.index = HashTable::new();
        }
        self.arena.clear();
        self.entries.clear();
        self.index.clear();
        self.sorted = OnceLock::new();
        for writes in &mut self.stores {
            writes.len = 0;
            if let Some(ordered) = &mut writes.ordered {
                ordered.clear();
            }
        }
    }

    /// Writes with a hash that the caller has already.
    #[inline]
    pub(super) fn write(&mut self, hash: KeyHash, store: StoreId, key: &[u8], value: Option<&[u8]>) {
        debug_assert!(self.sorted.get().is_none(), "a sealed overlay never changes");
        let (arena, entries) = (&self.arena, &self.entries);
        let found = self.index.entry(
            hash.wide(),
            |index| {
                let entry = &entries[*index as usize];
                entry.hash == hash && entry.store == store && key_in(arena, entry) == key
            },
            |index| entries[*index as usize].hash.wide(),
        );
        match found {
            TableEntry::Occupied(slot) => {
                let index = *slot.get();
                self.overwrite(index as usize, value);
            }
            TableEntry::Vacant(slot) => {
                let index = bounded_len(self.entries.len());
                slot.insert(index);
                self.append(index, hash, store, key, value);
            }
        }
    }

    fn append(&mut self, index: u32, hash: KeyHash, store: StoreId, key: &[u8], value: Option<&[u8]>) {
        let room = value.map_or(0, |value| bounded_len(value.len()));
        self.entries.push(Entry {
            start: self.arena.len(),
            hash,
            key_bytes: bounded_len(key.len()),
            value_bytes: if value.is_some() { room } else { DELETED },
            value_room: room,
            store,
        });
        self.arena.extend_from_slice(key);
        self.arena.extend_from_slice(value.unwrap_or_default());
        let store = store.0 as usize;
        if store >= self.stores.len() {
            self.stores.resize_with(store + 1, StoreWrites::default);
        }
        let writes = &mut self.stores[store];
        writes.len += 1;
        if let Some(ordered) = &mut writes.ordered {
            ordered.push(index);
        }
    }

    fn overwrite(&mut self, index: usize, value: Option<&[u8]>) {
        let entry = &mut self.entries[index];
        let Some(value) = value else {
            entry.value_bytes = DELETED;
            return;
        };
        let len = bounded_len(value.len());
        if len > entry.value_room {
            if entry.end() != self.arena.len() {
                let key = entry.start..entry.value_start();
                entry.start = self.arena.len();
                self.arena.extend_from_within(key);
                // A value that grows once grows again: leave room, so that an epoch of appends stays linear.
                entry.value_room = len.saturating_add(len / 2);
            } else {
                entry.value_room = len;
            }
            self.arena.resize(entry.end(), 0);
        }
        entry.value_bytes = len;
        let start = entry.value_start();
        self.arena[start..start + value.len()].copy_from_slice(value);
    }

    /// Index of the entry for `key`.
    #[inline]
    pub(super) fn find(&self, hash: KeyHash, store: StoreId, key: &[u8]) -> Option<u32> {
        let found = self.index.find(hash.wide(), |index| {
            let entry = &self.entries[*index as usize];
            entry.hash == hash && entry.store == store && self.key_of(entry) == key
        });
        found.copied()
    }

    /// The value of the entry at `index`; `None` is a deletion.
    #[inline]
    pub(super) fn value(&self, index: u32) -> Option<&[u8]> {
        self.value_of(&self.entries[index as usize])
    }

    fn key(&self, index: u32) -> &[u8] {
        self.key_of(&self.entries[index as usize])
    }

    #[inline]
    fn key_of(&self, entry: &Entry) -> &[u8] {
        key_in(&self.arena, entry)
    }

    #[inline]
    fn value_of(&self, entry: &Entry) -> Option<&[u8]> {
        let start = entry.value_start();
        (entry.value_bytes != DELETED).then(|| &self.arena[start..start + entry.value_bytes as usize])
    }

    /// All entries by store and key. Sorted once, by whoever asks first.
    fn sorted(&self) -> &[u32] {
        self.sorted.get_or_init(|| {
            let mut order: Vec<SortKey> = (0u32..)
                .zip(&self.entries)
                .map(|(index, entry)| self.sort_key(index, entry))
                .collect();
            order.sort_unstable_by(|a, b| {
                (a.store, a.prefix)
                    .cmp(&(b.store, b.prefix))
                    .then_with(|| self.key(a.index).cmp(self.key(b.index)))
            });
            order.into_iter().map(|sorted| sorted.index).collect()
        })
    }

    fn sort_key(&self, index: u32, entry: &Entry) -> SortKey {
        let key = self.key_of(entry);
        let mut prefix = [0; 8];
        let prefix_bytes = key.len().min(8);
        prefix[..prefix_bytes].copy_from_slice(&key[..prefix_bytes]);
        SortKey {
            prefix: u64::from_be_bytes(prefix),
            index,
            store: entry.store,
        }
    }

    /// Prepares [`Overlay::range`] of an active overlay after writes; not needed once it is sealed.
    pub(super) fn settle(&mut self, store: StoreId) {
        let (arena, entries) = (&self.arena, &self.entries);
        let writes = self.stores.get_mut(store.0 as usize);
        if let Some(ordered) = writes.and_then(|writes| writes.ordered.as_mut()) {
            let key = |index: u32| key_in(arena, &entries[index as usize]);
            ordered.settle(|a, b| key(a).cmp(key(b)));
        }
    }

    /// Entries of one store with `from <= key < to` in byte order (`to` empty: no bound), of a sealed overlay.
    pub(super) fn sealed_range<'a>(&'a self, store: StoreId, from: &[u8], to: &'a [u8]) -> OverlayRange<'a> {
        let order = if self.store_len(store) == 0 {
            Order::Slice([].iter())
        } else {
            let sorted = self.sorted();
            let first = sorted.partition_point(|index| {
                let entry = &self.entries[*index as usize];
                (entry.store, self.key_of(entry)) < (store, from)
            });
            Order::Slice(sorted[first..].iter())
        };
        OverlayRange::new(self, store, to, order)
    }

    /// The same of an active overlay that was settled. A store that is not declared as ordered is sorted here, each time.
    pub(super) fn active_range<'a>(&'a self, store: StoreId, from: &[u8], to: &'a [u8]) -> OverlayRange<'a> {
        let ordered = self
            .stores
            .get(store.0 as usize)
            .and_then(|writes| writes.ordered.as_ref());
        let order = match ordered {
            Some(ordered) => Order::Blocks(ordered.from(|index| self.key(index) < from)),
            None => {
                let in_store = (0u32..).zip(&self.entries).filter(|(_, entry)| entry.store == store);
                let mut order: Vec<u32> = in_store.map(|(index, _)| index).collect();
                order.retain(|index| self.key(*index) >= from);
                order.sort_unstable_by(|a, b| self.key(*a).cmp(self.key(*b)));
                Order::Owned(order.into_iter())
            }
        };
        OverlayRange::new(self, store, to, order)
    }
}

fn key_in<'a>(arena: &'a [u8], entry: &Entry) -> &'a [u8] {
    &arena[entry.start..entry.value_start()]
}

fn bounded_len(len: usize) -> u32 {
    assert!(
        len < DELETED as usize,
        "{len} bytes or entries are more than an overlay can address"
    );
    len as u32
}

impl SortedIncrement for Overlay {
    fn for_each(&self, visit: &mut dyn FnMut(StoreId, &[u8], Option<&[u8]>)) {
        for index in self.sorted() {
            let entry = &self.entries[*index as usize];
            visit(entry.store, self.key_of(entry), self.value_of(entry));
        }
    }
}

/// What is compared first: most keys differ in their first eight bytes, which need no look into the arena.
struct SortKey {
    prefix: u64,
    index: u32,
    store: StoreId,
}

/// A range of one store of one overlay.
pub(super) struct OverlayRange<'a> {
    overlay: &'a Overlay,
    store: StoreId,
    to: &'a [u8],
    order: Order<'a>,
    head: Option<(&'a [u8], Option<&'a [u8]>)>,
}

enum Order<'a> {
    Slice(std::slice::Iter<'a, u32>),
    Blocks(OrderedEntries<'a>),
    Owned(std::vec::IntoIter<u32>),
}

impl<'a> OverlayRange<'a> {
    fn new(overlay: &'a Overlay, store: StoreId, to: &'a [u8], order: Order<'a>) -> Self {
        let mut range = Self {
            overlay,
            store,
            to,
            order,
            head: None,
        };
        range.advance();
        range
    }

    /// The entry that comes next; `None` at the end.
    pub(super) fn peek(&self) -> Option<(&'a [u8], Option<&'a [u8]>)> {
        self.head
    }

    /// Goes on to the entry after it.
    pub(super) fn advance(&mut self) {
        let next = match &mut self.order {
            Order::Slice(order) => order.next().copied(),
            Order::Blocks(order) => order.next(),
            Order::Owned(order) => order.next(),
        };
        self.head = next.and_then(|index| {
            let entry = &self.overlay.entries[index as usize];
            let key = self.overlay.key_of(entry);
            let within = entry.store == self.store && (self.to.is_empty() || key.cmp(self.to) == Ordering::Less);
            within.then(|| (key, self.overlay.value_of(entry)))
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const PLAIN: StoreId = StoreId(0);
    const ORDERED: StoreId = StoreId(1);

    type Entries = Vec<(Vec<u8>, Option<Vec<u8>>)>;

    fn own<'a>(entries: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Entries {
        entries
            .map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)))
            .collect()
    }

    fn drain(mut range: OverlayRange<'_>) -> Entries {
        let next = || {
            let entry = range.peek();
            range.advance();
            entry
        };
        own(std::iter::from_fn(next))
    }

    #[test]
    fn writes_are_coalesced_in_the_order_of_their_first() {
        let mut overlay = Overlay::new(&[false, true]);
        overlay.put(PLAIN, b"b", b"1");
        overlay.put(ORDERED, b"b", b"other store");
        overlay.delete(PLAIN, b"a");
        overlay.put(PLAIN, b"b", b"a longer value than before");
        overlay.put(PLAIN, b"c", b"3");
        overlay.put(PLAIN, b"a", b"4");
        overlay.delete(PLAIN, b"c");
        let expected = [
            (b"b".to_vec(), Some(b"a longer value than before".to_vec())),
            (b"a".to_vec(), Some(b"4".to_vec())),
            (b"c".to_vec(), None),
        ];
        assert_eq!(own(overlay.entries(PLAIN)), expected);
        assert_eq!(
            (overlay.len(), overlay.store_len(PLAIN), overlay.store_len(StoreId(9))),
            (4, 3, 0)
        );
        assert_eq!(overlay.get(PLAIN, b"c"), Some(None));
        assert_eq!(overlay.get(PLAIN, b"d"), None);
        let mut visited = Vec::new();
        overlay.for_each(&mut |store, key, _| visited.push((store, key.to_vec())));
        let sorted = [(PLAIN, "a"), (PLAIN, "b"), (PLAIN, "c"), (ORDERED, "b")];
        assert_eq!(visited, sorted.map(|(store, key)| (store, key.as_bytes().to_vec())));
    }

    #[test]
    fn a_value_that_grows_all_epoch_long_takes_linear_space() {
        let mut overlay = Overlay::new(&[false]);
        let mut value = Vec::new();
        for byte in 0..20_000u32 {
            value.push(byte as u8);
            // Two keys, so that neither stays at the end of the arena.
            overlay.put(PLAIN, b"a", &value);
            overlay.put(PLAIN, b"b", &value);
        }
        assert_eq!(overlay.get(PLAIN, b"a"), Some(Some(&value[..])));
        assert!(overlay.bytes() < 10 * value.len(), "{} bytes", overlay.bytes());
    }

    #[test]
    fn a_cleared_overlay_is_empty_and_keeps_memory_that_was_used() {
        let mut overlay = Overlay::new(&[false, true]);
        for round in 0..3u64 {
            for key in 0..1000u64 {
                overlay.put(ORDERED, &key.to_be_bytes(), &round.to_be_bytes());
            }
            overlay.settle(ORDERED);
            assert_eq!(drain(overlay.active_range(ORDERED, b"", b"")).len(), 1000);
            let capacity = overlay.arena.capacity();
            overlay.clear();
            assert_eq!((overlay.len(), overlay.bytes(), overlay.store_len(ORDERED)), (0, 0, 0));
            assert_eq!(overlay.get(ORDERED, &7u64.to_be_bytes()), None);
            assert_eq!(overlay.arena.capacity(), capacity);
        }
        overlay.put(PLAIN, b"one", b"small epoch");
        overlay.clear();
        assert!(
            overlay.arena.capacity() < 1000,
            "memory that is not needed any more is given back"
        );
    }

    /// Scans between writes, both after each one and after many, so that both ways to sort in are taken.
    #[test]
    fn ranges_of_an_active_overlay_are_in_order_while_it_is_written() {
        let mut overlay = Overlay::new(&[false, true]);
        let mut model = BTreeMap::new();
        let mut number = 1u64;
        for step in 0..6_000u32 {
            number = number
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let key = (number >> 48).to_be_bytes()[4..].to_vec();
            let value = (step % 7 != 0).then(|| step.to_be_bytes().to_vec());
            match &value {
                Some(value) => overlay.put(ORDERED, &key, value),
                None => overlay.delete(ORDERED, &key),
            }
            model.insert(key.clone(), value);
            let often = (2_000..2_500).contains(&step);
            if often || step % 1_000 == 999 {
                overlay.settle(ORDERED);
                let to = [0xff, 0, 0, 0];
                let within = model.range(key.clone()..to.to_vec().max(key.clone()));
                let expected: Entries = within
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .take(50)
                    .collect();
                let mut found = drain(overlay.active_range(ORDERED, &key, &to));
                found.truncate(50);
                assert_eq!(found, expected, "after step {step}");
            }
        }
        overlay.settle(ORDERED);
        let expected: Entries = model.into_iter().collect();
        assert_eq!(drain(overlay.active_range(ORDERED, b"", b"")), expected);
        assert_eq!(drain(overlay.sealed_range(ORDERED, b"", b"")), expected);
    }
}
