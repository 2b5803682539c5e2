//! The object store of a cluster, and the way of one instance to it: calls that get no answer, writes that arrive late or twice, listings
//! that are behind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::blob::{BlobError, BlobInfo, BlobResult, BlobSource, BlobStore, Part};
use crate::time::{Clock, Millis};

use super::clock::VirtualClock;
use super::lifeline::Lifeline;
use super::seed::Seed;
use super::story::Story;

/// What a call takes that gets no answer.
const IN_VAIN: Duration = Duration::from_millis(40);
/// The longest that a write is on its way whose sender has given it up.
const LATE_MS: u64 = 8_000;
/// A listing may lack what was written so short a time ago.
const LISTED_AFTER_MS: Millis = 2_000;
const CONCURRENCY: usize = 3;

/// The store itself; what is in it outlives all instances.
#[derive(Debug)]
pub(super) struct SimulatedStore {
    clock: Arc<VirtualClock>,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    objects: BTreeMap<String, Object>,
    /// Writes on their way, and when they arrive.
    late: Vec<(Duration, String, Vec<u8>)>,
    away_until: Duration,
}

#[derive(Clone, Debug)]
struct Object {
    bytes: Vec<u8>,
    written_ms: Millis,
}

impl SimulatedStore {
    pub(super) fn new(clock: Arc<VirtualClock>) -> Self {
        Self {
            clock,
            inside: Mutex::default(),
        }
    }

    /// The store as it is now: what was due has arrived.
    fn inside(&self) -> MutexGuard<'_, Inside> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, written_ms) = (self.clock.monotonic(), self.clock.wall_ms());
        let due: Vec<_> = inside.late.extract_if(.., |(due, ..)| *due <= now).collect();
        for (_, name, bytes) in due {
            inside.objects.entry(name).or_insert(Object { bytes, written_ms });
        }
        inside
    }

    /// Nobody gets an answer for as long as this.
    pub(super) fn go_away(&self, lasts: Duration) {
        self.inside().away_until = self.clock.monotonic() + lasts;
    }

    /// It answers again, and nothing is on its way any more.
    pub(super) fn mend(&self) {
        let mut inside = self.inside();
        inside.away_until = Duration::ZERO;
        inside.late.clear();
    }

    /// Names and sizes of all objects.
    #[cfg(test)]
    pub(super) fn objects(&self) -> Vec<BlobInfo> {
        listing(&self.inside(), "", Millis::MAX)
    }

    /// Changes an object, for tests of damage.
    #[cfg(test)]
    pub(super) fn change(&self, name: &str, change: impl FnOnce(&mut Option<Vec<u8>>)) {
        let object = self.inside().objects.remove(name);
        let mut bytes = object.map(|object| object.bytes);
        change(&mut bytes);
        self.put_back(name, bytes);
    }

    /// Puts an object as it should be in place of what is there.
    #[cfg(test)]
    pub(super) fn put_back(&self, name: &str, bytes: Option<Vec<u8>>) {
        let mut inside = self.inside();
        let written_ms = self.clock.wall_ms();
        match bytes {
            Some(bytes) => inside.objects.insert(name.to_owned(), Object { bytes, written_ms }),
            None => inside.objects.remove(name),
        };
    }
}

fn listing(inside: &Inside, prefix: &str, written_before_ms: Millis) -> Vec<BlobInfo> {
    let objects = inside
        .objects
        .iter()
        .filter(|(name, object)| name.starts_with(prefix) && object.written_ms <= written_before_ms);
    let info = |(name, object): (&String, &Object)| BlobInfo {
        name: name.clone(),
        bytes: object.bytes.len() as u64,
        written_ms: object.written_ms,
    };
    objects.map(info).collect()
}

/// The way of one instance to the store; clones are the same.
#[derive(Clone)]
pub(super) struct DistantStore {
    store: Arc<SimulatedStore>,
    seed: Arc<Seed>,
    story: Arc<Story>,
    rough: Arc<Mutex<bool>>,
    lifeline: Arc<Lifeline>,
}

impl DistantStore {
    pub(super) fn new(store: Arc<SimulatedStore>, seed: Seed, story: Arc<Story>, lifeline: Arc<Lifeline>) -> Self {
        Self {
            store,
            seed: Arc::new(seed),
            story,
            rough: Arc::default(),
            lifeline,
        }
    }

    /// Calls go wrong from now on, or no more.
    pub(super) fn set_rough(&self, rough: bool) {
        *self.rough.lock().unwrap_or_else(PoisonError::into_inner) = rough;
    }

    fn hitch(&self, times: u64) -> bool {
        *self.rough.lock().unwrap_or_else(PoisonError::into_inner) && self.seed.once_in(times)
    }

    fn unavailable(&self, operation: &'static str, name: &str) -> BlobError {
        self.story.happened("the object store did not answer");
        self.store.clock.advance(IN_VAIN);
        BlobError::Unavailable {
            root: self.root().to_owned(),
            name: name.to_owned(),
            operation,
            attempts: 1,
            waited_ms: 40,
            reason: "503".to_owned(),
        }
    }

    fn missing(&self, name: &str) -> BlobError {
        BlobError::Missing {
            root: self.root().to_owned(),
            name: name.to_owned(),
        }
    }

    /// Whether a call gets as far as the store.
    fn reach(&self, operation: &'static str, name: &str) -> BlobResult<MutexGuard<'_, Inside>> {
        let is_away = self.store.inside().away_until > self.store.clock.monotonic();
        match !self.lifeline.lives_to_call() || is_away || self.hitch(20) {
            true => Err(self.unavailable(operation, name)),
            false => Ok(self.store.inside()),
        }
    }

    fn write(&self, name: &str, bytes: Vec<u8>) -> BlobResult<()> {
        let written_ms = self.store.clock.wall_ms();
        let now = self.store.clock.monotonic();
        let arrives_late = self.hitch(40);
        let mut inside = self.reach("write", name)?;
        if arrives_late {
            let due = now + Duration::from_millis(self.seed.below(LATE_MS));
            inside.late.push((due, name.to_owned(), bytes));
            drop(inside);
            self.story.happened("a write to the object store arrived late");
            return Err(self.unavailable("write", name));
        }
        if let Some(object) = inside.objects.get(name) {
            let same = object.bytes == bytes;
            drop(inside);
            return match same {
                true => Ok(()),
                false => Err(BlobError::Exists {
                    root: self.root().to_owned(),
                    name: name.to_owned(),
                }),
            };
        }
        inside.objects.insert(name.to_owned(), Object { bytes, written_ms });
        drop(inside);
        if self.hitch(25) {
            self.story
                .happened("a write to the object store was carried out without an answer");
            return Err(self.unavailable("write", name));
        }
        Ok(())
    }

    fn read_range(&self, name: &str, range: &std::ops::Range<u64>) -> BlobResult<Vec<u8>> {
        let inside = self.reach("read", name)?;
        let object = inside.objects.get(name).map(|object| &object.bytes);
        let bytes = object.ok_or_else(|| self.missing(name))?;
        let to = usize::try_from(range.end).unwrap_or(usize::MAX).min(bytes.len());
        let from = usize::try_from(range.start).unwrap_or(usize::MAX).min(to);
        Ok(bytes[from..to].to_vec())
    }
}

impl BlobStore for DistantStore {
    fn create(&self, name: &str, bytes: &[u8]) -> BlobResult<()> {
        self.write(name, bytes.to_vec())
    }

    fn upload(&self, name: &str, source: &dyn BlobSource) -> BlobResult<()> {
        let mut bytes = vec![0; source.bytes() as usize];
        let failed = |reason| BlobError::Failed {
            root: self.root().to_owned(),
            name: name.to_owned(),
            operation: "write",
            reason,
        };
        source.read_at(0, &mut bytes).map_err(failed)?;
        if self.hitch(20) {
            self.story.happened("an upload ended in the midst");
            return Err(self.unavailable("write", name));
        }
        self.write(name, bytes)
    }

    fn read(&self, name: &str) -> BlobResult<Vec<u8>> {
        self.read_range(name, &(0..u64::MAX))
    }

    fn read_end(&self, name: &str, bytes: u64) -> BlobResult<Vec<u8>> {
        let all = self.read(name)?;
        let from = all.len().saturating_sub(usize::try_from(bytes).unwrap_or(usize::MAX));
        Ok(all[from..].to_vec())
    }

    fn read_parts(&self, parts: &[Part]) -> Vec<BlobResult<Vec<u8>>> {
        parts
            .iter()
            .map(|part| self.read_range(&part.name, &part.range))
            .collect()
    }

    fn list(&self, prefix: &str) -> BlobResult<Vec<BlobInfo>> {
        let behind = self.hitch(3);
        let now_ms = self.store.clock.wall_ms();
        let inside = self.reach("list", prefix)?;
        let all = listing(&inside, prefix, now_ms);
        if !behind {
            return Ok(all);
        }
        let shown = listing(&inside, prefix, now_ms - LISTED_AFTER_MS);
        drop(inside);
        if shown.len() < all.len() {
            self.story.happened("a listing of the object store was behind");
        }
        Ok(shown)
    }

    fn delete(&self, names: &[String]) -> BlobResult<()> {
        let first = names.first().map(String::as_str).unwrap_or_default();
        let ends_early = self.hitch(10);
        let mut inside = self.reach("delete", first)?;
        let upto = if ends_early { names.len() / 2 } else { names.len() };
        for name in &names[..upto] {
            inside.objects.remove(name);
        }
        drop(inside);
        match ends_early {
            true => Err(self.unavailable("delete", first)),
            false => Ok(()),
        }
    }

    fn concurrency(&self) -> usize {
        CONCURRENCY
    }

    fn root(&self) -> &str {
        "the simulated store"
    }
}
