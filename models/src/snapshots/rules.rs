//! The rules of the snapshot repository; each has a negative control that breaks it.

/// All true is the protocol; a negative control switches exactly one off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// I11: an object that nobody refers to is deleted only after a grace, longer than any attempt. Off: at once.
    pub waits_for_the_grace: bool,
    /// I10: files are named by content. Off: by RocksDB's number alone.
    pub names_say_the_content: bool,
    /// I10: names carry the attempt as well, so that an upload never meets an older object. Off: an object with the same
    /// content is taken for uploaded.
    pub names_say_the_attempt: bool,
    /// I11: collection keeps what any retained manifest refers to. Off: only what the newest does.
    pub looks_at_all_manifests: bool,
    /// I11: collection keeps what a savepoint refers to.
    pub keeps_savepoints: bool,
    /// I11: collection keeps what a restoring reader refers to.
    pub keeps_what_is_read: bool,
    /// I13: verifying reads all files and compares checksums. Off: it looks whether they are there.
    pub compares_checksums: bool,
    /// I11: a manifest is retired only behind a newer one that is verified. Off: behind any newer one.
    pub retires_behind_verified: bool,
    /// I12: the changelog is trimmed only behind a verified snapshot. Off: behind any.
    pub trims_behind_verified: bool,
    /// I14: without a valid restore point the task stops. Off: it starts empty.
    pub refuses_to_start_empty: bool,
}

impl Rules {
    /// The protocol.
    pub const ALL: Rules = Rules {
        waits_for_the_grace: true,
        names_say_the_content: true,
        names_say_the_attempt: true,
        looks_at_all_manifests: true,
        keeps_savepoints: true,
        keeps_what_is_read: true,
        compares_checksums: true,
        retires_behind_verified: true,
        trims_behind_verified: true,
        refuses_to_start_empty: true,
    };
}
