//! The thread that sends to one broker: one request at a time, with a batch of every partition that the broker leads and that has
//! one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::super::deadline::Deadline;
use super::Shared;
use super::api::{self, ProducePart};
use super::codes::BrokerCode;
use super::compression::Compressor;
use super::connection::{Connection, ConnectionError};
use super::failures;
use super::queue::{Fate, Queue, Taken, Work};
use super::records::Identity;
use crate::log::{LogError, LogResult};

/// The first pause before something is sent again, and how often it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const DOUBLINGS: u32 = 8;

/// How long the leaders of partitions may take to be learnt.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(5);

fn pause_after(failures: u32) -> Duration {
    FIRST_PAUSE * (1 << failures.min(DOUBLINGS))
}

/// The senders that run, by the numbers of their brokers.
#[derive(Debug, Default)]
pub(super) struct Senders(Mutex<BTreeSet<i32>>);

impl Senders {
    /// Starts a sender for every broker that leads a partition, unless it has one.
    ///
    /// # Errors
    /// [`LogError::Fatal`] where the system gives no thread.
    pub fn start(shared: &Arc<Shared>) -> LogResult<()> {
        let mut running = shared.senders.0.lock().unwrap_or_else(PoisonError::into_inner);
        for leader in shared.queue.leaders() {
            if !running.insert(leader) {
                continue;
            }
            let mut sender = Sender::new(Arc::clone(shared), leader)?;
            let name = format!("{}-to-{leader}", shared.name);
            let spawned = thread::Builder::new().name(name).spawn(move || sender.serve());
            spawned.map_err(|error| LogError::Fatal {
                operation: format!("starting a thread for broker {leader}"),
                reason: error.to_string(),
            })?;
        }
        Ok(())
    }
}

struct Sender {
    shared: Arc<Shared>,
    leader: i32,
    connection: Option<Connection>,
    compressor: Compressor,
    spare: Vec<u8>,
    /// Attempts in a row that no broker answered.
    failures: u32,
}

impl Sender {
    fn new(shared: Arc<Shared>, leader: i32) -> LogResult<Self> {
        let options = &shared.options;
        let compressor = Compressor::new(options.codec, options.compression_level);
        let compressor = compressor.map_err(|error| LogError::Fatal {
            operation: "compressing".to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Self {
            compressor,
            shared,
            leader,
            connection: None,
            spare: Vec::new(),
            failures: 0,
        })
    }

    fn queue(&self) -> &Queue {
        &self.shared.queue
    }

    fn serve(&mut self) {
        while let Some(work) = self.queue().take(self.leader) {
            match work {
                Work::Produce(identity, taken) => self.produce(identity, taken),
                Work::Refresh => self.refresh(),
            }
        }
    }

    /// Sends batches, and says what became of each.
    fn produce(&mut self, identity: Identity, mut taken: Vec<Taken>) {
        for part in &mut taken {
            let encoded = part.batch.encode(identity, &mut self.compressor, &mut self.spare);
            if let Err(error) = encoded {
                let error = LogError::Fatal {
                    operation: format!("producing to {}-{}", part.topic, part.partition),
                    reason: error.to_string(),
                };
                self.queue().fail(error);
            }
        }
        let fates = match self.exchange(&taken) {
            Ok(fates) => {
                self.failures = 0;
                fates
            }
            Err(error) => self.unanswered(&error, taken.len()),
        };
        self.queue().settle(taken.into_iter().zip(fates));
    }

    /// No answer: what was sent may have arrived, which the sequence numbers tell the broker when it comes again.
    fn unanswered(&mut self, error: &ConnectionError, count: usize) -> Vec<Fate> {
        self.connection = None;
        if !self.queue().is_stopped() {
            tracing::debug!(producer = self.shared.id, broker = self.leader, %error, "produce request without an answer");
        }
        let pause = pause_after(self.failures);
        self.failures = self.failures.saturating_add(1);
        let fate = || match error {
            ConnectionError::Unsuitable { .. } => Fate::Failed(LogError::Fatal {
                operation: format!("producing to broker {}", self.leader),
                reason: error.to_string(),
            }),
            _ => Fate::Again { pause, moved: true },
        };
        (0..count).map(|_| fate()).collect()
    }

    fn exchange(&mut self, taken: &[Taken]) -> Result<Vec<Fate>, ConnectionError> {
        let deadline = Deadline::after(self.shared.options.request_timeout);
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                let made = self.shared.cluster.broker(self.leader, &deadline)?;
                self.connection.insert(made)
            }
        };
        let timeout_ms = i32::try_from(deadline.given().as_millis()).unwrap_or(i32::MAX);
        let parts = taken.iter().map(|part| ProducePart {
            topic: &part.topic,
            partition: part.partition,
            batch: &part.batch,
        });
        let id = &self.shared.id;
        let sent = connection.send(api::PRODUCE, |out| api::produce(out, id, timeout_ms, parts), &deadline);
        let answered =
            sent.and_then(|()| connection.receive(api::PRODUCE, |answer| read_fates(answer, id, taken), &deadline));
        answered.inspect_err(|error| self.shared.cluster.note(error))
    }

    /// Learns the leaders of all partitions, and sees to it that each has a sender.
    fn refresh(&mut self) {
        let deadline = Deadline::after(REFRESH_TIMEOUT);
        let topics = self.queue().topics();
        let names = topics.iter().map(|topic| &**topic);
        let cluster = &self.shared.cluster;
        // A broker that answers is asked before one that has to be found.
        let learnt = match &mut self.connection {
            Some(connection) => cluster.metadata(connection, names, &deadline),
            None => cluster
                .any(&deadline)
                .and_then(|mut asked| cluster.metadata(&mut asked, names, &deadline)),
        };
        match learnt {
            Ok(metadata) => {
                for topic in metadata.topics.iter().filter(|topic| topic.code.is_success()) {
                    self.queue().set_leaders(&topic.name, &topic.leaders);
                }
                if let Err(error) = Senders::start(&self.shared) {
                    self.queue().fail(error);
                }
            }
            Err(error) => {
                self.connection = None;
                tracing::debug!(producer = self.shared.id, %error, "the leaders of partitions are not known");
            }
        }
    }
}

/// What became of each batch of a request.
fn read_fates(answer: super::wire::Reader<'_>, id: &str, taken: &[Taken]) -> Result<Vec<Fate>, super::wire::Malformed> {
    // A partition about which the broker says nothing is asked about again.
    let mut fates: Vec<Fate> = taken
        .iter()
        .map(|_| Fate::Again {
            pause: FIRST_PAUSE,
            moved: true,
        })
        .collect();
    let mut next = 0;
    api::produce_answer(answer, |produced| {
        let is_it = |part: &Taken| part.partition == produced.partition && *part.topic == *produced.topic;
        // They come in the order in which they were sent.
        let at = match taken.get(next).is_some_and(is_it) {
            true => Some(next),
            false => taken.iter().position(is_it),
        };
        let Some(at) = at else { return };
        next = at + 1;
        let part = &taken[at];
        fates[at] = match produced.code {
            // The batch was appended before; only its acknowledgement was lost.
            BrokerCode::NONE | BrokerCode::DUPLICATE_SEQUENCE_NUMBER => Fate::Acknowledged,
            code if code.is_transient() => Fate::Again {
                pause: pause_after(part.batch.attempts),
                moved: code.moves_leader(),
            },
            code => Fate::Failed(failures::produced(id, part, code, produced.reason)),
        };
    })?;
    Ok(fates)
}
