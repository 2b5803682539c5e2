//! Uploads: in one request and in parts.

use tidegate::blob::{BlobError, BlobSource, Part};

use super::{Folder, is_missing, names, pattern};

const MIB: u64 = 1024 * 1024;

pub fn a_large_object_is_uploaded_in_parts(folder: &Folder) {
    let blobs = folder.open();
    // Two whole parts and a shorter one.
    let bytes = pattern(20 * MIB as usize);
    blobs.upload("large", &bytes).expect("it is uploaded");
    let parts: Vec<Part> = (0..7)
        .map(|index| Part {
            name: "large".to_owned(),
            range: index * 3 * MIB..(index + 1) * 3 * MIB,
        })
        .collect();
    let read: Vec<u8> = blobs
        .read_parts(&parts)
        .into_iter()
        .flat_map(|part| part.expect("it is read"))
        .collect();
    // Not by `assert_eq`, which would print them.
    assert!(read == bytes, "{} bytes are other ones", read.len());
    let listed = blobs.list("").expect("the folder can be listed");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].bytes, 20 * MIB);
}

pub fn a_small_object_is_uploaded_in_one(folder: &Folder) {
    let blobs = folder.open();
    let bytes = pattern(8 * MIB as usize);
    blobs.upload("files/small", &bytes).expect("it is uploaded");
    assert!(blobs.read("files/small").expect("it is read") == bytes);
}

/// Cannot be read beyond a place in it.
struct Broken {
    bytes: u64,
    readable: u64,
}

impl BlobSource for Broken {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), String> {
        let end = offset + into.len() as u64;
        (end <= self.readable)
            .then_some(())
            .ok_or_else(|| "the disk is broken".to_owned())
    }
}

pub fn an_upload_whose_source_fails_leaves_nothing(folder: &Folder) {
    let blobs = folder.open();
    for (bytes, readable) in [(20 * MIB, 17 * MIB), (20 * MIB, 0), (MIB, 0)] {
        let uploaded = blobs.upload("broken", &Broken { bytes, readable });
        assert!(
            matches!(&uploaded, Err(BlobError::Failed { reason, .. }) if reason.contains("the disk is broken")),
            "{uploaded:?}"
        );
        assert!(is_missing(&blobs.read("broken")));
        assert!(names(&*blobs, "").is_empty());
    }
}
