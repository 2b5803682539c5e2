//! What lies between one instance and the log: calls that take their time, answers that get lost, and cuts.
//!
//! It stands on the log port, so that clients above and broker below are what they always are. What a real client does in its own
//! threads is done here: records that wait in its queue, the metadata that it last heard of, a request that is on its way when
//! its process dies.

mod admin;
mod consumer;
mod member;
mod producer;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::log::embedded::EmbeddedLog;
use crate::log::{Admin, Consumer, GroupMember, Isolation, Log, LogError, LogResult, MemberSettings, Producer};
use crate::time::Clock;

use super::clock::VirtualClock;
use super::lifeline::Lifeline;
use super::seed::Seed;
use super::story::Story;

/// What a call takes that gets no answer: by that much time moves on while somebody asks in vain.
const IN_VAIN: Duration = Duration::from_millis(25);
/// The longest that a request is on its way when its sender is gone: mostly not long at all.
const LATE_MS: [u64; 3] = [5, 200, 12_000];

/// How an instance is connected.
#[derive(Debug, Default)]
struct Condition {
    /// Nothing comes through before this.
    cut_until: Duration,
    /// Calls take their time and bring little.
    rough: bool,
    /// How many commits from now on lose their answer.
    lost_answers: u32,
}

/// A request that was sent by somebody who is gone; the broker gets it at its time.
struct Late {
    due: Duration,
    producer: Box<dyn Producer>,
    /// Its process lives, and the client's own thread goes on until it is taken down.
    goes_on: bool,
}

/// The network of one instance; clones are the same. It outlives the instance's processes.
#[derive(Clone)]
pub(super) struct Network {
    shared: Arc<Shared>,
}

struct Shared {
    who: String,
    log: Arc<EmbeddedLog>,
    clock: Arc<VirtualClock>,
    seed: Seed,
    story: Arc<Story>,
    condition: Mutex<Condition>,
    late: Mutex<Vec<Late>>,
    /// Commits whose answer was lost and for which somebody still waits.
    unheard: AtomicUsize,
    lifeline: Arc<Lifeline>,
}

impl Network {
    pub(super) fn new(
        who: String,
        log: Arc<EmbeddedLog>,
        clock: Arc<VirtualClock>,
        seed: Seed,
        story: Arc<Story>,
        lifeline: Arc<Lifeline>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                who,
                log,
                clock,
                seed,
                story,
                condition: Mutex::default(),
                late: Mutex::default(),
                unheard: AtomicUsize::new(0),
                lifeline,
            }),
        }
    }

    fn condition(&self) -> MutexGuard<'_, Condition> {
        self.shared.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn late(&self) -> MutexGuard<'_, Vec<Late>> {
        self.shared.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls take their time from now on, or no more.
    pub(super) fn set_rough(&self, rough: bool) {
        self.condition().rough = rough;
    }

    /// Nothing comes through for as long as this.
    pub(super) fn cut(&self, lasts: Duration) {
        self.condition().cut_until = self.shared.clock.monotonic() + lasts;
    }

    /// The next commit is carried out, and its answer lost.
    pub(super) fn lose_answer(&self) {
        self.condition().lost_answers += 1;
    }

    /// Everything comes through again.
    pub(super) fn mend(&self) {
        let mut condition = self.condition();
        condition.cut_until = Duration::ZERO;
        condition.lost_answers = 0;
    }

    pub(super) fn is_cut(&self) -> bool {
        self.condition().cut_until > self.shared.clock.monotonic()
    }

    /// Whether a call of the process brings nothing: there is no way, or the process has ended in the midst of its turn.
    fn is_in_vain(&self) -> bool {
        !self.shared.lifeline.lives_to_call() || self.is_cut()
    }

    /// Whether requests are still on their way, or answers waited for that will not come.
    pub(super) fn is_busy(&self) -> bool {
        !self.late().is_empty() || self.shared.unheard.load(Ordering::SeqCst) > 0
    }

    /// Brings what is due to the broker.
    pub(super) fn deliver(&self) {
        let now = self.shared.clock.monotonic();
        let due: Vec<Late> = self.late().extract_if(.., |late| late.due <= now).collect();
        for mut late in due {
            let mut outcome = late.producer.poll_commit(Duration::ZERO);
            while late.goes_on && outcome.is_none() {
                outcome = late.producer.poll_commit(Duration::ZERO);
            }
            let kind = match &outcome {
                None => "a request of a dead producer arrived before its end",
                Some(Ok(())) => "a late end of a transaction was carried out",
                Some(Err(_)) => "a late request was refused",
            };
            self.shared.story.happened(kind);
            self.tell(format_args!("{kind}: {outcome:?}"));
        }
    }

    fn tell(&self, what: std::fmt::Arguments<'_>) {
        self.shared.story.tell(&self.shared.who, what);
    }

    fn happened(&self, kind: &'static str) {
        self.shared.story.happened(kind);
    }

    fn now(&self) -> Duration {
        self.shared.clock.monotonic()
    }

    /// True once in `times` while the network is rough.
    fn hitch(&self, times: u64) -> bool {
        self.condition().rough && self.shared.seed.once_in(times)
    }

    /// Whether an answer that is due now is lost.
    fn loses_answer(&self) -> bool {
        let mut condition = self.condition();
        let lost = condition.lost_answers > 0;
        condition.lost_answers = condition.lost_answers.saturating_sub(1);
        lost
    }

    /// Lets the time of a call pass that brings nothing.
    fn waited(&self, wait: Duration) {
        if !wait.is_zero() {
            self.shared
                .clock
                .advance(if self.is_cut() { wait.max(IN_VAIN) } else { wait });
        }
    }

    /// The error of a blocking call that got no answer.
    fn timed_out(&self, operation: &str, timeout: Duration) -> LogError {
        self.happened("a call timed out");
        self.shared.clock.advance(timeout.min(Duration::from_secs(1)));
        LogError::TimedOut {
            operation: operation.to_owned(),
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// The sender of `producer` is gone, and its next request may be on its way; or the sender has only given up, and the client
    /// goes on for a moment.
    fn leave_on_the_way(&self, producer: Box<dyn Producer>, goes_on: bool) {
        let longest = LATE_MS[self.shared.seed.below(LATE_MS.len() as u64) as usize];
        let due = self.now() + Duration::from_millis(self.shared.seed.below(longest));
        self.late().push(Late { due, producer, goes_on });
    }
}

impl Log for Network {
    fn consumer(&self, name: &str, isolation: Isolation) -> LogResult<Box<dyn Consumer>> {
        let inner = self.shared.log.consumer(name, isolation)?;
        Ok(Box::new(consumer::DistantConsumer::new(self.clone(), inner)))
    }

    fn producer(&self, name: &str, transactional_id: Option<&str>) -> LogResult<Box<dyn Producer>> {
        let inner = self.shared.log.producer(name, transactional_id)?;
        let is_transactional = transactional_id.is_some();
        Ok(Box::new(producer::DistantProducer::new(
            self.clone(),
            name,
            inner,
            is_transactional,
        )))
    }

    fn member(&self, settings: &MemberSettings) -> LogResult<Box<dyn GroupMember>> {
        let inner = self.shared.log.member(settings)?;
        Ok(Box::new(member::DistantMember::new(self.clone(), inner)))
    }

    fn admin(&self) -> Arc<dyn Admin> {
        Arc::new(admin::DistantAdmin::new(self.clone(), self.shared.log.admin()))
    }
}
