//! Tables and joins with them.

use super::driver::{Driver, text};
use crate::topology::Builder;

#[test]
fn a_table_keeps_the_latest_arrival_per_key_drops_null_keys_and_deletes_on_null_values() {
    let builder = Builder::new();
    builder.table(&text("rows"), "rows").to_stream().to(&text("out"));
    let mut driver = Driver::new(builder);
    assert_eq!(driver.send("rows", ("k", "new", 9)), ["k=new@9"]);
    assert_eq!(
        driver.send("rows", ("k", "older", 3)),
        ["k=older@3"],
        "updates apply as they come"
    );
    assert_eq!(driver.stored("rows"), 1);
    assert!(driver.send("rows", (None, Some("x"), 4)).is_empty());
    assert_eq!(driver.counts("rows").dropped, 1);
    assert_eq!(driver.send("rows", (Some("k"), None, 5)), ["k=-@5"]);
    assert_eq!(driver.stored("rows"), 0);
    assert_eq!(
        driver.send("rows", (Some("k"), None, 6)),
        ["k=-@6"],
        "a tombstone without a row passes too"
    );
}

fn joined(left: bool) -> Driver {
    let builder = Builder::new();
    let rows = builder.table(&text("rows"), "rows");
    let clicks = builder.stream(&text("clicks"));
    if left {
        clicks
            .left_join_table("join", &rows, |click, row| format!("{click}+{row:?}"))
            .to(&text("out"));
    } else {
        clicks
            .join_table("join", &rows, |click, row| format!("{click}+{row}"))
            .to(&text("out"));
    }
    Driver::new(builder)
}

#[test]
fn an_inner_join_needs_a_row_a_key_and_a_value_and_has_the_streams_time() {
    let mut driver = joined(false);
    assert!(driver.send("clicks", ("k", "c", 1)).is_empty());
    assert_eq!(driver.counts("join").dropped, 0, "no row is no reason to count");
    assert!(
        driver.send("rows", ("k", "r", 100)).is_empty(),
        "the table's side emits nothing"
    );
    assert_eq!(driver.send("clicks", ("k", "c", 2)), ["k=c+r@2"]);
    assert!(driver.send("clicks", (None, Some("c"), 3)).is_empty());
    assert!(driver.send("clicks", (Some("k"), None, 3)).is_empty());
    assert_eq!(driver.counts("join").dropped, 2);
    driver.send("rows", (Some("k"), None, 4));
    assert!(driver.send("clicks", ("k", "c", 5)).is_empty());
}

#[test]
fn a_left_join_joins_with_nothing_where_there_is_no_row_or_no_key() {
    let mut driver = joined(true);
    assert_eq!(driver.send("clicks", ("k", "c", 1)), ["k=c+None@1"]);
    assert_eq!(driver.send("clicks", (None, Some("c"), 2)), ["-=c+None@2"]);
    assert_eq!(driver.counts("join").dropped, 0);
    assert!(driver.send("clicks", (Some("k"), None, 3)).is_empty());
    assert_eq!(driver.counts("join").dropped, 1);
    driver.send("rows", ("k", "r", 4));
    assert_eq!(driver.send("clicks", ("k", "c", 0)), [r#"k=c+Some("r")@0"#]);
}

fn re_keyed(left: bool) -> Driver {
    let builder = Builder::new();
    let planes = builder.table(&text("planes"), "planes");
    let flights = builder.stream(&text("flights"));
    let keyed = flights.select_key::<String, _>(|r| r.value.clone().filter(|tail| tail != "NA"));
    let joined = if left {
        keyed.left_join_table("joined", &planes, |_, plane| plane.unwrap_or("unknown".into()))
    } else {
        keyed.join_table("joined", &planes, |_, plane| plane)
    };
    joined
        .group_by("again", |r| r.key.clone())
        .reduce("last", |_, b| b)
        .to_stream()
        .to(&text("out"));
    joined.to(&text("joined"));
    let mut driver = Driver::new(builder);
    driver.send("planes", ("N1", "Boeing", 0));
    driver
}

#[test]
fn records_without_a_key_end_at_a_repartition_topic_uncounted() {
    let mut driver = re_keyed(false);
    assert_eq!(driver.send("flights", ("JFK", "N1", 1)), ["N1=Boeing@1", "N1=Boeing@1"]);
    assert!(driver.send("flights", ("JFK", "NA", 1)).is_empty());
    assert_eq!(driver.counts("joined").dropped, 0);
}

#[test]
fn records_without_a_key_pass_the_repartition_topic_of_a_left_join_but_none_behind_it() {
    let mut driver = re_keyed(true);
    assert_eq!(
        driver.send("flights", ("JFK", "N2", 1)),
        ["N2=unknown@1", "N2=unknown@1"]
    );
    assert_eq!(driver.send("flights", ("JFK", "NA", 1)), ["-=unknown@1"]);
    assert_eq!(driver.counts("last").dropped, 0);
}

#[test]
fn a_stream_becomes_a_table_that_can_be_joined() {
    let builder = Builder::new();
    let latest = builder
        .stream(&text("in"))
        .filter(|r| r.key.as_deref() != Some("skip"))
        .to_table("latest");
    latest.to_stream().to(&text("updates"));
    builder
        .stream(&text("ask"))
        .join_table("asked", &latest, |q, a| q + &a)
        .to(&text("out"));
    let mut driver = Driver::new(builder);
    assert_eq!(driver.send("in", ("k", "1", 1)), ["k=1@1"]);
    assert!(driver.send("in", ("skip", "1", 1)).is_empty());
    assert!(driver.send("in", (None, Some("1"), 1)).is_empty());
    assert_eq!(driver.counts("latest").dropped, 1);
    assert_eq!(driver.send("ask", ("k", "?", 2)), ["k=?1@2"]);
    assert_eq!(driver.send("in", (Some("k"), None, 3)), ["k=-@3"]);
    assert!(driver.send("ask", ("k", "?", 4)).is_empty());
}

#[test]
fn an_aggregate_is_a_table_that_can_be_joined() {
    let builder = Builder::new();
    let events = builder.stream(&text("in"));
    let counts = events.group_by_key().count("counts");
    builder
        .stream(&text("ask"))
        .left_join_table("asked", &counts, |_, count: Option<i64>| format!("{count:?}"))
        .to(&text("out"));
    let mut driver = Driver::new(builder);
    driver.send("in", ("k", "", 1));
    driver.send("in", ("k", "", 1));
    assert_eq!(driver.send("ask", ("k", "", 2)), ["k=Some(2)@2"]);
    assert_eq!(
        driver.topology.plan().sub_topologies.len(),
        1,
        "a shared store makes one sub-topology"
    );
}

#[test]
fn one_topic_can_be_a_stream_and_several_tables() {
    let builder = Builder::new();
    builder.stream(&text("in")).to(&text("out"));
    builder.table(&text("in"), "first").to_stream().to(&text("out"));
    builder.table(&text("in"), "second");
    let mut driver = Driver::new(builder);
    assert_eq!(driver.send("in", ("k", "v", 1)), ["k=v@1", "k=v@1"]);
    let sub = &driver.topology.plan().sub_topologies[0];
    assert_eq!((sub.sources.len(), &sub.tables[..], sub.stores.len()), (1, &[0][..], 2));
    assert_eq!(driver.stored("second"), 1);
}
