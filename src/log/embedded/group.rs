//! Consumer groups: members, generations, the cooperative hand-over of partitions, fencing of commits.
//!
//! A rebalance needs every member to rejoin. Real clients do so in the background as soon as they have no event in
//! hand, so the model takes a member as rejoined exactly then: the generation moves before anybody has served an
//! event of the new one, and a member that sits on an event holds the next rebalance up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::assignor::{self, Claim};
use super::broker::BrokerError;
use super::offsets::Offsets;
use super::topic::Topics;
use crate::ids::TopicPartition;
use crate::log::{GroupMetadata, GroupState, MemberEvent};

/// How long a rebalance waits for a member with an event in hand: what the Kafka adapter sets as `max.poll.interval.ms`.
const REBALANCE_TIMEOUT: Duration = Duration::from_secs(120);

/// A member as the coordinator knows it.
#[derive(Debug)]
struct Member {
    instance_id: Option<String>,
    topics: BTreeSet<Arc<str>>,
    session_timeout: Duration,
    last_heartbeat: Duration,
    /// Generation of the last rebalance that included the member; negative before the first.
    generation: i32,
    /// What nobody else may be given: assigned, or revoked and not yet given up.
    owned: BTreeSet<TopicPartition>,
    /// Events of the current generation that are not completed, in order.
    events: VecDeque<MemberEvent>,
    /// The member gives partitions up in this generation, so another rebalance must follow.
    rejoins: bool,
}

impl Member {
    /// What the current generation gives it: without what it is still giving up.
    fn assigned(&self) -> BTreeSet<TopicPartition> {
        let mut assigned = self.owned.clone();
        for event in &self.events {
            if let MemberEvent::Revoked(partitions) = event {
                assigned.retain(|partition| !partitions.contains(partition));
            }
        }
        assigned
    }

    fn expires_at(&self) -> Duration {
        self.last_heartbeat + self.session_timeout
    }
}

/// How a member joins.
#[derive(Clone, Debug)]
pub(super) struct JoinSettings {
    /// The static id.
    pub instance_id: Option<String>,
    /// The subscription.
    pub topics: BTreeSet<Arc<str>>,
    /// Time without heartbeats after which the member is given up.
    pub session_timeout: Duration,
}

/// A consumer group.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Offsets committed for the group.
    pub offsets: Offsets,
    generation: i32,
    members: BTreeMap<String, Member>,
    /// Since when a rebalance is wanted, if one is.
    rebalance_wanted: Option<Duration>,
    joins: u64,
}

impl Group {
    /// Takes a member in and answers its id. A static id that is there already gets a new member id and keeps generation and partitions.
    pub fn join(&mut self, settings: JoinSettings, now: Duration) -> String {
        self.joins += 1;
        let prefix = settings.instance_id.as_deref().unwrap_or("member");
        let member_id = format!("{prefix}-{:08}", self.joins);
        let former = settings.instance_id.as_deref().and_then(|id| self.take_static(id));
        let mut member = Member {
            instance_id: settings.instance_id,
            topics: settings.topics,
            session_timeout: settings.session_timeout,
            last_heartbeat: now,
            generation: -1,
            owned: BTreeSet::new(),
            events: VecDeque::new(),
            rejoins: false,
        };
        match former {
            Some(former) if former.generation >= 0 => {
                // What the former process was giving up stays with nobody: its rejoin is not made up for.
                if former.topics != member.topics {
                    self.want_rebalance(now);
                }
                member.generation = former.generation;
                member.owned = former.assigned();
                let assigned = member.owned.iter().cloned().collect();
                member.events.push_back(MemberEvent::Assigned(assigned));
            }
            _ => self.want_rebalance(now),
        }
        self.members.insert(member_id.clone(), member);
        member_id
    }

    fn take_static(&mut self, instance_id: &str) -> Option<Member> {
        let member_id = self.static_member(instance_id)?.to_owned();
        self.members.remove(&member_id)
    }

    fn static_member(&self, instance_id: &str) -> Option<&str> {
        let mut members = self.members.iter();
        let found = members.find(|(_, member)| member.instance_id.as_deref() == Some(instance_id));
        found.map(|(member_id, _)| member_id.as_str())
    }

    /// The member says that it lives; answers its generation and the event in hand.
    pub fn heartbeat(
        &mut self,
        identity: &GroupMetadata,
        now: Duration,
    ) -> Result<(i32, Option<MemberEvent>), BrokerError> {
        self.check_member(identity)?;
        let member = self.member_mut(&identity.member_id)?;
        member.last_heartbeat = now;
        Ok((member.generation, member.events.front().cloned()))
    }

    /// The generation of a member, without a sign of life.
    pub fn generation_of(&self, identity: &GroupMetadata) -> Result<i32, BrokerError> {
        self.check_member(identity)?;
        let member = self.members.get(&identity.member_id);
        member
            .map(|member| member.generation)
            .ok_or(BrokerError::UnknownMemberId)
    }

    /// The member has worked off its oldest event.
    pub fn complete(
        &mut self,
        identity: &GroupMetadata,
        event: &MemberEvent,
        now: Duration,
    ) -> Result<(), BrokerError> {
        self.check_member(identity)?;
        let member = self.member_mut(&identity.member_id)?;
        if member.events.front() != Some(event) {
            return Err(BrokerError::InvalidRequest);
        }
        member.events.pop_front();
        if let MemberEvent::Revoked(partitions) = event {
            for partition in partitions {
                member.owned.remove(partition);
            }
        }
        if member.events.is_empty() && std::mem::take(&mut member.rejoins) {
            self.want_rebalance(now);
        }
        Ok(())
    }

    /// What the coordinator says of the group.
    pub fn state(&self) -> GroupState {
        GroupState {
            is_stable: !self.members.is_empty() && self.rebalance_wanted.is_none(),
            assigned: self.members.values().flat_map(Member::assigned).collect(),
        }
    }

    /// The member goes at once.
    pub fn leave(&mut self, identity: &GroupMetadata, now: Duration) -> Result<(), BrokerError> {
        self.check_member(identity)?;
        self.members.remove(&identity.member_id);
        self.want_rebalance(now);
        Ok(())
    }

    fn member_mut(&mut self, member_id: &str) -> Result<&mut Member, BrokerError> {
        self.members.get_mut(member_id).ok_or(BrokerError::UnknownMemberId)
    }

    fn want_rebalance(&mut self, now: Duration) {
        self.rebalance_wanted.get_or_insert(now);
    }

    /// A topic came or went; answers whether a member subscribes to it.
    pub fn topic_changed(&mut self, topic: &Arc<str>, now: Duration) -> bool {
        let subscribed = self.members.values().any(|member| member.topics.contains(topic));
        if subscribed {
            self.want_rebalance(now);
        }
        subscribed
    }

    /// Removes members that gave no sign of life, and those that hold a rebalance up for too long.
    pub fn expire(&mut self, now: Duration) {
        let waited_out = self
            .rebalance_wanted
            .is_some_and(|since| since + REBALANCE_TIMEOUT <= now);
        let before = self.members.len();
        self.members.retain(|_, member| {
            let is_stuck = waited_out && !member.events.is_empty();
            member.expires_at() > now && !is_stuck
        });
        if self.members.len() < before {
            self.want_rebalance(now);
        }
    }

    /// When the next member is given up, unless it gives a sign of life before.
    pub fn next_deadline(&self) -> Option<Duration> {
        let sessions = self.members.values().map(Member::expires_at);
        let rebalance = self.rebalance_wanted.map(|since| since + REBALANCE_TIMEOUT);
        sessions.chain(rebalance).min()
    }

    /// Begins the next generation if one is wanted and no member has an event in hand.
    pub fn rebalance(&mut self, topics: &Topics) {
        let ready = self.members.values().all(|member| member.events.is_empty());
        if self.rebalance_wanted.is_none() || !ready {
            return;
        }
        self.rebalance_wanted = None;
        self.generation += 1;
        let claim = |member: &Member| Claim {
            subscribed: topics.partitions_of(&member.topics),
            owned: member.owned.clone(),
        };
        let claims: BTreeMap<_, _> = self
            .members
            .iter()
            .map(|(id, member)| (id.clone(), claim(member)))
            .collect();
        let shares = assignor::assign(&claims);
        let held: BTreeSet<_> = claims.into_values().flat_map(|claim| claim.owned).collect();
        for (member_id, share) in shares {
            if let Some(member) = self.members.get_mut(&member_id) {
                member.hand_over(&share, &held, self.generation);
            }
        }
    }

    /// Whether offsets of a transaction may be written with this metadata. Who owns a partition is never asked, and
    /// metadata of somebody who never joined is accepted unfenced, as Kafka does.
    pub fn check_transactional_commit(&self, metadata: &GroupMetadata) -> Result<(), BrokerError> {
        if metadata.generation < 0 && metadata.member_id.is_empty() && metadata.instance_id.is_none() {
            return Ok(());
        }
        self.check_member(metadata)?;
        if metadata.generation != self.generation {
            return Err(BrokerError::IllegalGeneration);
        }
        Ok(())
    }

    /// The same for offsets outside of a transaction: a stranger may only commit for a group without members.
    pub fn check_plain_commit(&self, metadata: &GroupMetadata) -> Result<(), BrokerError> {
        if metadata.generation < 0 && !self.members.is_empty() {
            return Err(BrokerError::UnknownMemberId);
        }
        self.check_transactional_commit(metadata)
    }

    fn check_member(&self, metadata: &GroupMetadata) -> Result<(), BrokerError> {
        if let Some(instance_id) = &metadata.instance_id
            && let Some(member_id) = self.static_member(instance_id)
            && member_id != metadata.member_id
        {
            return Err(BrokerError::FencedInstanceId);
        }
        if self.members.contains_key(&metadata.member_id) {
            Ok(())
        } else {
            Err(BrokerError::UnknownMemberId)
        }
    }
}

impl Member {
    /// Revokes what goes to others and assigns what is free now; the rest follows in the next generation.
    fn hand_over(&mut self, share: &BTreeSet<TopicPartition>, held: &BTreeSet<TopicPartition>, generation: i32) {
        let revoked: Vec<_> = self.owned.difference(share).cloned().collect();
        let added: Vec<_> = share.difference(held).cloned().collect();
        self.generation = generation;
        self.owned.extend(added.iter().cloned());
        if !revoked.is_empty() {
            self.rejoins = true;
            self.events.push_back(MemberEvent::Revoked(revoked));
        }
        // An assignment follows in every generation, even if nothing is added.
        self.events.push_back(MemberEvent::Assigned(added));
    }
}
