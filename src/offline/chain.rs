//! Which increments lead from a base snapshot to a later epoch.

use std::collections::BTreeSet;

use crate::blob::BlobError;
use crate::durability::snapshot::{IncrementRef, Manifest, PackedTask, Place, SnapshotId};
use crate::ids::{Epoch, Lineage, TaskId};
use crate::worker::SnapshotError;

use super::OfflineError;
use super::catalogue::{Broken, Catalogue, damaged};

/// Up to where state is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// The newest epoch that is known to be committed.
    Newest,
    /// This epoch: what was committed up to it.
    Epoch(Epoch),
    /// The increment that the committed pointer names; `None` where it names none.
    Committed(Option<IncrementRef>),
}

/// The increments after a base snapshot.
#[derive(Debug, Default)]
pub struct Branch {
    /// Those that lead on from it, oldest first.
    pub increments: Vec<IncrementRef>,
    /// Later ones of which only Kafka knows whether they were committed.
    pub unconfirmed: Vec<IncrementRef>,
}

impl Branch {
    /// The epoch that it leads to from `base`.
    pub fn epoch(&self, base: &Manifest) -> Epoch {
        self.increments.last().map_or(base.epoch(), |newest| newest.epoch)
    }
}

/// Orders references to increments of one task.
fn key(increment: &IncrementRef) -> (Epoch, Place) {
    (increment.epoch, increment.place.clone())
}

impl Catalogue {
    /// What the pack of an increment says about the task.
    ///
    /// # Errors
    /// What is wrong with the pack.
    pub fn packed(&self, task: TaskId, increment: &IncrementRef) -> Result<&PackedTask, SnapshotError> {
        let object = increment.place_name();
        let Place::Pack(pack) = &increment.place else {
            let increment = increment.to_string();
            return Err(SnapshotError::Spilled { task, increment });
        };
        let Some(footer) = self.packs.get(pack) else {
            let broken = self.broken.iter().find(|broken| broken.object == object);
            return Err(match broken.map(|broken| &broken.error) {
                Some(SnapshotError::Object(error)) => error.clone().into(),
                _ => BlobError::Missing {
                    root: self.root(),
                    name: object,
                }
                .into(),
            });
        };
        let packed = footer.of(task);
        let packed = packed.ok_or_else(|| damaged(&object, &format!("it has nothing of task {task}")))?;
        match packed.epoch() == increment.epoch {
            true => Ok(packed),
            false => {
                let (found, wanted) = (packed.epoch(), increment.epoch);
                Err(damaged(
                    &object,
                    &format!("it has epoch {found} of task {task}, not {wanted}"),
                ))
            }
        }
    }

    /// All increments of a task in one lineage, oldest first, committed or not.
    pub fn increments(&self, task: TaskId, lineage: Lineage) -> Vec<(IncrementRef, &PackedTask)> {
        let found = self.packs.iter().filter_map(|(pack, footer)| {
            let packed = footer.of(task)?;
            let meta = packed.meta(&pack.object()).ok()?;
            let reference = IncrementRef {
                epoch: packed.epoch(),
                place: Place::Pack(pack.clone()),
            };
            (meta.lineage == lineage).then_some((reference, packed))
        });
        let mut found: Vec<_> = found.collect();
        found.sort_by_key(|(increment, _)| key(increment));
        found
    }

    /// The increments of a task that are known to be committed: a later one, or a base snapshot, says that it came after them. An epoch is only
    /// sealed once the one before it has been confirmed, so what it names was.
    fn confirmed(&self, task: TaskId, lineage: Lineage) -> BTreeSet<(Epoch, Place)> {
        let of_bases = self.bases_of(task).iter().filter(|base| base.meta.lineage == lineage);
        let held = of_bases.flat_map(|base| &base.increments).map(key);
        let increments = self.increments(task, lineage);
        let links = increments.iter().flat_map(|(increment, packed)| {
            let links = packed.links(&increment.place_name()).unwrap_or_default();
            links.into_iter().map(|link| key(&link))
        });
        let heads = self.heads.iter().filter(|head| head.task == task);
        let heads = heads.filter_map(|head| head.increment.as_ref()).map(key);
        // An export may hold other lineages of the task; its head is of one of them.
        let heads = heads.filter(|head| increments.iter().any(|(increment, _)| key(increment) == *head));
        held.chain(links).chain(heads).collect()
    }

    /// Where a state that somebody asks for begins, and up to where it is wanted: from the base snapshot that is named, else the newest that is
    /// not later than the epoch. A base that is named without an epoch is wanted as it is.
    ///
    /// # Errors
    /// [`OfflineError::Unknown`], and [`OfflineError::NoWay`] where all base snapshots are later.
    pub fn choose(
        &self,
        task: TaskId,
        snapshot: Option<SnapshotId>,
        at: Option<Epoch>,
    ) -> Result<(&Manifest, At), OfflineError> {
        match (snapshot, at) {
            (Some(id), at) => Ok((self.base(task, id)?, At::Epoch(at.unwrap_or(id.epoch)))),
            (None, None) => Ok((self.newest(task)?, At::Newest)),
            (None, Some(epoch)) => {
                let newest = self.newest(task)?;
                let bases = self.bases_of(task).iter();
                let mut fits = bases.filter(|base| base.meta.lineage == newest.meta.lineage && base.epoch() <= epoch);
                let base = fits.next().ok_or_else(|| OfflineError::NoWay {
                    task,
                    epoch,
                    reason: "all base snapshots of it are of later epochs (snapshot list shows them)".to_owned(),
                })?;
                Ok((base, At::Epoch(epoch)))
            }
        }
    }

    /// The increments that lead from `base` to `at`.
    ///
    /// # Errors
    /// [`OfflineError::NoWay`] where the repository has no such epoch, or one of them is missing or damaged, with its name.
    pub fn branch(&self, base: &Manifest, at: &At) -> Result<Branch, OfflineError> {
        let (branch, broken) = self.grow(base, at)?;
        match broken {
            None => Ok(branch),
            Some(Broken { error, .. }) => Err(OfflineError::NoWay {
                task: base.task,
                epoch: branch.epoch(base),
                reason: format!(
                    "{error}; the base snapshot itself (--at {}) needs none of the increments",
                    base.epoch()
                ),
            }),
        }
    }

    /// The same; what is missing or damaged comes with those that the links name all the same.
    pub(super) fn grow(&self, base: &Manifest, at: &At) -> Result<(Branch, Option<Broken>), OfflineError> {
        let (task, lineage) = (base.task, base.meta.lineage);
        let confirmed = self.confirmed(task, lineage);
        let tip = match at {
            At::Newest => {
                let newest = confirmed.iter().next_back();
                newest.filter(|(epoch, _)| *epoch > base.epoch()).map(reference)
            }
            At::Committed(increment) => increment.clone().filter(|newest| newest.epoch > base.epoch()),
            At::Epoch(wanted) => self.tip_at(base, *wanted, &confirmed)?,
        };
        let reached = tip.as_ref().map_or(base.epoch(), |tip| tip.epoch);
        let (increments, broken) = tip.map_or_else(Default::default, |tip| self.walk(task, &tip, base.epoch()));
        let unconfirmed = match at {
            At::Newest => {
                let known = self
                    .increments(task, lineage)
                    .into_iter()
                    .map(|(increment, _)| increment);
                known.filter(|increment| increment.epoch > reached).collect()
            }
            _ => Vec::new(),
        };
        let branch = Branch {
            increments,
            unconfirmed,
        };
        Ok((branch, broken))
    }

    /// The last increment up to an epoch that somebody asked for. One that is not known to be committed serves where there is one of its epoch
    /// only: an attempt that failed would have been followed by another.
    fn tip_at(
        &self,
        base: &Manifest,
        wanted: Epoch,
        confirmed: &BTreeSet<(Epoch, Place)>,
    ) -> Result<Option<IncrementRef>, OfflineError> {
        let (task, lineage) = (base.task, base.meta.lineage);
        let no_way = |reason: String| OfflineError::NoWay {
            task,
            epoch: wanted,
            reason,
        };
        if wanted < base.epoch() {
            return Err(no_way(format!("the base snapshot {} is of a later epoch", base.id)));
        }
        let known = self.increments(task, lineage);
        let up_to = |epoch: Epoch| base.epoch() < epoch && epoch <= wanted;
        let best = confirmed.iter().rev().find(|(epoch, _)| up_to(*epoch));
        if let Some((epoch, place)) = best.filter(|(epoch, _)| {
            // Where something follows, it is known that nothing was left out in between.
            *epoch == wanted || confirmed.iter().any(|(later, _)| *later > wanted)
        }) {
            return Ok(Some(reference(&(*epoch, place.clone()))));
        }
        if wanted == base.epoch() || confirmed.iter().any(|(later, _)| *later > wanted) {
            return Ok(None);
        }
        let of_epoch: Vec<_> = known
            .iter()
            .filter(|(increment, _)| increment.epoch == wanted)
            .collect();
        match of_epoch[..] {
            [(only, _)] => Ok(Some(only.clone())),
            [] => {
                let last = known.last().map_or(base.epoch(), |(increment, _)| increment.epoch);
                Err(no_way(format!(
                    "the repository has epochs {} to {last} of it from base snapshot {} on",
                    base.epoch(),
                    base.id
                )))
            }
            _ => Err(no_way(format!(
                "{} attempts at it are there, and nothing says which one was committed; ask Kafka (--committed)",
                of_epoch.len()
            ))),
        }
    }

    /// Follows the links back from `tip` to the first increment after `from`: oldest first, and the first one that is missing or damaged.
    fn walk(&self, task: TaskId, tip: &IncrementRef, from: Epoch) -> (Vec<IncrementRef>, Option<Broken>) {
        let mut chain = vec![tip.clone()];
        let mut broken = None;
        let mut at = 0;
        while at < chain.len() {
            // Each is looked at, since all of them are needed; only the oldest one says something new.
            let increment = chain[at].clone();
            at += 1;
            match self.links(task, &increment) {
                Ok(links) if at == chain.len() => chain.extend(links.into_iter().filter(|link| link.epoch > from)),
                Ok(_) => {}
                Err(error) => {
                    let object = increment.place_name();
                    broken.get_or_insert(Broken { object, error });
                }
            }
        }
        chain.reverse();
        (chain, broken)
    }

    fn links(&self, task: TaskId, increment: &IncrementRef) -> Result<Vec<IncrementRef>, SnapshotError> {
        let packed = self.packed(task, increment)?;
        let object = increment.place_name();
        let links = packed.links(&object)?;
        let in_order = links.first().is_none_or(|first| first.epoch < increment.epoch);
        match in_order && (!links.is_empty() || packed.depth == 0) {
            true => Ok(links),
            false => {
                let reason = "what it says of the increments before it is not in order";
                Err(damaged(&object, reason))
            }
        }
    }
}

fn reference((epoch, place): &(Epoch, Place)) -> IncrementRef {
    IncrementRef {
        epoch: *epoch,
        place: place.clone(),
    }
}
