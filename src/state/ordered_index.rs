//! The keys of one ordered store within the active overlay, in byte order, brought up to date on demand.

use std::cmp::Ordering;

/// Entries per block; inserting moves at most this many indices.
const BLOCK_ENTRIES: usize = 256;

/// Indices of overlay entries, sorted by key: blocks of sorted indices, and a tail of those not sorted in yet.
///
/// A store that is written often and scanned rarely pays one push per new key; one that is scanned after each
/// write pays two binary searches and a short move.
#[derive(Debug, Default)]
pub(super) struct OrderedIndex {
    blocks: Vec<Vec<u32>>,
    tail: Vec<u32>,
    sorted_len: usize,
}

impl OrderedIndex {
    /// Adds the index of a new key.
    pub(super) fn push(&mut self, entry: u32) {
        self.tail.push(entry);
    }

    /// Forgets everything and keeps the memory of the tail.
    pub(super) fn clear(&mut self) {
        self.blocks.clear();
        self.tail.clear();
        self.sorted_len = 0;
    }

    /// Sorts the tail in; `compare` orders two entries by key. No two keys are equal.
    pub(super) fn settle(&mut self, compare: impl Fn(u32, u32) -> Ordering) {
        let steps = self.sorted_len.max(2).ilog2() as usize + BLOCK_ENTRIES / 16;
        if self.tail.len() * steps <= self.sorted_len {
            let mut tail = std::mem::take(&mut self.tail);
            for entry in tail.drain(..) {
                self.insert(entry, &compare);
            }
            self.tail = tail;
        } else if !self.tail.is_empty() {
            self.rebuild(&compare);
        }
    }

    fn insert(&mut self, entry: u32, compare: &impl Fn(u32, u32) -> Ordering) {
        self.sorted_len += 1;
        let after = self
            .blocks
            .partition_point(|block| compare(block[0], entry) == Ordering::Less);
        let position = after.saturating_sub(1);
        let Some(block) = self.blocks.get_mut(position) else {
            self.blocks.push(vec![entry]);
            return;
        };
        let at = block.partition_point(|other| compare(*other, entry) == Ordering::Less);
        block.insert(at, entry);
        if block.len() >= BLOCK_ENTRIES {
            let upper = block.split_off(BLOCK_ENTRIES / 2);
            self.blocks.insert(position + 1, upper);
        }
    }

    fn rebuild(&mut self, compare: &impl Fn(u32, u32) -> Ordering) {
        self.tail.sort_unstable_by(|a, b| compare(*a, *b));
        let mut merged = Vec::with_capacity(self.sorted_len + self.tail.len());
        let mut tail = self.tail.drain(..).peekable();
        for entry in self.blocks.drain(..).flatten() {
            while let Some(before) = tail.next_if(|other| compare(*other, entry) == Ordering::Less) {
                merged.push(before);
            }
            merged.push(entry);
        }
        merged.extend(tail);
        self.sorted_len = merged.len();
        self.blocks = merged.chunks(BLOCK_ENTRIES / 2).map(<[u32]>::to_vec).collect();
    }

    /// The entries that are not before a key, in order. `before` tells whether an entry's key is before it.
    pub(super) fn from(&self, before: impl Fn(u32) -> bool) -> OrderedEntries<'_> {
        debug_assert!(self.tail.is_empty(), "settle before you read");
        let after = self.blocks.partition_point(|block| before(block[0]));
        let mut blocks = self.blocks[after.saturating_sub(1)..].iter();
        let block = blocks.next().map(Vec::as_slice).unwrap_or_default();
        let skipped = block.partition_point(|entry| before(*entry));
        OrderedEntries {
            block: block[skipped..].iter(),
            blocks,
        }
    }
}

/// Entries in order of their keys.
pub(super) struct OrderedEntries<'a> {
    block: std::slice::Iter<'a, u32>,
    blocks: std::slice::Iter<'a, Vec<u32>>,
}

impl Iterator for OrderedEntries<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        loop {
            if let Some(entry) = self.block.next() {
                return Some(*entry);
            }
            self.block = self.blocks.next()?.iter();
        }
    }
}
