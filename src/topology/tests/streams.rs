//! Stateless operators, sources and sinks.

use super::driver::{Driver, Raw, text};
use crate::codec::{I64Be, Ignored, Json, TimeWindowed, Utf8, Windowed};
use crate::operators::{Failure, OnError};
use crate::partitioner::partition_for;
use crate::record::{Headers, Record};
use crate::topology::{Builder, Topic};

fn shout(record: &Record<String, String>) -> String {
    record.value.clone().unwrap_or_default().to_uppercase()
}

#[test]
fn operators_on_records_see_nulls_and_operators_on_values_do_not() {
    let builder = Builder::new();
    let lines = builder.stream(&text("in"));
    lines
        .map(|r| Record {
            value: Some(format!("{:?}", r.value)),
            ..r
        })
        .to(&text("map"));
    lines.filter(|r| r.key.is_none()).to(&text("filter"));
    lines.filter_not(|r| r.key.is_none()).to(&text("filter-not"));
    lines.flat_map(|r| [r.clone(), r]).to(&text("flat-map"));
    lines.map_values(|v| v + "!").to(&text("map-values"));
    lines
        .map_values_with_key(|k, v| format!("{k:?}{v}"))
        .to(&text("with-key"));
    lines
        .flat_map_values(|v| vec![v.clone(), v])
        .to(&text("flat-map-values"));
    lines.select_key(shout).to(&text("select-key"));
    let mut driver = Driver::new(builder);
    let mut send = |record: (Option<&str>, Option<&str>, i64)| -> Vec<String> {
        let came_out = driver.try_send("in", record).unwrap();
        came_out
            .iter()
            .map(|raw| format!("{} {}", raw.topic, raw.shown()))
            .collect()
    };
    assert_eq!(
        send((None, None, 1)),
        [
            "map -=None@1",
            "filter -=-@1",
            "flat-map -=-@1",
            "flat-map -=-@1",
            "map-values -=-@1",
            "with-key -=-@1",
            "flat-map-values -=-@1",
            "select-key =-@1",
        ]
    );
    assert_eq!(
        send((Some("k"), Some("v"), 2)),
        [
            "map k=Some(\"v\")@2",
            "filter-not k=v@2",
            "flat-map k=v@2",
            "flat-map k=v@2",
            "map-values k=v!@2",
            "with-key k=Some(\"k\")v@2",
            "flat-map-values k=v@2",
            "flat-map-values k=v@2",
            "select-key V=v@2",
        ]
    );
}

#[test]
fn headers_travel_with_the_record() {
    let builder = Builder::new();
    let lines = builder.stream(&text("in"));
    lines
        .map_values(|v| v)
        .flat_map_values(|v| [v.clone(), v])
        .filter(|_| true)
        .select_key(shout)
        .group_by_key()
        .count("counts")
        .to_stream()
        .to(&Topic::new("out", Utf8, I64Be));
    let mut driver = Driver::new(builder);
    let mut headers = Headers::default();
    headers.push("trace", Some(b"7".to_vec()));
    let record = Raw {
        headers: headers.clone(),
        ..("k", "v", 1).into()
    };
    let came_out = driver.try_send("in", record).unwrap();
    assert_eq!(came_out.len(), 2);
    assert!(came_out.iter().all(|raw| raw.headers == headers));
}

#[test]
fn a_split_takes_the_first_branch_that_holds_and_may_have_no_default() {
    let builder = Builder::new();
    let lines = builder.stream(&text("in"));
    let mut split = lines.split();
    split.branch(|r| r.value.is_none()).to(&text("null"));
    split.branch(|r| shout(r).contains('A')).to(&text("a"));
    split
        .branch(|r| shout(r).contains('B'))
        .map_values(|v| v + "!")
        .to(&text("b"));
    split.default_branch().to(&text("rest"));
    let mut only = lines.split();
    only.branch(|r| shout(r) == "ONLY").to(&text("only"));
    let mut driver = Driver::new(builder);
    let mut topics = |value: Option<&str>| -> Vec<String> {
        let came_out = driver.try_send("in", (Some("k"), value, 1)).unwrap();
        came_out.into_iter().map(|raw| raw.topic).collect()
    };
    assert_eq!(topics(None), ["null"]);
    assert_eq!(topics(Some("ab")), ["a"]);
    assert_eq!(topics(Some("b")), ["b"]);
    assert_eq!(topics(Some("only")), ["rest", "only"]);
}

#[test]
fn merged_streams_pass_both_and_a_stream_used_twice_goes_both_ways_in_order() {
    let builder = Builder::new();
    let (left, right) = (builder.stream(&text("left")), builder.stream(&text("right")));
    let all = left.map_values(|v| v + "<").merge(right);
    all.to(&text("first"));
    all.peek(|r| assert!(r.key.is_some())).to(&text("second"));
    let mut driver = Driver::new(builder);
    assert_eq!(driver.send("left", ("k", "l", 1)), ["k=l<@1", "k=l<@1"]);
    let came_out = driver.try_send("right", ("k", "r", 2)).unwrap();
    let topics: Vec<&str> = came_out.iter().map(|raw| &*raw.topic).collect();
    assert_eq!(topics, ["first", "second"]);
}

#[test]
fn a_record_with_a_negative_or_no_timestamp_is_dropped_and_counted() {
    let builder = Builder::new();
    builder.stream(&text("in")).to(&text("out"));
    let mut driver = Driver::new(builder);
    assert!(driver.send("in", ("k", "v", -1)).is_empty());
    assert!(driver.send("in", ("k", "v", i64::MIN)).is_empty());
    assert_eq!(driver.counts("source-in").dropped, 2);
    assert_eq!(driver.scopes[0].stream_time_ms, -1);
    assert_eq!(driver.send("in", ("k", "v", 0)), ["k=v@0"]);
    assert_eq!(driver.scopes[0].stream_time_ms, 0);
}

#[test]
fn an_extractor_decides_the_event_time_and_can_be_asked_for_it() {
    let builder = Builder::new();
    let topic = text("in").timestamp(|r| r.value.as_ref().map_or(r.timestamp_ms, |v| v.parse().unwrap_or(-5)));
    builder.stream(&topic).to(&text("out"));
    let mut driver = Driver::new(builder);
    assert_eq!(driver.send("in", ("k", "77", 1)), ["k=77@77"]);
    assert_eq!(driver.send("in", (Some("k"), None, 8)), ["k=-@8"]);
    assert!(driver.send("in", ("k", "no time", 1)).is_empty());
    assert_eq!(driver.counts("source-in").dropped, 1);
    assert_eq!(driver.scopes[0].stream_time_ms, 77, "stream time never goes back");

    let raw = |value| Raw::from(("k", value, 1));
    let time = |raw: &Raw| {
        let record = crate::log::RecordBatch::record(raw, 0);
        driver.topology.program(0).event_time_ms(0, &record, Headers::default())
    };
    assert_eq!(time(&raw("99")), 99);
    assert_eq!(time(&raw("?")), -5);
    let undecodable = Raw {
        value: Some(vec![0xff]),
        ..raw("")
    };
    assert_eq!(time(&undecodable), 1);
}

#[test]
fn a_record_that_fails_stops_with_its_coordinates_unless_a_policy_says_otherwise() {
    let build = || {
        let builder = Builder::new();
        builder
            .stream(&text("in"))
            .try_map_values(|v| v.parse::<i64>())
            .to(&Topic::new("out", Utf8, I64Be));
        Driver::new(builder)
    };
    let mut driver = build();
    match driver.try_send("in", ("k", "seven", 1)) {
        Err(Failure::Record { node, origin, reason }) => {
            assert_eq!(&*node, "map-values-1");
            assert_eq!(origin.to_string(), "in-0@42");
            assert_eq!(reason, "invalid digit found in string");
        }
        other => panic!("expected a failed record, got {other:?}"),
    }
    let mut driver = build();
    driver.set_policy(OnError::Skip);
    assert!(driver.send("in", ("k", "seven", 1)).is_empty());
    assert_eq!(driver.send("in", ("k", "7", 1)), ["k=7@1"]);
    assert_eq!(driver.counts("map-values-1").skipped, 1);

    let mut driver = build();
    driver.set_policy(OnError::DeadLetter);
    let came_out = driver.try_send("in", ("k", "seven", 1)).unwrap();
    assert_eq!(came_out.len(), 1);
    assert_eq!(
        (came_out[0].topic.as_str(), came_out[0].shown().as_str()),
        ("dead-letters", "k=seven@1")
    );
    let header = |name| came_out[0].headers.last(name).and_then(|header| header.value.clone());
    assert_eq!(header("tidegate.error.node"), Some(b"map-values-1".to_vec()));
    assert_eq!(header("tidegate.error.offset"), Some(b"42".to_vec()));
    assert_eq!(driver.counts("map-values-1").dead_lettered, 1);
}

#[test]
fn every_fallible_operator_answers_to_the_policy_of_its_node() {
    let builder = Builder::new();
    let lines = builder.stream(&text("in"));
    let fail = "no";
    lines
        .try_map(move |_| Err::<Record<String, String>, _>(fail))
        .to(&text("out"));
    lines
        .try_flat_map(move |_| Err::<Vec<Record<String, String>>, _>(fail))
        .to(&text("out"));
    lines.try_filter(move |_| Err(fail)).to(&text("out"));
    lines.try_select_key(move |_| Err::<String, _>(fail)).to(&text("out"));
    lines
        .try_flat_map_values(move |_| Err::<Vec<String>, _>(fail))
        .to(&text("out"));
    lines.map(|r| Record { timestamp_ms: -1, ..r }).to(&text("out"));
    lines.map(|r| r).on_error(OnError::DeadLetter).to(&text("out"));
    let mut driver = Driver::new(builder);
    let mangled = driver
        .topology
        .plan()
        .nodes
        .iter()
        .position(|node| &*node.name == "map-13")
        .unwrap();
    assert_eq!(driver.scopes[0].on_error[mangled], OnError::DeadLetter);
    driver.set_policy(OnError::Skip);
    assert_eq!(driver.send("in", ("k", "v", 1)), ["k=v@1"]);
    for node in [
        "map-1",
        "flat-map-3",
        "filter-5",
        "select-key-7",
        "flat-map-values-9",
        "map-11",
    ] {
        assert_eq!(driver.counts(node).skipped, 1, "{node}");
    }
}

#[test]
fn what_cannot_be_decoded_or_encoded_answers_to_the_policy_of_its_topic() {
    let builder = Builder::new();
    let unencodable = Topic::new("out", Utf8, Json::<std::collections::BTreeMap<Vec<u8>, i64>>::new());
    builder
        .stream(&text("in").on_error(OnError::Skip))
        .map_values(|v| [(v.into_bytes(), 1)].into())
        .to(&unencodable.on_error(OnError::Skip));
    let mut driver = Driver::new(builder);
    assert!(driver.send("in", ("k", "v", 1)).is_empty());
    assert_eq!(driver.counts("sink-out").skipped, 1);
    let bad = Raw {
        value: Some(vec![0xff]),
        ..("k", "", 9).into()
    };
    assert!(driver.send("in", bad).is_empty());
    assert_eq!(driver.counts("source-in").skipped, 1);
    assert_eq!(
        driver.scopes[0].stream_time_ms, 1,
        "a record that does not decode has no time"
    );
}

#[test]
fn records_go_to_the_partition_of_their_key_and_windowed_ones_to_that_of_the_inner_key() {
    let builder = Builder::new();
    let lines = builder.stream(&text("in"));
    lines.to(&text("plain"));
    let windowed = Topic::new("windowed", TimeWindowed::new(Utf8, 10), Utf8);
    lines
        .map(|r| Record {
            key: r.key.map(|key| Windowed {
                start_ms: 20,
                end_ms: 30,
                key,
            }),
            value: r.value,
            timestamp_ms: r.timestamp_ms,
            headers: r.headers,
        })
        .to(&windowed);
    let mut driver = Driver::new(builder);
    driver.scopes[0].sink_partitions = vec![7, 7, 1];
    driver.scopes[0].partition = 9;
    for key in ["JFK", "LGA", "EWR"] {
        let wanted = partition_for(key.as_bytes(), 7);
        let came_out = driver.try_send("in", (key, "v", 1)).unwrap();
        assert_eq!(
            came_out.iter().map(|raw| raw.partition).collect::<Vec<_>>(),
            [wanted, wanted]
        );
    }
    let unkeyed = driver.try_send("in", (None, Some("v"), 1)).unwrap();
    assert_eq!(unkeyed[0].partition, 9 % 7);
}

#[test]
fn a_key_may_be_selected_away_and_ignored_values_are_not_decoded() {
    let builder = Builder::new();
    builder
        .stream(&Topic::new("in", Utf8, Ignored))
        .select_key::<String, _>(|r| r.key.clone().filter(|key| key != "none"))
        .to(&Topic::new("out", Utf8, Ignored));
    let mut driver = Driver::new(builder);
    let record = |key: &str| Raw {
        value: Some(vec![0xff]),
        ..(key, "", 1).into()
    };
    assert_eq!(driver.send("in", record("none")), ["-=@1"]);
    assert_eq!(driver.send("in", record("some")), ["some=@1"]);
}
