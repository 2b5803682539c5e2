//! Writing all rows of a task's stores to its changelogs, a slice per epoch, while the task goes on.
//!
//! A row is copied by writing it again as it is, in the epoch that the slice belongs to: so it goes to the changelog, and nowhere out of order.
//! What was written since the copying began is there already.

use crate::durability::Beginning;
use crate::ids::StoreId;
use crate::state::{StateResult, TaskState};

/// How far the copying is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// At this key of this store, or the next one that there is.
    At(u16, Vec<u8>),
    /// Every row was copied.
    End,
}

/// The copying of one task.
#[derive(Clone, Debug)]
pub(super) struct Copying {
    /// Where the changelogs were before the first copy.
    since: Beginning,
    stores: u16,
    next: Place,
    sealed: Place,
    confirmed: Place,
    rows: u64,
}

impl Copying {
    /// Begins, where the changelogs end here.
    pub(super) fn begin(since: Beginning) -> Self {
        let (stores, first) = (since.offsets.len() as u16, Place::At(0, Vec::new()));
        Self {
            since,
            stores,
            next: first.clone(),
            sealed: first.clone(),
            confirmed: first,
            rows: 0,
        }
    }

    /// Goes on after the last slice that a commit has confirmed.
    pub(super) fn resumed(self) -> Self {
        Self {
            next: self.confirmed.clone(),
            sealed: self.confirmed.clone(),
            ..self
        }
    }

    /// Writes rows again until about so many bytes are written.
    ///
    /// # Errors
    /// As [`crate::state::StateBackend::scan`].
    pub(super) fn copy_slice(&mut self, state: &mut TaskState, bytes: usize) -> StateResult<()> {
        let mut left = bytes;
        while let Place::At(store, from) = &self.next {
            let copied = state.rewrite(StoreId(*store), from, left)?;
            self.rows += copied.rows;
            let is_over = copied.next.is_some();
            self.next = match copied.next {
                Some(key) => Place::At(*store, key),
                None if store + 1 < self.stores => Place::At(store + 1, Vec::new()),
                None => Place::End,
            };
            if is_over {
                break;
            }
            left = left.saturating_sub(copied.bytes);
        }
        Ok(())
    }

    /// The epoch is sealed that holds the last slice; where the changelogs begin, if they have everything with it.
    pub(super) fn seal(&mut self) -> Option<Beginning> {
        self.sealed = self.next.clone();
        (self.sealed == Place::End).then(|| self.since.clone())
    }

    /// The sealed epoch has committed.
    pub(super) fn confirm(&mut self) {
        self.confirmed = self.sealed.clone();
    }

    /// Rows written again so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }
}
