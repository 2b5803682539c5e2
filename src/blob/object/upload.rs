//! Writing large objects.

use std::ops::Range;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::AmazonS3;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartId, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use tokio::time::timeout;

use super::ObjectBlobs;
use super::call::Call;
use super::failure::Refusal;
use super::place::Store;
use crate::blob::metrics::Operation;
use crate::blob::{BlobError, BlobResult, BlobSource};

/// An object up to this size is sent in one request, a larger one in parts of it. S3 wants at least 5 MiB of all parts but the
/// last, and takes 10,000 of them.
const PART_BYTES: u64 = 8 * 1024 * 1024;
const MAX_PARTS: u64 = 10_000;

/// What is being uploaded, and to where.
pub(super) struct Upload<'a> {
    blobs: &'a ObjectBlobs,
    name: &'a str,
    path: Path,
    source: &'a dyn BlobSource,
}

impl<'a> Upload<'a> {
    pub(super) fn new(blobs: &'a ObjectBlobs, name: &'a str, path: Path, source: &'a dyn BlobSource) -> Self {
        Self {
            blobs,
            name,
            path,
            source,
        }
    }

    pub(super) async fn run(&self) -> BlobResult<()> {
        match &self.blobs.place.store {
            store if self.source.bytes() <= PART_BYTES => self.in_one(store.objects()).await,
            Store::S3(s3) => self.in_parts_that_can_be_repeated(s3).await,
            Store::Near(store) => self.part_after_part(&**store).await,
        }
    }

    /// One part, or one request of the upload, has the time of a call to itself.
    fn call(&self) -> Call<'a> {
        Call::begin(&self.blobs.shared, Operation::Upload, self.name)
    }

    fn read(&self, range: Range<u64>) -> BlobResult<PutPayload> {
        let failed = |reason: String| self.call().error(Refusal::Failed(reason));
        let bytes = usize::try_from(range.end - range.start);
        let mut part = vec![0; bytes.map_err(|error| failed(error.to_string()))?];
        let read = self.source.read_at(range.start, &mut part);
        read.map_err(|reason| failed(format!("its source cannot be read: {reason}")))?;
        Ok(part.into())
    }

    fn sent(&self, bytes: u64) {
        self.blobs.upload_pace.passed(bytes);
        self.blobs.shared.metrics.bytes_uploaded.add(bytes);
    }

    async fn in_one(&self, store: &dyn ObjectStore) -> BlobResult<()> {
        let bytes = self.source.bytes();
        let payload = self.read(0..bytes)?;
        self.blobs.upload_pace.wait().await;
        // Nobody else has this name: what may be there is what an attempt of our own wrote.
        let put = || store.put_opts(&self.path, payload.clone(), PutMode::Overwrite.into());
        self.call().run(put).await.map_err(absent_store)?;
        self.sent(bytes);
        Ok(())
    }

    async fn in_parts_that_can_be_repeated(&self, s3: &AmazonS3) -> BlobResult<()> {
        let parts = self.source.bytes().div_ceil(PART_BYTES);
        if parts > MAX_PARTS {
            let reason = format!("it would take {parts} parts, and {MAX_PARTS} are allowed");
            return Err(self.call().error(Refusal::Failed(reason)));
        }
        let created = self.call().run(|| s3.create_multipart(&self.path)).await;
        let id = created.map_err(absent_store)?;
        let done = match self.send_parts(s3, &id).await {
            Ok(parts) => self.complete(s3, &id, parts).await,
            Err(error) => Err(error),
        };
        if done.is_err() {
            // Where this fails too, the store's own rules for incomplete uploads remove the parts.
            let abort = s3.abort_multipart(&self.path, &id);
            let _ = timeout(self.blobs.shared.limits.request_timeout, abort).await;
        }
        done
    }

    async fn send_parts(&self, s3: &AmazonS3, id: &MultipartId) -> BlobResult<Vec<PartId>> {
        let parts = stream::iter(self.ranges().enumerate()).map(|(index, range)| async move {
            self.blobs.upload_pace.wait().await;
            let bytes = range.end - range.start;
            let payload = self.read(range)?;
            let put = || s3.put_part(&self.path, id, index, payload.clone());
            let part = self.call().run(put).await?;
            self.sent(bytes);
            Ok(part)
        });
        parts.buffered(self.blobs.concurrency_bound()).try_collect().await
    }

    async fn complete(&self, s3: &AmazonS3, id: &MultipartId, parts: Vec<PartId>) -> BlobResult<()> {
        let call = self.call();
        let completed = call.run(|| s3.complete_multipart(&self.path, id, parts.clone())).await;
        match completed {
            // An attempt whose answer was lost has completed it, and the store does not know its id any more.
            Err(BlobError::Missing { .. }) if call.was_repeated() => {
                let found = call.run(|| s3.head(&self.path)).await?;
                let is_whole = found.size == self.source.bytes();
                let another = || Refusal::Failed("the store has forgotten the upload".to_owned());
                is_whole.then_some(()).ok_or_else(|| call.error(another()))
            }
            completed => completed.map(drop),
        }
    }

    /// A directory or memory takes parts in their order, and an attempt that failed cannot be repeated.
    async fn part_after_part(&self, store: &dyn ObjectStore) -> BlobResult<()> {
        let mut upload = self.call().once(store.put_multipart(&self.path)).await?;
        let done = self.send_in_order(&mut *upload).await;
        if done.is_err() {
            let _ = timeout(self.blobs.shared.limits.request_timeout, upload.abort()).await;
        }
        done
    }

    async fn send_in_order(&self, upload: &mut dyn MultipartUpload) -> BlobResult<()> {
        for range in self.ranges() {
            self.blobs.upload_pace.wait().await;
            let bytes = range.end - range.start;
            let payload = self.read(range)?;
            self.call().once(upload.put_part(payload)).await?;
            self.sent(bytes);
        }
        self.call().once(upload.complete()).await.map(drop)
    }

    fn ranges(&self) -> impl Iterator<Item = Range<u64>> + use<> {
        let bytes = self.source.bytes();
        let starts = (0..bytes.div_ceil(PART_BYTES)).map(|part| part * PART_BYTES);
        starts.map(move |start| start..bytes.min(start + PART_BYTES))
    }
}

/// Who writes is told "not found" only of the bucket.
pub(super) fn absent_store(error: BlobError) -> BlobError {
    match error {
        BlobError::Missing { root, .. } => BlobError::NoStore {
            root,
            reason: "the store says that it is not there".to_owned(),
        },
        error => error,
    }
}
