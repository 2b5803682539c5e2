use super::*;
use crate::log::embedded::broker::BrokerError;
use crate::log::embedded::offsets::{CommitOffsets, FetchOffsets};
use crate::log::{CommittedOffset, LogError};

fn joined(world: &World) -> TestMember {
    let mut member = world.member(None);
    member.serve_all();
    member
}

fn with_metadata(group: GroupMetadata, metadata: &str) -> Commit {
    let mut commit = commit_of(group, &[("t", 1)]);
    commit.offsets[0].metadata = metadata.to_owned();
    commit
}

fn is_timed_out<T>(answer: &LogResult<T>) -> bool {
    matches!(answer, Err(LogError::TimedOut { .. }))
}

#[test]
fn offsets_and_their_metadata_count_from_the_commit_on() {
    let world = World::with_topic();
    let member = joined(&world);
    let mut producer = world.producer(Some("id"));
    assert_eq!(world.committed("t").unwrap(), None);
    producer.begin().unwrap();
    send(&mut *producer, "a");
    commit(&mut *producer, with_metadata(member.metadata(), "{\"epoch\":1}")).unwrap();
    let committed = world.log.admin().committed(GROUP, &t([0]), ANY).unwrap();
    let expected = CommittedOffset {
        offset: 1,
        metadata: "{\"epoch\":1}".to_owned(),
    };
    assert_eq!(committed, [Some(expected)]);
}

#[test]
fn an_aborted_transaction_leaves_the_former_offset_and_metadata() {
    let world = World::with_topic();
    let member = joined(&world);
    let mut producer = world.producer(Some("id"));
    producer.begin().unwrap();
    commit(&mut *producer, with_metadata(member.metadata(), &"x".repeat(512))).unwrap();
    producer.begin().unwrap();
    let outcome = commit(&mut *producer, with_metadata(member.metadata(), &"x".repeat(513)));
    assert!(matches!(outcome, Err(LogError::Abort { .. })));
    producer.abort(ANY).unwrap();
    let committed = world.log.admin().committed(GROUP, &t([0]), ANY).unwrap();
    assert_eq!(committed[0].as_ref().map(|c| c.metadata.len()), Some(512));
}

fn offsets_of(partitions: std::ops::Range<i32>, metadata_bytes: usize) -> Vec<CommitOffset> {
    let offset = |partition| CommitOffset {
        partition,
        offset: 1,
        metadata: "x".repeat(metadata_bytes),
    };
    t(partitions).into_iter().map(offset).collect()
}

#[test]
fn the_broker_refuses_longer_metadata_and_more_offsets_at_once_than_one_batch_takes() {
    let world = World::new();
    world.create("t", 500, &[]);
    let member = joined(&world);
    let call = |offsets: Vec<CommitOffset>| {
        let group = member.metadata();
        world.log.link.call(CommitOffsets { group, offsets })
    };
    assert_eq!(call(offsets_of(0..1, 4096)), Ok(()));
    assert_eq!(call(offsets_of(0..1, 4097)), Err(BrokerError::OffsetMetadataTooLarge));
    assert_eq!(call(offsets_of(0..240, 4000)), Ok(()));
    assert_eq!(call(offsets_of(0..500, 4000)), Err(BrokerError::OffsetsTooLarge));
}

#[test]
fn more_offsets_than_one_batch_takes_commit_together_all_the_same() {
    const PARTITIONS: i32 = 3_000;
    let world = World::new();
    world.create("t", PARTITIONS, &[]);
    let member = joined(&world);
    let mut producer = world.producer(Some("id"));
    producer.begin().unwrap();
    let mut many = commit_of(member.metadata(), &[]);
    many.offsets = offsets_of(0..PARTITIONS, 512);
    commit(&mut *producer, many).unwrap();
    let committed = world.log.admin().committed(GROUP, &t(0..PARTITIONS), ANY).unwrap();
    assert!(committed.iter().all(Option::is_some));
}

#[test]
fn one_pending_offset_fails_the_whole_request() {
    let world = World::new();
    world.create("t", 2, &[]);
    let pending = PendingOffsets::write(&world.log, "id", 5);
    let admin = world.log.admin();
    assert!(is_timed_out(&admin.committed(GROUP, &t([0, 1]), ANY)));
    assert!(is_timed_out(&admin.committed(GROUP, &t([0]), ANY)));
    // Other partitions are not held up, nor is who does not require stability.
    assert_eq!(admin.committed(GROUP, &t([1]), ANY).unwrap(), [None]);
    let unstable = world.log.link.call(FetchOffsets {
        group: GROUP.to_owned(),
        partitions: t([0]),
        require_stable: false,
    });
    assert_eq!(unstable.unwrap(), [None]);
    pending.end(Ending::Commit);
    assert_eq!(world.committed("t").unwrap(), Some(5));
}

#[test]
fn a_successor_ends_the_pending_transaction_and_the_offsets_are_readable() {
    let world = World::with_topic();
    PendingOffsets::write(&world.log, "id", 5);
    assert!(is_timed_out(&world.committed("t")));
    world.producer(Some("id"));
    assert_eq!(world.committed("t").unwrap(), None);
}

#[test]
fn the_clock_ends_a_pending_transaction_too() {
    let world = World::with_topic();
    PendingOffsets::write(&world.log, "id", 5);
    world.clock.advance(Duration::from_secs(59));
    assert!(is_timed_out(&world.committed("t")));
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.committed("t").unwrap(), None);
}

#[test]
fn of_two_pending_offsets_the_later_written_one_wins() {
    let world = World::with_topic();
    let first = PendingOffsets::write(&world.log, "first", 1);
    let second = PendingOffsets::write(&world.log, "second", 2);
    second.end(Ending::Commit);
    assert!(is_timed_out(&world.committed("t")));
    first.end(Ending::Commit);
    assert_eq!(world.committed("t").unwrap(), Some(2));
}

#[test]
fn metadata_that_nobody_fences_is_accepted_by_the_broker_and_refused_by_the_adapter() {
    let world = World::with_topic();
    let member = joined(&world);
    let mut without_member = member.metadata();
    without_member.member_id.clear();
    for metadata in [nobody(), without_member] {
        let mut producer = world.producer(Some("id"));
        producer.begin().unwrap();
        let outcome = commit(&mut *producer, commit_of(metadata, &[("t", 3)]));
        assert!(matches!(outcome, Err(LogError::NotAMember { .. })), "{outcome:?}");
        producer.abort(ANY).unwrap();
    }
    assert_eq!(world.committed("t").unwrap(), None);
    PendingOffsets::write(&world.log, "id", 4).end(Ending::Commit);
    assert_eq!(world.committed("t").unwrap(), Some(4));
}

#[test]
fn a_stranger_commits_outside_of_a_transaction_only_for_a_group_without_members() {
    let world = World::with_topic();
    let commit = |offset| {
        let commit = commit_of(nobody(), &[("t", offset)]);
        world.log.link.call(CommitOffsets {
            group: commit.group,
            offsets: commit.offsets,
        })
    };
    commit(1).unwrap();
    let _member = joined(&world);
    commit(2).unwrap_err();
    assert_eq!(world.committed("t").unwrap(), Some(1));
}

#[test]
fn offsets_without_a_transaction_are_fenced_by_the_group_as_well() {
    let world = World::with_topic();
    let member = joined(&world);
    let mut producer = world.producer(None);
    producer.begin().unwrap();
    commit(&mut *producer, commit_of(member.metadata(), &[("t", 3)])).unwrap();
    assert_eq!(world.committed("t").unwrap(), Some(3));
    let mut stale = member.metadata();
    stale.generation -= 1;
    producer.begin().unwrap();
    let outcome = commit(&mut *producer, commit_of(stale, &[("t", 4)]));
    assert!(matches!(outcome, Err(LogError::IllegalGeneration { .. })));
    producer.abort(ANY).unwrap();
    assert_eq!(world.committed("t").unwrap(), Some(3));
}

#[test]
fn groups_do_not_share_offsets() {
    let world = World::with_topic();
    PendingOffsets::write(&world.log, "id", 5).end(Ending::Commit);
    let other = world.log.admin().committed("other", &t([0]), ANY).unwrap();
    assert_eq!(other, [None]);
}
