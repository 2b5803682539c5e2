//! Format 1 stays readable for ever: these bytes were written by the first version that had savepoints.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::durability::snapshot::{Attempt, ContentHash, FormatError, StoredFile};
use crate::ids::{Epoch, Lineage, TaskId, TopicPartition};
use crate::state::StoreSpec;

fn name() -> SavepointName {
    "before-upgrade".parse().expect("a name")
}

fn store() -> StoreSpec {
    StoreSpec {
        name: "counts".into(),
        ordered: false,
        codecs: "utf8 -> row of i64be".into(),
    }
}

fn part() -> Part {
    Part {
        task: TaskId {
            sub_topology: 0,
            partition: 3,
        },
        lineage: Lineage(0x1234),
        epoch: Epoch(7),
        ended_ms: 1_700_000_000_000,
        cut: BTreeMap::from([(TopicPartition::new("lines", 3), 77)]),
        stores: vec![store()],
        backend: "rocksdb".into(),
        writer: "host/worker-0".into(),
        files: vec![StoredFile {
            name: "000012.sst".into(),
            bytes: 5,
            immutable: true,
            hash: ContentHash::of(b"hello"),
            object: "00000000000000ab/0_3/0.sst".into(),
            offset: 0,
        }],
    }
}

fn savepoint() -> Savepoint {
    Savepoint {
        name: name(),
        application: "counter".into(),
        plan: "00c0ffee00c0ffee".into(),
        plan_text: "plan format 1\n".into(),
        form: Form::Native,
        asked_ms: 1_700_000_000_500,
        made_ms: 1_700_000_002_000,
        parts: vec![part()],
    }
}

fn request() -> Request {
    Request {
        name: name(),
        attempt: Attempt(0xab),
        form: Form::Canonical,
        asked_ms: 1_700_000_000_500,
        deadline_ms: 1_700_000_060_500,
    }
}

const FIXTURE: &[u8] = include_bytes!("fixtures/savepoint.json");
const CHUNK: &[u8] = include_bytes!("fixtures/counts.tgc");

#[test]
fn format_1_of_a_savepoint_is_fixed() {
    assert_eq!(
        String::from_utf8_lossy(&savepoint().to_json()),
        String::from_utf8_lossy(FIXTURE)
    );
    assert_eq!(Savepoint::from_json(FIXTURE, "savepoint.json"), Ok(savepoint()));
}

#[test]
fn format_1_of_a_canonical_chunk_is_fixed() {
    let mut writer = ChunkWriter::new(&store());
    assert!(writer.is_empty());
    assert!(!writer.push(b"a", &[0, 1]) && !writer.push(b"b", &[]));
    assert_eq!(writer.finish(), CHUNK);
    let chunk = Chunk::read(CHUNK, "counts.tgc").expect("it is whole");
    assert_eq!((&*chunk.store, &*chunk.codecs), ("counts", "utf8 -> row of i64be"));
    assert_eq!(chunk.rows, [(b"a".to_vec(), vec![0, 1]), (b"b".to_vec(), vec![])]);
}

#[test]
fn rows_that_are_not_in_order_are_damage() {
    let mut writer = ChunkWriter::new(&store());
    writer.push(b"b", b"");
    writer.push(b"a", b"");
    let read = Chunk::read(&writer.finish(), "counts.tgc");
    assert!(matches!(read, Err(FormatError::Damaged { .. })), "{read:?}");
}

#[test]
fn requests_and_parts_survive_the_store() {
    assert_eq!(Request::from_json(&request().to_json(), "r"), Ok(request()));
    assert_eq!(Part::from_json(&part().to_json(), "p"), Ok(part()));
    let failure = Failure {
        by: "host/worker-0".into(),
        reason: "a task was taken away".into(),
    };
    assert_eq!(Failure::from_json(&failure.to_json(), "f"), Ok(failure));
}

#[test]
fn a_later_format_and_a_changed_text_are_told_apart() {
    let text = String::from_utf8(savepoint().to_json()).expect("JSON is text");
    let later = text.replacen("\"format\":1", "\"format\":2", 1);
    let read = Savepoint::from_json(later.as_bytes(), "savepoint.json");
    assert!(matches!(read, Err(FormatError::Newer { found: 2, .. })), "{read:?}");
    let changed = text.replacen(",77]", ",78]", 1);
    let read = Savepoint::from_json(changed.as_bytes(), "savepoint.json");
    assert!(matches!(read, Err(FormatError::Damaged { .. })), "{read:?}");
}

#[test]
fn names_stay_within_their_folder() {
    for wrong in ["", ".", "..", "a/b", "ä", ".hidden", &"x".repeat(65)] {
        assert!(wrong.parse::<SavepointName>().is_err(), "{wrong:?}");
    }
    let folder = request().folder();
    let task = part().task;
    assert_eq!(
        folder.marker(task),
        "savepoints/before-upgrade/00000000000000ab/frozen/0_3.json"
    );
    assert_eq!(AttemptFolder::task_of(&folder.part(task)), Some(task));
    assert_eq!(AttemptFolder::task_of(&folder.failure()), None);
    assert_eq!(SavepointName::of_object(&folder.failure()), Some(name()));
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..200, flip: u8) {
        let _ = Chunk::read(&bytes, "o");
        let _ = Savepoint::from_json(&bytes, "o");
        let mut damaged = CHUNK.to_vec();
        let at = cut % damaged.len();
        damaged[at] ^= flip;
        let read = Chunk::read(&damaged, "o");
        prop_assert_eq!(read.is_ok(), flip == 0);
        prop_assert!(Chunk::read(&CHUNK[..at], "o").is_err());
    }
}
