//! Layout is architecture: a module imports only from lower floors, and a foreign crate is named under one folder only.
//!
//! The tables here are the ones of `ARCHITECTURE.md`; a test compares them.

use std::collections::BTreeSet;
use std::fs;

use crate::imports::{Imports, Reference, Target, imports};
use crate::sources::{root, rust_files};

/// The modules directly under `src/`, by floor. Floors import downwards only, and two modules of one floor do not
/// import each other. On the ground floor, which is vocabulary, a module may import those named before it.
const FLOORS: [&[&str]; 10] = [
    &[
        "ids",
        "invariants",
        "time",
        "errors",
        "metrics",
        "partitioner",
        "record",
        "codec",
        "planted",
        "threads",
    ],
    &["log", "blob", "state"],
    &["operators"],
    &["topology"],
    &["task", "durability"],
    &["worker", "membership"],
    &["instance"],
    &["savepoint"],
    &["offline"],
    &["service", "testkit"],
];

/// Foreign crates and the one folder in which each may be named.
const FOREIGN: [(&[&str], &str); 7] = [
    (&["object_store"], "src/blob/object"),
    (&["rdkafka", "rdkafka_sys"], "src/log/kafka"),
    (&["openssl", "lz4", "crc_fast", "flate2"], "src/log/kafka/native"),
    (&["rocksdb", "librocksdb_sys"], "src/state/rocks"),
    (&["hashbrown", "foldhash"], "src/state"),
    (&["axum", "prometheus"], "src/service"),
    (
        &["clap", "config", "toml", "tracing_subscriber", "indicatif"],
        "src/service",
    ),
];

/// What stands behind a port, and who may choose it. All other code names the port.
const ADAPTERS: [(&str, &str, &[&str]); 5] = [
    ("blob", "object", &["service", "testkit"]),
    ("log", "kafka", &["service"]),
    ("log", "embedded", &["service", "testkit"]),
    ("state", "rocks", &["instance", "offline"]),
    ("state", "memory", &["worker", "instance"]),
];

/// Modules that take events and return actions: no threads, clocks, files, sockets or runtimes, so that a
/// simulation runs production code.
const PURE: [&str; 4] = ["operators", "topology", "task", "durability"];
const IMPURE: [&[&str]; 7] = [
    &["std", "thread"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    &["std", "fs"],
    &["std", "net"],
    &["tokio"],
    &["crossbeam_channel"],
];

/// The only modules that may say `unsafe`, one wrapper per foreign library: librdkafka's C functions, and `_exit`.
const UNSAFE_MODULES: [&[&str]; 2] = [&["log", "kafka", "raw"], &["service", "exit"]];

/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 4] = ["utils", "util", "common", "helpers"];

/// A source file with its place in the crate.
struct Module {
    file: String,
    path: Vec<String>,
    imports: Imports,
}

impl Module {
    fn read(file: &str, source: &str, only_tests: bool) -> Self {
        let path = module_path(file);
        let imports = imports(source, &path, only_tests);
        Self {
            file: file.to_owned(),
            path,
            imports,
        }
    }

    /// Whether it is the module `home` or one below it.
    fn is_inside(&self, home: &[&str]) -> bool {
        self.path.len() >= home.len() && self.path.iter().zip(home).all(|(segment, home)| segment == home)
    }

    /// The module directly under `src/`; `None` for the crate's root, which names every module.
    fn top(&self) -> Option<&str> {
        self.path.first().map(String::as_str)
    }
}

/// `src/a/b.rs` and `src/a/b/mod.rs` are `["a", "b"]`; `src/lib.rs` is the root.
fn module_path(file: &str) -> Vec<String> {
    let inside = file.strip_prefix("src/").unwrap_or(file);
    let inside = inside.strip_suffix(".rs").unwrap_or(inside);
    let mut path: Vec<String> = inside.split('/').map(str::to_owned).collect();
    if path.last().is_some_and(|last| last == "mod") || path == ["lib"] || path == ["main"] {
        path.pop();
    }
    path
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|modules| modules.contains(&module))
}

/// Names that ports re-export from their adapters: port, name, adapter.
type Reexports = BTreeSet<(String, String, String)>;

/// What the ports re-export: `pub use kafka::KafkaLog;` in `log/mod.rs`.
fn reexports(modules: &[Module]) -> Reexports {
    let mut reexports = Reexports::new();
    for (port, adapter, _) in ADAPTERS {
        let Some(module) = modules.iter().find(|module| module.path == [port]) else {
            continue;
        };
        for reference in &module.imports.references {
            if let Target::Local(path) = &reference.target
                && path.len() > 2
                && path[0] == port
                && path[1] == adapter
            {
                let name = path[path.len() - 1].clone();
                reexports.insert((port.to_owned(), name, adapter.to_owned()));
            }
        }
    }
    reexports
}

/// All that is wrong with the imports of a module, one sentence each.
fn complaints(module: &Module, reexports: &Reexports) -> Vec<String> {
    let mut complaints = Vec::new();
    for reference in &module.imports.references {
        let complaint = match &reference.target {
            Target::Local(path) => adapter_complaint(module, reference, path, reexports)
                .or_else(|| floor_complaint(module, reference, path)),
            Target::Foreign(path) => foreign_complaint(module, reference, path),
        };
        if let Some(complaint) = complaint {
            complaints.push(format!("{}:{}: {complaint}", module.file, reference.line));
        }
    }
    if !UNSAFE_MODULES.iter().any(|home| module.is_inside(home)) {
        for line in &module.imports.unsafe_lines {
            complaints.push(format!(
                "{}:{line}: unsafe belongs in one of {UNSAFE_MODULES:?}",
                module.file
            ));
        }
    }
    for line in &module.imports.path_attribute_lines {
        complaints.push(format!(
            "{}:{line}: a path attribute hides where a module lives",
            module.file
        ));
    }
    complaints
}

fn adapter_complaint(module: &Module, reference: &Reference, path: &[String], reexports: &Reexports) -> Option<String> {
    let from = module.top()?;
    let (port, name) = (path.first()?, path.get(1)?);
    let (_, adapter, choosers) = ADAPTERS.iter().find(|(of, adapter, _)| {
        port == of && (name == adapter || reexports.contains(&(port.clone(), name.clone(), (*adapter).to_owned())))
    })?;
    let is_inside = module.is_inside(&[port, adapter]) || module.path == [port.as_str()];
    if is_inside || reference.in_test || choosers.contains(&from) {
        return None;
    }
    let printed = path.join("::");
    Some(format!(
        "crate::{printed} is an adapter, to be chosen in {choosers:?}; name the port crate::{port}"
    ))
}

fn floor_complaint(module: &Module, reference: &Reference, path: &[String]) -> Option<String> {
    let from = module.top()?;
    let to = path.first()?.as_str();
    let printed = format!("crate::{}", path.join("::"));
    if to == from {
        return None;
    }
    let Some(from_floor) = floor(from) else {
        return Some(format!(
            "module {from} has no floor; add it to the table here and in ARCHITECTURE.md"
        ));
    };
    let Some(to_floor) = floor(to) else {
        return Some(format!(
            "{printed} names no module with a floor; import from the module that defines it"
        ));
    };
    if to_floor > from_floor {
        return Some(format!(
            "{printed} goes up from floor {from_floor} ({from}) to floor {to_floor} ({to})"
        ));
    }
    if to_floor == from_floor && !reference.in_test && !is_earlier_word(from, to) {
        return Some(format!(
            "{printed} goes sideways on floor {from_floor}, from {from} to {to}"
        ));
    }
    None
}

/// On the ground floor a module builds on those that the table names before it.
fn is_earlier_word(from: &str, to: &str) -> bool {
    let place = |module: &str| FLOORS[0].iter().position(|other| *other == module);
    matches!((place(from), place(to)), (Some(from), Some(to)) if to < from)
}

fn foreign_complaint(module: &Module, reference: &Reference, path: &[String]) -> Option<String> {
    let first = path.first()?.as_str();
    let home = FOREIGN.iter().find(|(crates, _)| crates.contains(&first));
    if let Some((_, folder)) = home
        && !module.file.starts_with(&format!("{folder}/"))
        && module.file != format!("{folder}.rs")
    {
        return Some(format!("{} is named outside of {folder}/", path.join("::")));
    }
    let pure = module.top().is_some_and(|top| PURE.contains(&top));
    let begins = |impure: &&[&str]| path.len() >= impure.len() && impure.iter().zip(path).all(|(a, b)| a == b);
    if pure && !reference.in_test && IMPURE.iter().any(begins) {
        return Some(format!(
            "{} in a module that takes events and returns actions",
            path.join("::")
        ));
    }
    None
}

/// Reads all modules under `src/`. Files that a parent declares with `#[cfg(test)] mod x;` are read as tests.
fn modules() -> Vec<Module> {
    let files = rust_files("src");
    let mut test_modules = BTreeSet::new();
    for file in &files {
        let found = imports(&file.text, &module_path(&file.path), false);
        test_modules.extend(found.test_modules);
    }
    let is_test = |path: &[String]| test_modules.iter().any(|module| path.starts_with(module));
    let read = files
        .iter()
        .map(|file| Module::read(&file.path, &file.text, is_test(&module_path(&file.path))));
    read.collect()
}

fn architecture() -> String {
    let path = root().join("ARCHITECTURE.md");
    fs::read_to_string(path).expect("ARCHITECTURE.md is there")
}

/// The words in backquotes of a line of text.
fn code_words(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_import_goes_down_and_every_foreign_crate_stays_in_its_folder() {
    let modules = modules();
    let reexports = reexports(&modules);
    let complaints: Vec<String> = modules
        .iter()
        .flat_map(|module| complaints(module, &reexports))
        .collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn the_table_names_exactly_the_modules_that_exist() {
    let modules = modules();
    let existing: BTreeSet<&str> = modules.iter().filter_map(Module::top).collect();
    let named: BTreeSet<&str> = FLOORS.iter().flat_map(|floor| floor.iter().copied()).collect();
    assert_eq!(
        existing, named,
        "modules under src/ (left) and in the table of floors (right)"
    );
}

#[test]
fn architecture_md_has_the_same_tables() {
    let text = architecture();
    let row = |first: &str| {
        let prefix = format!("| {first} |");
        let found = text.lines().find(|line| line.starts_with(&prefix));
        found.unwrap_or_else(|| panic!("ARCHITECTURE.md has no row that starts with {prefix:?}"))
    };
    for (number, modules) in FLOORS.iter().enumerate() {
        let cell = row(&number.to_string()).split('|').nth(2).unwrap_or_default();
        assert_eq!(
            code_words(cell),
            *modules,
            "floor {number} in ARCHITECTURE.md (left) and here (right)"
        );
    }
    for (crates, folder) in FOREIGN {
        let listed: Vec<String> = crates.iter().map(|name| format!("`{name}`")).collect();
        let cell = row(&listed.join(", ")).split('|').nth(2).unwrap_or_default();
        assert_eq!(
            code_words(cell),
            [folder],
            "home of {crates:?} in ARCHITECTURE.md (left) and here (right)"
        );
    }
}

#[test]
fn no_module_has_a_name_that_says_nothing() {
    for module in modules() {
        let name = module.path.last().map(String::as_str).unwrap_or_default();
        assert!(
            !EMPTY_NAMES.contains(&name),
            "{}: name it after what is inside",
            module.file
        );
    }
}

/// Negative controls: the checker refuses what the rules forbid, and accepts what they allow.
mod controls {
    use super::*;

    fn refused(file: &str, source: &str) -> Vec<String> {
        let port = Module::read("src/log/mod.rs", "mod kafka; pub use kafka::KafkaLog;", false);
        complaints(&Module::read(file, source, false), &reexports(&[port]))
    }

    fn assert_refused(file: &str, source: &str, because: &str) {
        let refused = refused(file, source);
        assert_eq!(refused.len(), 1, "{source:?} in {file}: {refused:?}");
        assert!(refused[0].contains(because), "{}", refused[0]);
    }

    fn assert_accepted(file: &str, source: &str) {
        assert_eq!(refused(file, source), Vec::<String>::new(), "{source:?} in {file}");
    }

    #[test]
    fn imports_that_go_up_are_refused_however_they_are_written() {
        assert_refused("src/task/epoch.rs", "use crate::worker::Worker;", "goes up");
        assert_refused("src/task/epoch.rs", "use crate::{ids::TaskId, worker};", "goes up");
        assert_refused("src/task/epoch.rs", "use super::super::worker::Worker;", "goes up");
        assert_refused("src/task/epoch.rs", "fn f() { crate::worker::run() }", "goes up");
        assert_refused("src/task/mod.rs", "pub use crate::service::*;", "goes up");
        assert_refused(
            "src/state/mod.rs",
            "#[derive(crate::operators::Derive)] struct S;",
            "goes up",
        );
        assert_refused("src/ids.rs", "macro_rules! m { () => { $crate::log::x() } }", "goes up");
        assert_refused(
            "src/ids.rs",
            "#[cfg(test)] mod tests { use crate::log::Log; }",
            "goes up",
        );
    }

    #[test]
    fn imports_that_go_sideways_are_refused() {
        assert_refused("src/task/epoch.rs", "use crate::durability::Strategy;", "sideways");
        assert_refused("src/log/kafka/mod.rs", "use crate::state::StateError;", "sideways");
        assert_refused("src/ids.rs", "use crate::record::Record;", "sideways");
        assert_accepted("src/record.rs", "use crate::time::Millis;");
        assert_accepted(
            "src/task/epoch.rs",
            "#[cfg(test)] mod tests { use crate::durability::Strategy; }",
        );
    }

    #[test]
    fn imports_that_go_down_or_stay_inside_are_accepted() {
        assert_accepted(
            "src/task/epoch.rs",
            "use crate::log::Log; use super::plan::X; use crate::task::y; use std::sync::Arc;",
        );
        assert_accepted(
            "src/task/epoch.rs",
            "// use crate::worker::Worker;\nconst X: &str = \"crate::worker\";",
        );
        assert_accepted(
            "src/lib.rs",
            "pub use crate::service::main; pub use crate::ids::TaskId;",
        );
    }

    #[test]
    fn paths_through_the_root_and_unknown_modules_are_refused() {
        assert_refused("src/task/epoch.rs", "use crate::Topology;", "names no module");
        assert_refused("src/task/epoch.rs", "use crate::*;", "names no module");
        assert_refused("src/basement.rs", "use crate::ids::TaskId;", "no floor");
    }

    #[test]
    fn foreign_crates_are_refused_outside_of_their_folder() {
        assert_refused("src/worker/mod.rs", "use rdkafka::ClientConfig;", "src/log/kafka");
        assert_refused(
            "src/worker/mod.rs",
            "fn f() { rdkafka::util::get_rdkafka_version(); }",
            "src/log/kafka",
        );
        assert_refused("src/log/mod.rs", "extern crate rdkafka_sys;", "src/log/kafka");
        assert_refused("src/log/mod.rs", "use rdkafka as log_client;", "src/log/kafka");
        assert_refused("src/log/kafkaesque.rs", "use ::rdkafka::ClientConfig;", "src/log/kafka");
        assert_refused(
            "src/state/overlay.rs",
            "#[cfg(test)] mod tests { use rocksdb::DB; }",
            "src/state/rocks",
        );
        assert_refused("src/lib.rs", "#[derive(clap::Parser)] struct S;", "src/service");
        assert_accepted(
            "src/log/kafka/raw.rs",
            "use rdkafka_sys as sys; use rdkafka::ClientConfig;",
        );
        assert_accepted("src/service/http.rs", "use axum::Router;");
        assert_accepted("src/worker/mod.rs", "/// Uses `rdkafka::ClientConfig`.\nfn f() {}");
    }

    #[test]
    fn adapters_are_named_only_where_the_choice_is_made() {
        assert_refused("src/worker/mod.rs", "use crate::log::kafka::KafkaLog;", "is an adapter");
        assert_refused(
            "src/log/embedded/mod.rs",
            "use crate::log::kafka::partition;",
            "is an adapter",
        );
        assert_refused("src/worker/mod.rs", "use crate::log::KafkaLog;", "is an adapter");
        assert_refused(
            "src/instance/mod.rs",
            "use crate::log::{Log, KafkaLog};",
            "is an adapter",
        );
        assert_accepted(
            "src/service/run.rs",
            "use crate::log::KafkaLog; use crate::log::kafka::Settings;",
        );
        assert_accepted(
            "src/log/kafka/consumer.rs",
            "use crate::log::kafka::raw; use super::raw::X;",
        );
        assert_accepted(
            "src/worker/mod.rs",
            "#[cfg(test)] mod tests { use crate::log::embedded::EmbeddedLog; }",
        );
    }

    #[test]
    fn threads_clocks_and_runtimes_are_refused_in_pure_modules() {
        assert_refused("src/task/mod.rs", "fn f() { std::thread::spawn(g); }", "takes events");
        assert_refused(
            "src/task/mod.rs",
            "use std::{sync::Arc, time::{Duration, Instant}};",
            "takes events",
        );
        assert_refused("src/durability/mod.rs", "use tokio::runtime::Runtime;", "takes events");
        assert_accepted("src/worker/mod.rs", "use std::thread;");
        assert_accepted("src/task/mod.rs", "use std::time::Duration;");
    }

    #[test]
    fn unsafe_and_path_attributes_are_refused() {
        assert_refused("src/state/rocks/mod.rs", "fn f() { unsafe { g() } }", "unsafe");
        assert_accepted("src/log/kafka/raw.rs", "fn f() { unsafe { g() } }");
        assert_accepted("src/log/kafka/raw/admin.rs", "fn f() { unsafe { g() } }");
        assert_refused(
            "src/state/mod.rs",
            "#[path = \"../worker/mod.rs\"] mod x;",
            "path attribute",
        );
    }
}
