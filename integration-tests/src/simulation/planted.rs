//! `make planted`: one planted bug after the other, and how many seeds it takes to find it.

use std::fmt::Write as _;

use tidegate::durability::Durability;
use tidegate::planted::{Bug, plant};

use super::{Options, run};

/// Plants each bug and runs seeds until one fails. Answers a table in Markdown, and the bugs that were not found.
pub fn find_planted(options: &Options) -> (String, Vec<Bug>) {
    let mut table = String::from("| bug | seeds to find it | how it shows |\n|---|---|---|\n");
    let mut missed = Vec::new();
    let wanted = |bug: &Bug| options.bug.as_ref().is_none_or(|name| *name == format!("{bug:?}"));
    for bug in Bug::ALL.into_iter().filter(wanted) {
        plant(Some(bug));
        let report = run(&Options {
            first: true,
            strategy: strategy(bug).unwrap_or(options.strategy),
            savepoints: is_of_savepoints(bug),
            change: is_of_changes(bug),
            keep: true,
            ..options.clone()
        });
        plant(None);
        let found = report.failed.iter().min_by_key(|failed| failed.seed);
        // Writing to a string does not fail.
        let _ = match found {
            Some(found) => {
                let failure = found.smallest.failure.as_deref().unwrap_or_default();
                let (seeds, shows) = (found.seed - options.from + 1, first_words(failure));
                writeln!(table, "| `{bug:?}` | {seeds} | {}: {shows} |", found.workload)
            }
            None => {
                missed.push(bug);
                writeln!(table, "| `{bug:?}` | not within {} | |", options.seeds)
            }
        };
        eprintln!("{}", table.lines().last().unwrap_or_default());
    }
    (table, missed)
}

/// Whether only savepoints have a bug.
fn is_of_savepoints(bug: Bug) -> bool {
    matches!(
        bug,
        Bug::SavepointWithoutStages | Bug::SavepointBeforeCommit | Bug::SavepointBeforeUpload
    )
}

/// Whether only changes of the strategy have a bug.
fn is_of_changes(bug: Bug) -> bool {
    matches!(bug, Bug::ArriveEarly | Bug::ForgetSince | Bug::ReplayAcrossChanges)
}

/// The strategy that has a bug; `None` where all have it.
fn strategy(bug: Bug) -> Option<Durability> {
    match bug {
        Bug::CommitBeforeStored
        | Bug::BaseNeedsNoName
        | Bug::CollectAtOnce
        | Bug::CollectOlderBases
        | Bug::CollectBeforeListing
        | Bug::NothingIsNoRestorePoint
        | Bug::RetireBeforeNamed
        | Bug::SpillNothing
        | Bug::SpillTooFar => Some(Durability::Snapshot),
        Bug::TrimToNewest | Bug::TrimmedIsGone => Some(Durability::ChangelogAndSnapshot),
        _ => None,
    }
}

/// The beginning of a failure, in one line.
fn first_words(failure: &str) -> String {
    const MOST: usize = 110;
    let line = failure
        .lines()
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "/");
    let line = line.replace("assertion `left == right` failed: ", "");
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
