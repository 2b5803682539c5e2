//! `snapshot list|show|verify|fsck|gc|export`: looking into a repository, tidying it up, and copying from it.

mod checking;
mod collecting;
mod copying;
mod listing;

use std::io::Write;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::Variables;
use super::tools::{Tool, arguments};
use crate::ids::TaskId;
use crate::offline::{Catalogue, OfflineError, Scope};
use crate::service::application::BoxError;
use crate::time::HumanDuration;

pub fn command() -> Command {
    let verify = Command::new("verify")
        .about("Read and hash everything that snapshots and the increments after them need; ends with 1 where something is wrong")
        .arg(snapshot_argument().required(false).help("One base snapshot, <epoch>-<attempt>; all of them if not given"))
        .arg(task_argument())
        .args(arguments());
    let fsck = Command::new("fsck")
        .about("Look for what is missing, damaged, foreign, or nobody's; ends with 1 where state is lost or cannot be judged")
        .arg(
            Arg::new("offline")
                .long("offline")
                .action(ArgAction::SetTrue)
                .help("Do not ask Kafka what is committed, although the configuration names it"),
        )
        .args(arguments());
    Command::new("snapshot")
        .about("Look into a snapshot repository, also while instances run")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("list")
                .about("Print the base snapshots of each task, and the increments after the newest one")
                .arg(task_argument())
                .args(arguments()),
        )
        .subcommand(
            Command::new("show")
                .about("Print a manifest in full, or the footer of a pack of increments")
                .arg(snapshot_argument().required(true).help(
                    "A base snapshot <epoch>-<attempt>, a task <sub-topology>_<partition> for its newest one, or a pack <instance>/<worker>/<sequence>-<attempt>",
                ))
                .arg(task_argument())
                .args(arguments()),
        )
        .subcommand(verify)
        .subcommand(fsck)
        .subcommand(gc_command())
        .subcommand(export_command())
}

fn gc_command() -> Command {
    Command::new("gc")
        .about("Delete what nobody refers to and is older than the grace, as instances do by themselves; needs Kafka")
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .help("Print what would be deleted and why, and delete nothing"),
        )
        .arg(
            Arg::new("grace")
                .long("grace")
                .value_name("DURATION")
                .value_parser(clap::value_parser!(HumanDuration))
                .help("In place of snapshot.grace; shorter than that only where no instance runs"),
        )
        .args(arguments())
}

fn export_command() -> Command {
    Command::new("export")
        .about("Copy base snapshots and the increments after them to a folder of their own, and read the copy back")
        .arg(
            Arg::new("to")
                .long("to")
                .value_name("URL")
                .required(true)
                .help("Where to: s3://bucket/folder or file:///directory; the application's folder is made in it"),
        )
        .arg(
            Arg::new("as")
                .long("as")
                .value_name("ID")
                .help("Name of the folder; application.id if not given"),
        )
        .arg(task_argument())
        .arg(
            Arg::new("all")
                .long("all")
                .action(ArgAction::SetTrue)
                .conflicts_with("task")
                .help("All tasks, which is what is done without --task"),
        )
        .arg(
            Arg::new("at")
                .long("at")
                .value_name("EPOCH")
                .requires("task")
                .value_parser(clap::value_parser!(u64))
                .help("As of this epoch of the task; the newest that is known to be committed if not given"),
        )
        .args(arguments())
}

fn task_argument() -> Arg {
    Arg::new("task")
        .long("task")
        .value_name("TASK")
        .value_parser(clap::value_parser!(TaskId))
        .help("Only this task, <sub-topology>_<partition>")
}

fn snapshot_argument() -> Arg {
    Arg::new("snapshot").value_name("SNAPSHOT")
}

pub fn run(matches: &ArgMatches, environment: Variables, stdout: &mut dyn Write) -> Result<(), BoxError> {
    let Some((name, matches)) = matches.subcommand() else {
        return Ok(());
    };
    let tool = Tool::new(matches, environment)?;
    match name {
        "list" => listing::list(&tool, matches, stdout),
        "show" => listing::show(&tool, matches, stdout),
        "verify" => checking::verify_all(&tool, matches, stdout),
        "gc" => collecting::collect(&tool, matches, stdout),
        "export" => copying::copy(&tool, matches, stdout),
        _ => checking::check(&tool, matches, stdout),
    }
}

fn scope(matches: &ArgMatches) -> Scope {
    matches
        .get_one::<TaskId>("task")
        .map_or(Scope::ALL, |task| Scope::of(*task))
}

/// Ends with code 1 where something was found.
fn conclude(root: String, count: usize) -> Result<(), BoxError> {
    match count {
        0 => Ok(()),
        count => Err(OfflineError::Findings { root, count }.into()),
    }
}

/// How many objects there are, and their bytes.
fn totals(catalogue: &Catalogue) -> (usize, u64) {
    let objects = catalogue.objects.values();
    (catalogue.objects.len(), objects.map(|blob| blob.bytes).sum())
}
