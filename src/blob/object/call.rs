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
    /// When its time began to run: its begin, or that of the last page of a listing.
    progressed: Cell<Instant>,
    attempts: Cell<u32>,
}

impl<'a> Call<'a> {
    pub(super) fn begin(shared: &'a Shared, operation: Operation, name: &'a str) -> Self {
        let begun = Instant::now();
        Self {
            shared,
            operation,
            name,
            begun,
            progressed: Cell::new(begun),
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

    /// As [`Call::run`], of a listing, which takes as many requests as there are pages: each of them has the time of one, and the time of the
    /// call is that between two pages. Each further attempt begins anew, and the pauses between them leave time for few.
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
        self.shared
            .limits
            .call_timeout
            .saturating_sub(self.progressed.get().elapsed())
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
            self.progressed.set(Instant::now());
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

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    const PAGE: Duration = Duration::from_millis(60);
    const PAGES: u32 = 25;

    fn shared() -> Shared {
        Shared {
            root: "a store".to_owned(),
            limits: BlobLimits {
                request_timeout: PAGE * 10,
                call_timeout: PAGE * 10,
                concurrency: 1,
                upload_bytes_per_second: 0,
                download_bytes_per_second: 0,
            },
            metrics: Arc::default(),
            permits: Semaphore::new(1),
        }
    }

    /// Pages that come one after the other; the last one never, where `ends` is false.
    fn pages(ends: bool) -> BoxStream<'static, StoreResult<u32>> {
        let page = move |number| async move {
            if number == PAGES && !ends {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(PAGE).await;
            Ok(number)
        };
        stream::iter(1..=PAGES).then(page).boxed()
    }

    fn listed(ends: bool) -> BlobResult<Vec<u32>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let shared = shared();
        let call = Call::begin(&shared, Operation::List, "increments/");
        let run = call.run_paged(|| pages(ends));
        runtime.expect("a runtime").block_on(run)
    }

    #[test]
    fn a_listing_may_take_longer_than_a_call_as_long_as_its_pages_come() {
        let all = listed(true).expect("all pages came");
        assert_eq!(all, (1..=PAGES).collect::<Vec<_>>());
    }

    #[test]
    fn a_listing_whose_next_page_does_not_come_ends() {
        let error = listed(false).expect_err("the last page does not come");
        assert!(matches!(error, BlobError::Unavailable { .. }), "{error}");
    }
}
