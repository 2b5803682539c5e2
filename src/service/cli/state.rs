//! `state scan|get|diff`, and the way to `import` and `reshard`: rows of a task's state, as a repository or the disk of an instance has them.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Value, json};

use super::Variables;
use super::reshape;
use super::table::{Table, count, moment, write_json};
use super::tools::{Tool, arguments};
use crate::durability::snapshot::{Manifest, SnapshotId};
use crate::ids::{Epoch, StoreId, TaskId};
use crate::offline::{
    At, Branch, Catalogue, Change, OfflineError, Scope, Scratch, StoreDifference, StoreShape, View, diff, hex,
};
use crate::service::application::{Application, BoxError};

/// So many rows are printed where nothing else is said.
const LIMIT: &str = "100";

pub fn command(application: &Application) -> Command {
    let scan = Command::new("scan")
        .about("Print the rows of a task's stores, in order of their keys")
        .arg(task_argument())
        .arg(
            Arg::new("store")
                .value_name("STORE")
                .help("One store; all of the task if not given"),
        )
        .arg(
            key("from").help("First key: as its codec writes it, <start in ms>/<key> of a window, or 0x and its bytes"),
        )
        .arg(key("to").help("Key before which it ends"))
        .arg(limit().help("So many rows at most; 0: all"))
        .args(source_arguments())
        .args(arguments());
    let get = Command::new("get")
        .about("Print the row of one key")
        .arg(task_argument())
        .arg(Arg::new("store").value_name("STORE").required(true))
        .arg(
            Arg::new("key")
                .value_name("KEY")
                .required(true)
                .allow_hyphen_values(true)
                .help("As its codec writes it, <start in ms>/<key> of a window, or 0x and its bytes"),
        )
        .args(source_arguments())
        .args(arguments());
    let side = |name: &'static str| Arg::new(name).required(true).value_name("STATE");
    let diff = Command::new("diff")
        .about("Compare two states of a task, row by row; ends with 1 where they differ")
        .arg(side("first").help("[PLACE#]TASK[@EPOCH|@SNAPSHOT]: a task of the repository, or of a PLACE: URL with the application's folder, or a state.dir"))
        .arg(side("second"))
        .arg(limit().help("So many rows that differ are printed at most; 0: all. They are all counted"))
        .arg(scratch())
        .args(arguments());
    Command::new("state")
        .about("Look at the rows of state, also while instances run; make savepoints of rows")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(scan)
        .subcommand(get)
        .subcommand(diff)
        .subcommand(reshape::import_command(application))
        .subcommand(reshape::reshard_command())
}

fn task_argument() -> Arg {
    let parser = clap::value_parser!(TaskId);
    Arg::new("task")
        .value_name("TASK")
        .required(true)
        .value_parser(parser)
        .help("<sub-topology>_<partition>")
}

fn key(name: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("KEY").allow_hyphen_values(true)
}

fn limit() -> Arg {
    Arg::new("limit")
        .long("limit")
        .value_name("N")
        .default_value(LIMIT)
        .value_parser(clap::value_parser!(u64))
}

pub(super) fn scratch() -> Arg {
    Arg::new("scratch")
        .long("scratch")
        .value_name("DIR")
        .value_parser(clap::value_parser!(PathBuf))
        .help("Where databases are put together; the directory for temporary files if not given")
}

fn source_arguments() -> [Arg; 5] {
    let snapshot = Arg::new("snapshot")
        .long("snapshot")
        .value_name("SNAPSHOT")
        .value_parser(clap::value_parser!(SnapshotId))
        .help("Start from this base snapshot, <epoch>-<attempt>; without --at, of exactly its epoch");
    let at = Arg::new("at")
        .long("at")
        .value_name("EPOCH")
        .value_parser(clap::value_parser!(u64))
        .help("As of this epoch; the newest that is known to be committed if not given");
    let committed = Arg::new("committed")
        .long("committed")
        .action(ArgAction::SetTrue)
        .conflicts_with_all(["at", "snapshot", "state-dir"])
        .help("As of what the group has committed, which Kafka is asked for");
    let state_dir = Arg::new("state-dir")
        .long("state-dir")
        .value_name("DIR")
        .value_parser(clap::value_parser!(PathBuf))
        .conflicts_with_all(["at", "snapshot"])
        .help("The disk of an instance (state.dir) in place of the repository");
    [snapshot, at, committed, state_dir, scratch()]
}

pub fn run(
    application: &Application,
    matches: &ArgMatches,
    environment: Variables,
    stdout: &mut dyn Write,
) -> Result<(), BoxError> {
    let Some((name, matches)) = matches.subcommand() else {
        return Ok(());
    };
    match name {
        "import" => return reshape::import(application, matches, environment, stdout),
        "reshard" => return reshape::reshard(matches, environment, stdout),
        _ => {}
    }
    let tool = Tool::new(matches, environment)?;
    match name {
        "scan" => scan(&tool, matches, stdout),
        "get" => get(&tool, matches, stdout),
        _ => run_diff(&tool, matches, stdout),
    }
}

// ---------------------------------------------------------------------------------------------- where state comes from

pub(super) fn new_scratch(tool: &Tool, matches: &ArgMatches) -> Arc<Scratch> {
    Scratch::new(
        matches.get_one::<PathBuf>("scratch").map(PathBuf::as_path),
        tool.now_ms(),
    )
}

fn view(tool: &Tool, matches: &ArgMatches) -> Result<View, BoxError> {
    let task = matches.get_one::<TaskId>("task").copied().unwrap_or(TaskId {
        sub_topology: 0,
        partition: 0,
    });
    if let Some(directory) = matches.get_one::<PathBuf>("state-dir") {
        let application = tool.configuration.settings().application.id.as_deref();
        return Ok(View::of_directory(directory, application, task)?);
    }
    let catalogue = tool.catalogue(Scope::of(task))?;
    let at = matches.get_one::<u64>("at").copied().map(Epoch);
    let (base, at) = match matches.get_flag("committed") {
        true => committed(tool, &catalogue, task)?,
        false => catalogue.choose(task, matches.get_one::<SnapshotId>("snapshot").copied(), at)?,
    };
    let branch = catalogue.branch(base, &at)?;
    Ok(View::of_repository(
        &catalogue,
        base,
        &branch,
        &new_scratch(tool, matches),
        &tool.progress,
    )?)
}

fn committed<'a>(tool: &Tool, catalogue: &'a Catalogue, task: TaskId) -> Result<(&'a Manifest, At), BoxError> {
    let log = tool.log()?.ok_or(OfflineError::NoKafka {
        remedy: "or leave out --committed",
    })?;
    let pointers = catalogue.pointers(&*log, tool.application()?)?;
    let pointer = pointers.get(&task).cloned().flatten();
    let pointer = pointer.ok_or_else(|| {
        catalogue.unknown(
            format!("committed offsets of task {task} in the group"),
            std::iter::empty(),
        )
    })?;
    let base = pointer
        .state
        .base
        .map_or_else(|| catalogue.newest(task), |base| catalogue.base(task, base))?;
    Ok((base, At::Committed(pointer.state.increment)))
}

// ---------------------------------------------------------------------------------------------- scan and get

fn row_json(task: TaskId, store: &str, shape: &StoreShape, key: &[u8], value: &[u8]) -> Value {
    let read = shape.read(key, value);
    json!({
        "task": task.to_string(), "store": store, "key": hex(key), "value": hex(value),
        "as": {"key": read.key, "time_ms": read.time_ms, "value": read.value},
    })
}

/// A row in cells: key, time, value.
fn cells(shape: &StoreShape, key: &[u8], value: &[u8]) -> Vec<String> {
    let read = shape.read(key, value);
    let text = |value: Option<Value>, bytes: &[u8]| match value {
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
        None => format!("0x{}", hex(bytes)),
    };
    let rest = if read.time_ms.is_some() { &value[8..] } else { value };
    vec![
        text(read.key, key),
        read.time_ms.map(moment).unwrap_or_default(),
        text(read.value, rest),
    ]
}

fn typed_key(store: &str, shape: &StoreShape, text: &str) -> Result<Vec<u8>, OfflineError> {
    shape.key.write(text).map_err(|reason| OfflineError::Key {
        key: text.to_owned(),
        store: store.to_owned(),
        reason,
    })
}

fn scan(tool: &Tool, matches: &ArgMatches, out: &mut dyn Write) -> Result<(), BoxError> {
    let view = view(tool, matches)?;
    let named = matches
        .get_one::<String>("store")
        .map(|name| view.store(name))
        .transpose()?;
    let stores: Vec<StoreId> = match named {
        Some((store, _)) => vec![store],
        None => (0..view.stores.len()).map(|store| StoreId(store as u16)).collect(),
    };
    let limit = matches
        .get_one::<u64>("limit")
        .copied()
        .filter(|limit| *limit > 0)
        .unwrap_or(u64::MAX);
    if !tool.json {
        print_origin(&view, out)?;
    }
    let mut left = limit;
    for store in stores {
        let spec = &view.stores[usize::from(store.0)];
        let shape = StoreShape::of(&spec.codecs);
        let bound = |name: &str| match matches.get_one::<String>(name) {
            Some(text) => typed_key(&spec.name, &shape, text),
            None => Ok(Vec::new()),
        };
        let mut table = Table::new(&["key", "time", "value"]);
        let mut rows = view.rows(store, &bound("from")?, &bound("to")?);
        let mut shown = 0;
        for row in rows.by_ref().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            let (key, value) = row?;
            shown += 1;
            match tool.json {
                true => writeln!(out, "{}", row_json(view.task, &spec.name, &shape, &key, &value))?,
                false => table.row(cells(&shape, &key, &value)),
            }
        }
        left -= shown;
        if !tool.json {
            writeln!(out, "\n{} ({})", spec.name, spec.codecs)?;
            table.write(2, out)?;
            let more = if rows.next().is_some() {
                ", and more (--limit)"
            } else {
                ""
            };
            writeln!(
                out,
                "  {}{more}",
                count(usize::try_from(shown).unwrap_or(usize::MAX), "row")
            )?;
        }
    }
    Ok(())
}

fn print_origin(view: &View, out: &mut dyn Write) -> Result<(), BoxError> {
    let (epoch, ended) = (view.meta.epoch, moment(view.meta.ended_ms));
    let cut: Vec<String> = view
        .meta
        .cut
        .iter()
        .map(|(at, offset)| format!("{at} at {offset}"))
        .collect();
    writeln!(
        out,
        "task {} at epoch {epoch}, which ended {ended}; {}",
        view.task,
        cut.join(", ")
    )?;
    Ok(writeln!(out, "{}", view.from)?)
}

fn get(tool: &Tool, matches: &ArgMatches, out: &mut dyn Write) -> Result<(), BoxError> {
    let view = view(tool, matches)?;
    let name = matches
        .get_one::<String>("store")
        .map(String::as_str)
        .unwrap_or_default();
    let (store, spec) = view.store(name)?;
    let shape = StoreShape::of(&spec.codecs);
    let text = matches.get_one::<String>("key").map(String::as_str).unwrap_or_default();
    let key = typed_key(name, &shape, text)?;
    let Some(value) = view.get(store, &key)? else {
        return Err(OfflineError::Unknown {
            root: view.from.clone(),
            what: format!("row of key {text:?} in store {name} at epoch {}", view.meta.epoch),
            there: "other keys (state scan shows them)".to_owned(),
        }
        .into());
    };
    if tool.json {
        return Ok(writeln!(out, "{}", row_json(view.task, name, &shape, &key, &value))?);
    }
    print_origin(&view, out)?;
    let mut table = Table::new(&["key", "time", "value"]);
    table.row(cells(&shape, &key, &value));
    writeln!(out)?;
    Ok(table.write(2, out)?)
}

// ---------------------------------------------------------------------------------------------- diff

/// One side of a comparison: `[PLACE#]TASK[@EPOCH|@SNAPSHOT]`.
fn side(tool: &Tool, matches: &ArgMatches, name: &str) -> Result<View, BoxError> {
    let text = matches.get_one::<String>(name).map(String::as_str).unwrap_or_default();
    let (place, state) = match text.rsplit_once('#') {
        Some((place, state)) => (Some(place), state),
        None => (None, text),
    };
    let (task, when) = match state.split_once('@') {
        Some((task, when)) => (task, Some(when)),
        None => (state, None),
    };
    let wrong = || OfflineError::Unknown {
        root: "the command line".to_owned(),
        what: format!("state {text:?}"),
        there: "[PLACE#]TASK[@EPOCH|@SNAPSHOT] to offer".to_owned(),
    };
    let task: TaskId = task.parse().map_err(|_| wrong())?;
    let snapshot = when.and_then(|when| when.parse::<SnapshotId>().ok());
    let epoch = when.and_then(|when| when.parse::<u64>().ok()).map(Epoch);
    if when.is_some() && snapshot.is_none() && epoch.is_none() {
        return Err(wrong().into());
    }
    let store = match place {
        Some(place) if !place.contains("://") => {
            let application = tool.configuration.settings().application.id.as_deref();
            return Ok(View::of_directory(&PathBuf::from(place), application, task)?);
        }
        Some(place) => {
            let (url, application) = place.trim_end_matches('/').rsplit_once('/').ok_or_else(wrong)?;
            tool.folder(url, application)?
        }
        None => tool.store()?,
    };
    let catalogue = Catalogue::read(store, Scope::of(task), &tool.progress)?;
    let (base, at) = catalogue.choose(task, snapshot, epoch)?;
    let branch: Branch = catalogue.branch(base, &at)?;
    // Each has a place of its own: both may be of the same task.
    Ok(View::of_repository(
        &catalogue,
        base,
        &branch,
        &new_scratch(tool, matches),
        &tool.progress,
    )?)
}

fn run_diff(tool: &Tool, matches: &ArgMatches, out: &mut dyn Write) -> Result<(), BoxError> {
    let (first, second) = (side(tool, matches, "first")?, side(tool, matches, "second")?);
    let limit = matches
        .get_one::<u64>("limit")
        .copied()
        .filter(|limit| *limit > 0)
        .unwrap_or(u64::MAX);
    let mut rows: Vec<(String, Change)> = Vec::new();
    let differences = diff(&first, &second, &mut |store, change| {
        if (rows.len() as u64) < limit {
            rows.push((store.to_owned(), change));
        }
    })?;
    let shape = |store: &str| {
        let spec = second.store(store).or_else(|_| first.store(store));
        StoreShape::of(spec.map(|(_, spec)| &spec.codecs[..]).unwrap_or_default())
    };
    if tool.json {
        let stores: Vec<Value> = differences.iter().map(difference_json).collect();
        let rows: Vec<Value> = rows
            .iter()
            .map(|(store, change)| change_json(store, &shape(store), change))
            .collect();
        let side = |view: &View| json!({"task": view.task.to_string(), "epoch": view.meta.epoch.0, "lineage": view.meta.lineage.to_string(), "from": view.from});
        write_json(
            &json!({"first": side(&first), "second": side(&second), "stores": stores, "rows": rows}),
            out,
        )?;
    } else {
        print_origin(&first, out)?;
        print_origin(&second, out)?;
        print_difference(&differences, &rows, &shape, out)?;
    }
    let different: Vec<&StoreDifference> = differences.iter().filter(|store| store.is_different()).collect();
    match different.is_empty() {
        true => Ok(()),
        false => Err(OfflineError::Different {
            rows: different.iter().map(|store| store.rows()).sum(),
            stores: different.len(),
        }
        .into()),
    }
}

fn difference_json(store: &StoreDifference) -> Value {
    json!({
        "store": store.store, "codecs": store.codecs, "added": store.added, "removed": store.removed,
        "changed": store.changed, "same": store.same,
    })
}

fn change_json(store: &str, shape: &StoreShape, change: &Change) -> Value {
    let (what, key, before, after) = match change {
        Change::Added((key, value)) => ("added", key, None, Some(value)),
        Change::Removed((key, value)) => ("removed", key, Some(value), None),
        Change::Changed(key, before, after) => ("changed", key, Some(before), Some(after)),
    };
    let read =
        |value: Option<&Vec<u8>>| value.map(|value| json!({"value": hex(value), "as": shape.read(key, value).value}));
    json!({
        "store": store, "change": what, "key": hex(key), "as": shape.key.read(key), "before": read(before), "after": read(after),
    })
}

fn print_difference(
    differences: &[StoreDifference],
    rows: &[(String, Change)],
    shape: &dyn Fn(&str) -> StoreShape,
    out: &mut dyn Write,
) -> Result<(), BoxError> {
    let mut table = Table::new(&["store", "added>", "removed>", "changed>", "same>", "codecs"]);
    for store in differences {
        let codecs = match &store.codecs {
            [first, second] if first == second => first.clone(),
            [first, second] => format!("{first} | {second}"),
        };
        let numbers = [store.added, store.removed, store.changed, store.same].map(|number| number.to_string());
        table.row([vec![store.store.clone()], numbers.to_vec(), vec![codecs]].concat());
    }
    writeln!(out)?;
    table.write(0, out)?;
    if rows.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["", "store", "key", "before", "after"]);
    for (store, change) in rows {
        let shape = shape(store);
        let cell = |key: &[u8], value: &[u8]| {
            let mut cells = cells(&shape, key, value);
            (std::mem::take(&mut cells[0]), std::mem::take(&mut cells[2]))
        };
        let (mark, key, before, after) = match change {
            Change::Added((key, value)) => ("+", cell(key, value).0, String::new(), cell(key, value).1),
            Change::Removed((key, value)) => ("-", cell(key, value).0, cell(key, value).1, String::new()),
            Change::Changed(key, before, after) => ("≠", cell(key, before).0, cell(key, before).1, cell(key, after).1),
        };
        table.row(vec![mark.to_owned(), store.clone(), key, before, after]);
    }
    writeln!(out)?;
    Ok(table.write(0, out)?)
}
