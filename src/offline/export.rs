//! A copy of snapshots, in a folder of its own, that needs nothing of where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::blob::{BlobSource, BlobStore, Part};
use crate::durability::snapshot::{IncrementRef, Manifest};
use crate::ids::TaskId;
use crate::time::Millis;

use super::catalogue::{Catalogue, Scope, heads_of};
use super::chain::Branch;
use super::heads::{self, EXPORT, Head};
use super::verify::{Verified, verify};
use super::{OfflineError, Progress, Unit};

/// What is as large as this, and larger, is copied in parts.
const WHOLE_BYTES: u64 = 8 << 20;

/// One task's state to be copied: a base snapshot and the increments after it.
pub struct Chosen<'a> {
    /// The base.
    pub base: &'a Manifest,
    /// The increments.
    pub branch: Branch,
}

/// What was copied.
#[derive(Debug)]
pub struct Exported {
    /// Tasks.
    pub tasks: Vec<TaskId>,
    /// Objects.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
    /// What came of reading everything back.
    pub verified: Verified,
}

/// Copies `chosen` from the repository of `catalogue` to `to`: files and packs, then manifests, then the document that says where each task ends; and
/// reads everything back. The manifests do not name older snapshots any more, which are not there. An export that was cut off is run again.
///
/// # Errors
/// [`OfflineError::Occupied`] where `to` has anything else, [`OfflineError::Findings`] where the copy is not whole, and what the stores say.
pub fn export(
    catalogue: &Catalogue,
    chosen: &[Chosen<'_>],
    to: &Arc<dyn BlobStore>,
    now_ms: Millis,
    progress: &dyn Progress,
) -> Result<Exported, OfflineError> {
    let mut objects = BTreeSet::new();
    let mut manifests = BTreeMap::new();
    for Chosen { base, branch } in chosen {
        objects.extend(
            base.files
                .iter()
                .filter(|file| file.bytes > 0)
                .map(|file| file.object.clone()),
        );
        objects.extend(branch.increments.iter().filter_map(IncrementRef::object));
        let alone = Manifest {
            history: Vec::new(),
            ..(*base).clone()
        };
        manifests.insert(base.object(), alone.to_json());
    }
    let heads: Vec<Head> = chosen.iter().map(head).collect();
    let former = heads_of(&**to)?;
    let is_ours = |name: &String| {
        let is_same = *name == EXPORT && former == heads;
        is_same || objects.contains(name) || manifests.contains_key(name)
    };
    if let Some(strange) = to.list("")?.into_iter().find(|blob| !is_ours(&blob.name)) {
        return Err(OfflineError::Occupied {
            root: to.root().to_owned(),
            object: strange.name,
        });
    }
    let sizes: BTreeMap<&String, u64> = objects
        .iter()
        .map(|object| (object, catalogue.objects.get(object).map_or(0, |blob| blob.bytes)))
        .collect();
    let bytes = sizes.values().sum::<u64>() + manifests.values().map(|manifest| manifest.len() as u64).sum::<u64>();
    progress.begin("copying", bytes, Unit::Bytes);
    for (object, bytes) in &sizes {
        copy(&catalogue.store, &**to, object, *bytes)?;
        progress.advance(*bytes);
    }
    for (object, manifest) in &manifests {
        to.create(object, manifest)?;
        progress.advance(manifest.len() as u64);
    }
    if former != heads {
        to.create(EXPORT, &heads::write(catalogue.store.root(), now_ms, &heads))?;
    }
    progress.end();
    let copied = Catalogue::read(Arc::clone(to), Scope::ALL, progress)?;
    let bases: Vec<&Manifest> = copied.bases.values().flatten().collect();
    let verified = verify(&copied, &bases, progress)?;
    Ok(Exported {
        tasks: chosen.iter().map(|chosen| chosen.base.task).collect(),
        objects: objects.len() + manifests.len() + 1,
        bytes,
        verified,
    })
}

fn head(chosen: &Chosen<'_>) -> Head {
    Head {
        task: chosen.base.task,
        base: chosen.base.id,
        increment: chosen.branch.increments.last().cloned(),
    }
}

fn copy(from: &Arc<dyn BlobStore>, to: &dyn BlobStore, object: &str, bytes: u64) -> Result<(), OfflineError> {
    if bytes < WHOLE_BYTES {
        return Ok(to.create(object, &from.read(object)?)?);
    }
    let source = Distant {
        store: Arc::clone(from),
        object: object.to_owned(),
        bytes,
    };
    Ok(to.upload(object, &source)?)
}

/// An object of another store as the source of an upload.
struct Distant {
    store: Arc<dyn BlobStore>,
    object: String,
    bytes: u64,
}

impl BlobSource for Distant {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), String> {
        let part = Part {
            name: self.object.clone(),
            range: offset..offset + into.len() as u64,
        };
        let read = self.store.read_parts(&[part]).into_iter().next();
        match read {
            Some(Ok(bytes)) if bytes.len() == into.len() => {
                into.copy_from_slice(&bytes);
                Ok(())
            }
            Some(Ok(_)) => Err(format!("{} is shorter than it was listed", self.object)),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("the store gave no answer".to_owned()),
        }
    }
}
