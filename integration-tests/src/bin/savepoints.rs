//! `savepoints`: a savepoint under load, and two applications that start from it and run beside the first one.

use std::process::ExitCode;

use clap::Parser;
use tidegate_integration_tests::savepoints::{Options, run};

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(report) => {
            println!("{report}");
            match report.is_exact() {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            println!("FAILED               {error}");
            println!("verdict              NOT SHOWN");
            ExitCode::FAILURE
        }
    }
}
