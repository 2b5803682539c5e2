//! Reading objects: whole, their ends, parts of them.

use std::ops::Range;

use tidegate::blob::Part;

use super::{Folder, is_missing, pattern};

fn part(name: &str, range: Range<u64>) -> Part {
    let name = name.to_owned();
    Part { name, range }
}

pub fn what_is_not_there_is_missing(folder: &Folder) {
    let blobs = folder.open();
    blobs.create("here", b"x").expect("it is created");
    assert!(is_missing(&blobs.read("not-here")));
    assert!(is_missing(&blobs.read("nowhere/at/all")));
    assert!(is_missing(&blobs.read_end("not-here", 4)));
    assert!(is_missing(&blobs.read_end("not-here", 0)));
    let parts = blobs.read_parts(&[part("not-here", 0..4), part("here", 0..1), part("not-here", 7..7)]);
    assert!(is_missing(&parts[0]) && is_missing(&parts[2]), "{parts:?}");
    assert_eq!(
        parts[1],
        Ok(b"x".to_vec()),
        "one that is missing does not take others with it"
    );
}

pub fn ranges_end_with_the_object(folder: &Folder) {
    let blobs = folder.open();
    blobs.create("a", b"0123456789").expect("it is created");
    let asked = [0..10, 2..5, 8..12, 9..1_000_000, 10..12, 11..12, 4..4, 0..u64::MAX];
    let parts: Vec<Part> = asked.into_iter().map(|range| part("a", range)).collect();
    let expected: [&[u8]; 8] = [b"0123456789", b"234", b"89", b"9", b"", b"", b"", b"0123456789"];
    for ((read, expected), part) in blobs.read_parts(&parts).into_iter().zip(expected).zip(&parts) {
        assert_eq!(read.as_deref(), Ok(expected), "{part:?}");
    }
}

pub fn parts_come_in_the_order_in_which_they_were_asked_for(folder: &Folder) {
    let blobs = folder.open();
    let bytes = pattern(100_000);
    for name in ["one", "two"] {
        blobs.create(name, &bytes).expect("it is created");
    }
    let ranges = || (0..50).rev().map(|index| index * 2_000..index * 2_000 + 2_000);
    let parts: Vec<Part> = ranges()
        .flat_map(|range| [part("one", range.clone()), part("two", range)])
        .collect();
    assert!(parts.len() > blobs.concurrency(), "some have to wait");
    let read = blobs.read_parts(&parts);
    assert_eq!(read.len(), parts.len());
    for (read, part) in read.into_iter().zip(&parts) {
        let range = part.range.start as usize..part.range.end as usize;
        assert_eq!(read.as_deref(), Ok(&bytes[range]), "{part:?}");
    }
    assert!(blobs.read_parts(&[]).is_empty());
}

pub fn the_end_is_read_without_knowing_the_size(folder: &Folder) {
    let blobs = folder.open();
    blobs.create("a", b"0123456789").expect("it is created");
    assert_eq!(blobs.read_end("a", 3), Ok(b"789".to_vec()));
    assert_eq!(blobs.read_end("a", 10), Ok(b"0123456789".to_vec()));
    assert_eq!(blobs.read_end("a", 1_000), Ok(b"0123456789".to_vec()));
    assert_eq!(blobs.read_end("a", 0), Ok(Vec::new()));
}
