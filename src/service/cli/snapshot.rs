//! `snapshot list|show|verify|fsck|gc|export`: looking into a repository, tidying it up, and copying from it.

use std::collections::BTreeSet;
use std::io::Write;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Value, json};

use super::Variables;
use super::table::{Table, age, count, moment, size, write_json};
use super::tools::{Tool, arguments};
use crate::durability::snapshot::{Manifest, PackId, SnapshotId};
use crate::errors::Coded;
use crate::ids::{Epoch, TaskId};
use crate::offline::{
    At, Branch, Catalogue, Chosen, Finding, Garbage, Grade, OfflineError, Scope, Unneeded, export, fsck, verify,
};
use crate::service::application::BoxError;
use crate::time::{HumanDuration, Millis};

/// So many findings of one kind are shown in a table; JSON has all.
const SHOWN: usize = 20;

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
        "list" => list(&tool, matches, stdout),
        "show" => show(&tool, matches, stdout),
        "verify" => run_verify(&tool, matches, stdout),
        "gc" => run_gc(&tool, matches, stdout),
        "export" => run_export(&tool, matches, stdout),
        _ => run_fsck(&tool, matches, stdout),
    }
}

fn scope(matches: &ArgMatches) -> Scope {
    matches
        .get_one::<TaskId>("task")
        .map_or(Scope::ALL, |task| Scope::of(*task))
}

// ---------------------------------------------------------------------------------------------- list

/// A base snapshot beside the one before it.
struct Listed<'a> {
    base: &'a Manifest,
    shared_bytes: u64,
}

fn listed(bases: &[Manifest]) -> Vec<Listed<'_>> {
    let beside = |(at, base): (usize, &'_ Manifest)| {
        let before = bases.get(at + 1).map(|before| &before.files[..]).unwrap_or_default();
        let held: BTreeSet<(&str, u64)> = before.iter().map(|file| (&file.object[..], file.offset)).collect();
        let shared = base
            .files
            .iter()
            .filter(|file| held.contains(&(&file.object[..], file.offset)));
        shared.map(|file| file.bytes).sum()
    };
    let all = bases.iter().enumerate();
    all.map(|(at, base)| Listed {
        base,
        shared_bytes: beside((at, base)),
    })
    .collect()
}

/// What follows a task's newest base snapshot.
struct After {
    branch: Branch,
    bytes: u64,
    problem: Option<OfflineError>,
}

fn after(catalogue: &Catalogue, newest: &Manifest) -> After {
    let (branch, problem) = match catalogue.branch(newest, &At::Newest) {
        Ok(branch) => (branch, None),
        Err(error) => (Branch::default(), Some(error)),
    };
    let packed = branch
        .increments
        .iter()
        .filter_map(|increment| catalogue.packed(newest.task, increment).ok());
    let bytes = packed.map(|packed| packed.bytes).sum();
    After { branch, bytes, problem }
}

fn epochs(first: Epoch, last: Epoch) -> String {
    match first == last {
        true => format!("epoch {first}"),
        false => format!("epochs {first} to {last}"),
    }
}

impl After {
    fn text(&self, newest: &Manifest) -> String {
        if let Some(problem) = &self.problem {
            return format!("increments after it: {problem}");
        }
        let increments = &self.branch.increments;
        let mut text = match (increments.first(), increments.last()) {
            (Some(first), Some(last)) => format!(
                "+ {}, {}, {}",
                count(increments.len(), "increment"),
                epochs(first.epoch, last.epoch),
                size(self.bytes)
            ),
            _ => format!("+ no increments after epoch {}", newest.epoch()),
        };
        if let Some(last) = self.branch.unconfirmed.last() {
            let number = count(self.branch.unconfirmed.len(), "increment");
            text.push_str(&format!(
                "; {number} up to epoch {} of which only Kafka knows whether they are committed",
                last.epoch
            ));
        }
        text
    }

    fn json(&self) -> Value {
        let epoch = |increments: &[crate::durability::snapshot::IncrementRef]| {
            increments.iter().map(|increment| increment.epoch.0).collect::<Vec<_>>()
        };
        let epochs = epoch(&self.branch.increments);
        json!({
            "count": epochs.len(), "bytes": self.bytes, "first_epoch": epochs.first(), "last_epoch": epochs.last(),
            "unconfirmed_epochs": epoch(&self.branch.unconfirmed),
            "problem": self.problem.as_ref().map(|error| json!({"code": error.code(), "what": error.to_string()})),
        })
    }
}

fn list(tool: &Tool, matches: &ArgMatches, out: &mut dyn Write) -> Result<(), BoxError> {
    let catalogue = tool.catalogue(scope(matches))?;
    let mut tasks = catalogue.tasks();
    if let Some(task) = matches.get_one::<TaskId>("task") {
        tasks.retain(|other| other == task);
        if tasks.is_empty() {
            catalogue.newest(*task)?;
        }
    }
    if tool.json {
        let tasks: Vec<Value> = tasks.iter().map(|task| list_json(&catalogue, *task)).collect();
        let broken = catalogue.broken.iter();
        let broken: Vec<Value> = broken
            .map(|broken| json!({"object": broken.object, "code": broken.error.code(), "what": broken.error.to_string()}))
            .collect();
        let (objects, bytes) = totals(&catalogue);
        let all =
            json!({"root": catalogue.root(), "tasks": tasks, "broken": broken, "objects": objects, "bytes": bytes});
        return Ok(write_json(&all, out)?);
    }
    let mut table = Table::new(&[
        "task", "snapshot", "made", "age", "files>", "bytes>", "shared>", "lineage", "backend", "writer", "plan",
    ]);
    for task in &tasks {
        for Listed { base, shared_bytes } in listed(catalogue.bases_of(*task)) {
            table.row(vec![
                task.to_string(),
                base.id.to_string(),
                moment(base.made_ms),
                age(tool.now_ms() - base.made_ms),
                base.files.len().to_string(),
                size(base.bytes()),
                size(shared_bytes),
                base.meta.lineage.to_string(),
                base.backend.clone(),
                base.writer.clone(),
                base.plan.clone(),
            ]);
        }
    }
    writeln!(out, "{}", catalogue.root())?;
    if !table.is_empty() {
        writeln!(out)?;
        table.write(0, out)?;
    }
    writeln!(out, "\nAfter the newest one of each task:")?;
    for task in &tasks {
        match catalogue.bases_of(*task).first() {
            Some(newest) => writeln!(out, "{task}  {}", after(&catalogue, newest).text(newest))?,
            None => writeln!(out, "{task}  no base snapshot that can be read")?,
        }
    }
    for broken in &catalogue.broken {
        writeln!(out, "cannot be read [{}]: {}", broken.error.code(), broken.error)?;
    }
    let (objects, bytes) = totals(&catalogue);
    let bases = tasks.iter().map(|task| catalogue.bases_of(*task).len()).sum();
    writeln!(
        out,
        "\n{}, {}, {}, {}",
        count(tasks.len(), "task"),
        count(bases, "base snapshot"),
        count(objects, "object"),
        size(bytes)
    )?;
    Ok(())
}

fn totals(catalogue: &Catalogue) -> (usize, u64) {
    let objects = catalogue.objects.values();
    (catalogue.objects.len(), objects.map(|blob| blob.bytes).sum())
}

fn list_json(catalogue: &Catalogue, task: TaskId) -> Value {
    let bases = listed(catalogue.bases_of(task))
        .into_iter()
        .map(|Listed { base, shared_bytes }| {
            json!({
                "snapshot": base.id.to_string(), "epoch": base.id.epoch.0, "attempt": base.id.attempt.to_string(),
                "lineage": base.meta.lineage.to_string(), "made_ms": base.made_ms, "files": base.files.len(),
                "bytes": base.bytes(), "shared_bytes": shared_bytes, "backend": base.backend, "writer": base.writer,
                "plan": base.plan,
            })
        });
    let bases: Vec<Value> = bases.collect();
    let increments = catalogue
        .bases_of(task)
        .first()
        .map(|newest| after(catalogue, newest).json());
    json!({"task": task.to_string(), "bases": bases, "increments": increments})
}

// ---------------------------------------------------------------------------------------------- show

fn show(tool: &Tool, matches: &ArgMatches, out: &mut dyn Write) -> Result<(), BoxError> {
    let wanted = matches
        .get_one::<String>("snapshot")
        .map(String::as_str)
        .unwrap_or_default();
    let pack = wanted.parse::<PackId>().ok().or_else(|| PackId::of_object(wanted));
    if let Some(pack) = pack {
        return show_pack(tool, &pack, out);
    }
    let catalogue = tool.catalogue(Scope {
        with_packs: false,
        ..scope(matches)
    })?;
    let task = matches.get_one::<TaskId>("task").copied();
    let base = match (wanted.parse::<TaskId>(), wanted.parse::<SnapshotId>(), task) {
        (Ok(task), _, _) => catalogue.newest(task)?,
        (_, Ok(id), Some(task)) => catalogue.base(task, id)?,
        (_, Ok(id), None) => catalogue.base(catalogue.task_of(id)?, id)?,
        (_, Err(_), _) => {
            let bases = catalogue.bases.values().flatten();
            return Err(catalogue
                .unknown(format!("{wanted:?}"), bases.map(|base| base.id.to_string()))
                .into());
        }
    };
    if tool.json {
        return Ok(write_json(&serde_json::from_slice(&base.to_json())?, out)?);
    }
    show_base(base, tool.now_ms(), out)
}

fn show_base(base: &Manifest, now_ms: Millis, out: &mut dyn Write) -> Result<(), BoxError> {
    let offsets = |offsets: &std::collections::BTreeMap<crate::ids::TopicPartition, i64>| {
        let text: Vec<String> = offsets.iter().map(|(at, offset)| format!("{at} at {offset}")).collect();
        if text.is_empty() {
            "none".to_owned()
        } else {
            text.join(", ")
        }
    };
    let history: Vec<String> = base.history.iter().map(|older| older.id.to_string()).collect();
    let held = match (base.increments.last(), base.increments.first()) {
        (Some(first), Some(last)) => {
            let number = count(base.increments.len(), "increment");
            format!("{number}, {}", epochs(first.epoch, last.epoch))
        }
        _ => "none".to_owned(),
    };
    let lines = [
        ("object", base.object()),
        ("lineage", base.meta.lineage.to_string()),
        ("epoch ended", moment(base.meta.ended_ms)),
        (
            "made",
            format!(
                "{}, {} ago, by {}",
                moment(base.made_ms),
                age(now_ms - base.made_ms),
                base.writer
            ),
        ),
        ("input offsets", offsets(&base.meta.cut)),
        ("changelog offsets", offsets(&base.meta.changelog)),
        ("plan", base.plan.clone()),
        ("backend", base.backend.clone()),
        (
            "older ones kept",
            if history.is_empty() {
                "none".to_owned()
            } else {
                history.join(", ")
            },
        ),
        ("it holds", held),
        (
            "since the beginning",
            count(usize::try_from(base.depth).unwrap_or(usize::MAX), "increment"),
        ),
        (
            "size",
            format!("{} in {}", size(base.bytes()), count(base.files.len(), "file")),
        ),
    ];
    writeln!(out, "base snapshot {} of task {}", base.id, base.task)?;
    for (name, value) in lines {
        writeln!(out, "  {name:20} {value}")?;
    }
    let mut stores = Table::new(&["store", "ordered", "codecs"]);
    for store in &base.stores {
        let ordered = if store.ordered { "yes" } else { "no" };
        stores.row(vec![store.name.clone(), ordered.to_owned(), store.codecs.clone()]);
    }
    writeln!(out)?;
    stores.write(2, out)?;
    let mut files = Table::new(&["file", "bytes>", "object", "offset>", "hash"]);
    for file in &base.files {
        files.row(vec![
            file.name.clone(),
            file.bytes.to_string(),
            file.object.clone(),
            file.offset.to_string(),
            file.hash.short(),
        ]);
    }
    writeln!(out)?;
    Ok(files.write(2, out)?)
}

fn show_pack(tool: &Tool, pack: &PackId, out: &mut dyn Write) -> Result<(), BoxError> {
    let store = tool.store()?;
    let footer = Catalogue::footer(&*store, pack)?;
    if tool.json {
        return Ok(write_json(&serde_json::to_value(&footer)?, out)?);
    }
    let object = pack.object();
    writeln!(
        out,
        "increments {pack}\n  {:20} {object}\n  {:20} {}\n",
        "object", "plan", footer.plan
    )?;
    let mut table = Table::new(&[
        "task",
        "lineage",
        "epoch>",
        "ended",
        "entries>",
        "bytes>",
        "before it>",
        "since base>",
        "input offsets",
    ]);
    for packed in &footer.tasks {
        let meta = packed.meta(&object).map_err(OfflineError::from)?;
        let cut: Vec<String> = meta
            .cut
            .iter()
            .map(|(at, offset)| format!("{at} at {offset}"))
            .collect();
        table.row(vec![
            packed.task().map(|task| task.to_string()).unwrap_or_default(),
            meta.lineage.to_string(),
            meta.epoch.to_string(),
            moment(meta.ended_ms),
            packed.entries.to_string(),
            packed.bytes.to_string(),
            packed.depth.to_string(),
            packed.chain_objects.to_string(),
            cut.join(", "),
        ]);
    }
    Ok(table.write(2, out)?)
}

// ---------------------------------------------------------------------------------------------- verify and fsck

fn run_verify(tool: &Tool, matches: &ArgMatches, out: &mut dyn Write) -> Result<(), BoxError> {
    let catalogue = tool.catalogue(scope(matches))?;
    let task = matches.get_one::<TaskId>("task").copied();
    let id = matches.get_one::<String>("snapshot");
    let id = id.map(|id| id.parse::<SnapshotId>()).transpose();
    let id = id.map_err(|reason| catalogue.unknown(reason, std::iter::empty()))?;
    let bases: Vec<&Manifest> = match (id, task) {
        (Some(id), Some(task)) => vec![catalogue.base(task, id)?],
        (Some(id), None) => vec![catalogue.base(catalogue.task_of(id)?, id)?],
        (None, Some(task)) if catalogue.bases_of(task).is_empty() => vec![catalogue.newest(task)?],
        (None, Some(task)) => catalogue.bases_of(task).iter().collect(),
        (None, None) => catalogue.bases.values().flatten().collect(),
    };
    let mut verified = verify(&catalogue, &bases, &tool.progress)?;
    if id.is_none() {
        // A manifest that cannot be read is no snapshot that could be verified, and still a finding.
        verified.broken.extend(catalogue.broken);
        verified.broken.sort_by(|a, b| a.object.cmp(&b.object));
        verified.broken.dedup_by(|a, b| a.object == b.object);
    }
    let broken = &verified.broken;
    let root = catalogue.store.root().to_owned();
    if tool.json {
        let objects: Vec<Value> = broken
            .iter()
            .map(|broken| json!({"object": broken.object, "code": broken.error.code(), "what": broken.error.to_string()}))
            .collect();
        let all = json!({
            "root": root, "bases": verified.bases, "increments": verified.increments, "objects": verified.objects,
            "bytes": verified.bytes, "broken": objects,
        });
        write_json(&all, out)?;
    } else {
        for broken in broken {
            writeln!(out, "broken [{}]: {}", broken.error.code(), broken.error)?;
        }
        let verdict = if broken.is_empty() { "whole" } else { "read" };
        writeln!(
            out,
            "{verdict}: {}, {}; {} in {}",
            count(verified.bases, "base snapshot"),
            count(verified.increments, "increment"),
            size(verified.bytes),
            count(verified.objects, "object")
        )?;
    }
    conclude(root, broken.len())
}

fn conclude(root: String, count: usize) -> Result<(), BoxError> {
    match count {
        0 => Ok(()),
        count => Err(OfflineError::Findings { root, count }.into()),
    }
}

fn run_fsck(tool: &Tool, matches: &ArgMatches, out: &mut dyn Write) -> Result<(), BoxError> {
    let log = if matches.get_flag("offline") { None } else { tool.log()? };
    let mut catalogue = tool.catalogue(Scope::ALL)?;
    let pointers = match &log {
        None => None,
        Some(log) => {
            let pointers = catalogue.pointers(&**log, tool.application()?)?;
            // What they name was there when they were read: it is found by a listing that is later.
            catalogue.refresh(&tool.progress)?;
            Some(pointers)
        }
    };
    let grace_ms = tool.configuration.settings().snapshot.grace.as_millis();
    let findings = fsck(&catalogue, pointers.as_ref(), grace_ms, tool.now_ms())?;
    let broken = findings.iter().filter(|finding| finding.grade == Grade::Broken).count();
    if tool.json {
        let findings: Vec<Value> = findings.iter().map(finding_json).collect();
        let (objects, bytes) = totals(&catalogue);
        let all = json!({
            "root": catalogue.root(), "asked_kafka": pointers.is_some(), "objects": objects, "bytes": bytes, "broken": broken,
            "findings": findings,
        });
        write_json(&all, out)?;
    } else {
        print_findings(&findings, out)?;
        let (objects, bytes) = totals(&catalogue);
        let asked = match pointers {
            Some(_) => "what the group has committed is there as far as nothing above says otherwise",
            None => "Kafka was not asked what is committed",
        };
        writeln!(
            out,
            "{}: {}, {}; {} broken, {}; {asked}",
            catalogue.root(),
            count(objects, "object"),
            size(bytes),
            broken,
            count(findings.len() - broken, "note")
        )?;
    }
    conclude(catalogue.root(), broken)
}

fn finding_json(finding: &Finding) -> Value {
    let grade = match finding.grade {
        Grade::Broken => "broken",
        Grade::Note => "note",
    };
    json!({
        "grade": grade, "object": finding.object, "what": finding.what, "code": finding.code, "remedy": finding.remedy,
        "age_ms": finding.age_ms, "bytes": finding.bytes,
    })
}

/// By what was found: each object, and what to do once.
fn print_findings(findings: &[Finding], out: &mut dyn Write) -> Result<(), BoxError> {
    let mut groups: Vec<(&Finding, Vec<&Finding>)> = Vec::new();
    for finding in findings {
        let same = |group: &&mut (&Finding, Vec<&Finding>)| {
            group.0.what == finding.what && group.0.grade == finding.grade && group.0.remedy == finding.remedy
        };
        match groups.iter_mut().find(same) {
            Some((_, members)) => members.push(finding),
            None => groups.push((finding, vec![finding])),
        }
    }
    for (first, members) in groups {
        let grade = match (first.grade, first.code) {
            (Grade::Broken, Some(code)) => format!("broken [{code}]"),
            (Grade::Broken, None) => "broken".to_owned(),
            (Grade::Note, _) => "note".to_owned(),
        };
        writeln!(out, "{grade}: {}", first.what)?;
        let mut table = Table::new(&["object", "bytes>", "age"]);
        for finding in members.iter().take(SHOWN) {
            let aged = finding.age_ms.map(age).unwrap_or_default();
            table.row(vec![finding.object.clone(), size(finding.bytes), aged]);
        }
        table.write(2, out)?;
        if members.len() > SHOWN {
            let bytes = members.iter().map(|finding| finding.bytes).sum();
            writeln!(
                out,
                "  … {} in all, {} (--json has them all)",
                members.len(),
                size(bytes)
            )?;
        }
        writeln!(out, "  → {}\n", first.remedy)?;
    }
    Ok(())
}

// ---------------------------------------------------------------------------------------------- gc

fn run_gc(tool: &Tool, matches: &ArgMatches, out: &mut dyn Write) -> Result<(), BoxError> {
    let log = tool.log()?.ok_or(OfflineError::NoKafka {
        remedy: "for nothing may be deleted without; snapshot fsck shows what nobody in the repository refers to",
    })?;
    let dry_run = matches.get_flag("dry-run");
    let settings = tool.configuration.settings();
    let given = matches.get_one::<HumanDuration>("grace").map(|grace| grace.0);
    let garbage = Garbage {
        log,
        application: tool.application()?,
        settings: settings.snapshot.settings(),
        grace: given.unwrap_or(settings.snapshot.grace.0),
        transaction_timeout: settings.kafka.transaction_timeout.0,
        clock: tool.clock(),
    };
    let catalogue = tool.catalogue(Scope::ALL)?;
    let unneeded = garbage.collect(&catalogue, !dry_run)?;
    let bytes: u64 = unneeded.iter().map(|unneeded| unneeded.blob.bytes).sum();
    if tool.json {
        let objects: Vec<Value> = unneeded
            .iter()
            .map(|Unneeded { blob, why }| {
                let age_ms = tool.now_ms() - blob.written_ms;
                json!({"object": blob.name, "bytes": blob.bytes, "age_ms": age_ms, "why": why})
            })
            .collect();
        let all = json!({"root": catalogue.root(), "dry_run": dry_run, "bytes": bytes, "objects": objects});
        return Ok(write_json(&all, out)?);
    }
    let mut reasons: Vec<&str> = unneeded.iter().map(|unneeded| unneeded.why).collect();
    reasons.sort_unstable();
    reasons.dedup();
    for why in reasons {
        let some: Vec<&Unneeded> = unneeded.iter().filter(|unneeded| unneeded.why == why).collect();
        writeln!(out, "{why}:")?;
        let mut table = Table::new(&["object", "bytes>", "age"]);
        for Unneeded { blob, .. } in some.iter().take(SHOWN) {
            table.row(vec![
                blob.name.clone(),
                size(blob.bytes),
                age(tool.now_ms() - blob.written_ms),
            ]);
        }
        table.write(2, out)?;
        if some.len() > SHOWN {
            writeln!(out, "  … {} in all (--json has them all)", some.len())?;
        }
        writeln!(out)?;
    }
    let (number, root) = (count(unneeded.len(), "object"), catalogue.root());
    match dry_run {
        true => writeln!(out, "{root}: {number}, {} would be deleted", size(bytes))?,
        false => writeln!(out, "{root}: {number}, {} deleted", size(bytes))?,
    }
    Ok(())
}

// ---------------------------------------------------------------------------------------------- export

fn run_export(tool: &Tool, matches: &ArgMatches, out: &mut dyn Write) -> Result<(), BoxError> {
    let task = matches.get_one::<TaskId>("task").copied();
    let at = matches.get_one::<u64>("at").copied().map(Epoch);
    let catalogue = tool.catalogue(scope(matches))?;
    let tasks = match task {
        Some(task) => vec![task],
        None => catalogue.tasks(),
    };
    let mut chosen = Vec::new();
    for task in tasks {
        let (base, at) = catalogue.choose(task, None, at)?;
        let branch = catalogue.branch(base, &at)?;
        chosen.push(Chosen { base, branch });
    }
    let url = matches.get_one::<String>("to").map(String::as_str).unwrap_or_default();
    let named = matches.get_one::<String>("as").map(String::as_str);
    let to = tool.new_folder(url, named.map_or_else(|| tool.application(), Ok)?)?;
    let exported = export(&catalogue, &chosen, &to, tool.now_ms(), &tool.progress)?;
    if tool.json {
        let heads: Vec<Value> = chosen
            .iter()
            .map(|Chosen { base, branch }| {
                json!({"task": base.task.to_string(), "base": base.id.to_string(), "epoch": branch.epoch(base).0})
            })
            .collect();
        let all = json!({
            "from": catalogue.root(), "to": to.root(), "tasks": heads, "objects": exported.objects, "bytes": exported.bytes,
        });
        write_json(&all, out)?;
    } else {
        let mut table = Table::new(&["task", "base", "increments>", "epoch>"]);
        for Chosen { base, branch } in &chosen {
            table.row(vec![
                base.task.to_string(),
                base.id.to_string(),
                branch.increments.len().to_string(),
                branch.epoch(base).to_string(),
            ]);
        }
        writeln!(out, "{} → {}\n", catalogue.root(), to.root())?;
        table.write(2, out)?;
        let number = count(exported.objects, "object");
        writeln!(out, "\n{number}, {} copied and read back", size(exported.bytes))?;
    }
    for broken in &exported.verified.broken {
        writeln!(out, "broken [{}]: {}", broken.error.code(), broken.error)?;
    }
    conclude(to.root().to_owned(), exported.verified.broken.len())
}
