//! `simulate`: the engine under faults that a seed decides, seed after seed.

use std::process::ExitCode;

use clap::Parser;
use tidegate_integration_tests::simulation::{Options, run};

fn main() -> ExitCode {
    let report = run(&Options::parse());
    println!("{report}");
    match report.is_well() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
