//! Creating objects: once, whole, by one.

use std::sync::Barrier;
use std::thread;

use tidegate::blob::BlobError;

use super::{Folder, is_missing, names};

pub fn what_was_created_is_read(folder: &Folder) {
    let blobs = folder.open();
    blobs.create("a", b"bytes").expect("it is created");
    assert_eq!(blobs.read("a"), Ok(b"bytes".to_vec()));
}

pub fn a_name_is_given_once(folder: &Folder) {
    let blobs = folder.open();
    blobs.create("a", b"first").expect("it is created");
    let again = blobs.create("a", b"second");
    assert!(
        matches!(&again, Err(BlobError::Exists { name, .. }) if name == "a"),
        "{again:?}"
    );
    assert_eq!(blobs.read("a"), Ok(b"first".to_vec()), "nothing is overwritten");
}

pub fn the_same_bytes_may_be_created_again(folder: &Folder) {
    let blobs = folder.open();
    blobs.create("a", b"bytes").expect("it is created");
    assert_eq!(blobs.create("a", b"bytes"), Ok(()));
    assert_eq!(folder.open().create("a", b"bytes"), Ok(()));
}

pub fn of_racing_creators_exactly_one_wins(folder: &Folder) {
    for round in 0..5 {
        let name = format!("race/{round}");
        let start = Barrier::new(8);
        let race = |creator: u8| {
            let blobs = folder.open();
            // Long enough to be torn, if it could be.
            let bytes = vec![creator; 100_000];
            start.wait();
            (creator, blobs.create(&name, &bytes))
        };
        let outcomes: Vec<_> = thread::scope(|scope| {
            let creators: Vec<_> = (0..8).map(|creator| scope.spawn(move || race(creator))).collect();
            let ended = creators.into_iter().map(|creator| creator.join());
            ended.map(|ended| ended.expect("no creator panics")).collect()
        });
        let winners: Vec<u8> = outcomes
            .iter()
            .filter(|(_, outcome)| outcome.is_ok())
            .map(|(creator, _)| *creator)
            .collect();
        assert_eq!(winners.len(), 1, "{outcomes:?}");
        let lost = outcomes
            .iter()
            .filter(|(_, outcome)| matches!(outcome, Err(BlobError::Exists { .. })));
        assert_eq!(lost.count(), 7, "{outcomes:?}");
        assert_eq!(folder.open().read(&name), Ok(vec![winners[0]; 100_000]));
    }
}

pub fn an_empty_object_is_an_object(folder: &Folder) {
    let blobs = folder.open();
    blobs.create("empty", b"").expect("it is created");
    assert_eq!(blobs.create("empty", b""), Ok(()));
    blobs.upload("uploaded", &Vec::new()).expect("it is uploaded");
    for name in ["empty", "uploaded"] {
        assert_eq!(blobs.read(name), Ok(Vec::new()));
        assert_eq!(blobs.read_end(name, 10), Ok(Vec::new()));
    }
    assert_eq!(names(&*blobs, ""), ["empty", "uploaded"]);
    assert!(matches!(blobs.create("empty", b"x"), Err(BlobError::Exists { .. })));
}

pub fn names_have_dots_dashes_and_folders(folder: &Folder) {
    let blobs = folder.open();
    let created = [
        "0-1_2.json",
        "a.b/c-d/e_f.sst",
        "a/b/c/d/e/f/g",
        "snapshots/0_7/00000012.json",
    ];
    for name in created {
        blobs.create(name, name.as_bytes()).expect("it is created");
        assert_eq!(blobs.read(name), Ok(name.as_bytes().to_vec()), "{name}");
    }
    assert_eq!(names(&*blobs, ""), created);
}

pub fn impossible_names_are_refused(folder: &Folder) {
    let blobs = folder.open();
    for name in ["", "/a", "a/", "a//b", "../a", "a/../b", "a#1"] {
        assert!(
            matches!(blobs.create(name, b"x"), Err(BlobError::Failed { .. })),
            "{name:?}"
        );
        assert!(matches!(blobs.read(name), Err(BlobError::Failed { .. })), "{name:?}");
    }
    assert!(names(&*blobs, "").is_empty());
}

pub fn handles_on_one_folder_see_each_other(folder: &Folder) {
    let (one, other) = (folder.open(), folder.open());
    one.create("a", b"of one").expect("it is created");
    assert_eq!(other.read("a"), Ok(b"of one".to_vec()));
    assert!(matches!(
        other.create("a", b"of another"),
        Err(BlobError::Exists { .. })
    ));
    other.delete(&["a".to_owned()]).expect("it is deleted");
    assert!(is_missing(&one.read("a")));
    assert_eq!(one.root(), other.root());
}
