//! The connection between clients and broker, which can be held up while both ends stay alive.
//!
//! All clients reach the broker through this link, since the broker tells them its address. A link that is held up
//! passes nothing on and closes nothing: to either end the other one looks as if it were far too slow.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::{LedgerError, lock};

const BUFFER_BYTES: usize = 64 * 1024;

/// A way to one address by another one.
pub struct Link {
    address: SocketAddr,
    far_end: Arc<Mutex<Option<SocketAddr>>>,
    gate: Arc<Gate>,
    /// Both ends of every connection that was ever made.
    ends: Arc<Mutex<Vec<TcpStream>>>,
}

#[derive(Default)]
struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn set(&self, closed: bool) {
        *lock(&self.closed) = closed;
        self.opened.notify_all();
    }

    fn wait_until_open(&self) {
        let closed = lock(&self.closed);
        let waited = self.opened.wait_while(closed, |closed| *closed);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Link {
    /// A link that leads nowhere yet: connections are closed at once.
    ///
    /// # Errors
    /// Where no port is free.
    pub fn open() -> Result<Self, LedgerError> {
        let failed = |error| LedgerError::io("open a link to the broker", error);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (far_end, gate) = (Arc::<Mutex<Option<SocketAddr>>>::default(), Arc::<Gate>::default());
        let ends = Arc::<Mutex<Vec<TcpStream>>>::default();
        let (accepting_to, accepting_gate) = (Arc::clone(&far_end), Arc::clone(&gate));
        let accepted = Arc::clone(&ends);
        std::thread::Builder::new()
            .name("link".to_owned())
            .spawn(move || {
                for near in listener.incoming().flatten() {
                    let to = *lock(&accepting_to);
                    // A broker that is down looks like one: the connection is closed.
                    if let Some(far) = to.and_then(|to| TcpStream::connect(to).ok()) {
                        lock(&accepted).extend([&near, &far].into_iter().filter_map(|end| end.try_clone().ok()));
                        join(&near, &far, &accepting_gate);
                    }
                }
            })
            .map_err(failed)?;
        Ok(Self {
            address,
            far_end,
            gate,
            ends,
        })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where connections lead from now on.
    pub fn lead_to(&self, far_end: SocketAddr) {
        *lock(&self.far_end) = Some(far_end);
    }

    /// Ends every connection, with whatever is on its way; new ones can be made at once.
    pub fn cut(&self) {
        for end in lock(&self.ends).drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    /// Holds everything up, in both directions.
    pub fn hold(&self) {
        self.gate.set(true);
    }

    /// Lets everything through again, what was held up first.
    pub fn release(&self) {
        self.gate.set(false);
    }
}

/// Carries bytes both ways until either end closes.
fn join(near: &TcpStream, far: &TcpStream, gate: &Arc<Gate>) {
    for (from, to) in [(near, far), (far, near)] {
        let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else {
            return;
        };
        let gate = Arc::clone(gate);
        let carrier = std::thread::Builder::new().name("link-carrier".to_owned());
        // Without a thread the connection is dropped, and the client tries again.
        let _ = carrier.spawn(move || {
            // An end that is closed or broken ends the connection as a whole.
            let _ = carry(&from, &to, &gate);
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}

fn carry(mut from: &TcpStream, mut to: &TcpStream, gate: &Gate) -> io::Result<()> {
    to.set_nodelay(true)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer)?;
        gate.wait_until_open();
        if read == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..read])?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_link_that_is_held_up_delays_and_loses_nothing() {
        let broker = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let link = Link::open().unwrap();
        link.lead_to(broker.local_addr().unwrap());
        let mut client = TcpStream::connect(link.address()).unwrap();
        let (mut served, _) = broker.accept().unwrap();
        client.write_all(b"one").unwrap();
        let mut received = [0; 3];
        served.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"one");

        link.hold();
        client.write_all(b"two").unwrap();
        served.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(served.read_exact(&mut received).is_err(), "nothing comes through");
        served.set_read_timeout(None).unwrap();
        link.release();
        served.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"two");

        served.write_all(b"bye").unwrap();
        drop(served);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"bye", "the end of one side reaches the other");
    }

    #[test]
    fn a_link_to_nowhere_closes_connections() {
        let link = Link::open().unwrap();
        let mut client = TcpStream::connect(link.address()).unwrap();
        assert_eq!(client.read(&mut [0; 1]).unwrap_or(0), 0);
    }
}
