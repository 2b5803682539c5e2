//! The state directory of an instance: whose it is, and that nobody else uses it.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{StateError, StateResult, beside};
use crate::ids::TaskId;

const MARKER: &str = "tidegate.json";
const LOCK: &str = "lock";
const FORMAT: u32 = 1;

/// The directory `<state.dir>/<application id>` of one instance, locked while this value lives.
///
/// It holds a marker file that says whose it is, a lock file, one directory per task, and what lies beside some of them.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    marker: Marker,
    _lock: File,
}

/// The marker file, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    format: u32,
    application_id: String,
    instance_id: String,
}

impl StateDirectory {
    /// Opens or creates the directory of `application_id` below `state_dir`. A new one is given `instance_id`; one
    /// that exists keeps the id that it has.
    ///
    /// # Errors
    /// [`StateError::Locked`] while another process uses it, [`StateError::Foreign`] where it belongs to another
    /// application or has another format, [`StateError::Io`].
    pub fn open(state_dir: &Path, application_id: &str, instance_id: &str) -> StateResult<Self> {
        let path = state_dir.join(application_id);
        std::fs::create_dir_all(&path).map_err(|error| failed(&path, "created", &error))?;
        let lock = lock(&path)?;
        let marker = match read_marker(&path)? {
            Some(marker) => marker,
            None => {
                refuse_unmarked(&path)?;
                let marker = Marker {
                    format: FORMAT,
                    application_id: application_id.to_owned(),
                    instance_id: instance_id.to_owned(),
                };
                write_marker(&path, &marker).map_err(|error| failed(&path, "written", &error))?;
                marker
            }
        };
        let foreign = |reason: String| StateError::Foreign {
            path: path.clone(),
            reason,
        };
        if marker.format != FORMAT {
            return Err(foreign(format!(
                "its format is {}, this version writes {FORMAT}",
                marker.format
            )));
        }
        if marker.application_id != application_id {
            return Err(foreign(format!(
                "it belongs to application {:?}",
                marker.application_id
            )));
        }
        beside::remove_checkpoints(&path).map_err(|error| failed(&path, "opened", &error))?;
        Ok(Self {
            path,
            marker,
            _lock: lock,
        })
    }

    /// The id that this directory's instance was given when it was new; stable over restarts.
    pub fn instance_id(&self) -> &str {
        &self.marker.instance_id
    }

    /// Where a task's database lies.
    pub fn task_path(&self, task: TaskId) -> PathBuf {
        self.path.join(task.to_string())
    }

    /// The tasks that have a database here, in order.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn tasks(&self) -> StateResult<Vec<TaskId>> {
        let entries = std::fs::read_dir(&self.path).map_err(|error| failed(&self.path, "read", &error))?;
        let mut tasks = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| failed(&self.path, "read", &error))?;
            tasks.extend(entry.file_name().to_str().and_then(|name| name.parse::<TaskId>().ok()));
        }
        tasks.sort_unstable();
        Ok(tasks)
    }
}

fn lock(path: &Path) -> StateResult<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.join(LOCK));
    let file = file.map_err(|error| failed(path, "locked", &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StateError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed(path, "locked", &error)),
    }
}

fn read_marker(path: &Path) -> StateResult<Option<Marker>> {
    let text = match std::fs::read(path.join(MARKER)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path, "read", &error)),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| StateError::Foreign {
            path: path.to_owned(),
            reason: format!("{MARKER} is not what Tidegate writes: {error}"),
        })
}

/// A directory without a marker must be empty but for the lock: nothing of somebody else's is taken over.
fn refuse_unmarked(path: &Path) -> StateResult<()> {
    let entries = std::fs::read_dir(path).map_err(|error| failed(path, "read", &error))?;
    for entry in entries {
        let entry = entry.map_err(|error| failed(path, "read", &error))?;
        let name = entry.file_name();
        if name != LOCK && name != format!("{MARKER}.new").as_str() {
            return Err(StateError::Foreign {
                path: path.to_owned(),
                reason: format!("it has no {MARKER} but holds {}", name.to_string_lossy()),
            });
        }
    }
    Ok(())
}

/// Appears whole or not at all: written beside, synced, renamed.
fn write_marker(path: &Path, marker: &Marker) -> std::io::Result<()> {
    let beside = path.join(format!("{MARKER}.new"));
    let mut file = File::create(&beside)?;
    file.write_all(&serde_json::to_vec_pretty(marker)?)?;
    file.sync_all()?;
    std::fs::rename(&beside, path.join(MARKER))
}

fn failed(path: &Path, operation: &'static str, error: &std::io::Error) -> StateError {
    let path = path.to_owned();
    match error.kind() {
        std::io::ErrorKind::StorageFull => StateError::DiskFull { path },
        _ => StateError::Io {
            path,
            operation,
            reason: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_identity_and_serves_one_process_at_a_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = StateDirectory::open(dir.path(), "app", "one").expect("it is new");
        assert_eq!(first.instance_id(), "one");
        assert!(matches!(
            StateDirectory::open(dir.path(), "app", "two"),
            Err(StateError::Locked { .. })
        ));
        let other = StateDirectory::open(dir.path(), "other", "two").expect("applications do not share one");
        assert_eq!(other.instance_id(), "two");
        std::fs::create_dir(first.task_path(TaskId {
            sub_topology: 1,
            partition: 0,
        }))
        .expect("a directory");
        assert_eq!(
            first.tasks().expect("it can be read"),
            [TaskId {
                sub_topology: 1,
                partition: 0
            }]
        );
        drop(first);
        let again = StateDirectory::open(dir.path(), "app", "three").expect("the lock is gone");
        assert_eq!(again.instance_id(), "one");
    }

    #[test]
    fn copies_that_a_process_has_left_go_and_are_no_tasks() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = StateDirectory::open(dir.path(), "app", "one").expect("it is new");
        let task: TaskId = "1_2".parse().expect("a task");
        let path = first.task_path(task);
        let copy = beside::new_checkpoint(&path);
        let cut_off = beside::half_made(&beside::new_checkpoint(&path));
        let kept = [path.clone(), beside::installing(&path), beside::installed(&path)];
        for directory in kept.iter().chain([&copy, &cut_off]) {
            std::fs::create_dir(directory).expect("a directory");
        }
        assert_eq!(first.tasks().expect("it can be read"), [task]);
        drop(first);
        let again = StateDirectory::open(dir.path(), "app", "one").expect("the lock is gone");
        assert!(!copy.exists() && !cut_off.exists());
        assert!(kept.iter().all(|directory| directory.exists()));
        assert_eq!(again.tasks().expect("it can be read"), [task]);
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("app")).expect("a directory");
        std::fs::write(dir.path().join("app").join("photos"), b"mine").expect("a file");
        assert!(matches!(
            StateDirectory::open(dir.path(), "app", "one"),
            Err(StateError::Foreign { .. })
        ));
        assert!(!dir.path().join("app").join(MARKER).exists());
        let marker = br#"{"format":1,"application_id":"former","instance_id":"x"}"#;
        std::fs::remove_file(dir.path().join("app").join("photos")).expect("it is there");
        std::fs::write(dir.path().join("app").join(MARKER), marker).expect("a file");
        match StateDirectory::open(dir.path(), "app", "one") {
            Err(StateError::Foreign { reason, .. }) => assert!(reason.contains("former"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}
