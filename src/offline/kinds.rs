//! What an object is, by its name.

use crate::durability::savepoint::{REQUESTS_FOLDER, SAVEPOINTS_FOLDER};
use crate::durability::snapshot::{PackId, SnapshotId, files_folder};
use crate::ids::TaskId;

use super::heads::EXPORT;

/// What an object is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The manifest of a base snapshot.
    Manifest(TaskId, SnapshotId),
    /// Files of a task's databases.
    File(TaskId),
    /// A pack of increments.
    Pack(PackId),
    /// Part of a savepoint, which belongs to the user, or a request for one.
    Savepoint,
    /// What says that a repository is an export.
    Export,
    /// Nothing that Tidegate writes.
    Stranger,
}

impl Kind {
    /// One word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Kind::Manifest(..) => "manifest",
            Kind::File(_) => "file",
            Kind::Pack(_) => "increments",
            Kind::Savepoint => "savepoint",
            Kind::Export => "export",
            Kind::Stranger => "foreign",
        }
    }
}

/// What the object of this name is.
pub fn kind(name: &str) -> Kind {
    if let Some(pack) = PackId::of_object(name) {
        return Kind::Pack(pack);
    }
    if name == EXPORT {
        return Kind::Export;
    }
    if name.starts_with(SAVEPOINTS_FOLDER) || name.starts_with(REQUESTS_FOLDER) {
        return Kind::Savepoint;
    }
    let task = name.strip_prefix("tasks/").and_then(|rest| rest.split_once('/'));
    let Some(task) = task.and_then(|(task, _)| task.parse::<TaskId>().ok()) else {
        return Kind::Stranger;
    };
    if let Some(id) = SnapshotId::of_manifest(task, name).filter(|id| id.manifest(task) == name) {
        return Kind::Manifest(task, id);
    }
    let is_file = |file: &str| !file.contains('/') && (file.ends_with(".sst") || file.ends_with(".pack"));
    match name.strip_prefix(&files_folder(task)).is_some_and(is_file) {
        true => Kind::File(task),
        false => Kind::Stranger,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_objects_are_and_those_of_others_are_strangers() {
        let word = |name| kind(name).word();
        assert_eq!(word("tasks/0_3/manifests/41-0000000000000abc.json"), "manifest");
        assert_eq!(word("tasks/0_3/files/0000000000000abc-0.pack"), "file");
        assert_eq!(word("increments/a/worker-0/1-0000000000000001.tgi"), "increments");
        assert_eq!(word("savepoints/before-upgrade/savepoint.json"), "savepoint");
        assert_eq!(word("requests/before-upgrade.json"), "savepoint");
        for stranger in [
            "notes.txt",
            "tasks/x/files/a.sst",
            "tasks/0_3/manifests/041-0000000000000abc.json",
            "tasks/0_3/files/a/b.sst",
            "increments/a/b",
        ] {
            assert_eq!(kind(stranger), Kind::Stranger, "{stranger}");
        }
    }
}
