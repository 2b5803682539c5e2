//! A member of a consumer group of the embedded log.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::broker::{Broker, BrokerError, Request};
use super::group::JoinSettings;
use super::link::{Interest, Link};
use crate::ids::TopicPartition;
use crate::log::{GroupMember, GroupMetadata, GroupState, GroupView, LogError, LogResult, MemberEvent, MemberSettings};

/// What the member knows of itself, shared with its views.
struct Identity {
    link: Link,
    metadata: Mutex<GroupMetadata>,
}

impl Identity {
    fn lock(&self) -> MutexGuard<'_, GroupMetadata> {
        self.metadata.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group has given this member up: the generation stays, the member id goes.
    fn forget(&self, member_id: &str) {
        let mut metadata = self.lock();
        if metadata.member_id == member_id {
            metadata.member_id.clear();
        }
    }
}

impl GroupView for Identity {
    fn metadata(&self) -> GroupMetadata {
        let mut metadata = self.lock();
        if !metadata.member_id.is_empty() {
            // A real client's own thread learns this without the application.
            match self.link.call(ReadGeneration(metadata.clone())) {
                Ok(generation) => metadata.generation = generation,
                Err(_) => metadata.member_id.clear(),
            }
        }
        metadata.clone()
    }
}

/// What [`EmbeddedMember::poll`] has handed out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Not in the group: the next poll joins.
    Outside,
    /// In the group.
    Inside,
    /// Given up by the group: the loss must be told.
    Lost,
    /// Replaced by another process with the same static id.
    Dead,
}

/// See [`GroupMember`]. It has no thread of its own: only [`GroupMember::poll`] tells the group that it lives, and
/// dropping it is a crash that the group notices when the session is over.
pub(super) struct EmbeddedMember {
    identity: Arc<Identity>,
    settings: JoinSettings,
    standing: Standing,
    /// Handed out by poll and not yet completed.
    in_hand: Option<MemberEvent>,
    /// What the application was told it has.
    owned: BTreeSet<TopicPartition>,
}

impl EmbeddedMember {
    pub fn new(link: Link, settings: &MemberSettings) -> Self {
        let metadata = GroupMetadata {
            group: settings.group.clone(),
            generation: -1,
            member_id: String::new(),
            instance_id: settings.instance_id.clone(),
        };
        Self {
            identity: Arc::new(Identity {
                link,
                metadata: Mutex::new(metadata),
            }),
            settings: JoinSettings {
                instance_id: settings.instance_id.clone(),
                topics: settings.topics.iter().cloned().collect(),
                session_timeout: settings.session_timeout,
            },
            standing: Standing::Outside,
            in_hand: None,
            owned: BTreeSet::new(),
        }
    }

    fn join(&mut self) -> LogResult<()> {
        let group = self.identity.lock().group.clone();
        let joined = self.identity.link.call(Join {
            group,
            settings: self.settings.clone(),
        });
        let member_id = joined.map_err(|error| fatal("joining the group", &error))?;
        let mut metadata = self.identity.lock();
        metadata.member_id = member_id;
        metadata.generation = -1;
        self.standing = Standing::Inside;
        Ok(())
    }

    /// Tells the group that the member lives, and waits for an event if none is in hand.
    fn heartbeat(&mut self, wait: Duration) -> LogResult<Option<MemberEvent>> {
        let identity = self.identity.lock().clone();
        let member_id = identity.member_id.clone();
        let busy = self.in_hand.is_some();
        let answer =
            self.identity
                .link
                .call_until(Heartbeat(identity), wait, Interest::Settled, |answer| match answer {
                    Ok((_, event)) => !busy && event.is_some(),
                    Err(_) => true,
                });
        match answer {
            Ok((generation, event)) => {
                let mut metadata = self.identity.lock();
                metadata.generation = metadata.generation.max(generation);
                Ok(event)
            }
            Err(BrokerError::FencedInstanceId) => {
                self.identity.forget(&member_id);
                self.standing = Standing::Dead;
                Err(self.dead())
            }
            Err(_) => {
                self.identity.forget(&member_id);
                self.standing = Standing::Lost;
                Ok(None)
            }
        }
    }

    fn dead(&self) -> LogError {
        let instance_id = self.settings.instance_id.as_deref().unwrap_or_default();
        LogError::NotAMember {
            reason: format!("another process joined with the static id {instance_id}: FENCED_INSTANCE_ID"),
        }
    }

    /// The event that tells of the loss; none if there was nothing to lose.
    fn tell_loss(&mut self) -> Option<MemberEvent> {
        self.standing = Standing::Outside;
        let lost: Vec<_> = std::mem::take(&mut self.owned).into_iter().collect();
        (!lost.is_empty()).then_some(MemberEvent::Lost(lost))
    }
}

fn fatal(operation: &str, error: &BrokerError) -> LogError {
    LogError::Fatal {
        operation: operation.to_owned(),
        reason: error.to_string(),
    }
}

impl GroupMember for EmbeddedMember {
    fn poll(&mut self, wait: Duration) -> LogResult<Option<MemberEvent>> {
        if self.standing == Standing::Dead {
            return Err(self.dead());
        }
        if self.standing == Standing::Outside && self.in_hand.is_none() {
            self.join()?;
        }
        let mut event = None;
        if self.standing == Standing::Inside {
            event = self.heartbeat(wait)?;
        } else if self.in_hand.is_some() {
            self.identity.link.rest(wait);
        }
        if self.in_hand.is_some() {
            return Ok(None);
        }
        if self.standing == Standing::Lost {
            event = self.tell_loss();
        }
        self.in_hand.clone_from(&event);
        Ok(event)
    }

    fn complete(&mut self, event: &MemberEvent) -> LogResult<()> {
        if self.in_hand.as_ref() != Some(event) {
            return Err(LogError::Fatal {
                operation: "completing a membership event".to_owned(),
                reason: format!("the event in hand is {:?}, not {event:?}", self.in_hand),
            });
        }
        self.in_hand = None;
        match event {
            MemberEvent::Assigned(partitions) => self.owned.extend(partitions.iter().cloned()),
            MemberEvent::Revoked(partitions) => self.owned.retain(|partition| !partitions.contains(partition)),
            // The group knows nothing of it: it has given the member up.
            MemberEvent::Lost(_) => return Ok(()),
        }
        let identity = self.identity.lock().clone();
        let completed = self.identity.link.call(CompleteEvent {
            identity,
            event: event.clone(),
        });
        match completed {
            Err(BrokerError::InvalidRequest) => {
                Err(fatal("completing a membership event", &BrokerError::InvalidRequest))
            }
            // Whoever is no longer in the group learns it at the next poll.
            _ => Ok(()),
        }
    }

    fn view(&self) -> Arc<dyn GroupView> {
        Arc::clone(&self.identity) as Arc<dyn GroupView>
    }

    fn leave(self: Box<Self>) {
        let mut metadata = self.identity.lock();
        if metadata.instance_id.is_none() && !metadata.member_id.is_empty() {
            // Who is unknown to the group has left it already.
            let _ = self.identity.link.call(Leave(metadata.clone()));
        }
        metadata.member_id.clear();
    }
}

// ---------------------------------------------------------------------------------------------- requests

/// Joins a group; answers the member id.
#[derive(Clone, Debug)]
struct Join {
    group: String,
    settings: JoinSettings,
}

impl Request for Join {
    type Answer = String;

    fn handle(self, broker: &mut Broker, now: Duration) -> Result<String, BrokerError> {
        let member_id = broker.group_mut(&self.group).join(self.settings, now);
        broker.group_changed(&self.group);
        Ok(member_id)
    }
}

/// A sign of life; answers generation and oldest event.
#[derive(Clone, Debug)]
struct Heartbeat(GroupMetadata);

impl Request for Heartbeat {
    type Answer = (i32, Option<MemberEvent>);

    fn handle(self, broker: &mut Broker, now: Duration) -> Result<Self::Answer, BrokerError> {
        broker.group_mut(&self.0.group).heartbeat(&self.0, now)
    }
}

/// Asks for the generation without being a sign of life.
#[derive(Clone, Debug)]
struct ReadGeneration(GroupMetadata);

impl Request for ReadGeneration {
    type Answer = i32;

    fn handle(self, broker: &mut Broker, _now: Duration) -> Result<i32, BrokerError> {
        broker.group_mut(&self.0.group).generation_of(&self.0)
    }
}

/// Reports an event as worked off.
#[derive(Clone, Debug)]
struct CompleteEvent {
    identity: GroupMetadata,
    event: MemberEvent,
}

impl Request for CompleteEvent {
    type Answer = ();

    fn handle(self, broker: &mut Broker, now: Duration) -> Result<(), BrokerError> {
        let group = broker.group_mut(&self.identity.group);
        group.complete(&self.identity, &self.event, now)?;
        broker.group_changed(&self.identity.group);
        Ok(())
    }
}

/// Leaves the group.
#[derive(Clone, Debug)]
struct Leave(GroupMetadata);

impl Request for Leave {
    type Answer = ();

    fn handle(self, broker: &mut Broker, now: Duration) -> Result<(), BrokerError> {
        broker.group_mut(&self.0.group).leave(&self.0, now)?;
        broker.group_changed(&self.0.group);
        Ok(())
    }
}

/// Asks for the state of a group.
#[derive(Clone, Debug)]
pub(super) struct DescribeGroup(pub String);

impl Request for DescribeGroup {
    type Answer = GroupState;

    fn handle(self, broker: &mut Broker, _now: Duration) -> Result<GroupState, BrokerError> {
        Ok(broker.group_mut(&self.0).state())
    }
}
