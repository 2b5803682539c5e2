//! A batch of borrowed records.

use super::raw::Messages;
use crate::log::{BatchRun, RecordBatch};
use crate::record::{Headers, RecordRef};

/// Records of one fetch, all of them valid, with their runs.
pub(super) struct KafkaBatch {
    messages: Messages,
    runs: Vec<BatchRun>,
}

impl KafkaBatch {
    pub fn new(messages: Messages, runs: Vec<BatchRun>) -> Self {
        Self { messages, runs }
    }
}

impl RecordBatch for KafkaBatch {
    fn runs(&self) -> &[BatchRun] {
        &self.runs
    }

    #[inline]
    fn record(&self, index: u32) -> RecordRef<'_> {
        self.messages.record(index as usize)
    }

    fn headers(&self, index: u32) -> Headers {
        self.messages.headers(index as usize)
    }
}
