//! What the service's log says about how tasks were opened: what was found on the disk, and how much was read back.

use std::collections::BTreeMap;

use serde_json::Value;

/// What one start of an instance did with one task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// What was found on the disk, in the words of the log.
    pub found: String,
    /// Records read back from changelogs, or from increments in the object store.
    pub restored: u64,
    /// Increments read back from the object store.
    pub increments: u64,
    /// Base snapshots put onto the disk.
    pub bases: u64,
    /// How often its strategy has changed.
    pub changes: u64,
    /// Whether the log says how many records were read back.
    pub is_counted: bool,
}

impl Opening {
    /// Whether something was read back without a word about how much.
    pub fn is_untold(&self) -> bool {
        let needs_nothing = matches!(self.found.as_str(), "nothing" | "the committed epoch");
        !needs_nothing && !self.is_counted
    }
}

/// The tasks that a process has opened, from its log in JSON lines. A last line that a kill cut off is left out.
pub fn read(log: &str) -> BTreeMap<String, Opening> {
    let mut openings: BTreeMap<String, Opening> = BTreeMap::new();
    let mut underway: BTreeMap<String, Opening> = BTreeMap::new();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    for line in lines {
        let Some(task) = line["task"].as_str() else {
            continue;
        };
        let number = |field: &str| line[field].as_u64().unwrap_or_default();
        match line["message"].as_str() {
            Some("changelogs replayed" | "increments applied") => {
                let opening = underway.entry(task.to_owned()).or_default();
                opening.restored += number("records");
                opening.increments += number("increments");
                opening.is_counted = true;
            }
            Some("the strategy has changed") => openings.entry(task.to_owned()).or_default().changes += 1,
            Some("base snapshot installed") => underway.entry(task.to_owned()).or_default().bases += 1,
            Some("task opened") => {
                let opening = openings.entry(task.to_owned()).or_default();
                line["found"]
                    .as_str()
                    .unwrap_or_default()
                    .clone_into(&mut opening.found);
                // A task that moves away and comes back is opened again by the same process.
                if let Some(more) = underway.remove(task) {
                    opening.restored += more.restored;
                    opening.increments += more.increments;
                    opening.bases += more.bases;
                    opening.is_counted |= more.is_counted;
                }
            }
            _ => {}
        }
    }
    openings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str, task: &str, rest: &str) -> String {
        format!(r#"{{"level":"INFO","message":"{message}","task":"{task}"{rest}}}"#)
    }

    #[test]
    fn tasks_are_opened_with_what_was_found_and_read_back() {
        let log = [
            r#"{"level":"INFO","message":"plan recorded"}"#.to_owned(),
            line("task opened", "0_0", r#","found":"the committed epoch""#),
            line("changelogs replayed", "0_1", r#","records":7,"offsets":9"#),
            line("task opened", "0_1", r#","found":"an earlier epoch""#),
            line("changelogs replayed", "0_2", r#","records":3,"offsets":3"#),
            line("task opened", "1_0", r#","found":"nothing that can be used""#),
            line("base snapshot installed", "0_3", r#","snapshot":"9","bytes":1"#),
            line("increments applied", "0_3", r#","increments":2,"records":5"#),
            line("task opened", "0_3", r#","found":"nothing that can be used""#),
            r#"{"level":"INFO","mess"#.to_owned(),
        ];
        let openings = read(&log.join("\n"));
        assert_eq!(openings.len(), 4, "{openings:?}");
        let stored = &openings["0_3"];
        assert_eq!((stored.restored, stored.increments, stored.bases), (5, 2, 1));
        assert_eq!((openings["0_0"].restored, openings["0_0"].is_untold()), (0, false));
        assert_eq!((openings["0_1"].restored, openings["0_1"].is_untold()), (7, false));
        assert!(
            openings["1_0"].is_untold(),
            "a rebuild without a replay line is not a rebuild of nothing"
        );
    }
}
