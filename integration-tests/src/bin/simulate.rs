//! `simulate`: the engine under faults that a seed decides, seed after seed.

use std::process::ExitCode;

use clap::Parser;
use tidegate_integration_tests::simulation::{Options, run};

fn main() -> ExitCode {
    let options = Options::parse();
    #[cfg(feature = "planted")]
    if options.planted {
        let (table, missed) = tidegate_integration_tests::simulation::find_planted(&options);
        println!("{table}\nnot found: {missed:?}");
        return match missed.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        };
    }
    let report = run(&options);
    println!("{report}");
    match report.is_well() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
