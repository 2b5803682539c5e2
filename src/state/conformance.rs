//! What every backend must do, as one suite that each of them runs.

pub mod copies;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Overlay, StateBackend, StateMeta, StoreSpec};
use crate::ids::{Epoch, Lineage, StoreId, TopicPartition};

/// The first store of the suite: looked up by key.
pub const PLAIN: StoreId = StoreId(0);
/// The second store of the suite: scanned by range.
pub const ORDERED: StoreId = StoreId(1);

/// The stores that a backend under test is opened with.
pub fn stores() -> Vec<StoreSpec> {
    let spec = |name: &str, ordered| StoreSpec {
        name: name.into(),
        ordered,
        codecs: "bytes/bytes".into(),
    };
    vec![spec("plain", false), spec("ordered", true)]
}

/// Metadata of epoch `epoch` with offsets that depend on it.
pub fn meta(epoch: u64) -> StateMeta {
    let offset = i64::try_from(epoch).unwrap_or(i64::MAX);
    StateMeta {
        lineage: Lineage(7),
        epoch: Epoch(epoch),
        ended_ms: 1_000 * offset,
        cut: [(TopicPartition::new("input", 0), 100 * offset)].into(),
        changelog: [(TopicPartition::new("app-plain-changelog", 0), 10 * offset)].into(),
    }
}

/// One write of an increment.
pub type Write<'a> = (StoreId, &'a [u8], Option<&'a [u8]>);

/// The increment that consists of `writes`.
pub fn increment(writes: &[Write<'_>]) -> Overlay {
    let mut overlay = Overlay::new(&[false, true]);
    for (store, key, value) in writes {
        match value {
            Some(value) => overlay.put(*store, key, value),
            None => overlay.delete(*store, key),
        }
    }
    overlay
}

/// The entries of a range.
///
/// # Panics
/// If the backend fails.
pub fn entries(backend: &dyn StateBackend, store: StoreId, from: &[u8], to: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let scanned = backend.scan(store, from, to, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        true
    });
    assert!(scanned.is_ok(), "{scanned:?}");
    found
}

/// Runs the whole suite; `open` gives an empty backend with [`stores`].
///
/// # Panics
/// Where the backend does not conform.
pub fn run(open: &dyn Fn() -> Arc<dyn StateBackend>) {
    an_empty_backend_knows_nothing(&*open());
    an_increment_is_there_with_its_metadata(&*open());
    a_deletion_hides_what_was_there(&*open());
    keys_are_any_bytes(&*open());
    a_scan_is_ordered_bounded_and_stops_when_told(&*open());
    epochs_of_a_lineage_go_up(&*open());
    a_replay_goes_on_within_an_epoch_but_never_back(&*open());
    another_lineage_starts_anew(&*open());
    readers_see_whole_values_while_increments_are_applied(open());
}

fn get(backend: &dyn StateBackend, store: StoreId, key: &[u8]) -> Option<Vec<u8>> {
    let mut out = b"left over".to_vec();
    match backend.get(store, key, &mut out) {
        Ok(found) => found.then_some(out),
        Err(error) => panic!("get fails: {error}"),
    }
}

fn apply(backend: &dyn StateBackend, writes: &[Write<'_>], meta: &StateMeta) {
    let applied = backend.apply(&increment(writes), meta);
    assert!(applied.is_ok(), "{applied:?}");
}

fn an_empty_backend_knows_nothing(backend: &dyn StateBackend) {
    assert_eq!(backend.meta().ok(), Some(None));
    assert_eq!(get(backend, PLAIN, b"a"), None);
    assert_eq!(entries(backend, ORDERED, b"", b""), []);
}

fn an_increment_is_there_with_its_metadata(backend: &dyn StateBackend) {
    apply(
        backend,
        &[(PLAIN, b"a", Some(b"1")), (ORDERED, b"a", Some(b"2"))],
        &meta(1),
    );
    assert_eq!(get(backend, PLAIN, b"a"), Some(b"1".to_vec()));
    assert_eq!(get(backend, ORDERED, b"a"), Some(b"2".to_vec()), "stores are apart");
    assert_eq!(get(backend, PLAIN, b"b"), None);
    assert_eq!(backend.meta().ok(), Some(Some(meta(1))));
    apply(backend, &[], &meta(2));
    assert_eq!(
        backend.meta().ok(),
        Some(Some(meta(2))),
        "an epoch without writes counts too"
    );
    assert!(backend.size_bytes() > 0);
}

fn a_deletion_hides_what_was_there(backend: &dyn StateBackend) {
    apply(
        backend,
        &[(PLAIN, b"a", Some(b"1")), (PLAIN, b"b", Some(b""))],
        &meta(1),
    );
    assert_eq!(get(backend, PLAIN, b"b"), Some(Vec::new()), "an empty value is a value");
    apply(backend, &[(PLAIN, b"a", None), (PLAIN, b"never there", None)], &meta(2));
    assert_eq!(get(backend, PLAIN, b"a"), None);
    assert_eq!(entries(backend, PLAIN, b"", b""), [(b"b".to_vec(), Vec::new())]);
}

fn keys_are_any_bytes(backend: &dyn StateBackend) {
    let long = vec![0xff; 70_000];
    let keys: [&[u8]; 5] = [b"", b"\x00", b"\x00\x00", b"\xff", &long];
    let writes: Vec<Write<'_>> = keys.iter().map(|key| (ORDERED, *key, Some(*key))).collect();
    apply(backend, &writes, &meta(1));
    for key in keys {
        assert_eq!(get(backend, ORDERED, key).as_deref(), Some(key));
    }
    let found: Vec<Vec<u8>> = entries(backend, ORDERED, b"", b"")
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(found, keys);
}

fn a_scan_is_ordered_bounded_and_stops_when_told(backend: &dyn StateBackend) {
    let keys: Vec<[u8; 2]> = (0..1000u16).map(u16::to_be_bytes).collect();
    let writes: Vec<Write<'_>> = keys
        .iter()
        .rev()
        .map(|key| (ORDERED, &key[..], Some(&key[..])))
        .collect();
    apply(backend, &writes, &meta(1));
    let numbers = |from: &[u8], to: &[u8]| -> Vec<u16> {
        let found = entries(backend, ORDERED, from, to);
        found
            .iter()
            .map(|(key, _)| u16::from_be_bytes([key[0], key[1]]))
            .collect()
    };
    assert_eq!(numbers(b"", b""), (0..1000).collect::<Vec<_>>());
    assert_eq!(numbers(b"\x00\x05", b"\x00\x08"), [5, 6, 7]);
    assert_eq!(
        numbers(b"\x00\x05\x00", b"\x00\x08\x00"),
        [6, 7, 8],
        "bounds need not be keys"
    );
    assert_eq!(numbers(b"\x03\xe6", b""), [998, 999]);
    assert!(numbers(b"\x00\x08", b"\x00\x08").is_empty());
    assert!(
        numbers(b"\x00\x08", b"\x00\x05").is_empty(),
        "a range that ends before it begins is empty"
    );
    assert_eq!(entries(backend, PLAIN, b"", b""), []);
    let mut visited = 0;
    let scanned = backend.scan(ORDERED, b"", b"", &mut |_, _| {
        visited += 1;
        visited < 3
    });
    assert!(scanned.is_ok());
    assert_eq!(visited, 3);
}

fn epochs_of_a_lineage_go_up(backend: &dyn StateBackend) {
    apply(backend, &[(PLAIN, b"a", Some(b"5"))], &meta(5));
    for stale in [5, 4] {
        let attempt =
            std::panic::AssertUnwindSafe(|| backend.apply(&increment(&[(PLAIN, b"a", Some(b"stale"))]), &meta(stale)));
        assert!(
            std::panic::catch_unwind(attempt).is_err(),
            "epoch {stale} after epoch 5 must be refused"
        );
    }
    assert_eq!(
        get(backend, PLAIN, b"a"),
        Some(b"5".to_vec()),
        "a refused increment leaves no trace"
    );
    assert_eq!(backend.meta().ok(), Some(Some(meta(5))));
    apply(backend, &[(PLAIN, b"a", Some(b"9"))], &meta(9));
    assert_eq!(get(backend, PLAIN, b"a"), Some(b"9".to_vec()));
}

fn a_replay_goes_on_within_an_epoch_but_never_back(backend: &dyn StateBackend) {
    let at = |offset| StateMeta {
        changelog: std::collections::BTreeMap::from([(crate::ids::TopicPartition::new("changelog", 0), offset)]),
        ..meta(5)
    };
    apply(backend, &[(PLAIN, b"a", Some(b"1"))], &at(10));
    apply(backend, &[(PLAIN, b"a", Some(b"2"))], &at(20));
    let back = std::panic::AssertUnwindSafe(|| backend.apply(&increment(&[(PLAIN, b"a", Some(b"stale"))]), &at(15)));
    assert!(
        std::panic::catch_unwind(back).is_err(),
        "offset 15 after offset 20 must be refused"
    );
    assert_eq!(get(backend, PLAIN, b"a"), Some(b"2".to_vec()));
}

fn another_lineage_starts_anew(backend: &dyn StateBackend) {
    apply(backend, &[(PLAIN, b"a", Some(b"5"))], &meta(5));
    let fork = StateMeta {
        lineage: Lineage(8),
        ..meta(1)
    };
    apply(backend, &[], &fork);
    assert_eq!(backend.meta().ok(), Some(Some(fork)));
}

/// Reads run beside an apply on another thread, as a worker's do.
fn readers_see_whole_values_while_increments_are_applied(backend: Arc<dyn StateBackend>) {
    const EPOCHS: u64 = 50;
    let keys: Vec<[u8; 2]> = (0..200u16).map(u16::to_be_bytes).collect();
    let applier = Arc::clone(&backend);
    let all_keys = keys.clone();
    let writer = std::thread::spawn(move || {
        for epoch in 1..=EPOCHS {
            let value = [epoch as u8; 32];
            let writes: Vec<Write<'_>> = all_keys
                .iter()
                .map(|key| (ORDERED, &key[..], Some(&value[..])))
                .collect();
            apply(&*applier, &writes, &meta(epoch));
        }
    });
    let mut last_seen = BTreeMap::new();
    let mut finished = false;
    while !finished {
        finished = writer.is_finished();
        for key in &keys {
            let value = get(&*backend, ORDERED, key).unwrap_or_default();
            let epoch = value.first().copied().unwrap_or(0);
            assert!(value.iter().all(|byte| *byte == epoch), "a value is torn: {value:?}");
            let before = last_seen.insert(key, epoch).unwrap_or(0);
            assert!(epoch >= before, "a key went back from epoch {before} to {epoch}");
        }
        let scanned = entries(&*backend, ORDERED, b"", b"");
        assert!(
            scanned.is_empty() || scanned.len() == keys.len(),
            "{} keys",
            scanned.len()
        );
    }
    assert!(writer.join().is_ok());
    assert_eq!(backend.meta().ok(), Some(Some(meta(EPOCHS))));
}
