//! Formats of the repository: what is written is read back, for ever, and nothing else is taken for it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ids::{Epoch, Lineage, StoreId, TaskId, TopicPartition};
use crate::state::{Overlay, StateMeta, StoreSpec};

const TASK: TaskId = TaskId {
    sub_topology: 0,
    partition: 3,
};

fn meta(epoch: u64) -> StateMeta {
    StateMeta {
        lineage: Lineage(0xabc),
        epoch: Epoch(epoch),
        ended_ms: 1_700_000_000_000,
        cut: BTreeMap::from([(TopicPartition::new("in", 3), 77)]),
        changelog: BTreeMap::new(),
    }
}

fn increment_ref(epoch: u64) -> IncrementRef {
    let pack = PackId {
        writer: WriterName::new("host", "worker-0"),
        sequence: epoch,
        attempt: Attempt(epoch),
    };
    IncrementRef {
        epoch: Epoch(epoch),
        place: Place::Pack(pack),
    }
}

fn stores() -> Vec<String> {
    vec!["count".to_owned(), "window".to_owned()]
}

type Entries = Vec<(u8, Vec<u8>, Option<Vec<u8>>)>;

fn overlay(entries: &Entries) -> Overlay {
    let mut overlay = Overlay::new(&[false, false]);
    for (store, key, value) in entries {
        let store = StoreId(u16::from(*store));
        match value {
            Some(value) => overlay.put(store, key, value),
            None => overlay.delete(store, key),
        }
    }
    overlay
}

fn entries_of(overlay: &Overlay) -> Entries {
    use crate::state::SortedIncrement;
    let mut entries = Vec::new();
    overlay.for_each(&mut |store, key, value| {
        entries.push((store.0 as u8, key.to_vec(), value.map(<[u8]>::to_vec)));
    });
    entries
}

fn packed(entries: &Entries) -> Vec<u8> {
    let overlay = overlay(entries);
    let increment = TaskIncrement {
        task: TASK,
        meta: &meta(7),
        stores: stores(),
        increment: &overlay,
        links: vec![increment_ref(6), increment_ref(5)],
        depth: 6,
        after_base: (2, 300),
    };
    pack("beef", &[increment]).expect("it is packed")
}

fn footer(bytes: &[u8]) -> Result<Footer, FormatError> {
    match read_end(bytes, "a.tgi")? {
        End::Footer(footer) => Ok(footer),
        End::Longer(bytes) => panic!("{bytes} bytes are asked for"),
    }
}

fn unpacked(bytes: &[u8]) -> Result<Overlay, FormatError> {
    let footer = footer(bytes)?;
    let task = footer.of(TASK).expect("the task is in it").clone();
    let range = task.range();
    let block = bytes.get(range.start as usize..range.end as usize).unwrap_or_default();
    task.unpack(block, &stores(), "a.tgi")
}

fn some_entries() -> Entries {
    vec![
        (0, b"a".to_vec(), Some(b"1".to_vec())),
        (0, b"b".to_vec(), None),
        (1, b"a".to_vec(), Some(Vec::new())),
    ]
}

#[test]
fn a_pack_says_what_it_holds() {
    let bytes = packed(&some_entries());
    let footer = footer(&bytes).expect("a footer");
    let task = footer.of(TASK).expect("the task is in it");
    assert_eq!(task.meta("a.tgi"), Ok(meta(7)));
    assert_eq!(task.links("a.tgi"), Ok(vec![increment_ref(6), increment_ref(5)]));
    assert_eq!(
        (task.task(), task.epoch(), task.depth, task.entries),
        (Some(TASK), Epoch(7), 6, 3)
    );
    assert_eq!((task.chain_objects, task.chain_bytes), (3, 300 + task.bytes));
    assert!(
        footer
            .of(TaskId {
                sub_topology: 0,
                partition: 4
            })
            .is_none()
    );
    assert_eq!(entries_of(&unpacked(&bytes).expect("it unpacks")), some_entries());
}

#[test]
fn stores_are_found_by_name_whatever_their_number_is_now() {
    let bytes = packed(&some_entries());
    let footer = footer(&bytes).expect("a footer");
    let task = footer.of(TASK).expect("the task is in it");
    let range = task.range();
    let block = &bytes[range.start as usize..range.end as usize];
    let swapped = task
        .unpack(block, &["window".into(), "count".into()], "a.tgi")
        .expect("it unpacks");
    assert_eq!(swapped.store_len(StoreId(1)), 2);
    let error = task
        .unpack(block, &["count".into()], "a.tgi")
        .expect_err("a store is gone");
    assert!(
        matches!(&error, FormatError::Foreign { what, .. } if what.contains("window")),
        "{error}"
    );
}

#[test]
fn the_end_of_a_pack_says_how_much_of_it_is_needed() {
    let bytes = packed(&some_entries());
    let Ok(End::Longer(needed)) = read_end(&bytes[bytes.len() - 12..], "a.tgi") else {
        panic!("12 bytes hold no footer");
    };
    let end = &bytes[bytes.len() - needed as usize..];
    assert!(matches!(read_end(end, "a.tgi"), Ok(End::Footer(_))));
}

fn manifest() -> Manifest {
    let file = |name: &str, immutable| StoredFile {
        name: name.to_owned(),
        bytes: 10,
        immutable,
        hash: ContentHash::of(name.as_bytes()),
        object: format!("tasks/0_3/files/{name}"),
        offset: 4,
    };
    let snapshot = |epoch: u64| SnapshotId {
        epoch: Epoch(epoch),
        attempt: Attempt(epoch),
    };
    let mut meta = meta(7);
    meta.changelog = BTreeMap::from([(TopicPartition::new("app-count-changelog", 3), 12)]);
    Manifest {
        task: TASK,
        id: snapshot(7),
        meta,
        plan: "beef".into(),
        stores: vec![StoreSpec {
            name: "count".into(),
            ordered: false,
            codecs: "utf8/i64be".into(),
        }],
        backend: "rocksdb".into(),
        writer: "host/worker-0".into(),
        made_ms: 1_700_000_001_000,
        files: vec![file("000012.sst", true), file("CURRENT", false)],
        history: vec![Retained {
            id: snapshot(5),
            made_ms: 1_700_000_000_500,
        }],
        increments: vec![increment_ref(7), increment_ref(6)],
        depth: 6,
    }
}

#[test]
fn a_manifest_is_read_back() {
    let manifest = manifest();
    let json = manifest.to_json();
    assert_eq!(Manifest::from_json(&json, "m"), Ok(manifest.clone()));
    let specs = manifest.stores.clone();
    assert_eq!(
        manifest.check_belongs(TASK, manifest.id, Lineage(0xabc), &specs),
        Ok(())
    );
    let foreign = manifest.check_belongs(TASK, manifest.id, Lineage(1), &specs);
    assert!(matches!(foreign, Err(FormatError::Foreign { .. })));
    let other_stores = manifest.check_belongs(TASK, manifest.id, Lineage(0xabc), &[]);
    assert!(matches!(other_stores, Err(FormatError::Foreign { .. })));
}

#[test]
fn a_manifest_of_a_later_format_says_so_whatever_else_it_has() {
    let later = br#"{"format":2,"something":"new"}"#;
    let error = Manifest::from_json(later, "m").expect_err("it is not known");
    assert!(
        matches!(error, FormatError::Newer { found: 2, known: 1, .. }),
        "{error}"
    );
    assert!(matches!(
        Manifest::from_json(br#"{"format":0}"#, "m"),
        Err(FormatError::Damaged { .. })
    ));
}

#[test]
fn snapshots_stay_by_number_and_while_somebody_may_read_them() {
    let retention = Retention {
        keep: 2,
        grace: std::time::Duration::from_millis(100),
    };
    let made = |made_ms: i64| Retained {
        id: SnapshotId {
            epoch: Epoch(made_ms as u64),
            attempt: Attempt(0),
        },
        made_ms,
    };
    let bases = [made(300), made(250), made(210), made(100)];
    let times = |bases: Vec<Retained>| -> Vec<i64> { bases.iter().map(|base| base.made_ms).collect() };
    assert_eq!(
        times(retention.history(&bases, 309)),
        [300, 250, 210, 100],
        "100 was the newest until 210"
    );
    assert_eq!(times(retention.history(&bases, 345)), [300, 250, 210]);
    assert_eq!(
        times(retention.history(&bases, 1_000)),
        [300],
        "with the new one there are two"
    );
}

proptest! {
    #[test]
    fn increments_survive_packing(entries in proptest::collection::vec(
        (0..2_u8, proptest::collection::vec(any::<u8>(), 0..20), proptest::option::of(proptest::collection::vec(any::<u8>(), 0..50))),
        0..40,
    )) {
        let bytes = packed(&entries);
        prop_assert_eq!(entries_of(&unpacked(&bytes).expect("it unpacks")), entries_of(&overlay(&entries)));
    }

    #[test]
    fn a_flipped_bit_of_a_pack_is_noticed(position: prop::sample::Index, bit in 0..8) {
        let mut bytes = packed(&some_entries());
        let position = position.index(bytes.len() - 4) + 4; // The first four are not read.
        bytes[position] ^= 1_u8 << bit;
        match read_end(&bytes, "a.tgi") {
            Err(_) | Ok(End::Longer(_)) => {}
            Ok(End::Footer(_)) => prop_assert!(unpacked(&bytes).is_err()),
        }
    }

    #[test]
    fn a_truncated_pack_is_noticed(length: prop::sample::Index) {
        let bytes = packed(&some_entries());
        let cut = &bytes[..length.index(bytes.len())];
        prop_assert!(!matches!(read_end(cut, "a.tgi"), Ok(End::Footer(_))));
    }

    #[test]
    fn a_flipped_bit_of_a_manifest_is_noticed(position: prop::sample::Index, bit in 0..8) {
        let mut json = manifest().to_json();
        let position = position.index(json.len());
        json[position] ^= 1_u8 << bit;
        prop_assert!(Manifest::from_json(&json, "m").is_err());
    }

    #[test]
    fn garbage_is_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(!matches!(read_end(&bytes, "a.tgi"), Ok(End::Footer(_))));
        prop_assert!(Manifest::from_json(&bytes, "m").is_err());
    }
}

/// Objects as version 0.1 wrote them.
const PACK_1: &[u8] = include_bytes!("fixtures/pack-1.tgi");
const MANIFEST_1: &[u8] = include_bytes!("fixtures/manifest-1.json");

#[test]
fn format_1_is_read_for_ever() {
    assert_eq!(entries_of(&unpacked(PACK_1).expect("it unpacks")), some_entries());
    let footer = footer(PACK_1).expect("a footer");
    let task = footer.of(TASK).expect("the task is in it");
    assert_eq!(task.meta("a.tgi"), Ok(meta(7)));
    assert_eq!(task.links("a.tgi"), Ok(vec![increment_ref(6), increment_ref(5)]));
    assert_eq!((footer.plan.as_str(), task.depth, task.chain_objects), ("beef", 6, 3));
    assert_eq!(Manifest::from_json(MANIFEST_1, "m"), Ok(manifest()));
}
