//! Bringing a task's state here from the repository (invariants I13, I14): the newest base snapshot that is whole, and the increments
//! after it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::{info, warn};

use crate::durability::Decision;
use crate::durability::snapshot::{
    Chain, IncrementRef, Manifest, Place as Lies, SnapshotId, SpillId, manifests_folder,
};
use crate::ids::{Epoch, Lineage, TaskId};
use crate::state::{Overlay, StateMeta};

use crate::planted::{Bug, planted};

use super::super::error::WorkerError;
use super::super::metrics::RestoreUnit;
use super::super::opener::{Opener, UNKNOWN_DEPTH, changelog_partitions};
use super::super::opening::{Begun, Found, NotOpened, Stage};
use super::super::restore_pace::RestorePace;
use super::error::SnapshotError;
use super::install::Install;
use super::lazy::{RepositoryFiles, RestoreMode};
use super::repository::{Repository, damaged, packed_in, whole};
use super::spilled::SpillReader;
use super::upload::FileHashes;

/// Between two steps more time than this passes only where the process itself stood still, which is nobody's fault.
const LONGEST_LOOK: Duration = Duration::from_secs(5);
/// A task whose disk has everything waits so long for the store to say what is in it.
const BLIND_AFTER: Duration = Duration::from_secs(2);
/// No pack is larger than this.
const MAX_PACK_BYTES: u64 = 1 << 40;

enum Step {
    /// Finding out what there is.
    Look,
    /// Putting the database together from the files of a base.
    Install(Box<Install>),
    /// Choosing the next base.
    Choose,
    /// Applying increments, oldest first.
    Increments(VecDeque<IncrementRef>),
}

/// Which step it was that failed.
#[derive(Clone, Copy)]
enum Place {
    Look,
    Choose,
    Install,
    Increments,
}

/// One restore from the repository.
pub struct RepositoryRestore {
    opener: Arc<Opener>,
    repository: Arc<Repository>,
    task: TaskId,
    found: Option<Found>,
    step: Step,
    /// The increments that are known, newest first, and how many there have been.
    increments: Vec<IncrementRef>,
    depth: u64,
    chain_bytes: u64,
    /// Increments that were applied, and their records.
    applied: (u64, u64),
    /// Bases that may serve, best first.
    candidates: VecDeque<SnapshotId>,
    has_listed: bool,
    seen: BTreeSet<SnapshotId>,
    tried: Vec<String>,
    hashes: Arc<FileHashes>,
    /// Reads increments that were spilled.
    spilled: SpillReader,
    pace: Option<RestorePace>,
    /// Whether the increments before the disk's epoch could not be read.
    is_blind: bool,
    /// Whether increments are applied to the disk that the task had.
    is_on_local_disk: bool,
    looked_at: Duration,
    /// Time without progress.
    waited: Duration,
}

impl RepositoryRestore {
    pub(in crate::worker) fn new(opener: Arc<Opener>, repository: Arc<Repository>, found: Found) -> Self {
        Self {
            task: found.request.task,
            hashes: Arc::clone(&found.hashes),
            looked_at: opener.clock.monotonic(),
            waited: Duration::ZERO,
            opener,
            spilled: repository.spill_reader(found.request.task),
            repository,
            found: Some(found),
            step: Step::Look,
            increments: Vec::new(),
            depth: 0,
            chain_bytes: 0,
            applied: (0, 0),
            candidates: VecDeque::new(),
            has_listed: false,
            seen: BTreeSet::new(),
            tried: Vec::new(),
            pace: None,
            is_blind: false,
            is_on_local_disk: false,
        }
    }

    fn place(&self) -> Place {
        match &self.step {
            Step::Look => Place::Look,
            Step::Choose => Place::Choose,
            Step::Install(_) => Place::Install,
            Step::Increments(_) => Place::Increments,
        }
    }

    fn go_on(&mut self, found: &mut Found) -> Result<bool, SnapshotError> {
        match std::mem::replace(&mut self.step, Step::Look) {
            Step::Look => self.look(found),
            Step::Choose => self.choose(found),
            Step::Install(install) => self.install(found, install),
            Step::Increments(waiting) => self.apply(found, waiting),
        }
    }

    /// Reads what the pointer names: true if the disk has all of it.
    fn look(&mut self, found: &mut Found) -> Result<bool, SnapshotError> {
        let state = found
            .pointer
            .as_ref()
            .map(|pointer| pointer.state.clone())
            .unwrap_or_default();
        let base_epoch = state.base.map_or(Epoch(0), |base| base.epoch);
        if self.is_blind {
            self.increments.extend(state.increment);
            return Ok(true);
        }
        if let Some(newest) = state.increment.as_ref() {
            self.read_links(found, newest, state.base, base_epoch)?;
        }
        self.candidates.extend(state.base);
        let local = found.local.as_ref().map(|local| local.epoch);
        let has_packs = found.transition.from.has_packs();
        match (&found.decision, local) {
            (Decision::Current, _) => return Ok(true),
            (Decision::Replay { .. }, Some(local)) if local >= base_epoch && has_packs => {
                self.is_on_local_disk = true;
                self.step = self.increments_after(local)
            }
            // A disk that is behind the base serves as a source of files.
            _ => self.step = Step::Choose,
        }
        Ok(false)
    }

    /// All increments after the base. What the base holds may be deleted; how many there were, its manifest says.
    fn read_links(
        &mut self,
        found: &Found,
        newest: &IncrementRef,
        base: Option<SnapshotId>,
        base_epoch: Epoch,
    ) -> Result<(), SnapshotError> {
        if newest.epoch > base_epoch {
            let links = self.repository.links(found.request.task, newest, base_epoch)?;
            (self.increments, self.depth, self.chain_bytes) = (links.increments, links.depth, links.bytes);
            return Ok(());
        }
        self.increments = vec![newest.clone()];
        self.depth = match base.map(|base| self.repository.manifest(found.request.task, base)) {
            Some(Ok(manifest)) => manifest.depth,
            Some(Err(error)) if !error.is_damage() => return Err(error),
            _ => UNKNOWN_DEPTH,
        };
        Ok(())
    }

    fn increments_after(&self, epoch: Epoch) -> Step {
        let behind = self.increments.iter().rev().filter(|increment| increment.epoch > epoch);
        Step::Increments(behind.cloned().collect())
    }

    /// Takes the next base that may serve; where there is none any more, the beginning, if the increments reach it.
    fn choose(&mut self, found: &mut Found) -> Result<bool, SnapshotError> {
        self.step = Step::Choose;
        if self.candidates.is_empty() && !self.has_listed {
            self.list(found)?;
        }
        let Some(id) = self.candidates.front().copied() else {
            return self.begin_empty(found).map(|()| false);
        };
        if !self.seen.contains(&id) {
            let manifest = self.manifest(found, id)?;
            self.candidates.extend(manifest.history.iter().map(|older| older.id));
            self.find_increments(found, id.epoch)?;
            let installation = {
                found.backend = None;
                self.opener.states.install(self.task, &found.request.stores)?
            };
            let is_lazy = found.may_lack_files && self.repository.settings.restore == RestoreMode::Lazy;
            let fetching =
                is_lazy.then(|| RepositoryFiles::fetching(&self.repository, &self.hashes, &self.opener.metrics));
            let install = Install::new(manifest, installation, Arc::clone(&self.hashes), fetching);
            self.step = Step::Install(Box::new(install));
        }
        self.seen.insert(id);
        self.candidates.pop_front();
        Ok(false)
    }

    fn manifest(&self, found: &Found, id: SnapshotId) -> Result<Manifest, SnapshotError> {
        let manifest = self.repository.manifest(self.task, id)?;
        manifest.check_belongs(self.task, id, found.lineage, &found.request.stores)?;
        if manifest.epoch() > found.epoch {
            return Err(damaged(&manifest.object(), "it is of an epoch that is not committed"));
        }
        let partitions = changelog_partitions(&found.request, found.transition);
        if !found.leads_on_from(&manifest.meta, &partitions) {
            return Err(damaged(
                &manifest.object(),
                "it is of a time before the changelogs began that lead on from it",
            ));
        }
        Ok(manifest)
    }

    /// Where the increments that are known do not reach back to an older base, more of them are looked for.
    fn find_increments(&mut self, found: &Found, from: Epoch) -> Result<(), SnapshotError> {
        let Some(newest) = self.increments.first().cloned() else {
            return Ok(());
        };
        let oldest = &self.increments[self.increments.len() - 1];
        let reach = oldest.epoch <= from || self.depth == self.increments.len() as u64;
        if newest.epoch > from && !reach {
            let links = self.repository.links(found.request.task, &newest, from)?;
            (self.increments, self.depth) = (links.increments, links.depth);
        }
        Ok(())
    }

    /// Where the manifest that the pointer names cannot be read, what it said of older ones is lost: they are looked for.
    fn list(&mut self, found: &Found) -> Result<(), SnapshotError> {
        let manifests = self.repository.store.list(&manifests_folder(self.task))?;
        let ids = manifests
            .iter()
            .filter_map(|blob| SnapshotId::of_manifest(self.task, &blob.name));
        let mut older: Vec<SnapshotId> = ids
            .filter(|id| id.epoch <= found.epoch && !self.seen.contains(id))
            .collect();
        older.sort_unstable_by(|a, b| b.cmp(a));
        self.candidates.extend(older);
        self.has_listed = true;
        Ok(())
    }

    /// Without a base there are still all of the increments, or all of the changelogs, if they reach back to the beginning. Whether
    /// changelogs do is looked at when they are read.
    fn begin_empty(&mut self, found: &mut Found) -> Result<(), SnapshotError> {
        let has_written = found.pointer.as_ref().is_some_and(|pointer| !pointer.state.is_empty());
        let has_written = has_written || planted(Bug::NothingIsNoRestorePoint);
        let reaches = self.depth == self.increments.len() as u64 && (self.depth > 0 || !has_written);
        if found.transition.from.has_packs() && !reaches {
            return Err(damaged("of any snapshot", "none can be used"));
        }
        found.backend = None;
        found.local = None;
        found.decision = Decision::Rebuild {
            reason: "no snapshot can be used".into(),
        };
        self.opener.states.clear(self.task)?;
        found.backend = Some(self.opener.states.open(self.task, &found.request.stores)?);
        self.step = self.increments_after(Epoch(0));
        Ok(())
    }

    fn install(&mut self, found: &mut Found, mut install: Box<Install>) -> Result<bool, SnapshotError> {
        match install.step(&*self.repository.store) {
            Ok(false) => {
                self.report(install.passed(), install.total());
                self.step = Step::Install(install);
                return Ok(false);
            }
            Ok(true) => {}
            Err(error) => {
                if error.is_passing() {
                    self.step = Step::Install(install);
                }
                return Err(error);
            }
        }
        self.pace = None;
        let (manifest, backend) = install.finish()?;
        let lacking = backend.lacking();
        self.opener.metrics.restored_bytes.add(manifest.bytes() - lacking.bytes);
        info!(task = %self.task, snapshot = %manifest.id, bytes = manifest.bytes(), lacking_bytes = lacking.bytes, "base snapshot installed");
        found.local = Some(manifest.meta);
        found.backend = Some(backend);
        self.step = self.increments_after(manifest.id.epoch);
        Ok(false)
    }

    /// Applies some increments: true if there are no more.
    fn apply(&mut self, found: &Found, mut waiting: VecDeque<IncrementRef>) -> Result<bool, SnapshotError> {
        if let Some(Lies::Spilled(id)) = waiting.front().map(|increment| increment.place.clone()) {
            return self.apply_spilled(found, waiting, id);
        }
        let count = self.repository.store.concurrency().max(1);
        let objects = waiting.iter().map_while(IncrementRef::object).take(count);
        let parts = objects.map(|name| crate::blob::Part {
            name,
            range: 0..MAX_PACK_BYTES,
        });
        let packs = self.repository.store.read_parts(&parts.collect::<Vec<_>>());
        for pack in packs {
            let applied = match (pack, waiting.front()) {
                (Ok(bytes), Some(increment)) => self.apply_one(found, increment, &bytes),
                (Err(error), _) => Err(error.into()),
                (_, None) => Ok(()),
            };
            if let Err(error) = applied {
                self.step = Step::Increments(waiting);
                return Err(error);
            }
            waiting.pop_front();
        }
        let is_done = waiting.is_empty();
        self.step = Step::Increments(waiting);
        Ok(is_done)
    }

    /// Goes on with an increment that was spilled, and applies it once it is whole.
    fn apply_spilled(
        &mut self,
        found: &Found,
        mut waiting: VecDeque<IncrementRef>,
        id: SpillId,
    ) -> Result<bool, SnapshotError> {
        let outcome = match waiting.front() {
            Some(increment) => match self.spilled.step(increment.epoch, id) {
                Ok(Some(bytes)) => self.apply_one(found, increment, &bytes),
                Ok(None) => Err(self.spilled.waits()),
                Err(error) => Err(error),
            },
            None => Ok(()),
        };
        if outcome.is_ok() && waiting.pop_front().is_some() {
            self.opener.metrics.restored_spilled.add(1);
        }
        let is_done = waiting.is_empty();
        self.step = Step::Increments(waiting);
        outcome.map(|()| is_done)
    }

    fn apply_one(&mut self, found: &Found, increment: &IncrementRef, bytes: &[u8]) -> Result<(), SnapshotError> {
        let names: Vec<String> = found.request.stores.iter().map(|store| store.name.clone()).collect();
        let (overlay, meta) = unpacked(self.task, found.lineage, &names, increment, bytes)?;
        if let Some(backend) = &found.backend {
            backend.apply(&overlay, &meta)?;
        }
        self.applied = (self.applied.0 + 1, self.applied.1 + overlay.len() as u64);
        self.opener.metrics.restore_records.add(overlay.len() as u64);
        self.opener.metrics.restored_bytes.add(bytes.len() as u64);
        Ok(())
    }

    fn report(&mut self, passed: u64, target: u64) {
        let now = self.opener.clock.monotonic();
        let begin = || RestorePace::begin(self.task, RestoreUnit::Bytes, &self.opener.metrics, now);
        self.pace.get_or_insert_with(begin).report(now, passed, target);
    }

    /// What follows from a step that failed.
    fn recover(&mut self, place: Place, found: &Found, error: SnapshotError) -> Result<(), NotOpened> {
        if error.is_passing() {
            let has_base = found
                .pointer
                .as_ref()
                .is_some_and(|pointer| pointer.state.base.is_some());
            let is_current = matches!((place, &found.decision), (Place::Look, Decision::Current));
            if is_current && has_base && self.waited >= BLIND_AFTER {
                // The disk has everything: the task need not wait for a store that is away. Without a base, increments that do not say how
                // many there are before them would lead nowhere.
                self.go_blind();
                return Ok(());
            }
            // Nothing is wrong with the state: whoever stopped now would only have to wait after its next start.
            if self.waited >= found.request.restore_timeout {
                warn!(task = %self.task, %error, "a restore waits for the object store");
                self.waited = Duration::ZERO;
            }
            return Ok(());
        }
        if !error.is_damage() {
            return Err(match error {
                SnapshotError::State(error) => error.into(),
                source => WorkerError::Snapshot {
                    task: self.task,
                    source,
                }
                .into(),
            });
        }
        // Whoever took the task over meanwhile may have let go what this restore was begun for.
        if self.opener.committed(&found.request)?.pointer != found.pointer {
            return Err(NotOpened::Outdated);
        }
        warn!(task = %self.task, %error, "state cannot be restored this way");
        self.tried.push(error.to_string());
        match place {
            // The disk has everything; the next base begins a chain that can be followed again.
            Place::Look if matches!(found.decision, Decision::Current) => {
                self.go_blind();
                return Ok(());
            }
            Place::Choose if !self.candidates.is_empty() => {
                self.seen.extend(self.candidates.pop_front());
                self.step = Step::Choose;
                return Ok(());
            }
            Place::Install => {
                self.step = Step::Choose;
                return Ok(());
            }
            Place::Increments if self.is_on_local_disk => {
                self.is_on_local_disk = false;
                self.step = Step::Choose;
                return Ok(());
            }
            _ => {}
        }
        Err(WorkerError::NoRestorePoint {
            task: self.task,
            lineage: found.lineage,
            epoch: found.epoch,
            tried: self.tried.join("; "),
        }
        .into())
    }

    /// Goes on without what is known of the increments before the newest; whoever restores finds them by the links in the packs.
    fn go_blind(&mut self) {
        self.depth = UNKNOWN_DEPTH;
        self.is_blind = true;
    }

    fn chain(&self, found: &Found) -> Chain {
        let base = found.pointer.as_ref().and_then(|pointer| pointer.state.base);
        let begins_anew = found.transition.is_under_way() && !found.transition.from.has_packs();
        let depth = if begins_anew { UNKNOWN_DEPTH } else { self.depth };
        Chain::committed(base, self.increments.clone(), depth, self.chain_bytes)
    }

    fn end(&mut self, mut found: Found) -> Result<Begun, NotOpened> {
        let chain = self.chain(&found);
        found.hashes = Arc::clone(&self.hashes);
        found.chain = Some(chain);
        if found.transition.from.has_changelogs() && !matches!(found.decision, Decision::Current) {
            // The base is here; what came after it is in the changelogs.
            if let (Some(local), Decision::Rebuild { .. }) = (&found.local, &found.decision) {
                found.decision = Decision::Replay {
                    from: local.epoch,
                    to: found.epoch,
                };
            }
            return self.opener.restore(found);
        }
        if !matches!(found.decision, Decision::Current) {
            let (increments, records) = self.applied;
            info!(task = %self.task, increments, records, "increments applied");
        }
        let positions = self.opener.changelog_ends(&found)?;
        self.opener.finish(found, positions).map(Begun::opened)
    }
}

/// What an increment in the pack `bytes` changes in a task of `lineage` whose stores have these names, and what the state is after it.
pub(super) fn unpacked(
    task: TaskId,
    lineage: Lineage,
    stores: &[String],
    increment: &IncrementRef,
    bytes: &[u8],
) -> Result<(Overlay, StateMeta), SnapshotError> {
    let object = increment.place_name();
    let footer = whole(bytes, &object)?;
    let packed = packed_in(&footer, task, increment)?;
    let meta = packed.meta(&object)?;
    if meta.lineage != lineage {
        return Err(damaged(&object, "it is of another lineage"));
    }
    let range = packed.range();
    let block = bytes.get(range.start as usize..range.end as usize);
    let block = block.ok_or_else(|| damaged(&object, "it is shorter than it says"))?;
    Ok((packed.unpack(block, stores, &object)?, meta))
}

impl Stage for RepositoryRestore {
    fn step(&mut self) -> Option<Result<Begun, NotOpened>> {
        let mut found = self.found.take()?;
        if found.request.cancelled.load(Ordering::Relaxed) {
            return Some(Err(NotOpened::Cancelled));
        }
        let place = self.place();
        let now = self.opener.clock.monotonic();
        self.waited += now.saturating_sub(self.looked_at).min(LONGEST_LOOK);
        self.looked_at = now;
        match self.go_on(&mut found) {
            Ok(true) => return Some(self.end(found)),
            Ok(false) => self.waited = Duration::ZERO,
            Err(error) => {
                if let Err(error) = self.recover(place, &found, error) {
                    return Some(Err(error));
                }
            }
        }
        self.found = Some(found);
        None
    }
}
