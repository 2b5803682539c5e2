//! What calls on a store count.

use std::time::Duration;

use super::{BlobError, BlobResult};
use crate::metrics::{Counter, Histogram, Sample, Source, Value};

/// The calls of the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Create,
    Upload,
    Read,
    ReadEnd,
    ReadPart,
    List,
    Delete,
}

impl Operation {
    const ALL: [Operation; 7] = [
        Operation::Create,
        Operation::Upload,
        Operation::Read,
        Operation::ReadEnd,
        Operation::ReadPart,
        Operation::List,
        Operation::Delete,
    ];

    fn label(self) -> &'static str {
        match self {
            Operation::Create => "create",
            Operation::Upload => "upload",
            Operation::Read => "read",
            Operation::ReadEnd => "read_end",
            Operation::ReadPart => "read_part",
            Operation::List => "list",
            Operation::Delete => "delete",
        }
    }

    /// What the call does to an object, as errors say it.
    pub(super) fn verb(self) -> &'static str {
        match self {
            Operation::Create | Operation::Upload => "write",
            Operation::Read | Operation::ReadEnd | Operation::ReadPart => "read",
            Operation::List => "list",
            Operation::Delete => "delete",
        }
    }
}

/// How calls end, in the order of the counters.
const OUTCOMES: [&str; 7] = ["ok", "missing", "exists", "denied", "no_store", "unavailable", "failed"];

fn outcome<T>(result: &BlobResult<T>) -> usize {
    match result {
        Ok(_) => 0,
        Err(BlobError::Missing { .. }) => 1,
        Err(BlobError::Exists { .. }) => 2,
        Err(BlobError::Denied { .. }) => 3,
        Err(BlobError::NoStore { .. }) => 4,
        Err(BlobError::Unavailable { .. }) => 5,
        Err(BlobError::Failed { .. }) => 6,
    }
}

#[derive(Debug, Default)]
struct OfOperation {
    calls: [Counter; OUTCOMES.len()],
    latency: Histogram,
}

/// Counters of the calls on one store or several.
#[derive(Debug, Default)]
pub struct BlobMetrics {
    operations: [OfOperation; Operation::ALL.len()],
    /// Bytes of objects that were written.
    pub bytes_uploaded: Counter,
    /// Bytes of objects that were read.
    pub bytes_downloaded: Counter,
    /// Attempts beyond the first of a call.
    pub retries: Counter,
}

impl BlobMetrics {
    /// Counts a call that has ended, with all its attempts.
    pub(super) fn observe<T>(&self, operation: Operation, result: &BlobResult<T>, latency: Duration) {
        let counts = &self.operations[operation as usize];
        counts.calls[outcome(result)].add(1);
        counts.latency.observe(latency);
    }
}

impl Source for BlobMetrics {
    fn samples(&self, out: &mut Vec<Sample>) {
        for operation in Operation::ALL {
            let counts = &self.operations[operation as usize];
            let label = ("operation", operation.label().to_owned());
            for (outcome, calls) in OUTCOMES.iter().zip(&counts.calls) {
                out.push(Sample {
                    name: "tidegate_blob_calls_total",
                    help: "Calls on the object store, by what they do and how they ended.",
                    labels: vec![label.clone(), ("outcome", (*outcome).to_owned())],
                    value: Value::Counter(calls.get()),
                });
            }
            let (buckets, count, sum) = counts.latency.snapshot();
            out.push(Sample {
                name: "tidegate_blob_call_latency_seconds",
                help: "Time that a call on the object store took, with all its attempts.",
                labels: vec![label],
                value: Value::Histogram(buckets, count, sum),
            });
        }
        for (direction, bytes) in [("up", &self.bytes_uploaded), ("down", &self.bytes_downloaded)] {
            out.push(Sample {
                name: "tidegate_blob_bytes_total",
                help: "Bytes of objects written to the object store (up) and read from it (down).",
                labels: vec![("direction", direction.to_owned())],
                value: Value::Counter(bytes.get()),
            });
        }
        out.push(Sample {
            name: "tidegate_blob_retries_total",
            help: "Attempts of calls on the object store beyond the first of each.",
            labels: Vec::new(),
            value: Value::Counter(self.retries.get()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> BlobResult<()> {
        Err(BlobError::Missing {
            root: "memory://name".to_owned(),
            name: "a".to_owned(),
        })
    }

    #[test]
    fn calls_are_counted_by_operation_and_outcome() {
        let metrics = BlobMetrics::default();
        metrics.observe(Operation::Read, &missing(), Duration::from_millis(3));
        metrics.observe(Operation::Delete, &Ok(()), Duration::from_millis(3));
        let mut samples = Vec::new();
        metrics.samples(&mut samples);
        let calls = |operation: &str, outcome: &str| {
            let labels = [("operation", operation.to_owned()), ("outcome", outcome.to_owned())];
            let found = samples.iter().find(|sample| sample.labels == labels);
            found.expect("every pair of labels is exported").value.clone()
        };
        assert_eq!(calls("read", "missing"), Value::Counter(1));
        assert_eq!(calls("read", "ok"), Value::Counter(0));
        assert_eq!(calls("delete", "ok"), Value::Counter(1));
    }

    #[test]
    fn every_operation_has_counters_of_its_own() {
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, index, "{operation:?}");
        }
    }
}
