//! Membership on real Kafka: who is fenced when, and what a member hears.

use tidegate::ids::TopicPartition;
use tidegate::log::kafka::KafkaLog;
use tidegate::log::{LogError, MemberEvent};
use tidegate_integration_tests::Broker;
use tidegate_integration_tests::broker::unique;
use tidegate_integration_tests::drive::*;

fn topics(partitions: i32) -> (String, String, String) {
    let log = Broker::shared().log();
    let (input, output) = (unique("input"), unique("output"));
    create(&*log, &input, partitions, &[]);
    create(&*log, &output, 1, &[]);
    (input, output, unique("group"))
}

#[test]
fn a_member_that_is_not_polled_in_time_loses_everything_and_comes_back() {
    let mut settings = Broker::shared().settings();
    settings
        .consumer
        .insert("max.poll.interval.ms".to_owned(), "6000".to_owned());
    let log = KafkaLog::new(settings).expect("valid settings");
    let (input, output, group) = topics(1);
    let mut member = sole_member(&*log, &group, &input, 1);
    let (old, view) = (member.metadata(), member.view());
    wait_for("the member is out of the group", || {
        std::thread::park_timeout(TICK);
        !view.metadata().is_fencing()
    });
    let mut producer = producer(&*log, Some(&unique("id")), &[&output]);
    producer.begin().expect("a transaction");
    let partition = TopicPartition::new(input.as_str(), 0);
    let refused = finish(&mut *producer, commit_of(old.clone(), &[(partition.clone(), 1, "")]));
    assert!(matches!(refused, Err(LogError::NotAMember { .. })), "{refused:?}");
    producer.abort(PATIENCE).expect("the transaction can be aborted");

    member.events.clear();
    serve_until("the member hears of it", &mut [&mut member], |members| {
        !members[0].events.is_empty()
    });
    assert_eq!(member.events, [MemberEvent::Lost(vec![partition])]);
    serve_until("it owns everything again", &mut [&mut member], |members| {
        members[0].owned.len() == 1
    });
    assert_ne!(member.metadata().member_id, old.member_id);
    member.leave();
}

#[test]
fn members_fetch_nothing() {
    let log = Broker::shared().log();
    let (input, _, group) = topics(1);
    let value = "x".repeat(1_000);
    let values = vec![value.as_str(); 2_000];
    write(&*log, &input, &values);
    // A member that fetched would fill its queue and hand out records; polling it gives events and nothing else.
    let mut member = sole_member(&*log, &group, &input, 1);
    for _ in 0..40 {
        assert_eq!(member.inner().poll(TICK).expect("the member stays healthy"), None);
    }
    member.leave();
}
