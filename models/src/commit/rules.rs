//! The rules of the commit; each has a negative control that breaks it.

/// All true is the protocol; a negative control switches exactly one off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// I6: the metadata of a commit is the one of the last event that was *served*. Off: whatever the client has now.
    pub sends_what_was_served: bool,
    /// I6: metadata that no broker fences is never sent. Off: offsets are sent in the name of nobody.
    pub sends_only_fencing_metadata: bool,
    /// I6: metadata is compared whole. Off: an equal generation counts as the same, and the client's metadata is sent.
    pub compares_member_ids: bool,
    /// I7: the producer is initialised before offsets are read. Off: it is initialised at any time before the first send.
    pub initialises_before_reading: bool,
    /// I7: reading offsets waits for pending transactions.
    pub reads_stable_offsets: bool,
    /// I3: offsets of an epoch wait for the confirmed end of the one before. Off: they join its transaction.
    pub confirms_before_next_offsets: bool,
    /// I9: the disk follows the commit. Off: an epoch is applied when it is sealed.
    pub applies_after_commit: bool,
    /// A commit that timed out may have succeeded: the cut is read again. Off: the epoch is done again from its own beginning.
    pub timed_out_is_no_failure: bool,
    /// A commit that timed out may have failed. Off: the worker goes on behind it.
    pub timed_out_is_no_success: bool,
    /// An abort drops the epoch that was processed beside it, too. Off: its parked outputs are sent.
    pub drops_parked_outputs: bool,
    /// What the log port promises: a member that was given up joins again only when its loss was completed. Off: at once.
    pub client_waits_for_loss: bool,
    /// A worker seals only while the client's metadata is the one served. Off: it seals, and the broker decides. This rule
    /// spares aborts; correctness does not hang on it, and the models show that.
    pub compares_before_sealing: bool,
}

impl Rules {
    /// The protocol.
    pub const ALL: Rules = Rules {
        sends_what_was_served: true,
        sends_only_fencing_metadata: true,
        compares_member_ids: true,
        initialises_before_reading: true,
        reads_stable_offsets: true,
        confirms_before_next_offsets: true,
        applies_after_commit: true,
        timed_out_is_no_failure: true,
        timed_out_is_no_success: true,
        drops_parked_outputs: true,
        client_waits_for_loss: true,
        compares_before_sealing: true,
    };
}
