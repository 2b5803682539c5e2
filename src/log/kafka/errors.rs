//! From librdkafka's error codes to what the caller can do about them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::deadline::timed_out;
use super::raw::{Client, Code, FailedDelivery, NativeError};
use crate::log::LogError;

/// What a client knows of its connections, so that an error can say whether brokers answer at all.
///
/// librdkafka reports lost connections beside the calls that suffer from them, and a call itself only ever ends in a
/// time-out; together they tell an unreachable cluster from a slow one.
#[derive(Debug)]
pub(super) struct Connections {
    addresses: String,
    trouble: Mutex<Option<String>>,
}

impl Connections {
    pub fn new(addresses: &str) -> Self {
        Self {
            addresses: addresses.to_owned(),
            trouble: Mutex::new(None),
        }
    }

    /// Notes an error that librdkafka reported; answers whether it says that no broker is left.
    pub fn note(&self, error: &NativeError) -> bool {
        if !is_connection_trouble(error.code) {
            return false;
        }
        let all_down = error.code == Code::AllBrokersDown;
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        // "All brokers are down" says less than the failed connection before it.
        if !(all_down && trouble.is_some()) {
            *trouble = Some(error.reason.clone());
        }
        all_down
    }

    /// Notes that a broker has answered.
    pub fn answered(&self) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// No broker answers, for the last reason that is known.
    pub fn unreachable(&self, error: &NativeError) -> LogError {
        LogError::Unreachable {
            addresses: self.addresses.clone(),
            reason: self.trouble().unwrap_or_else(|| error.reason.clone()),
        }
    }

    /// The error of a call that failed as a whole. `subject` is the topic, partition or group that it was about.
    pub fn failed(&self, operation: &str, subject: &str, given: Duration, error: &NativeError) -> LogError {
        if is_connection_trouble(error.code) {
            return self.unreachable(error);
        }
        match error.code {
            code if Client::is_unknown(code) => LogError::UnknownTopic {
                topic: subject.to_owned(),
            },
            Code::TopicAlreadyExists => LogError::TopicExists {
                topic: subject.to_owned(),
            },
            code if is_refusal(code) => LogError::Refused {
                operation: operation.to_owned(),
                subject: subject.to_owned(),
                reason: error.reason.clone(),
            },
            code if is_transient(code) => match self.trouble() {
                Some(_) => self.unreachable(error),
                None => timed_out(format!("{operation} {subject}"), given),
            },
            _ => LogError::Fatal {
                operation: format!("{operation} {subject}"),
                reason: format!("{} ({:?})", error.reason, error.code),
            },
        }
    }
}

fn is_connection_trouble(code: Code) -> bool {
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::SSL
            | Code::Authentication
            | Code::SaslAuthenticationFailed
    )
}

fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::PolicyViolation
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::TopicDeletionDisabled
            | Code::InvalidTopic
            | Code::InvalidConfig
            | Code::InvalidPartitions
            | Code::InvalidReplicationFactor
            | Code::InvalidReplicaAssignment
    )
}

/// What passes by itself: the call may be made again.
fn is_transient(code: Code) -> bool {
    matches!(
        code,
        Code::OperationTimedOut
            | Code::TimedOutQueue
            | Code::MessageTimedOut
            | Code::RequestTimedOut
            | Code::WaitingForCoordinator
            | Code::WaitCache
            | Code::Retry
            | Code::InProgress
            | Code::DestroyBroker
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::BrokerNotAvailable
            | Code::NetworkException
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::NotController
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::OffsetNotAvailable
            | Code::UnstableOffsetCommit
            | Code::KafkaStorageError
    )
}

/// Errors of one producer, by what the worker can do about them.
#[derive(Debug)]
pub(super) struct ProducerErrors {
    pub connections: Connections,
    /// The transactional id, or the producer's name.
    pub id: String,
}

impl ProducerErrors {
    fn fenced(&self, reason: &str) -> LogError {
        LogError::Fenced {
            transactional_id: self.id.clone(),
            reason: reason.to_owned(),
        }
    }

    /// The error that ended the producer.
    pub fn fatal(&self, operation: &str, error: &NativeError) -> LogError {
        match error.code {
            Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => self.fenced(&error.reason),
            _ => LogError::Fatal {
                operation: operation.to_owned(),
                reason: error.reason.clone(),
            },
        }
    }

    /// The error of a transactional call.
    ///
    /// A call that may be resumed by librdkafka's rules counts as timed out: a request that was given up can still take
    /// effect within the same producer epoch, so only a new producer knows where it stands.
    pub fn transactional(&self, operation: &str, given: Duration, error: &NativeError) -> LogError {
        match error.code {
            Code::IllegalGeneration | Code::RebalanceInProgress => LogError::IllegalGeneration {
                reason: error.reason.clone(),
            },
            Code::UnknownMemberId | Code::FencedInstanceId => LogError::NotAMember {
                reason: error.reason.clone(),
            },
            _ if error.fatal => self.fatal(operation, error),
            _ if error.abortable => LogError::Abort {
                operation: operation.to_owned(),
                reason: format!("{} ({:?})", error.reason, error.code),
            },
            _ if error.retriable || is_transient(error.code) => timed_out(operation, given),
            _ => LogError::Fatal {
                operation: operation.to_owned(),
                reason: format!("{} ({:?})", error.reason, error.code),
            },
        }
    }

    /// What a record that was not delivered means for its epoch.
    pub fn undelivered(&self, first: &FailedDelivery, count: usize) -> LogError {
        match first.code {
            Code::MessageSizeTooLarge | Code::MessageBatchTooLarge => LogError::RecordTooLarge {
                topic: first.topic.clone(),
                bytes: first.bytes,
            },
            code => LogError::Abort {
                operation: format!("producing to {}-{}", first.topic, first.partition),
                reason: format!("{count} records were not delivered, the first because of {code:?}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: Code) -> NativeError {
        NativeError::plain(code)
    }

    fn producer_errors() -> ProducerErrors {
        ProducerErrors {
            connections: Connections::new("broker:9092"),
            id: "app-0".to_owned(),
        }
    }

    #[test]
    fn a_time_out_is_an_unreachable_log_only_while_connections_fail() {
        let connections = Connections::new("broker:9092");
        let failed = || {
            connections.failed(
                "asking",
                "it",
                Duration::from_millis(20),
                &error(Code::OperationTimedOut),
            )
        };
        assert!(matches!(failed(), LogError::TimedOut { timeout_ms: 20, .. }));
        let refused = NativeError {
            reason: "connection refused".to_owned(),
            ..error(Code::BrokerTransportFailure)
        };
        assert!(!connections.note(&refused));
        assert!(connections.note(&error(Code::AllBrokersDown)));
        match failed() {
            LogError::Unreachable { addresses, reason } => {
                assert_eq!(
                    (addresses.as_str(), reason.as_str()),
                    ("broker:9092", "connection refused")
                );
            }
            other => panic!("{other}"),
        }
        connections.answered();
        assert!(matches!(failed(), LogError::TimedOut { .. }));
        assert!(
            !connections.note(&error(Code::UnknownTopic)),
            "that is no trouble of the connection"
        );
    }

    #[test]
    fn transactional_errors_say_what_can_be_done() {
        let errors = producer_errors();
        let given = Duration::from_secs(1);
        let sorted = |error: &NativeError| errors.transactional("committing", given, error);
        let abortable = |code| NativeError {
            abortable: true,
            ..error(code)
        };
        assert!(matches!(
            sorted(&abortable(Code::IllegalGeneration)),
            LogError::IllegalGeneration { .. }
        ));
        assert!(matches!(
            sorted(&abortable(Code::UnknownMemberId)),
            LogError::NotAMember { .. }
        ));
        assert!(matches!(
            sorted(&abortable(Code::FencedInstanceId)),
            LogError::NotAMember { .. }
        ));
        assert!(matches!(
            sorted(&abortable(Code::OffsetMetadataTooLarge)),
            LogError::Abort { .. }
        ));
        let fatal = |code| NativeError {
            fatal: true,
            ..error(code)
        };
        for code in [Code::Fenced, Code::InvalidProducerEpoch, Code::ProducerFenced] {
            assert!(matches!(
                sorted(&fatal(code)),
                LogError::Fenced { transactional_id, .. } if transactional_id == "app-0"
            ));
        }
        assert!(matches!(
            sorted(&fatal(Code::UnsupportedVersion)),
            LogError::Fatal { .. }
        ));
        // librdkafka would resume it; the outcome is unknown all the same.
        let resumable = NativeError {
            retriable: true,
            ..error(Code::OperationTimedOut)
        };
        assert!(matches!(
            sorted(&resumable),
            LogError::TimedOut { timeout_ms: 1_000, .. }
        ));
        assert!(matches!(sorted(&error(Code::State)), LogError::Fatal { .. }));
    }

    #[test]
    fn an_undelivered_record_is_named() {
        let failed = |code| FailedDelivery {
            code,
            topic: "out".to_owned(),
            partition: 3,
            bytes: 12,
        };
        let errors = producer_errors();
        let too_large = errors.undelivered(&failed(Code::MessageSizeTooLarge), 1);
        assert!(matches!(too_large, LogError::RecordTooLarge { bytes: 12, .. }));
        let other = errors.undelivered(&failed(Code::MessageTimedOut), 7).to_string();
        assert!(other.contains("out-3") && other.contains("7 records"), "{other}");
    }
}
