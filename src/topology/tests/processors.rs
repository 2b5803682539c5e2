//! Processors: state handles, timers, forwarding.

use super::driver::{Driver, text};
use crate::codec::{I64Be, Utf8};
use crate::operators::{Context, Declare, MapState, OnError, ProcessError, Processor, Timers, ValueState};
use crate::record::Record;
use crate::time::Millis;
use crate::topology::Builder;

type Text = Record<String, String>;

/// Reports a key that was silent for `patience_ms`.
struct Watch {
    patience_ms: Millis,
    last: ValueState<String, i64>,
    timers: Timers,
}

impl Watch {
    fn new(declare: &mut Declare<'_>, patience_ms: Millis) -> Self {
        Watch {
            patience_ms,
            last: declare.value("last", Utf8, I64Be),
            timers: declare.timers(),
        }
    }
}

impl Processor for Watch {
    type KeyIn = String;
    type ValueIn = String;
    type KeyOut = String;
    type ValueOut = String;

    fn declare(declare: &mut Declare<'_>) -> Self {
        Watch::new(declare, 100)
    }

    fn process(&self, record: Text, cx: &mut Context<'_, String, String>) -> Result<(), ProcessError> {
        let key = record.key.ok_or_else(|| ProcessError::bad_record("no key"))?;
        if let Some(last) = self.last.get(cx, &key)? {
            cx.cancel_timer(&self.timers, last + self.patience_ms, key.as_bytes());
        }
        self.last.put(cx, &key, &record.timestamp_ms)?;
        cx.timer_at(&self.timers, record.timestamp_ms + self.patience_ms, key.as_bytes());
        Ok(())
    }

    fn on_timer(&self, time_ms: Millis, tag: &[u8], cx: &mut Context<'_, String, String>) -> Result<(), ProcessError> {
        assert_eq!(cx.origin(), None);
        let key = String::from_utf8_lossy(tag).into_owned();
        self.last.delete(cx, &key)?;
        let now = cx.stream_time_ms();
        cx.forward(Record::new(key, format!("silent, noticed at {now}"), time_ms))
    }
}

fn watch() -> Builder {
    let builder = Builder::new();
    builder.stream(&text("in")).process::<Watch>("watch").to(&text("out"));
    builder
}

#[test]
fn timers_fire_in_order_of_time_then_tag_after_the_record_that_makes_them_due() {
    let mut driver = Driver::new(watch());
    for (key, time) in [("b", 10), ("a", 10), ("c", 5), ("d", 50)] {
        assert!(driver.send("in", (key, "", time)).is_empty());
    }
    assert!(driver.send("in", ("d", "", 104)).is_empty());
    let fired = driver.send("in", ("e", "", 110));
    let silent = |key: &str, at: i64| format!("{key}=silent, noticed at 110@{at}");
    assert_eq!(fired, [silent("c", 105), silent("a", 110), silent("b", 110)]);
    assert_eq!(driver.stored("watch-timers"), 2);
    assert_eq!(
        driver.send("in", ("f", "", 204)),
        ["d=silent, noticed at 204@204"],
        "the moved timer"
    );
}

#[test]
fn timers_survive_a_restart_and_processors_can_have_parameters() {
    let impatient = || {
        let builder = Builder::new();
        builder
            .stream(&text("in"))
            .process_with("watch", |declare| Watch::new(declare, 7))
            .to(&text("out"));
        builder
    };
    let mut driver = Driver::new(impatient());
    driver.send("in", ("a", "", 10));
    let mut driver = driver.restart(impatient());
    assert_eq!(driver.send("in", ("b", "", 17)), ["a=silent, noticed at 17@17"]);
}

#[test]
fn a_processors_bad_record_answers_to_the_policy() {
    let mut driver = Driver::new(watch());
    let failure = driver.try_send("in", (None, Some("v"), 1)).unwrap_err().to_string();
    assert_eq!(failure, "record at in-0@42 failed in node watch: no key");
    driver.set_policy(OnError::Skip);
    assert!(driver.send("in", (None, Some("v"), 1)).is_empty());
    assert_eq!(driver.counts("watch").skipped, 1);
}

/// Counts down: each timer sets the next one, the last ones for a time that has passed.
struct Chain {
    timers: Timers,
}

impl Processor for Chain {
    type KeyIn = String;
    type ValueIn = String;
    type KeyOut = String;
    type ValueOut = String;

    fn declare(declare: &mut Declare<'_>) -> Self {
        Chain {
            timers: declare.timers(),
        }
    }

    fn process(&self, record: Text, cx: &mut Context<'_, String, String>) -> Result<(), ProcessError> {
        cx.timer_at(&self.timers, record.timestamp_ms - 5, b"3");
        Ok(())
    }

    fn on_timer(&self, time_ms: Millis, tag: &[u8], cx: &mut Context<'_, String, String>) -> Result<(), ProcessError> {
        let left = tag[0];
        cx.forward(Record::new("left".into(), char::from(left).into(), time_ms))?;
        cx.timer_at(&self.timers, time_ms - 100, &[left - 1]);
        Ok(())
    }
}

#[test]
fn a_timer_that_is_due_already_fires_at_once_and_chains_of_timers_come_to_an_end() {
    let builder = Builder::new();
    builder.stream(&text("in")).process::<Chain>("chain").to(&text("out"));
    let mut driver = Driver::new(builder);
    let fired = driver.send("in", ("k", "", 102));
    assert_eq!(
        fired,
        [
            "left=3@97",
            "left=2@98",
            "left=1@99",
            "left=0@100",
            "left=/@101",
            "left=.@102"
        ]
    );
    assert_eq!(driver.stored("chain-timers"), 1);
}

/// Keeps all values of all keys, and answers a range of them.
struct Shelf {
    values: MapState<String, String>,
}

impl Processor for Shelf {
    type KeyIn = String;
    type ValueIn = String;
    type KeyOut = String;
    type ValueOut = String;

    fn declare(declare: &mut Declare<'_>) -> Self {
        Shelf {
            values: declare.map("values", Utf8, Utf8),
        }
    }

    fn process(&self, record: Text, cx: &mut Context<'_, String, String>) -> Result<(), ProcessError> {
        let (Some(key), Some(value)) = (record.key, record.value) else {
            return Err(ProcessError::bad_record("key and value are needed"));
        };
        let origin = cx.origin().map(|origin| origin.to_string());
        assert_eq!(origin.as_deref(), Some("in-0@42"));
        let mut found = Vec::new();
        let mut note = |key: String, value: String| {
            found.push(key + &value);
            found.len() < 3
        };
        let to = value.clone();
        match key.as_str() {
            "all" => self.values.scan(cx, .., &mut note)?,
            "from" => self.values.scan(cx, value.., &mut note)?,
            "to" => self.values.scan(cx, ..to, &mut note)?,
            "through" => self.values.scan(cx, ..=to, &mut note)?,
            "delete" => self.values.delete(cx, &value)?,
            "get" => found.extend(self.values.get(cx, &value)?),
            "negative" => cx.forward(Record::new(key.clone(), value, -1))?,
            _ => self.values.put(cx, &key, &value)?,
        }
        cx.forward(Record::new(key, found.join(","), record.timestamp_ms))
    }
}

#[test]
fn a_map_state_reads_ranges_in_order_until_told_to_stop() {
    let builder = Builder::new();
    builder.stream(&text("in")).process::<Shelf>("shelf").to(&text("out"));
    let mut driver = Driver::new(builder);
    for key in ["d", "b", "a", "c"] {
        driver.send("in", (key, "=", 1));
    }
    let mut ask = |key, value| driver.send("in", (key, value, 2)).pop().unwrap();
    assert_eq!(ask("all", ""), "all=a=,b=,c=@2");
    assert_eq!(ask("from", "c"), "from=c=,d=@2");
    assert_eq!(ask("to", "b"), "to=a=@2");
    assert_eq!(ask("to", ""), "to=@2");
    assert_eq!(ask("through", "b"), "through=a=,b=@2");
    ask("delete", "b");
    assert_eq!(ask("get", "b"), "get=@2");
    assert_eq!(ask("through", "c"), "through=a=,c=@2");
    let failure = driver.try_send("in", ("negative", "x", 2)).unwrap_err().to_string();
    assert!(failure.contains("negative timestamp -1"), "{failure}");
}

#[test]
fn stores_are_declared_with_the_name_of_their_node() {
    let topology = watch().build().unwrap();
    let stores = &topology.plan().sub_topologies[0].stores;
    let shown: Vec<_> = stores
        .iter()
        .map(|s| (s.name.as_str(), s.ordered, s.codecs.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            ("watch-last", false, "utf8 -> row of i64-be"),
            ("watch-timers", true, "timers")
        ]
    );
}

#[test]
fn a_processor_may_change_the_key() {
    let builder = Builder::new();
    builder
        .stream(&text("in"))
        .process::<Shelf>("shelf")
        .group_by_key()
        .count("counts");
    let topology = builder.build().unwrap();
    assert_eq!(&*topology.plan().repartitions[0].name, "counts");
}
