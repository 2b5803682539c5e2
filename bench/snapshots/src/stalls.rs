//! How long nothing is processed while there is something to process.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One window of time, and the longest pause between two records that ended in it.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// When it began.
    pub from: Instant,
    /// The longest time without a record.
    pub longest: Duration,
    /// Records.
    pub records: u64,
}

/// Is told of every record; keeps the longest pause of each window.
pub struct Stalls {
    width: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: Option<Instant>,
    windows: Vec<Window>,
}

impl Stalls {
    /// With windows of this width.
    pub fn new(width: Duration) -> Self {
        Self {
            width,
            state: Mutex::default(),
        }
    }

    /// A record passes.
    pub fn passed(&self) {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = state.last.map_or(Duration::ZERO, |last| now - last);
        state.last = Some(now);
        match state.windows.last_mut() {
            Some(window) if now - window.from < self.width => {
                window.longest = window.longest.max(pause);
                window.records += 1;
            }
            _ => state.windows.push(Window {
                from: now,
                longest: pause,
                records: 1,
            }),
        }
    }

    /// Forgets what was seen, so that the time since the last record counts as no pause.
    pub fn forget(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }

    /// All windows so far.
    pub fn windows(&self) -> Vec<Window> {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .windows
            .clone()
    }
}
