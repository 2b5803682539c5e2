//! The view of a task's state against a model that keeps a whole copy per epoch.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::conformance::{self, ORDERED, PLAIN, meta};
use super::{MemoryBackend, Overlay, StateBackend, TaskState};
use crate::ids::StoreId;

type Contents = BTreeMap<(StoreId, Vec<u8>), Vec<u8>>;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Put(StoreId, Vec<u8>, Vec<u8>),
    /// Reads, then writes the value plus one byte, as an aggregate does.
    Append(StoreId, Vec<u8>, u8),
    Delete(StoreId, Vec<u8>),
    Get(StoreId, Vec<u8>),
    Scan(StoreId, Vec<u8>, Vec<u8>, usize),
    Seal,
    /// The transaction of the oldest sealed epoch that has none yet commits.
    Commit,
    /// The apply thread writes the oldest committed epoch.
    Apply,
    /// The worker hears of it.
    Applied,
    RollBack,
}

fn store() -> impl Strategy<Value = StoreId> {
    prop_oneof![Just(PLAIN), Just(ORDERED)]
}

/// Few keys, so that steps meet; some share their first eight bytes, some are prefixes of others.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (0..12u8).prop_map(|last| vec![last]),
        2 => (0..4u8).prop_map(|last| [b"prefix-of-a-key".as_slice(), &[last]].concat()),
        1 => (0..9usize).prop_map(|zeros| vec![0; zeros]),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => (100..600usize).prop_map(|bytes| vec![0xab; bytes]),
    ]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (store(), key(), value()).prop_map(|(store, key, value)| Step::Put(store, key, value)),
        6 => (store(), key(), any::<u8>()).prop_map(|(store, key, byte)| Step::Append(store, key, byte)),
        4 => (store(), key()).prop_map(|(store, key)| Step::Delete(store, key)),
        8 => (store(), key()).prop_map(|(store, key)| Step::Get(store, key)),
        2 => (store(), key(), key(), 1..40usize).prop_map(|(store, from, to, limit)| Step::Scan(store, from, to, limit)),
        1 => store().prop_map(|store| Step::Scan(store, Vec::new(), Vec::new(), usize::MAX)),
        2 => Just(Step::Seal),
        2 => Just(Step::Commit),
        2 => Just(Step::Apply),
        2 => Just(Step::Applied),
        1 => Just(Step::RollBack),
    ]
}

/// One sealed epoch: its increment, and all that was visible when it was sealed.
struct Sealed {
    increment: Arc<Overlay>,
    contents: Contents,
    committed: bool,
    applied: bool,
}

/// A [`TaskState`] and what it has to look like.
struct Pair {
    backend: Arc<dyn StateBackend>,
    state: TaskState,
    visible: Contents,
    base: Contents,
    sealed: Vec<Sealed>,
    epoch: u64,
}

impl Pair {
    fn new(backend: Arc<dyn StateBackend>, cache_bytes: usize) -> Self {
        Self {
            state: TaskState::new(Arc::clone(&backend), &[false, true], cache_bytes),
            backend,
            visible: Contents::new(),
            base: Contents::new(),
            sealed: Vec::new(),
            epoch: 0,
        }
    }

    fn put(&mut self, store: StoreId, key: &[u8], value: &[u8]) {
        self.state.put(store, key, value);
        self.visible.insert((store, key.to_vec()), value.to_vec());
    }

    fn check_get(&mut self, store: StoreId, key: &[u8]) {
        let expected = self.visible.get(&(store, key.to_vec()));
        let found = self.state.get(store, key);
        assert!(
            matches!(&found, Ok(found) if *found == expected.map(Vec::as_slice)),
            "{found:?}, not {expected:?}"
        );
    }

    fn check_scan(&mut self, store: StoreId, from: &[u8], to: &[u8], limit: usize) {
        let mut found = Vec::new();
        let scanned = self.state.scan(store, from, to, &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            found.len() < limit
        });
        assert!(scanned.is_ok());
        let within = |key: &[u8]| from <= key && (to.is_empty() || key < to);
        let in_range = self.visible.iter().filter(|((of, key), _)| *of == store && within(key));
        let expected: Vec<_> = in_range
            .take(limit)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect();
        assert_eq!(found, expected);
    }

    fn seal(&mut self) {
        let increment = self.state.seal();
        self.sealed.push(Sealed {
            increment,
            contents: self.visible.clone(),
            committed: false,
            applied: false,
        });
    }

    fn apply(&mut self) {
        if let Some(sealed) = self.sealed.iter_mut().find(|sealed| !sealed.applied)
            && sealed.committed
        {
            self.epoch += 1;
            let applied = self.backend.apply(&*sealed.increment, &meta(self.epoch));
            assert!(applied.is_ok(), "{applied:?}");
            sealed.applied = true;
        }
    }

    fn roll_back(&mut self) {
        let uncommitted = self.sealed.iter().filter(|sealed| !sealed.committed).count();
        self.state.roll_back(uncommitted);
        self.sealed.truncate(self.sealed.len() - uncommitted);
        self.visible = self.sealed.last().map_or(&self.base, |sealed| &sealed.contents).clone();
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Put(store, key, value) => self.put(store, &key, &value),
            Step::Append(store, key, byte) => {
                self.check_get(store, &key);
                let mut value = self.visible.get(&(store, key.clone())).cloned().unwrap_or_default();
                value.push(byte);
                self.put(store, &key, &value);
            }
            Step::Delete(store, key) => {
                self.state.delete(store, &key);
                self.visible.remove(&(store, key));
            }
            Step::Get(store, key) => self.check_get(store, &key),
            Step::Scan(store, from, to, limit) => self.check_scan(store, &from, &to, limit),
            Step::Seal if self.sealed.len() < 3 => self.seal(),
            Step::Seal => {}
            Step::Commit => {
                if let Some(sealed) = self.sealed.iter_mut().find(|sealed| !sealed.committed) {
                    sealed.committed = true;
                }
            }
            Step::Apply => self.apply(),
            Step::Applied => {
                if self.sealed.first().is_some_and(|sealed| sealed.applied) {
                    self.state.applied();
                    self.base = self.sealed.remove(0).contents;
                }
            }
            Step::RollBack => self.roll_back(),
        }
    }
}

/// Takes all steps and then compares everything.
pub(super) fn check_against_model(backend: Arc<dyn StateBackend>, cache_bytes: usize, steps: Vec<Step>) {
    let mut pair = Pair::new(backend, cache_bytes);
    for step in steps {
        pair.take(step);
    }
    for store in [PLAIN, ORDERED] {
        pair.check_scan(store, b"", b"", usize::MAX);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn reads_over_memory_see_every_write_so_far(
        // None at all, one that evicts all the time, and one that never does.
        cache_bytes in prop_oneof![Just(0), Just(1200), Just(4000), Just(1 << 20)],
        steps in proptest::collection::vec(step(), 1..300),
    ) {
        let backend = Arc::new(MemoryBackend::new(conformance::stores().len()));
        check_against_model(backend, cache_bytes, steps);
    }
}
