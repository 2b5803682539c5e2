//! The whole repository: what is referred to and missing, what is damaged, what nobody refers to.

use std::collections::{BTreeMap, BTreeSet};

use crate::blob::BlobError;
use crate::durability::snapshot::{FormatError, IncrementRef, Manifest, SnapshotId, StoredFile};
use crate::errors::Coded;
use crate::ids::{Epoch, TaskId};
use crate::time::Millis;
use crate::worker::SnapshotError;

use super::OfflineError;
use super::catalogue::{Broken, Catalogue, damaged};
use super::chain::At;
use super::kinds::{Kind, kind};
use super::pointers::Pointers;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// State, or a way back to older state, is lost or cannot be judged.
    Broken,
    /// Nothing is lost.
    Note,
}

/// Something about one object, or about what is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub grade: Grade,
    /// The object, or the task that it is about.
    pub object: String,
    /// What is found.
    pub what: String,
    /// The code whose page says more, where there is one.
    pub code: Option<&'static str>,
    /// What to do.
    pub remedy: &'static str,
    /// How long the object has been there, where that is known.
    pub age_ms: Option<Millis>,
    /// Its size.
    pub bytes: u64,
}

const RESTORE_OBJECT: &str =
    "bring the object back from a version or a copy of the bucket; tasks whose disks have the state go on without it";
const NEWER: &str = "use the version of tidegate that wrote it, or a later one";
const MISPLACED: &str = "it was moved or copied to a wrong name; bring the right one back from a copy";
const STRANGER: &str = "Tidegate never touches it; keep the folder for Tidegate alone";
const LEFTOVER: &str = "snapshot gc removes it, and so does any running instance";
const YOUNG: &str = "a commit may still name it; it goes after snapshot.grace";
const ASK: &str = "only Kafka says whether the group was deleted or the state is of a former life; look at the group before you start an instance";

/// What is referred to, and by what.
#[derive(Default)]
struct References {
    objects: BTreeSet<String>,
    broken: Vec<Broken>,
    findings: Vec<Finding>,
}

/// Looks at everything by name and size; contents are what `verify` reads. With `pointers`, what the group has committed decides what is
/// needed, else the newest base snapshot of each task does. `grace_ms` is `snapshot.grace`. The findings come worst first.
///
/// # Errors
/// What the store says.
pub fn fsck(
    catalogue: &Catalogue,
    pointers: Option<&Pointers>,
    grace_ms: Millis,
    now_ms: Millis,
) -> Result<Vec<Finding>, OfflineError> {
    let mut references = References::default();
    for task in catalogue.tasks() {
        let pointer = pointers.and_then(|pointers| pointers.get(&task));
        match pointer {
            Some(Some(pointer)) => {
                let increment = At::Committed(pointer.state.increment.clone());
                references.refer(catalogue, task, pointer.state.base, &increment)?;
            }
            Some(None) => {
                references.findings.push(nothing_committed(catalogue, task));
                references.refer(catalogue, task, None, &At::Newest)?;
            }
            None => references.refer(catalogue, task, None, &At::Newest)?,
        }
    }
    let References {
        objects: referenced,
        mut broken,
        mut findings,
    } = references;
    for found in &catalogue.broken {
        if let SnapshotError::Object(error) = &found.error {
            broken.push(Broken {
                object: found.object.clone(),
                error: error.clone().into(),
            });
        }
    }
    broken.sort_by(|a, b| a.object.cmp(&b.object));
    broken.dedup_by(|a, b| a.object == b.object);
    for found in broken {
        let is_missing = matches!(found.error, SnapshotError::Blob(BlobError::Missing { .. }));
        // What came after its folder was listed is there.
        if !is_missing || !catalogue.is_there(&found.object)? {
            findings.push(broken_finding(catalogue, found, now_ms));
        }
    }
    let is_broken: BTreeSet<String> = findings.iter().map(|finding| finding.object.clone()).collect();
    for blob in catalogue.objects.values() {
        if referenced.contains(&blob.name) || is_broken.contains(&blob.name) {
            continue;
        }
        let age_ms = now_ms.saturating_sub(blob.written_ms);
        let (what, remedy) = match kind(&blob.name) {
            Kind::Savepoint | Kind::Export => continue,
            Kind::Stranger => ("not a name that Tidegate gives", STRANGER),
            _ if age_ms < grace_ms => ("nobody refers to it yet, or any more", YOUNG),
            _ => ("nobody refers to it", LEFTOVER),
        };
        findings.push(Finding {
            grade: Grade::Note,
            object: blob.name.clone(),
            what: what.to_owned(),
            code: None,
            remedy,
            age_ms: Some(age_ms),
            bytes: blob.bytes,
        });
    }
    findings.sort_by(|a, b| (a.grade, &a.object).cmp(&(b.grade, &b.object)));
    Ok(findings)
}

fn nothing_committed(catalogue: &Catalogue, task: TaskId) -> Finding {
    let bases = catalogue.bases_of(task).len();
    Finding {
        grade: Grade::Broken,
        object: format!("task {task}"),
        what: format!("the group has committed no offsets of it, and {bases} base snapshots are there"),
        code: Some("TG4004"),
        remedy: ASK,
        age_ms: None,
        bytes: 0,
    }
}

fn broken_finding(catalogue: &Catalogue, found: Broken, now_ms: Millis) -> Finding {
    let blob = catalogue.objects.get(&found.object);
    let remedy = match &found.error {
        SnapshotError::Object(FormatError::Newer { .. }) => NEWER,
        SnapshotError::Object(FormatError::Foreign { .. }) => MISPLACED,
        _ => RESTORE_OBJECT,
    };
    let what = match &found.error {
        SnapshotError::Blob(BlobError::Missing { .. }) => "it is referred to and is not there".to_owned(),
        SnapshotError::Object(FormatError::Damaged { reason, .. }) => format!("damaged: {reason}"),
        SnapshotError::Object(FormatError::Newer { found, known, .. }) => {
            format!("format {found}; this version reads up to format {known}")
        }
        SnapshotError::Object(FormatError::Foreign { what, .. }) => format!("it does not belong here: it is of {what}"),
        other => other.to_string(),
    };
    Finding {
        grade: Grade::Broken,
        what,
        code: Some(found.error.code()),
        remedy,
        age_ms: blob.map(|blob| now_ms.saturating_sub(blob.written_ms)),
        bytes: blob.map_or(0, |blob| blob.bytes),
        object: found.object,
    }
}

impl References {
    /// Takes note of all that a task needs: the base snapshot that is named, or the newest one that can be read, those that it retains, and
    /// the increments after the oldest of these.
    fn refer(
        &mut self,
        catalogue: &Catalogue,
        task: TaskId,
        named: Option<SnapshotId>,
        at: &At,
    ) -> Result<(), OfflineError> {
        let bases: BTreeMap<SnapshotId, &Manifest> =
            catalogue.bases_of(task).iter().map(|base| (base.id, base)).collect();
        let newest = named.or_else(|| catalogue.bases_of(task).first().map(|base| base.id));
        let Some(newest) = newest else { return Ok(()) };
        let Some(manifest) = bases.get(&newest) else {
            self.miss(catalogue, newest.manifest(task));
            return Ok(());
        };
        // Newer ones that no commit has named yet share files with it.
        let lineage = manifest.meta.lineage;
        let later = bases
            .values()
            .filter(|base| base.meta.lineage == lineage && base.id > newest);
        let retained: Vec<SnapshotId> = manifest.retained().map(|retained| retained.id).collect();
        let oldest = retained.last().map_or(newest.epoch, |oldest| oldest.epoch);
        for id in later.map(|base| base.id).chain(retained.iter().copied()) {
            match bases.get(&id) {
                Some(base) => self.refer_to_base(catalogue, base, oldest),
                None => self.miss(catalogue, id.manifest(task)),
            }
        }
        let (branch, broken) = catalogue.grow(manifest, at)?;
        self.broken.extend(broken);
        for increment in branch.increments.iter().chain(&branch.unconfirmed) {
            self.refer_to_increment(catalogue, increment);
        }
        Ok(())
    }

    fn refer_to_base(&mut self, catalogue: &Catalogue, base: &Manifest, oldest: Epoch) {
        self.objects.insert(base.object());
        for file in &base.files {
            self.refer_to_file(catalogue, file);
        }
        for increment in base.increments.iter().filter(|increment| increment.epoch > oldest) {
            self.refer_to_increment(catalogue, increment);
        }
    }

    fn refer_to_file(&mut self, catalogue: &Catalogue, file: &StoredFile) {
        if file.bytes == 0 {
            return;
        }
        match catalogue.objects.get(&file.object) {
            None => self.miss(catalogue, file.object.clone()),
            Some(blob) if blob.bytes < file.offset + file.bytes => {
                let (has, wants) = (blob.bytes, file.offset + file.bytes);
                let error = damaged(&file.object, &format!("it has {has} bytes of {wants}"));
                let object = file.object.clone();
                self.broken.push(Broken { object, error });
            }
            Some(_) => {}
        }
        self.objects.insert(file.object.clone());
    }

    fn refer_to_increment(&mut self, catalogue: &Catalogue, increment: &IncrementRef) {
        // What was spilled is in Kafka.
        let Some(object) = increment.object() else { return };
        if !catalogue.objects.contains_key(&object) {
            self.miss(catalogue, object.clone());
        }
        self.objects.insert(object);
    }

    fn miss(&mut self, catalogue: &Catalogue, object: String) {
        if catalogue.broken.iter().any(|broken| broken.object == object) {
            return;
        }
        let error = BlobError::Missing {
            root: catalogue.root(),
            name: object.clone(),
        };
        let error = error.into();
        self.broken.push(Broken { object, error });
    }
}
