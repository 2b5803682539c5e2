//! How to reach Kafka, and librdkafka's properties for each kind of client.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::raw::check_properties;
use crate::log::{Isolation, LogError, LogResult, MemberSettings};

/// Properties of librdkafka, by name.
type Properties = BTreeMap<String, String>;

/// Properties that the adapter sets itself, since its correctness hangs on them.
const RESERVED: [&str; 22] = [
    "allow.auto.create.topics",
    "auto.offset.reset",
    "bootstrap.servers",
    "client.id",
    "delivery.report.only.error",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "isolation.level",
    "log.queue",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "session.timeout.ms",
    "transaction.timeout.ms",
    "transactional.id",
    "acks",
];

/// How long a producer waits for the answer to a request before it asks again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The limit of a record that a broker with default settings still takes, in bytes.
const DEFAULT_MESSAGE_MAX_BYTES: usize = 1_048_588;

/// Which client library sends the records of a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProducerEngine {
    /// The native one where brokers and settings allow it, else librdkafka; the log says which, and why.
    #[default]
    Auto,
    /// Tidegate's own; where it cannot work the producer fails.
    Native,
    /// librdkafka.
    Librdkafka,
}

/// How to reach a Kafka cluster.
///
/// The four maps hold raw properties of librdkafka, which win over the defaults of the adapter; properties on which
/// its correctness depends are refused. Printing the settings never shows a property's value.
#[derive(Clone)]
pub struct KafkaSettings {
    /// Addresses of some brokers, as `host:port`, separated by commas.
    pub bootstrap_servers: String,
    /// Prefix of the client ids that the broker sees.
    pub client_id: String,
    /// Properties of all clients, for example security.
    pub common: BTreeMap<String, String>,
    /// Properties of consumers, membership included.
    pub consumer: BTreeMap<String, String>,
    /// Properties of producers.
    pub producer: BTreeMap<String, String>,
    /// Properties of the clients for administration.
    pub admin: BTreeMap<String, String>,
    /// The broker aborts a transaction that is open longer than this.
    pub transaction_timeout: Duration,
    /// How long a record may wait for others to share its request; a commit does not wait for it.
    pub linger: Duration,
    /// Bytes of records that one consumer may hold ready per partition.
    pub fetch_buffer_bytes: usize,
    /// Bytes that one producer may hold until they are acknowledged.
    pub send_buffer_bytes: usize,
    /// Records that one producer may hold until they are acknowledged.
    pub send_buffer_records: usize,
    /// Which client library sends the records of a transaction. Records without one are always librdkafka's.
    pub producer_engine: ProducerEngine,
}

impl KafkaSettings {
    /// Settings for the cluster at `bootstrap_servers`, everything else as Tidegate ships it.
    pub fn new(bootstrap_servers: impl Into<String>) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.into(),
            client_id: "tidegate".to_owned(),
            common: Properties::new(),
            consumer: Properties::new(),
            producer: Properties::new(),
            admin: Properties::new(),
            transaction_timeout: Duration::from_secs(60),
            linger: Duration::from_millis(5),
            fetch_buffer_bytes: 4 << 20,
            send_buffer_bytes: 64 << 20,
            send_buffer_records: 250_000,
            producer_engine: ProducerEngine::default(),
        }
    }

    /// Shortens [`KafkaSettings::linger`] to a fifth of the commit interval, so that most of an epoch's outputs are with the
    /// brokers when its barrier comes.
    #[must_use]
    pub fn with_commit_interval(mut self, commit_interval: Duration) -> Self {
        self.linger = self.linger.min(commit_interval / 5);
        self
    }

    /// Checks every property, so that a mistake shows at the start and not with the first client.
    ///
    /// # Errors
    /// [`LogError::Fatal`], naming the property.
    pub(super) fn check(&self) -> LogResult<()> {
        let sections = [
            ("kafka.common", &self.common),
            ("kafka.consumer", &self.consumer),
            ("kafka.producer", &self.producer),
            ("kafka.admin", &self.admin),
        ];
        for (section, properties) in sections {
            if let Some(name) = properties.keys().find(|name| RESERVED.contains(&name.as_str())) {
                return Err(refused(format!(
                    "{section}.{name} is set by Tidegate itself; remove it, or use the option that Tidegate has for it"
                )));
            }
            check_properties(properties).map_err(|reason| refused(format!("{section}: {reason}")))?;
        }
        Ok(())
    }

    fn base(
        &self,
        name: &str,
        specific: &Properties,
        defaults: &[(&str, String)],
        fixed: &[(&str, String)],
    ) -> Properties {
        let owned = |list: &[(&str, String)]| -> Properties {
            list.iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone()))
                .collect()
        };
        let mut all = owned(&[
            ("reconnect.backoff.ms", "50".to_owned()),
            ("reconnect.backoff.max.ms", "1000".to_owned()),
            ("socket.nagle.disable", "true".to_owned()),
        ]);
        all.extend(owned(defaults));
        all.extend(self.common.clone());
        all.extend(specific.clone());
        all.extend(owned(&[
            ("bootstrap.servers", self.bootstrap_servers.clone()),
            ("client.id", format!("{}-{name}", self.client_id)),
        ]));
        all.extend(owned(fixed));
        all
    }

    pub(super) fn consumer_properties(&self, name: &str, isolation: Isolation) -> Properties {
        let isolation_level = match isolation {
            Isolation::ReadCommitted => "read_committed",
            Isolation::ReadUncommitted => "read_uncommitted",
        };
        // Only a consumer that reads committed needs statistics: they are where the last stable offset is told.
        let statistics_ms = match isolation {
            Isolation::ReadCommitted => "500",
            Isolation::ReadUncommitted => "0",
        };
        let defaults = [
            ("queued.max.messages.kbytes", kilobytes(self.fetch_buffer_bytes)),
            // Per partition; each costs the client four times what a small record has in bytes, which no limit counts.
            ("queued.min.messages", "2500".to_owned()),
            // Per partition and request.
            ("fetch.message.max.bytes", "262144".to_owned()),
            // The default of a second starves a fast reader whenever it has drained its queue.
            ("fetch.queue.backoff.ms", "10".to_owned()),
            ("fetch.wait.max.ms", "100".to_owned()),
            ("fetch.error.backoff.ms", "100".to_owned()),
            ("statistics.interval.ms", statistics_ms.to_owned()),
            // How long a topic that was just created may still be unknown.
            ("topic.metadata.propagation.max.ms", "2000".to_owned()),
        ];
        let fixed = [
            ("isolation.level", isolation_level.to_owned()),
            ("auto.offset.reset", "error".to_owned()),
            // The batch calls of librdkafka before 2.13.2 move the position past such an event.
            ("enable.partition.eof", "false".to_owned()),
            ("enable.auto.commit", "false".to_owned()),
            ("enable.auto.offset.store", "false".to_owned()),
            ("allow.auto.create.topics", "false".to_owned()),
        ];
        self.base(name, &self.consumer, &defaults, &fixed)
    }

    pub(super) fn producer_properties(&self, name: &str, transactional_id: Option<&str>) -> Properties {
        // librdkafka wants requests to be given up before the transaction is.
        let transaction_timeout = transactional_id.map_or(Duration::MAX, |_| self.transaction_timeout);
        let request_timeout = transaction_timeout
            .saturating_sub(Duration::from_millis(100))
            .min(REQUEST_TIMEOUT);
        let defaults = [
            ("socket.timeout.ms", request_timeout.as_millis().to_string()),
            ("linger.ms", (self.linger.as_secs_f64() * 1000.0).to_string()),
            ("queue.buffering.max.messages", self.send_buffer_records.to_string()),
            ("queue.buffering.max.kbytes", kilobytes(self.send_buffer_bytes)),
            ("batch.num.messages", "10000".to_owned()),
            ("message.max.bytes", DEFAULT_MESSAGE_MAX_BYTES.to_string()),
            // While the markers of the last transaction are being written the next one has to ask again; the default
            // of 100 ms would be a floor under the commit interval.
            ("retry.backoff.ms", "1".to_owned()),
            ("retry.backoff.max.ms", "1000".to_owned()),
        ];
        let mut fixed = vec![
            ("enable.idempotence", "true".to_owned()),
            ("delivery.report.only.error", "true".to_owned()),
            ("allow.auto.create.topics", "false".to_owned()),
        ];
        if let Some(id) = transactional_id {
            fixed.push(("transactional.id", id.to_owned()));
            fixed.push((
                "transaction.timeout.ms",
                self.transaction_timeout.as_millis().to_string(),
            ));
        }
        self.base(name, &self.producer, &defaults, &fixed)
    }

    pub(super) fn member_properties(&self, member: &MemberSettings) -> Properties {
        let session = member.session_timeout;
        let heartbeat = (session / 10)
            .clamp(Duration::from_millis(500), Duration::from_secs(3))
            .min(session / 3);
        let poll_interval = Duration::from_secs(120).max(session);
        // A member fetches nothing; should a request slip out before its partition is paused, it stays small.
        let defaults = [
            ("max.poll.interval.ms", poll_interval.as_millis().to_string()),
            ("queued.min.messages", "1".to_owned()),
            ("queued.max.messages.kbytes", "1".to_owned()),
            ("fetch.message.max.bytes", "1024".to_owned()),
        ];
        let mut fixed = vec![
            ("group.id", member.group.clone()),
            ("group.protocol", "classic".to_owned()),
            ("partition.assignment.strategy", "cooperative-sticky".to_owned()),
            ("session.timeout.ms", session.as_millis().to_string()),
            ("heartbeat.interval.ms", heartbeat.as_millis().to_string()),
            ("enable.partition.eof", "false".to_owned()),
            ("enable.auto.commit", "false".to_owned()),
            ("enable.auto.offset.store", "false".to_owned()),
            ("allow.auto.create.topics", "false".to_owned()),
        ];
        if let Some(id) = &member.instance_id {
            fixed.push(("group.instance.id", id.clone()));
        }
        self.base("member", &self.consumer, &defaults, &fixed)
    }

    /// Properties of the clients behind administration: with `group` for one that reads what that group has committed.
    pub(super) fn admin_properties(&self, group: Option<&str>) -> Properties {
        // In this client "require stable" follows the isolation level, and so does the meaning of "end" (invariants I7, I8).
        let isolation_level = match group {
            Some(_) => "read_committed",
            None => "read_uncommitted",
        };
        let mut fixed = vec![
            ("isolation.level", isolation_level.to_owned()),
            ("enable.auto.commit", "false".to_owned()),
            ("allow.auto.create.topics", "false".to_owned()),
        ];
        if let Some(group) = group {
            fixed.push(("group.id", group.to_owned()));
        }
        self.base("admin", &self.admin, &[], &fixed)
    }
}

impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |properties: &Properties| properties.keys().cloned().collect::<Vec<_>>();
        f.debug_struct("KafkaSettings")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("client_id", &self.client_id)
            .field("common", &names(&self.common))
            .field("consumer", &names(&self.consumer))
            .field("producer", &names(&self.producer))
            .field("admin", &names(&self.admin))
            .field("transaction_timeout", &self.transaction_timeout)
            .field("linger", &self.linger)
            .field("fetch_buffer_bytes", &self.fetch_buffer_bytes)
            .field("send_buffer_bytes", &self.send_buffer_bytes)
            .field("send_buffer_records", &self.send_buffer_records)
            .field("producer_engine", &self.producer_engine)
            .finish()
    }
}

fn kilobytes(bytes: usize) -> String {
    (bytes / 1024).max(1).to_string()
}

fn refused(reason: String) -> LogError {
    LogError::Fatal {
        operation: "configuring the Kafka client".to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(session_timeout: Duration, instance_id: Option<&str>) -> MemberSettings {
        MemberSettings {
            group: "app".to_owned(),
            topics: vec!["input".into()],
            instance_id: instance_id.map(str::to_owned),
            session_timeout,
        }
    }

    #[test]
    fn the_library_takes_what_every_kind_of_client_is_given() {
        let settings = KafkaSettings::new("broker:9092");
        let all = [
            settings.consumer_properties("worker-0", Isolation::ReadCommitted),
            settings.consumer_properties("worker-0", Isolation::ReadUncommitted),
            settings.producer_properties("worker-0", Some("app-0")),
            settings.producer_properties("worker-0", None),
            settings.member_properties(&member(Duration::from_secs(10), Some("host-1"))),
            settings.admin_properties(None),
            settings.admin_properties(Some("app")),
        ];
        for properties in all {
            assert_eq!(check_properties(&properties), Ok(()));
            assert_eq!(properties["bootstrap.servers"], "broker:9092");
        }
    }

    #[test]
    fn overrides_win_over_defaults_and_never_over_what_is_fixed() {
        let mut settings = KafkaSettings::new("broker:9092");
        settings
            .common
            .insert("socket.timeout.ms".to_owned(), "10000".to_owned());
        settings
            .producer
            .insert("socket.timeout.ms".to_owned(), "20000".to_owned());
        settings.producer.insert("linger.ms".to_owned(), "50".to_owned());
        assert_eq!(settings.check().map_err(|error| error.to_string()), Ok(()));
        let producer = settings.producer_properties("w", Some("app-0"));
        assert_eq!(
            (&*producer["socket.timeout.ms"], &*producer["linger.ms"]),
            ("20000", "50")
        );
        let consumer = settings.consumer_properties("w", Isolation::ReadCommitted);
        assert_eq!(consumer["socket.timeout.ms"], "10000");
        for name in RESERVED {
            let mut settings = KafkaSettings::new("broker:9092");
            settings.consumer.insert(name.to_owned(), "1".to_owned());
            assert!(settings.check().is_err(), "{name} is fixed");
        }
    }

    #[test]
    fn heartbeats_fit_several_times_into_a_session() {
        for (session_ms, heartbeat_ms) in [(1_200, "400"), (6_000, "600"), (10_000, "1000"), (45_000, "3000")] {
            let member = member(Duration::from_millis(session_ms), None);
            let properties = KafkaSettings::new("broker:9092").member_properties(&member);
            assert_eq!(properties["heartbeat.interval.ms"], heartbeat_ms);
        }
    }
}
