//! The log port's contract on real Kafka.

use tidegate_integration_tests::halfway::Halves;
use tidegate_integration_tests::{Broker, contract_tests};

contract_tests!(Broker::tidying().log(), halfway: |timeout| Halves::kafka(Broker::tidying().address(), timeout));
