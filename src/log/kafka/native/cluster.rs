//! The brokers as far as they are known, and the way to those that are asked.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::super::deadline::Deadline;
use super::api::{self, CoordinatorOf, Endpoint, MetadataAnswer};
use super::codes::BrokerCode;
use super::connection::{Connection, ConnectionError, Connector};
use crate::log::LogError;

/// The first pause before something is tried again, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Pauses that grow, until a deadline.
pub(super) struct Attempts<'a> {
    deadline: &'a Deadline,
    pause: Duration,
}

impl<'a> Attempts<'a> {
    pub fn until(deadline: &'a Deadline) -> Self {
        Self {
            deadline,
            pause: FIRST_PAUSE,
        }
    }

    /// Waits before the next attempt.
    pub fn pause(&mut self) {
        thread::park_timeout(self.pause.min(self.deadline.remaining()));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// A Kafka cluster.
pub(super) struct Cluster {
    pub connector: Connector,
    addresses: String,
    bootstrap: Vec<Endpoint>,
    brokers: Mutex<BTreeMap<i32, Endpoint>>,
    /// Why the last connection failed; nothing once one was made.
    trouble: Mutex<Option<String>>,
}

impl Cluster {
    /// # Errors
    /// The address that is none.
    pub fn new(addresses: &str, connector: Connector) -> Result<Self, String> {
        let bootstrap = addresses.split(',').map(|address| parse_address(address.trim()));
        Ok(Self {
            connector,
            addresses: addresses.to_owned(),
            bootstrap: bootstrap.collect::<Result<_, _>>()?,
            brokers: Mutex::default(),
            trouble: Mutex::default(),
        })
    }

    fn brokers(&self) -> std::sync::MutexGuard<'_, BTreeMap<i32, Endpoint>> {
        self.brokers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects to one broker and remembers how that went.
    fn connect(&self, endpoint: &Endpoint, deadline: &Deadline) -> Result<Connection, ConnectionError> {
        let connection = self.connector.connect(endpoint, deadline);
        match &connection {
            Ok(_) => *self.trouble() = None,
            Err(error) => self.note(error),
        }
        connection
    }

    /// Remembers what a connection ended with; that there was no answer in time says less than what was known before.
    pub fn note(&self, error: &ConnectionError) {
        let mut trouble = self.trouble();
        match error {
            ConnectionError::TimedOut { .. } if trouble.is_some() => {}
            _ => *trouble = Some(error.to_string()),
        }
    }

    /// The error of a call that did not end in time: an unreachable cluster, if connections fail.
    pub fn overdue(&self, operation: &str, deadline: &Deadline) -> LogError {
        match self.trouble().clone() {
            Some(reason) => LogError::Unreachable {
                addresses: self.addresses.clone(),
                reason,
            },
            None => deadline.timed_out(operation),
        }
    }

    /// A connection to the broker of that number.
    pub fn broker(&self, id: i32, deadline: &Deadline) -> Result<Connection, ConnectionError> {
        let endpoint = self.brokers().get(&id).cloned();
        match endpoint {
            Some(endpoint) => self.connect(&endpoint, deadline),
            None => Err(ConnectionError::Broken {
                peer: format!("broker {id}"),
                reason: "it is not known where it listens".to_owned(),
            }),
        }
    }

    /// A connection to any broker: those that are known, then the addresses that were given.
    pub fn any(&self, deadline: &Deadline) -> Result<Connection, ConnectionError> {
        let known: Vec<Endpoint> = self.brokers().values().cloned().collect();
        let mut last = None;
        let mut left = u32::try_from(known.len() + self.bootstrap.len()).unwrap_or(u32::MAX);
        for endpoint in known.iter().chain(&self.bootstrap) {
            // One that does not even refuse must not take the time of the others.
            let share = Deadline::after(deadline.remaining() / left.max(1));
            left = left.saturating_sub(1);
            match self.connect(endpoint, &share) {
                Err(error @ ConnectionError::Unsuitable { .. }) => return Err(error),
                Err(error) => last = Some(error),
                connection => return connection,
            }
        }
        Err(last.unwrap_or_else(|| ConnectionError::Broken {
            peer: self.addresses.clone(),
            reason: "no address is given".to_owned(),
        }))
    }

    /// What is known of topics, and by that of brokers.
    pub fn metadata<'a>(
        &self,
        asked: &mut Connection,
        topics: impl ExactSizeIterator<Item = &'a str>,
        deadline: &Deadline,
    ) -> Result<MetadataAnswer, ConnectionError> {
        let write = |out: &mut super::wire::Writer| api::metadata(out, topics);
        let answer = asked.call(api::METADATA, write, api::metadata_answer, deadline)?;
        *self.brokers() = answer.brokers.iter().cloned().collect();
        Ok(answer)
    }

    /// A connection to a coordinator, or what the broker that was asked for it says.
    pub fn coordinator(
        &self,
        asked: &mut Connection,
        of: CoordinatorOf<'_>,
        deadline: &Deadline,
    ) -> Result<Result<Connection, BrokerCode>, ConnectionError> {
        let write = |out: &mut super::wire::Writer| api::find_coordinator(out, of);
        let found = asked.call(api::FIND_COORDINATOR, write, api::find_coordinator_answer, deadline)?;
        match found {
            Ok(endpoint) => self.connect(&endpoint, deadline).map(Ok),
            Err(code) => Ok(Err(code)),
        }
    }
}

/// `host:port`, an IPv6 host in brackets, with or without the name of a protocol in front.
fn parse_address(address: &str) -> Result<Endpoint, String> {
    let plain = address.rsplit_once("://").map_or(address, |(_, plain)| plain);
    let (host, port) = plain.rsplit_once(':').unwrap_or((plain, "9092"));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match port.parse() {
        Ok(port) if !host.is_empty() => Ok(Endpoint {
            host: host.to_owned(),
            port,
        }),
        _ => Err(format!("{address:?} is no address of the form host:port")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_with_ports() {
        let parsed = |address: &str| parse_address(address).map(|endpoint| (endpoint.host, endpoint.port));
        assert_eq!(parsed("broker:9093"), Ok(("broker".to_owned(), 9093)));
        assert_eq!(parsed("SSL://localhost:9093"), Ok(("localhost".to_owned(), 9093)));
        assert_eq!(parsed("[::1]:9094"), Ok(("::1".to_owned(), 9094)));
        assert_eq!(parsed("broker"), Ok(("broker".to_owned(), 9092)));
        assert!(parsed("broker:port").is_err() && parsed(":9092").is_err());
    }
}
