//! The coordinators of the transactional id and of the group: where they are, and what they answer.

use std::sync::Arc;

use super::super::deadline::Deadline;
use super::Shared;
use super::api::{self, Api, CoordinatorOf};
use super::cluster::Attempts;
use super::codes::BrokerCode;
use super::connection::{Connection, ConnectionError};
use super::wire::{Malformed, Reader, Writer};
use crate::log::LogResult;

/// A coordinator's answer, and whether it was asked more than once.
pub(super) struct Answered<T> {
    pub answer: Result<T, BrokerCode>,
    pub repeated: bool,
}

/// Connections to whom is asked.
pub(super) struct Coordinators {
    shared: Arc<Shared>,
    /// To whatever broker.
    any: Option<Connection>,
    /// To the coordinator of the transactional id.
    transaction: Option<Connection>,
    /// To the coordinator of the group named.
    group: Option<(String, Connection)>,
}

impl Coordinators {
    pub fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            any: None,
            transaction: None,
            group: None,
        }
    }

    /// A connection to whatever broker.
    pub fn any(&mut self, deadline: &Deadline) -> Result<&mut Connection, ConnectionError> {
        match &mut self.any {
            Some(connection) => Ok(connection),
            none => Ok(none.insert(self.shared.cluster.any(deadline)?)),
        }
    }

    /// Asks another one the next time.
    pub fn forget_any(&mut self) {
        self.any = None;
    }

    /// Asks a coordinator until it gives an answer that counts. All of these requests may be sent again: the epoch of the transaction
    /// tells the coordinator what it has carried out before.
    pub fn ask<T>(
        &mut self,
        of: CoordinatorOf<'_>,
        api: Api,
        write: impl Fn(&mut Writer),
        mut read: impl FnMut(Reader<'_>) -> Result<Result<T, BrokerCode>, Malformed>,
        operation: &str,
        deadline: &Deadline,
    ) -> LogResult<Answered<T>> {
        let mut attempts = Attempts::until(deadline);
        let mut repeated = false;
        loop {
            let within = Deadline::after(self.shared.options.request_timeout.min(deadline.remaining()));
            match self.connected(of, &within) {
                Ok(Ok(connection)) => {
                    let answer = connection.call(api, &write, &mut read, &within);
                    match answer {
                        Ok(Err(code)) if code.moves_coordinator() => self.forget(of),
                        Ok(Err(code)) if code.is_transient() => {}
                        Ok(answer) => return Ok(Answered { answer, repeated }),
                        Err(error) => {
                            self.lost(of, &error, deadline);
                            repeated = true;
                        }
                    }
                }
                Ok(Err(code)) if code.is_transient() => {}
                Ok(Err(code)) => {
                    return Ok(Answered {
                        answer: Err(code),
                        repeated,
                    });
                }
                Err(error) => {
                    self.any = None;
                    self.lost(of, &error, deadline);
                }
            }
            if deadline.is_over() || self.shared.queue.is_stopped() {
                return Err(match api.key == api::INIT_PRODUCER_ID.key {
                    true => self.shared.cluster.overdue(operation, deadline),
                    false => deadline.timed_out(operation),
                });
            }
            attempts.pause();
        }
    }

    fn lost(&mut self, of: CoordinatorOf<'_>, error: &ConnectionError, deadline: &Deadline) {
        self.forget(of);
        // That a call was not answered in its own time is no trouble of the connection.
        if !deadline.is_over() || matches!(error, ConnectionError::Broken { .. }) {
            self.shared.cluster.note(error);
        }
        tracing::debug!(producer = self.shared.id, %error, "a coordinator does not answer");
    }

    fn forget(&mut self, of: CoordinatorOf<'_>) {
        match of {
            CoordinatorOf::Transaction(_) => self.transaction = None,
            CoordinatorOf::Group(_) => self.group = None,
        }
    }

    /// The connection to a coordinator; made where there is none.
    fn connected(
        &mut self,
        of: CoordinatorOf<'_>,
        deadline: &Deadline,
    ) -> Result<Result<&mut Connection, BrokerCode>, ConnectionError> {
        let missing = match (of, &self.group) {
            (CoordinatorOf::Transaction(_), _) => self.transaction.is_none(),
            (CoordinatorOf::Group(group), Some((known, _))) => known != group,
            (CoordinatorOf::Group(_), None) => true,
        };
        if missing {
            let shared = Arc::clone(&self.shared);
            let asked = self.any(deadline)?;
            let found = match shared.cluster.coordinator(asked, of, deadline)? {
                Ok(found) => found,
                Err(code) => return Ok(Err(code)),
            };
            match of {
                CoordinatorOf::Transaction(_) => self.transaction = Some(found),
                CoordinatorOf::Group(group) => self.group = Some((group.to_owned(), found)),
            }
        }
        let connection = match of {
            CoordinatorOf::Transaction(_) => self.transaction.as_mut(),
            CoordinatorOf::Group(_) => self.group.as_mut().map(|(_, connection)| connection),
        };
        Ok(connection.ok_or(BrokerCode::COORDINATOR_NOT_AVAILABLE))
    }
}
