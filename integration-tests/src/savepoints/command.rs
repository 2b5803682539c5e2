//! The command line of the service, as a person would use it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::ledger::LedgerError;

use super::exists;

/// What the service says of a savepoint that it has taken.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Its tasks.
    pub tasks: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Time until it was complete.
    pub took_ms: u64,
}

impl Taken {
    /// Reads what `savepoint create --json` prints.
    pub(super) fn read(text: &str) -> Result<Self, LedgerError> {
        let json: serde_json::Value =
            serde_json::from_str(text).map_err(|error| LedgerError::Broken(format!("{text:?}: {error}")))?;
        let number = |name: &str| {
            let found = json.get(name).and_then(serde_json::Value::as_u64);
            found.ok_or_else(|| LedgerError::Broken(format!("{text:?} has no {name}")))
        };
        Ok(Self {
            tasks: number("tasks")?,
            bytes: number("bytes")?,
            took_ms: number("took_ms")?,
        })
    }
}

/// Runs `savepoint` with these arguments; what it prints, and how long it took.
pub(super) fn savepoint(
    binary: &Path,
    configuration: impl AsRef<Path>,
    arguments: &[&str],
) -> Result<(String, Duration), LedgerError> {
    if !exists(binary) {
        let binary = binary.display();
        return Err(LedgerError::Broken(format!(
            "{binary} is not there; build it, or name it with --tidegate"
        )));
    }
    let began = Instant::now();
    let output = Command::new(binary)
        .arg("savepoint")
        .args(arguments)
        .arg("--config")
        .arg(configuration.as_ref())
        .output()
        .map_err(|error| LedgerError::Broken(error.to_string()))?;
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr),
    );
    match output.status.success() {
        true => Ok((stdout, began.elapsed())),
        false => Err(LedgerError::Broken(format!(
            "savepoint {arguments:?} ended with {}: {stdout}{stderr}",
            output.status
        ))),
    }
}
