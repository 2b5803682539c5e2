//! One input partition of a task: the fetched records that wait, and the offset after what was processed.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::ids::TopicPartition;
use crate::log::RecordBatch;

/// Records of one partition within one batch.
struct Run {
    batch: Arc<dyn RecordBatch>,
    next: u32,
    end: u32,
}

/// Whether more records of an empty input may be on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InputProgress {
    /// Offset after everything fetched; `None` before the first fetch answered.
    pub position: Option<i64>,
    /// End of the partition as far as it may be read; `None` while unknown.
    pub end: Option<i64>,
}

impl InputProgress {
    /// Whether everything that the log had at the last fetch has been fetched.
    pub fn is_caught_up(self) -> bool {
        matches!((self.position, self.end), (Some(position), Some(end)) if position >= end)
    }
}

/// One input partition of a task.
pub struct Input {
    /// Number of the source in the sub-topology.
    pub source: usize,
    /// What is read.
    pub partition: TopicPartition,
    /// Offset of the next record to process: this input's part of the cut.
    pub next_offset: i64,
    /// Offset of the next record to fetch: behind what waits.
    pub fetch_offset: i64,
    /// What the consumer knows about it.
    pub progress: InputProgress,
    /// The offset that the last sealed epoch commits.
    sealed_offset: i64,
    runs: VecDeque<Run>,
    buffered: usize,
}

impl Input {
    /// An input that starts at `offset`, with nothing fetched.
    pub fn new(source: usize, partition: TopicPartition, offset: i64) -> Self {
        Self {
            source,
            partition,
            next_offset: offset,
            fetch_offset: offset,
            progress: InputProgress::default(),
            sealed_offset: offset,
            runs: VecDeque::new(),
            buffered: 0,
        }
    }

    /// Queues records `start..end` of a batch.
    pub fn push(&mut self, batch: Arc<dyn RecordBatch>, start: u32, end: u32) {
        debug_assert!(start <= end, "a run cannot end before it starts");
        if start < end {
            self.buffered += (end - start) as usize;
            self.fetch_offset = batch.record(end - 1).offset + 1;
            self.runs.push_back(Run {
                batch,
                next: start,
                end,
            });
        }
    }

    /// Records that wait.
    pub fn buffered(&self) -> usize {
        self.buffered
    }

    /// The record at the head: its batch and index, and how many records of the same run follow it, itself included.
    pub fn head(&self) -> Option<(&Arc<dyn RecordBatch>, u32, u32)> {
        self.runs.front().map(|run| (&run.batch, run.next, run.end - run.next))
    }

    /// Takes `count` records from the head's run; `last_offset` is that of the last of them.
    pub fn consume(&mut self, count: u32, last_offset: i64) {
        debug_assert!(last_offset >= self.next_offset, "offsets of a partition only grow");
        self.next_offset = last_offset + 1;
        self.buffered -= count as usize;
        if let Some(run) = self.runs.front_mut() {
            run.next += count;
            if run.next >= run.end {
                self.runs.pop_front();
            }
        }
        self.pass_control_records();
    }

    /// Notes what the consumer knows.
    pub fn observe(&mut self, progress: InputProgress) {
        self.progress = progress;
        self.pass_control_records();
    }

    /// Where nothing waits, the input goes on behind the control records that follow the last processed record. It must
    /// not go on from before them again: they are purged together with the records that they follow.
    fn pass_control_records(&mut self) {
        if let Some(position) = self.progress.position.filter(|_| self.runs.is_empty()) {
            self.next_offset = self.next_offset.max(position);
            self.fetch_offset = self.fetch_offset.max(position);
        }
    }

    /// The offset to commit.
    pub fn cut(&self) -> i64 {
        self.next_offset
    }

    /// Whether the offset to commit has moved since the last sealed epoch: by records, or by control records alone.
    pub fn has_moved(&self) -> bool {
        self.next_offset != self.sealed_offset
    }

    /// Ends the epoch: answers the offset that it commits.
    pub fn seal(&mut self) -> i64 {
        self.sealed_offset = self.next_offset;
        self.sealed_offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::BatchRun;
    use crate::record::{Headers, RecordRef};

    /// Records of one partition with these offsets.
    struct Offsets(Vec<i64>);

    impl RecordBatch for Offsets {
        fn runs(&self) -> &[BatchRun] {
            &[]
        }

        fn record(&self, index: u32) -> RecordRef<'_> {
            RecordRef {
                offset: self.0[index as usize],
                timestamp_ms: 0,
                key: None,
                value: None,
            }
        }

        fn headers(&self, _: u32) -> Headers {
            Headers::default()
        }
    }

    fn at(position: i64) -> InputProgress {
        InputProgress {
            position: Some(position),
            end: Some(position),
        }
    }

    #[test]
    fn a_cut_behind_a_control_record_is_where_fetching_goes_on_too() {
        let mut input = Input::new(0, TopicPartition::new("in", 0), 0);
        input.push(Arc::new(Offsets(vec![0, 1, 4])), 0, 3);
        input.observe(at(6));
        assert_eq!((input.cut(), input.fetch_offset), (0, 5), "records wait");
        input.consume(2, 1);
        assert_eq!(input.cut(), 2);
        input.consume(1, 4);
        assert_eq!((input.cut(), input.fetch_offset), (6, 6), "nothing waits");
        input.observe(InputProgress::default());
        assert_eq!(
            (input.cut(), input.fetch_offset),
            (6, 6),
            "a new assignment does not go back"
        );
    }

    #[test]
    fn control_records_alone_move_an_input() {
        let mut input = Input::new(0, TopicPartition::new("in", 0), 3);
        assert!(!input.has_moved());
        input.observe(at(4));
        assert!(input.has_moved());
        assert_eq!(input.seal(), 4);
        input.observe(at(4));
        assert!(!input.has_moved());
    }
}
