//! Aggregates per key and tumbling window.

use super::push::{NodeRef, Outlet, Push, Stateful};
use super::rows::{Row, Rows};
use super::windows::{CLOCK_KEY, Emit, TumblingWindows};
use super::{Failure, OperatorClock, Scope};
use crate::codec::Windowed;
use crate::ids::StoreId;
use crate::record::{Headers, Record};
use crate::state::StateError;
use crate::time::Millis;

/// Folds the values of each key and window into one aggregate.
///
/// A record without a key is dropped and counted; one without a value is folded. The operator judges lateness by the
/// largest time that it has itself observed. A closed window leaves the store, so that state is bounded.
pub(crate) struct WindowedAggregate<K, A, F> {
    pub(crate) node: NodeRef,
    pub(crate) store: StoreId,
    pub(crate) rows: Rows<Windowed<K>, A>,
    pub(crate) windows: TumblingWindows,
    pub(crate) emit: Emit,
    /// Index of this operator's clock in [`Scope::clocks`].
    pub(crate) clock: usize,
    /// Gets key, value and the aggregate so far (`None` at first).
    pub(crate) fold: F,
    pub(crate) next: Outlet<Record<Windowed<K>, A>>,
}

impl<K, V, A, F> Push<Record<K, V>> for WindowedAggregate<K, A, F>
where
    K: Clone + 'static,
    A: 'static,
    F: Fn(&K, Option<V>, Option<A>) -> Option<A> + Send + Sync,
{
    fn push(&self, record: Record<K, V>, scope: &mut Scope) -> Result<(), Failure> {
        let Record {
            key: Some(key),
            value,
            timestamp_ms,
            headers,
        } = record
        else {
            self.node.count_dropped(scope);
            return Ok(());
        };
        let clock = &mut scope.clocks[self.clock];
        clock.observe(timestamp_ms);
        let closed_before_ms = clock.closed_start_ms;
        let closed_ms = closed_before_ms.max(self.windows.newest_closed_start_ms(clock.observed_ms));
        let window = self.windows.window_of(timestamp_ms, key);
        // A window stays closed, even if the topology is started again with a longer grace.
        if window.start_ms <= closed_ms {
            self.node.count_late(scope);
        } else {
            self.update(window, value, timestamp_ms, &headers, scope)?;
        }
        if closed_ms > closed_before_ms {
            scope.clocks[self.clock].close_up_to(closed_ms);
            self.close(closed_before_ms, closed_ms, &headers, scope)?;
        }
        Ok(())
    }
}

impl<K: Clone + 'static, A: 'static, F> WindowedAggregate<K, A, F> {
    fn update<V>(
        &self,
        window: Windowed<K>,
        value: Option<V>,
        timestamp_ms: Millis,
        headers: &Headers,
        scope: &mut Scope,
    ) -> Result<(), Failure>
    where
        F: Fn(&K, Option<V>, Option<A>) -> Option<A>,
    {
        let (timestamp_ms, before) = match self.rows.read(self.store, &window, scope) {
            Ok(None) => (timestamp_ms, None),
            Ok(Some(row)) => (timestamp_ms.max(row.timestamp_ms), Some(row.value)),
            Err(error) => return error.settle(&self.node, scope),
        };
        let after = (self.fold)(&window.key, value, before);
        if let Err(error) = self.rows.write(self.store, timestamp_ms, after.as_ref(), scope) {
            return error.settle(&self.node, scope);
        }
        match self.emit {
            Emit::OnUpdate => {
                let update = Record {
                    key: Some(window),
                    value: after,
                    timestamp_ms,
                    headers: headers.clone(),
                };
                self.next.push(update, scope)
            }
            Emit::OnClose => Ok(()),
        }
    }

    /// Deletes the windows that start in `(closed_before_ms, closed_ms]`, and emits them where that is wanted.
    fn close(
        &self,
        closed_before_ms: Millis,
        closed_ms: Millis,
        headers: &Headers,
        scope: &mut Scope,
    ) -> Result<(), Failure> {
        let to = closed_ms.saturating_add(1).to_be_bytes();
        let mut from = closed_before_ms.saturating_add(1).to_be_bytes().to_vec();
        let mut buffer = scope.take_scan_buffer();
        while buffer.fill(scope, self.store, &from, &to)? {
            for (key, row) in buffer.entries() {
                scope.state.delete(self.store, key);
                if self.emit == Emit::OnClose {
                    self.emit_closed(key, row, headers, scope)?;
                }
            }
            from.clear();
            from.extend_from_slice(buffer.last_key());
            from.push(0);
        }
        scope.give_scan_buffer(buffer);
        Ok(())
    }

    fn emit_closed(&self, key: &[u8], row: &[u8], headers: &Headers, scope: &mut Scope) -> Result<(), Failure> {
        let decoded = self
            .rows
            .key
            .decode(key)
            .and_then(|window| Ok((window, self.rows.decode(row)?)));
        match decoded {
            Ok((window, Row { timestamp_ms, value })) => {
                let closed = Record {
                    key: Some(window),
                    value: Some(value),
                    timestamp_ms,
                    headers: headers.clone(),
                };
                self.next.push(closed, scope)
            }
            Err(error) => self.node.bad(scope, &error),
        }
    }
}

impl<K: 'static, A: 'static, F: Send + Sync> Stateful for WindowedAggregate<K, A, F> {
    fn save(&self, scope: &mut Scope) -> Result<(), Failure> {
        let Scope { state, clocks, .. } = scope;
        let clock = &mut clocks[self.clock];
        if clock.dirty {
            state.put(self.store, CLOCK_KEY, &clock.to_bytes());
            clock.dirty = false;
        }
        Ok(())
    }

    fn load(&self, scope: &mut Scope) -> Result<(), Failure> {
        let Scope { state, clocks, .. } = scope;
        clocks[self.clock] = match state.get(self.store, CLOCK_KEY)? {
            None => OperatorClock::default(),
            Some(bytes) => OperatorClock::from_bytes(bytes).ok_or_else(|| StateError::Corrupt {
                path: format!("(store of {})", self.node.name).into(),
                reason: format!("the operator's clock has {} bytes instead of 16", bytes.len()),
            })?,
        };
        Ok(())
    }
}
