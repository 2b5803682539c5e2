//! Mistakes in a topology, found when it is built.

use std::time::Duration;

use super::driver::text;
use crate::codec::{Bytes, Json, Utf8};
use crate::errors::Coded;
use crate::operators::TumblingWindows;
use crate::topology::{Builder, Repartitioned, Topic, TopologyError};

/// Code and message of the mistake in a topology.
fn mistake(build: impl FnOnce(&Builder)) -> (&'static str, String) {
    let builder = Builder::new();
    build(&builder);
    match builder.build() {
        Ok(topology) => panic!("this should not build:\n{}", topology.describe()),
        Err(error) => (error.code(), error.to_string()),
    }
}

#[test]
fn names_of_nodes_stores_and_repartition_topics_are_unique() {
    let (code, message) = mistake(|b| {
        let grouped = b.stream(&text("in")).group_by_key();
        grouped.count("counts");
        grouped.count("counts");
    });
    assert_eq!(code, "TG2001");
    assert!(message.contains("two stores called \"counts\""), "{message}");
    let (_, message) = mistake(|b| {
        let lines = b.stream(&text("in"));
        lines
            .join_table("same", &b.table(&text("rows"), "rows"), |v, _| v)
            .to(&text("out"));
        lines.group_by_key().count("same");
    });
    assert!(message.contains("two nodes called \"same\""), "{message}");
    let (_, message) = mistake(|b| {
        let lines = b.stream(&text("in"));
        let _ = (lines.repartition("same"), lines.repartition("same"));
    });
    assert!(message.contains("two repartition topics called \"same\""), "{message}");
}

#[test]
fn names_have_to_fit_into_topic_names() {
    for (name, reason) in [
        ("", "it is empty"),
        ("a b", "it contains ' '"),
        ("ä", "it contains 'ä'"),
    ] {
        let (code, message) = mistake(|b| {
            b.table(&text("rows"), name);
        });
        assert_eq!(code, "TG2002");
        assert!(message.contains(reason), "{message}");
    }
    let (code, _) = mistake(|b| {
        let _ = b.stream(&text("in")).repartition("x".repeat(181));
    });
    assert_eq!(code, "TG2002");
}

#[test]
fn a_topic_is_read_in_one_way() {
    let (code, message) = mistake(|b| {
        b.stream(&text("in")).to(&text("out"));
        b.stream(&Topic::new("in", Utf8, Bytes))
            .to(&Topic::new("out", Utf8, Bytes));
    });
    assert_eq!(code, "TG2003");
    assert!(
        message.contains("utf8 -> utf8") && message.contains("utf8 -> bytes"),
        "{message}"
    );
    let (code, _) = mistake(|b| {
        b.stream(&text("in")).to(&text("out"));
        b.stream(&Topic::new("in", Utf8, Json::<String>::new()))
            .to(&text("out"));
    });
    assert_eq!(code, "TG2003");
    let (code, _) = mistake(|b| {
        b.stream(&text("in")).to(&text("out"));
        b.stream(&text("in").timestamp(|r| r.timestamp_ms)).to(&text("out"));
    });
    assert_eq!(code, "TG2003");
}

#[test]
fn parameters_have_to_make_sense() {
    let (code, message) = mistake(|b| {
        let grouped = b.stream(&text("in")).group_by_key();
        grouped
            .windowed_by(TumblingWindows::of(Duration::from_micros(999)))
            .count("counts");
    });
    assert_eq!(code, "TG2004");
    assert!(
        message.contains("node counts") && message.contains("one millisecond"),
        "{message}"
    );
    let (code, message) = mistake(|b| {
        let none = Repartitioned::from("again").partitions(0);
        let _ = b.stream(&text("in")).repartition(none);
    });
    assert_eq!(code, "TG2004");
    assert!(message.contains("0 partitions"), "{message}");
}

#[test]
fn streams_and_tables_of_two_builders_do_not_mix() {
    let other = Builder::new();
    let (lines, rows) = (other.stream(&text("lines")), other.table(&text("rows"), "rows"));
    let builder = Builder::new();
    let _ = builder.stream(&text("in")).merge(lines);
    assert!(matches!(builder.build(), Err(TopologyError::ForeignStream { .. })));
    let builder = Builder::new();
    let _ = builder.stream(&text("in")).join_table("join", &rows, |v, _| v);
    assert!(matches!(builder.build(), Err(TopologyError::ForeignStream { .. })));
}

#[test]
fn something_has_to_be_read() {
    let (code, _) = mistake(|_| ());
    assert_eq!(code, "TG2006");
}

#[test]
fn more_nodes_than_can_be_numbered_are_refused() {
    let (code, _) = mistake(|b| {
        let mut lines = b.stream(&text("in"));
        for _ in 0..=u16::MAX {
            lines = lines.peek(|_| ());
        }
    });
    assert_eq!(code, "TG2007");
}
