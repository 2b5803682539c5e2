//! Listing and deleting.

use std::thread;

use tidegate::blob::BlobError;

use super::{Folder, is_missing, names};

pub fn a_listing_is_in_order_and_of_one_folder(folder: &Folder) {
    let blobs = folder.open();
    assert!(
        names(&*blobs, "").is_empty(),
        "a folder without objects has an empty listing"
    );
    for name in ["b/2", "b/10", "a", "b-c", "b.d", "b/1/deeper", "b_e", "c"] {
        blobs.create(name, b"x").expect("it is created");
    }
    // By bytes, so that `b-c` comes before `b/1`.
    assert_eq!(
        names(&*blobs, ""),
        ["a", "b-c", "b.d", "b/1/deeper", "b/10", "b/2", "b_e", "c"]
    );
    assert_eq!(names(&*blobs, "b/"), ["b/1/deeper", "b/10", "b/2"]);
    assert_eq!(names(&*blobs, "b/1/"), ["b/1/deeper"]);
    assert!(names(&*blobs, "nothing/").is_empty());
}

pub fn a_listing_says_sizes_and_times(folder: &Folder) {
    let blobs = folder.open();
    blobs.create("five", b"12345").expect("it is created");
    let listed = blobs.list("").expect("the folder can be listed");
    let info = listed.first().expect("there is one object");
    assert_eq!((info.name.as_str(), info.bytes), ("five", 5));
    let in_2020 = 1_577_836_800_000;
    assert!(info.written_ms > in_2020, "{info:?}");
}

pub fn more_than_a_thousand_objects_are_listed_and_deleted(folder: &Folder) {
    let blobs = folder.open();
    let expected: Vec<String> = (0..1_050).map(|number| format!("many/{number:06}")).collect();
    let creator = &*blobs;
    thread::scope(|scope| {
        for some in expected.chunks(150) {
            scope.spawn(move || {
                for name in some {
                    creator.create(name, b"x").expect("it is created");
                }
            });
        }
    });
    blobs.create("other", b"x").expect("it is created");
    assert_eq!(names(&*blobs, "many/"), expected);
    blobs.delete(&expected).expect("they are deleted");
    assert_eq!(names(&*blobs, ""), ["other"]);
}

pub fn a_prefix_is_a_folder(folder: &Folder) {
    let listed = folder.open().list("b");
    assert!(matches!(listed, Err(BlobError::Failed { .. })), "{listed:?}");
}

pub fn what_is_deleted_is_gone_and_deleting_it_again_succeeds(folder: &Folder) {
    let blobs = folder.open();
    for name in ["a", "b/c", "d"] {
        blobs.create(name, b"x").expect("it is created");
    }
    let gone = ["a".to_owned(), "b/c".to_owned(), "never/there".to_owned()];
    assert_eq!(blobs.delete(&gone), Ok(()));
    assert!(is_missing(&blobs.read("a")) && is_missing(&blobs.read("b/c")));
    assert_eq!(blobs.delete(&gone), Ok(()));
    assert_eq!(blobs.delete(&[]), Ok(()));
    assert_eq!(names(&*blobs, ""), ["d"]);
}
