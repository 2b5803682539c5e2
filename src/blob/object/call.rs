//! One call on a store: its attempts, and the time that they may take.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::Result as StoreResult;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use super::failure::{Refusal, refusal};
use crate::blob::metrics::{BlobMetrics, Operation};
use crate::blob::{BlobError, BlobLimits, BlobResult};

/// The pause after the first attempt; each later one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What all calls on a store share.
pub(super) struct Shared {
    pub(super) root: String,
    pub(super) limits: BlobLimits,
    pub(super) metrics: Arc<BlobMetrics>,
    /// As many as requests may run at the same time.
    pub(super) permits: Semaphore,
}

/// One call, from its beginning.
pub(super) struct Call<'a> {
    shared: &'a Shared,
    operation: Operation,
    name: &'a str,
    begun: Instant,
    attempts: Cell<u32>,
}

impl<'a> Call<'a> {
    pub(super) fn begin(shared: &'a Shared, operation: Operation, name: &'a str) -> Self {
        Self {
            shared,
            operation,
            name,
            begun: Instant::now(),
            attempts: Cell::new(0),
        }
    }

    /// Whether more than one attempt was made, so that an earlier one may have had its effect.
    pub(super) fn was_repeated(&self) -> bool {
        self.attempts.get() > 1
    }

    /// Makes attempts until one succeeds, fails for good, or the time of the call is over.
    pub(super) async fn run<T, F>(&self, mut attempt: impl FnMut() -> F) -> BlobResult<T>
    where
        F: Future<Output = StoreResult<T>>,
    {
        loop {
            match self.attempt(attempt()).await {
                Ok(value) => return Ok(value),
                Err(Refusal::Passing(reason)) => self.pause(reason).await?,
                Err(refusal) => return Err(self.error(refusal)),
            }
        }
    }

    /// As [`Call::run`], of a listing, which takes several requests: each of them has the time of one.
    pub(super) async fn run_paged<'s, T>(
        &self,
        list: impl Fn() -> BoxStream<'s, StoreResult<T>>,
    ) -> BlobResult<Vec<T>> {
        loop {
            match self.pages(list()).await {
                Ok(all) => return Ok(all),
                Err(Refusal::Passing(reason)) => self.pause(reason).await?,
                Err(refusal) => return Err(self.error(refusal)),
            }
        }
    }

    /// Makes one attempt, of something that cannot be repeated.
    pub(super) async fn once<T>(&self, attempt: impl Future<Output = StoreResult<T>>) -> BlobResult<T> {
        self.attempt(attempt).await.map_err(|refusal| self.error(refusal))
    }

    /// Waits before another attempt.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`] with this reason where there is no time for another one.
    pub(super) async fn pause(&self, reason: String) -> BlobResult<()> {
        let doublings = self.attempts.get().saturating_sub(1).min(16);
        let pause = (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE);
        if pause >= self.left() {
            return Err(self.error(Refusal::Passing(reason)));
        }
        self.shared.metrics.retries.add(1);
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn left(&self) -> Duration {
        self.shared.limits.call_timeout.saturating_sub(self.begun.elapsed())
    }

    async fn attempt<T>(&self, attempt: impl Future<Output = StoreResult<T>>) -> Result<T, Refusal> {
        let _permit = self.permit().await?;
        self.bounded(attempt).await?.map_err(|error| refusal(&error))
    }

    async fn pages<T>(&self, mut items: BoxStream<'_, StoreResult<T>>) -> Result<Vec<T>, Refusal> {
        let _permit = self.permit().await?;
        let mut all = Vec::new();
        while let Some(item) = self.bounded(items.next()).await? {
            all.push(item.map_err(|error| refusal(&error))?);
        }
        Ok(all)
    }

    /// Waits until the request may be made, which is then another attempt.
    async fn permit(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        match timeout(self.left(), self.shared.permits.acquire()).await {
            Ok(Ok(permit)) => {
                self.attempts.set(self.attempts.get() + 1);
                Ok(permit)
            }
            _ => Err(Refusal::Passing("other requests take all the time".to_owned())),
        }
    }

    async fn bounded<T>(&self, request: impl Future<Output = T>) -> Result<T, Refusal> {
        let bound = self.shared.limits.request_timeout.min(self.left());
        let late = |_| Refusal::Passing(format!("no answer within {} ms", bound.as_millis()));
        timeout(bound, request).await.map_err(late)
    }

    /// The error that a refusal is to the caller.
    pub(super) fn error(&self, refusal: Refusal) -> BlobError {
        let (root, name) = (self.shared.root.clone(), self.name.to_owned());
        let operation = self.operation.verb();
        match refusal {
            Refusal::Missing => BlobError::Missing { root, name },
            Refusal::Exists => BlobError::Exists { root, name },
            Refusal::NoStore(reason) => BlobError::NoStore { root, reason },
            Refusal::Denied(reason) => BlobError::Denied {
                root,
                name,
                operation,
                reason,
            },
            Refusal::Failed(reason) => BlobError::Failed {
                root,
                name,
                operation,
                reason,
            },
            Refusal::Passing(reason) => BlobError::Unavailable {
                root,
                name,
                operation,
                attempts: self.attempts.get(),
                waited_ms: u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
                reason,
            },
        }
    }

    /// Counts the call, which has ended like this.
    pub(super) fn end<T>(self, result: BlobResult<T>) -> BlobResult<T> {
        self.shared
            .metrics
            .observe(self.operation, &result, self.begun.elapsed());
        result
    }
}
