//! The arguments of `savepoint`.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgGroup, Command};

use crate::service::application::Application;
use crate::time::HumanDuration;

use super::super::{configuration_arguments, topology_argument};

/// The command `savepoint`.
pub(in crate::service::cli) fn command(application: &Application) -> Command {
    let create = Command::new("create")
        .about("Take a savepoint of an application while it runs")
        .arg(name())
        .arg(form())
        .arg(timeout())
        .arg(scratch())
        .arg(json())
        .args(configuration_arguments());
    let list = Command::new("list")
        .about("Print the savepoints of an application")
        .arg(json())
        .args(configuration_arguments());
    let verify = Command::new("verify")
        .about("Read all objects of a savepoint and compare them with their hashes")
        .arg(name())
        .args(configuration_arguments());
    let delete = Command::new("delete")
        .about("Delete a savepoint, or what was left of one that did not become complete")
        .arg(name())
        .args(configuration_arguments());
    Command::new("savepoint")
        .about("Take savepoints, and start applications from them")
        .subcommand_required(true)
        .subcommands([create, list, verify, delete, restore(application), fork(application)])
}

fn restore(application: &Application) -> Command {
    let of = Arg::new("of").long("of").value_name("APPLICATION");
    let claim = Arg::new("claim").long("claim").action(ArgAction::SetTrue);
    let no_claim = Arg::new("no-claim").long("no-claim").action(ArgAction::SetTrue);
    let replace = Arg::new("replace").long("replace").action(ArgAction::SetTrue);
    Command::new("restore")
        .about("Put a savepoint in place as the state of the application that the configuration names; start its instances afterwards")
        .arg(topology_argument(application))
        .arg(name())
        .arg(of.help("The application whose savepoint it is, where it is another one; in the same snapshot.url"))
        .arg(claim.conflicts_with("no-claim").help("Delete the savepoint once it is in place"))
        .arg(no_claim.help("Leave the savepoint where it is (default)"))
        .arg(replace.help("Lose the state that the application has; all of its instances must have stopped"))
        .arg(scratch())
        .args(configuration_arguments())
}

fn fork(application: &Application) -> Command {
    let to = Arg::new("to").long("to").value_name("APPLICATION").required(true);
    let from = Arg::new("name").long("from").value_name("NAME");
    let as_of = Arg::new("as-of").long("as-of").value_name("TIME");
    let from_snapshot = Arg::new("from-snapshot")
        .long("from-snapshot")
        .value_name("TASK=SNAPSHOT")
        .action(ArgAction::Append);
    let durability = Arg::new("durability").long("durability");
    Command::new("fork")
        .about("Make a second application of the one that the configuration names, as it is now or was; start its instances afterwards")
        .arg(topology_argument(application))
        .arg(to.help("application.id of the second one, which must be new"))
        .arg(from.help("From this savepoint; without it from one that is taken now and deleted afterwards"))
        .arg(as_of.help("From the newest base snapshot of each task that is not younger: 2026-11-30T18:00:00Z, or milliseconds since 1970"))
        .arg(from_snapshot.help("From this base snapshot of a task, for example 0_3=41207-9c1f6a0b2d3e4f58; the other tasks as of --as-of, or from their newest"))
        .group(ArgGroup::new("past").args(["as-of", "from-snapshot"]).multiple(true).conflicts_with("name"))
        .arg(
            durability
                .value_parser(PossibleValuesParser::new(["changelog", "snapshot", "changelog+snapshot"]))
                .help("Strategy of the second one; without it the same"),
        )
        .arg(timeout())
        .arg(scratch())
        .args(configuration_arguments())
}

fn name() -> Arg {
    Arg::new("name").required(true).help("Name of the savepoint")
}

fn form() -> Arg {
    Arg::new("format")
        .long("format")
        .default_value("native")
        .value_parser(PossibleValuesParser::new(["native", "canonical"]))
        .help("native: the databases' files; canonical: sorted rows, the same for all backends and versions, written by this machine")
}

fn timeout() -> Arg {
    Arg::new("timeout")
        .long("timeout")
        .value_name("DURATION")
        .default_value("10m")
        .value_parser(|text: &str| text.parse::<HumanDuration>())
        .help("How long to wait until all of it is stored")
}

fn scratch() -> Arg {
    Arg::new("scratch")
        .long("scratch")
        .value_name("DIR")
        .value_parser(clap::value_parser!(PathBuf))
        .help("Where databases are put together, one task at a time; without it in the system's directory for temporary files")
}

fn json() -> Arg {
    Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help("Print JSON")
}
