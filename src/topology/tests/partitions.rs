//! Numbers of partitions and co-partitioning.

use super::driver::text;
use crate::errors::Coded;
use crate::topology::{Builder, PartitionCounts, PlanError, Repartitioned, Topology};

fn keyed(name: &str, partitions: Option<i32>) -> Repartitioned<String, String> {
    let repartitioned = Repartitioned::from(name);
    match partitions {
        Some(partitions) => repartitioned.partitions(partitions),
        None => repartitioned,
    }
}

/// Settles numbers for topics `(name, partitions)`.
fn settle(topology: &Topology, topics: &[(&str, i32)]) -> Result<PartitionCounts, PlanError> {
    topology.plan().partition_counts(&|wanted| {
        let topic = topics.iter().find(|(name, _)| *name == wanted);
        topic.map(|(_, partitions)| *partitions)
    })
}

fn joined(partitions: Option<i32>, re_keyed: bool) -> Topology {
    let builder = Builder::new();
    let rows = builder.table(&text("rows"), "rows");
    let clicks = builder.stream(&text("clicks"));
    let clicks = if re_keyed { clicks.map(|r| r) } else { clicks };
    clicks
        .join_table(keyed("join", partitions), &rows, |c, _| c)
        .to(&text("out"));
    builder.build().unwrap()
}

#[test]
fn joined_topics_with_different_counts_are_refused_by_name_and_number() {
    let topology = joined(None, false);
    assert!(settle(&topology, &[("rows", 3), ("clicks", 3)]).is_ok());
    let error = settle(&topology, &[("rows", 3), ("clicks", 4)]).unwrap_err();
    assert_eq!(error.code(), "TG2012");
    assert_eq!(
        error,
        PlanError::NotCoPartitioned {
            node: "join".into(),
            first: "clicks".into(),
            first_partitions: 4,
            second: "rows".into(),
            second_partitions: 3,
        }
    );
    assert!(
        error.to_string().contains("clicks has 4 partitions and rows has 3"),
        "{error}"
    );
}

#[test]
fn a_repartition_topic_takes_the_number_of_the_topics_it_is_joined_with() {
    for (rows, clicks) in [(12, 3), (2, 3)] {
        let counts = settle(&joined(None, true), &[("rows", rows), ("clicks", clicks)]).unwrap();
        assert_eq!(counts.repartitions["join"], rows);
    }
    let counts = settle(&joined(Some(12), true), &[("rows", 12), ("clicks", 3)]).unwrap();
    assert_eq!(counts.sub_topologies[0].sources, [12, 12]);
    let error = settle(&joined(Some(5), true), &[("rows", 12), ("clicks", 3)]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("rows has 12 partitions and join-repartition has 5"),
        "{error}"
    );
}

#[test]
fn a_missing_source_topic_is_named() {
    let error = settle(&joined(None, false), &[("rows", 3)]).unwrap_err();
    assert_eq!(error, PlanError::MissingTopic { topic: "clicks".into() });
    assert_eq!(error.code(), "TG2011");
}

#[test]
fn a_repartition_topic_without_a_number_gets_the_largest_upstream_through_several_hops() {
    let builder = Builder::new();
    let few = builder.stream(&text("few"));
    let many = builder.stream(&text("many"));
    let first = few.merge(many).repartition("first");
    let second = first.repartition(keyed("second", None));
    second
        .repartition(keyed("fixed", Some(2)))
        .repartition("last")
        .to(&text("out"));
    let topology = builder.build().unwrap();
    let counts = settle(&topology, &[("few", 3), ("many", 8)]).unwrap();
    let numbers: Vec<_> = counts
        .repartitions
        .iter()
        .map(|(name, count)| (&**name, *count))
        .collect();
    assert_eq!(numbers, [("first", 8), ("fixed", 2), ("last", 2), ("second", 8)]);
    let tasks: Vec<i32> = counts.sub_topologies.iter().map(|sub| sub.tasks).collect();
    assert_eq!(tasks, [8, 8, 8, 2, 2]);
}

#[test]
fn a_repartition_topic_may_feed_its_own_sub_topology() {
    let builder = Builder::new();
    let lines = builder.stream(&text("in"));
    lines.merge(lines.map(|r| r).repartition("again")).to(&text("out"));
    let counts = settle(&builder.build().unwrap(), &[("in", 4)]).unwrap();
    assert_eq!(counts.repartitions["again"], 4);
    assert_eq!(counts.sub_topologies.len(), 1);
}

#[test]
fn two_joined_repartition_topics_are_raised_to_the_larger() {
    let builder = Builder::new();
    let table = builder.stream(&text("a")).map(|r| r).to_table("table");
    builder
        .stream(&text("b"))
        .map(|r| r)
        .join_table("join", &table, |v, _| v)
        .to(&text("out"));
    let counts = settle(&builder.build().unwrap(), &[("a", 3), ("b", 7)]).unwrap();
    assert_eq!((counts.repartitions["table"], counts.repartitions["join"]), (7, 7));
}

#[test]
fn groups_that_share_a_topic_are_one_group() {
    let builder = Builder::new();
    let clicks = builder.stream(&text("clicks"));
    let (first, second) = (
        builder.table(&text("first"), "first"),
        builder.table(&text("second"), "second"),
    );
    clicks
        .join_table("join-first", &first, |v, _| v)
        .join_table("join-second", &second, |v, _| v)
        .to(&text("out"));
    let topology = builder.build().unwrap();
    assert!(settle(&topology, &[("clicks", 2), ("first", 2), ("second", 2)]).is_ok());
    assert!(settle(&topology, &[("clicks", 2), ("first", 2), ("second", 1)]).is_err());
}

#[test]
fn merged_topics_may_differ_until_they_are_aggregated_by_key() {
    let build = |aggregated: bool| {
        let builder = Builder::new();
        let all = builder.stream(&text("a")).merge(builder.stream(&text("b")));
        if aggregated {
            all.group_by_key().count("counts");
        } else {
            all.to(&text("out"));
        }
        builder.build().unwrap()
    };
    let counts = settle(&build(false), &[("a", 2), ("b", 5)]).unwrap();
    assert_eq!(counts.sub_topologies[0].sources, [2, 5]);
    assert_eq!((counts.sub_topologies[0].tasks, counts.sub_topologies[0].lead), (5, 1));
    let error = settle(&build(true), &[("a", 2), ("b", 5)]).unwrap_err().to_string();
    assert!(error.contains("node counts needs a and b co-partitioned"), "{error}");
}

#[test]
fn the_lead_topic_has_most_partitions_then_is_external_then_first_by_name() {
    let builder = Builder::new();
    let (b, a) = (builder.stream(&text("b")), builder.stream(&text("a")));
    let internal = builder
        .stream(&text("other"))
        .map(|r| r)
        .repartition(keyed("0", Some(3)));
    internal.merge(b).merge(a).to(&text("out"));
    let topology = builder.build().unwrap();
    let lead = |topics: &[(&str, i32)]| {
        let counts = settle(&topology, topics).unwrap();
        let sources = &topology.plan().sub_topologies[0].sources;
        sources[counts.sub_topologies[0].lead].to_string()
    };
    assert_eq!(lead(&[("a", 3), ("b", 3), ("other", 1)]), "a");
    assert_eq!(lead(&[("a", 3), ("b", 4), ("other", 1)]), "b");
    assert_eq!(lead(&[("a", 1), ("b", 1), ("other", 1)]), "0-repartition");
}
