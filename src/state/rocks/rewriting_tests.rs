//! How much of a database compaction rewrites: all of that has to be stored anew by the next base snapshot.

use std::collections::BTreeSet;

use rocksdb::WaitForCompactOptions;

use super::tests::directory;
use super::*;
use crate::state::conformance::{PLAIN, increment, meta, stores};

const KEYS: u64 = 40_000;
const CHANGED: u64 = KEYS / 100;
const ROUNDS: u64 = 40;

/// Numbers that look random (splitmix64), so that neither keys nor changes lie together.
fn mixed(number: u64) -> u64 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 27)
}

fn write(backend: &RocksBackend, epoch: u64, numbers: impl Iterator<Item = u64>) {
    let entries: Vec<([u8; 8], [u8; 96])> = numbers
        .map(|number| {
            let piece = |at: usize| mixed(number ^ (epoch << 40) ^ (at as u64) << 32) as u8;
            (mixed(number).to_be_bytes(), std::array::from_fn(piece))
        })
        .collect();
    let writes: Vec<_> = entries
        .iter()
        .map(|(key, value)| (PLAIN, &key[..], Some(&value[..])))
        .collect();
    backend.apply(&increment(&writes), &meta(epoch)).expect("it is applied");
}

/// The data files of a copy, once nothing is left to be compacted.
fn data_files(backend: &RocksBackend) -> BTreeSet<(String, u64)> {
    backend.flush().expect("it is flushed");
    let compacted = backend.db.wait_for_compact(&WaitForCompactOptions::default());
    compacted.expect("it is compacted");
    let copy = backend.checkpoint().expect("it is copied");
    let data = copy.files().iter().filter(|file| file.immutable);
    data.map(|file| (file.name.clone(), file.bytes)).collect()
}

fn bytes<'a>(files: impl IntoIterator<Item = &'a (String, u64)>) -> u64 {
    files.into_iter().map(|(_, bytes)| bytes).sum()
}

#[test]
fn a_change_of_one_key_of_a_hundred_rewrites_little_of_the_rest() {
    let directory = directory();
    let shared = RocksShared::new(1 << 20, 1 << 20);
    let backend = RocksBackend::open(directory.path(), &stores(), &shared).expect("it is opened");
    for part in 0..10 {
        write(&backend, part + 1, (part * KEYS / 10)..((part + 1) * KEYS / 10));
    }
    let mut former = data_files(&backend);
    let (mut shares, mut most) = (0.0, 0.0_f64);
    for round in 0..ROUNDS {
        let changed = (0..CHANGED).map(|draw| mixed(round * CHANGED + draw) % KEYS);
        write(&backend, 100 + round, changed);
        let files = data_files(&backend);
        let share = bytes(files.difference(&former)) as f64 / bytes(&files) as f64;
        (shares, most) = (shares + share, most.max(share));
        former = files;
    }
    let mean = shares / ROUNDS as f64;
    assert!(
        mean < 0.05 && most < 0.5,
        "{mean:.3} of it was new on the mean, {most:.3} at most"
    );
}
