//! A task's state as a tool wants it: of one base snapshot and certain increments, and of nothing else.

use std::sync::Arc;

use crate::blob::{BlobStore, Part};
use crate::durability::snapshot::{IncrementRef, Manifest};
use crate::state::{Installation, StateBackend};

use super::error::SnapshotError;
use super::install::Install;
use super::restore::unpacked;

/// No pack is larger than this.
const MAX_PACK_BYTES: u64 = 1 << 40;

/// Puts the database of `base` together and applies `increments`, oldest first. Nothing is tried in place of what is missing or damaged.
/// `advance` is told the bytes of files that are here. **Blocks**, bounded by the store's time-outs.
///
/// # Errors
/// [`SnapshotError`], with the object that is missing or wrong.
pub fn rebuild(
    store: &dyn BlobStore,
    base: &Manifest,
    increments: &[IncrementRef],
    installation: Box<dyn Installation>,
    advance: &mut dyn FnMut(u64),
) -> Result<Arc<dyn StateBackend>, SnapshotError> {
    let mut install = Install::new(base.clone(), installation, Arc::default(), None);
    let mut passed = 0;
    loop {
        let is_done = install.step(store)?;
        advance(install.passed() - passed);
        passed = install.passed();
        if is_done {
            break;
        }
    }
    let (base, backend) = install.finish()?;
    if let Some(spilled) = increments.iter().find(|increment| increment.object().is_none()) {
        return Err(SnapshotError::Spilled {
            task: base.task,
            increment: spilled.to_string(),
        });
    }
    let names: Vec<String> = base.stores.iter().map(|store| store.name.clone()).collect();
    for some in increments.chunks(store.concurrency().max(1)) {
        let parts = some.iter().map(|increment| Part {
            name: increment.place_name(),
            range: 0..MAX_PACK_BYTES,
        });
        let packs = store.read_parts(&parts.collect::<Vec<_>>());
        for (bytes, increment) in packs.into_iter().zip(some) {
            let (overlay, meta) = unpacked(base.task, base.meta.lineage, &names, increment, &bytes?)?;
            backend.apply(&overlay, &meta)?;
        }
    }
    Ok(backend)
}
