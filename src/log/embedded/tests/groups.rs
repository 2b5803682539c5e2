use super::*;
use crate::log::LogError;
use MemberEvent::{Assigned, Lost, Revoked};

fn commit_as(world: &World, metadata: GroupMetadata) -> LogResult<()> {
    let mut producer = world.producer(Some("committer"));
    producer.begin().unwrap();
    let outcome = commit(&mut *producer, commit_of(metadata, &[("t", 1)]));
    if outcome.is_err() {
        producer.abort(ANY).unwrap();
    }
    outcome
}

fn world_with_partitions(partitions: i32) -> World {
    let world = World::new();
    world.create("t", partitions, &[]);
    world
}

#[test]
fn the_first_member_gets_everything() {
    let world = world_with_partitions(3);
    let mut member = world.member(None);
    assert_eq!((member.generation(), &*member.metadata().member_id), (-1, ""));
    assert!(!member.metadata().is_fencing());
    assert_eq!(member.serve(), Some(Assigned(t(0..3))));
    assert_eq!(member.generation(), 1);
    assert!(member.metadata().is_fencing());
    assert_eq!(member.serve(), None);
}

#[test]
fn a_hand_over_takes_two_generations_and_what_stays_is_not_touched() {
    let world = world_with_partitions(4);
    let mut old = world.member(None);
    old.serve_all();
    let mut new = world.member(None);
    // The newcomer's first poll moves the generation; nothing is free yet.
    assert_eq!(new.serve(), Some(Assigned(vec![])));
    assert_eq!(old.poll(), Some(Revoked(t(2..4))));
    assert_eq!(new.serve(), None);
    assert_eq!(new.generation(), 2);
    old.member.complete(&Revoked(t(2..4))).unwrap();
    // The rest of the former generation comes first.
    assert_eq!(old.serve(), Some(Assigned(vec![])));
    assert_eq!(new.serve(), Some(Assigned(t(2..4))));
    assert_eq!(old.serve(), Some(Assigned(vec![])));
    assert_eq!((old.generation(), new.generation()), (3, 3));
    assert_eq!((old.serve(), new.serve()), (None, None));
}

#[test]
fn the_generation_moves_before_the_event_is_served() {
    let world = world_with_partitions(2);
    let mut old = world.member(None);
    old.serve_all();
    let captured = old.metadata();
    let mut new = world.member(None);
    new.serve();
    // Nobody has polled the old member; its view is fresh all the same, and the captured metadata is stale.
    assert_eq!((captured.generation, old.generation()), (1, 2));
    let stale = commit_as(&world, captured);
    assert!(matches!(stale, Err(LogError::IllegalGeneration { .. })), "{stale:?}");
    // While the old member sits on its event, it may commit with the fresh metadata, and the new one gets nothing.
    commit_as(&world, old.metadata()).unwrap();
    assert_eq!(old.poll(), Some(Revoked(t([1]))));
    commit_as(&world, old.metadata()).unwrap();
    assert_eq!(new.serve(), None);
}

#[test]
fn the_group_checks_the_member_and_never_who_owns_the_partition() {
    let world = world_with_partitions(1);
    let mut owner = world.member(None);
    owner.serve_all();
    let mut idle = world.member(None);
    idle.serve_all();
    owner.serve_all();
    commit_as(&world, idle.metadata()).unwrap();
    assert_eq!(world.committed("t").unwrap(), Some(1));
}

#[test]
fn strangers_are_unknown_whatever_generation_they_name() {
    let world = world_with_partitions(1);
    let mut member = world.member(None);
    member.serve_all();
    let mut stranger = member.metadata();
    stranger.member_id = "nobody".to_owned();
    let refused = commit_as(&world, stranger);
    assert!(matches!(refused, Err(LogError::NotAMember { .. })), "{refused:?}");
}

#[test]
fn a_member_with_an_event_in_hand_holds_the_next_rebalance_up() {
    let world = world_with_partitions(3);
    let mut first = world.member(None);
    first.serve_all();
    let mut second = world.member(None);
    second.serve_all();
    let revoked = first.poll().unwrap();
    let mut third = world.member(None);
    assert_eq!(third.poll(), None);
    assert_eq!(third.generation(), -1);
    assert_eq!((first.generation(), second.generation()), (2, 2));
    first.member.complete(&revoked).unwrap();
    first.serve_all();
    assert_eq!(third.generation(), 3);
    // The first keeps one partition, the others gain one each.
    let gained = settle(&mut [first, second, third]);
    assert_eq!(gained.iter().map(Vec::len).collect::<Vec<_>>(), [0, 1, 1]);
}

/// Serves until nobody has an event; answers what the members were told meanwhile to have gained.
fn settle(members: &mut [TestMember]) -> Vec<Vec<TopicPartition>> {
    let mut gained = vec![Vec::new(); members.len()];
    loop {
        let mut quiet = true;
        for (member, gained) in members.iter_mut().zip(&mut gained) {
            while let Some(event) = member.serve() {
                quiet = false;
                match event {
                    Assigned(partitions) => gained.extend(partitions),
                    Revoked(partitions) | Lost(partitions) => gained.retain(|p| !partitions.contains(p)),
                }
            }
        }
        if quiet {
            return gained;
        }
    }
}

#[test]
fn partitions_of_a_member_that_leaves_move_at_once() {
    let world = world_with_partitions(4);
    let mut members = vec![world.member(None), world.member(None)];
    settle(&mut members);
    let generation = members[0].generation();
    let leaving = members.pop().unwrap();
    let (metadata, view) = (leaving.metadata(), leaving.member.view());
    leaving.member.leave();
    assert_eq!(members[0].serve(), Some(Assigned(t(2..4))));
    assert_eq!(members[0].generation(), generation + 1);
    // The generation stays in the view, the member id goes.
    assert_eq!(
        (view.metadata().generation, &*view.metadata().member_id),
        (generation, "")
    );
    let refused = commit_as(&world, metadata);
    assert!(matches!(refused, Err(LogError::NotAMember { .. })));
}

#[test]
fn a_member_that_dies_is_given_up_when_its_session_is_over() {
    let world = world_with_partitions(2);
    let mut members = vec![world.member(None), world.member(None)];
    settle(&mut members);
    drop(members.pop());
    world.clock.advance(Duration::from_secs(5));
    assert_eq!(members[0].serve(), None);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(members[0].serve(), Some(Assigned(t([1]))));
}

#[test]
fn a_member_that_was_given_up_is_told_of_its_loss_and_joins_anew() {
    let world = world_with_partitions(2);
    let mut members = vec![world.member(None), world.member(None)];
    settle(&mut members);
    let former = members[0].metadata();
    world.clock.advance(SESSION - Duration::from_secs(1));
    assert_eq!(members[1].serve(), None);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(members[1].serve(), Some(Assigned(t([0]))));
    // Before it notices, it is refused already.
    let refused = commit_as(&world, former.clone());
    assert!(matches!(refused, Err(LogError::NotAMember { .. })));
    assert!(!members[0].metadata().is_fencing());
    assert_eq!(members[0].poll(), Some(Lost(t([0]))));
    assert_eq!(members[0].poll(), None);
    members[0].member.complete(&Lost(t([0]))).unwrap();
    assert_eq!(members[0].serve(), Some(Assigned(vec![])));
    assert_ne!(members[0].metadata().member_id, former.member_id);
    let gained = settle(&mut members);
    assert_eq!(gained[0].len(), 1);
}

#[test]
fn a_loss_while_an_event_is_worked_on_is_told_after_it() {
    let world = world_with_partitions(2);
    let mut old = world.member(None);
    old.serve_all();
    let mut new = world.member(None);
    new.serve();
    assert_eq!(old.poll(), Some(Revoked(t([1]))));
    world.clock.advance(SESSION);
    assert_eq!(old.poll(), None);
    old.member.complete(&Revoked(t([1]))).unwrap();
    assert_eq!(old.poll(), Some(Lost(t([0]))));
}

#[test]
fn who_polls_without_finishing_an_event_is_removed_in_the_end() {
    let world = world_with_partitions(2);
    let mut stuck = world.member(None);
    stuck.serve_all();
    let mut waiting = world.member(None);
    waiting.serve_all();
    stuck.poll().unwrap();
    // A third member's wish for a rebalance starts the time.
    let _third = world.member(None).poll();
    let step = SESSION - Duration::from_secs(1);
    let mut waited = Duration::ZERO;
    while stuck.metadata().is_fencing() {
        world.clock.advance(step);
        waited += step;
        assert_eq!(stuck.poll(), None);
        waiting.serve_all();
        assert!(waited <= Duration::from_secs(125), "never removed");
    }
    assert!(waited >= Duration::from_secs(120));
    assert_eq!(waiting.generation(), 3);
}

#[test]
fn a_static_member_comes_back_with_its_partitions_in_the_same_generation() {
    let world = world_with_partitions(4);
    let mut one = world.member(Some("one"));
    let mut other = world.member(Some("other"));
    let mut both = [one, other];
    settle(&mut both);
    [one, other] = both;
    let (generation, former) = (one.generation(), one.metadata());
    // Neither a crash nor a leave of a static member is told to the group.
    one.member.leave();
    world.clock.advance(Duration::from_secs(2));
    assert_eq!(other.serve(), None);
    let mut restarted = world.member(Some("one"));
    assert_eq!(restarted.serve(), Some(Assigned(t(0..2))));
    assert_eq!(other.serve(), None);
    assert_eq!((restarted.generation(), other.generation()), (generation, generation));
    assert_ne!(restarted.metadata().member_id, former.member_id);
    // Only the member id fences the former process.
    let refused = commit_as(&world, former);
    assert!(matches!(refused, Err(LogError::NotAMember { .. })));
    commit_as(&world, restarted.metadata()).unwrap();
}

#[test]
fn a_second_process_with_the_same_static_id_kills_the_first() {
    let world = world_with_partitions(1);
    let mut first = world.member(Some("one"));
    first.serve_all();
    let mut second = world.member(Some("one"));
    second.serve_all();
    assert!(!first.metadata().is_fencing());
    for _ in 0..2 {
        assert!(matches!(first.member.poll(ANY), Err(LogError::NotAMember { .. })));
    }
    assert_eq!(second.serve(), None);
    assert_eq!(second.generation(), 1);
}

#[test]
fn a_static_member_that_stays_away_for_too_long_loses_its_partitions() {
    let world = world_with_partitions(2);
    let mut members = vec![world.member(Some("one")), world.member(Some("other"))];
    settle(&mut members);
    members.remove(0).member.leave();
    world.clock.advance(SESSION - Duration::from_secs(1));
    assert_eq!(members[0].serve(), None);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(members[0].serve(), Some(Assigned(t([0]))));
}

#[test]
fn what_was_being_revoked_stays_with_nobody_when_a_static_member_restarts() {
    let world = world_with_partitions(2);
    let mut one = world.member(Some("one"));
    one.serve_all();
    let mut other = world.member(None);
    other.serve_all();
    assert_eq!(one.poll(), Some(Revoked(t([1]))));
    drop(one);
    let mut restarted = world.member(Some("one"));
    assert_eq!(restarted.serve(), Some(Assigned(t([0]))));
    assert_eq!(other.serve(), None);
    let state = world.log.admin().group(GROUP, ANY).unwrap();
    assert!(state.is_stable);
    assert_eq!(state.assigned, t([0]).into_iter().collect());
    // Whoever joins makes the group look at all partitions again.
    world.create("elsewhere", 1, &[]);
    let mut passer_by = world.subscriber(None, &["elsewhere"]);
    let elsewhere = vec![TopicPartition::new("elsewhere", 0)];
    assert_eq!(passer_by.serve(), Some(Assigned(elsewhere)));
    assert_eq!(other.serve(), Some(Assigned(t([1]))));
}

#[test]
fn a_topic_that_appears_is_shared_out() {
    let world = world_with_partitions(1);
    let mut member = world.subscriber(None, &["t", "later"]);
    assert_eq!(member.serve(), Some(Assigned(t([0]))));
    world.create("later", 1, &[]);
    let later = vec![TopicPartition::new("later", 0)];
    assert_eq!(member.serve(), Some(Assigned(later.clone())));
    world.log.admin().delete_topic("later", ANY).unwrap();
    assert_eq!(member.serve(), Some(Revoked(later)));
}

#[test]
fn only_the_event_in_hand_can_be_completed() {
    let world = world_with_partitions(1);
    let mut member = world.member(None);
    let refused = member.member.complete(&Assigned(vec![]));
    assert!(matches!(refused, Err(LogError::Fatal { .. })));
    let event = member.poll().unwrap();
    let refused = member.member.complete(&Revoked(t([0])));
    assert!(matches!(refused, Err(LogError::Fatal { .. })));
    member.member.complete(&event).unwrap();
}

#[test]
fn the_same_calls_give_the_same_shares_whenever_they_are_made() {
    let shares = || {
        let world = world_with_partitions(17);
        let mut members: Vec<_> = (0..5).map(|_| world.member(None)).collect();
        settle(&mut members);
        drop(members.remove(1));
        world.clock.advance(Duration::from_secs(3));
        settle(&mut members);
        world.clock.advance(Duration::from_secs(3));
        settle(&mut members)
    };
    assert_eq!(shares(), shares());
}
