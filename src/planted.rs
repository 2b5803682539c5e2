//! Bugs that are planted on purpose, so that the simulation can show that it would find them (`make planted`).
//!
//! Only a build with the feature `planted` has them. In all others whoever asks for a bug gets the constant `false`, and nothing is
//! left of the places that ask.

/// A bug, each against one of the invariants or against a fact of Kafka that the engine is built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// A commit counts as confirmed as soon as it was sent (I3).
    SentIsConfirmed = 1,
    /// An epoch is written to the disk before its commit (I9).
    ApplyBeforeCommit,
    /// Only the first input of a task is committed (I5).
    ForgetOtherInputs,
    /// Offsets are sent with the metadata that the client has by now, not with that of the last event served (I6).
    FreshMetadata,
    /// A new generation that changes nothing else is not adopted (I6).
    StaleGeneration,
    /// A commit without an answer counts as carried out (§4).
    NoAnswerIsSuccess,
    /// What the disk has counts, whatever the log says was committed (§4).
    TrustTheDisk,
    /// Committed offsets are read without waiting for pending ones (I7).
    IgnorePendingOffsets,
    /// Tasks that were lost are closed without going back to the committed cut (I1).
    LoseWithoutRollBack,
    /// Tasks that are revoked are closed at once, while what they have sent stays in the transaction (I1).
    CloseMidEpoch,
    /// The failed epoch's transaction goes on (I1).
    KeepTransaction,
    /// An epoch is redone before the last one has reached the disk (I9).
    SkipDrain,
    /// A restore ends at the last stable offset (I8).
    RestoreToStableOffset,
    /// A restore reads what was not committed (I8).
    RestoreUncommitted,
    /// The end of the changelog is noted too far (I9).
    ChangelogTooFar,
    /// A disk that is behind counts as current (I9).
    BehindIsCurrent,
    /// Changelogs lack deletions (I13).
    ForgetDeletions,
    /// A queue that is full counts as having taken the record (I1).
    FullQueueTakes,
    /// Repartition topics are purged before the commit (I11).
    PurgeBeforeCommit,
    /// Inputs are read uncommitted (I1).
    ReadUncommitted,
    /// A group that does not answer has no offsets (I14).
    NoAnswerIsNoOffsets,
    /// A restore that has read what was committed after its cut goes on with it (I13). Found by the simulation.
    RestoreBeyondCut,
    /// A restore that meets the commits of somebody who took the task over says that offsets were lost (I14). Found by the simulation.
    TakenOverIsLost,
    /// A worker that stood still while another worked off and purged its input says that the input is gone. Found by the simulation.
    PurgedIsGone,
    /// A database that work of the same process still holds stops the instance. Found by the simulation.
    HeldIsRefused,
    /// The time in which the machine slept counts as time in which a restore made no progress. Found by the simulation.
    SleepIsStall,
    /// Increments count as stored before they are written (I2).
    CommitBeforeStored,
    /// A base is taken to be committed as soon as it was made (I11).
    BaseNeedsNoName,
    /// What nobody refers to is deleted without a grace (I11).
    CollectAtOnce,
    /// Only what the newest snapshot refers to is kept (I11).
    CollectOlderBases,
    /// Changelogs are trimmed up to the newest snapshot, whatever is retained (I12).
    TrimToNewest,
    /// It is found out what is referred to before it is listed what there is (I11). Found by the simulation.
    CollectBeforeListing,
    /// A restore whose changelog was trimmed by somebody who took the task over says that it is gone. Found by the simulation.
    TrimmedIsGone,
    /// A task that has never written anything has no restore point (I14). Found by the simulation.
    NothingIsNoRestorePoint,
    /// What a base snapshot supersedes is deleted before a commit has named it (I11).
    RetireBeforeNamed,
    /// A savepoint does not wait until what lies before a task stands still.
    SavepointWithoutStages,
    /// A savepoint freezes tasks whose last epoch is not on their disk yet.
    SavepointBeforeCommit,
    /// A part of a savepoint is published before it is stored (I2).
    SavepointBeforeUpload,
    /// A pointer names a spilled increment that is not in its transaction (I2).
    SpillNothing,
    /// It is noted too far in the spill topic where an increment is to be looked for (I2).
    SpillTooFar,
    /// A commit names a new strategy before that has all of the state (I2).
    ArriveEarly,
    /// Changelogs are read from their first record on, whatever they hold of another time (I13).
    ForgetSince,
    /// A disk from before a change of strategy is brought up to date by a replay (I13).
    ReplayAcrossChanges,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 43] = [
        Bug::SentIsConfirmed,
        Bug::ApplyBeforeCommit,
        Bug::ForgetOtherInputs,
        Bug::FreshMetadata,
        Bug::StaleGeneration,
        Bug::NoAnswerIsSuccess,
        Bug::TrustTheDisk,
        Bug::IgnorePendingOffsets,
        Bug::LoseWithoutRollBack,
        Bug::CloseMidEpoch,
        Bug::KeepTransaction,
        Bug::SkipDrain,
        Bug::RestoreToStableOffset,
        Bug::RestoreUncommitted,
        Bug::ChangelogTooFar,
        Bug::BehindIsCurrent,
        Bug::ForgetDeletions,
        Bug::FullQueueTakes,
        Bug::PurgeBeforeCommit,
        Bug::ReadUncommitted,
        Bug::NoAnswerIsNoOffsets,
        Bug::RestoreBeyondCut,
        Bug::TakenOverIsLost,
        Bug::PurgedIsGone,
        Bug::HeldIsRefused,
        Bug::SleepIsStall,
        Bug::CommitBeforeStored,
        Bug::BaseNeedsNoName,
        Bug::CollectAtOnce,
        Bug::CollectOlderBases,
        Bug::TrimToNewest,
        Bug::CollectBeforeListing,
        Bug::TrimmedIsGone,
        Bug::NothingIsNoRestorePoint,
        Bug::RetireBeforeNamed,
        Bug::SavepointWithoutStages,
        Bug::SavepointBeforeCommit,
        Bug::SavepointBeforeUpload,
        Bug::SpillNothing,
        Bug::SpillTooFar,
        Bug::ArriveEarly,
        Bug::ForgetSince,
        Bug::ReplayAcrossChanges,
    ];
}

#[cfg(feature = "planted")]
static PLANTED: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Plants a bug in this process, or none.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    let number = bug.map_or(0, |bug| bug as u8);
    PLANTED.store(number, std::sync::atomic::Ordering::SeqCst);
}

#[cfg(feature = "planted")]
pub(crate) fn planted(bug: Bug) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::Relaxed) == bug as u8
}

/// Whether the bug is planted.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub(crate) const fn planted(_bug: Bug) -> bool {
    false
}
