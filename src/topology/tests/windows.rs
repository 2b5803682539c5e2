//! Aggregates in tumbling windows. Times are in milliseconds; windows are 10 long unless said otherwise.

use std::time::Duration;

use super::driver::{Driver, text};
use crate::codec::{I64Be, TimeWindowed, Utf8, Windowed};
use crate::operators::{Emit, OnError, TumblingWindows};
use crate::record::Record;
use crate::topology::{Builder, Stream, Topic};

fn windows(grace_ms: u64) -> TumblingWindows {
    TumblingWindows::of(Duration::from_millis(10)).grace(Duration::from_millis(grace_ms))
}

/// Writes windowed results with the window in the key: `a[10,20)`.
fn write(results: Stream<'_, Windowed<String>, i64>) {
    let flat = results.map(|r| Record {
        key: r.key.map(|w| format!("{}[{},{})", w.key, w.start_ms, w.end_ms)),
        value: r.value,
        timestamp_ms: r.timestamp_ms,
        headers: r.headers,
    });
    flat.to(&Topic::new("out", Utf8, I64Be));
}

fn count(emit: Emit, grace_ms: u64) -> Builder {
    let builder = Builder::new();
    let grouped = builder.stream(&text("in")).group_by_key();
    write(
        grouped
            .windowed_by(windows(grace_ms))
            .emit(emit)
            .count("counts")
            .to_stream(),
    );
    builder
}

#[test]
fn every_update_comes_out_with_its_window_and_the_largest_time_of_its_records() {
    let mut driver = Driver::new(count(Emit::OnUpdate, 20));
    assert_eq!(driver.send("in", ("a", "", 0)), ["a[0,10)=1@0"]);
    assert_eq!(driver.send("in", ("a", "", 9)), ["a[0,10)=2@9"]);
    assert_eq!(driver.send("in", ("a", "", 10)), ["a[10,20)=1@10"]);
    assert_eq!(driver.send("in", ("b", "", 12)), ["b[10,20)=1@12"]);
    assert_eq!(
        driver.send("in", ("a", "", 3)),
        ["a[0,10)=3@9"],
        "in time, though behind"
    );
}

#[test]
fn a_window_takes_records_until_exactly_its_end_plus_grace() {
    let mut driver = Driver::new(count(Emit::OnUpdate, 5));
    driver.send("in", ("a", "", 3));
    driver.send("in", ("b", "", 14));
    assert_eq!(
        driver.send("in", ("a", "", 3)),
        ["a[0,10)=2@3"],
        "window end 10 > close time 9"
    );
    driver.send("in", ("b", "", 15));
    assert!(
        driver.send("in", ("a", "", 3)).is_empty(),
        "window end 10 = close time 10"
    );
    assert!(driver.send("in", ("new", "", 9)).is_empty());
    assert_eq!(driver.counts("counts").late, 2);
    assert_eq!(driver.counts("counts").dropped, 0);
    assert_eq!(driver.send("in", ("a", "", 10)), ["a[10,20)=1@10"]);
}

#[test]
fn a_null_key_is_dropped_without_moving_time_and_a_null_value_is_counted() {
    let mut driver = Driver::new(count(Emit::OnUpdate, 0));
    driver.send("in", ("a", "", 3));
    assert!(driver.send("in", (None, Some("x"), 1_000)).is_empty());
    assert_eq!(driver.counts("counts").dropped, 1);
    assert_eq!(
        driver.send("in", (Some("a"), None, 4)),
        ["a[0,10)=2@4"],
        "the window is still open"
    );
}

#[test]
fn on_close_each_window_comes_out_once_in_order_of_start_then_key() {
    let mut driver = Driver::new(count(Emit::OnClose, 5));
    for (key, time) in [("b", 12), ("a", 13), ("c", 1), ("a", 2), ("a", 8)] {
        assert!(driver.send("in", (key, "", time)).is_empty());
    }
    assert_eq!(driver.send("in", ("z", "", 15)), ["a[0,10)=2@8", "c[0,10)=1@1"]);
    assert!(driver.send("in", ("z", "", 24)).is_empty());
    assert_eq!(
        driver.send("in", ("y", "", 25)),
        ["a[10,20)=1@13", "b[10,20)=1@12", "z[10,20)=1@15"]
    );
    assert!(driver.send("in", ("a", "", 14)).is_empty(), "late");
    assert_eq!(driver.counts("counts").late, 1);
    assert_eq!(driver.stored("counts"), 2, "closed windows leave the store");
}

#[test]
fn on_close_no_window_is_lost_however_far_time_jumps() {
    let mut driver = Driver::new(count(Emit::OnClose, 0));
    let mut came_out = Vec::new();
    for time in [0, 25, 31, 100_000, 100_010, 5, 900_000] {
        came_out.extend(driver.send("in", ("k", "", time)));
    }
    let closed = [
        "k[0,10)=1@0",
        "k[20,30)=1@25",
        "k[30,40)=1@31",
        "k[100000,100010)=1@100000",
        "k[100010,100020)=1@100010",
    ];
    assert_eq!(came_out, closed);
    assert_eq!(driver.counts("counts").late, 1);
}

#[test]
fn more_windows_than_fit_one_scan_close_at_once_and_in_order() {
    let mut driver = Driver::new(count(Emit::OnClose, 0));
    for key in 0..2_500 {
        driver.send("in", (format!("{key:05}").as_str(), "", 1));
    }
    let closed = driver.send("in", ("z", "", 10));
    assert_eq!(closed.len(), 2_500);
    assert_eq!(
        (closed[0].as_str(), closed[2_499].as_str()),
        ("00000[0,10)=1@1", "02499[0,10)=1@1")
    );
    assert!(closed.is_sorted());
    assert_eq!(driver.stored("counts"), 1);
}

#[test]
fn closed_windows_leave_the_store_on_update_too() {
    let mut driver = Driver::new(count(Emit::OnUpdate, 5));
    for time in (0..1_000).step_by(10) {
        driver.send("in", ("a", "", time));
        driver.send("in", ("b", "", time));
    }
    assert_eq!(
        driver.stored("counts"),
        4,
        "two keys in the open windows [980,990) and [990,1000)"
    );
}

#[test]
fn an_operator_judges_by_the_time_that_it_has_itself_seen() {
    let builder = Builder::new();
    let lines = builder
        .stream(&text("in"))
        .filter(|r| r.value.as_deref() != Some("elsewhere"));
    write(lines.group_by_key().windowed_by(windows(0)).count("counts").to_stream());
    let mut driver = Driver::new(builder);
    driver.send("in", ("a", "", 5));
    driver.send("in", ("a", "elsewhere", 1_000));
    assert_eq!(driver.scopes[0].stream_time_ms, 1_000);
    assert_eq!(driver.send("in", ("a", "", 6)), ["a[0,10)=2@6"]);
}

#[test]
fn two_windowed_operators_on_one_stream_keep_a_clock_each() {
    let builder = Builder::new();
    let grouped = builder.stream(&text("in")).group_by_key();
    write(
        grouped
            .windowed_by(windows(0))
            .emit(Emit::OnClose)
            .count("short")
            .to_stream(),
    );
    write(
        grouped
            .windowed_by(windows(50))
            .emit(Emit::OnClose)
            .count("long")
            .to_stream(),
    );
    assert_eq!(driver_of_two(builder), ["a[0,10)=1@5", "a[0,10)=1@5"]);
}

fn driver_of_two(builder: Builder) -> Vec<String> {
    let mut driver = Driver::new(builder);
    assert_eq!(driver.topology.program(0).clocks(), 2);
    driver.send("in", ("a", "", 5));
    let mut closed = driver.send("in", ("a", "", 10));
    closed.extend(
        driver
            .send("in", ("a", "", 60))
            .into_iter()
            .filter(|row| row.starts_with("a[0")),
    );
    closed
}

#[test]
fn after_a_restart_closed_windows_stay_closed_and_open_ones_go_on() {
    let mut driver = Driver::new(count(Emit::OnClose, 5));
    for time in [3, 12, 25] {
        driver.send("in", ("a", "", time));
    }
    let mut driver = driver.restart(count(Emit::OnClose, 5));
    assert!(driver.send("in", ("a", "", 4)).is_empty());
    assert!(driver.send("in", ("a", "", 19)).is_empty());
    assert_eq!(driver.counts("counts").late, 2);
    assert!(driver.send("in", ("a", "", 26)).is_empty());
    assert_eq!(driver.send("in", ("b", "", 35)), ["a[20,30)=2@26"]);
}

#[test]
fn a_longer_grace_after_a_restart_opens_no_closed_window_again() {
    let mut driver = Driver::new(count(Emit::OnClose, 0));
    driver.send("in", ("a", "", 3));
    assert_eq!(driver.send("in", ("a", "", 10)), ["a[0,10)=1@3"]);
    let mut driver = driver.restart(count(Emit::OnClose, 1_000));
    assert!(driver.send("in", ("a", "", 4)).is_empty());
    assert_eq!(driver.counts("counts").late, 1);
    let mut driver = driver.restart(count(Emit::OnClose, 0));
    assert!(driver.send("in", ("a", "", 11)).is_empty());
    assert_eq!(
        driver.send("in", ("a", "", 20)),
        ["a[10,20)=2@11"],
        "a shorter grace closes with the next record"
    );
}

#[test]
fn rolled_back_clocks_are_read_again() {
    let mut driver = Driver::new(count(Emit::OnClose, 0));
    driver.send("in", ("a", "", 3));
    driver.topology.program(0).barrier(&mut driver.scopes[0]).unwrap();
    driver.scopes[0].state.seal();
    assert_eq!(driver.send("in", ("a", "", 50)), ["a[0,10)=1@3"]);
    driver.scopes[0].state.roll_back(0);
    driver.topology.program(0).restored(&mut driver.scopes[0]).unwrap();
    assert_eq!(driver.scopes[0].clocks[0].observed_ms, 3);
    assert!(driver.send("in", ("a", "", 4)).is_empty());
    assert_eq!(driver.send("in", ("a", "", 50)), ["a[0,10)=2@4"]);
}

#[test]
fn a_broken_clock_is_an_error_and_not_a_fresh_start() {
    let mut driver = Driver::new(count(Emit::OnClose, 0));
    let program = driver.topology.program(0);
    driver.scopes[0].state.put(crate::ids::StoreId(0), &[0xff], b"short");
    let error = program.restored(&mut driver.scopes[0]).unwrap_err().to_string();
    assert!(
        error.contains("store of counts") && error.contains("5 bytes"),
        "{error}"
    );
}

#[test]
fn reductions_and_aggregates_get_null_values_and_may_delete_a_window() {
    let builder = Builder::new();
    let grouped = builder.stream(&text("in")).group_by_key();
    let windowed = grouped.windowed_by(windows(0));
    let keys = TimeWindowed::new(Utf8, 10);
    windowed
        .reduce("reduced", |a, b| b.map(|b| a + &b))
        .to_stream()
        .to(&Topic::new("reduced", keys, Utf8));
    windowed
        .aggregate("listed", String::new, |key, value, list| {
            format!("{list}{key}{value:?};")
        })
        .to_stream()
        .to(&Topic::new("listed", keys, Utf8));
    let mut driver = Driver::new(builder);
    let mut send = |value: Option<&str>| -> Vec<Option<String>> {
        let came_out = driver.try_send("in", (Some("k"), value, 5)).unwrap();
        let text = |value: Vec<u8>| String::from_utf8(value).unwrap();
        came_out.into_iter().map(|raw| raw.value.map(text)).collect()
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(send(None), [None, some("kNone;")], "a first null value is a tombstone");
    assert_eq!(send(Some("a")), [some("a"), some("kNone;kSome(\"a\");")]);
    assert_eq!(send(Some("b"))[0], some("ab"));
    assert_eq!(send(None)[0], None);
    assert_eq!(send(Some("c"))[0], some("c"));
    assert_eq!(driver.stored("reduced"), 1);
}

#[test]
fn a_deleted_window_does_not_come_out_on_close() {
    let builder = Builder::new();
    let grouped = builder.stream(&text("in")).group_by_key();
    let even = grouped.windowed_by(windows(0)).emit(Emit::OnClose).aggregate(
        "even",
        || 0_i64,
        |_, _, n| (n == 0).then_some(n + 1),
    );
    write(even.to_stream());
    let mut driver = Driver::new(builder);
    driver.send("in", ("odd", "", 1));
    driver.send("in", ("even", "", 1));
    driver.send("in", ("even", "", 2));
    assert_eq!(driver.send("in", ("z", "", 10)), ["odd[0,10)=1@1"]);
}

#[test]
fn a_stored_window_that_does_not_decode_answers_to_the_policy_of_its_node() {
    let mut driver = Driver::new(count(Emit::OnClose, 0));
    driver.set_policy(OnError::Skip);
    driver.send("in", ("a", "", 5));
    driver.scopes[0]
        .state
        .put(crate::ids::StoreId(0), &[0, 0, 0, 0, 0, 0, 0, 0, 0xff], b"12345678");
    assert_eq!(driver.send("in", ("a", "", 10)), ["a[0,10)=1@5"]);
    assert_eq!(driver.counts("counts").skipped, 1);
    assert_eq!(driver.stored("counts"), 1);
}

#[test]
fn windowed_results_can_be_grouped_again_without_a_repartition() {
    let builder = Builder::new();
    let minutes = builder
        .stream(&text("in"))
        .group_by_key()
        .windowed_by(windows(0))
        .emit(Emit::OnClose)
        .count("ten");
    let keys = crate::topology::Repartitioned::new("sum", TimeWindowed::new(Utf8, 10), I64Be);
    let sums = minutes.to_stream().group_by_key_with(keys).reduce("sums", |a, b| a + b);
    write(sums.to_stream());
    let mut driver = Driver::new(builder);
    driver.send("in", ("a", "", 5));
    driver.send("in", ("a", "", 6));
    assert_eq!(driver.send("in", ("a", "", 10)), ["a[0,10)=2@6"]);
    assert!(driver.topology.plan().repartitions.is_empty());
}
