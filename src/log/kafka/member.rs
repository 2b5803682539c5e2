//! Membership: a consumer that subscribes, fetches nothing and reports what it is given.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use super::deadline::Deadline;
use super::errors::Connections;
use super::not_made;
use super::raw::{self, Client, Code, Event, Kind, NativeError, PartitionList, PartitionResult, Queue};
use super::settings::KafkaSettings;
use crate::ids::TopicPartition;
use crate::log::{GroupMember, GroupMetadata, GroupView, LogError, LogResult, MemberEvent, MemberSettings};

/// How long leaving may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

/// One look at the queue while leaving.
const LEAVE_POLL: Duration = Duration::from_millis(20);

/// The members of this process, so that commits without a transaction find the one that they are made for.
#[derive(Default)]
pub(super) struct Members(Mutex<Vec<Weak<MemberHandle>>>);

impl Members {
    fn add(&self, member: &Arc<MemberHandle>) {
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|member| member.strong_count() > 0);
        members.push(Arc::downgrade(member));
    }

    /// The member with exactly this identity.
    pub fn find(&self, wanted: &GroupMetadata) -> LogResult<Arc<MemberHandle>> {
        let members: Vec<_> = {
            let members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            members.iter().filter_map(Weak::upgrade).collect()
        };
        for member in members
            .into_iter()
            .filter(|member| member.settings.group == wanted.group)
        {
            let fresh = member.metadata();
            if fresh.member_id == wanted.member_id {
                return match fresh.generation == wanted.generation {
                    true => Ok(member),
                    false => Err(LogError::IllegalGeneration {
                        reason: format!("captured {}, now {}", wanted.generation, fresh.generation),
                    }),
                };
            }
        }
        Err(LogError::NotAMember {
            reason: format!(
                "no member {:?} of group {} in this process",
                wanted.member_id, wanted.group
            ),
        })
    }
}

/// A member's client, as long as it is in its group.
pub(super) struct MemberHandle {
    settings: MemberSettings,
    connections: Connections,
    /// `None` once the member has left or was dropped. Behind a lock, so that nobody asks a client that is closing.
    client: RwLock<Option<Arc<Client>>>,
}

impl MemberHandle {
    /// Forgets the client; afterwards nobody but the caller holds it.
    fn detach(&self) -> Option<Arc<Client>> {
        self.client.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Commits offsets as this member.
    pub fn commit(&self, offsets: &PartitionList, deadline: &Deadline) -> LogResult<()> {
        let client = self.client.read().unwrap_or_else(PoisonError::into_inner).clone();
        let left = || LogError::NotAMember {
            reason: format!("the member of group {} has left", self.settings.group),
        };
        let client = client.ok_or_else(left)?;
        let answers = client.new_queue().ok_or_else(left)?;
        client
            .commit_offsets(offsets, &answers)
            .map_err(|error| self.commit_error(deadline, &error))?;
        loop {
            let mut answer = None;
            answers.serve(deadline.remaining(), &mut |event| {
                if let Event::OffsetsCommitted(outcome, partitions) = event {
                    answer = Some((outcome, partitions));
                }
            });
            match answer {
                Some((outcome, partitions)) => {
                    let failed = partitions.iter().find_map(|partition| partition.error);
                    let outcome = outcome.and_then(|()| failed.map_or(Ok(()), |code| Err(NativeError::plain(code))));
                    return outcome.map_err(|error| self.commit_error(deadline, &error));
                }
                None if deadline.is_over() => {
                    return Err(deadline.timed_out(format!("committing offsets of group {}", self.settings.group)));
                }
                None => {}
            }
        }
    }

    fn commit_error(&self, deadline: &Deadline, error: &NativeError) -> LogError {
        match error.code {
            Code::IllegalGeneration | Code::RebalanceInProgress => LogError::IllegalGeneration {
                reason: error.reason.clone(),
            },
            Code::UnknownMemberId | Code::FencedInstanceId | Code::AssignmentLost => LogError::NotAMember {
                reason: error.reason.clone(),
            },
            _ => {
                let (group, given) = (&self.settings.group, deadline.given());
                self.connections
                    .failed("committing offsets of group", group, given, error)
            }
        }
    }
}

impl GroupView for MemberHandle {
    fn metadata(&self) -> GroupMetadata {
        let client = self.client.read().unwrap_or_else(PoisonError::into_inner);
        let fresh = client.as_ref().and_then(|client| client.group_metadata());
        fresh.unwrap_or_else(|| GroupMetadata {
            group: self.settings.group.clone(),
            generation: -1,
            member_id: String::new(),
            instance_id: self.settings.instance_id.clone(),
        })
    }
}

/// A member of a consumer group.
///
/// librdkafka waits for an answer to each event it reports, however long that takes, and goes on with its heartbeats as
/// long as it is polled; so an event is only recorded here, and answered by [`GroupMember::complete`]. It reports the next one after that.
/// A new generation without a change of partitions comes as an empty assignment.
pub(super) struct KafkaMember {
    handle: Arc<MemberHandle>,
    client: Arc<Client>,
    events: Queue,
    /// Reported by the client and not yet by us; one at most, by librdkafka's own protocol.
    waiting: VecDeque<MemberEvent>,
    /// Reported by us and not yet completed.
    open: bool,
    errors: VecDeque<LogError>,
}

impl KafkaMember {
    pub fn new(settings: &KafkaSettings, member: &MemberSettings, members: &Members) -> LogResult<Self> {
        let properties = settings.member_properties(member);
        let made = |reason| not_made(&format!("a member of group {}", member.group), reason);
        let wanted = raw::ERRORS | raw::REBALANCES | raw::OFFSETS_COMMITTED;
        let client = Client::new(Kind::Consumer, &properties, wanted).map_err(made)?;
        let events = client
            .member_queue()
            .ok_or_else(|| made("it has no event queue".to_owned()))?;
        let topics = member
            .topics
            .iter()
            .map(|topic| TopicPartition::new(Arc::clone(topic), -1));
        let subscribed = list(topics).and_then(|topics| client.subscribe(&topics));
        subscribed.map_err(|error| made(error.reason))?;
        let handle = Arc::new(MemberHandle {
            settings: member.clone(),
            connections: Connections::new(&settings.bootstrap_servers),
            client: RwLock::new(Some(Arc::clone(&client))),
        });
        members.add(&handle);
        Ok(Self {
            handle,
            client,
            events,
            waiting: VecDeque::new(),
            open: false,
            errors: VecDeque::new(),
        })
    }

    fn serve(&mut self, mut wait: Duration) {
        let Self {
            handle,
            client,
            events,
            waiting,
            errors,
            ..
        } = self;
        while events.serve(wait, &mut |event| match event {
            Event::Rebalance(assigned, partitions) => waiting.push_back(member_event(client, assigned, partitions)),
            Event::Error(error) => errors.extend(member_error(handle, client, &error)),
            _ => {}
        }) {
            wait = Duration::ZERO;
        }
    }

    fn failed(&self, operation: &str, error: &NativeError) -> LogError {
        let subject = format!("group {}", self.handle.settings.group);
        match self.client.fatal_error() {
            Some(fatal) => fatal_error(&self.handle, &fatal),
            None => LogError::Fatal {
                operation: format!("{operation} of {subject}"),
                reason: error.reason.clone(),
            },
        }
    }

    /// Takes partitions without fetching from them.
    fn take(&self, partitions: &[TopicPartition]) -> Result<(), NativeError> {
        let partitions = list(partitions.iter().cloned())?;
        self.client.take_partitions(&partitions)?;
        self.client.pause(&partitions, true)
    }
}

fn list(partitions: impl Iterator<Item = TopicPartition>) -> Result<PartitionList, NativeError> {
    let no_memory = || NativeError::plain(Code::CriticalSystemResource);
    let mut list = PartitionList::with_capacity(partitions.size_hint().0).ok_or_else(no_memory)?;
    for partition in partitions {
        // A real offset, so that the client does not ask the group for one.
        list.push(&partition, 0, "")?;
    }
    Ok(list)
}

fn member_event(client: &Client, assigned: bool, partitions: Vec<PartitionResult>) -> MemberEvent {
    let partitions = partitions.into_iter().map(|partition| partition.partition).collect();
    match assigned {
        true => MemberEvent::Assigned(partitions),
        false if client.assignment_lost() => MemberEvent::Lost(partitions),
        false => MemberEvent::Revoked(partitions),
    }
}

fn fatal_error(handle: &MemberHandle, error: &NativeError) -> LogError {
    match error.code {
        Code::FencedInstanceId | Code::UnreleasedInstanceId => LogError::NotAMember {
            reason: error.reason.clone(),
        },
        _ => LogError::Fatal {
            operation: format!("being a member of group {}", handle.settings.group),
            reason: error.reason.clone(),
        },
    }
}

/// What of the client's errors concerns the caller.
fn member_error(handle: &MemberHandle, client: &Client, error: &NativeError) -> Option<LogError> {
    if let Some(fatal) = client.fatal_error() {
        return Some(fatal_error(handle, &fatal));
    }
    if handle.connections.note(error) {
        return Some(handle.connections.unreachable(error));
    }
    match error.code {
        Code::InvalidSessionTimeout
        | Code::InconsistentGroupProtocol
        | Code::InvalidGroupId
        | Code::GroupMaxSizeReached
        | Code::GroupAuthorizationFailed
        | Code::TopicAuthorizationFailed => Some(LogError::Fatal {
            operation: format!("joining group {}", handle.settings.group),
            reason: error.reason.clone(),
        }),
        _ => {
            // The client gets over all others by itself: a lost membership follows as an event of its own.
            tracing::warn!(
                group = handle.settings.group,
                reason = error.reason,
                "kafka group member reports an error"
            );
            None
        }
    }
}

impl GroupMember for KafkaMember {
    fn poll(&mut self, wait: Duration) -> LogResult<Option<MemberEvent>> {
        let ready = !self.errors.is_empty() || (!self.open && !self.waiting.is_empty());
        self.serve(if ready { Duration::ZERO } else { wait });
        if let Some(error) = self.errors.pop_front() {
            return Err(error);
        }
        // A fatal error is told once by the client and stays true.
        if let Some(fatal) = self.client.fatal_error() {
            return Err(fatal_error(&self.handle, &fatal));
        }
        if self.open {
            return Ok(None);
        }
        let event = self.waiting.pop_front();
        self.open = event.is_some();
        if self.open {
            self.handle.connections.answered();
        }
        Ok(event)
    }

    fn complete(&mut self, event: &MemberEvent) -> LogResult<()> {
        let done = match event {
            MemberEvent::Assigned(partitions) => self.take(partitions),
            MemberEvent::Revoked(partitions) | MemberEvent::Lost(partitions) => {
                list(partitions.iter().cloned()).and_then(|partitions| self.client.give_up_partitions(&partitions))
            }
        };
        self.open = false;
        done.map_err(|error| self.failed("confirming an assignment", &error))
    }

    fn view(&self) -> Arc<dyn GroupView> {
        self.handle.clone()
    }

    fn leave(self: Box<Self>) {
        self.handle.detach();
        let Some(queue) = self.client.new_queue() else {
            return;
        };
        if let Err(error) = self.client.close(&queue) {
            tracing::debug!(
                group = self.handle.settings.group,
                reason = error.reason,
                "the member has left already"
            );
            return;
        }
        let deadline = Deadline::after(LEAVE_TIMEOUT);
        while !self.client.is_closed() && !deadline.is_over() {
            queue.serve(LEAVE_POLL, &mut |event| {
                // The client gives its partitions back before it leaves, and waits for the answer.
                if let Event::Rebalance(_, partitions) = event {
                    let partitions = partitions.into_iter().map(|partition| partition.partition);
                    let _ = list(partitions).and_then(|partitions| self.client.give_up_partitions(&partitions));
                }
            });
        }
    }
}

impl Drop for KafkaMember {
    /// Without [`GroupMember::leave`] the group is not told: it gives the member up when its session ends.
    fn drop(&mut self) {
        self.handle.detach();
    }
}
