//! The instance's seat in its group: the member that holds it, and the view of it that workers compare with.
//!
//! A static member whose connection hangs for longer than its session may fence itself: the broker works off its request to join
//! again, the answer is lost, and the request that the client sends next takes the place of the first. To the client that looks
//! like another process with the same identity. Which of both it was shows when the seat is taken again: a lone
//! instance keeps it, two processes take it from each other.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tracing::warn;

use crate::log::{GroupMember, GroupMetadata, GroupView, Log, LogResult, MemberSettings};

/// A member that is fenced again within this time has a rival.
const RIVAL_WITHIN: Duration = Duration::from_secs(60);

/// The view of whichever member holds the seat.
struct Holder(RwLock<Arc<dyn GroupView>>);

impl GroupView for Holder {
    fn metadata(&self) -> GroupMetadata {
        self.0.read().unwrap_or_else(PoisonError::into_inner).metadata()
    }
}

/// See the [module documentation](self).
pub(super) struct Seat {
    log: Arc<dyn Log>,
    settings: MemberSettings,
    member: Box<dyn GroupMember>,
    holder: Arc<Holder>,
    fenced_at: Option<Duration>,
}

impl Seat {
    /// Joins the group for the first time.
    ///
    /// # Errors
    /// As [`Log::member`].
    pub(super) fn take(log: Arc<dyn Log>, settings: MemberSettings) -> LogResult<Self> {
        let member = log.member(&settings)?;
        let holder = Arc::new(Holder(RwLock::new(member.view())));
        Ok(Self {
            log,
            settings,
            member,
            holder,
            fenced_at: None,
        })
    }

    pub(super) fn member(&mut self) -> &mut dyn GroupMember {
        &mut *self.member
    }

    /// Follows the seat, not the member: what it says after [`Seat::take_again`] is the new member's.
    pub(super) fn view(&self) -> Arc<dyn GroupView> {
        Arc::clone(&self.holder) as Arc<dyn GroupView>
    }

    /// Takes note that the member was fenced at `now`. Whether that was by a rival, as far as one can know.
    pub(super) fn has_rival(&mut self, now: Duration) -> bool {
        let before = self.fenced_at.replace(now);
        before.is_some_and(|before| now.saturating_sub(before) < RIVAL_WITHIN)
    }

    /// Replaces a fenced member by a new one. All that the old one had must have been taken from it.
    ///
    /// # Errors
    /// As [`Log::member`].
    pub(super) fn take_again(&mut self) -> LogResult<()> {
        let instance_id = self.settings.instance_id.as_deref().unwrap_or_default();
        warn!(
            group = self.settings.group,
            instance_id,
            "fenced: either the connection hung for longer than the session, or another process has this identity; joining once more"
        );
        let member = self.log.member(&self.settings)?;
        *self.holder.0.write().unwrap_or_else(PoisonError::into_inner) = member.view();
        self.member = member;
        Ok(())
    }

    pub(super) fn leave(self) {
        self.member.leave();
    }
}
