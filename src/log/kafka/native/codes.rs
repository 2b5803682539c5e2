//! What brokers answer, by number.

use std::fmt;

/// An error code of Kafka's protocol; 0 is success.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct BrokerCode(pub i16);

/// Codes that are told apart here, then those that users may meet besides.
macro_rules! codes {
    ($($name:ident = $number:literal,)*; besides: $($other:ident = $other_number:literal,)*) => {
        impl BrokerCode {
            $(pub const $name: Self = Self($number);)*

            fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    $($other_number => Some(stringify!($other)),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    UNKNOWN_SERVER_ERROR = -1,
    NONE = 0,
    CORRUPT_MESSAGE = 2,
    UNKNOWN_TOPIC_OR_PARTITION = 3,
    LEADER_NOT_AVAILABLE = 5,
    NOT_LEADER_OR_FOLLOWER = 6,
    REQUEST_TIMED_OUT = 7,
    BROKER_NOT_AVAILABLE = 8,
    REPLICA_NOT_AVAILABLE = 9,
    MESSAGE_TOO_LARGE = 10,
    OFFSET_METADATA_TOO_LARGE = 12,
    NETWORK_EXCEPTION = 13,
    COORDINATOR_LOAD_IN_PROGRESS = 14,
    COORDINATOR_NOT_AVAILABLE = 15,
    NOT_COORDINATOR = 16,
    INVALID_TOPIC = 17,
    RECORD_LIST_TOO_LARGE = 18,
    NOT_ENOUGH_REPLICAS = 19,
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20,
    ILLEGAL_GENERATION = 22,
    UNKNOWN_MEMBER_ID = 25,
    REBALANCE_IN_PROGRESS = 27,
    INVALID_COMMIT_OFFSET_SIZE = 28,
    TOPIC_AUTHORIZATION_FAILED = 29,
    GROUP_AUTHORIZATION_FAILED = 30,
    CLUSTER_AUTHORIZATION_FAILED = 31,
    UNSUPPORTED_VERSION = 35,
    POLICY_VIOLATION = 44,
    DUPLICATE_SEQUENCE_NUMBER = 46,
    INVALID_PRODUCER_EPOCH = 47,
    INVALID_TXN_STATE = 48,
    INVALID_PRODUCER_ID_MAPPING = 49,
    INVALID_TRANSACTION_TIMEOUT = 50,
    CONCURRENT_TRANSACTIONS = 51,
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53,
    KAFKA_STORAGE_ERROR = 56,
    FENCED_LEADER_EPOCH = 74,
    UNKNOWN_LEADER_EPOCH = 75,
    FENCED_INSTANCE_ID = 82,
    PRODUCER_FENCED = 90,
    TRANSACTION_ABORTABLE = 120,
    ; besides:
    INVALID_REQUIRED_ACKS = 21,
    INVALID_TIMESTAMP = 32,
    UNSUPPORTED_SASL_MECHANISM = 33,
    ILLEGAL_SASL_STATE = 34,
    INVALID_REQUEST = 42,
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43,
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45,
    SASL_AUTHENTICATION_FAILED = 58,
    UNKNOWN_PRODUCER_ID = 59,
    UNSUPPORTED_COMPRESSION_TYPE = 76,
    INVALID_RECORD = 87,
    THROTTLING_QUOTA_EXCEEDED = 89,
}

impl BrokerCode {
    pub fn is_success(self) -> bool {
        self == Self::NONE
    }

    /// Another producer has the id, or the broker ended the transaction by itself.
    pub fn is_fence(self) -> bool {
        matches!(self, Self::INVALID_PRODUCER_EPOCH | Self::PRODUCER_FENCED)
    }

    /// The coordinator is elsewhere by now, or will be.
    pub fn moves_coordinator(self) -> bool {
        matches!(self, Self::NOT_COORDINATOR | Self::COORDINATOR_NOT_AVAILABLE)
    }

    /// The leader is elsewhere by now, or will be.
    pub fn moves_leader(self) -> bool {
        matches!(
            self,
            Self::NOT_LEADER_OR_FOLLOWER
                | Self::LEADER_NOT_AVAILABLE
                | Self::REPLICA_NOT_AVAILABLE
                | Self::UNKNOWN_TOPIC_OR_PARTITION
                | Self::FENCED_LEADER_EPOCH
                | Self::UNKNOWN_LEADER_EPOCH
                | Self::KAFKA_STORAGE_ERROR
        )
    }

    /// It passes by itself: the same request may be sent again. In answers to produce requests that includes what the leader was
    /// told by the coordinator of the transaction.
    pub fn is_transient(self) -> bool {
        self.moves_leader()
            || self.moves_coordinator()
            || matches!(
                self,
                Self::CORRUPT_MESSAGE
                    | Self::REQUEST_TIMED_OUT
                    | Self::BROKER_NOT_AVAILABLE
                    | Self::NETWORK_EXCEPTION
                    | Self::COORDINATOR_LOAD_IN_PROGRESS
                    | Self::NOT_ENOUGH_REPLICAS
                    | Self::NOT_ENOUGH_REPLICAS_AFTER_APPEND
                    | Self::CONCURRENT_TRANSACTIONS
            )
    }

    /// Somebody decided that it must not be.
    pub fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::INVALID_TOPIC
                | Self::POLICY_VIOLATION
                | Self::TOPIC_AUTHORIZATION_FAILED
                | Self::GROUP_AUTHORIZATION_FAILED
                | Self::CLUSTER_AUTHORIZATION_FAILED
                | Self::TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        )
    }
}

impl fmt::Display for BrokerCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error {}", self.0),
        }
    }
}

impl fmt::Debug for BrokerCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
