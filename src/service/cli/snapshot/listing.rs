//! `snapshot list|show`: what a repository has, and what there is of one object.

use std::collections::BTreeSet;
use std::io::Write;

use clap::ArgMatches;
use serde_json::{Value, json};

use super::{scope, totals};
use crate::durability::snapshot::{Manifest, PackId, SnapshotId};
use crate::errors::Coded;
use crate::ids::{Epoch, TaskId};
use crate::offline::{At, Branch, Catalogue, OfflineError, Scope};
use crate::service::application::BoxError;
use crate::service::cli::table::{Table, age, count, moment, size, write_json};
use crate::service::cli::tools::Tool;
use crate::time::Millis;

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

pub(super) fn list(tool: &Tool, matches: &ArgMatches, out: &mut dyn Write) -> Result<(), BoxError> {
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

pub(super) fn show(tool: &Tool, matches: &ArgMatches, out: &mut dyn Write) -> Result<(), BoxError> {
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
