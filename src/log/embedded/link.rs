//! The link between clients and broker: the one place through which every request goes.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::broker::{Broker, BrokerError, Request, Wake};
use super::{EmbeddedSettings, Waits};
use crate::log::Isolation;
use crate::time::{Clock, Millis};

/// Shortest sleep of a waiting client while it expects the clock to end a transaction or a session.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// What a waiting client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// Also records of open transactions.
    Uncommitted,
    /// Everything else.
    Settled,
}

impl From<Isolation> for Interest {
    fn from(isolation: Isolation) -> Self {
        match isolation {
            Isolation::ReadCommitted => Interest::Settled,
            Isolation::ReadUncommitted => Interest::Uncommitted,
        }
    }
}

/// A client's way to the broker; cheap to clone.
#[derive(Clone)]
pub(super) struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    uncommitted: Condvar,
    settled: Condvar,
    clock: Arc<dyn Clock>,
    settings: EmbeddedSettings,
}

struct State {
    broker: Broker,
    waiting_uncommitted: usize,
    waiting_settled: usize,
}

impl State {
    fn waiting(&mut self, interest: Interest) -> &mut usize {
        match interest {
            Interest::Uncommitted => &mut self.waiting_uncommitted,
            Interest::Settled => &mut self.waiting_settled,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a bug of the model that its test reports; other threads may still wind down.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle<R: Request>(&self, state: &mut State, request: R) -> Result<R::Answer, BrokerError> {
        let answer = state
            .broker
            .handle(request, self.clock.monotonic(), self.clock.wall_ms());
        let wake = state.broker.take_wake();
        if wake >= Wake::UncommittedReaders && state.waiting_uncommitted > 0 {
            self.uncommitted.notify_all();
        }
        if wake >= Wake::Everybody && state.waiting_settled > 0 {
            self.settled.notify_all();
        }
        answer
    }
}

impl Link {
    /// A link to `broker`.
    pub fn new(clock: Arc<dyn Clock>, settings: EmbeddedSettings, broker: Broker) -> Self {
        let state = State {
            broker,
            waiting_uncommitted: 0,
            waiting_settled: 0,
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                uncommitted: Condvar::new(),
                settled: Condvar::new(),
                clock,
                settings,
            }),
        }
    }

    /// How the log is set up.
    pub fn settings(&self) -> &EmbeddedSettings {
        &self.shared.settings
    }

    /// Wall-clock time, for records that come without a timestamp.
    pub fn wall_ms(&self) -> Millis {
        self.shared.clock.wall_ms()
    }

    /// Number of calls that sleep now.
    #[cfg(test)]
    pub fn sleepers(&self) -> usize {
        let state = self.shared.lock();
        state.waiting_uncommitted + state.waiting_settled
    }

    /// Sends a request and brings back the answer.
    pub fn call<R: Request>(&self, request: R) -> Result<R::Answer, BrokerError> {
        let mut state = self.shared.lock();
        self.shared.handle(&mut state, request)
    }

    /// Does nothing for as long as `wait`.
    pub fn rest(&self, wait: Duration) {
        // Whatever the answer is, it is never wanted.
        let _ = self.call_until(Nothing, wait, Interest::Settled, |_| false);
    }

    /// Sends a request again whenever something of interest has changed, until the answer is `wanted` or `wait` is over. Brings back the last answer.
    pub fn call_until<R: Request + Clone>(
        &self,
        request: R,
        wait: Duration,
        interest: Interest,
        wanted: impl Fn(&Result<R::Answer, BrokerError>) -> bool,
    ) -> Result<R::Answer, BrokerError> {
        let shared = &*self.shared;
        let mut state = shared.lock();
        let mut answer = shared.handle(&mut state, request.clone());
        let mut remaining = match shared.settings.waits {
            Waits::RealTime => wait,
            Waits::Never => {
                if !wanted(&answer) {
                    shared.clock.waited(wait);
                }
                Duration::ZERO
            }
        };
        let condvar = match interest {
            Interest::Uncommitted => &shared.uncommitted,
            Interest::Settled => &shared.settled,
        };
        while !wanted(&answer) && !remaining.is_zero() {
            // Nobody else may call when the clock alone ends a transaction or a session, so look again then.
            let due = state.broker.next_deadline();
            let until_due = due.map_or(Duration::MAX, |due| due.saturating_sub(shared.clock.monotonic()));
            let sleep = remaining.min(until_due.max(SHORTEST_SLEEP));
            *state.waiting(interest) += 1;
            let (woken, _) = condvar
                .wait_timeout_while(state, sleep, |state| {
                    answer = shared.handle(state, request.clone());
                    !wanted(&answer)
                })
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            *state.waiting(interest) -= 1;
            remaining -= sleep;
        }
        answer
    }
}

/// Asks for nothing.
#[derive(Clone, Debug)]
struct Nothing;

impl Request for Nothing {
    type Answer = ();

    fn handle(self, _broker: &mut Broker, _now: Duration) -> Result<(), BrokerError> {
        Ok(())
    }
}
