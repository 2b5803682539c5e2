//! `savepoint create|list|verify|delete|restore|fork`.

mod grammar;
mod start;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use clap::ArgMatches;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::blob::BlobStore;
use crate::blob::metrics::BlobMetrics;
use crate::durability::savepoint::{Form, Savepoint, SavepointName};
use crate::durability::snapshot::Attempt;
use crate::instance::ScratchStates;
use crate::savepoint::{Archive, Creation, SavepointError, Stage};
use crate::service::application::{Application, BoxError};
use crate::service::config::{ConfigError, ConfigErrors, Configuration};
use crate::service::run::open_blobs;
use crate::time::{Clock, HumanDuration, SystemClock};

use super::{Variables, configuration};

pub(super) use grammar::command;

/// Time between two looks at a savepoint that is being taken.
const LOOK: Duration = Duration::from_millis(200);

/// Does what the arguments after `savepoint` say.
pub(super) fn dispatch(
    application: &Application,
    matches: &ArgMatches,
    environment: Variables,
    stdout: &mut dyn Write,
) -> Result<(), BoxError> {
    match matches.subcommand() {
        Some(("create", matches)) => create(matches, environment, stdout),
        Some(("list", matches)) => list(matches, environment, stdout),
        Some(("verify", matches)) => verify(matches, environment, stdout),
        Some(("delete", matches)) => delete(matches, environment, stdout),
        Some(("restore", matches)) => start::restore(application, matches, environment, stdout),
        Some(("fork", matches)) => start::fork(application, matches, environment, stdout),
        _ => Ok(()),
    }
}

fn name(matches: &ArgMatches) -> Result<SavepointName, BoxError> {
    let name = matches
        .get_one::<String>("name")
        .map(String::as_str)
        .unwrap_or_default();
    Ok(name.parse::<SavepointName>()?)
}

/// The application that the configuration names.
fn application_id(configuration: &Configuration) -> Result<String, ConfigErrors> {
    configuration.settings().application.id.clone().ok_or_else(|| {
        ConfigErrors(vec![ConfigError::Missing {
            key: "application.id".to_owned(),
            reason: "savepoints are those of an application".to_owned(),
        }])
    })
}

/// The folder of an application.
fn folder(application_id: &str, configuration: &Configuration) -> Result<Arc<dyn BlobStore>, BoxError> {
    let metrics = Arc::new(BlobMetrics::default());
    let blobs = open_blobs(application_id, configuration, &metrics)?;
    Ok(blobs.ok_or(SavepointError::NoObjectStore)?)
}

fn own_folder(matches: &ArgMatches, environment: Variables) -> Result<Archive, BoxError> {
    let configuration = configuration(matches, environment, Vec::new())?;
    let store = folder(&application_id(&configuration)?, &configuration)?;
    Ok(Archive { store })
}

/// Numbers that nobody else has.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

/// Databases below a directory of their own, which goes with this.
struct ScratchDirectory {
    path: std::path::PathBuf,
    states: ScratchStates,
}

impl ScratchDirectory {
    fn new(matches: &ArgMatches) -> Self {
        let parent = matches.get_one::<std::path::PathBuf>("scratch").cloned();
        let path = parent
            .unwrap_or_else(std::env::temp_dir)
            .join(format!("tidegate-scratch-{:016x}", random()));
        Self {
            states: ScratchStates::new(path.clone()),
            path,
        }
    }
}

impl Drop for ScratchDirectory {
    fn drop(&mut self) {
        // Nothing was put there where no database on disk was needed.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn bar(length: u64, unit_is_bytes: bool) -> ProgressBar {
    let template = match unit_is_bytes {
        true => "{msg} [{bar:40}] {bytes}/{total_bytes} ({percent} %), {bytes_per_sec}, {eta} left",
        false => "{msg} [{bar:40}] {human_pos}/{human_len}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}

// ---------------------------------------------------------------------------------------------- taking one

fn create(matches: &ArgMatches, environment: Variables, stdout: &mut dyn Write) -> Result<(), BoxError> {
    let archive = own_folder(matches, environment)?;
    let form = match matches.get_one::<String>("format").map(String::as_str) {
        Some("canonical") => Form::Canonical,
        _ => Form::Native,
    };
    let timeout = matches.get_one::<HumanDuration>("timeout").copied();
    let timeout = timeout.map_or(Duration::from_secs(600), |timeout| timeout.0);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let creation = Creation::begin(&archive.store, &clock, name(matches)?, form, timeout, Attempt(random()))?;
    let began = clock.monotonic();
    let savepoint = take(&creation, matches)?;
    let took_ms = u64::try_from(clock.monotonic().saturating_sub(began).as_millis()).unwrap_or(u64::MAX);
    if matches.get_flag("json") {
        return Ok(writeln!(stdout, "{}", described(&savepoint, Some(took_ms)))?);
    }
    let (tasks, bytes) = (savepoint.parts.len(), savepoint.bytes());
    Ok(writeln!(
        stdout,
        "savepoint {} of {} is complete: {tasks} tasks, {bytes} bytes, after {took_ms} ms",
        savepoint.name, savepoint.application
    )?)
}

/// Waits until it is complete; where nothing comes of it, takes the request back.
fn take(creation: &Creation, matches: &ArgMatches) -> Result<Savepoint, BoxError> {
    match wait(creation) {
        Ok(()) => {}
        Err(error) => {
            if !creation.abandon()? {
                return Err(error.into());
            }
        }
    }
    let archive = creation.archive();
    let savepoint = match creation.form() {
        Form::Native => archive.read(creation.name())?,
        Form::Canonical => {
            let scratch = ScratchDirectory::new(matches);
            let bar = bar(creation.look()?.tasks as u64, false);
            bar.set_message("writing rows");
            let converted = creation.convert(&scratch.states, &mut |_| bar.inc(1));
            bar.finish_and_clear();
            match converted {
                Ok(savepoint) => savepoint,
                Err(error) => {
                    creation.abandon()?;
                    return Err(error.into());
                }
            }
        }
    };
    creation.tidy()?;
    Ok(savepoint)
}

fn wait(creation: &Creation) -> Result<(), SavepointError> {
    let bar = bar(0, false);
    let outcome = loop {
        match creation.look() {
            Ok(stage) => {
                show(&bar, stage);
                if stage.is_complete {
                    break Ok(());
                }
            }
            // The store may answer the next time; the deadline ends it.
            Err(SavepointError::Blob(error)) if error.is_passing() && !creation.is_over() => {}
            Err(error) => break Err(error),
        }
        std::thread::park_timeout(LOOK);
    };
    bar.finish_and_clear();
    outcome
}

fn show(bar: &ProgressBar, stage: Stage) {
    bar.set_length(stage.tasks as u64);
    let (message, position) = match stage {
        Stage { tasks: 0, .. } => ("waiting for an instance", 0),
        Stage { tasks, frozen, .. } if frozen < tasks => ("tasks stand still", frozen),
        Stage { stored, .. } => ("tasks stored", stored),
    };
    bar.set_message(message);
    bar.set_position(position as u64);
}

// ---------------------------------------------------------------------------------------------- those that there are

fn described(savepoint: &Savepoint, took_ms: Option<u64>) -> serde_json::Value {
    json!({
        "name": savepoint.name.to_string(),
        "application": savepoint.application,
        "format": savepoint.form,
        "plan": savepoint.plan,
        "asked_ms": savepoint.asked_ms,
        "made_ms": savepoint.made_ms,
        "took_ms": took_ms,
        "tasks": savepoint.parts.len(),
        "bytes": savepoint.bytes(),
    })
}

fn list(matches: &ArgMatches, environment: Variables, stdout: &mut dyn Write) -> Result<(), BoxError> {
    let all = own_folder(matches, environment)?.list()?;
    if matches.get_flag("json") {
        let entry = |found: &crate::savepoint::Found| match &found.savepoint {
            Some(savepoint) => described(savepoint, None),
            None => {
                json!({ "name": found.name.to_string(), "complete": false, "objects": found.objects, "bytes": found.bytes })
            }
        };
        let entries: Vec<_> = all.iter().map(entry).collect();
        return Ok(writeln!(stdout, "{}", serde_json::Value::from(entries))?);
    }
    writeln!(
        stdout,
        "{:<24} {:<10} {:>15} {:>6} {:>14}",
        "name", "format", "made (ms)", "tasks", "bytes"
    )?;
    for found in all {
        match &found.savepoint {
            Some(savepoint) => {
                let form = match savepoint.form {
                    Form::Native => "native",
                    Form::Canonical => "canonical",
                };
                let (tasks, bytes) = (savepoint.parts.len(), savepoint.bytes());
                writeln!(
                    stdout,
                    "{:<24} {form:<10} {:>15} {tasks:>6} {bytes:>14}",
                    found.name.to_string(),
                    savepoint.made_ms
                )?;
            }
            None => {
                let bytes = found.bytes;
                writeln!(
                    stdout,
                    "{:<24} {:<10} {:>15} {:>6} {bytes:>14}",
                    found.name.to_string(),
                    "incomplete",
                    "",
                    ""
                )?;
            }
        }
    }
    Ok(())
}

fn verify(matches: &ArgMatches, environment: Variables, stdout: &mut dyn Write) -> Result<(), BoxError> {
    let archive = own_folder(matches, environment)?;
    let name = name(matches)?;
    let bar = bar(archive.read(&name)?.bytes(), true);
    bar.set_message("reading");
    let verified = archive.verify(&name, &mut |bytes| bar.inc(bytes))?;
    bar.finish_and_clear();
    if !verified.problems.is_empty() {
        let (name, problems) = (name.to_string(), verified.problems);
        return Err(SavepointError::Damaged { name, problems }.into());
    }
    let (objects, bytes) = (verified.objects, verified.bytes);
    Ok(writeln!(
        stdout,
        "savepoint {name} is whole: {objects} objects, {bytes} bytes"
    )?)
}

fn delete(matches: &ArgMatches, environment: Variables, stdout: &mut dyn Write) -> Result<(), BoxError> {
    let archive = own_folder(matches, environment)?;
    let name = name(matches)?;
    let objects = archive.delete(&name)?;
    Ok(writeln!(stdout, "savepoint {name} is deleted: {objects} objects")?)
}
