//! One connection to a broker: a request, then its answer, each before a deadline.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::super::deadline::Deadline;
use super::api::{self, Api, Endpoint};
use super::security::{Security, Stream};
use super::wire::{Malformed, Reader, Writer};

/// The largest answer that is read, in bytes; answers to these requests have some bytes per partition.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The shortest time-out that a socket knows.
const SHORTEST: Duration = Duration::from_millis(1);

/// Why a connection could not be made, or cannot be used any more.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    /// It is broken, or was never there.
    #[error("{peer}: {reason}")]
    Broken { peer: String, reason: String },
    /// There was no answer in time.
    #[error("{peer} did not answer in time")]
    TimedOut { peer: String },
    /// The broker does not speak what this producer needs.
    #[error("{peer} cannot be used: {reason}")]
    Unsuitable { peer: String, reason: String },
}

/// The open sockets of one producer, so that whoever drops it need not wait for their answers.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    open: Mutex<BTreeMap<u64, TcpStream>>,
    next: AtomicU64,
    closed: AtomicBool,
}

impl Sockets {
    /// Ends every connection, and all that are still made.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for socket in self.open.lock().unwrap_or_else(PoisonError::into_inner).values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn enter(self: &Arc<Self>, socket: &TcpStream) -> io::Result<Entry> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(number, socket.try_clone()?);
        match self.closed.load(Ordering::Acquire) {
            // Its entry goes with the producer.
            true => Err(io::Error::new(ErrorKind::NotConnected, "the producer was dropped")),
            false => Ok(Entry {
                number,
                sockets: Arc::clone(self),
            }),
        }
    }
}

/// A socket's place among the others.
struct Entry {
    number: u64,
    sockets: Arc<Sockets>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut open = self.sockets.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&self.number);
    }
}

/// How connections are made.
#[derive(Clone)]
pub(super) struct Connector {
    pub client_id: Arc<str>,
    pub security: Security,
    pub sockets: Arc<Sockets>,
}

/// A connection on which one request at a time is answered.
pub(super) struct Connection {
    stream: Stream,
    peer: String,
    client_id: Arc<str>,
    correlation: i32,
    request: Writer,
    answer: Vec<u8>,
    _entry: Entry,
}

impl Connector {
    /// Connects, asks what the broker speaks, and tells it who asks.
    ///
    /// # Errors
    /// [`ConnectionError`]; [`ConnectionError::Unsuitable`] where another attempt is of no use.
    pub fn connect(&self, endpoint: &Endpoint, deadline: &Deadline) -> Result<Connection, ConnectionError> {
        let peer = endpoint.to_string();
        let within = Deadline::after(CONNECT_TIMEOUT.min(deadline.remaining()));
        let broken = |error: io::Error| broken(&peer, &error);
        let socket = reach(endpoint, &within).map_err(broken)?;
        socket.set_nodelay(true).map_err(broken)?;
        let entry = self.sockets.enter(&socket).map_err(broken)?;
        set_timeouts(&socket, &within).map_err(broken)?;
        let stream = self.security.wrap(socket, &endpoint.host).map_err(broken)?;
        let mut connection = Connection {
            stream,
            peer,
            client_id: Arc::clone(&self.client_id),
            correlation: 0,
            request: Writer::default(),
            answer: Vec::new(),
            _entry: entry,
        };
        let unsuitable = connection.call(api::API_VERSIONS, api::api_versions, api::api_versions_answer, &within)?;
        if let Some(reason) = unsuitable {
            return Err(ConnectionError::Unsuitable {
                peer: connection.peer,
                reason,
            });
        }
        self.security.authenticate(&mut connection, &within)?;
        Ok(connection)
    }
}

impl Connection {
    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// [`ConnectionError`]; the connection cannot be used after that, and whether the request was carried out is unknown.
    pub fn call<T>(
        &mut self,
        api: Api,
        write: impl FnOnce(&mut Writer),
        read: impl FnOnce(Reader<'_>) -> Result<T, Malformed>,
        deadline: &Deadline,
    ) -> Result<T, ConnectionError> {
        self.send(api, write, deadline)?;
        self.receive(api, read, deadline)
    }

    /// Sends a request; its answer is read by [`Connection::receive`] before another one is sent.
    pub fn send(
        &mut self,
        api: Api,
        write: impl FnOnce(&mut Writer),
        deadline: &Deadline,
    ) -> Result<(), ConnectionError> {
        self.correlation = self.correlation.wrapping_add(1);
        api.begin(&mut self.request, self.correlation, &self.client_id);
        write(&mut self.request);
        let length = i32::try_from(self.request.0.len() - 4).unwrap_or(i32::MAX);
        self.request.0[..4].copy_from_slice(&length.to_be_bytes());
        let mut rest = &self.request.0[..];
        while !rest.is_empty() {
            set_timeouts(self.stream.socket(), deadline).map_err(|error| broken(&self.peer, &error))?;
            match self.stream.write(rest) {
                Ok(0) => return Err(self.closed()),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(&self.peer, &error)),
            }
        }
        Ok(())
    }

    /// Reads the answer to the request that was sent last.
    pub fn receive<T>(
        &mut self,
        api: Api,
        read: impl FnOnce(Reader<'_>) -> Result<T, Malformed>,
        deadline: &Deadline,
    ) -> Result<T, ConnectionError> {
        self.answer.resize(4, 0);
        self.fill(0, deadline)?;
        let length = i32::from_be_bytes([self.answer[0], self.answer[1], self.answer[2], self.answer[3]]);
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= ANSWER_MAX_BYTES);
        let Some(length) = length else {
            return Err(self.malformed(Malformed("a shorter answer")));
        };
        self.answer.resize(length, 0);
        self.fill(0, deadline)?;
        let mut answer = Reader::new(&self.answer);
        let read = match api.begin_answer(&mut answer) {
            Ok(correlation) if correlation == self.correlation => read(answer),
            Ok(_) => Err(Malformed("the answer to this request")),
            Err(malformed) => Err(malformed),
        };
        read.map_err(|malformed| self.malformed(malformed))
    }

    /// Fills the buffer of the answer from `at` on.
    fn fill(&mut self, mut at: usize, deadline: &Deadline) -> Result<(), ConnectionError> {
        while at < self.answer.len() {
            set_timeouts(self.stream.socket(), deadline).map_err(|error| broken(&self.peer, &error))?;
            match self.stream.read(&mut self.answer[at..]) {
                Ok(0) => return Err(self.closed()),
                Ok(count) => at += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(&self.peer, &error)),
            }
        }
        Ok(())
    }

    /// An error of this connection's own words.
    pub fn refused(&self, reason: String) -> ConnectionError {
        ConnectionError::Broken {
            peer: self.peer.clone(),
            reason,
        }
    }

    fn closed(&self) -> ConnectionError {
        self.refused("the broker closed the connection".to_owned())
    }

    fn malformed(&self, malformed: Malformed) -> ConnectionError {
        self.refused(malformed.to_string())
    }
}

fn broken(peer: &str, error: &io::Error) -> ConnectionError {
    let peer = peer.to_owned();
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => ConnectionError::TimedOut { peer },
        _ => ConnectionError::Broken {
            peer,
            reason: error.to_string(),
        },
    }
}

/// Tries each address of a host. Asking for them has no deadline but the system's own; whoever waits watches from outside.
fn reach(endpoint: &Endpoint, deadline: &Deadline) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the host has no address");
    for address in (endpoint.host.as_str(), endpoint.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, deadline.remaining().max(SHORTEST)) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Bounds the next read and write of a socket.
fn set_timeouts(socket: &TcpStream, deadline: &Deadline) -> io::Result<()> {
    let remaining = deadline.remaining();
    if remaining.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    // Longer ones than a year are none to a socket.
    let timeout = remaining.clamp(SHORTEST, Duration::from_secs(365 * 86_400));
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))
}
