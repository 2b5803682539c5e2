//! State in memory: for tests, and for applications that would rather restore at each start than have a disk.

use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::entries::{self, Entries};
use super::entry_copies::EntryCheckpoint;
use super::{Checkpoint, SortedIncrement, StateBackend, StateMeta, StateResult};
use crate::ids::StoreId;

/// Files of a copy are about as large. A change touches one of them, so larger ones cost more of the next copy.
const CHUNK_BYTES: u32 = 256 * 1024;

/// One task's database in memory. It is lost with the process.
#[derive(Debug)]
pub struct MemoryBackend {
    contents: RwLock<Contents>,
}

#[derive(Debug)]
struct Contents {
    stores: Vec<Entries>,
    meta: Option<StateMeta>,
}

impl MemoryBackend {
    /// An empty database with `stores` stores.
    pub fn new(stores: usize) -> Self {
        let contents = Contents {
            stores: vec![Entries::default(); stores],
            meta: None,
        };
        Self {
            contents: RwLock::new(contents),
        }
    }

    /// A database that holds these entries.
    pub(crate) fn of(meta: StateMeta, stores: Vec<Entries>) -> Self {
        let meta = Some(meta);
        Self {
            contents: RwLock::new(Contents { stores, meta }),
        }
    }

    /// Copies it. What is applied waits until the entries are copied.
    ///
    /// # Errors
    /// [`StateError::Io`](super::StateError::Io) where nothing was ever applied.
    pub(crate) fn copy(&self) -> StateResult<EntryCheckpoint> {
        let contents = self.read();
        EntryCheckpoint::of(
            Path::new("memory"),
            &contents.stores,
            contents.meta.as_ref(),
            CHUNK_BYTES,
        )
    }

    /// A map whose writer panicked is still a map; the panic itself ends the task.
    fn read(&self) -> RwLockReadGuard<'_, Contents> {
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Contents> {
        self.contents.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateBackend for MemoryBackend {
    fn get(&self, store: StoreId, key: &[u8], out: &mut Vec<u8>) -> StateResult<bool> {
        Ok(entries::get(&self.read().stores[store.0 as usize], key, out))
    }

    fn scan(
        &self,
        store: StoreId,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> StateResult<()> {
        entries::scan(&self.read().stores[store.0 as usize], from, to, visit);
        Ok(())
    }

    fn apply(&self, increment: &dyn SortedIncrement, meta: &StateMeta) -> StateResult<()> {
        let mut contents = self.write();
        meta.assert_follows(contents.meta.as_ref());
        increment.for_each(&mut |store, key, value| {
            entries::put(&mut contents.stores[store.0 as usize], key, value);
        });
        contents.meta = Some(meta.clone());
        Ok(())
    }

    fn meta(&self) -> StateResult<Option<StateMeta>> {
        Ok(self.read().meta.clone())
    }

    fn checkpoint(&self) -> StateResult<Box<dyn Checkpoint>> {
        Ok(Box::new(self.copy()?))
    }

    fn size_bytes(&self) -> u64 {
        entries::size_bytes(&self.read().stores)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::state::conformance;

    #[test]
    fn memory_conforms() {
        conformance::run(&|| Arc::new(MemoryBackend::new(conformance::stores().len())));
    }
}
