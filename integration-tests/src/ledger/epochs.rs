//! Epochs as the changelog shows them: how much may a restore read after a kill?
//!
//! All changelog records that a task writes in one epoch belong to one transaction, and the end of a transaction
//! takes an offset of its own in the partition. So a `read_committed` consumer sees an epoch as a run of records
//! without a hole between their offsets. A disk that lost nothing but the increment between commit and apply
//! lacks at most the last run that was written before the kill.

/// A run of changelog records with consecutive offsets: the increment of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Increment {
    /// Offset of the first record.
    pub first_offset: i64,
    /// Number of records.
    pub records: u64,
    /// Timestamp of the first record: when it was produced, in milliseconds since the Unix epoch.
    pub first_timestamp_ms: i64,
}

/// The increments of one changelog partition, in order.
#[derive(Debug, Default)]
pub struct Increments {
    runs: Vec<Increment>,
}

impl Increments {
    /// Takes the next committed record of the partition.
    pub fn observe(&mut self, offset: i64, timestamp_ms: i64) {
        match self.runs.last_mut() {
            Some(run) if run.first_offset + run.records as i64 == offset => run.records += 1,
            _ => self.runs.push(Increment {
                first_offset: offset,
                records: 1,
                first_timestamp_ms: timestamp_ms,
            }),
        }
    }

    /// The last increment that was produced at or before `timestamp_ms`.
    pub fn last_before(&self, timestamp_ms: i64) -> Option<Increment> {
        let after = self.runs.partition_point(|run| run.first_timestamp_ms <= timestamp_ms);
        after.checked_sub(1).map(|index| self.runs[index])
    }

    /// Number of increments.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_in_the_offsets_ends_an_increment() {
        let mut increments = Increments::default();
        for (offset, timestamp_ms) in [(0, 100), (1, 101), (2, 102), (4, 200), (5, 201), (9, 300)] {
            increments.observe(offset, timestamp_ms);
        }
        assert_eq!(increments.len(), 3);
        let last = |timestamp_ms| {
            increments
                .last_before(timestamp_ms)
                .map(|run| (run.first_offset, run.records))
        };
        assert_eq!(last(99), None);
        assert_eq!(last(150), Some((0, 3)));
        assert_eq!(last(200), Some((4, 2)));
        assert_eq!(last(299), Some((4, 2)));
        assert_eq!(last(1_000), Some((9, 1)));
    }

    #[test]
    fn no_records_are_no_increments() {
        assert!(Increments::default().is_empty());
        assert_eq!(Increments::default().last_before(i64::MAX), None);
    }
}
