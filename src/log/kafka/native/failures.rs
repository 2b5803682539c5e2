//! From what brokers answer to what the caller can do about it.

use super::codes::BrokerCode;
use super::queue::Taken;
use crate::log::LogError;

fn fenced(id: &str, reason: String) -> LogError {
    LogError::Fenced {
        transactional_id: id.to_owned(),
        reason,
    }
}

fn fatal(operation: &str, code: BrokerCode) -> LogError {
    LogError::Fatal {
        operation: operation.to_owned(),
        reason: code.to_string(),
    }
}

/// Of a batch that was refused.
pub(super) fn produced(id: &str, part: &Taken, code: BrokerCode, reason: Option<&str>) -> LogError {
    let operation = format!("producing to {}-{}", part.topic, part.partition);
    match code {
        code if code.is_fence() => fenced(id, format!("{operation}: {code}")),
        BrokerCode::MESSAGE_TOO_LARGE | BrokerCode::RECORD_LIST_TOO_LARGE => LogError::RecordTooLarge {
            topic: part.topic.to_string(),
            bytes: part.batch.largest_payload(),
        },
        // Only a new producer knows where it stands.
        BrokerCode::INVALID_TXN_STATE | BrokerCode::INVALID_PRODUCER_ID_MAPPING => fatal(&operation, code),
        code => LogError::Abort {
            operation,
            reason: match reason {
                Some(reason) => format!("{code}: {reason}"),
                None => code.to_string(),
            },
        },
    }
}

/// Of a producer that cannot be initialised.
pub(super) fn initialised(id: &str, operation: &str, code: BrokerCode) -> LogError {
    match code {
        code if code.is_fence() => fenced(id, code.to_string()),
        BrokerCode::INVALID_TRANSACTION_TIMEOUT => LogError::Fatal {
            operation: operation.to_owned(),
            reason: format!("{code}: kafka.transaction_timeout is above the broker's transaction.max.timeout.ms"),
        },
        code if code.is_refusal() => LogError::Refused {
            operation: operation.to_owned(),
            subject: id.to_owned(),
            reason: code.to_string(),
        },
        code => fatal(operation, code),
    }
}

/// Of offsets that did not become part of a transaction.
pub(super) fn offsets(id: &str, operation: &str, code: BrokerCode, partition: &str) -> LogError {
    let reason = format!("{code} for {partition}");
    match code {
        BrokerCode::ILLEGAL_GENERATION | BrokerCode::REBALANCE_IN_PROGRESS => LogError::IllegalGeneration { reason },
        BrokerCode::UNKNOWN_MEMBER_ID | BrokerCode::FENCED_INSTANCE_ID => LogError::NotAMember { reason },
        code if code.is_fence() => fenced(id, reason),
        BrokerCode::OFFSET_METADATA_TOO_LARGE
        | BrokerCode::INVALID_COMMIT_OFFSET_SIZE
        | BrokerCode::GROUP_AUTHORIZATION_FAILED
        | BrokerCode::TOPIC_AUTHORIZATION_FAILED
        | BrokerCode::UNKNOWN_SERVER_ERROR
        | BrokerCode::TRANSACTION_ABORTABLE => LogError::Abort {
            operation: operation.to_owned(),
            reason,
        },
        _ => LogError::Fatal {
            operation: operation.to_owned(),
            reason,
        },
    }
}

/// Of a transaction that did not end. `repeated`: the request was sent more than once, so an earlier one may have been carried
/// out, and the outcome is unknown.
pub(super) fn ended(id: &str, operation: &str, code: BrokerCode, repeated: bool) -> LogError {
    match code {
        // The broker knows no open transaction of this producer: it has ended it by itself.
        code if code.is_fence() || code == BrokerCode::INVALID_TXN_STATE => fenced(id, format!("{operation}: {code}")),
        BrokerCode::TRANSACTION_ABORTABLE if !repeated => LogError::Abort {
            operation: operation.to_owned(),
            reason: code.to_string(),
        },
        code => fatal(operation, code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fences_is_told_from_what_aborts_and_from_what_moves_the_group() {
        let of_offsets = |code| offsets("app-0", "adding offsets", code, "input-0");
        for code in [BrokerCode::INVALID_PRODUCER_EPOCH, BrokerCode::PRODUCER_FENCED] {
            for error in [
                of_offsets(code),
                ended("app-0", "committing", code, false),
                initialised("app-0", "initialising", code),
            ] {
                assert!(matches!(&error, LogError::Fenced { transactional_id, .. } if transactional_id == "app-0"));
            }
        }
        assert!(matches!(
            of_offsets(BrokerCode::ILLEGAL_GENERATION),
            LogError::IllegalGeneration { .. }
        ));
        for code in [BrokerCode::UNKNOWN_MEMBER_ID, BrokerCode::FENCED_INSTANCE_ID] {
            assert!(matches!(of_offsets(code), LogError::NotAMember { .. }));
        }
        assert!(matches!(
            of_offsets(BrokerCode::OFFSET_METADATA_TOO_LARGE),
            LogError::Abort { .. }
        ));
        let lost = ended("app-0", "committing", BrokerCode::INVALID_TXN_STATE, false);
        assert!(matches!(lost, LogError::Fenced { .. }), "the broker timed it out");
    }

    #[test]
    fn a_commit_that_was_sent_twice_never_counts_as_one_that_can_be_aborted() {
        let sorted = |repeated| ended("app-0", "committing", BrokerCode::TRANSACTION_ABORTABLE, repeated);
        assert!(matches!(sorted(false), LogError::Abort { .. }));
        assert!(matches!(sorted(true), LogError::Fatal { .. }));
    }
}
