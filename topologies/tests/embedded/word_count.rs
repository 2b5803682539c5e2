//! Word count over the embedded log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate::instance::Backend;
use tidegate::log::embedded::EmbeddedLog;
use tidegate::log::{Log, TopicSpec};
use tidegate::time::SystemClock;
use tidegate_topologies::word_count;

use crate::instance::{PATIENCE, run_until, settings};
use crate::records;

#[test]
fn every_word_is_counted_once_and_every_count_comes_out() {
    let log = EmbeddedLog::new(Arc::new(SystemClock::default()));
    for topic in [word_count::LINES, word_count::WORD_COUNTS] {
        let spec = TopicSpec {
            name: topic.into(),
            partitions: 2,
            replication: None,
            config: Vec::new(),
        };
        log.admin().create_topic(&spec, PATIENCE).expect("the topic is new");
    }
    let lines = [
        "To be, or not to be,",
        "that is the question:",
        "Whether 'tis nobler to be",
    ];
    records::write(&*log, word_count::LINES, &lines);

    let state = tempfile::tempdir().expect("a directory");
    let settings = settings(2, Duration::from_millis(10), Backend::RocksDb, state.path());
    let topology = word_count::topology().expect("it is consistent");
    let (lines, words) = (3, 6 + 4 + 5);
    run_until(topology, settings, &log, lines + words);

    let mut counts: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for record in (0..2).flat_map(|partition| records::read(&*log, word_count::WORD_COUNTS, partition)) {
        let count = i64::from_be_bytes(record.value.try_into().expect("8 bytes"));
        counts.entry(record.key.expect("a word")).or_default().push(count);
    }
    assert_eq!(counts.len(), 11);
    assert_eq!(counts["to"], [1, 2, 3]);
    assert_eq!(counts["be"], [1, 2, 3]);
    assert_eq!(counts["question"], [1]);
}
