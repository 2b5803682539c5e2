//! A program that carries topologies: the three lines that a user's own binary needs.

use std::error::Error;
use std::process::ExitCode;

use super::cli;
use crate::topology::{Parameters, Topology};

/// Any error, for functions of the user.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// Builds a topology from its parameters.
pub type TopologyFunction = fn(&Parameters) -> Result<Topology, BoxError>;

/// Runs a command of the program's own with the arguments that follow its name.
pub type CommandFunction = fn(&[String]) -> Result<(), BoxError>;

/// A program with topologies and, if it likes, commands of its own beside Tidegate's.
#[derive(Clone, Debug)]
pub struct Application {
    pub(super) name: String,
    pub(super) version: &'static str,
    pub(super) topologies: Vec<(String, TopologyFunction)>,
    pub(super) commands: Vec<OwnCommand>,
}

/// A command of the program's own.
#[derive(Clone, Debug)]
pub(super) struct OwnCommand {
    pub name: &'static str,
    pub about: &'static str,
    pub function: CommandFunction,
}

impl Application {
    /// A program called `name`, of `version`, without topologies so far.
    pub fn new(name: impl Into<String>, version: &'static str) -> Self {
        Self {
            name: name.into(),
            version,
            topologies: Vec::new(),
            commands: Vec::new(),
        }
    }

    /// Adds a topology.
    #[must_use]
    pub fn topology(mut self, name: impl Into<String>, function: TopologyFunction) -> Self {
        self.topologies.push((name.into(), function));
        self
    }

    /// Adds a command. It gets the arguments after its name as they are, `--help` included, and reads them itself.
    #[must_use]
    pub fn command(mut self, name: &'static str, about: &'static str, function: CommandFunction) -> Self {
        self.commands.push(OwnCommand { name, about, function });
        self
    }

    /// Does what the command line says and answers the exit code: 0 for a clean end, 1 for a failure, 2 for a wrong
    /// command line, configuration or topology, 3 when the log could not be reached at start.
    pub fn run(self) -> ExitCode {
        let mut stdout = std::io::stdout().lock();
        let mut stderr = std::io::stderr();
        let arguments = std::env::args_os();
        ExitCode::from(cli::run(
            &self,
            arguments,
            std::env::vars_os().collect(),
            &mut stdout,
            &mut stderr,
        ))
    }
}

/// The whole `main` of a program with topologies of its own:
///
/// ```no_run
/// # mod word_count {
/// #     pub fn topology(_: &tidegate::topology::Parameters) -> Result<tidegate::topology::Topology, tidegate::service::BoxError> {
/// #         Err("an example".into())
/// #     }
/// # }
/// fn main() -> std::process::ExitCode {
///     tidegate::main(&[("word_count", word_count::topology)])
/// }
/// ```
pub fn main(topologies: &[(&str, TopologyFunction)]) -> ExitCode {
    let path = std::env::args_os()
        .next()
        .map(std::path::PathBuf::from)
        .unwrap_or_default();
    let name = path
        .file_stem()
        .map_or("tidegate".into(), |stem| stem.to_string_lossy().into_owned());
    let application = Application::new(name, env!("CARGO_PKG_VERSION"));
    let add =
        |application: Application, (name, function): &(&str, TopologyFunction)| application.topology(*name, *function);
    topologies.iter().fold(application, add).run()
}
