//! `snapshot gc`: deleting what nobody refers to.

use std::io::Write;

use clap::ArgMatches;
use serde_json::{Value, json};

use crate::offline::{Garbage, OfflineError, Scope, Unneeded};
use crate::service::application::BoxError;
use crate::service::cli::table::{Table, age, count, size, write_json};
use crate::service::cli::tools::Tool;
use crate::time::HumanDuration;

/// So many findings of one kind are shown in a table; JSON has all.
const SHOWN: usize = 20;

pub(super) fn collect(tool: &Tool, matches: &ArgMatches, out: &mut dyn Write) -> Result<(), BoxError> {
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
