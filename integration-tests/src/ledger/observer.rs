//! Reads the output as a `read_committed` consumer would, while the run goes on, and audits it at once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::BaseConsumer;
use rdkafka::message::BorrowedMessage;
use tidegate::time::{Clock, SystemClock};
use tidegate_topologies::ledger::Balance;

use super::audit::{Audit, Findings, Output, Stage};
use super::inputs::{ACCOUNTS, BUCKETS, Inputs};
use super::kafka::{Cluster, has_reached};
use super::latency::Latencies;
use super::{LedgerError, lock, wait};

const POLL: Duration = Duration::from_millis(50);

/// The topics of one run.
#[derive(Clone, Debug)]
pub struct Topics {
    /// What the generator writes.
    pub input: String,
    /// Output of the first stage.
    pub accounts: String,
    /// Output of the second stage.
    pub buckets: String,
    /// Partitions of each of them.
    pub partitions: i32,
}

/// How far the output has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Records of the first stage.
    pub accounts: u64,
    /// Records of the second stage.
    pub buckets: u64,
}

/// All that was read.
#[derive(Debug)]
pub struct Observed {
    /// How far the output has come.
    pub seen: Seen,
    /// What is wrong with it.
    pub findings: Findings,
    /// When the effects of inputs were seen.
    pub latencies: Latencies,
}

/// The auditor's thread.
pub struct Observer {
    audit: Arc<Mutex<Audit>>,
    inputs: Arc<Mutex<Inputs>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Reader, LedgerError>>,
}

impl Observer {
    /// Starts to read both outputs from their beginning.
    ///
    /// # Errors
    /// Where the client refuses its settings.
    pub fn start(
        cluster: &Cluster,
        topics: &Topics,
        inputs: Arc<Mutex<Inputs>>,
        clock: Arc<SystemClock>,
    ) -> Result<Self, LedgerError> {
        let outputs = [
            (topics.accounts.as_str(), topics.partitions),
            (topics.buckets.as_str(), topics.partitions),
        ];
        let consumer = cluster.reader_of("read_committed", &outputs)?;
        let audit = Arc::new(Mutex::new(Audit::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let reader = Reader {
            consumer,
            last: RefCell::default(),
            accounts_topic: topics.accounts.clone(),
            audit: Arc::clone(&audit),
            inputs: Arc::clone(&inputs),
            latencies: RefCell::default(),
            clock,
        };
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("observer".to_owned())
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    reader.read()?;
                }
                Ok(reader)
            })
            .map_err(|error| LedgerError::io("start the observer", error))?;
        Ok(Self {
            audit,
            inputs,
            stop,
            thread,
        })
    }

    /// How many output records were seen so far.
    ///
    /// # Errors
    /// Where the observer has ended, or something is wrong already: the run need not go on.
    pub fn seen(&self) -> Result<Seen, LedgerError> {
        if self.thread.is_finished() {
            return Err(LedgerError::Broken("the observer has ended".to_owned()));
        }
        let audit = lock(&self.audit);
        if !audit.findings().is_clean() {
            return Err(LedgerError::NotExact);
        }
        Ok(Seen {
            accounts: audit.records(Stage::Accounts),
            buckets: audit.records(Stage::Buckets),
        })
    }

    /// Prints what is wrong so far, first findings first.
    pub fn print_findings(&self) {
        for finding in &lock(&self.audit).findings().first {
            println!("look at: {finding}");
        }
    }

    /// Reads up to the end of the output, given that nothing writes any more, and closes the books.
    ///
    /// # Errors
    /// Where the end is not reached within `patience`.
    pub fn finish(
        self,
        cluster: &Cluster,
        topics: &Topics,
        patience: Duration,
        clock: &SystemClock,
    ) -> Result<Observed, LedgerError> {
        self.stop.store(true, Ordering::Relaxed);
        let reader = self
            .thread
            .join()
            .unwrap_or_else(|_| Err(LedgerError::Broken("the observer panicked".to_owned())))?;
        let mut ends = Vec::new();
        for topic in [&topics.accounts, &topics.buckets] {
            ends.push((topic.clone(), cluster.ends(topic, topics.partitions)?));
        }
        wait::until(clock, patience, "the observer to reach the end of the output", || {
            reader.read()?;
            has_reached(&reader.consumer, &ends)
        })?;
        let audit = std::mem::take(&mut *lock(&self.audit));
        let seen = Seen {
            accounts: audit.records(Stage::Accounts),
            buckets: audit.records(Stage::Buckets),
        };
        Ok(Observed {
            seen,
            findings: audit.finish(&lock(&self.inputs)),
            latencies: reader.latencies.into_inner(),
        })
    }
}

struct Reader {
    consumer: BaseConsumer,
    /// The last offset of each partition: a client that delivers a record twice must not look like an engine that does.
    last: RefCell<BTreeMap<(Stage, i32), i64>>,
    accounts_topic: String,
    audit: Arc<Mutex<Audit>>,
    inputs: Arc<Mutex<Inputs>>,
    latencies: RefCell<Latencies>,
    clock: Arc<SystemClock>,
}

impl Reader {
    /// Takes what is there, waiting a moment for the first record.
    fn read(&self) -> Result<(), LedgerError> {
        let mut patience = POLL;
        while let Some(polled) = self.consumer.poll(patience) {
            patience = Duration::ZERO;
            // Errors of the connection pass; what cannot be decoded does not.
            if let Ok(message) = polled {
                self.take(&message)?;
            }
        }
        Ok(())
    }

    fn take(&self, message: &BorrowedMessage<'_>) -> Result<(), LedgerError> {
        let (stage, output) = read_output(message, &self.accounts_topic)?;
        let before = self.last.borrow_mut().insert((stage, output.partition), output.offset);
        if before.is_some_and(|before| output.offset <= before) {
            let (topic, partition, offset) = (message.topic(), output.partition, output.offset);
            return Err(LedgerError::Broken(format!(
                "the observer's own client delivered {topic}-{partition}@{offset} after {before:?}"
            )));
        }
        let inputs = lock(&self.inputs);
        if let (Stage::Buckets, Some(entered_ms)) = (stage, inputs.entered_ms(output.sequence)) {
            self.latencies.borrow_mut().note(entered_ms, self.clock.monotonic());
        }
        lock(&self.audit).observe(&inputs, stage, &output);
        Ok(())
    }
}

/// Reads an output record, and at which stage it was put out.
///
/// # Errors
/// Where it does not decode.
pub fn read_output(message: &BorrowedMessage<'_>, accounts_topic: &str) -> Result<(Stage, Output), LedgerError> {
    let (stage, keys) = match message.topic() == accounts_topic {
        true => (Stage::Accounts, ACCOUNTS),
        false => (Stage::Buckets, BUCKETS),
    };
    Ok((stage, decode(message, keys)?))
}

fn decode(message: &BorrowedMessage<'_>, keys: usize) -> Result<Output, LedgerError> {
    let unreadable = || {
        LedgerError::Broken(format!(
            "output record {}-{}@{} does not decode",
            message.topic(),
            message.partition(),
            message.offset()
        ))
    };
    let key = message.key().and_then(|key| std::str::from_utf8(key).ok());
    let key: u16 = key.and_then(|key| key.parse().ok()).ok_or_else(unreadable)?;
    let value = message.payload().and_then(|value| serde_json::from_slice(value).ok());
    let balance: Balance = value.ok_or_else(unreadable)?;
    if key as usize >= keys {
        return Err(unreadable());
    }
    Ok(Output {
        partition: message.partition(),
        offset: message.offset(),
        key,
        count: balance.count,
        sum: balance.sum,
        sequence: balance.sequence,
    })
}

/// Compares the input topic with the books: every record once, in the order in which it was written.
///
/// # Errors
/// Where the topic is not read to its end within `patience`.
pub fn input_differences(
    cluster: &Cluster,
    topics: &Topics,
    inputs: &Inputs,
    patience: Duration,
    clock: &SystemClock,
) -> Result<u64, LedgerError> {
    let consumer = cluster.reader_of("read_committed", &[(&topics.input, topics.partitions)])?;
    let ends = [(topics.input.clone(), cluster.ends(&topics.input, topics.partitions)?)];
    let mut next = vec![0; ACCOUNTS];
    let mut differences = 0;
    wait::until(clock, patience, "the end of the input", || {
        let mut patience = POLL;
        while let Some(polled) = consumer.poll(patience) {
            patience = Duration::ZERO;
            if let Ok(message) = polled {
                differences += u64::from(!is_next_input(&message, inputs, &mut next));
            }
        }
        has_reached(&consumer, &ends)
    })?;
    let unread = (0..ACCOUNTS as u16).map(|account| inputs.of_account(account).len() - next[account as usize]);
    Ok(differences + unread.sum::<usize>() as u64)
}

fn is_next_input(message: &BorrowedMessage<'_>, inputs: &Inputs, next: &mut [usize]) -> bool {
    let key = message.key().and_then(|key| std::str::from_utf8(key).ok());
    let account: Option<u16> = key.and_then(|key| key.parse().ok());
    let value = message.payload().and_then(|value| value.try_into().ok());
    let (Some(account), Some(sequence)) = (account, value.map(i64::from_be_bytes)) else {
        return false;
    };
    let Some(position) = next.get_mut(account as usize) else {
        return false;
    };
    let expected = inputs.of_account(account).get(*position).copied();
    let is_next = expected.map(i64::from) == Some(sequence);
    *position += usize::from(is_next);
    is_next
}
