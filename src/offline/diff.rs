//! What is different between two states of a task.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::OfflineError;
use super::view::{Row, Rows, View};

/// A row that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Only the second one has it.
    Added(Row),
    /// Only the first one has it.
    Removed(Row),
    /// Key, value in the first one, value in the second one.
    Changed(Vec<u8>, Vec<u8>, Vec<u8>),
}

/// What came of one store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreDifference {
    /// Its name.
    pub store: String,
    /// Its codecs in the first and the second state; empty where that one has no such store.
    pub codecs: [String; 2],
    /// Rows that only the second state has.
    pub added: u64,
    /// Rows that only the first state has.
    pub removed: u64,
    /// Rows whose values differ.
    pub changed: u64,
    /// Rows that are the same.
    pub same: u64,
}

impl StoreDifference {
    /// Rows that are not the same.
    pub fn rows(&self) -> u64 {
        self.added + self.removed + self.changed
    }

    /// Whether anything differs.
    pub fn is_different(&self) -> bool {
        self.rows() > 0 || self.codecs[0] != self.codecs[1]
    }
}

/// Compares all stores of two states, by their names. `visit` gets the store and each row that differs, in order.
///
/// # Errors
/// What a database says.
pub fn diff(
    first: &View,
    second: &View,
    visit: &mut dyn FnMut(&str, Change),
) -> Result<Vec<StoreDifference>, OfflineError> {
    let names = first.stores.iter().chain(&second.stores).map(|store| &store.name[..]);
    let names: BTreeSet<&str> = names.collect();
    let mut differences = Vec::new();
    for name in names {
        let sides = [first.store(name).ok(), second.store(name).ok()];
        let codecs = sides.map(|side| side.map(|(_, store)| store.codecs.clone()).unwrap_or_default());
        let mut difference = StoreDifference {
            store: name.to_owned(),
            codecs,
            ..StoreDifference::default()
        };
        let mut rows = [
            Side::of(sides[0].map(|(store, _)| first.rows(store, &[], &[])))?,
            Side::of(sides[1].map(|(store, _)| second.rows(store, &[], &[])))?,
        ];
        while let Some(change) = next(&mut rows, &mut difference)? {
            visit(name, change);
        }
        differences.push(difference);
    }
    Ok(differences)
}

struct Side<'a> {
    rows: Option<Rows<'a>>,
    head: Option<Row>,
}

impl<'a> Side<'a> {
    fn of(rows: Option<Rows<'a>>) -> Result<Self, OfflineError> {
        let mut side = Self { rows, head: None };
        side.take()?;
        Ok(side)
    }

    /// The row at hand; the next one comes in its place.
    fn take(&mut self) -> Result<Option<Row>, OfflineError> {
        let next = self.rows.as_mut().and_then(Iterator::next).transpose()?;
        Ok(std::mem::replace(&mut self.head, next))
    }
}

/// The next row that differs.
fn next([first, second]: &mut [Side<'_>; 2], counts: &mut StoreDifference) -> Result<Option<Change>, OfflineError> {
    loop {
        let order = match (&first.head, &second.head) {
            (None, None) => return Ok(None),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        match order {
            Ordering::Less => {
                counts.removed += 1;
                return Ok(first.take()?.map(Change::Removed));
            }
            Ordering::Greater => {
                counts.added += 1;
                return Ok(second.take()?.map(Change::Added));
            }
            Ordering::Equal => {
                let (Some((key, before)), Some((_, after))) = (first.take()?, second.take()?) else {
                    return Ok(None);
                };
                if before != after {
                    counts.changed += 1;
                    return Ok(Some(Change::Changed(key, before, after)));
                }
                counts.same += 1;
            }
        }
    }
}
