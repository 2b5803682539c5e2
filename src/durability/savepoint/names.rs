//! Names of savepoints and of their objects, relative to the application's folder.

use std::fmt;
use std::str::FromStr;

use crate::durability::snapshot::Attempt;
use crate::ids::TaskId;

/// Folder of all savepoints.
pub const SAVEPOINTS_FOLDER: &str = "savepoints/";
/// Folder of what is asked for and not done yet: empty as a rule, so that looking there costs little.
pub const REQUESTS_FOLDER: &str = "requests/";

const MAX_CHARS: usize = 64;

/// Name of a savepoint: 1 to 64 ASCII letters, digits, `.`, `_` and `-`, not beginning with `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SavepointName(String);

impl FromStr for SavepointName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-');
        let is_right =
            !text.is_empty() && text.len() <= MAX_CHARS && !text.starts_with('.') && text.chars().all(is_plain);
        match is_right {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "{text:?} is not the name of a savepoint; use 1 to {MAX_CHARS} letters, digits, '.', '_' and '-', and no '.' at the begin"
            )),
        }
    }
}

impl fmt::Display for SavepointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SavepointName {
    /// The folder that holds everything of the savepoint.
    pub fn folder(&self) -> String {
        format!("{SAVEPOINTS_FOLDER}{self}/")
    }

    /// The object that makes it one: created last.
    pub fn document(&self) -> String {
        format!("{}savepoint.json", self.folder())
    }

    /// The object that asks for it.
    pub fn request(&self) -> String {
        format!("{REQUESTS_FOLDER}{self}.json")
    }

    /// The savepoint in whose folder an object lies.
    pub fn of_object(object: &str) -> Option<Self> {
        let (name, _) = object.strip_prefix(SAVEPOINTS_FOLDER)?.split_once('/')?;
        name.parse().ok()
    }
}

/// The folder of one attempt to take a savepoint: within the savepoint's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptFolder {
    /// The savepoint's folder.
    folder: String,
    attempt: Attempt,
}

impl AttemptFolder {
    /// The folder of `attempt` to take the savepoint `name`.
    pub fn new(name: &SavepointName, attempt: Attempt) -> Self {
        Self {
            folder: name.folder(),
            attempt,
        }
    }

    /// The folder itself.
    pub fn path(&self) -> String {
        format!("{}{}/", self.folder, self.attempt)
    }

    /// What says which tasks there are.
    pub fn census(&self) -> String {
        format!("{}census.json", self.path())
    }

    /// Where tasks say that they stand still.
    pub fn markers(&self) -> String {
        format!("{}frozen/", self.path())
    }

    /// What says that a task stands still, and at which epoch.
    pub fn marker(&self, task: TaskId) -> String {
        format!("{}{task}.json", self.markers())
    }

    /// What says that nothing comes of the attempt; it lies among the markers.
    pub fn failure(&self) -> String {
        format!("{}failed.json", self.markers())
    }

    /// Where tasks say what they have stored.
    pub fn parts(&self) -> String {
        format!("{}parts/", self.path())
    }

    /// What says what a task has stored.
    pub fn part(&self, task: TaskId) -> String {
        format!("{}{task}.json", self.parts())
    }

    /// The task whose marker or part this is.
    pub fn task_of(object: &str) -> Option<TaskId> {
        object.rsplit('/').next()?.strip_suffix(".json")?.parse().ok()
    }

    /// Name of a file of a task, relative to the savepoint's folder.
    pub fn file(&self, task: TaskId, name: &str) -> String {
        format!("{}/{task}/{name}", self.attempt)
    }
}
