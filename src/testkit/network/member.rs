//! A member of a group at the other end of a network.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::log::{GroupMember, GroupMetadata, GroupView, LogError, LogResult, MemberEvent};

use super::Network;

/// The metadata that the client has last heard of.
struct Heard {
    network: Network,
    inner: Arc<dyn GroupView>,
    last: Mutex<GroupMetadata>,
}

impl Heard {
    fn last(&self) -> MutexGuard<'_, GroupMetadata> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refresh(&self) {
        let fresh = self.inner.metadata();
        *self.last() = fresh;
    }
}

impl GroupView for Heard {
    fn metadata(&self) -> GroupMetadata {
        // The client's own thread hears of a new generation with its heartbeats: some time after it has come about.
        if !self.network.is_in_vain() && !self.network.hitch(2) {
            self.refresh();
        }
        self.last().clone()
    }
}

pub(super) struct DistantMember {
    network: Network,
    inner: Box<dyn GroupMember>,
    heard: Arc<Heard>,
    /// What is worked off here, and what the group has not been told of.
    untold: Option<MemberEvent>,
}

impl DistantMember {
    pub(super) fn new(network: Network, inner: Box<dyn GroupMember>) -> Self {
        let view = inner.view();
        let heard = Arc::new(Heard {
            network: network.clone(),
            last: Mutex::new(view.metadata()),
            inner: view,
        });
        Self {
            network,
            inner,
            heard,
            untold: None,
        }
    }

    fn tell_group(&mut self) -> LogResult<()> {
        match self.untold.take() {
            Some(event) => self.inner.complete(&event),
            None => Ok(()),
        }
    }
}

impl GroupMember for DistantMember {
    fn poll(&mut self, wait: Duration) -> LogResult<Option<MemberEvent>> {
        if self.network.is_in_vain() {
            self.network.waited(wait);
            return match self.network.hitch(8) {
                true => Err(LogError::Unreachable {
                    addresses: "the embedded log".to_owned(),
                    reason: "the network is cut".to_owned(),
                }),
                false => Ok(None),
            };
        }
        if self.network.hitch(4) {
            self.network.waited(wait);
            return Ok(None);
        }
        self.tell_group()?;
        let polled = self.inner.poll(wait)?;
        if let Some(event) = &polled {
            self.heard.refresh();
            let generation = self.heard.last().generation;
            let (kind, partitions) = match event {
                MemberEvent::Assigned(partitions) => ("partitions were assigned", partitions),
                MemberEvent::Revoked(partitions) => ("partitions were revoked", partitions),
                MemberEvent::Lost(partitions) => ("partitions were lost", partitions),
            };
            self.network.happened(kind);
            let partitions: Vec<String> = partitions.iter().map(ToString::to_string).collect();
            self.network.tell(format_args!(
                "{kind}: {} (generation {generation})",
                partitions.join(" ")
            ));
        }
        Ok(polled)
    }

    fn complete(&mut self, event: &MemberEvent) -> LogResult<()> {
        self.untold = Some(event.clone());
        if self.network.is_in_vain() {
            return Ok(());
        }
        self.tell_group()
    }

    fn view(&self) -> Arc<dyn GroupView> {
        Arc::clone(&self.heard) as Arc<dyn GroupView>
    }

    fn leave(mut self: Box<Self>) {
        if self.network.is_in_vain() {
            return;
        }
        // It leaves anyway: what the group answers now is of no use.
        let _ = self.tell_group();
        self.inner.leave();
    }
}
