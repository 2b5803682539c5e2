//! Partitions that belong to nobody, and how the group is made to look at them again.
//!
//! In a cooperative rebalance a partition that moves is first given up; the member that gave it up joins once more, and only
//! that join gives the partition to its new owner. A static member that stops or dies in between comes back without
//! a rebalance: in the old generation, without the partition, and with no reason to join again. Nobody else has one
//! either, so the partition would stay with nobody for ever. Whoever comes back therefore looks at the whole group
//! for a moment. If something is missing, a member that wants no work joins and leaves: each join makes the group's leader share out
//! everything.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::{debug, warn};

use crate::ids::TopicPartition;
use crate::log::{GroupMember, Log, LogResult, MemberEvent, MemberSettings};
use crate::metrics::Counter;

use super::purge::Place;

/// Time from the last event of the group to the first look, and between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// Looks in a row that have to find the same before the group is disturbed: a member may be about to join.
const LOOKS: u32 = 3;
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);
/// How long the passer-by waits for the group.
const PASSING: Duration = Duration::from_secs(30);

/// What a thread beside the member found or did.
enum Outcome {
    /// Every partition has an owner.
    Complete,
    /// A rebalance is under way, or the group could not be asked.
    Unsettled,
    /// These have none.
    Orphans(Vec<TopicPartition>),
    /// The group was made to share out everything.
    Shared,
}

/// What the watch asks, and of whom.
struct Question {
    log: Arc<dyn Log>,
    group: String,
    expected: BTreeSet<TopicPartition>,
    /// A topic that nobody of the group reads.
    unread_topic: Arc<str>,
    session_timeout: Duration,
}

/// What is done about a question, in steps.
enum Work {
    /// To look at the group.
    Look,
    /// To make it share out everything.
    PassBy,
    /// A member that wants no work is in the group, or on its way into it; so often it may still be polled.
    Passing(Box<dyn GroupMember>, u128),
}

/// Where work goes on.
enum Busy {
    Aside(JoinHandle<Outcome>),
    Here(Work),
}

/// Watches for partitions without an owner after each event of the group.
pub(super) struct OrphanWatch {
    question: Arc<Question>,
    place: Place,
    due: Option<Duration>,
    found: Vec<TopicPartition>,
    looks: u32,
    busy: Option<Busy>,
}

impl OrphanWatch {
    /// A watch that expects every partition of `expected` to have an owner in `group`. `unread_topic` must exist, and no
    /// member of the group may subscribe to it.
    pub(super) fn new(
        log: Arc<dyn Log>,
        group: &str,
        expected: BTreeSet<TopicPartition>,
        unread_topic: Arc<str>,
        session_timeout: Duration,
        place: Place,
    ) -> Self {
        let question = Question {
            log,
            group: group.to_owned(),
            expected,
            unread_topic,
            session_timeout,
        };
        Self {
            question: Arc::new(question),
            place,
            due: None,
            found: Vec::new(),
            looks: 0,
            busy: None,
        }
    }

    /// The group has changed: it is looked at when it has come to rest.
    pub(super) fn event_served(&mut self, now: Duration) {
        self.look_at(now + PAUSE);
    }

    /// Works off what was found, and begins the next work when its time has come. Never waits. Counts in `forced` how often the
    /// group was made to share out everything.
    pub(super) fn step(&mut self, now: Duration, forced: &Counter) {
        match self.outcome() {
            None | Some(Outcome::Complete) => {}
            Some(Outcome::Unsettled) => self.look_at(now + PAUSE),
            Some(Outcome::Orphans(found)) => self.found_orphans(found, now),
            Some(Outcome::Shared) => {
                forced.add(1);
                self.look_at(now + PAUSE);
            }
        }
        if self.busy.is_none() && self.due.is_some_and(|due| due <= now) {
            self.due = None;
            self.start(Work::Look, now);
        }
    }

    /// What the work under way has come to, if it has.
    fn outcome(&mut self) -> Option<Outcome> {
        match self.busy.take()? {
            Busy::Aside(thread) if thread.is_finished() => Some(thread.join().unwrap_or(Outcome::Unsettled)),
            Busy::Here(work) => match work.step(&self.question, Duration::ZERO) {
                Step::Done(outcome) => Some(outcome),
                Step::Next(work) => {
                    self.busy = Some(Busy::Here(work));
                    None
                }
            },
            busy @ Busy::Aside(_) => {
                self.busy = Some(busy);
                None
            }
        }
    }

    fn look_at(&mut self, due: Duration) {
        self.due = Some(due);
        self.looks = 0;
    }

    fn found_orphans(&mut self, found: Vec<TopicPartition>, now: Duration) {
        if self.due.is_some() {
            return; // The group has changed meanwhile.
        }
        self.looks = if found == self.found { self.looks + 1 } else { 1 };
        self.found = found;
        if self.looks < LOOKS {
            self.due = Some(now + PAUSE);
            return;
        }
        let partitions = self.found.iter().map(ToString::to_string).collect::<Vec<_>>();
        warn!(
            group = self.question.group,
            partitions = partitions.join(" "),
            "partitions belong to no member; making the group share out everything"
        );
        self.start(Work::PassBy, now);
    }

    fn start(&mut self, work: Work, now: Duration) {
        if self.place == Place::Here {
            self.busy = Some(Busy::Here(work));
            return;
        }
        let question = Arc::clone(&self.question);
        let working = move || {
            let mut work = work;
            loop {
                work = match work.step(&question, POLL) {
                    Step::Done(outcome) => return outcome,
                    Step::Next(work) => work,
                }
            }
        };
        match std::thread::Builder::new()
            .name("tidegate-orphans".into())
            .spawn(working)
        {
            Ok(thread) => self.busy = Some(Busy::Aside(thread)),
            Err(error) => {
                warn!(%error, "no thread to look at the group; trying again later");
                self.look_at(now + PAUSE);
            }
        }
    }
}

/// What a step of work came to.
enum Step {
    Done(Outcome),
    Next(Work),
}

impl Work {
    /// One step; waits for the group at most `wait`, and as long as its answers take.
    fn step(self, question: &Question, wait: Duration) -> Step {
        let stepped = match self {
            Work::Look => look(question).map(Step::Done),
            Work::PassBy => question
                .log
                .member(&MemberSettings {
                    group: question.group.clone(),
                    topics: vec![Arc::clone(&question.unread_topic)],
                    instance_id: None,
                    session_timeout: question.session_timeout,
                })
                .map(|passer_by| Step::Next(Work::Passing(passer_by, PASSING.as_millis() / POLL.as_millis()))),
            Work::Passing(passer_by, polls) => pass(passer_by, polls, wait),
        };
        stepped.unwrap_or_else(|error| {
            debug!(%error, "looking at the group; trying again");
            Step::Done(Outcome::Unsettled)
        })
    }
}

fn look(question: &Question) -> LogResult<Outcome> {
    let state = question.log.admin().group(&question.group, ASK_TIMEOUT)?;
    if !state.is_stable {
        return Ok(Outcome::Unsettled);
    }
    let orphans: Vec<TopicPartition> = question.expected.difference(&state.assigned).cloned().collect();
    Ok(match orphans.is_empty() {
        true => Outcome::Complete,
        false => Outcome::Orphans(orphans),
    })
}

/// Waits for the passer-by's share of nothing that matters; with that, or when it has waited for too long, it leaves.
fn pass(mut passer_by: Box<dyn GroupMember>, polls: u128, wait: Duration) -> LogResult<Step> {
    if let Some(event) = passer_by.poll(wait)? {
        passer_by.complete(&event)?;
        if matches!(event, MemberEvent::Assigned(_)) {
            passer_by.leave();
            return Ok(Step::Done(Outcome::Shared));
        }
    }
    if polls == 0 {
        passer_by.leave();
        return Ok(Step::Done(Outcome::Unsettled));
    }
    Ok(Step::Next(Work::Passing(passer_by, polls - 1)))
}
