//! Which client library a transactional producer uses.
//!
//! Whether the settings allow the native one is known when it is made; whether the brokers do, when it is initialised.

use std::sync::Arc;
use std::time::Duration;

use super::member::Members;
use super::native::{InitFailure, NativeProducer};
use super::producer::KafkaProducer;
use super::settings::{KafkaSettings, ProducerEngine};
use crate::log::{Commit, LogError, LogResult, OutRecord, Producer};

/// A producer of the library that the settings choose.
pub(super) fn transactional(
    settings: &KafkaSettings,
    name: &str,
    id: &str,
    members: &Arc<Members>,
) -> LogResult<Box<dyn Producer>> {
    let means = Means {
        settings: settings.clone(),
        name: name.to_owned(),
        id: id.to_owned(),
        members: Arc::clone(members),
    };
    if settings.producer_engine == ProducerEngine::Librdkafka {
        return Ok(Box::new(means.librdkafka()?));
    }
    match (NativeProducer::new(settings, name, id), settings.producer_engine) {
        (Ok(native), ProducerEngine::Auto) => Ok(Box::new(Chosen {
            library: Library::Native(native),
            means,
        })),
        (Ok(native), _) => Ok(Box::new(native)),
        (Err(reason), ProducerEngine::Auto) => Ok(Box::new(means.librdkafka_because(&reason)?)),
        (Err(reason), _) => Err(LogError::Fatal {
            operation: format!("making the native producer {name}"),
            reason,
        }),
    }
}

/// What a producer of librdkafka is made of.
struct Means {
    settings: KafkaSettings,
    name: String,
    id: String,
    members: Arc<Members>,
}

impl Means {
    fn librdkafka(&self) -> LogResult<KafkaProducer> {
        KafkaProducer::new(&self.settings, &self.name, Some(&self.id), Arc::clone(&self.members))
    }

    fn librdkafka_because(&self, reason: &str) -> LogResult<KafkaProducer> {
        tracing::info!(producer = self.name, reason, "this producer uses librdkafka");
        self.librdkafka()
    }
}

enum Library {
    Native(NativeProducer),
    Librdkafka(KafkaProducer),
}

/// A producer that is native unless the brokers say at its initialisation that it cannot be.
struct Chosen {
    library: Library,
    means: Means,
}

/// Calls the producer that there is, without another virtual call.
macro_rules! either {
    ($library:expr, $producer:ident => $call:expr) => {
        match $library {
            Library::Native($producer) => $call,
            Library::Librdkafka($producer) => $call,
        }
    };
}

impl Producer for Chosen {
    fn init(&mut self, timeout: Duration) -> LogResult<()> {
        let native = match &mut self.library {
            Library::Native(native) => native,
            Library::Librdkafka(producer) => return producer.init(timeout),
        };
        match native.init_natively(timeout) {
            Ok(()) => Ok(()),
            Err(InitFailure::Log(error)) => Err(error),
            Err(InitFailure::Unsuitable(reason)) => {
                let mut producer = self.means.librdkafka_because(&reason)?;
                let outcome = producer.init(timeout);
                self.library = Library::Librdkafka(producer);
                outcome
            }
        }
    }

    fn prepare(&mut self, topics: &[Arc<str>]) -> LogResult<Vec<i32>> {
        either!(&mut self.library, producer => producer.prepare(topics))
    }

    fn begin(&mut self) -> LogResult<()> {
        either!(&mut self.library, producer => producer.begin())
    }

    fn send(&mut self, record: &OutRecord<'_>) -> LogResult<()> {
        either!(&mut self.library, producer => producer.send(record))
    }

    fn start_commit(&mut self, commit: Commit) -> LogResult<()> {
        either!(&mut self.library, producer => producer.start_commit(commit))
    }

    fn poll_commit(&mut self, wait: Duration) -> Option<LogResult<()>> {
        either!(&mut self.library, producer => producer.poll_commit(wait))
    }

    fn abort(&mut self, timeout: Duration) -> LogResult<()> {
        either!(&mut self.library, producer => producer.abort(timeout))
    }

    fn in_flight(&self) -> usize {
        either!(&self.library, producer => producer.in_flight())
    }
}
