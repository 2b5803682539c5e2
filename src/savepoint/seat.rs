//! Holding a group while an application's state is put in place: nobody else commits for it meanwhile (invariant I6).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::TopicPartition;
use crate::log::{GroupMember, GroupMetadata, Log, MemberEvent, MemberSettings};
use crate::time::Clock;
use crate::worker::Topics;

use super::error::SavepointError;

const ASK_TIMEOUT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);

/// A member that has all partitions of a group, and so is the only one.
pub(super) struct Seat {
    group: String,
    member: Box<dyn GroupMember>,
    /// As it was when the last event was served.
    metadata: GroupMetadata,
    owned: BTreeSet<TopicPartition>,
}

impl Seat {
    /// Joins a group that nobody is in.
    pub(super) fn take(
        log: &Arc<dyn Log>,
        clock: &Arc<dyn Clock>,
        group: &str,
        topics: &Topics,
        session_timeout: Duration,
    ) -> Result<Self, SavepointError> {
        let in_use = |reason: String| SavepointError::GroupInUse {
            group: group.to_owned(),
            reason,
        };
        let state = log.admin().group(group, ASK_TIMEOUT)?;
        if let Some(partition) = state.assigned.first() {
            return Err(in_use(format!("a member has {partition}")));
        }
        let subs = 0..topics.sub_topologies();
        let leads: BTreeSet<Arc<str>> = subs.clone().map(|sub| Arc::clone(topics.lead(sub))).collect();
        let all = subs.flat_map(|sub| {
            (0..topics.tasks(sub)).map(move |partition| TopicPartition::new(Arc::clone(topics.lead(sub)), partition))
        });
        let all: BTreeSet<TopicPartition> = all.collect();
        let member = log.member(&MemberSettings {
            group: group.to_owned(),
            topics: leads.into_iter().collect(),
            instance_id: None,
            session_timeout,
        })?;
        let mut seat = Self {
            group: group.to_owned(),
            metadata: GroupMetadata::of_nobody(group),
            member,
            owned: BTreeSet::new(),
        };
        let deadline = clock.monotonic() + session_timeout * 2 + ASK_TIMEOUT;
        while seat.owned != all {
            if clock.monotonic() >= deadline {
                let reason = format!(
                    "{} of {} partitions belong to somebody else",
                    all.len() - seat.owned.len(),
                    all.len()
                );
                seat.leave();
                return Err(in_use(reason));
            }
            seat.serve(LOOK)?;
        }
        Ok(seat)
    }

    /// Serves what happened in the group; a partition that is taken from us ends it.
    fn serve(&mut self, wait: Duration) -> Result<(), SavepointError> {
        let Some(event) = self.member.poll(wait)? else {
            return Ok(());
        };
        match &event {
            MemberEvent::Assigned(partitions) => self.owned.extend(partitions.iter().cloned()),
            MemberEvent::Revoked(partitions) | MemberEvent::Lost(partitions) if partitions.is_empty() => {}
            MemberEvent::Revoked(_) | MemberEvent::Lost(_) => {
                return Err(SavepointError::GroupLost {
                    group: self.group.clone(),
                    reason: "partitions were taken away".to_owned(),
                });
            }
        }
        self.member.complete(&event)?;
        self.metadata = self.member.view().metadata();
        Ok(())
    }

    /// Stays in the group; to be called every few seconds.
    pub(super) fn stay(&mut self) -> Result<(), SavepointError> {
        self.serve(Duration::ZERO)
    }

    /// What commits are fenced by.
    pub(super) fn metadata(&self) -> GroupMetadata {
        self.metadata.clone()
    }

    /// Gives the group free.
    pub(super) fn leave(self) {
        self.member.leave();
    }
}
