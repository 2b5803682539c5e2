//! `snapshot verify|fsck`: whether everything is as it was stored, and nothing lacking.

use std::io::Write;

use clap::ArgMatches;
use serde_json::{Value, json};

use super::{conclude, scope, totals};
use crate::durability::snapshot::{Manifest, SnapshotId};
use crate::errors::Coded;
use crate::ids::TaskId;
use crate::offline::{Finding, Grade, Scope, fsck, verify};
use crate::service::application::BoxError;
use crate::service::cli::table::{Table, age, count, size, write_json};
use crate::service::cli::tools::Tool;

/// So many findings of one kind are shown in a table; JSON has all.
const SHOWN: usize = 20;

pub(super) fn verify_all(tool: &Tool, matches: &ArgMatches, out: &mut dyn Write) -> Result<(), BoxError> {
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

pub(super) fn check(tool: &Tool, matches: &ArgMatches, out: &mut dyn Write) -> Result<(), BoxError> {
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
