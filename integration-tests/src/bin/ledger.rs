//! `ledger`: kills, stops and disturbs the service under load and proves that every input counts exactly once.

use std::process::ExitCode;

use clap::Parser;
use tidegate_integration_tests::ledger::LedgerError;
use tidegate_integration_tests::ledger::options::Options;
use tidegate_integration_tests::ledger::run::run;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(report) => {
            println!("{report}");
            if report.failures().is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            println!("FAILED               {error}");
            let verdict = if matches!(error, LedgerError::NotExact) {
                "NOT EXACT"
            } else {
                "NOT SHOWN"
            };
            println!("verdict              {verdict}");
            ExitCode::FAILURE
        }
    }
}
