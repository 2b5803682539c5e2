//! Applications that start with another number of tasks, and from rows.

use std::sync::Arc;
use std::time::Duration;

use crate::codec::{I64Be, Utf8, Windowed};
use crate::durability::Durability;
use crate::durability::savepoint::{Form, SavepointName};
use crate::errors::Coded;
use crate::ids::TopicPartition;
use crate::instance::ScratchStates;
use crate::offline::{
    At, Catalogue, Import, OfflineError, Offsets, Reshard, Resharded, Scope, Scratch, StoreShape, Unseen, View, hex,
};
use crate::operators::{Context, Declare, ProcessError, Processor, StartFirst, TumblingWindows, ValueState};
use crate::record::Record;
use crate::savepoint::{Archive, Origin};
use crate::topology::{Builder, Topic, Topology};

use super::TestCluster;
use super::savepoints::{put_in_place, simulated_store};

fn words() -> Topic<String, String> {
    Topic::new("words", Utf8, Utf8)
}

/// Counts words, in all and per window.
fn counting() -> Topology {
    let builder = Builder::new();
    let stream = builder.stream(&words());
    stream.group_by_key().count("count");
    let windows = TumblingWindows::of(Duration::from_millis(100)).grace(Duration::from_secs(3_600));
    stream.group_by_key().windowed_by(windows).count("per-window");
    builder.build().expect("the topology is right")
}

fn pipe(cluster: &mut TestCluster, numbers: std::ops::Range<i64>) {
    for number in numbers {
        let word = format!("w{}", number % 23);
        cluster.pipe(&words(), Record::new(word, String::new(), number));
    }
}

fn cluster(topology: Topology, partitions: i32) -> TestCluster {
    let cluster = TestCluster::new(topology)
        .partitions(partitions)
        .durability(Durability::Snapshot);
    cluster.savepoints()
}

fn name(text: &str) -> SavepointName {
    text.parse().expect("a name")
}

/// A savepoint of another number of tasks of one that there is.
fn reshard(
    cluster: &mut TestCluster,
    (from, to): (&str, &str),
    (before, after): (i32, i32),
    offsets: Offsets<'_>,
) -> Result<Resharded, OfflineError> {
    let random = std::cell::Cell::new(100);
    let reshard = Reshard {
        store: cluster.world().calm_store(),
        from: name(from),
        to: name(to),
        tasks_before: before,
        tasks_after: after,
        offsets,
        unchecked: false,
        random: &|| {
            random.set(random.get() + 1);
            random.get()
        },
        now_ms: 5,
    };
    reshard.run(&Scratch::new(None, 0), &Unseen)
}

/// An application of so many partitions on a log of its own, which starts from a savepoint of another one.
fn start(of: &mut TestCluster, savepoint: &str, partitions: i32) -> TestCluster {
    let mut started = cluster(counting(), partitions);
    started.setup.instances = 0;
    let archive = Archive {
        store: of.world().calm_store(),
    };
    let name = name(savepoint);
    let savepoint = archive.read(&name).expect("it is complete");
    let origin = Origin::of_savepoint(archive.store, &savepoint, &name.folder());
    let scratch = ScratchStates::new("no databases on disk in tests".into());
    put_in_place(&origin, started.world(), &scratch, false).expect("it can be started");
    started.world().add();
    started
}

fn counts(cluster: &mut TestCluster) -> Vec<Option<i64>> {
    let word = |number| format!("w{number}");
    (0..23)
        .map(|number| cluster.look_up("count", Utf8, I64Be, &word(number)))
        .collect()
}

fn per_window(cluster: &mut TestCluster) -> Vec<Option<i64>> {
    let windows = [0, 100, 200, 300].into_iter().flat_map(|start_ms| {
        (0..23).map(move |number| Windowed {
            start_ms,
            end_ms: start_ms + 100,
            key: format!("w{number}"),
        })
    });
    let codec = || StartFirst {
        key: Arc::new(Utf8),
        size_ms: 100,
    };
    windows
        .map(|window| cluster.look_up("per-window", codec(), I64Be, &window))
        .collect()
}

/// All rows of the newest state of all tasks, as lines that can be imported.
fn lines(cluster: &mut TestCluster, with_bytes: bool) -> Vec<String> {
    let catalogue = Catalogue::read(cluster.world().calm_store(), Scope::ALL, &Unseen).expect("it answers");
    let mut lines = Vec::new();
    let pointers = catalogue.pointers(&*cluster.log(), "test").expect("nothing is pending");
    for task in catalogue.tasks() {
        let base = catalogue.newest(task).expect("a base");
        let pointer = pointers[&task].clone().expect("it is committed");
        let branch = catalogue
            .branch(base, &At::Committed(pointer.state.increment))
            .expect("it is whole");
        let view =
            View::of_repository(&catalogue, base, &branch, &Scratch::new(None, 0), &Unseen).expect("it is whole");
        for spec in &view.stores {
            let (store, shape) = (view.store(&spec.name).expect("a store").0, StoreShape::of(&spec.codecs));
            for row in view.rows(store, &[], &[]) {
                let (key, value) = row.expect("a row");
                let read = shape.read(&key, &value);
                let is_clock = read.key.is_none();
                let bytes = (with_bytes || is_clock).then(|| (hex(&key), hex(&value)));
                let (key, value) = bytes.unzip();
                let line = serde_json::json!({
                    "task": task.to_string(), "store": spec.name, "key": key, "value": value,
                    "as": {"key": read.key, "time_ms": read.time_ms, "value": read.value},
                });
                lines.push(line.to_string());
            }
        }
    }
    lines
}

#[test]
fn an_application_goes_on_with_more_or_fewer_tasks_and_counts_everything_once() {
    let mut before = cluster(counting(), 3);
    pipe(&mut before, 0..350);
    before.settle();
    before.savepoint("three");
    let expected = counts(&mut before);
    for (savepoint, after) in [("five", 5), ("two", 2), ("one", 1)] {
        let fresh = cluster(counting(), after).log();
        let done = reshard(
            &mut before,
            ("three", savepoint),
            (3, after),
            Offsets::Earliest(&*fresh),
        )
        .expect("it can be");
        assert_eq!((done.tasks_before, done.tasks_after), (3, after as usize));
        assert_eq!(done.rows["count"], 23);
        let mut started = start(&mut before, savepoint, after);
        started.settle();
        pipe(&mut started, 350..400);
        started.settle();
        let mut whole = cluster(counting(), 3);
        pipe(&mut whole, 0..400);
        whole.settle();
        assert_eq!(counts(&mut started), counts(&mut whole), "{after} tasks");
        assert_ne!(counts(&mut started), expected, "it has gone on");
        // Windows that were begun before go on, too.
        assert_eq!(per_window(&mut started), per_window(&mut whole), "{after} tasks");
    }
}

#[test]
fn a_topic_that_has_got_more_partitions_goes_on_where_it_was() {
    let mut before = cluster(counting(), 3);
    pipe(&mut before, 0..100);
    before.settle();
    before.try_savepoint("three", Form::Canonical).expect("it can be taken");
    reshard(&mut before, ("three", "four"), (3, 4), Offsets::Grown).expect("it can be");
    let archive = Archive {
        store: before.world().calm_store(),
    };
    let (three, four) = (
        archive.read(&name("three")).expect("there"),
        archive.read(&name("four")).expect("there"),
    );
    assert_eq!(four.parts.len(), 4);
    for part in &four.parts {
        let input = TopicPartition::new("words", part.task.partition);
        let was = three.part(part.task).map_or(0, |three| three.cut[&input]);
        assert_eq!(part.cut[&input], was);
    }
    let verified = archive.verify(&name("four"), &mut |_| {}).expect("it answers");
    assert!(verified.problems.is_empty() && verified.bytes > 0, "{verified:?}");
}

#[test]
fn a_reshard_that_was_cut_off_is_no_savepoint_and_is_refused_until_it_is_removed() {
    let mut before = cluster(counting(), 3);
    pipe(&mut before, 0..100);
    before.settle();
    before.savepoint("three");
    let store = simulated_store(&mut before);
    reshard(&mut before, ("three", "five"), (3, 5), Offsets::Grown).expect("it can be");
    let again = reshard(&mut before, ("three", "five"), (3, 5), Offsets::Grown).expect_err("it is there");
    assert_eq!(again.code(), "TG4311");
    // As if the process had ended before the last object.
    store.put_back(&name("five").document(), None);
    let archive = Archive {
        store: before.world().calm_store(),
    };
    assert!(archive.read(&name("five")).is_err(), "without its document it is none");
    let again = reshard(&mut before, ("three", "five"), (3, 5), Offsets::Grown).expect_err("it was cut off");
    assert_eq!(again.code(), "TG4312");
    assert!(again.to_string().contains("savepoint delete five"), "{again}");
    archive.delete(&name("five")).expect("what is left can be removed");
    reshard(&mut before, ("three", "five"), (3, 5), Offsets::Grown).expect("it can be");
    let other = reshard(&mut before, ("three", "seven"), (4, 7), Offsets::Grown).expect_err("it has three");
    assert_eq!(other.code(), "TG4302");
    archive.delete(&name("seven")).ok();
    let none = reshard(
        &mut before,
        ("three", "seven"),
        (3, 7),
        Offsets::Given(Default::default()),
    )
    .expect_err("no offsets");
    assert!(
        none.code() == "TG4314" && none.to_string().contains("words-0"),
        "{none}"
    );
}

/// Keeps something under a key that is not that of the record.
struct ByLength(ValueState<i64, i64>);

impl Processor for ByLength {
    type KeyIn = String;
    type ValueIn = String;
    type KeyOut = String;
    type ValueOut = String;

    fn declare(declare: &mut Declare<'_>) -> Self {
        ByLength(declare.value("length", I64Be, I64Be))
    }

    fn process(
        &self,
        record: Record<String, String>,
        cx: &mut Context<'_, String, String>,
    ) -> Result<(), ProcessError> {
        let length = record.key.map_or(0, |key| key.len() as i64);
        self.0.put(cx, &length, &record.timestamp_ms)
    }
}

#[test]
fn stores_whose_keys_are_not_those_of_the_records_are_refused_and_so_is_what_cannot_be_checked() {
    let builder = Builder::new();
    builder
        .stream(&words())
        .process::<ByLength>("lengths")
        .to(&Topic::new("out", Utf8, Utf8));
    let topology = builder.build().expect("the topology is right");
    let mut before = cluster(topology, 3);
    pipe(&mut before, 0..100);
    before.settle();
    before.savepoint("three");
    let refused = reshard(&mut before, ("three", "five"), (3, 5), Offsets::Grown).expect_err("it cannot be");
    assert_eq!(refused.code(), "TG4313");
    assert!(
        refused.to_string().contains("lengths-length") && refused.to_string().contains("of the records"),
        "{refused}"
    );
    let mut alone = cluster(counting(), 3);
    pipe(&mut alone, 0..10);
    alone.settle();
    alone.savepoint("three");
    reshard(&mut alone, ("three", "one"), (3, 1), Offsets::Grown).expect("it can be");
    let refused = reshard(&mut alone, ("one", "two"), (1, 2), Offsets::Grown).expect_err("nothing shows it");
    assert!(
        refused.code() == "TG4313" && refused.to_string().contains("--unchecked"),
        "{refused}"
    );
}

#[test]
fn rows_become_the_state_of_an_application() {
    let mut before = cluster(counting(), 3);
    pipe(&mut before, 0..200);
    before.settle();
    // Until there is a base of every task.
    for _ in 0..6 {
        before.advance(Duration::from_secs(2));
        before.settle();
    }
    let topology = counting();
    for (savepoint, with_bytes) in [("of-bytes", true), ("of-values", false)] {
        let rows = lines(&mut before, with_bytes);
        let mut lines = rows.iter().map(|line| Ok(line.clone()));
        let fresh = cluster(counting(), 4).log();
        let random = std::cell::Cell::new(9);
        let import = Import {
            store: before.world().calm_store(),
            to: name(savepoint),
            application: "test",
            topology: &topology,
            tasks: 4,
            offsets: Offsets::Latest(&*fresh),
            random: &|| {
                random.set(random.get() + 1);
                random.get()
            },
            now_ms: 5,
        };
        let imported = import.run(&mut lines, &Scratch::new(None, 0)).expect("rows");
        assert_eq!((imported.tasks, imported.rows["count"]), (4, 23));
        let mut started = start(&mut before, savepoint, 4);
        started.settle();
        pipe(&mut started, 200..230);
        started.settle();
        let mut whole = cluster(counting(), 3);
        pipe(&mut whole, 0..230);
        whole.settle();
        assert_eq!(counts(&mut started), counts(&mut whole), "{savepoint}");
    }
}

#[test]
fn a_row_that_cannot_be_taken_is_named_by_its_line_and_nothing_is_published() {
    let mut before = cluster(counting(), 2);
    before.settle();
    let topology = counting();
    let archive = Archive {
        store: before.world().calm_store(),
    };
    for (line, code, word) in [
        ("{", "TG4315", "line 2"),
        (
            r#"{"store":"nix","key":"00","value":"00"}"#,
            "TG4315",
            "it has count, per-window",
        ),
        (r#"{"store":"count","value":"00"}"#, "TG4315", "neither key"),
        (r#"{"store":"count","key":"0","value":"00"}"#, "TG4315", "hexadecimal"),
        (r#"{"store":"count","as":{"key":"a","value":1}}"#, "TG4315", "time_ms"),
        (
            r#"{"store":"count","as":{"key":"a","value":"b","time_ms":1}}"#,
            "TG4315",
            "integer",
        ),
    ] {
        let rows = ["", line].map(|line| Ok(line.to_owned()));
        let import = Import {
            store: Arc::clone(&archive.store),
            to: name("wrong"),
            application: "test",
            topology: &topology,
            tasks: 2,
            offsets: Offsets::Grown,
            random: &|| 7,
            now_ms: 5,
        };
        let error = import
            .run(&mut rows.into_iter(), &Scratch::new(None, 0))
            .expect_err("it is wrong");
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(word), "{error}");
        assert!(archive.read(&name("wrong")).is_err());
    }
}
