//! Names of objects in the snapshot repository (design §6). All are relative to the application's folder.

use std::fmt;
use std::str::FromStr;

use crate::ids::{Epoch, TaskId};

/// Longest part of an instance's name that goes into names of objects; attempts keep them apart anyway.
const MAX_INSTANCE_CHARS: usize = 64;

/// One attempt to write something: what it writes has it in its names, so that no two attempts share a name (invariant I10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u64);

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Attempt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match u64::from_str_radix(text, 16) {
            Ok(bits) if text.len() == 16 => Ok(Attempt(bits)),
            _ => Err(format!("{text:?} is not an attempt; expected 16 hex digits")),
        }
    }
}

/// A base snapshot of one task: the epoch that it holds, and the attempt that wrote it. Printed as `<epoch>-<attempt>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId {
    /// The epoch.
    pub epoch: Epoch,
    /// The attempt.
    pub attempt: Attempt,
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.attempt)
    }
}

impl FromStr for SnapshotId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('-').and_then(|(epoch, attempt)| {
            Some(SnapshotId {
                epoch: Epoch(epoch.parse().ok()?),
                attempt: attempt.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| format!("{text:?} is not a snapshot; expected <epoch>-<attempt>"))
    }
}

impl SnapshotId {
    /// Name of its manifest.
    pub fn manifest(&self, task: TaskId) -> String {
        format!("{}{self}.json", manifests_folder(task))
    }

    /// The snapshot whose manifest has this name in the folder of `task`.
    pub fn of_manifest(task: TaskId, name: &str) -> Option<Self> {
        let file = name.strip_prefix(&manifests_folder(task))?;
        file.strip_suffix(".json")?.parse().ok()
    }
}

/// Who writes increments: a worker of an instance. Printed as `<instance>/<worker>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriterName(String);

impl WriterName {
    /// The worker `worker` of the instance `instance`, in characters that every store takes in names.
    pub fn new(instance: &str, worker: &str) -> Self {
        let plain = |text: &str| -> String {
            let plain = |char: char| if is_plain(char) { char } else { '_' };
            text.chars().take(MAX_INSTANCE_CHARS).map(plain).collect()
        };
        Self(format!("{}/{}", plain(instance), plain(worker)))
    }
}

fn is_plain(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-')
}

impl fmt::Display for WriterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A packed object of increments. Printed as `<instance>/<worker>/<sequence>-<attempt>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId {
    /// Who wrote it.
    pub writer: WriterName,
    /// The how-manieth of the writer's process, from 1; for people.
    pub sequence: u64,
    /// The attempt.
    pub attempt: Attempt,
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}-{}", self.writer, self.sequence, self.attempt)
    }
}

impl FromStr for PackId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = || {
            let (writer, file) = text.rsplit_once('/')?;
            let (instance, worker) = writer.split_once('/')?;
            let (sequence, attempt) = file.split_once('-')?;
            let id = PackId {
                writer: WriterName::new(instance, worker),
                sequence: sequence.parse().ok()?,
                attempt: attempt.parse().ok()?,
            };
            (id.writer.0 == writer).then_some(id)
        };
        parsed().ok_or_else(|| {
            format!("{text:?} is not a pack of increments; expected <instance>/<worker>/<sequence>-<attempt>")
        })
    }
}

/// Folder of all packs.
pub const PACKS_FOLDER: &str = "increments/";

impl PackId {
    /// Name of the object.
    pub fn object(&self) -> String {
        format!("{PACKS_FOLDER}{self}.tgi")
    }

    /// The pack that has this name.
    pub fn of_object(name: &str) -> Option<Self> {
        name.strip_prefix(PACKS_FOLDER)?.strip_suffix(".tgi")?.parse().ok()
    }
}

/// Folder of the packs of `writer`.
pub fn packs_folder(writer: &WriterName) -> String {
    format!("{PACKS_FOLDER}{writer}/")
}

/// Folder of everything of a task but its increments.
pub fn task_folder(task: TaskId) -> String {
    format!("tasks/{task}/")
}

/// Folder of a task's manifests.
pub fn manifests_folder(task: TaskId) -> String {
    format!("tasks/{task}/manifests/")
}

/// Folder of the files that a task's manifests refer to.
pub fn files_folder(task: TaskId) -> String {
    format!("tasks/{task}/files/")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: TaskId = TaskId {
        sub_topology: 1,
        partition: 7,
    };

    #[test]
    fn names_are_read_back() {
        let snapshot = SnapshotId {
            epoch: Epoch(41),
            attempt: Attempt(0xabc),
        };
        assert_eq!(snapshot.manifest(TASK), "tasks/1_7/manifests/41-0000000000000abc.json");
        assert_eq!(SnapshotId::of_manifest(TASK, &snapshot.manifest(TASK)), Some(snapshot));
        let pack = PackId {
            writer: WriterName::new("host-1", "worker-0"),
            sequence: 12,
            attempt: Attempt(1),
        };
        assert_eq!(pack.object(), "increments/host-1/worker-0/12-0000000000000001.tgi");
        assert_eq!(PackId::of_object(&pack.object()), Some(pack));
    }

    #[test]
    fn names_of_others_are_not_taken_for_ours() {
        for name in [
            "increments/a/b/c.tgi",
            "increments/a/b/1-2.tgi",
            "increments/a;/b/1-0000000000000001.tgi",
            "x",
        ] {
            assert_eq!(PackId::of_object(name), None, "{name}");
        }
        assert_eq!(
            SnapshotId::of_manifest(TASK, "tasks/1_8/manifests/41-0000000000000abc.json"),
            None
        );
    }

    #[test]
    fn an_instance_with_a_strange_and_long_name_writes_under_a_plain_one() {
        let name = WriterName::new(&"ü/;".repeat(100), "worker-0").to_string();
        assert!(name.chars().all(|char| is_plain(char) || char == '/'), "{name}");
        assert!(name.len() < 80, "{name}");
    }
}
