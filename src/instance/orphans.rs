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
use crate::log::{Log, LogResult, MemberEvent, MemberSettings};
use crate::metrics::Counter;

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

/// Watches for partitions without an owner after each event of the group.
pub(super) struct OrphanWatch {
    question: Arc<Question>,
    due: Option<Duration>,
    found: Vec<TopicPartition>,
    looks: u32,
    busy: Option<JoinHandle<Outcome>>,
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

    /// Works off what a thread has found, and starts the next one when its time has come. Never waits. Counts in `forced` how often the
    /// group was made to share out everything.
    pub(super) fn step(&mut self, now: Duration, forced: &Counter) {
        if let Some(busy) = self.busy.take_if(|busy| busy.is_finished()) {
            match busy.join().unwrap_or(Outcome::Unsettled) {
                Outcome::Complete => {}
                Outcome::Unsettled => self.look_at(now + PAUSE),
                Outcome::Orphans(found) => self.found_orphans(found, now),
                Outcome::Shared => {
                    forced.add(1);
                    self.look_at(now + PAUSE);
                }
            }
        }
        if self.busy.is_none() && self.due.is_some_and(|due| due <= now) {
            self.due = None;
            self.start(look);
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
        self.start(pass_by);
    }

    fn start(&mut self, work: fn(&Question) -> LogResult<Outcome>) {
        let question = Arc::clone(&self.question);
        let working = move || {
            work(&question).unwrap_or_else(|error| {
                debug!(%error, "looking at the group; trying again");
                Outcome::Unsettled
            })
        };
        match std::thread::Builder::new()
            .name("tidegate-orphans".into())
            .spawn(working)
        {
            Ok(thread) => self.busy = Some(thread),
            Err(error) => warn!(%error, "no thread to look at the group"),
        }
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

/// Joins the group, waits for its own share of nothing that matters, and leaves.
fn pass_by(question: &Question) -> LogResult<Outcome> {
    let mut passer_by = question.log.member(&MemberSettings {
        group: question.group.clone(),
        topics: vec![Arc::clone(&question.unread_topic)],
        instance_id: None,
        session_timeout: question.session_timeout,
    })?;
    let polls = PASSING.as_millis() / POLL.as_millis();
    for _ in 0..polls {
        if let Some(event) = passer_by.poll(POLL)? {
            passer_by.complete(&event)?;
            if matches!(event, MemberEvent::Assigned(_)) {
                passer_by.leave();
                return Ok(Outcome::Shared);
            }
        }
    }
    passer_by.leave();
    Ok(Outcome::Unsettled)
}
