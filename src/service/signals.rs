//! Signals: the first asks the instance to stop, the second ends the process.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::ServiceError;

/// A signal that ends the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// SIGINT, Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Ending {
    /// The name for log lines.
    pub fn name(self) -> &'static str {
        match self {
            Ending::Interrupt => "SIGINT",
            Ending::Terminate => "SIGTERM",
        }
    }

    /// The exit code of a process that the signal ended: 128 and the signal's number.
    pub fn exit_code(self) -> u8 {
        match self {
            Ending::Interrupt => 130,
            Ending::Terminate => 143,
        }
    }
}

/// The signals of this process.
pub struct Endings {
    interrupt: Signal,
    terminate: Signal,
}

impl Endings {
    /// Takes the signals over from their default action. Must be called within a runtime.
    pub fn listen() -> Result<Self, ServiceError> {
        let take = |kind| {
            signal(kind).map_err(|e| ServiceError::Setup {
                what: "signals",
                reason: e.to_string(),
            })
        };
        Ok(Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
        })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Ending {
        tokio::select! {
            _ = self.interrupt.recv() => Ending::Interrupt,
            _ = self.terminate.recv() => Ending::Terminate,
        }
    }
}
