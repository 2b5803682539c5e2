//! Reading from the store while what was read before is being written and hashed.

use crate::blob::{BlobResult, BlobStore, Part};

/// What reading some parts came to.
pub(super) type Fetched = Vec<BlobResult<Vec<u8>>>;

/// How many parts are read at once, so that those that are read and those that are worked on are together as many as the store's bound.
pub(super) fn batch(store: &dyn BlobStore) -> usize {
    let all = store.concurrency().max(1);
    if store.reads_ahead() { all.div_ceil(2) } else { all }
}

/// Does `work` while `next` is read, where the store allows it; else `next` is left to be read later.
pub(super) fn while_reading<T>(store: &dyn BlobStore, next: &[Part], work: impl FnOnce() -> T) -> (T, Option<Fetched>) {
    if next.is_empty() || !store.reads_ahead() {
        return (work(), None);
    }
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| store.read_parts(next));
        let done = work();
        (done, reading.join().ok())
    })
}
