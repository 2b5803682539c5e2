//! The log behind which Kafka stands: the port over librdkafka.
//!
//! What the adapter adds to the client library, and why, stands where it is done. In short: batches of borrowed
//! records, commits in a thread of their own by the raw calls, membership that fetches nothing,
//! and errors sorted by what can be done about them.
//!
//! Records of transactions have a second way, `native`, which is a client of its own; `chosen` picks one of the two.
//!
//! One limit of the library shows: it takes a record timestamp of 0 for "now", so a record of time 0 is written with
//! time 1.

mod admin;
mod batch;
mod chosen;
mod committer;
mod consumer;
mod deadline;
mod errors;
mod member;
mod native;
mod producer;
mod raw;
mod settings;

use std::fmt;
use std::sync::Arc;

pub use settings::{KafkaSettings, ProducerEngine};

use super::{Admin, Consumer, GroupMember, Isolation, Log, LogError, LogResult, MemberSettings, Producer};
use admin::KafkaAdmin;
use consumer::KafkaConsumer;
use member::{KafkaMember, Members};
use producer::KafkaProducer;

/// A Kafka cluster.
pub struct KafkaLog {
    settings: KafkaSettings,
    members: Arc<Members>,
    admin: Arc<KafkaAdmin>,
}

impl KafkaLog {
    /// Checks the settings. Does not contact the brokers.
    ///
    /// # Errors
    /// [`LogError::Fatal`] where a property is unknown, refused by the client, or reserved for Tidegate itself.
    pub fn new(settings: KafkaSettings) -> LogResult<Arc<Self>> {
        settings.check()?;
        let admin = Arc::new(KafkaAdmin::new(settings.clone()));
        Ok(Arc::new(Self {
            settings,
            members: Arc::default(),
            admin,
        }))
    }
}

impl Log for KafkaLog {
    fn consumer(&self, name: &str, isolation: Isolation) -> LogResult<Box<dyn Consumer>> {
        Ok(Box::new(KafkaConsumer::new(&self.settings, name, isolation)?))
    }

    fn producer(&self, name: &str, transactional_id: Option<&str>) -> LogResult<Box<dyn Producer>> {
        match transactional_id {
            Some(id) => chosen::transactional(&self.settings, name, id, &self.members),
            None => {
                let members = Arc::clone(&self.members);
                Ok(Box::new(KafkaProducer::new(&self.settings, name, None, members)?))
            }
        }
    }

    fn member(&self, settings: &MemberSettings) -> LogResult<Box<dyn GroupMember>> {
        Ok(Box::new(KafkaMember::new(&self.settings, settings, &self.members)?))
    }

    fn admin(&self) -> Arc<dyn Admin> {
        self.admin.clone()
    }
}

impl fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaLog")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// The error of a client that could not be made.
fn not_made(what: &str, reason: String) -> LogError {
    LogError::Fatal {
        operation: format!("making {what}"),
        reason,
    }
}
