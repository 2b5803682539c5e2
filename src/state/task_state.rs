//! The view of a task's stores that operators see: cache, active overlay, sealed overlays, backend.

use std::collections::VecDeque;
use std::sync::Arc;

use super::cache::ValueCache;
use super::key_hash::KeyHash;
use super::merge::merge_scan;
use super::{Overlay, StateBackend, StateResult};
use crate::ids::StoreId;

/// All stores of one task. Reads see every write of this task so far; writes go to the active overlay.
pub struct TaskState {
    backend: Arc<dyn StateBackend>,
    cache: ValueCache,
    active: Overlay,
    /// Oldest first. Newer ones hide older ones, and all hide the backend.
    sealed: VecDeque<Arc<Overlay>>,
    /// An overlay that was applied, kept for its memory.
    spare: Option<Arc<Overlay>>,
    ordered: Box<[bool]>,
    scratch: Vec<u8>,
    cache_hits: u64,
    cache_misses: u64,
}

/// What a task's state has counted since it was opened, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateCounts {
    /// Reads that the cache answered.
    pub cache_hits: u64,
    /// Reads that it did not.
    pub cache_misses: u64,
    /// Bytes that the cache takes.
    pub cache_bytes: usize,
    /// Bytes that the active overlay takes.
    pub active_bytes: usize,
    /// Bytes that sealed overlays take.
    pub sealed_bytes: usize,
}

/// What [`TaskState::rewrite`] has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Rows written again.
    pub rows: u64,
    /// Bytes of their keys and values.
    pub bytes: usize,
    /// The first key that was not looked at; `None` at the end of the store.
    pub next: Option<Vec<u8>>,
}

impl TaskState {
    /// A view of `backend`, with a cache of at most `cache_bytes`; `ordered[i]` says whether store `i` is scanned by range.
    pub fn new(backend: Arc<dyn StateBackend>, ordered: &[bool], cache_bytes: usize) -> Self {
        Self {
            backend,
            cache: ValueCache::new(cache_bytes),
            active: Overlay::new(ordered),
            sealed: VecDeque::new(),
            spare: None,
            ordered: ordered.into(),
            scratch: Vec::new(),
            cache_hits: 0,
            cache_misses: 0,
        }
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// As [`StateBackend::get`].
    #[inline]
    pub fn get(&mut self, store: StoreId, key: &[u8]) -> StateResult<Option<&[u8]>> {
        let hash = self.cache.hash_of(store, key);
        if let Some(at) = self.cache.read(hash, store, key) {
            self.cache_hits += 1;
            return Ok(self.cache.value(at));
        }
        self.cache_misses += 1;
        self.get_uncached(hash, store, key)
    }

    fn get_uncached(&mut self, hash: KeyHash, store: StoreId, key: &[u8]) -> StateResult<Option<&[u8]>> {
        let sealed = self.sealed.iter().rev().map(|overlay| &**overlay);
        for overlay in std::iter::once(&self.active).chain(sealed) {
            if let Some(index) = overlay.find(hash, store, key) {
                let value = overlay.value(index);
                self.cache.write(hash, store, key, value);
                return Ok(value);
            }
        }
        let found = self.backend.get(store, key, &mut self.scratch)?;
        let value = found.then_some(self.scratch.as_slice());
        self.cache.write(hash, store, key, value);
        Ok(value)
    }

    /// Sets the value of `key`.
    #[inline]
    pub fn put(&mut self, store: StoreId, key: &[u8], value: &[u8]) {
        self.write(store, key, Some(value));
    }

    /// Deletes `key`.
    #[inline]
    pub fn delete(&mut self, store: StoreId, key: &[u8]) {
        self.write(store, key, None);
    }

    #[inline]
    fn write(&mut self, store: StoreId, key: &[u8], value: Option<&[u8]>) {
        let hash = self.cache.hash_of(store, key);
        self.cache.write(hash, store, key, value);
        self.active.write(hash, store, key, value);
    }

    /// Calls `visit` for each entry with `from <= key < to` in byte order (`to` empty: no bound), until it answers false.
    /// It bypasses the cache, so a long scan evicts nothing.
    ///
    /// # Errors
    /// As [`StateBackend::scan`].
    pub fn scan(
        &mut self,
        store: StoreId,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> StateResult<()> {
        self.active.settle(store);
        let mut layers = Vec::with_capacity(1 + self.sealed.len());
        if self.active.store_len(store) > 0 {
            layers.push(self.active.active_range(store, from, to));
        }
        let sealed = self.sealed.iter().rev().filter(|overlay| overlay.store_len(store) > 0);
        layers.extend(sealed.map(|overlay| overlay.sealed_range(store, from, to)));
        layers.retain(|layer| layer.peek().is_some());
        if layers.is_empty() {
            return self.backend.scan(store, from, to, visit);
        }
        merge_scan(&mut layers, |visit| self.backend.scan(store, from, to, visit), visit)
    }

    /// Writes rows of the backend from key `from` on again as they are, about `bytes` of them, so that the epoch has them. Rows that an overlay has are
    /// passed over: what they are was written in its epoch.
    ///
    /// # Errors
    /// As [`StateBackend::scan`].
    pub fn rewrite(&mut self, store: StoreId, from: &[u8], bytes: usize) -> StateResult<Rewritten> {
        let mut done = Rewritten::default();
        let (active, sealed, cache) = (&mut self.active, &self.sealed, &self.cache);
        self.backend.scan(store, from, &[], &mut |key, value| {
            if done.bytes >= bytes {
                done.next = Some(key.to_vec());
                return false;
            }
            let hash = cache.hash_of(store, key);
            let is_known = |overlay: &Overlay| overlay.find(hash, store, key).is_some();
            if !is_known(active) && !sealed.iter().any(|overlay| is_known(overlay)) {
                active.write(hash, store, key, Some(value));
                done.rows += 1;
                done.bytes += key.len() + value.len();
            }
            true
        })?;
        Ok(done)
    }

    /// Bytes that the active overlay holds.
    pub fn active_bytes(&self) -> usize {
        self.active.bytes()
    }

    /// Number of overlays that were sealed and not applied yet; the caller bounds it.
    pub fn sealed_len(&self) -> usize {
        self.sealed.len()
    }

    /// The database below.
    pub fn backend(&self) -> &Arc<dyn StateBackend> {
        &self.backend
    }

    /// What was counted so far.
    pub fn counts(&self) -> StateCounts {
        StateCounts {
            cache_hits: self.cache_hits,
            cache_misses: self.cache_misses,
            cache_bytes: self.cache.bytes(),
            active_bytes: self.active.bytes(),
            sealed_bytes: self.sealed.iter().map(|overlay| overlay.bytes()).sum(),
        }
    }

    /// Ends an epoch: the active overlay is sealed and stays readable, a new one opens.
    pub fn seal(&mut self) -> Arc<Overlay> {
        let reused = self.spare.take().and_then(|spare| Arc::try_unwrap(spare).ok());
        let next = match reused {
            Some(mut overlay) => {
                overlay.clear();
                overlay
            }
            None => Overlay::new(&self.ordered),
        };
        let sealed = Arc::new(std::mem::replace(&mut self.active, next));
        self.sealed.push_back(Arc::clone(&sealed));
        sealed
    }

    /// The oldest sealed overlay has been applied to the backend: it is dropped.
    ///
    /// # Panics
    /// If none is sealed.
    pub fn applied(&mut self) {
        let applied = self.sealed.pop_front();
        assert!(applied.is_some(), "an overlay is sealed before it is applied");
        self.spare = applied;
    }

    /// Goes back to what the backend will hold once the committed sealed overlays are applied: drops the active
    /// overlay and the newest `uncommitted` sealed ones, and everything cached.
    ///
    /// # Panics
    /// If fewer than `uncommitted` are sealed.
    pub fn roll_back(&mut self, uncommitted: usize) {
        assert!(
            uncommitted <= self.sealed.len(),
            "only sealed epochs can be rolled back"
        );
        self.sealed.truncate(self.sealed.len() - uncommitted);
        self.active.clear();
        self.cache.clear();
    }
}
