//! Writes input records at a steady rate, each exactly once, and keeps the books of them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Statistics};
use tidegate::time::{Clock, SystemClock};

use super::inputs::{ACCOUNTS, Inputs};
use super::kafka::Cluster;
use super::{LedgerError, lock, wait};

const TICK: Duration = Duration::from_millis(5);
/// How long the last records may take until the broker has acknowledged them.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Default)]
struct Deliveries {
    acknowledged: AtomicU64,
    failed: Mutex<Option<String>>,
}

#[derive(Clone, Default)]
struct DeliveryContext(Arc<Deliveries>);

impl ClientContext for DeliveryContext {
    fn stats(&self, _: Statistics) {}
    fn error(&self, _: KafkaError, _: &str) {
        // Lost connections are part of the scenario; the client connects again by itself.
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.0.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                lock(&self.0.failed).get_or_insert_with(|| error.to_string());
            }
        }
    }
}

/// The generator's thread.
pub struct Generator {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), LedgerError>>,
}

impl Generator {
    /// Starts to write `rate` records per second to `topic`, entering each in `inputs` first.
    ///
    /// # Errors
    /// Where the client refuses its settings.
    pub fn start(
        cluster: &Cluster,
        topic: &str,
        rate: u32,
        inputs: Arc<Mutex<Inputs>>,
        clock: Arc<SystemClock>,
    ) -> Result<Self, LedgerError> {
        let writer = Writer::new(cluster, topic)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("generator".to_owned())
            .spawn(move || {
                let start = clock.monotonic();
                let mut written = 0_u64;
                while !stopped.load(Ordering::Relaxed) {
                    let due = (clock.monotonic() - start).as_micros() as u64 * u64::from(rate) / 1_000_000;
                    while written < due {
                        let (account, sequence) = lock(&inputs).enter(clock.monotonic());
                        writer.write(account, sequence)?;
                        written += 1;
                    }
                    wait::pause(TICK);
                }
                writer.finish()
            })
            .map_err(|error| LedgerError::io("start the generator", error))?;
        Ok(Self { stop, thread })
    }

    /// Stops and waits until everything written is acknowledged.
    ///
    /// # Errors
    /// Where a record could not be delivered.
    pub fn stop(self) -> Result<(), LedgerError> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .unwrap_or_else(|_| Err(LedgerError::Broken("the generator panicked".to_owned())))
    }
}

/// Writes one more record for every account, as a probe of the state of all of them.
///
/// # Errors
/// Where a record could not be delivered.
pub fn write_one_for_each(
    cluster: &Cluster,
    topic: &str,
    inputs: &Mutex<Inputs>,
    clock: &SystemClock,
) -> Result<(), LedgerError> {
    let writer = Writer::new(cluster, topic)?;
    for account in 0..ACCOUNTS as u16 {
        let sequence = lock(inputs).enter_for(account, clock.monotonic());
        writer.write(account, sequence)?;
    }
    writer.finish()
}

/// An idempotent producer that never gives a record up.
struct Writer {
    producer: ThreadedProducer<DeliveryContext>,
    deliveries: Arc<Deliveries>,
    topic: String,
}

impl Writer {
    fn new(cluster: &Cluster, topic: &str) -> Result<Self, LedgerError> {
        let context = DeliveryContext::default();
        let deliveries = Arc::clone(&context.0);
        let producer = cluster
            .client()
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("message.timeout.ms", "0")
            .set("queue.buffering.max.messages", "1000000")
            .set("linger.ms", "2")
            .create_with_context(context)
            .map_err(|error| LedgerError::kafka("make a producer", &error))?;
        Ok(Self {
            producer,
            deliveries,
            topic: topic.to_owned(),
        })
    }

    fn write(&self, account: u16, sequence: u32) -> Result<(), LedgerError> {
        let key = account.to_string();
        let value = i64::from(sequence).to_be_bytes();
        let mut record = BaseRecord::to(&self.topic).key(&key).payload(&value);
        loop {
            self.check()?;
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    record = refused;
                    wait::pause(TICK);
                }
                Err((error, _)) => return Err(LedgerError::kafka("write an input record", &error)),
            }
        }
    }

    fn check(&self) -> Result<(), LedgerError> {
        match &*lock(&self.deliveries.failed) {
            Some(reason) => Err(LedgerError::kafka("deliver an input record", reason)),
            None => Ok(()),
        }
    }

    fn finish(self) -> Result<(), LedgerError> {
        self.producer
            .flush(FLUSH_TIMEOUT)
            .map_err(|error| LedgerError::kafka("flush the input records", &error))?;
        self.check()
    }
}
