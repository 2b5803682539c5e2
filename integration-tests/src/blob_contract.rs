//! What every store behind the blob port must do, as functions over a folder: the same assertions run on memory, on a
//! directory and on a real S3 server. [`blob_contract_tests`](crate::blob_contract_tests) makes a test of each.

mod creating;
mod finding;
mod reading;
mod uploading;

use std::sync::Arc;

use tempfile::TempDir;
use tidegate::blob::metrics::BlobMetrics;
use tidegate::blob::object::{ObjectBlobs, S3Options};
use tidegate::blob::{BlobError, BlobResult, BlobStore};

pub use creating::*;
pub use finding::*;
pub use reading::*;
pub use uploading::*;

use crate::broker::unique;
use crate::s3_server::{S3Server, patient};

/// A folder of its own for one case. It can be opened several times, as several processes would.
pub struct Folder {
    open: Box<dyn Fn() -> Arc<dyn BlobStore> + Send + Sync>,
    _directory: Option<TempDir>,
}

impl Folder {
    /// A folder in the memory of this process.
    pub fn memory() -> Self {
        let url = format!("memory://{}", unique("memory"));
        Self {
            open: Box::new(move || near(&url)),
            _directory: None,
        }
    }

    /// A directory that is created by whoever opens it first.
    pub fn directory() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let url = format!("file://{}/folder", directory.path().display());
        Self {
            open: Box::new(move || near(&url)),
            _directory: Some(directory),
        }
    }

    /// A folder in a new bucket of the S3 server that tests share.
    pub fn s3() -> Self {
        let bucket = S3Server::shared().bucket();
        Self {
            open: Box::new(move || S3Server::shared().blobs(&bucket, patient())),
            _directory: None,
        }
    }

    /// Another handle on the folder.
    pub fn open(&self) -> Arc<dyn BlobStore> {
        (self.open)()
    }
}

fn near(url: &str) -> Arc<dyn BlobStore> {
    let metrics = Arc::new(BlobMetrics::default());
    ObjectBlobs::open(url, &S3Options::default(), patient(), metrics).expect("the store can be opened")
}

/// Bytes that differ from place to place, so that parts in a wrong order are found.
fn pattern(bytes: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

fn is_missing<T>(result: &BlobResult<T>) -> bool {
    matches!(result, Err(BlobError::Missing { .. }))
}

fn names(blobs: &dyn BlobStore, prefix: &str) -> Vec<String> {
    let listed = blobs.list(prefix).expect("the folder can be listed");
    listed.into_iter().map(|info| info.name).collect()
}

/// Makes one test per assertion, on the folder that `$folder` gives.
#[macro_export]
macro_rules! blob_contract_tests {
    ($folder:expr) => {
        $crate::blob_contract_tests!(@each $folder,
            what_was_created_is_read
            a_name_is_given_once
            the_same_bytes_may_be_created_again
            of_racing_creators_exactly_one_wins
            an_empty_object_is_an_object
            names_have_dots_dashes_and_folders
            impossible_names_are_refused
            what_is_not_there_is_missing
            ranges_end_with_the_object
            parts_come_in_the_order_in_which_they_were_asked_for
            the_end_is_read_without_knowing_the_size
            a_listing_is_in_order_and_of_one_folder
            a_listing_says_sizes_and_times
            more_than_a_thousand_objects_are_listed_and_deleted
            a_prefix_is_a_folder
            what_is_deleted_is_gone_and_deleting_it_again_succeeds
            a_large_object_is_uploaded_in_parts
            a_small_object_is_uploaded_in_one
            an_upload_whose_source_fails_leaves_nothing
            handles_on_one_folder_see_each_other
        );
    };
    (@each $folder:expr, $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                $crate::blob_contract::$name(&$folder);
            }
        )*
    };
}
