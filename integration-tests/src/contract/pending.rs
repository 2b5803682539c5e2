//! Transactions that nobody ends in time, and offsets that wait for the end of theirs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::ids::TopicPartition;
use tidegate::log::{CommitOffset, Isolation, LogError};

use crate::broker::unique;
use crate::drive::*;
use crate::halfway::{Halfway, Halves};

/// Longer than any case takes.
const LONG: Duration = Duration::from_secs(300);
/// A limit that a transaction reaches while a case waits.
const SHORT: Duration = Duration::from_secs(2);
/// How long a request may take that is not held up by anything.
const UNDISTURBED: Duration = Duration::from_secs(30);

fn offset(partition: &TopicPartition, offset: i64, metadata: &str) -> CommitOffset {
    CommitOffset {
        partition: partition.clone(),
        offset,
        metadata: metadata.to_owned(),
    }
}

/// A group with a member that owns a topic of two partitions.
struct Group {
    name: String,
    member: Member,
    partitions: [TopicPartition; 2],
}

impl Group {
    fn new(halves: &Halves) -> Self {
        let (topic, name) = (unique("input"), unique("group"));
        create(&*halves.log, &topic, 2, &[]);
        let member = sole_member(&*halves.log, &name, &topic, 2);
        let partitions = [0, 1].map(|partition| TopicPartition::new(topic.as_str(), partition));
        Self {
            name,
            member,
            partitions,
        }
    }

    fn pending(&mut self, halves: &Halves, id: &str, offset: CommitOffset) -> Box<dyn Halfway> {
        (halves.leave_halfway)(id, self.member.metadata(), offset)
    }

    /// Commits one offset in a transaction of its own.
    fn commit(&mut self, halves: &Halves, offset: i64, metadata: &str) {
        let topic = self.partitions[0].topic.clone();
        let mut producer = producer(&*halves.log, Some(&unique("id")), &[&topic]);
        producer.begin().expect("a transaction");
        let commit = commit_of(
            self.member.metadata(),
            &[(self.partitions[0].clone(), offset, metadata)],
        );
        finish(&mut *producer, commit).expect("the transaction commits");
    }

    fn committed(&self, halves: &Halves) -> Option<(i64, String)> {
        committed(&*halves.log, &self.name, &self.partitions[0])
    }

    /// Ends the member's stay.
    fn leave(self) {
        self.member.leave();
    }
}

/// One pending partition fails the whole request, after its whole time; others are not disturbed.
pub fn a_pending_offset_holds_up_its_partition_and_nothing_else(halves: &dyn Fn(Duration) -> Halves) {
    const WAIT: Duration = Duration::from_millis(700);
    let halves = halves(LONG);
    let mut group = Group::new(&halves);
    group.commit(&halves, 1, "before");
    let waiting = offset(&group.partitions[0], 2, "after");
    let pending = group.pending(&halves, &unique("id"), waiting);
    let admin = halves.log.admin();

    let start = Instant::now();
    let held = admin.committed(&group.name, &group.partitions, WAIT);
    assert!(matches!(held, Err(LogError::TimedOut { .. })), "{held:?}");
    assert!(start.elapsed() >= WAIT);

    let other = admin.committed(&group.name, &group.partitions[1..], UNDISTURBED);
    assert_eq!(other.expect("another partition answers"), [None]);
    let stranger = admin.committed(&unique("group"), &group.partitions, UNDISTURBED);
    assert_eq!(stranger.expect("another group answers"), [None, None]);

    pending.commit();
    assert_eq!(group.committed(&halves), Some((2, "after".to_owned())));
    group.leave();
}

/// Who waits for the end gets the answer of that end.
pub fn whoever_waits_for_a_pending_offset_gets_what_its_end_decides(halves: &dyn Fn(Duration) -> Halves) {
    let halves = halves(LONG);
    let mut group = Group::new(&halves);
    group.commit(&halves, 1, "naïve ✓");
    for (commits, expected) in [(false, (1, "naïve ✓")), (true, (2, "größer · 漢字"))] {
        let id = unique("id");
        let waiting = offset(&group.partitions[0], 2, "größer · 漢字");
        let pending = group.pending(&halves, &id, waiting);
        let answer = std::thread::scope(|scope| {
            let (log, name, partition) = (Arc::clone(&halves.log), group.name.clone(), group.partitions[0].clone());
            let reader = scope.spawn(move || committed(&*log, &name, &partition));
            match commits {
                true => pending.commit(),
                // A producer that vanished; its id is initialised again.
                false => drop((pending, producer(&*halves.log, Some(&id), &[]))),
            }
            reader.join().expect("the reader ends")
        });
        assert_eq!(answer, Some((expected.0, expected.1.to_owned())));
    }
    group.leave();
}

/// Not the later commit wins, but what was written later.
pub fn of_two_pending_offsets_the_later_written_wins(halves: &dyn Fn(Duration) -> Halves) {
    let halves = halves(LONG);
    let mut group = Group::new(&halves);
    let first = offset(&group.partitions[0], 10, "first");
    let first = group.pending(&halves, &unique("id"), first);
    let second = offset(&group.partitions[0], 5, "second");
    let second = group.pending(&halves, &unique("id"), second);
    second.commit();
    let held = halves
        .log
        .admin()
        .committed(&group.name, &group.partitions[..1], Duration::from_millis(300));
    assert!(
        matches!(held, Err(LogError::TimedOut { .. })),
        "the first one is pending: {held:?}"
    );
    first.commit();
    assert_eq!(group.committed(&halves), Some((5, "second".to_owned())));
    group.leave();
}

/// A plain commit in between counts until the transaction ends, if it was written later.
pub fn the_end_of_a_transaction_does_not_undo_what_was_written_after_it(halves: &dyn Fn(Duration) -> Halves) {
    let halves = halves(LONG);
    let mut group = Group::new(&halves);
    let early = offset(&group.partitions[0], 7, "pending");
    let pending = group.pending(&halves, &unique("id"), early);
    let topic = group.partitions[0].topic.clone();
    let mut plain = producer(&*halves.log, None, &[&topic]);
    plain.begin().expect("an epoch");
    let commit = commit_of(group.member.metadata(), &[(group.partitions[0].clone(), 3, "plain")]);
    finish(&mut *plain, commit).expect("the member commits");
    pending.commit();
    assert_eq!(group.committed(&halves), Some((3, "plain".to_owned())));
    group.leave();
}

/// Neither success nor failure; what is read behind the initialisation of a successor is the truth, and stays it.
pub fn a_commit_that_is_given_up_may_be_carried_out_and_initialising_its_id_settles_it(
    halves: &dyn Fn(Duration) -> Halves,
) {
    let halves = halves(LONG);
    let mut group = Group::new(&halves);
    group.commit(&halves, 1, "before");
    let id = unique("id");
    let late = offset(&group.partitions[0], 2, "after");
    group.pending(&halves, &id, late).give_up();
    drop(producer(&*halves.log, Some(&id), &[]));
    let settled = group.committed(&halves).expect("an offset is committed");
    assert!(
        [(1, "before".to_owned()), (2, "after".to_owned())].contains(&settled),
        "{settled:?}"
    );
    for _ in 0..3 {
        assert_eq!(
            group.committed(&halves).as_ref(),
            Some(&settled),
            "it does not change any more"
        );
    }
    group.leave();
}

/// The broker ends a transaction that is open for too long, and fences its producer.
pub fn a_transaction_that_times_out_is_aborted_and_its_producer_fenced(halves: &dyn Fn(Duration) -> Halves) {
    let halves = halves(SHORT);
    let log = &*halves.log;
    let topic = unique("late");
    create(log, &topic, 1, &[]);
    let mut late = producer(log, Some(&unique("id")), &[&topic]);
    late.begin().expect("a transaction");
    send(&mut *late, 0, "late");
    wait_for("the record is written", || high(log, &topic, 0) == 1);
    // Nobody else touches the log: its clock alone ends the transaction.
    let mut consumer = reader(log, &topic, 0, 0, Isolation::ReadCommitted);
    assert_eq!(
        read_until(&mut *consumer, 2),
        [],
        "the marker of the end, and no record"
    );
    let refused = finish(&mut *late, commit_of(no_group(), &[]));
    assert!(matches!(refused, Err(LogError::Fenced { .. })), "{refused:?}");
    let again = late.begin();
    assert!(again.is_err(), "it stays dead");
}

/// Offsets of a transaction that times out never count.
pub fn offsets_of_a_transaction_that_times_out_are_not_committed(halves: &dyn Fn(Duration) -> Halves) {
    let halves = halves(SHORT);
    let mut group = Group::new(&halves);
    group.commit(&halves, 1, "before");
    let late = offset(&group.partitions[0], 9, "late");
    let pending = group.pending(&halves, &unique("id"), late);
    assert_eq!(group.committed(&halves), Some((1, "before".to_owned())));
    pending.is_fenced();
    assert_eq!(group.committed(&halves), Some((1, "before".to_owned())));
    group.leave();
}

/// Trimming within an open transaction that is aborted afterwards.
pub fn a_trimmed_transaction_can_be_aborted(halves: &dyn Fn(Duration) -> Halves) {
    let halves = halves(LONG);
    let log = &*halves.log;
    let topic = unique("trim");
    create(log, &topic, 1, &[("cleanup.policy", "compact,delete")]);
    let mut open = producer(log, Some(&unique("id")), &[&topic]);
    open.begin().expect("a transaction");
    for value in ["a", "b", "c"] {
        send(&mut *open, 0, value);
    }
    wait_for("the records are written", || high(log, &topic, 0) == 3);
    let partition = TopicPartition::new(topic.as_str(), 0);
    log.admin()
        .delete_records(&[(partition, 2)], PATIENCE)
        .expect("the broker is no guard here");
    let mut uncommitted = reader(log, &topic, 0, 2, Isolation::ReadUncommitted);
    assert_eq!(read_until(&mut *uncommitted, 3).len(), 1);
    open.abort(PATIENCE).expect("the transaction can be aborted");
    wait_for("the marker is written", || high(log, &topic, 0) == 4);
    write(log, &topic, &["d"]);
    let mut consumer = reader(log, &topic, 0, 2, Isolation::ReadCommitted);
    let read = read_until(&mut *consumer, 6);
    assert_eq!(read.iter().map(Read::text).collect::<Vec<_>>(), ["d"]);
}
