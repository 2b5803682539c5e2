//! The rules of a restore; each has a negative control that breaks it.

/// All true is the protocol; a negative control switches exactly one off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// I8: the end is the high watermark that a read_uncommitted client reports. Off: the last stable offset.
    pub ends_at_high_watermark: bool,
    /// I8: what counts is the reader's position. Off: that it got the record before the end.
    pub ends_by_position: bool,
    /// I8: partition-EOF says nothing. Off: it is the end.
    pub ignores_partition_eof: bool,
    /// I8: a position behind the end is the end, too. Off: it must be equal.
    pub compares_at_least: bool,
    /// An offset that the log no longer holds is an error. Off: reading goes on at the first one that it holds.
    pub out_of_range_is_an_error: bool,
    /// I9: the disk says the committed epoch only when the replay is complete. Off: when it begins.
    pub marks_the_disk_last: bool,
    /// A disk that is behind and older than the retention of deletions is rebuilt. Off: it is replayed.
    pub rebuilds_old_disks: bool,
}

impl Rules {
    /// The protocol.
    pub const ALL: Rules = Rules {
        ends_at_high_watermark: true,
        ends_by_position: true,
        ignores_partition_eof: true,
        compares_at_least: true,
        out_of_range_is_an_error: true,
        marks_the_disk_last: true,
        rebuilds_old_disks: true,
    };
}
