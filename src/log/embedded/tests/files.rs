//! A log in a directory: what is there after an end of any kind.
//!
//! A copy of the directory of an open log holds just what the operating system was given so far: what a process that is
//! killed at that moment leaves behind.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::log::embedded::DirectoryError;
use crate::log::{CommittedOffset, LogError};
use crate::record::Header;

const SETTINGS: EmbeddedSettings = EmbeddedSettings {
    transaction_timeout: Duration::from_secs(60),
    waits: Waits::Never,
};

fn open(dir: &Path, clock: &Arc<ManualClock>) -> Result<Arc<EmbeddedLog>, DirectoryError> {
    EmbeddedLog::open(dir, Arc::clone(clock) as Arc<dyn Clock>, SETTINGS)
}

/// The log in `dir`, opened.
fn world(dir: &Path) -> World {
    let clock = Arc::new(ManualClock::default());
    let log = open(dir, &clock).unwrap();
    World { log, clock }
}

/// What a process that is killed now leaves of the log in `dir`.
pub(super) fn killed(dir: &Path) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => copy(&entry.path(), &to),
                false => drop(fs::copy(entry.path(), to).unwrap()),
            }
        }
    }
    let left = tempfile::tempdir().unwrap();
    copy(dir, left.path());
    left
}

fn committed_of(log: &EmbeddedLog, group: &str, partition: &TopicPartition) -> Option<CommittedOffset> {
    let committed = log.admin().committed(group, std::slice::from_ref(partition), ANY);
    committed.unwrap().remove(0)
}

fn commit_offset(log: &EmbeddedLog, offset: i64) {
    PendingOffsets::write_more(log, "offsets", offset).end(Ending::Commit);
}

impl PendingOffsets {
    /// As [`PendingOffsets::write`], for a log that is only borrowed.
    fn write_more(log: &EmbeddedLog, transactional_id: &str, offset: i64) -> Self {
        Self::write(&Arc::new(log.clone()), transactional_id, offset)
    }
}

/// All records of partition 0 with everything about them.
fn records(
    world: &World,
    topic: &str,
    isolation: Isolation,
) -> Vec<(i64, Millis, Option<Vec<u8>>, Option<Vec<u8>>, Headers)> {
    let mut consumer = world.consumer(isolation, topic, world.watermarks(topic).low);
    let mut all = Vec::new();
    while let Some(batch) = consumer.poll(7, ANY).unwrap() {
        for index in 0..batch.runs()[0].end {
            let record = batch.record(index);
            let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
            all.push((record.offset, record.timestamp_ms, key, value, batch.headers(index)));
        }
    }
    all
}

/// Files of records in a directory.
fn partition_files(dir: &Path) -> Vec<PathBuf> {
    let topics = fs::read_dir(dir.join("topics")).unwrap();
    let partitions = topics.flat_map(|topic| fs::read_dir(topic.unwrap().path()).unwrap());
    partitions.map(|partition| partition.unwrap().path()).collect()
}

#[test]
fn everything_is_there_again_after_a_clean_end_and_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let world_before = world(dir.path());
    world_before.create("gone", 3, &[]);
    world_before.create(
        "t",
        2,
        &[("cleanup.policy", "compact,delete"), ("max.message.bytes", "5000")],
    );
    world_before.log.admin().delete_topic("gone", ANY).unwrap();
    let mut headers = Headers::default();
    headers.push("name", Some(b"value".to_vec()));
    headers.push("", None);
    let mut plain = world_before.producer(None);
    for (key, value) in [(&b"k"[..], Some(&b""[..])), (b"", None), (b"\xff", Some(b"\x00\x01"))] {
        let record = OutRecord {
            topic: OutTopic(0),
            partition: 0,
            key: Some(key),
            value,
            timestamp_ms: -1,
            headers: &headers,
        };
        plain.send(&record).unwrap();
    }
    let mut transactional = world_before.producer(Some("id"));
    produce(&mut *transactional, &["a", "b"]);
    transactional.begin().unwrap();
    send(&mut *transactional, "regretted");
    transactional.abort(ANY).unwrap();
    produce(&mut *transactional, &["c"]);
    commit_offset(&world_before.log, 42);
    world_before
        .log
        .admin()
        .delete_records(&[(t([0])[0].clone(), 1)], ANY)
        .unwrap();
    let seen = |world: &World| {
        (
            world.watermarks("t"),
            records(world, "t", Isolation::ReadCommitted),
            records(world, "t", Isolation::ReadUncommitted),
            committed_of(&world.log, GROUP, &t([0])[0]),
            world.log.admin().topic("t", ANY).unwrap(),
            world.log.admin().topic("gone", ANY).unwrap(),
        )
    };
    let before = seen(&world_before);
    assert_eq!(before.1.len(), 5);
    assert_eq!(before.3.as_ref().map(|committed| committed.offset), Some(42));
    let killed = killed(dir.path());
    drop((plain, transactional, world_before));
    let Header { name, value } = &before.1[0].4.as_slice()[0];
    assert_eq!((&**name, value.as_deref()), ("name", Some(&b"value"[..])));
    for dir in [killed.path(), dir.path()] {
        // The second opening reads what the first one wrote.
        for _ in 0..2 {
            assert_eq!(seen(&world(dir)), before);
        }
    }
}

#[test]
fn an_open_transaction_is_aborted_and_its_producer_stays_fenced() {
    let dir = tempfile::tempdir().unwrap();
    let before = world(dir.path());
    before.create("t", 1, &[]);
    commit_offset(&before.log, 1);
    let mut producer = before.producer(Some("id"));
    producer.begin().unwrap();
    send(&mut *producer, "lost");
    let plain = before.producer(None);
    send(&mut *{ plain }, "kept");
    let _pending = PendingOffsets::write(&before.log, "pending", 9);
    let killed = killed(dir.path());
    let after = world(killed.path());
    assert_eq!(after.committed_values(), ["kept"]);
    assert_eq!(after.watermarks("t").high, 3, "the marker of the abort");
    assert_eq!(after.committed("t").unwrap(), Some(1));
    let mut successor = after.producer(Some("id"));
    produce(&mut *successor, &["next"]);
    assert_eq!(after.committed_values(), ["kept", "next"]);
}

#[test]
fn epochs_go_on_where_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let identity = |log: &EmbeddedLog| {
        let init = InitProducer {
            transactional_id: "id".to_owned(),
            timeout: ANY,
        };
        format!("{:?}", log.link.call(init).unwrap())
    };
    let first = identity(&world(dir.path()).log);
    let second = identity(&world(dir.path()).log);
    assert!(
        first.contains("epoch: 0") && second.contains("epoch: 1"),
        "{first} {second}"
    );
}

/// A kill after any step of any transaction leaves all of it or nothing: records in two partitions, and the offset.
#[test]
fn a_transaction_that_is_killed_at_any_step_is_there_wholly_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let before = world(dir.path());
    before.create("t", 2, &[]);
    let mut member = before.member(None);
    member.serve_all();
    let mut producer = before.producer(Some("id"));
    let mut committed = 0;
    for round in 1..=4 {
        producer.begin().unwrap();
        for partition in [0, 1] {
            send_to(&mut *producer, OutTopic(0), partition, &round.to_string()).unwrap();
        }
        producer
            .start_commit(commit_of(member.metadata(), &[("t", round)]))
            .unwrap();
        let mut steps = 0;
        loop {
            let left = killed(dir.path());
            let after = world(left.path());
            let values = |partition| {
                let mut consumer = after.log.consumer("test", Isolation::ReadCommitted).unwrap();
                consumer.assign(&[assignment(0, "t", partition, 0)]).unwrap();
                let batch = consumer.poll(100, ANY).unwrap();
                batch.map_or(0, |batch| values_of(&*batch).len() as i64)
            };
            let offset = after.committed("t").unwrap().unwrap_or(0);
            assert_eq!(
                [values(0), values(1), offset],
                [committed; 3],
                "round {round}, step {steps}"
            );
            if committed == round {
                break;
            }
            steps += 1;
            if producer.poll_commit(Duration::ZERO).is_some() {
                committed = round;
            }
        }
        assert_eq!(steps, 3);
    }
}

#[test]
fn markers_that_were_not_written_any_more_come_back_at_their_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let before = world(dir.path());
    before.create("t", 1, &[]);
    let mut producers: Vec<_> = (0..3).map(|id| before.producer(Some(&format!("id-{id}")))).collect();
    for producer in &mut producers {
        producer.begin().unwrap();
        send(&mut **producer, "value");
    }
    for (number, producer) in producers.iter_mut().enumerate().rev() {
        match number {
            1 => producer.abort(ANY).unwrap(),
            _ => commit(&mut **producer, commit_of(nobody(), &[])).unwrap(),
        }
    }
    let killed = killed(dir.path());
    let after = world(killed.path());
    for isolation in [Isolation::ReadCommitted, Isolation::ReadUncommitted] {
        assert_eq!(records(&after, "t", isolation), records(&before, "t", isolation));
    }
    assert_eq!(after.watermarks("t"), before.watermarks("t"));
}

#[test]
fn a_torn_tail_is_cut_off_wherever_it_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    let before = world(dir.path());
    before.create("t", 1, &[]);
    let mut producer = before.producer(None);
    let mut ends = Vec::new();
    let file = |dir: &Path| partition_files(dir).remove(0);
    for value in ["one", "two", "three"] {
        send(&mut *producer, value);
        ends.push(fs::metadata(file(dir.path())).unwrap().len());
    }
    for length in 0..=ends[2] {
        let left = killed(dir.path());
        let torn = file(left.path());
        fs::File::options()
            .write(true)
            .open(&torn)
            .unwrap()
            .set_len(length)
            .unwrap();
        let after = world(left.path());
        let whole = ends.iter().filter(|end| **end <= length).count();
        assert_eq!(
            after.committed_values(),
            ["one", "two", "three"][..whole],
            "torn at {length}"
        );
        send(&mut *after.producer(None), "more");
        drop(after);
        assert_eq!(
            world(left.path()).committed_values().len(),
            whole + 1,
            "it goes on behind the cut"
        );
    }
}

#[test]
fn any_other_damage_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let before = world(dir.path());
    before.create("t", 1, &[]);
    produce(&mut *before.producer(Some("id")), &["one", "two"]);
    commit_offset(&before.log, 1);
    drop(before);
    let clock = Arc::new(ManualClock::default());
    for file in [partition_files(dir.path()).remove(0), dir.path().join("journal")] {
        let whole = fs::read(&file).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            fs::write(&file, damaged).unwrap();
            match open(dir.path(), &clock) {
                Err(DirectoryError::Damaged {
                    file: named, offset, ..
                }) => {
                    assert_eq!(named, file);
                    assert!(offset <= at as u64, "{offset} is before the damage at {at}");
                }
                Err(DirectoryError::Version { .. }) => assert!((12..16).contains(&at), "{at}"),
                other => panic!("byte {at} of {}: {:?}", file.display(), other.err()),
            }
        }
        fs::write(&file, whole).unwrap();
    }
    assert_eq!(world(dir.path()).committed_values(), ["one", "two"]);
}

#[test]
fn a_second_opening_is_refused_until_the_first_ends() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::default());
    let first = open(dir.path(), &clock).unwrap();
    assert!(matches!(open(dir.path(), &clock), Err(DirectoryError::InUse { .. })));
    drop(first);
    open(dir.path(), &clock).unwrap();
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "…").unwrap();
    let refused = open(dir.path(), &Arc::new(ManualClock::default()));
    assert!(matches!(&refused, Err(DirectoryError::Foreign { found, .. }) if found == "thesis.tex"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was made there");
}

#[test]
fn what_was_compacted_does_not_fill_the_disk_and_what_was_deleted_does_not_come_back() {
    const COMPACT: [(&str, &str); 3] = [
        ("cleanup.policy", "compact,delete"),
        ("segment.bytes", "1048576"),
        ("min.cleanable.dirty.ratio", "0"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let before = world(dir.path());
    before.create("t", 1, &COMPACT);
    let mut producer = before.producer(Some("id"));
    let large = "x".repeat(100_000);
    for round in 0..200 {
        produce(&mut *producer, &[&format!("{round}{large}")]);
        before.clock.advance(Duration::from_millis(300));
        before.watermarks("t");
    }
    let bytes = fs::metadata(&partition_files(dir.path())[0]).unwrap().len();
    assert!(bytes < 6_000_000, "{bytes} bytes for a key");
    let killed = killed(dir.path());
    let after = world(killed.path());
    assert_eq!(after.watermarks("t"), before.watermarks("t"));
    let last = records(&after, "t", Isolation::ReadCommitted).pop();
    assert!(last == records(&before, "t", Isolation::ReadCommitted).pop());
    produce(&mut *after.producer(Some("id")), &[&large]);
    after.clock.advance(Duration::from_secs(1));
    for _ in 0..100 {
        after.watermarks("t");
    }
    let left = records(&after, "t", Isolation::ReadCommitted).len();
    assert!(left < 20, "{left} records of one key are left");
    let end = after.watermarks("t").high;
    let everything = [(t([0])[0].clone(), end)];
    after.log.admin().delete_records(&everything, ANY).unwrap();
    drop(after);
    let again = world(killed.path());
    assert_eq!(again.watermarks("t"), Watermarks { low: end, high: end });
    assert_eq!(records(&again, "t", Isolation::ReadUncommitted).len(), 0);
}

#[test]
fn after_a_write_that_fails_nothing_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path());
    world.create("t", 1, &[]);
    // Where the partition's file should be there is a directory.
    fs::create_dir_all(dir.path().join("topics/0/0")).unwrap();
    let mut producer = world.producer(None);
    let refused = send_to(&mut *producer, OutTopic(0), 0, "value");
    assert!(matches!(refused, Err(LogError::Fatal { .. })), "{refused:?}");
    let answer = world.log.admin().watermarks(&t([0])[0], ANY);
    assert!(matches!(answer, Err(LogError::Refused { .. })), "{answer:?}");
}

#[test]
fn the_journal_is_made_anew_before_it_is_long_and_loses_nothing_that_is_pending() {
    let dir = tempfile::tempdir().unwrap();
    let before = world(dir.path());
    before.create("t", 1, &[]);
    let mut producer = before.producer(Some("id"));
    produce(&mut *producer, &["value"]);
    let pending = PendingOffsets::write(&before.log, "pending", 9);
    let journal = || fs::metadata(dir.path().join("journal")).unwrap().len();
    let (mut longest, mut offset) = (0, 0);
    while journal() >= longest {
        longest = journal();
        offset += 1;
        assert!(offset < 1_000_000, "it never gets shorter");
        let other = CommitOffset {
            partition: TopicPartition::new("other", 0),
            offset,
            metadata: "m".repeat(4_000),
        };
        let commit = crate::log::embedded::offsets::CommitOffsets {
            group: nobody(),
            offsets: vec![other],
        };
        before.log.link.call(commit).unwrap();
    }
    assert!(journal() < 10_000, "{} bytes", journal());
    let other = TopicPartition::new("other", 0);
    {
        let left = killed(dir.path());
        let after = world(left.path());
        assert_eq!(after.committed("t").unwrap(), None, "the pending one is aborted");
        assert_eq!(committed_of(&after.log, GROUP, &other).unwrap().offset, offset);
    }
    pending.end(Ending::Commit);
    let left = killed(dir.path());
    let after = world(left.path());
    assert_eq!(
        after.committed("t").unwrap(),
        Some(9),
        "it ended after the journal was made anew"
    );
    assert_eq!(after.committed_values(), ["value"]);
}

#[test]
fn the_journal_does_not_grow_with_every_start() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    let mut sizes = Vec::new();
    for _ in 0..3 {
        let world = world(dir.path());
        sizes.push(fs::metadata(&journal).unwrap().len());
        if sizes.len() == 1 {
            world.create("t", 1, &[]);
        }
        for offset in 0..100 {
            commit_offset(&world.log, offset);
        }
    }
    assert!(sizes[2] < sizes[0] + 1_000 && sizes[2] == sizes[1], "{sizes:?}");
}
