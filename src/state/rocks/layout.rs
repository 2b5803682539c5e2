//! Whether a directory holds a database of ours, and with the stores that the plan has.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::failure::directory_error;
use super::lacking;
use crate::state::{StateError, StateResult, StoreSpec};

/// Version of the database's layout: which column families there are and what their keys and values look like.
const FORMAT: u32 = 1;

/// What a database says about its stores. Written once, when it is created, after its column families.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layout {
    format: u32,
    /// Codecs by name of the store.
    stores: BTreeMap<String, String>,
}

impl Layout {
    pub(super) fn of(stores: &[StoreSpec]) -> Self {
        Self {
            format: FORMAT,
            stores: stores
                .iter()
                .map(|store| (store.name.clone(), store.codecs.clone()))
                .collect(),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Checks that what the database in `path` says is what this build and plan expect.
    ///
    /// # Errors
    /// [`StateError::Foreign`] with the difference, [`StateError::Corrupt`].
    pub(super) fn check(&self, path: &Path, stored: &[u8]) -> StateResult<()> {
        let stored = Self::read(path, stored)?;
        self.check_stores(path, &stored)
    }

    /// The stores that the database in `path` says it has.
    ///
    /// # Errors
    /// [`StateError::Foreign`] for another format, [`StateError::Corrupt`].
    pub(super) fn stores(path: &Path, stored: &[u8]) -> StateResult<Vec<StoreSpec>> {
        let stored = Self::read(path, stored)?;
        let store = |(name, codecs)| StoreSpec {
            name,
            ordered: false,
            codecs,
        };
        Ok(stored.stores.into_iter().map(store).collect())
    }

    fn read(path: &Path, stored: &[u8]) -> StateResult<Self> {
        let format: Format = serde_json::from_slice(stored).map_err(|error| corrupt(path, &error))?;
        if format.format != FORMAT {
            let reason = format!("its format is {}, this build reads format {FORMAT}", format.format);
            return Err(foreign(path, reason));
        }
        serde_json::from_slice(stored).map_err(|error| corrupt(path, &error))
    }

    fn check_stores(&self, path: &Path, stored: &Layout) -> StateResult<()> {
        let mut differences = Vec::new();
        for (name, codecs) in &self.stores {
            match stored.stores.get(name) {
                None => differences.push(format!("it has no store {name:?}")),
                Some(stored) if stored != codecs => {
                    differences.push(format!("its store {name:?} holds {stored}, not {codecs}"));
                }
                Some(_) => {}
            }
        }
        let surplus = stored.stores.keys().filter(|name| !self.stores.contains_key(*name));
        differences.extend(surplus.map(|name| format!("its store {name:?} is not in the topology")));
        if differences.is_empty() {
            Ok(())
        } else {
            Err(foreign(path, differences.join(", ")))
        }
    }
}

/// The part that every version has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

fn corrupt(path: &Path, error: &serde_json::Error) -> StateError {
    StateError::Corrupt {
        path: path.to_owned(),
        reason: format!("its list of stores cannot be read: {error}"),
    }
}

pub(super) fn foreign(path: &Path, reason: String) -> StateError {
    StateError::Foreign {
        path: path.to_owned(),
        reason,
    }
}

/// What a directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing, or a database whose creation was cut off before anything could be stored.
    Nothing,
    /// A database, by the look of it.
    Database {
        /// Whether it has SST files, which only a database that was finished and written to has.
        data_files: bool,
    },
}

/// Looks at the names in `path`, so that nothing is created inside a directory of somebody else and no database
/// with a missing head is taken for a new one (invariant I14).
///
/// # Errors
/// [`StateError::Foreign`], [`StateError::Corrupt`], [`StateError::Io`].
pub(super) fn look_at(path: &Path) -> StateResult<Found> {
    let failed = |error: &std::io::Error| directory_error(path, "opened", error);
    let listing = match fs::read_dir(path) {
        Ok(listing) => listing,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(failed(&error)),
    };
    let mut is_database = false;
    let (mut sst, mut log, mut stranger) = (None, None, None);
    for entry in listing {
        let entry = entry.map_err(|error| failed(&error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "CURRENT" {
            is_database = true;
        } else if name.ends_with(".sst") {
            sst = Some(name);
        } else if name.ends_with(".log") {
            let bytes = entry.metadata().map_err(|error| failed(&error))?.len();
            log = log.or((bytes > 0).then_some(name));
        } else if !is_created_before_data(&name) {
            stranger = Some(name);
        }
    }
    let data_files = sst.is_some();
    match (sst.or(log), stranger) {
        _ if is_database => Ok(Found::Database { data_files }),
        (_, Some(name)) => Err(foreign(
            path,
            format!("it holds {name:?}, which is not a file of a state database"),
        )),
        (Some(name), None) => Err(StateError::Corrupt {
            path: path.to_owned(),
            reason: format!("the file CURRENT is missing, but data is there ({name})"),
        }),
        (None, None) => Ok(Found::Nothing),
    }
}

fn is_created_before_data(name: &str) -> bool {
    matches!(name, "LOCK" | "IDENTITY")
        || ["LOG", "MANIFEST-", "OPTIONS-"]
            .iter()
            .any(|start| name.starts_with(start))
        || name.ends_with(".dbtmp")
        || name == lacking::MARKER
        || name.ends_with(lacking::ARRIVING)
}
