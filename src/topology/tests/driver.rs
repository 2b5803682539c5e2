//! Runs a whole topology on one partition per topic: what a sub-topology writes to a repartition topic is read at once.

use std::sync::Arc;

use crate::codec::Utf8;
use crate::ids::StoreId;
use crate::log::{BatchRun, RecordBatch};
use crate::operators::{Failure, NodeCounts, OnError, Scope};
use crate::record::{Headers, RecordRef};
use crate::state::{Checkpoint, SortedIncrement, StateBackend, StateError, StateMeta, StateResult, TaskState};
use crate::time::Millis;
use crate::topology::{Builder, Topic, TopicRef, Topology};

/// A topic of text.
pub(super) fn text(name: &str) -> Topic<String, String> {
    Topic::new(name, Utf8, Utf8)
}

/// A record as it goes in and comes out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Raw {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) timestamp_ms: Millis,
    pub(super) headers: Headers,
}

impl Raw {
    /// Key, value and time as text, for example `k=v@7`; `-` is null, and 8-byte values that are no text are numbers.
    pub(super) fn shown(&self) -> String {
        let show = |bytes: &Option<Vec<u8>>| match bytes {
            None => "-".to_owned(),
            Some(bytes) => match <[u8; 8]>::try_from(&bytes[..]) {
                Ok(number) if number[0] == 0 => i64::from_be_bytes(number).to_string(),
                _ => String::from_utf8_lossy(bytes).into_owned(),
            },
        };
        format!("{}={}@{}", show(&self.key), show(&self.value), self.timestamp_ms)
    }
}

impl From<(&str, &str, Millis)> for Raw {
    fn from((key, value, timestamp_ms): (&str, &str, Millis)) -> Self {
        (Some(key), Some(value), timestamp_ms).into()
    }
}

impl From<(Option<&str>, Option<&str>, Millis)> for Raw {
    fn from((key, value, timestamp_ms): (Option<&str>, Option<&str>, Millis)) -> Self {
        Raw {
            key: key.map(Into::into),
            value: value.map(Into::into),
            timestamp_ms,
            ..Raw::default()
        }
    }
}

impl RecordBatch for Raw {
    fn runs(&self) -> &[BatchRun] {
        &[]
    }

    fn record(&self, _index: u32) -> RecordRef<'_> {
        RecordRef {
            offset: 42,
            timestamp_ms: self.timestamp_ms,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
        }
    }

    fn headers(&self, _index: u32) -> Headers {
        self.headers.clone()
    }
}

/// A database that holds nothing: all state of a test lies in the overlay.
struct Nothing;

impl StateBackend for Nothing {
    fn get(&self, _store: StoreId, _key: &[u8], _out: &mut Vec<u8>) -> StateResult<bool> {
        Ok(false)
    }

    fn scan(
        &self,
        _store: StoreId,
        _from: &[u8],
        _to: &[u8],
        _visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> StateResult<()> {
        Ok(())
    }

    fn apply(&self, _increment: &dyn SortedIncrement, _meta: &StateMeta) -> StateResult<()> {
        Ok(())
    }

    fn meta(&self) -> StateResult<Option<StateMeta>> {
        Ok(None)
    }

    fn checkpoint(&self) -> StateResult<Box<dyn Checkpoint>> {
        Err(StateError::Io {
            path: "nothing".into(),
            operation: "copied",
            reason: "it holds nothing".into(),
        })
    }

    fn size_bytes(&self) -> u64 {
        0
    }
}

/// A topology, and the scopes of its tasks.
pub(super) struct Driver {
    pub(super) topology: Topology,
    pub(super) scopes: Vec<Scope>,
    /// Stream times at the last restart.
    stream_times_ms: Vec<Millis>,
}

impl Driver {
    pub(super) fn new(builder: Builder) -> Self {
        let topology = builder.build().expect("the topology is right");
        let scopes = (0..topology.plan().sub_topologies.len()).map(|number| {
            let ordered: Vec<bool> = topology.plan().sub_topologies[number]
                .stores
                .iter()
                .map(|s| s.ordered)
                .collect();
            let state = TaskState::new(Arc::new(Nothing), &ordered, 0);
            scope(&topology, number, state)
        });
        let scopes: Vec<Scope> = scopes.collect();
        Self {
            stream_times_ms: vec![-1; scopes.len()],
            scopes,
            topology,
        }
    }

    /// Processes one record and everything that follows; answers what comes out to the user's topics.
    pub(super) fn try_send(&mut self, topic: &str, record: impl Into<Raw>) -> Result<Vec<Raw>, Failure> {
        let mut waiting = std::collections::VecDeque::from([(topic.to_owned(), record.into())]);
        let mut came_out = Vec::new();
        while let Some((topic, record)) = waiting.pop_front() {
            let (number, source) = self.reader_of(&topic);
            self.feed(number, source, record)?;
            for written in self.drain(number) {
                if written.topic.ends_with("-repartition") {
                    waiting.push_back((written.topic.clone(), written));
                } else {
                    came_out.push(written);
                }
            }
        }
        Ok(came_out)
    }

    /// As [`Driver::try_send`], for records that do not fail, with what comes out as text.
    pub(super) fn send(&mut self, topic: &str, record: impl Into<Raw>) -> Vec<String> {
        let came_out = self.try_send(topic, record).expect("the record is processed");
        came_out.iter().map(Raw::shown).collect()
    }

    fn reader_of(&self, topic: &str) -> (usize, usize) {
        let subs = self.topology.plan().sub_topologies.iter().enumerate();
        let mut readers = subs.filter_map(|(number, sub)| {
            let source = sub.sources.iter().position(|source| source.to_string() == topic)?;
            Some((number, source))
        });
        readers.next().expect("the topic is read")
    }

    fn feed(&mut self, number: usize, source: usize, record: Raw) -> Result<(), Failure> {
        let scope = &mut self.scopes[number];
        let headers = record.headers.clone();
        let batch: Arc<dyn RecordBatch> = Arc::new(record);
        scope.set_current(&batch, 0, source as u16);
        let program = self.topology.program(number as u16);
        program.feed(source, &batch.record(0), headers, scope)
    }

    fn drain(&mut self, number: usize) -> Vec<Raw> {
        let outbox = &mut self.scopes[number].outbox;
        let sinks = &self.topology.plan().sub_topologies[number].sinks;
        let entries = outbox.entries(0).iter().map(|entry| Raw {
            topic: sinks
                .get(entry.sink as usize)
                .map_or("dead-letters".into(), TopicRef::to_string),
            partition: entry.partition,
            key: outbox.key(entry).map(Into::into),
            value: outbox.value(entry).map(Into::into),
            timestamp_ms: entry.timestamp_ms,
            headers: entry.headers.clone(),
        });
        let written = entries.collect();
        outbox.clear();
        written
    }

    /// A barrier, a clean stop, and a start of `builder`'s topology on the same state.
    pub(super) fn restart(self, builder: Builder) -> Self {
        let topology = builder.build().expect("the topology is right");
        let old = self.topology;
        let mut scopes = Vec::new();
        for (number, mut before) in self.scopes.into_iter().enumerate() {
            old.program(number as u16)
                .barrier(&mut before)
                .expect("the barrier passes");
            let mut after = scope(&topology, number, before.state);
            topology
                .program(number as u16)
                .restored(&mut after)
                .expect("clocks are read");
            after.state.seal();
            after.stream_time_ms = before.stream_time_ms;
            scopes.push(after);
        }
        Self {
            stream_times_ms: scopes.iter().map(|scope| scope.stream_time_ms).collect(),
            topology,
            scopes,
        }
    }

    /// Drops everything since the last restart, as after an aborted epoch.
    pub(super) fn roll_back(&mut self) {
        for (number, scope) in self.scopes.iter_mut().enumerate() {
            scope.state.roll_back(0);
            scope.outbox.clear();
            scope.counts.fill(NodeCounts::default());
            scope.stream_time_ms = self.stream_times_ms[number];
            let program = self.topology.program(number as u16);
            program.restored(scope).expect("clocks are read");
        }
    }

    /// What the node called `name` has counted.
    pub(super) fn counts(&self, name: &str) -> NodeCounts {
        let index = self.node(name);
        let counts = self.scopes.iter().map(|scope| scope.counts[index]);
        counts
            .reduce(|a, b| NodeCounts {
                late: a.late + b.late,
                dropped: a.dropped + b.dropped,
                skipped: a.skipped + b.skipped,
                dead_lettered: a.dead_lettered + b.dead_lettered,
            })
            .expect("there is a sub-topology")
    }

    /// Sets the policy of all nodes, and where dead letters go.
    pub(super) fn set_policy(&mut self, policy: OnError) {
        for (scope, sub) in self.scopes.iter_mut().zip(&self.topology.plan().sub_topologies) {
            scope.on_error.fill(policy);
            scope.dead_letter_sink = Some(sub.sinks.len() as u16);
        }
    }

    /// Number of entries in the store called `name`.
    pub(super) fn stored(&mut self, name: &str) -> usize {
        let mut entries = 0;
        for (scope, sub) in self.scopes.iter_mut().zip(&self.topology.plan().sub_topologies) {
            if let Some(index) = sub.stores.iter().position(|store| store.name == name) {
                let count = &mut |_: &[u8], _: &[u8]| {
                    entries += 1;
                    true
                };
                scope
                    .state
                    .scan(StoreId(index as u16), &[], &[], count)
                    .expect("the store is read");
            }
        }
        entries
    }

    fn node(&self, name: &str) -> usize {
        let nodes = &self.topology.plan().nodes;
        let found = nodes.iter().position(|node| &*node.name == name);
        found.unwrap_or_else(|| panic!("no node {name} in\n{}", self.topology.describe()))
    }
}

fn scope(topology: &Topology, number: usize, state: TaskState) -> Scope {
    let plan = topology.plan();
    let sub = &plan.sub_topologies[number];
    let clocks = topology.program(number as u16).clocks();
    let mut scope = Scope::new(state, 0, plan.nodes.len(), clocks);
    scope.sink_partitions = vec![1; sub.sinks.len() + 1];
    scope.source_names = sub.sources.iter().map(|source| source.to_string().into()).collect();
    for (index, policy) in scope.on_error.iter_mut().enumerate() {
        *policy = topology.on_error(crate::ids::NodeId(index as u16)).unwrap_or_default();
    }
    scope
}
