//! The answer to a fetch: places within shared chunks, nothing copied.

use std::fmt;
use std::sync::Arc;

use super::packed::Packed;
use crate::log::{BatchRun, RecordBatch};
use crate::record::{Headers, RecordRef};

/// Where a record lies: index of the chunk within the batch, index of the record within the chunk.
#[derive(Clone, Copy)]
struct Place {
    chunk: u32,
    record: u32,
}

/// Records of several partitions, lent from the partitions' chunks.
#[derive(Default)]
pub(super) struct Batch {
    chunks: Vec<Arc<Packed>>,
    places: Vec<Place>,
    runs: Vec<BatchRun>,
    limit: usize,
}

impl Batch {
    /// Sets how many records the batch may hold in all.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Whether the limit is reached.
    pub fn is_full(&self) -> bool {
        self.places.len() >= self.limit
    }

    /// Appends the record at `index` of `chunk`.
    pub fn push(&mut self, chunk: &Arc<Packed>, index: usize) {
        if !self.chunks.last().is_some_and(|last| Arc::ptr_eq(last, chunk)) {
            self.chunks.push(Arc::clone(chunk));
        }
        self.places.push(Place {
            chunk: self.chunks.len() as u32 - 1,
            record: index as u32,
        });
    }

    /// Notes that all records since the end of the former run belong to `slot`.
    pub fn end_run(&mut self, slot: u32) {
        let start = self.runs.last().map_or(0, |run| run.end);
        let end = self.places.len() as u32;
        if end > start {
            self.runs.push(BatchRun { slot, start, end });
        }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.places.len()
    }
}

impl RecordBatch for Batch {
    fn runs(&self) -> &[BatchRun] {
        &self.runs
    }

    fn record(&self, index: u32) -> RecordRef<'_> {
        let place = self.places[index as usize];
        self.chunks[place.chunk as usize].lend(place.record as usize)
    }

    fn headers(&self, index: u32) -> Headers {
        let place = self.places[index as usize];
        self.chunks[place.chunk as usize].records()[place.record as usize]
            .headers
            .clone()
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records in {} chunks", self.places.len(), self.chunks.len())
    }
}
