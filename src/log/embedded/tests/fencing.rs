use super::*;
use crate::log::LogError;

fn is_fenced(answer: &LogResult<()>) -> bool {
    matches!(answer, Err(LogError::Fenced { transactional_id, .. }) if transactional_id == "id")
}

/// A producer with an open transaction that holds one record, and its successor of the same id.
fn zombie_and_successor(world: &World) -> (Box<dyn Producer>, Box<dyn Producer>) {
    let mut zombie = world.producer(Some("id"));
    zombie.begin().unwrap();
    send(&mut *zombie, "zombie");
    let successor = world.producer(Some("id"));
    (zombie, successor)
}

#[test]
fn a_successor_aborts_the_open_transaction_of_its_predecessor() {
    let world = World::with_topic();
    let (_zombie, mut successor) = zombie_and_successor(&world);
    assert_eq!(world.watermarks("t").high, 2);
    produce(&mut *successor, &["successor"]);
    assert_eq!(world.committed_values(), ["successor"]);
}

#[test]
fn a_zombie_is_fenced_at_its_first_contact_whatever_it_does() {
    let contacts: [fn(&mut dyn Producer) -> LogResult<()>; 4] = [
        |zombie| send_to(zombie, OutTopic(0), 0, "more"),
        |zombie| zombie.abort(ANY),
        |zombie| commit(zombie, commit_of(nobody(), &[])),
        |zombie| {
            let mut with_increment = commit_of(nobody(), &[]);
            with_increment.batches = vec![increment(&[("a", Some("1"))])];
            commit(zombie, with_increment)
        },
    ];
    for contact in contacts {
        let world = World::with_topic();
        let (mut zombie, mut successor) = zombie_and_successor(&world);
        successor.begin().unwrap();
        send(&mut *successor, "successor");
        assert!(is_fenced(&contact(&mut *zombie)));
        // It is dead: every further call says the same.
        assert!(is_fenced(&zombie.begin()));
        assert!(is_fenced(&zombie.abort(ANY)));
        assert!(is_fenced(&zombie.start_commit(commit_of(nobody(), &[]))));
        commit(&mut *successor, commit_of(nobody(), &[])).unwrap();
        assert_eq!(world.committed_values(), ["successor"]);
    }
}

#[test]
fn a_zombie_that_has_nothing_to_say_does_not_notice() {
    let world = World::with_topic();
    let mut zombie = world.producer(Some("id"));
    let _successor = world.producer(Some("id"));
    zombie.begin().unwrap();
    commit(&mut *zombie, commit_of(nobody(), &[])).unwrap();
    zombie.begin().unwrap();
    assert!(is_fenced(&send_to(&mut *zombie, OutTopic(0), 0, "zombie")));
}

#[test]
fn a_zombie_cannot_commit_offsets() {
    let world = World::with_topic();
    let mut member = world.member(None);
    member.serve_all();
    let mut zombie = world.producer(Some("id"));
    zombie.begin().unwrap();
    let _successor = world.producer(Some("id"));
    let outcome = commit(&mut *zombie, commit_of(member.metadata(), &[("t", 5)]));
    assert!(is_fenced(&outcome));
    assert_eq!(world.committed("t").unwrap(), None);
}

#[test]
fn a_transaction_that_is_open_for_too_long_is_aborted_and_looks_like_fencing() {
    let world = World::with_topic();
    let mut slow = world.producer(Some("id"));
    slow.begin().unwrap();
    // The time runs from the first record, not from begin.
    world.clock.advance(Duration::from_secs(59));
    send(&mut *slow, "a");
    world.clock.advance(Duration::from_secs(59));
    send(&mut *slow, "b");
    world.clock.advance(Duration::from_secs(1));
    assert!(is_fenced(&commit(&mut *slow, commit_of(nobody(), &[]))));
    assert_eq!(world.committed_values(), [""; 0]);
    let mut successor = world.producer(Some("id"));
    produce(&mut *successor, &["c"]);
    assert_eq!(world.committed_values(), ["c"]);
}

#[test]
fn transactional_ids_do_not_disturb_each_other() {
    let world = World::with_topic();
    let mut one = world.producer(Some("one"));
    one.begin().unwrap();
    send(&mut *one, "one");
    let mut other = world.producer(Some("other"));
    produce(&mut *other, &["other"]);
    commit(&mut *one, commit_of(nobody(), &[])).unwrap();
    assert_eq!(world.committed_values(), ["one", "other"]);
}
