//! `state import|reshard`: savepoints that no running application has taken.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::json;

use super::Variables;
use super::state::{new_scratch, scratch};
use super::table::{Table, size, write_json};
use super::tools::{Tool, arguments};
use super::{build, find, topology_argument};
use crate::durability::savepoint::SavepointName;
use crate::log::Log;
use crate::offline::{Import, OfflineError, Offsets, Reshard};
use crate::service::application::{Application, BoxError};

const OFFSETS: &str = "Where the tasks go on reading: earliest, latest (of Kafka, as it is now), or a file with [[\"topic\", partition, offset], …]";

pub fn import_command(application: &Application) -> Command {
    Command::new("import")
        .about("Make a savepoint of rows, to start an application from; `savepoint restore` puts it in place")
        .arg(topology_argument(application))
        .arg(
            Arg::new("rows")
                .long("rows")
                .value_name("FILE")
                .required(true)
                .help("Rows, one JSON object per line, as `state scan --json` prints them; - for the standard input"),
        )
        .arg(to_argument())
        .arg(
            number("tasks")
                .required(true)
                .help("Number of tasks of each sub-topology: of partitions of its inputs"),
        )
        .arg(offsets().required(true).help(OFFSETS))
        .arg(scratch())
        .args(arguments())
}

pub fn reshard_command() -> Command {
    Command::new("reshard")
        .about("Make a savepoint of another number of tasks of one that there is; `savepoint restore` puts it in place")
        .arg(Arg::new("savepoint").value_name("SAVEPOINT").required(true).help("Name of the savepoint that there is"))
        .arg(to_argument())
        .arg(number("from").required(true).help("Number of tasks now; sub-topologies with another number stay as they are"))
        .arg(number("to").required(true).help("Number of tasks that it is to have"))
        .arg(offsets().default_value("grown").help(
            "Where the tasks go on reading: grown (the topics were given more partitions: old ones go on where they were, new ones begin at 0), earliest, latest (of Kafka, as it is now), or a file with [[\"topic\", partition, offset], …]",
        ))
        .arg(
            Arg::new("unchecked")
                .long("unchecked")
                .action(ArgAction::SetTrue)
                .help("Take keys of stores for those of the records although one task alone does not show it"),
        )
        .arg(scratch())
        .args(arguments())
}

fn to_argument() -> Arg {
    Arg::new("as")
        .long("as")
        .value_name("NAME")
        .required(true)
        .help("Name of the savepoint that is made")
}

fn number(name: &'static str) -> Arg {
    let parser = clap::value_parser!(i32).range(1..=100_000);
    Arg::new(name).long(name).value_name("N").value_parser(parser)
}

fn offsets() -> Arg {
    Arg::new("offsets").long("offsets").value_name("WHERE")
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn name(matches: &ArgMatches, argument: &str) -> Result<SavepointName, OfflineError> {
    let text = matches
        .get_one::<String>(argument)
        .map(String::as_str)
        .unwrap_or_default();
    text.parse().map_err(|reason| OfflineError::BadName { reason })
}

fn chosen_offsets<'a>(matches: &ArgMatches, log: Option<&'a Arc<dyn Log>>) -> Result<Offsets<'a>, BoxError> {
    let word = matches
        .get_one::<String>("offsets")
        .map(String::as_str)
        .unwrap_or_default();
    let log = || {
        let remedy = "or give the offsets in a file";
        log.map(|log| &**log).ok_or(OfflineError::NoKafka { remedy })
    };
    Ok(match word {
        "grown" => Offsets::Grown,
        "earliest" => Offsets::Earliest(log()?),
        "latest" => Offsets::Latest(log()?),
        file => {
            let text = std::fs::read_to_string(file);
            let text = text.map_err(|error| OfflineError::BadName {
                reason: format!("--offsets {file}: neither grown, earliest nor latest, and as a file: {error}"),
            })?;
            Offsets::parse(&text).map_err(|reason| OfflineError::BadName {
                reason: format!("{file} is no list of [topic, partition, offset]: {reason}"),
            })?
        }
    })
}

pub fn import(
    application: &Application,
    matches: &ArgMatches,
    environment: Variables,
    out: &mut dyn Write,
) -> Result<(), BoxError> {
    let tool = Tool::new(matches, environment)?;
    let (topology_name, function) = find(application, matches.get_one("topology"))?;
    let topology = build(topology_name, function, &tool.configuration)?;
    let log = tool.log()?;
    if matches.get_one::<String>("offsets").is_some_and(|word| word == "grown") {
        let reason = "--offsets grown is for topics that a savepoint has read; rows say nothing of offsets".to_owned();
        return Err(OfflineError::BadName { reason }.into());
    }
    let import = Import {
        store: tool.new_store()?,
        to: name(matches, "as")?,
        application: tool.application()?,
        topology: &topology,
        tasks: matches.get_one::<i32>("tasks").copied().unwrap_or(1),
        offsets: chosen_offsets(matches, log.as_ref())?,
        random: &random,
        now_ms: tool.now_ms(),
    };
    let file = matches
        .get_one::<String>("rows")
        .map(String::as_str)
        .unwrap_or_default();
    let reader: Box<dyn BufRead> = match file {
        "-" => Box::new(std::io::stdin().lock()),
        file => Box::new(BufReader::new(File::open(file)?)),
    };
    let imported = import.run(&mut reader.lines(), &new_scratch(&tool, matches))?;
    let word = format!("{} tasks", imported.tasks);
    print(&tool, &import.to, &word, &imported.rows, imported.bytes, out)
}

pub fn reshard(matches: &ArgMatches, environment: Variables, out: &mut dyn Write) -> Result<(), BoxError> {
    let tool = Tool::new(matches, environment)?;
    let log = tool.log()?;
    let number = |name: &str| matches.get_one::<i32>(name).copied().unwrap_or(1);
    let reshard = Reshard {
        store: tool.store()?,
        from: name(matches, "savepoint")?,
        to: name(matches, "as")?,
        tasks_before: number("from"),
        tasks_after: number("to"),
        offsets: chosen_offsets(matches, log.as_ref())?,
        unchecked: matches.get_flag("unchecked"),
        random: &random,
        now_ms: tool.now_ms(),
    };
    let done = reshard.run(&new_scratch(&tool, matches), &tool.progress)?;
    let word = format!("{} tasks of {}", done.tasks_after, done.tasks_before);
    print(&tool, &reshard.to, &word, &done.rows, done.bytes, out)
}

fn print(
    tool: &Tool,
    name: &SavepointName,
    tasks: &str,
    rows: &std::collections::BTreeMap<String, u64>,
    bytes: u64,
    out: &mut dyn Write,
) -> Result<(), BoxError> {
    if tool.json {
        let all = json!({"savepoint": name.to_string(), "tasks": tasks, "rows": rows, "bytes": bytes});
        return Ok(write_json(&all, out)?);
    }
    let mut table = Table::new(&["store", "rows>"]);
    for (store, rows) in rows {
        table.row(vec![store.clone(), rows.to_string()]);
    }
    table.write(2, out)?;
    writeln!(out, "\nsavepoint {name} is made: {tasks}, {}", size(bytes))?;
    Ok(writeln!(
        out,
        "tidegate savepoint restore puts it in place for an application that has no committed offsets"
    )?)
}
