//! Groups: membership, generations, committed offsets.

use tidegate::ids::TopicPartition;
use tidegate::log::{GroupMetadata, Log, LogError, MemberEvent};

use crate::broker::unique;
use crate::drive::*;

/// The broker fences by generation; the producer can be used again after an abort.
pub fn an_older_generation_cannot_commit(log: &dyn Log) {
    let (input, output, group) = (unique("input"), unique("output"), unique("group"));
    create(log, &input, 2, &[]);
    create(log, &output, 1, &[]);
    let mut first = sole_member(log, &group, &input, 2);
    let old = first.metadata();
    let mut second = Member::join(log, &group, &input, None);
    serve_until("both own one partition", &mut [&mut first, &mut second], |members| {
        members.iter().all(|member| member.owned.len() == 1)
    });
    let fresh = first.metadata();
    assert!(fresh.generation > old.generation);
    assert_eq!(fresh.member_id, old.member_id);

    let partition = first.owned.first().expect("it owns a partition").clone();
    let mut producer = producer(log, Some(&unique("id")), &[&output]);
    producer.begin().expect("a transaction");
    send(&mut *producer, 0, "late");
    let refused = finish(&mut *producer, commit_of(old, &[(partition.clone(), 5, "")]));
    assert!(
        matches!(refused, Err(LogError::IllegalGeneration { .. })),
        "{refused:?}"
    );
    producer.abort(PATIENCE).expect("the transaction can be aborted");

    producer.begin().expect("the producer goes on");
    send(&mut *producer, 0, "in time");
    let fresh = first.metadata();
    finish(&mut *producer, commit_of(fresh, &[(partition.clone(), 5, "")])).expect("the fresh generation commits");
    assert_eq!(committed(log, &group, &partition), Some((5, String::new())));
    assert_eq!(committed_texts(log, &output, 0), ["in time"]);
    second.leave();
    first.leave();
}

/// A member that is not in the group any more.
pub fn a_member_that_left_cannot_commit(log: &dyn Log) {
    let (input, output, group) = (unique("input"), unique("output"), unique("group"));
    create(log, &input, 1, &[]);
    create(log, &output, 1, &[]);
    let mut member = sole_member(log, &group, &input, 1);
    let (metadata, view) = (member.metadata(), member.view());
    assert!(metadata.is_fencing());
    member.leave();
    assert!(
        !view.metadata().is_fencing(),
        "the view outlives the member and says that it is gone"
    );
    assert_eq!(view.metadata().group, group);

    // Somebody else keeps the group alive.
    let stays = sole_member(log, &group, &input, 1);
    let partition = TopicPartition::new(input.as_str(), 0);
    let mut producer = producer(log, Some(&unique("id")), &[&output]);
    producer.begin().expect("a transaction");
    send(&mut *producer, 0, "too late");
    let refused = finish(&mut *producer, commit_of(metadata, &[(partition.clone(), 5, "")]));
    assert!(matches!(refused, Err(LogError::NotAMember { .. })), "{refused:?}");
    producer.abort(PATIENCE).expect("the transaction can be aborted");
    assert_eq!(committed(log, &group, &partition), None);
    stays.leave();
}

/// A second member joins and leaves: what moves is first revoked here, then assigned there.
pub fn partitions_move_one_event_at_a_time(log: &dyn Log) {
    let (input, group) = (unique("input"), unique("group"));
    create(log, &input, 4, &[]);
    let mut first = sole_member(log, &group, &input, 4);
    let view = first.view();
    let before = view.metadata();
    assert!(before.is_fencing());
    assert_eq!(first.events.len(), 1, "one event gave everything");

    first.obedient = false;
    let mut second = Member::join(log, &group, &input, None);
    serve_until(
        "the first is asked for partitions",
        &mut [&mut first, &mut second],
        |members| matches!(members[0].open, Some(MemberEvent::Revoked(_))),
    );
    // As long as the first holds on to them, polling gives nothing and nobody else gets them.
    for _ in 0..10 {
        first
            .inner()
            .poll(TICK / 5)
            .map(|event| assert_eq!(event, None))
            .expect("the member stays healthy");
        second.step(TICK / 5).expect("the member stays healthy");
    }
    assert!(second.owned.is_empty());
    assert!(
        view.metadata().generation > before.generation,
        "the view moves before the event is completed"
    );
    first.obedient = true;
    first.complete().expect("the partitions are given up");
    serve_until("both own two partitions", &mut [&mut first, &mut second], |members| {
        members.iter().all(|member| member.owned.len() == 2)
    });
    assert!(first.owned.is_disjoint(&second.owned));
    assert!(
        first
            .events
            .iter()
            .any(|event| matches!(event, MemberEvent::Assigned(partitions) if partitions.is_empty())),
        "a generation without a change of partitions is told: {:?}",
        first.events
    );

    second.leave();
    serve_until("the first owns everything again", &mut [&mut first], |members| {
        members[0].owned.len() == 4
    });
    first.leave();
}

/// A static member restarts within its session.
pub fn a_static_member_comes_back_with_the_same_generation_and_another_member_id(log: &dyn Log) {
    let (input, output, group) = (unique("input"), unique("output"), unique("group"));
    create(log, &input, 2, &[]);
    create(log, &output, 1, &[]);
    let join = || {
        let mut member = Member::join(log, &group, &input, Some("host-1"));
        serve_until("it owns everything", &mut [&mut member], |members| {
            members[0].owned.len() == 2
        });
        member
    };
    let mut first = join();
    let before = first.metadata();
    assert_eq!(before.instance_id.as_deref(), Some("host-1"));
    first.leave();
    let mut second = join();
    let after = second.metadata();
    assert_eq!(after.generation, before.generation, "no rebalance");
    assert_ne!(
        after.member_id, before.member_id,
        "only the member id tells the two apart"
    );

    let partition = TopicPartition::new(input.as_str(), 0);
    let mut producer = producer(log, Some(&unique("id")), &[&output]);
    producer.begin().expect("a transaction");
    send(&mut *producer, 0, "of the first");
    let refused = finish(&mut *producer, commit_of(before, &[(partition.clone(), 5, "")]));
    assert!(matches!(refused, Err(LogError::NotAMember { .. })), "{refused:?}");
    producer.abort(PATIENCE).expect("the transaction can be aborted");
    producer.begin().expect("a transaction");
    finish(&mut *producer, commit_of(after, &[(partition, 6, "")])).expect("the second commits");
    second.leave();
}

/// At-least-once: the same epoch without a transaction.
pub fn without_a_transaction_the_member_commits(log: &dyn Log) {
    let (input, output, group) = (unique("input"), unique("output"), unique("group"));
    create(log, &input, 1, &[]);
    create(log, &output, 1, &[]);
    let mut member = sole_member(log, &group, &input, 1);
    let partition = TopicPartition::new(input.as_str(), 0);
    let mut producer = producer(log, None, &[&output]);
    producer.begin().expect("an epoch");
    send(&mut *producer, 0, "one");
    finish(
        &mut *producer,
        commit_of(member.metadata(), &[(partition.clone(), 4, "pointer")]),
    )
    .expect("it commits");
    assert_eq!(committed(log, &group, &partition), Some((4, "pointer".to_owned())));
    assert_eq!(committed_texts(log, &output, 0), ["one"]);

    let stale = GroupMetadata {
        generation: member.metadata().generation - 1,
        ..member.metadata()
    };
    if stale.is_fencing() {
        producer.begin().expect("an epoch");
        let refused = finish(&mut *producer, commit_of(stale, &[(partition.clone(), 9, "")]));
        assert!(
            matches!(refused, Err(LogError::IllegalGeneration { .. })),
            "{refused:?}"
        );
        producer.abort(PATIENCE).expect("the epoch can be given up");
    }
    let metadata = member.metadata();
    member.leave();
    producer.begin().expect("an epoch");
    let refused = finish(&mut *producer, commit_of(metadata, &[(partition.clone(), 9, "")]));
    assert!(matches!(refused, Err(LogError::NotAMember { .. })), "{refused:?}");
    assert_eq!(committed(log, &group, &partition), Some((4, "pointer".to_owned())));
}

/// A static member that dies between giving a partition up and joining again leaves it with nobody, until somebody joins.
pub fn what_a_static_member_was_giving_up_stays_with_nobody_until_the_next_join(log: &dyn Log) {
    let (input, unread, group) = (unique("input"), unique("unread"), unique("group"));
    create(log, &input, 2, &[]);
    create(log, &unread, 1, &[]);
    let mut first = Member::join(log, &group, &input, Some("first"));
    serve_until("the only member owns everything", &mut [&mut first], |members| {
        members[0].owned.len() == 2
    });
    let mut second = Member::join(log, &group, &input, Some("second"));
    first.obedient = false;
    serve_until(
        "the first is told to give one up",
        &mut [&mut first, &mut second],
        |members| matches!(members[0].open, Some(MemberEvent::Revoked(_))),
    );
    drop(first);
    let mut first = Member::join(log, &group, &input, Some("first"));
    serve_until("the first is back", &mut [&mut first, &mut second], |members| {
        members[0].owned.len() == 1
    });
    let state = |log: &dyn Log| log.admin().group(&group, PATIENCE).expect("the group is there");
    let orphaned = state(log);
    assert!(orphaned.is_stable);
    assert_eq!(orphaned.assigned, first.owned, "the other partition belongs to nobody");
    assert!(second.owned.is_empty());

    let mut passer_by = Member::join(log, &group, &unread, None);
    serve_until(
        "the partition has an owner",
        &mut [&mut first, &mut second, &mut passer_by],
        |members| members[0].owned.len() + members[1].owned.len() == 2 && !members[2].owned.is_empty(),
    );
    passer_by.leave();
    serve_until("the group has settled", &mut [&mut first, &mut second], |_| {
        let state = state(log);
        state.is_stable && state.assigned.len() == 2
    });
    first.leave();
    second.leave();
}

/// Groups know nothing of each other.
pub fn each_group_gets_every_partition(log: &dyn Log) {
    let input = unique("input");
    create(log, &input, 2, &[]);
    let groups = [unique("group"), unique("group")];
    let members = groups.each_ref().map(|group| sole_member(log, group, &input, 2));
    for (mut member, group) in members.into_iter().zip(groups) {
        assert_eq!(member.owned.len(), 2);
        assert_eq!(member.metadata().group, group);
        member.leave();
    }
}

/// More than two members.
pub fn three_members_share_evenly(log: &dyn Log) {
    let (input, group) = (unique("input"), unique("group"));
    create(log, &input, 6, &[]);
    let [mut first, mut second, mut third] = [(); 3].map(|()| Member::join(log, &group, &input, None));
    serve_until(
        "all own two partitions",
        &mut [&mut first, &mut second, &mut third],
        |members| members.iter().all(|member| member.owned.len() == 2),
    );
    let all: std::collections::BTreeSet<_> = [&first, &second, &third]
        .iter()
        .flat_map(|member| member.owned.iter().cloned())
        .collect();
    assert_eq!(all.len(), 6);
    for member in [first, second, third] {
        member.leave();
    }
}

/// More members than partitions.
pub fn a_member_without_partitions_takes_over_when_the_owner_leaves(log: &dyn Log) {
    let (input, group) = (unique("input"), unique("group"));
    create(log, &input, 1, &[]);
    let mut first = sole_member(log, &group, &input, 1);
    let mut spare = Member::join(log, &group, &input, None);
    serve_until(
        "the spare member is told of its generation",
        &mut [&mut first, &mut spare],
        |members| !members[1].events.is_empty(),
    );
    assert_eq!(spare.events, [MemberEvent::Assigned(Vec::new())]);
    assert!(spare.metadata().is_fencing(), "it is a member all the same");
    first.leave();
    serve_until("the spare member owns the partition", &mut [&mut spare], |members| {
        members[0].owned.len() == 1
    });
    spare.leave();
}

/// A restart without an identity.
pub fn a_dynamic_member_comes_back_as_somebody_else(log: &dyn Log) {
    let (input, group) = (unique("input"), unique("group"));
    create(log, &input, 1, &[]);
    let mut first = sole_member(log, &group, &input, 1);
    let before = first.metadata();
    first.leave();
    let mut second = sole_member(log, &group, &input, 1);
    let after = second.metadata();
    assert_ne!(after.member_id, before.member_id);
    assert!(after.generation > before.generation, "{before:?} {after:?}");
    second.leave();
}

/// Offsets belong to the group, not to its members.
pub fn committed_offsets_outlive_the_members(log: &dyn Log) {
    let (input, group) = (unique("input"), unique("group"));
    create(log, &input, 2, &[]);
    let mut member = sole_member(log, &group, &input, 2);
    let [written, other] = [0, 1].map(|partition| TopicPartition::new(input.as_str(), partition));
    let mut producer = producer(log, Some(&unique("id")), &[&input]);
    producer.begin().expect("a transaction");
    finish(
        &mut *producer,
        commit_of(member.metadata(), &[(written.clone(), 7, "kept")]),
    )
    .expect("the transaction commits");
    member.leave();
    let read = log.admin().committed(&group, &[other, written], PATIENCE);
    let read = read.expect("the offsets can be read");
    assert_eq!(read[0], None, "a partition without an offset has none");
    assert_eq!(
        read[1].as_ref().map(|offset| (offset.offset, offset.metadata.as_str())),
        Some((7, "kept"))
    );
}

/// A group that nobody ever joined.
pub fn an_unknown_group_has_neither_offsets_nor_members(log: &dyn Log) {
    let (input, group) = (unique("input"), unique("group"));
    create(log, &input, 1, &[]);
    assert_eq!(committed(log, &group, &TopicPartition::new(input.as_str(), 0)), None);
    let state = log.admin().group(&group, PATIENCE).expect("the log answers");
    assert!(!state.is_stable);
    assert!(state.assigned.is_empty());
}

/// What the coordinator says of a group.
pub fn the_state_of_a_group_names_what_was_given_out(log: &dyn Log) {
    let (input, group) = (unique("input"), unique("group"));
    create(log, &input, 3, &[]);
    let mut first = sole_member(log, &group, &input, 3);
    let state = |log: &dyn Log| log.admin().group(&group, PATIENCE).expect("the log answers");
    assert_eq!(state(log).assigned, first.owned);
    assert!(state(log).is_stable);
    let mut second = Member::join(log, &group, &input, None);
    serve_until("both own something", &mut [&mut first, &mut second], |members| {
        members.iter().all(|member| !member.owned.is_empty())
            && members.iter().map(|member| member.owned.len()).sum::<usize>() == 3
    });
    serve_until("the group has settled", &mut [&mut first, &mut second], |_| {
        state(log).is_stable
    });
    assert_eq!(state(log).assigned, first.owned.union(&second.owned).cloned().collect());
    first.leave();
    second.leave();
}

/// Several lead topics.
pub fn a_member_of_two_topics_gets_the_partitions_of_both(log: &dyn Log) {
    let (one, two, group) = (unique("one"), unique("two"), unique("group"));
    create(log, &one, 2, &[]);
    create(log, &two, 1, &[]);
    let mut member = Member::join_for(log, &group, &[&one, &two], None);
    serve_until("it owns all of both", &mut [&mut member], |members| {
        members[0].owned.len() == 3
    });
    assert!(member.owned.contains(&TopicPartition::new(two.as_str(), 0)));
    member.leave();
}

/// Members of one group that read different topics, as in the midst of an upgrade.
pub fn members_get_partitions_of_their_own_topics_only(log: &dyn Log) {
    let (one, two, group) = (unique("one"), unique("two"), unique("group"));
    create(log, &one, 2, &[]);
    create(log, &two, 2, &[]);
    let mut first = Member::join(log, &group, &one, None);
    let mut second = Member::join(log, &group, &two, None);
    serve_until("both own their topic", &mut [&mut first, &mut second], |members| {
        members.iter().all(|member| member.owned.len() == 2)
    });
    assert!(first.owned.iter().all(|partition| *partition.topic == one));
    assert!(second.owned.iter().all(|partition| *partition.topic == two));
    first.leave();
    second.leave();
}

/// Two processes with one static identity: the later one stays.
pub fn a_second_process_with_the_same_instance_id_ends_the_first(log: &dyn Log) {
    let (input, output, group) = (unique("input"), unique("output"), unique("group"));
    create(log, &input, 1, &[]);
    create(log, &output, 1, &[]);
    let join = || {
        let mut member = Member::join(log, &group, &input, Some("host-1"));
        serve_until("it owns everything", &mut [&mut member], |members| {
            members[0].owned.len() == 1
        });
        member
    };
    let mut first = join();
    let old = first.metadata();
    let second = join();
    let mut producer = producer(log, Some(&unique("id")), &[&output]);
    producer.begin().expect("a transaction");
    let partition = TopicPartition::new(input.as_str(), 0);
    let refused = finish(&mut *producer, commit_of(old, &[(partition, 1, "")]));
    assert!(matches!(refused, Err(LogError::NotAMember { .. })), "{refused:?}");
    producer.abort(PATIENCE).expect("the transaction can be aborted");

    let mut outcome = Ok(());
    wait_for("the first member hears of it", || {
        outcome = first.step(TICK);
        outcome.is_err()
    });
    assert!(matches!(outcome, Err(LogError::NotAMember { .. })), "{outcome:?}");
    first.leave();
    second.leave();
}

/// A crash of a dynamic member.
pub fn a_member_that_vanishes_is_replaced_when_its_session_ends(log: &dyn Log) {
    let (input, group) = (unique("input"), unique("group"));
    create(log, &input, 2, &[]);
    let mut first = sole_member(log, &group, &input, 2);
    let old = first.metadata();
    drop(first);
    let mut second = Member::join(log, &group, &input, None);
    serve_until("the second owns everything", &mut [&mut second], |members| {
        members[0].owned.len() == 2
    });
    assert!(second.metadata().generation > old.generation);
    second.leave();
}

/// Metadata that was never true.
pub fn made_up_generations_and_member_ids_cannot_commit(log: &dyn Log) {
    let (input, group) = (unique("input"), unique("group"));
    create(log, &input, 1, &[]);
    let mut member = sole_member(log, &group, &input, 1);
    let partition = TopicPartition::new(input.as_str(), 0);
    let future = GroupMetadata {
        generation: member.metadata().generation + 1_000,
        ..member.metadata()
    };
    let stranger = GroupMetadata {
        member_id: "nobody-1".to_owned(),
        ..member.metadata()
    };
    let mut producer = producer(log, Some(&unique("id")), &[&input]);
    for (metadata, is_generation) in [(future, true), (stranger, false)] {
        producer.begin().expect("a transaction");
        let refused = finish(&mut *producer, commit_of(metadata, &[(partition.clone(), 1, "")]));
        match refused {
            Err(LogError::IllegalGeneration { .. }) => assert!(is_generation),
            Err(LogError::NotAMember { .. }) => assert!(!is_generation),
            other => panic!("{other:?}"),
        }
        producer.abort(PATIENCE).expect("the transaction can be aborted");
    }
    assert_eq!(committed(log, &group, &partition), None);
    member.leave();
}

/// The client's own thread joins again before anybody has served the event, and the broker takes what it then says.
pub fn the_generation_moves_before_the_event_is_served_and_fresh_metadata_still_commits(log: &dyn Log) {
    let (input, output, group) = (unique("input"), unique("output"), unique("group"));
    create(log, &input, 2, &[]);
    create(log, &output, 1, &[]);
    let mut first = sole_member(log, &group, &input, 2);
    let (old, view) = (first.metadata(), first.view());
    let mut second = Member::join(log, &group, &input, None);
    // Nobody polls the first member; its client rejoins by itself.
    wait_for("the generation moves", || {
        second.step(TICK).expect("the member stays healthy");
        view.metadata().generation > old.generation
    });
    let fresh = view.metadata();
    assert_eq!(fresh.member_id, old.member_id);

    let mut producer = producer(log, Some(&unique("id")), &[&output]);
    let partitions = [0, 1].map(|partition| TopicPartition::new(input.as_str(), partition));
    let offsets = |offset| partitions.clone().map(|partition| (partition, offset, ""));
    producer.begin().expect("a transaction");
    let refused = finish(&mut *producer, commit_of(old, &offsets(1)));
    assert!(
        matches!(refused, Err(LogError::IllegalGeneration { .. })),
        "{refused:?}"
    );
    producer.abort(PATIENCE).expect("the transaction can be aborted");
    // Also for the partition that is about to go: nobody else gets it before this member lets go of it.
    producer.begin().expect("a transaction");
    finish(&mut *producer, commit_of(fresh, &offsets(2))).expect("fresh metadata commits");
    assert!(second.owned.is_empty());
    serve_until("both own one partition", &mut [&mut first, &mut second], |members| {
        members.iter().all(|member| member.owned.len() == 1)
    });
    for partition in &partitions {
        assert_eq!(committed(log, &group, partition), Some((2, String::new())));
    }
    first.leave();
    second.leave();
}
