//! The log port's contract on the embedded log: the same assertions as on real Kafka.

use std::sync::Arc;

use tidegate::log::embedded::EmbeddedLog;
use tidegate::time::SystemClock;
use tidegate_integration_tests::contract_tests;
use tidegate_integration_tests::halfway::Halves;

contract_tests!(EmbeddedLog::new(Arc::new(SystemClock::default())), halfway: Halves::embedded);
