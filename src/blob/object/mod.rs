//! The blob port on the crate `object_store`: S3-compatible servers, a directory, memory
//! (`docs/adr/0010-object-store.md`).
//!
//! | URL | store |
//! |---|---|
//! | `s3://bucket/folder` | an S3-compatible server that has `If-None-Match: *`; the bucket has to be there |
//! | `file:///directory` | a directory of this machine or a mounted one; its parent has to be there |
//! | `memory://name` | memory of this process, the same for all who open the name; for tests and demonstrations |
//!
//! Calls come from plain threads and block. What is asynchronous runs on two threads that belong to the store.

mod call;
mod failure;
mod pace;
mod place;
mod upload;

use std::fmt;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStoreExt, PutMode, PutPayload, Result as StoreResult};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

use self::call::{Call, Shared};
use self::failure::{Refusal, refusal};
use self::pace::Pace;
use self::place::Place;
pub use self::place::S3Options;
use self::upload::{Upload, absent_store};
use super::metrics::{BlobMetrics, Operation};
use super::{BlobError, BlobInfo, BlobLimits, BlobResult, BlobSource, BlobStore, Part};

/// Threads for what is asynchronous; they wait most of the time.
const THREADS: usize = 2;
/// S3 removes this many objects by one request.
const DELETE_BATCH: usize = 1_000;

/// A folder in a store of one of the kinds above.
pub struct ObjectBlobs {
    place: Place,
    shared: Shared,
    upload_pace: Pace,
    download_pace: Pace,
    /// There until this is dropped.
    runtime: Option<Runtime>,
}

impl fmt::Debug for ObjectBlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectBlobs")
            .field("root", &self.shared.root)
            .field("limits", &self.shared.limits)
            .finish_non_exhaustive()
    }
}

impl Drop for ObjectBlobs {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A disk that hangs must not hang whoever closes the store.
            runtime.shutdown_background();
        }
    }
}

impl ObjectBlobs {
    /// Opens what `url` names. A server is not asked anything yet; a directory is created where its parent is there.
    ///
    /// # Errors
    /// [`BlobError::NoStore`] where the URL or the options cannot be right, or the directory's parent is not there;
    /// [`BlobError::Denied`] where the directory cannot be created.
    pub fn open(url: &str, s3: &S3Options, limits: BlobLimits, metrics: Arc<BlobMetrics>) -> BlobResult<Arc<Self>> {
        let place = Place::open(url, s3, &limits, true)?;
        Self::of(place, limits, metrics)
    }

    /// Opens what `url` names, to look at what is there: a directory has to be there, and nothing is created.
    ///
    /// # Errors
    /// As [`ObjectBlobs::open`].
    pub fn open_existing(
        url: &str,
        s3: &S3Options,
        limits: BlobLimits,
        metrics: Arc<BlobMetrics>,
    ) -> BlobResult<Arc<Self>> {
        let place = Place::open(url, s3, &limits, false)?;
        Self::of(place, limits, metrics)
    }

    fn of(place: Place, limits: BlobLimits, metrics: Arc<BlobMetrics>) -> BlobResult<Arc<Self>> {
        let root = place.root.clone();
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("tidegate-blob")
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| BlobError::Failed {
            root: root.clone(),
            name: "its threads".to_owned(),
            operation: "start",
            reason: error.to_string(),
        })?;
        Ok(Arc::new(Self {
            place,
            upload_pace: Pace::new(limits.upload_bytes_per_second),
            download_pace: Pace::new(limits.download_bytes_per_second),
            shared: Shared {
                root,
                metrics,
                permits: Semaphore::new(limits.concurrency.clamp(1, Semaphore::MAX_PERMITS)),
                limits,
            },
            runtime: Some(runtime),
        }))
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let runtime = self
            .runtime
            .as_ref()
            .expect("the runtime is there until the store is dropped");
        runtime.block_on(future)
    }

    fn concurrency_bound(&self) -> usize {
        self.shared.limits.concurrency.max(1)
    }

    fn call<'a>(&'a self, operation: Operation, name: &'a str) -> Call<'a> {
        Call::begin(&self.shared, operation, name)
    }

    /// The path of an object. Names are the same in every store, so what one of them changes or keeps for itself is refused.
    fn path(&self, call: &Call<'_>, name: &str) -> BlobResult<Path> {
        let refused = |reason: &str| call.error(Refusal::Failed(format!("this is no name of an object: {reason}")));
        let whole = match self.place.folder.as_ref() {
            "" => name.to_owned(),
            folder => format!("{folder}/{name}"),
        };
        let path = Path::parse(&whole).map_err(|error| refused(&error.to_string()))?;
        match name {
            "" => Err(refused("it is empty")),
            name if name.contains('#') => Err(refused("it contains #")),
            _ if path.as_ref() != whole => Err(refused("it begins or ends with /")),
            _ => Ok(path),
        }
    }

    async fn create_at(&self, call: &Call<'_>, path: &Path, bytes: &[u8]) -> BlobResult<()> {
        let payload = PutPayload::from(bytes.to_vec());
        loop {
            let put = || {
                let store = self.place.store.objects();
                store.put_opts(path, payload.clone(), PutMode::Create.into())
            };
            let exists = match call.run(put).await {
                Err(exists @ BlobError::Exists { .. }) => exists,
                done => return done.map(drop).map_err(absent_store),
            };
            match call.run(|| self.get(path, None)).await {
                Ok(there) if there == bytes => return Ok(()),
                Ok(_) => return Err(exists),
                // Whoever was writing it has not finished, or has failed.
                Err(BlobError::Missing { .. }) => call.pause("another writer is in the way".to_owned()).await?,
                Err(error) => return Err(error),
            }
        }
    }

    async fn get(&self, path: &Path, range: Option<GetRange>) -> StoreResult<Vec<u8>> {
        let options = GetOptions {
            range,
            ..GetOptions::default()
        };
        let found = self.place.store.objects().get_opts(path, options).await?;
        let bytes = Vec::from(found.bytes().await?);
        self.shared.metrics.bytes_downloaded.add(bytes.len() as u64);
        Ok(bytes)
    }

    /// Reads a range of an object, or what there is of it. Stores refuse a range that is empty or begins beyond the end.
    async fn get_range(&self, call: &Call<'_>, path: &Path, range: GetRange) -> BlobResult<Vec<u8>> {
        if !asks_for_nothing(&range) {
            match call.run(|| self.get(path, Some(range.clone()))).await {
                Err(BlobError::Failed { .. }) => {}
                done => return done,
            }
        }
        let size = call.run(|| self.place.store.objects().head(path)).await?.size;
        match range {
            range if asks_for_nothing(&range) || size == 0 => Ok(Vec::new()),
            GetRange::Bounded(range) if range.start >= size => Ok(Vec::new()),
            range => call.run(|| self.get(path, Some(range.clone()))).await,
        }
    }

    async fn read_part(&self, part: &Part) -> BlobResult<Vec<u8>> {
        self.download_pace.wait().await;
        let call = self.call(Operation::ReadPart, &part.name);
        // Servers read the numbers of a range as signed ones.
        let range = part.range.start..part.range.end.min(i64::MAX as u64);
        let read = match self.path(&call, &part.name) {
            Ok(path) => self.get_range(&call, &path, GetRange::Bounded(range)).await,
            Err(error) => Err(error),
        };
        if let Ok(bytes) = &read {
            self.download_pace.passed(bytes.len() as u64);
        }
        call.end(read)
    }

    /// Lists page after page; each has the time of a request, all together that of the call.
    async fn list_below(&self, call: &Call<'_>, prefix: &str) -> BlobResult<Vec<BlobInfo>> {
        let folder = match prefix.strip_suffix('/') {
            Some(folder) => Some(self.path(call, folder)?),
            None if prefix.is_empty() && self.place.folder.is_root() => None,
            None if prefix.is_empty() => Some(self.place.folder.clone()),
            None => return Err(call.error(Refusal::Failed("a prefix ends with /".to_owned()))),
        };
        let listed: Vec<ObjectMeta> = call
            .run_paged(|| self.place.store.objects().list(folder.as_ref()))
            .await
            .map_err(absent_store)?;
        let mut infos: Vec<BlobInfo> = listed.iter().map(|meta| self.info(meta)).collect();
        // S3 lists in this order, directories in their own.
        infos.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(infos)
    }

    fn info(&self, meta: &ObjectMeta) -> BlobInfo {
        let path = meta.location.as_ref();
        let name = path.strip_prefix(self.place.folder.as_ref()).unwrap_or(path);
        BlobInfo {
            name: name.trim_start_matches('/').to_owned(),
            bytes: meta.size,
            written_ms: meta.last_modified.timestamp_millis(),
        }
    }

    async fn delete_batch(&self, paths: &[Path]) -> StoreResult<()> {
        let paths: Vec<StoreResult<Path>> = paths.iter().cloned().map(Ok).collect();
        let mut deleted = self.place.store.objects().delete_stream(stream::iter(paths).boxed());
        let mut failed = None;
        while let Some(result) = deleted.next().await {
            match result {
                Err(error) if refusal(&error) != Refusal::Missing => failed = Some(error),
                _ => {}
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

fn asks_for_nothing(range: &GetRange) -> bool {
    match range {
        GetRange::Bounded(range) => range.is_empty(),
        GetRange::Suffix(bytes) => *bytes == 0,
        GetRange::Offset(_) => false,
    }
}

impl BlobStore for ObjectBlobs {
    fn create(&self, name: &str, bytes: &[u8]) -> BlobResult<()> {
        let call = self.call(Operation::Create, name);
        let created = self
            .path(&call, name)
            .and_then(|path| self.block_on(self.create_at(&call, &path, bytes)));
        if created.is_ok() {
            self.shared.metrics.bytes_uploaded.add(bytes.len() as u64);
        }
        call.end(created)
    }

    fn upload(&self, name: &str, source: &dyn BlobSource) -> BlobResult<()> {
        let call = self.call(Operation::Upload, name);
        let uploaded = self
            .path(&call, name)
            .and_then(|path| self.block_on(Upload::new(self, name, path, source).run()));
        call.end(uploaded)
    }

    fn read(&self, name: &str) -> BlobResult<Vec<u8>> {
        let call = self.call(Operation::Read, name);
        let read = self
            .path(&call, name)
            .and_then(|path| self.block_on(call.run(|| self.get(&path, None))));
        call.end(read)
    }

    fn read_end(&self, name: &str, bytes: u64) -> BlobResult<Vec<u8>> {
        let call = self.call(Operation::ReadEnd, name);
        let read = self
            .path(&call, name)
            .and_then(|path| self.block_on(self.get_range(&call, &path, GetRange::Suffix(bytes))));
        call.end(read)
    }

    fn read_parts(&self, parts: &[Part]) -> Vec<BlobResult<Vec<u8>>> {
        let reads = stream::iter(parts).map(|part| self.read_part(part));
        self.block_on(reads.buffered(self.concurrency_bound()).collect())
    }

    fn list(&self, prefix: &str) -> BlobResult<Vec<BlobInfo>> {
        let named = if prefix.is_empty() { "its objects" } else { prefix };
        let call = self.call(Operation::List, named);
        let listed = self.block_on(self.list_below(&call, prefix));
        call.end(listed)
    }

    fn delete(&self, names: &[String]) -> BlobResult<()> {
        for batch in names.chunks(DELETE_BATCH) {
            let call = self.call(Operation::Delete, &batch[0]);
            let paths: BlobResult<Vec<Path>> = batch.iter().map(|name| self.path(&call, name)).collect();
            let deleted = paths.and_then(|paths| self.block_on(call.run(|| self.delete_batch(&paths))));
            call.end(deleted)?;
        }
        Ok(())
    }

    fn concurrency(&self) -> usize {
        self.concurrency_bound()
    }

    fn reads_ahead(&self) -> bool {
        true
    }

    fn root(&self) -> &str {
        &self.shared.root
    }
}
