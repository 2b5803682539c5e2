//! The log port's contract on real Kafka.

use tidegate_integration_tests::{Broker, contract_tests};

contract_tests!(Broker::shared().log());
