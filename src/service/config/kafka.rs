//! What the section `kafka` means to the Kafka client.

use std::collections::BTreeMap;

use super::settings::{KafkaSection, SecuritySection};

/// Options of the Kafka client that the engine's guarantees stand on, or that have an option of their own here, and
/// what to do in their place.
const RESERVED: &[(&str, &str)] = &[
    ("acks", "every acknowledgement of a commit is needed"),
    (
        "allow.auto.create.topics",
        "a missing topic must be an error, not a new topic",
    ),
    ("auto.offset.reset", "a lost offset must be an error, not a jump"),
    ("bootstrap.servers", "set kafka.bootstrap_servers"),
    ("client.id", "it is made of application.id"),
    (
        "delivery.report.only.error",
        "the engine counts acknowledgements in its own way",
    ),
    ("enable.auto.commit", "offsets are committed with the epoch only"),
    ("enable.auto.offset.store", "offsets are committed with the epoch only"),
    ("enable.idempotence", "it follows from guarantee"),
    ("enable.partition.eof", "the end of a partition is told by positions"),
    ("group.id", "set application.id"),
    ("group.instance.id", "set instance.id"),
    ("group.protocol", "all instances must use one protocol"),
    (
        "group.remote.assignor",
        "tasks are assigned by one strategy on all instances",
    ),
    ("heartbeat.interval.ms", "it follows from kafka.session_timeout"),
    ("isolation.level", "it follows from guarantee"),
    ("linger.ms", "set kafka.linger"),
    ("log.queue", "the client's log lines are part of Tidegate's"),
    ("metadata.broker.list", "set kafka.bootstrap_servers"),
    (
        "partition.assignment.strategy",
        "tasks are assigned by one strategy on all instances",
    ),
    ("partitioner", "the engine chooses partitions as Java clients do"),
    ("queue.buffering.max.kbytes", "set kafka.send_buffer"),
    ("queue.buffering.max.ms", "set kafka.linger"),
    ("queued.max.messages.kbytes", "set kafka.fetch_buffer"),
    ("request.required.acks", "every acknowledgement of a commit is needed"),
    ("sasl.mechanism", "set kafka.security.sasl_mechanism"),
    ("sasl.mechanisms", "set kafka.security.sasl_mechanism"),
    ("sasl.password", "set kafka.security.password"),
    ("sasl.username", "set kafka.security.username"),
    ("security.protocol", "set kafka.security.protocol"),
    ("session.timeout.ms", "set kafka.session_timeout"),
    ("ssl.ca.location", "set kafka.security.ca_file"),
    ("ssl.certificate.location", "set kafka.security.certificate_file"),
    ("ssl.key.location", "set kafka.security.key_file"),
    ("ssl.key.password", "set kafka.security.key_password"),
    ("transaction.timeout.ms", "set kafka.transaction_timeout"),
    ("transactional.id", "it is made of application.id"),
];

/// What to do in place of setting the client's option `key`; `None`: it may be set.
pub fn reserved(key: &str) -> Option<&'static str> {
    RESERVED
        .iter()
        .find(|(reserved, _)| *reserved == key)
        .map(|(_, instead)| *instead)
}

impl KafkaSection {
    /// Options of the Kafka client for all clients: security, and over it what the user set.
    pub fn common_client_options(&self) -> BTreeMap<String, String> {
        let mut options = self.security.client_options();
        options.extend(self.common.0.clone());
        options
    }
}

impl SecuritySection {
    /// The client's names for these options.
    fn client_options(&self) -> BTreeMap<String, String> {
        let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        let secret = |secret: &Option<super::Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
        let options = [
            ("security.protocol", Some(self.protocol.clone())),
            ("sasl.mechanism", self.sasl_mechanism.clone()),
            ("sasl.username", self.username.clone()),
            ("sasl.password", secret(&self.password)),
            ("ssl.ca.location", path(&self.ca_file)),
            ("ssl.certificate.location", path(&self.certificate_file)),
            ("ssl.key.location", path(&self.key_file)),
            ("ssl.key.password", secret(&self.key_password)),
        ];
        options
            .into_iter()
            .filter_map(|(key, value)| value.map(|value| (key.to_owned(), value)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::config::{ClientOptions, Secret};

    #[test]
    fn security_reaches_the_client_under_the_client_s_names() {
        let configuration = crate::service::config::Configuration::load(&Default::default());
        let mut kafka = configuration.expect("the defaults are right").settings().kafka.clone();
        assert_eq!(
            kafka.common_client_options(),
            BTreeMap::from([("security.protocol".into(), "plaintext".into())])
        );
        kafka.security.protocol = "sasl_ssl".to_owned();
        kafka.security.password = Some(Secret::new("hunter2"));
        kafka.security.ca_file = Some("ca.pem".into());
        kafka.common = ClientOptions(BTreeMap::from([("debug".into(), "broker".into())]));
        let options = kafka.common_client_options();
        let listed: Vec<String> = options.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let expected = [
            "debug=broker",
            "sasl.password=hunter2",
            "security.protocol=sasl_ssl",
            "ssl.ca.location=ca.pem",
        ];
        assert_eq!(listed, expected);
    }
}
