//! The files of a database in memory: what was written is read, what was changed is noticed, versions stay.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::StateMeta;
use super::entries::Entries;
use super::entry_files::{Files, HEAD, Unreadable, read, write};
use crate::ids::{Epoch, Lineage, TopicPartition};

const CHUNK_BYTES: u32 = 64;

fn entries() -> impl Strategy<Value = Entries> {
    let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most).prop_map(Vec::into_boxed_slice);
    proptest::collection::btree_map(bytes(12), bytes(20), 0..60)
}

fn meta() -> StateMeta {
    StateMeta {
        lineage: Lineage(0xabc),
        epoch: Epoch(7),
        ended_ms: 1_357_034_400_000,
        cut: [(TopicPartition::new("flights", 3), 1024)].into(),
        changelog: BTreeMap::new(),
    }
}

fn chunks(files: &Files) -> BTreeSet<&String> {
    files.keys().filter(|name| *name != HEAD).collect()
}

/// Bytes with a right checksum.
fn sealed(mut body: Vec<u8>) -> Vec<u8> {
    body.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
    body
}

proptest! {
    #[test]
    fn a_database_survives_being_written(stores in proptest::collection::vec(entries(), 0..3), chunk_bytes in 0u32..300) {
        let files = write(&stores, &meta(), chunk_bytes);
        prop_assert_eq!(read(&files, stores.len()), Ok((meta(), stores)));
    }

    #[test]
    fn one_entry_changes_three_chunks_at_most(store in entries(), key in "[a-z]{1,4}", value in "[a-z]{0,9}") {
        let before = write(std::slice::from_ref(&store), &meta(), CHUNK_BYTES);
        let mut store = store;
        store.insert(key.into_bytes().into(), value.into_bytes().into());
        let after = write(&[store], &meta(), CHUNK_BYTES);
        let former = chunks(&before);
        let new = chunks(&after).difference(&former).count();
        prop_assert!(new <= 2, "{new} chunks are new");
        let gone = former.difference(&chunks(&after)).count();
        prop_assert!(gone <= 2, "{gone} chunks are gone");
    }

    #[test]
    fn a_flipped_bit_is_noticed(
        stores in proptest::collection::vec(entries(), 1..3),
        file: prop::sample::Index,
        position: prop::sample::Index,
        bit in 0..8,
    ) {
        let mut files = write(&stores, &meta(), CHUNK_BYTES);
        let name = file.get(&files.keys().cloned().collect::<Vec<_>>()).clone();
        let content = files.get_mut(&name).expect("it is one of them");
        let position = position.index(content.len());
        content[position] ^= 1u8 << bit;
        prop_assert!(read(&files, stores.len()).is_err());
    }

    #[test]
    fn a_chunk_in_place_of_another_is_noticed(stores in proptest::collection::vec(entries(), 1..3)) {
        let files = write(&stores, &meta(), CHUNK_BYTES);
        let names: Vec<String> = chunks(&files).into_iter().cloned().collect();
        for two in names.windows(2) {
            let mut mixed = files.clone();
            mixed.insert(two[0].clone(), files[&two[1]].clone());
            prop_assert!(read(&mixed, stores.len()).is_err());
        }
    }

    #[test]
    fn garbage_with_good_checksums_is_refused_or_read_but_never_panics(
        head in proptest::collection::vec(any::<u8>(), 0..80),
        chunk in proptest::collection::vec(any::<u8>(), 0..80),
        framed: bool,
    ) {
        let mut files = write(&[[(b"a".as_slice().into(), b"b".as_slice().into())].into()], &meta(), CHUNK_BYTES);
        let name = chunks(&files).into_iter().next().expect("a chunk").clone();
        let with_magic = |magic: &[u8], body: Vec<u8>| if framed { [magic, &body].concat() } else { body };
        files.insert(name, sealed(with_magic(b"TGSC\x00\x01\x00\x00", chunk)));
        prop_assert!(read(&files, 1).is_err(), "its name says what was in it");
        files.insert(HEAD.to_owned(), sealed(with_magic(b"TGSH\x00\x01\x00\x01", head)));
        let _ = read(&files, 1);
    }
}

/// A database of two stores in the bytes of version 1.
fn fixture() -> Files {
    let chunk = b"TGSC\x00\x01\x00\x00\
        \x00\x00\x00\x01a\x00\x00\x00\x02xy\
        \x00\x00\x00\x02bb\x00\x00\x00\x00\
        \xd0\xeb\xfd\x87";
    let head = b"TGSH\x00\x01\x00\x02\
        \x00\x00\x00\x3f\
        TGSM\x00\x02\
        \x00\x00\x00\x00\x00\x00\x0a\xbc\
        \x00\x00\x00\x00\x00\x00\x00\x07\
        \x00\x00\x01\x3b\xf5\x8d\xa9\x00\
        \x00\x00\x00\x01\
        \x00\x07flights\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x04\x00\
        \x00\x00\x00\x00\
        \x2c\xf8\xcc\x26\
        \x00\x1e0000-e8b7be43-d1ffeada9db1066b\
        \x4b\xfe\x1c\xae";
    [
        ("0000-e8b7be43-d1ffeada9db1066b", chunk.to_vec()),
        (HEAD, head.to_vec()),
    ]
    .map(|(name, content)| (name.to_owned(), content))
    .into()
}

#[test]
fn version_1_is_written_and_read_for_ever() {
    let entries = [("a", "xy"), ("bb", "")].map(|(key, value)| (key.as_bytes().into(), value.as_bytes().into()));
    let stores = vec![Entries::from(entries), Entries::new()];
    let files = write(&stores, &meta(), u32::MAX);
    assert_eq!(files, fixture(), "the format never changes without a new version");
    assert_eq!(read(&fixture(), 2), Ok((meta(), stores)));
}

#[test]
fn another_version_is_named() {
    for file in fixture().keys() {
        let mut files = fixture();
        let content = files.get_mut(file).expect("it is one of them");
        content.truncate(content.len() - 4);
        content[5] = 2;
        *content = sealed(std::mem::take(content));
        let (file, version) = (file.clone(), 2);
        assert_eq!(read(&files, 2), Err(Unreadable::Version { file, version }));
    }
}

#[test]
fn other_stores_are_refused() {
    assert_eq!(read(&fixture(), 3), Err(Unreadable::Stores(2, 3)));
}

#[test]
fn chunks_have_the_size_that_was_asked_for_on_average() {
    let keys = (0u32..20_000).map(u32::to_be_bytes);
    let store: Entries = keys.map(|key| (key.as_slice().into(), key.as_slice().into())).collect();
    let files = write(&[store], &meta(), 1024);
    let average = 20_000 * 16 / chunks(&files).len();
    assert!((700..1500).contains(&average), "{average} bytes");
}
