//! How errors are shown, and what exit code they end in.

use std::error::Error;
use std::fmt::Write;

use super::config::{ConfigError, ConfigErrors};
use super::error::ServiceError;
use super::exit::{EXIT_FAILED, EXIT_UNREACHABLE, EXIT_USAGE};
use crate::errors::Coded;
use crate::instance::InstanceError;
use crate::log::LogError;
use crate::offline::OfflineError;
use crate::savepoint::SavepointError;
use crate::state::StateError;
use crate::topology::{ParameterError, PlanError, TopologyError};

/// The code of an error, if it is of a type that has one.
pub fn code_of(error: &(dyn Error + 'static)) -> Option<&'static str> {
    fn code<E: Coded + 'static>(error: &(dyn Error + 'static)) -> Option<&'static str> {
        error.downcast_ref::<E>().map(Coded::code)
    }
    let types = [
        code::<ServiceError>,
        code::<ConfigErrors>,
        code::<ConfigError>,
        code::<ParameterError>,
        code::<TopologyError>,
        code::<PlanError>,
        code::<InstanceError>,
        code::<LogError>,
        code::<StateError>,
        code::<OfflineError>,
        code::<SavepointError>,
    ];
    types.iter().find_map(|code| code(error))
}

/// The exit code for an error.
pub fn exit_code(error: &(dyn Error + 'static)) -> u8 {
    let is_configuration = |error: &(dyn Error + 'static)| error.is::<ConfigErrors>() || error.is::<ConfigError>();
    match error.downcast_ref::<ServiceError>() {
        Some(ServiceError::Config(_) | ServiceError::UnknownTopology { .. } | ServiceError::Topology { .. }) => {
            EXIT_USAGE
        }
        Some(ServiceError::Start { code, .. }) if is_unreachable(code) => EXIT_UNREACHABLE,
        Some(_) => EXIT_FAILED,
        None if is_configuration(error) || error.is::<ParameterError>() => EXIT_USAGE,
        None if error.is::<InstanceError>() && code_of(error).is_some_and(is_unreachable) => EXIT_UNREACHABLE,
        None if error.is::<OfflineError>() => exit_code_of_tool(code_of(error).unwrap_or_default()),
        None => EXIT_FAILED,
    }
}

/// A tool that could not look is told from one that has looked and has something to say.
fn exit_code_of_tool(code: &str) -> u8 {
    // Credentials, bucket, folder, names.
    const WRONG_QUESTIONS: [&str; 12] = [
        "TG1203", "TG1204", "TG4301", "TG4302", "TG4305", "TG4307", "TG4309", "TG4310", "TG4311", "TG4314", "TG4315",
        "TG4316",
    ];
    match code {
        code if code == "TG1205" || is_unreachable(code) => EXIT_UNREACHABLE,
        code if WRONG_QUESTIONS.contains(&code) => EXIT_USAGE,
        _ => EXIT_FAILED,
    }
}

/// Whether a code says that the log did not answer.
fn is_unreachable(code: &str) -> bool {
    ["TG4101", "TG1001", "TG1002"].contains(&code)
}

/// The error as the user sees it: code and message, the chain of causes, and where to read on.
pub fn report(error: &(dyn Error + 'static)) -> String {
    let mut out = String::new();
    match error.downcast_ref::<ServiceError>() {
        Some(ServiceError::Config(errors)) => errors.0.iter().for_each(|error| report_one(error, &mut out)),
        _ => match error.downcast_ref::<ConfigErrors>() {
            Some(errors) => errors.0.iter().for_each(|error| report_one(error, &mut out)),
            None => report_one(error, &mut out),
        },
    }
    out
}

fn report_one(error: &(dyn Error + 'static), out: &mut String) {
    let code = code_of(error);
    let label = code.map(|code| format!("[{code}]")).unwrap_or_default();
    let mut shown = error.to_string();
    let _ = writeln!(out, "error{label}: {shown}");
    let mut cause = error.source();
    while let Some(next) = cause {
        let text = next.to_string();
        // Many messages contain their cause's already.
        if !shown.contains(&text) {
            let _ = writeln!(out, "  because: {text}");
            shown = text;
        }
        cause = next.source();
    }
    if let Some(code) = code {
        let _ = writeln!(out, "  more in docs/errors/{code}.md");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable_log() -> LogError {
        LogError::Unreachable {
            addresses: "kafka-1:9092".into(),
            reason: "connection refused".into(),
        }
    }

    #[test]
    fn an_error_is_shown_with_code_causes_and_page() {
        let shown = report(&ServiceError::start(unreachable_log()));
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "error[TG1001]: the instance did not start");
        assert!(
            lines[1].starts_with("  because: no broker answers at kafka-1:9092: connection refused"),
            "{shown}"
        );
        assert_eq!(lines[2..], ["  more in docs/errors/TG1001.md"]);
        let plain = report(&std::io::Error::other("no space"));
        assert_eq!(plain, "error: no space\n");
    }

    #[test]
    fn each_configuration_error_has_its_own_paragraph() {
        let missing = |key: &str| ConfigError::Missing {
            key: key.into(),
            reason: "it is needed".into(),
        };
        let shown = report(&ServiceError::Config(ConfigErrors(vec![missing("a"), missing("b")])));
        assert_eq!(shown.matches("error[TG5005]: option").count(), 2, "{shown}");
    }

    #[test]
    fn exit_codes_tell_a_wrong_configuration_from_a_log_that_is_away() {
        let config = ConfigErrors(vec![]);
        assert_eq!(exit_code(&config), EXIT_USAGE);
        assert_eq!(exit_code(&ServiceError::Config(config)), EXIT_USAGE);
        assert_eq!(exit_code(&ParameterError::Missing { key: "x".into() }), EXIT_USAGE);
        assert_eq!(exit_code(&ServiceError::start(unreachable_log())), EXIT_UNREACHABLE);
        assert_eq!(exit_code(&ServiceError::stopped(unreachable_log())), EXIT_FAILED);
        assert_eq!(exit_code(&std::io::Error::other("no space")), EXIT_FAILED);
    }
}
