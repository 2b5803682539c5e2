//! The log port's contract on real Kafka: all of it with the native producer, and what producers do once more with librdkafka's.

use std::sync::Arc;
use std::time::Duration;

use tidegate::log::kafka::{KafkaLog, ProducerEngine};
use tidegate_integration_tests::halfway::Halves;
use tidegate_integration_tests::{Broker, contract_tests};

fn log(engine: ProducerEngine) -> Arc<KafkaLog> {
    Broker::tidying().log_with(engine)
}

fn halves(engine: ProducerEngine) -> impl Fn(Duration) -> Halves {
    move |timeout| Halves::kafka(Broker::tidying().address(), timeout, engine)
}

mod native {
    use super::*;

    contract_tests!(log(ProducerEngine::Native), halfway: halves(ProducerEngine::Native));
}

mod librdkafka {
    use super::*;

    contract_tests!(writing: log(ProducerEngine::Librdkafka), halfway: halves(ProducerEngine::Librdkafka));
}
