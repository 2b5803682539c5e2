//! Reading many entries of a store before changing it: into a buffer that is used again.

use super::Scope;
use crate::ids::StoreId;
use crate::state::StateResult;

/// Entries read at once; more are read in further rounds, so that memory stays bounded.
const CHUNK_ENTRIES: usize = 1_024;

/// A copy of some entries of a store, in one arena.
#[derive(Debug, Default)]
pub struct ScanBuffer {
    arena: Vec<u8>,
    /// Start and end of the key; the value ends where the next entry starts.
    entries: Vec<(usize, usize)>,
}

impl ScanBuffer {
    /// Reads the first entries with `from <= key < to`; false if there is none.
    pub(crate) fn fill(&mut self, scope: &mut Scope, store: StoreId, from: &[u8], to: &[u8]) -> StateResult<bool> {
        self.fill_while(scope, store, from, to, |_| true)
    }

    /// Reads the first entries with `from <= key < to`, up to the first key that is not wanted; false if there is none.
    pub(crate) fn fill_while(
        &mut self,
        scope: &mut Scope,
        store: StoreId,
        from: &[u8],
        to: &[u8],
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> StateResult<bool> {
        self.arena.clear();
        self.entries.clear();
        scope.state.scan(store, from, to, &mut |key, value| {
            if !wanted(key) {
                return false;
            }
            let start = self.arena.len();
            self.arena.extend_from_slice(key);
            self.entries.push((start, self.arena.len()));
            self.arena.extend_from_slice(value);
            self.entries.len() < CHUNK_ENTRIES
        })?;
        Ok(!self.entries.is_empty())
    }

    /// The key read last; empty if nothing was read.
    pub(crate) fn last_key(&self) -> &[u8] {
        self.entries.last().map_or(&[], |&(start, end)| &self.arena[start..end])
    }

    /// The entries read, in order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().enumerate().map(|(index, &(start, key_end))| {
            let end = self.entries.get(index + 1).map_or(self.arena.len(), |next| next.0);
            (&self.arena[start..key_end], &self.arena[key_end..end])
        })
    }
}

impl Scope {
    /// Takes a buffer; give it back with [`Scope::give_scan_buffer`]. Nested operators take one each.
    pub(crate) fn take_scan_buffer(&mut self) -> ScanBuffer {
        self.scratch.scans.pop().unwrap_or_default()
    }

    /// Gives a buffer back for the next scan.
    pub(crate) fn give_scan_buffer(&mut self, buffer: ScanBuffer) {
        self.scratch.scans.push(buffer);
    }
}
