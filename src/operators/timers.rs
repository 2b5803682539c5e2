//! Event-time timers of a node, in an ordered store: the key is the time (8 bytes, big-endian), then the tag.

use super::Scope;
use super::scan::ScanBuffer;
use super::states::Declare;
use crate::ids::StoreId;
use crate::state::StateResult;
use crate::time::Millis;

/// A processor's right to set timers. Declared with [`Declare::timers`].
#[derive(Clone, Copy, Debug)]
pub struct Timers {
    pub(crate) index: usize,
}

impl Declare<'_> {
    /// Timers in event time, kept in a store called `<node>-timers`. All calls answer the same timers.
    pub fn timers(&mut self) -> Timers {
        let index = match self.timers {
            Some(index) => index,
            None => {
                self.declare_store("timers", true, "timers".into());
                self.stores.len() - 1
            }
        };
        self.timers = Some(index);
        Timers { index }
    }
}

/// A value must not be empty, since a store may not tell an empty value from none.
const SET: &[u8] = &[1];

pub(crate) fn set(scope: &mut Scope, store: StoreId, clock: usize, time_ms: Millis, tag: &[u8]) {
    let Scope {
        state, scratch, clocks, ..
    } = scope;
    encode(time_ms, tag, &mut scratch.key);
    state.put(store, &scratch.key, SET);
    clocks[clock].next_timer_ms = clocks[clock].next_timer_ms.min(time_ms);
}

/// The time of the next timer stays as it was: too early costs one look into the store.
pub(crate) fn cancel(scope: &mut Scope, store: StoreId, time_ms: Millis, tag: &[u8]) {
    let Scope { state, scratch, .. } = scope;
    encode(time_ms, tag, &mut scratch.key);
    state.delete(store, &scratch.key);
}

/// Reads the due timers that share the earliest due time, so that later ones are read after these have fired.
///
/// Reading starts at the time of the next timer and not at the start of the store, where those that have fired left
/// deletions that the database would have to step over.
pub(crate) fn read_first_due(
    scope: &mut Scope,
    store: StoreId,
    clock: usize,
    buffer: &mut ScanBuffer,
) -> StateResult<bool> {
    let from = scope.clocks[clock].next_timer_ms.to_be_bytes();
    let to = scope.stream_time_ms.saturating_add(1).to_be_bytes();
    let mut first: Option<[u8; 8]> = None;
    buffer.fill_while(scope, store, &from, &to, |key| {
        let time = key.first_chunk::<8>().copied().unwrap_or_default();
        *first.get_or_insert(time) == time
    })
}

/// Removes a timer that was read before; `None` if somebody else has removed it since.
pub(crate) fn take<'k>(scope: &mut Scope, store: StoreId, key: &'k [u8]) -> StateResult<Option<(Millis, &'k [u8])>> {
    if scope.state.get(store, key)?.is_none() {
        return Ok(None);
    }
    scope.state.delete(store, key);
    Ok(key
        .split_first_chunk::<8>()
        .map(|(time, tag)| (Millis::from_be_bytes(*time), tag)))
}

/// Finds out when the next timer is due, knowing that none is due before `from_ms`.
pub(crate) fn find_next(scope: &mut Scope, store: StoreId, clock: usize, from_ms: Millis) -> StateResult<()> {
    let mut next_ms = Millis::MAX;
    scope.state.scan(store, &from_ms.to_be_bytes(), &[], &mut |key, _| {
        next_ms = key
            .first_chunk::<8>()
            .map_or(Millis::MAX, |time| Millis::from_be_bytes(*time));
        false
    })?;
    scope.clocks[clock].next_timer_ms = next_ms;
    Ok(())
}

fn encode(time_ms: Millis, tag: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&time_ms.to_be_bytes());
    out.extend_from_slice(tag);
}
