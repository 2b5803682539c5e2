//! Grouping and aggregates over all time.

use super::driver::{Driver, text};
use crate::codec::{I64Be, Ignored, Json, Utf8};
use crate::topology::{Builder, Materialized, Repartitioned, Topic, TopicRef};

fn longs(name: &str) -> Topic<String, i64> {
    Topic::new(name, Utf8, I64Be)
}

#[test]
fn a_count_emits_every_update_and_drops_null_keys_and_values() {
    let builder = Builder::new();
    let events = Topic::new("in", Utf8, Ignored);
    builder
        .stream(&events)
        .group_by_key()
        .count("counts")
        .to_stream()
        .to(&longs("out"));
    let mut driver = Driver::new(builder);
    assert_eq!(driver.send("in", ("a", "", 5)), ["a=1@5"]);
    assert_eq!(driver.send("in", ("b", "", 6)), ["b=1@6"]);
    assert_eq!(driver.send("in", ("a", "", 7)), ["a=2@7"]);
    assert!(driver.send("in", (None, Some(""), 8)).is_empty());
    assert!(driver.send("in", (Some("a"), None, 8)).is_empty());
    assert_eq!(driver.counts("counts").dropped, 2);
    assert_eq!(driver.send("in", ("a", "", 8)), ["a=3@8"]);
}

#[test]
fn an_aggregate_has_the_largest_time_of_its_records() {
    let builder = Builder::new();
    builder
        .stream(&text("in"))
        .group_by_key()
        .count("counts")
        .to_stream()
        .to(&longs("out"));
    let mut driver = Driver::new(builder);
    driver.send("in", ("a", "", 50));
    assert_eq!(driver.send("in", ("a", "", 20)), ["a=2@50"]);
    assert_eq!(driver.send("in", ("a", "", 60)), ["a=3@60"]);
    assert_eq!(driver.send("in", ("b", "", 20)), ["b=1@20"]);
}

#[test]
fn a_reduction_starts_with_the_first_value_and_may_delete_its_row() {
    let builder = Builder::new();
    let joined = builder
        .stream(&text("in"))
        .group_by_key()
        .reduce("reduced", |a, b| (b != "delete").then(|| format!("{a}{b}")));
    joined.to_stream().to(&text("out"));
    let mut driver = Driver::new(builder);
    assert_eq!(driver.send("in", ("k", "a", 5)), ["k=a@5"]);
    assert_eq!(driver.send("in", ("k", "b", 6)), ["k=ab@6"]);
    assert_eq!(
        driver.send("in", ("k", "delete", 3)),
        ["k=-@6"],
        "a deletion comes out as a tombstone"
    );
    assert_eq!(driver.stored("reduced"), 0);
    assert_eq!(
        driver.send("in", ("k", "c", 4)),
        ["k=c@4"],
        "the row starts anew, its time too"
    );
}

#[test]
fn an_aggregate_starts_with_the_initial_value_and_sees_its_key() {
    let builder = Builder::new();
    let store = Materialized::new("lists", Json::<Vec<String>>::new());
    builder
        .stream(&text("in"))
        .group_by_key()
        .aggregate(
            store,
            || vec!["start".to_owned()],
            |key, value, mut list: Vec<String>| {
                list.push(format!("{key}{value}"));
                list
            },
        )
        .to_stream()
        .to(&Topic::new("out", Utf8, Json::new()));
    let mut driver = Driver::new(builder);
    driver.send("in", ("k", "1", 5));
    assert_eq!(driver.send("in", ("k", "2", 5)), [r#"k=["start","k1","k2"]@5"#]);
}

#[test]
fn state_survives_a_restart() {
    let build = || {
        let builder = Builder::new();
        builder
            .stream(&text("in"))
            .group_by_key()
            .count("counts")
            .to_stream()
            .to(&longs("out"));
        builder
    };
    let mut driver = Driver::new(build());
    driver.send("in", ("a", "", 5));
    let mut driver = driver.restart(build());
    assert_eq!(driver.send("in", ("a", "", 1)), ["a=2@5"]);
}

#[test]
fn stored_bytes_that_are_no_row_are_a_bad_record_of_the_node() {
    let builder = Builder::new();
    builder
        .stream(&text("in"))
        .group_by_key()
        .count("counts")
        .to_stream()
        .to(&longs("out"));
    let mut driver = Driver::new(builder);
    driver.scopes[0].state.put(crate::ids::StoreId(0), b"a", b"short");
    let failure = driver.try_send("in", ("a", "", 5)).unwrap_err().to_string();
    assert!(
        failure.contains("in node counts") && failure.contains("event time"),
        "{failure}"
    );
}

#[test]
fn grouping_by_another_key_goes_through_a_repartition_topic_and_drops_null_keys_uncounted() {
    let builder = Builder::new();
    builder
        .stream(&text("in"))
        .group_by("by-value", |r| r.value.clone().filter(|value| value != "none"))
        .count("counts")
        .to_stream()
        .to(&longs("out"));
    let mut driver = Driver::new(builder);
    assert_eq!(driver.send("in", ("k", "x", 5)), ["x=1@5"]);
    assert_eq!(driver.send("in", ("other", "x", 6)), ["x=2@6"]);
    assert!(driver.send("in", ("k", "none", 6)).is_empty());
    let dropped: u64 = driver
        .scopes
        .iter()
        .flat_map(|scope| &scope.counts)
        .map(|counts| counts.dropped)
        .sum();
    assert_eq!(dropped, 0);
    let plan = driver.topology.plan();
    assert_eq!(plan.sub_topologies[0].sinks, [TopicRef::Repartition("by-value".into())]);
    assert_eq!(
        plan.sub_topologies[1].sources,
        [TopicRef::Repartition("by-value".into())]
    );
    assert_eq!(
        &*plan.sub_topologies[1].sources[0].full_name("app"),
        "app-by-value-repartition"
    );
}

/// Names of the repartition topics that a topology gets.
fn repartitions(build: impl FnOnce(&Builder)) -> Vec<String> {
    let builder = Builder::new();
    build(&builder);
    let topology = builder.build().unwrap();
    topology
        .plan()
        .repartitions
        .iter()
        .map(|topic| topic.name.to_string())
        .collect()
}

#[test]
fn a_repartition_topic_is_inserted_exactly_where_the_key_may_have_changed() {
    let none: [&str; 0] = [];
    let unchanged = |b: &Builder| {
        let kept = b
            .stream(&text("in"))
            .filter(|_| true)
            .map_values(|v| v)
            .flat_map_values(|v| [v])
            .peek(|_| ());
        kept.group_by_key().count("a");
        kept.to_table("t");
        kept.join_table("j", &b.table(&text("rows"), "rows"), |v, _| v)
            .to(&text("out"));
    };
    assert_eq!(repartitions(unchanged), none);
    let changed = |b: &Builder| {
        let lines = b.stream(&text("in"));
        lines.map(|r| r).group_by_key().count("after-map");
        lines.flat_map(|r| [r]).group_by_key_with("after-flat-map").count("b");
        lines
            .select_key(|r| r.key.clone().unwrap_or_default())
            .to_table("after-select-key");
        let merged = lines.merge(lines.map(|r| r)).map_values(|v| v);
        merged
            .join_table("after-merge", &b.table(&text("rows"), "rows"), |v, _| v)
            .to(&text("out"));
        let mut split = lines.map(|r| r).split();
        split.branch(|_| true).group_by_key().count("after-branch");
    };
    assert_eq!(
        repartitions(changed),
        [
            "after-map",
            "after-flat-map",
            "after-select-key",
            "after-merge",
            "after-branch"
        ]
    );
    let once = |b: &Builder| {
        let keyed = b.stream(&text("in")).map(|r| r).repartition("keyed");
        keyed.group_by_key().count("a");
        keyed.group_by_key_with("unused").count("b");
        keyed
            .join_table("j", &b.table(&text("rows"), "rows"), |v, _| v)
            .group_by_key()
            .count("c");
    };
    assert_eq!(repartitions(once), ["keyed"]);
    let grouped_once = |b: &Builder| {
        let grouped = b
            .stream(&text("in"))
            .group_by("by", |r| r.value.clone().unwrap_or_default());
        grouped.count("a");
        grouped.reduce("b", |a, _| a).to_stream().group_by_key().count("c");
    };
    assert_eq!(repartitions(grouped_once), ["by"]);
}

#[test]
fn a_repartition_topic_keeps_time_headers_and_codecs_and_can_fix_its_partitions() {
    let builder = Builder::new();
    let repartitioned = Repartitioned::new("numbers", Utf8, Json::<Vec<i64>>::new()).partitions(6);
    builder
        .stream(&text("in"))
        .map_values(|v| vec![v.len() as i64])
        .repartition(repartitioned)
        .to(&Topic::new("out", Utf8, Json::new()));
    let mut driver = Driver::new(builder);
    assert_eq!(driver.send("in", ("k", "four", 9)), ["k=[4]@9"]);
    let topic = &driver.topology.plan().repartitions[0];
    assert_eq!((topic.partitions, topic.codecs.as_str()), (Some(6), "utf8 -> json"));
}
