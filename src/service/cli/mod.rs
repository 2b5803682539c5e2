//! The command line.

mod reshape;
mod savepoint;
mod snapshot;
mod state;
mod table;
mod tools;

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::errors::nearest;
use crate::service::application::{Application, BoxError, TopologyFunction};
use crate::service::config::{ConfigErrors, Configuration, ReferenceFormat, Sources, reference};
use crate::service::error::ServiceError;
use crate::service::exit::{EXIT_CLEAN, EXIT_FAILED, EXIT_USAGE};
use crate::service::logging;
use crate::service::report::{exit_code, report};
use crate::service::run::run_topology;
use crate::topology::Topology;

type Variables = Vec<(OsString, OsString)>;

/// Does what `arguments` say and answers the exit code.
pub fn run(
    application: &Application,
    arguments: impl IntoIterator<Item = OsString>,
    environment: Variables,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> u8 {
    let outcome = match command(application).try_get_matches_from(arguments) {
        Ok(matches) => dispatch(application, &matches, environment, stdout),
        Err(e) => {
            let (stream, code): (&mut dyn Write, u8) = if e.use_stderr() {
                (&mut *stderr, EXIT_USAGE)
            } else {
                (&mut *stdout, EXIT_CLEAN)
            };
            // Where even that cannot be written, the exit code still tells.
            let _ = write!(stream, "{e}");
            return code;
        }
    };
    match outcome {
        Ok(()) => EXIT_CLEAN,
        Err(e) if is_broken_pipe(&*e) => EXIT_CLEAN,
        Err(e) => {
            let _ = stderr.write_all(report(&*e).as_bytes());
            exit_code(&*e).max(EXIT_FAILED)
        }
    }
}

/// The reader of our output has seen enough (`… | head`).
fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}

fn dispatch(
    application: &Application,
    matches: &ArgMatches,
    environment: Variables,
    stdout: &mut dyn Write,
) -> Result<(), BoxError> {
    match matches.subcommand() {
        Some(("run", matches)) => run_instance(application, matches, environment),
        Some(("savepoint", matches)) => savepoint::dispatch(application, matches, environment, stdout),
        Some(("topology", matches)) => match matches.subcommand() {
            Some(("describe", matches)) => describe(application, matches, environment, stdout),
            _ => list(application, stdout),
        },
        Some(("config", matches)) => match matches.subcommand() {
            Some(("check", matches)) => check(application, matches, environment, stdout),
            Some(("show", matches)) => show(matches, environment, stdout),
            Some(("reference", matches)) => Ok(stdout.write_all(reference(reference_format(matches)).as_bytes())?),
            _ => Ok(()),
        },
        Some(("snapshot", matches)) => snapshot::run(matches, environment, stdout),
        Some(("state", matches)) => state::run(application, matches, environment, stdout),
        Some((name, matches)) => own_command(application, name, matches),
        None => Ok(()),
    }
}

// ---------------------------------------------------------------------------------------------- the grammar

fn command(application: &Application) -> Command {
    let root = Command::new("tidegate")
        .bin_name(application.name.clone())
        .display_name(application.name.clone())
        .version(application.version)
        .about("Stateful streams on Kafka, exactly-once")
        .after_help(EXIT_CODES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(run_command(application))
        .subcommand(topology_command(application))
        .subcommand(config_command())
        .subcommand(snapshot::command())
        .subcommand(state::command(application))
        .subcommand(savepoint::command(application));
    application.commands.iter().fold(root, |root, own| {
        let arguments = Arg::new("arguments")
            .num_args(0..)
            .trailing_var_arg(true)
            .allow_hyphen_values(true);
        // The command reads its own arguments, and its own --help among them.
        root.subcommand(
            Command::new(own.name)
                .about(own.about)
                .disable_help_flag(true)
                .arg(arguments),
        )
    })
}

const EXIT_CODES: &str = "\
Exit codes: 0 clean end; 1 failure; 2 wrong command line, configuration or topology;
3 Kafka or the object store not reached at start; 130 and 143 left at once after SIGINT and SIGTERM.";

fn run_command(application: &Application) -> Command {
    Command::new("run")
        .about("Run a topology as one instance until SIGTERM or SIGINT; a second signal leaves at once")
        .arg(topology_argument(application))
        .args(configuration_arguments())
}

fn topology_command(application: &Application) -> Command {
    let format = Arg::new("format")
        .long("format")
        .default_value("text")
        .value_parser(PossibleValuesParser::new(["text", "dot", "mermaid"]))
        .help("Form of the description");
    let describe = Command::new("describe")
        .about("Print nodes, topics and stores of a topology")
        .arg(topology_argument(application))
        .arg(format)
        .args(configuration_arguments());
    Command::new("topology")
        .about("Look at the topologies of this program")
        .subcommand_required(true)
        .subcommand(describe)
        .subcommand(Command::new("list").about("Print the names"))
}

fn config_command() -> Command {
    let files = || {
        let value = clap::value_parser!(PathBuf);
        Arg::new("file")
            .value_name("FILE")
            .num_args(0..)
            .value_parser(value)
            .help("Configuration files, later over earlier")
    };
    let format = Arg::new("format")
        .long("format")
        .default_value("text")
        .value_parser(PossibleValuesParser::new(["text", "markdown", "toml"]))
        .help("Form of the reference");
    let topology = Arg::new("topology")
        .long("topology")
        .help("Check [parameters] and [errors.nodes] against this topology");
    Command::new("config")
        .about("Look at the configuration")
        .subcommand_required(true)
        .subcommand(
            Command::new("reference")
                .about("Print all options with type, unit, default and description")
                .arg(format),
        )
        .subcommand(
            Command::new("check")
                .about("Say whether a configuration is right")
                .arg(files())
                .arg(set())
                .arg(embedded())
                .arg(topology),
        )
        .subcommand(
            Command::new("show")
                .about("Print what takes effect and where it comes from")
                .arg(files())
                .arg(set())
                .arg(embedded()),
        )
}

fn topology_argument(application: &Application) -> Arg {
    let names: Vec<&str> = application.topologies.iter().map(|(name, _)| name.as_str()).collect();
    let argument = Arg::new("topology").required(names.len() != 1);
    argument.help(format!("Name of the topology: {}", names.join(", ")))
}

fn configuration_arguments() -> [Arg; 3] {
    let config = Arg::new("file")
        .long("config")
        .value_name("FILE")
        .action(ArgAction::Append)
        .value_parser(clap::value_parser!(PathBuf))
        .help("Configuration file; may be given several times, later over earlier");
    [config, set(), embedded()]
}

fn set() -> Arg {
    let argument = Arg::new("set")
        .long("set")
        .value_name("KEY=VALUE")
        .action(ArgAction::Append);
    argument.help("Set one option, over files and environment")
}

fn embedded() -> Arg {
    // Without the equals sign the name of the topology that follows would be taken for the directory.
    Arg::new("embedded")
        .long("embedded")
        .value_name("DIR")
        .num_args(0..=1)
        .require_equals(true)
        .help("Use the log inside the process in place of Kafka (embedded.enabled = true), kept in DIR if one is named")
}

// ---------------------------------------------------------------------------------------------- the commands

/// The configuration that the arguments name; `given` says what other arguments stand for.
fn configuration(
    matches: &ArgMatches,
    environment: Variables,
    given: Vec<String>,
) -> Result<Configuration, ConfigErrors> {
    let files = matches
        .get_many::<PathBuf>("file")
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    let mut assignments: Vec<String> = matches
        .get_many::<String>("set")
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    if matches.contains_id("embedded") {
        assignments.push("embedded.enabled=true".to_owned());
    }
    if let Some(dir) = matches.get_one::<String>("embedded") {
        assignments.push(format!("embedded.dir={dir}"));
    }
    assignments.extend(given);
    Configuration::load(&Sources {
        files,
        environment,
        assignments,
    })
}

fn find<'a>(application: &'a Application, name: Option<&String>) -> Result<(&'a str, TopologyFunction), ServiceError> {
    let topologies = &application.topologies;
    let found = match (name, topologies.as_slice()) {
        (None, [only]) => Some(only),
        (Some(name), all) => all.iter().find(|(known, _)| known == name),
        (None, _) => None,
    };
    let (known, function) = found.ok_or_else(|| {
        let name = name.cloned().unwrap_or_default();
        let known: Vec<String> = topologies.iter().map(|(known, _)| known.clone()).collect();
        let nearest = nearest(&name, known.iter().map(String::as_str)).map(str::to_owned);
        ServiceError::UnknownTopology { name, nearest, known }
    })?;
    Ok((known, *function))
}

fn build(name: &str, function: TopologyFunction, configuration: &Configuration) -> Result<Topology, ServiceError> {
    function(&configuration.parameters()).map_err(|source| ServiceError::Topology {
        name: name.to_owned(),
        source,
    })
}

fn run_instance(application: &Application, matches: &ArgMatches, environment: Variables) -> Result<(), BoxError> {
    let (name, function) = find(application, matches.get_one("topology"))?;
    let configuration = configuration(matches, environment, Vec::new())?;
    configuration.check_complete()?;
    let topology = build(name, function, &configuration)?;
    logging::start(&configuration.settings().log);
    Ok(run_topology(name, topology, &configuration)?)
}

fn describe(
    application: &Application,
    matches: &ArgMatches,
    environment: Variables,
    stdout: &mut dyn Write,
) -> Result<(), BoxError> {
    let (name, function) = find(application, matches.get_one("topology"))?;
    let configuration = configuration(matches, environment, Vec::new())?;
    let topology = build(name, function, &configuration)?;
    let description = topology.describe();
    let text = match matches.get_one::<String>("format").map(String::as_str) {
        Some("dot") => description.graphviz(),
        Some("mermaid") => description.mermaid(),
        _ => description.text(),
    };
    Ok(writeln!(stdout, "{}", text.trim_end())?)
}

fn list(application: &Application, stdout: &mut dyn Write) -> Result<(), BoxError> {
    let names: String = application
        .topologies
        .iter()
        .map(|(name, _)| format!("{name}\n"))
        .collect();
    Ok(stdout.write_all(names.as_bytes())?)
}

fn check(
    application: &Application,
    matches: &ArgMatches,
    environment: Variables,
    stdout: &mut dyn Write,
) -> Result<(), BoxError> {
    let configuration = configuration(matches, environment, Vec::new())?;
    configuration.check_complete()?;
    if let Some(name) = matches.get_one::<String>("topology") {
        let (name, function) = find(application, Some(name))?;
        let topology = build(name, function, &configuration)?;
        configuration.check_nodes(&topology)?;
    }
    Ok(writeln!(stdout, "the configuration is right")?)
}

fn show(matches: &ArgMatches, environment: Variables, stdout: &mut dyn Write) -> Result<(), BoxError> {
    Ok(stdout.write_all(configuration(matches, environment, Vec::new())?.show().as_bytes())?)
}

fn reference_format(matches: &ArgMatches) -> ReferenceFormat {
    match matches.get_one::<String>("format").map(String::as_str) {
        Some("markdown") => ReferenceFormat::Markdown,
        Some("toml") => ReferenceFormat::Toml,
        _ => ReferenceFormat::Text,
    }
}

fn own_command(application: &Application, name: &str, matches: &ArgMatches) -> Result<(), BoxError> {
    let arguments: Vec<String> = matches.get_many("arguments").into_iter().flatten().cloned().collect();
    match application.commands.iter().find(|own| own.name == name) {
        Some(own) => (own.function)(&arguments),
        None => Ok(()),
    }
}

#[cfg(test)]
mod snapshot_tests;
#[cfg(test)]
mod state_tests;
#[cfg(test)]
mod tests;
