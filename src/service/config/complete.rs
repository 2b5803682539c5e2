//! What options must be like together; each by itself has passed its check.

use super::kafka::reserved;
use super::settings::RestoreSetting;
use super::{ConfigError, ConfigErrors, Configuration, PolicySetting};
use crate::errors::nearest;
use crate::topology::Topology;

impl Configuration {
    /// Checks what an instance needs as a whole.
    ///
    /// # Errors
    /// Everything that is missing or does not go together.
    pub fn check_complete(&self) -> Result<(), ConfigErrors> {
        let mut errors = self.missing();
        errors.extend(self.interval_conflict());
        errors.extend(self.snapshot_conflicts());
        errors.extend(self.reserved_client_options());
        if errors.is_empty() {
            Ok(())
        } else {
            Err(ConfigErrors(errors))
        }
    }

    /// Refuses policies under `[errors.nodes]` for nodes that the topology does not have.
    ///
    /// # Errors
    /// One [`ConfigError::UnknownKey`] for each.
    pub fn check_nodes(&self, topology: &Topology) -> Result<(), ConfigErrors> {
        let names: Vec<&str> = topology.plan().nodes.iter().map(|node| &*node.name).collect();
        let of_nodes = self
            .effective
            .iter()
            .filter(|effective| effective.option.name == "errors.nodes");
        let unknown = of_nodes.filter_map(|effective| {
            let node = effective.key.first().filter(|node| !names.contains(&node.as_str()))?;
            Some(ConfigError::UnknownKey {
                key: format!("errors.nodes.{node}"),
                origin: effective.origin.clone(),
                nearest: nearest(node, names.iter().copied()).map(|name| format!("errors.nodes.{name}")),
            })
        });
        let errors: Vec<ConfigError> = unknown.collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(ConfigErrors(errors))
        }
    }

    fn missing(&self) -> Vec<ConfigError> {
        let settings = self.settings();
        let security = &settings.kafka.security;
        let with_kafka = !settings.embedded.enabled;
        let with_sasl = with_kafka && security.protocol.starts_with("sasl");
        let mut policies = settings.errors.nodes.values().chain([&settings.errors.default]);
        let with_dead_letters = policies.any(|policy| *policy == PolicySetting::DeadLetter);
        let no_broker = "name the brokers, or use the embedded log with --embedded";
        let no_application = "the application needs a name of its own on the cluster";
        let no_identity = "kafka.security.protocol asks for it";
        let no_topic = "a policy under [errors] is dead_letter";
        let needed = [
            (
                with_kafka,
                settings.kafka.bootstrap_servers.is_none(),
                "kafka.bootstrap_servers",
                no_broker,
            ),
            (
                with_kafka,
                settings.application.id.is_none(),
                "application.id",
                no_application,
            ),
            (
                with_sasl,
                security.sasl_mechanism.is_none(),
                "kafka.security.sasl_mechanism",
                no_identity,
            ),
            (
                with_sasl,
                security.username.is_none(),
                "kafka.security.username",
                no_identity,
            ),
            (
                with_sasl,
                security.password.is_none(),
                "kafka.security.password",
                no_identity,
            ),
            (
                settings.has_snapshots(),
                settings.snapshot.url.is_none(),
                "snapshot.url",
                "durability asks for snapshots, which need a place",
            ),
            (
                with_dead_letters,
                settings.errors.dead_letter_topic.is_none(),
                "errors.dead_letter_topic",
                no_topic,
            ),
        ];
        let missing = needed
            .into_iter()
            .filter(|(is_needed, is_missing, ..)| *is_needed && *is_missing);
        let error = |key: &str, reason: &str| ConfigError::Missing {
            key: key.to_owned(),
            reason: reason.to_owned(),
        };
        missing.map(|(_, _, key, reason)| error(key, reason)).collect()
    }

    fn interval_conflict(&self) -> Option<ConfigError> {
        let interval = self.settings().commit.interval;
        let timeout = self.settings().kafka.transaction_timeout;
        (interval.0 * 2 > timeout.0).then(|| ConfigError::Conflict {
            keys: format!("commit.interval = {interval} and kafka.transaction_timeout = {timeout}"),
            reason: "the time-out must be at least twice the interval, else the broker aborts transactions before they are committed".to_owned(),
        })
    }

    /// What the times of snapshots must be to each other.
    fn snapshot_conflicts(&self) -> Vec<ConfigError> {
        let settings = self.settings();
        if !settings.has_snapshots() {
            return Vec::new();
        }
        let (snapshot, transaction) = (&settings.snapshot, settings.kafka.transaction_timeout);
        let rules = [
            (
                settings.durability().has_packs() && snapshot.persist_timeout.0 >= transaction.0,
                format!(
                    "snapshot.persist_timeout = {} and kafka.transaction_timeout = {transaction}",
                    snapshot.persist_timeout
                ),
                "increments are stored before the transaction ends, so the first must be shorter",
            ),
            (
                snapshot.restore == RestoreSetting::Lazy && snapshot.lazy_timeout.0 >= transaction.0,
                format!(
                    "snapshot.lazy_timeout = {} and kafka.transaction_timeout = {transaction}",
                    snapshot.lazy_timeout
                ),
                "a read that waits for a file gives up before the transaction ends, so the first must be shorter",
            ),
            (
                snapshot.grace.0 < transaction.0 * 4,
                format!(
                    "snapshot.grace = {} and kafka.transaction_timeout = {transaction}",
                    snapshot.grace
                ),
                "what a transaction is about to name must not be deleted before it ends, so the first must be four times the second or more",
            ),
            (
                snapshot.grace.0 < settings.kafka.session_timeout.0 * 2,
                format!(
                    "snapshot.grace = {} and kafka.session_timeout = {}",
                    snapshot.grace, settings.kafka.session_timeout
                ),
                "an instance that stood still must have lost its tasks before what it was about to name is deleted, so the first must be twice the second or more",
            ),
            (
                snapshot.spill && snapshot.spill_after.0 >= snapshot.persist_timeout.0,
                format!(
                    "snapshot.spill_after = {} and snapshot.persist_timeout = {}",
                    snapshot.spill_after, snapshot.persist_timeout
                ),
                "an epoch is spilled before it would be given up, so the first must be shorter",
            ),
            (
                snapshot.request_timeout.0 > snapshot.call_timeout.0,
                format!(
                    "snapshot.request_timeout = {} and snapshot.call_timeout = {}",
                    snapshot.request_timeout, snapshot.call_timeout
                ),
                "a call consists of attempts, so it must not be shorter than one of them",
            ),
        ];
        let broken = rules.into_iter().filter(|(is_broken, ..)| *is_broken);
        let conflict = |(_, keys, reason): (bool, String, &str)| ConfigError::Conflict {
            keys,
            reason: reason.to_owned(),
        };
        broken.map(conflict).collect()
    }

    fn reserved_client_options(&self) -> Vec<ConfigError> {
        let kafka = &self.settings().kafka;
        let tables = [
            ("common", &kafka.common),
            ("consumer", &kafka.consumer),
            ("producer", &kafka.producer),
            ("admin", &kafka.admin),
        ];
        let options = tables
            .into_iter()
            .flat_map(|(table, options)| options.0.keys().map(move |key| (table, key)));
        let refused = options.filter_map(|(table, key)| {
            reserved(key).map(|instead| ConfigError::Conflict {
                keys: format!("kafka.{table}.\"{key}\" and what Tidegate sets itself"),
                reason: instead.to_owned(),
            })
        });
        refused.collect()
    }
}
