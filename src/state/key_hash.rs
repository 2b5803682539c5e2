//! One hash per key, shared by the cache and all overlays of a task.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

use crate::ids::StoreId;

/// Fixed, so that a run can be repeated exactly. The order of a hash table is never visible, so this costs
/// nothing but resistance against keys that were crafted to collide.
const HASHES: FixedState = FixedState::with_seed(0x7469_6465_6761_7465);

/// Hash of a key within its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyHash(pub(super) u32);

impl KeyHash {
    /// Hashes `key` of `store`.
    #[inline]
    pub(super) fn of(store: StoreId, key: &[u8]) -> Self {
        let mut hasher = HASHES.build_hasher();
        hasher.write_u16(store.0);
        hasher.write(key);
        KeyHash((hasher.finish() >> 32) as u32)
    }

    /// The hash as `hashbrown` wants it: it takes the bucket from the low bits and a tag from the top seven.
    #[inline]
    pub(super) fn wide(self) -> u64 {
        u64::from(self.0) | (u64::from(self.0) << 32)
    }
}
