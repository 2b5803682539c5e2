//! `flights-check`: the flights topology on real Kafka, compared with an evaluation of the CSV.

use std::process::ExitCode;

use clap::Parser;
use tidegate::errors::Coded;
use tidegate::log::kafka::{KafkaLog, KafkaSettings};
use tidegate_integration_tests::Broker;
use tidegate_integration_tests::flights::CheckError;
use tidegate_integration_tests::flights::check::{self, Outcome};
use tidegate_integration_tests::flights::options::Options;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(outcomes) => {
            println!("{}", check::figures(&outcomes));
            let is_equal = outcomes.iter().all(|outcome| outcome.differences.is_empty());
            if is_equal { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("flights-check: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs on the broker that was given, or on one in a container that lives as long as the run.
fn run(options: &Options) -> Result<Vec<Outcome>, CheckError> {
    let started = options.bootstrap.is_none().then(Broker::start);
    let given = options.bootstrap.as_deref();
    let bootstrap = given.or(started.as_ref().map(Broker::address)).unwrap_or_default();
    let log = KafkaLog::new(KafkaSettings::new(bootstrap)).map_err(|error| CheckError::Kafka {
        operation: format!("connect to {bootstrap}"),
        reason: format!("{} {error}", error.code()),
    })?;
    check::run(options, bootstrap, &*log)
}
