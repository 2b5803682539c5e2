//! `snapshot export`: a copy of what a restore needs.

use std::io::Write;

use clap::ArgMatches;
use serde_json::{Value, json};

use super::{conclude, scope};
use crate::errors::Coded;
use crate::ids::{Epoch, TaskId};
use crate::offline::{Chosen, export};
use crate::service::application::BoxError;
use crate::service::cli::table::{Table, count, size, write_json};
use crate::service::cli::tools::Tool;

pub(super) fn copy(tool: &Tool, matches: &ArgMatches, out: &mut dyn Write) -> Result<(), BoxError> {
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
