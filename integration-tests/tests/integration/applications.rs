//! Whole instances on real Kafka: what users are promised where input or luck is bad.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tidegate::codec::{Bytes, I64Be, Utf8};
use tidegate::errors::Coded;
use tidegate::ids::TopicPartition;
use tidegate::instance::{Instance, InstanceError, InstanceHandle, InstanceSettings, Ports};
use tidegate::log::kafka::KafkaLog;
use tidegate::log::{Isolation, Log, OutRecord, OutTopic};
use tidegate::operators::OnError;
use tidegate::partitioner::partition_for;
use tidegate::record::{Header, Headers};
use tidegate::time::SystemClock;
use tidegate::topology::{Builder, Topic, Topology};
use tidegate_integration_tests::Broker;
use tidegate_integration_tests::broker::unique;
use tidegate_integration_tests::drive::*;

/// The node of the topologies below that parses text, and the one that dislikes 13.
const PARSE: &str = "map-values-1";
const DISLIKE: &str = "filter-2";

/// An application with one input and one output topic, and a state directory.
struct Application {
    log: Arc<KafkaLog>,
    name: String,
    input: String,
    output: String,
    dead_letters: String,
    state: TempDir,
}

impl Application {
    fn new(log: Arc<KafkaLog>, name: &str) -> Self {
        Self::with_input_config(log, name, &[])
    }

    fn with_input_config(log: Arc<KafkaLog>, name: &str, config: &[(&str, &str)]) -> Self {
        let application = Self {
            name: unique(name),
            input: unique("input"),
            output: unique("output"),
            dead_letters: unique("dead-letters"),
            state: tempfile::tempdir().expect("a temporary directory"),
            log,
        };
        create(&*application.log, &application.input, 1, config);
        create(&*application.log, &application.output, 1, config);
        create(&*application.log, &application.dead_letters, 1, &[]);
        application
    }

    fn settings(&self) -> InstanceSettings {
        let mut settings = InstanceSettings::new(&self.name);
        settings.commit_interval = Duration::from_millis(20);
        settings.session_timeout = Duration::from_secs(6);
        settings.state.dir = self.state.path().to_owned();
        settings.dead_letter_topic = Some(self.dead_letters.clone());
        settings
    }

    /// Sums the numbers of each key, all but 13, and says each new sum.
    fn sums(&self) -> Arc<Topology> {
        let builder = Builder::new();
        builder
            .stream(&Topic::new(self.input.as_str(), Utf8, Utf8))
            .try_map_values(|text| text.parse::<i64>())
            .try_filter(|record| match record.value {
                Some(13) => Err("unlucky"),
                _ => Ok(true),
            })
            .group_by_key()
            .reduce("sums", |sum, value| sum + value)
            .to_stream()
            .to(&Topic::new(self.output.as_str(), Utf8, I64Be));
        Arc::new(builder.build().expect("the topology is right"))
    }

    fn start(&self, settings: InstanceSettings) -> Result<InstanceHandle, InstanceError> {
        start(&self.log, &self.sums(), settings)
    }

    /// Runs until the whole input is committed, and stops.
    fn run_to_the_end(&self, settings: InstanceSettings) -> InstanceHandle {
        let instance = self.start(settings).expect("everything is there");
        self.wait_until_consumed(&instance);
        instance
    }

    /// Waits until the group has committed everything that the input holds.
    fn wait_until_consumed(&self, instance: &InstanceHandle) {
        let partition = TopicPartition::new(self.input.as_str(), 0);
        wait_for("the input is committed to its end", || {
            assert!(!instance.is_finished(), "the instance ended early");
            let offsets = self
                .log
                .admin()
                .committed(&self.name, std::slice::from_ref(&partition), TICK);
            let at = offsets.ok().and_then(|offsets| offsets[0].as_ref().map(|at| at.offset));
            at.is_some_and(|at| at >= high(&*self.log, &self.input, 0))
        });
    }

    /// The error of an instance that ends by itself.
    fn failure_of(&self, settings: InstanceSettings) -> InstanceError {
        let instance = match self.start(settings) {
            Ok(instance) => instance,
            Err(refused) => return refused,
        };
        wait_for("the instance ends", || {
            std::thread::park_timeout(TICK);
            instance.is_finished()
        });
        instance.join().expect_err("it ends with an error")
    }

    fn write(&self, values: &[&str]) {
        let records: Vec<Raw<'_>> = values.iter().map(|value| raw(b"key", value.as_bytes())).collect();
        write_records(&*self.log, &self.input, &records);
    }

    fn sums_said(&self) -> Vec<i64> {
        let number = |read: Read| i64::from_be_bytes(read.value.expect("a sum")[..].try_into().expect("eight bytes"));
        committed_records(&*self.log, &self.output)
            .into_iter()
            .map(number)
            .collect()
    }
}

fn start(
    log: &Arc<KafkaLog>,
    topology: &Arc<Topology>,
    settings: InstanceSettings,
) -> Result<InstanceHandle, InstanceError> {
    let log: Arc<dyn Log> = Arc::<KafkaLog>::clone(log);
    Instance::start(
        Arc::clone(topology),
        settings,
        Ports::new(log, Arc::new(SystemClock::default())),
    )
}

fn end(instance: InstanceHandle) {
    instance.stop();
    instance.join().expect("a clean end");
}

#[derive(Clone, Debug, Default)]
pub(super) struct Raw<'a> {
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    timestamp_ms: i64,
    headers: Headers,
}

pub(super) fn raw<'a>(key: &'a [u8], value: &'a [u8]) -> Raw<'a> {
    Raw {
        key: Some(key),
        value: Some(value),
        timestamp_ms: 1_000,
        headers: Headers::default(),
    }
}

/// Writes records to partition 0 in one transaction.
pub(super) fn write_records(log: &dyn Log, topic: &str, records: &[Raw<'_>]) {
    let end = high(log, topic, 0) + records.len() as i64 + 1;
    let id = unique("writer");
    let mut producer = producer(log, Some(&id), &[topic]);
    producer.begin().expect("a transaction");
    for record in records {
        let record = OutRecord {
            topic: OutTopic(0),
            partition: 0,
            key: record.key,
            value: record.value,
            timestamp_ms: record.timestamp_ms,
            headers: &record.headers,
        };
        producer.send(&record).expect("the record is queued");
    }
    finish(&mut *producer, commit_of(no_group(), &[])).expect("the transaction commits");
    wait_for("the marker is written", || high(log, topic, 0) == end);
}

fn committed_records(log: &dyn Log, topic: &str) -> Vec<Read> {
    let end = high(log, topic, 0);
    let mut consumer = reader(log, topic, 0, 0, Isolation::ReadCommitted);
    read_until(&mut *consumer, end)
}

fn shared() -> Arc<KafkaLog> {
    Broker::shared().log()
}

#[test]
fn a_bad_record_stops_the_instance_with_its_coordinates_and_a_policy_lets_it_go_on() {
    let app = Application::new(shared(), "stops");
    app.write(&["1", "2", "three", "4"]);
    let error = app.failure_of(app.settings());
    assert_eq!(error.code(), "TG4001", "{error}");
    let coordinates = format!("{}-0@2", app.input);
    assert!(
        error.to_string().contains(&coordinates) && error.to_string().contains(PARSE),
        "{error}"
    );

    let mut skipping = app.settings();
    skipping.on_error.insert(PARSE.to_owned(), OnError::Skip);
    let instance = app.run_to_the_end(skipping);
    assert_eq!(instance.counters().node_counts()[PARSE].skipped, 1);
    end(instance);
    assert_eq!(
        app.sums_said(),
        [1, 3, 7],
        "what had stopped the instance is the only thing missing"
    );
}

#[test]
fn bytes_that_do_not_decode_are_bad_records_of_the_source() {
    let app = Application::new(shared(), "undecodable");
    write_records(&*app.log, &app.input, &[raw(b"key", b"\xff\xfe"), raw(b"key", b"5")]);
    let error = app.failure_of(app.settings());
    assert_eq!(error.code(), "TG4001");
    assert!(error.to_string().contains(&format!("{}-0@0", app.input)), "{error}");
    let mut skipping = app.settings();
    skipping.default_on_error = OnError::Skip;
    end(app.run_to_the_end(skipping));
    assert_eq!(app.sums_said(), [5]);
}

#[test]
fn a_dead_letter_is_part_of_its_epochs_transaction() {
    let app = Application::new(shared(), "dead-letters");
    app.write(&["1", "two", "13"]);
    let mut settings = app.settings();
    settings.on_error.insert(PARSE.to_owned(), OnError::DeadLetter);
    let error = app.failure_of(settings.clone());
    assert!(error.to_string().contains("unlucky"), "{error}");
    assert!(
        committed_records(&*app.log, &app.dead_letters).is_empty(),
        "the epoch that 13 stopped has left nothing"
    );

    settings.on_error.insert(DISLIKE.to_owned(), OnError::Skip);
    end(app.run_to_the_end(settings));
    let letters = committed_records(&*app.log, &app.dead_letters);
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(
        (letters[0].key.as_deref(), letters[0].text().as_str()),
        (Some(&b"key"[..]), "two")
    );
    let header = |name: &str| {
        let header = letters[0].headers.last(name).and_then(|header| header.value.clone());
        String::from_utf8(header.unwrap_or_else(|| panic!("header {name} is there"))).expect("text")
    };
    assert_eq!(header("tidegate.error.topic"), app.input);
    assert_eq!(header("tidegate.error.partition"), "0");
    assert_eq!(header("tidegate.error.offset"), "1");
    assert_eq!(header("tidegate.error.node"), PARSE);
    assert_eq!(header("tidegate.error.message"), "invalid digit found in string");
    assert_eq!(app.sums_said(), [1]);
}

#[test]
fn nulls_headers_and_times_pass_as_they_are() {
    let app = Application::new(shared(), "nulls");
    let builder = Builder::new();
    builder
        .stream(&Topic::new(app.input.as_str(), Bytes, Bytes))
        .to(&Topic::new(app.output.as_str(), Bytes, Bytes));
    let topology = Arc::new(builder.build().expect("the topology is right"));
    let headers = Headers::new(vec![
        Header {
            name: "trace".into(),
            value: Some(b"\x00\xff".to_vec()),
        },
        Header {
            name: "empty".into(),
            value: None,
        },
        Header {
            name: "trace".into(),
            value: Some(Vec::new()),
        },
    ]);
    let records = [
        raw(b"key", b"value"),
        Raw {
            key: None,
            timestamp_ms: 5,
            ..raw(b"", b"keyless")
        },
        Raw {
            value: None,
            ..raw(b"tombstone", b"")
        },
        Raw {
            headers: headers.clone(),
            ..raw(b"", b"")
        },
        Raw {
            timestamp_ms: 7,
            ..Raw::default()
        },
    ];
    write_records(&*app.log, &app.input, &records);
    let instance = start(&app.log, &topology, app.settings()).expect("everything is there");
    app.wait_until_consumed(&instance);
    end(instance);
    let read = committed_records(&*app.log, &app.output);
    assert_eq!(read.len(), records.len());
    for (read, written) in read.iter().zip(&records) {
        assert_eq!(
            (read.key.as_deref(), read.value.as_deref(), read.timestamp_ms),
            (written.key, written.value, written.timestamp_ms)
        );
        assert_eq!(read.headers, written.headers);
    }
}

#[test]
fn a_megabyte_passes_through_and_a_record_above_the_limit_is_named() {
    let app = Application::with_input_config(shared(), "large", &[("max.message.bytes", "1048588")]);
    let builder = Builder::new();
    builder
        .stream(&Topic::new(app.input.as_str(), Utf8, Utf8))
        .map_values(|text| text.replace("double", &"x".repeat(1_100_000)))
        .to(&Topic::new(app.output.as_str(), Utf8, Utf8));
    let topology = Arc::new(builder.build().expect("the topology is right"));
    let megabyte = "m".repeat(999_000);
    app.write(&[&megabyte, &megabyte]);
    let instance = start(&app.log, &topology, app.settings()).expect("everything is there");
    app.wait_until_consumed(&instance);
    app.write(&["double"]);
    wait_for("the instance ends", || {
        std::thread::park_timeout(TICK);
        instance.is_finished()
    });
    let error = instance.join().expect_err("it ends with an error");
    assert_eq!(error.code(), "TG1011", "{error}");
    assert!(
        error.to_string().contains(&app.output) && error.to_string().contains("1100003"),
        "{error}"
    );
    let sizes: Vec<usize> = committed_records(&*app.log, &app.output)
        .iter()
        .map(|read| read.value.as_ref().map_or(0, Vec::len))
        .collect();
    assert_eq!(sizes, [999_000, 999_000]);
}

#[test]
fn topics_that_do_not_fit_are_refused_before_anything_runs() {
    let app = Application::new(shared(), "misfits");
    let missing = Application {
        input: unique("nowhere"),
        state: tempfile::tempdir().expect("a temporary directory"),
        log: Arc::clone(&app.log),
        name: app.name.clone(),
        output: app.output.clone(),
        dead_letters: app.dead_letters.clone(),
    };
    let mut impatient = app.settings();
    impatient.startup_timeout = Duration::from_millis(500);
    let error = missing.start(impatient).err().expect("it is refused");
    assert_eq!(error.code(), "TG4102");
    assert!(error.to_string().contains(&missing.input), "{error}");

    let other = unique("other");
    create(&*app.log, &other, 3, &[]);
    let builder = Builder::new();
    let table = builder.table(&Topic::new(other.as_str(), Utf8, Utf8), "others");
    builder
        .stream(&Topic::new(app.input.as_str(), Utf8, Utf8))
        .join_table("joined", &table, |left: String, right: String| left + &right)
        .to(&Topic::new(app.output.as_str(), Utf8, Utf8));
    let topology = Arc::new(builder.build().expect("the topology is right"));
    let error = start(&app.log, &topology, app.settings()).err().expect("it is refused");
    assert_eq!(error.code(), "TG2012", "{error}");
    for part in [app.input.as_str(), other.as_str(), "1", "3"] {
        assert!(error.to_string().contains(part), "{error}");
    }

    let changelog = format!("{}-sums-changelog", app.name);
    for (setting, config) in [
        // One that keeps all for ever is as another strategy makes it, and is altered.
        (
            "cleanup.policy",
            &[("cleanup.policy", "delete"), ("retention.ms", "86400000")][..],
        ),
        (
            "cleanup.policy",
            &[("cleanup.policy", "delete"), ("retention.bytes", "1000000")],
        ),
        (
            "delete.retention.ms",
            &[("cleanup.policy", "compact"), ("delete.retention.ms", "60000")],
        ),
    ] {
        create(&*app.log, &changelog, 1, config);
        let error = app.start(app.settings()).err().expect("it is refused");
        assert_eq!(error.code(), "TG4103");
        assert!(
            error.to_string().contains(&changelog) && error.to_string().contains(setting),
            "{error}"
        );
        app.log
            .admin()
            .delete_topic(&changelog, PATIENCE)
            .expect("the topic can be deleted");
    }
}

#[test]
fn a_changed_topology_is_refused_with_what_changed() {
    let app = Application::new(shared(), "changed");
    app.write(&["1"]);
    end(app.run_to_the_end(app.settings()));
    let builder = Builder::new();
    builder
        .stream(&Topic::new(app.input.as_str(), Utf8, Utf8))
        .group_by_key()
        .count("tallies")
        .to_stream()
        .to(&Topic::new(app.output.as_str(), Utf8, I64Be));
    let topology = Arc::new(builder.build().expect("the topology is right"));
    let error = start(&app.log, &topology, app.settings()).err().expect("it is refused");
    assert_eq!(error.code(), "TG4104");
    assert!(
        error.to_string().contains("sums") && error.to_string().contains("tallies"),
        "{error}"
    );
    assert_eq!(app.sums_said(), [1]);
}

#[test]
fn a_state_directory_is_used_by_its_one_application_and_process_only() {
    let app = Application::new(shared(), "directories");
    app.write(&["1"]);
    let instance = app.run_to_the_end(app.settings());
    let error = app.start(app.settings()).err().expect("it is refused");
    assert_eq!(error.code(), "TG1101");
    let directory = app.state.path().display().to_string();
    assert!(error.to_string().contains(&directory), "{error}");
    end(instance);

    let other = Application::new(Arc::clone(&app.log), "others");
    let brought = other.state.path().join(&other.name);
    std::fs::rename(app.state.path().join(&app.name), &brought).expect("the directory can be moved");
    let error = other.start(other.settings()).err().expect("it is refused");
    assert_eq!(error.code(), "TG1102");
    let brought = brought.display().to_string();
    assert!(
        error.to_string().contains(&brought) && error.to_string().contains(&app.name),
        "{error}"
    );
}

/// All files below `folder` whose name starts with `prefix`.
fn files(folder: &Path, prefix: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        if path.is_dir() {
            found.extend(files(&path, prefix));
        } else if name.is_some_and(|name| name.starts_with(prefix)) {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_damaged_database_is_never_an_empty_start_and_a_removed_one_is_rebuilt() {
    let app = Application::new(shared(), "damaged");
    app.write(&["1", "2"]);
    end(app.run_to_the_end(app.settings()));
    let manifests = files(app.state.path(), "MANIFEST");
    assert_eq!(manifests.len(), 1, "one task has one database");
    std::fs::write(&manifests[0], b"not what it was").expect("the file can be written");
    app.write(&["4"]);
    let error = app.failure_of(app.settings());
    assert_eq!(error.code(), "TG1103", "{error}");
    assert_eq!(app.sums_said(), [1, 3], "nothing came out of a damaged database");

    // What the page of the error says: remove the task's directory.
    let database = manifests[0].parent().expect("a directory");
    std::fs::remove_dir_all(database).expect("the directory can be removed");
    let instance = app.run_to_the_end(app.settings());
    assert_eq!(instance.counters().opened_rebuilt.get(), 1);
    end(instance);
    assert_eq!(app.sums_said(), [1, 3, 7]);
}

#[test]
fn a_fenced_producer_is_replaced_and_its_epoch_redone() {
    let app = Application::new(shared(), "fenced");
    let mut settings = app.settings();
    settings.instance_id = Some("only".into());
    let instance = app.start(settings).expect("everything is there");
    app.write(&["1"]);
    app.wait_until_consumed(&instance);
    for number in ["2", "3", "4"] {
        let before = instance.counters().fenced.get();
        let id = format!("{}-only-0", app.name);
        drop(producer(&*app.log, Some(&id), &[&app.output]));
        app.write(&[number]);
        app.wait_until_consumed(&instance);
        assert!(
            instance.counters().fenced.get() > before,
            "the worker notices that it was fenced"
        );
    }
    end(instance);
    assert_eq!(app.sums_said(), [1, 3, 6, 10]);
}

#[test]
fn records_of_all_keys_go_to_javas_partitions() {
    let log = shared();
    let (name, input, output) = (unique("partitions"), unique("input"), unique("output"));
    create(&*log, &input, 1, &[]);
    create(&*log, &output, 5, &[]);
    let keys: Vec<String> = (0..200).map(|number| format!("key-{number}")).collect();
    let records: Vec<Raw<'_>> = keys.iter().map(|key| raw(key.as_bytes(), b"1")).collect();
    write_records(&*log, &input, &records);
    let builder = Builder::new();
    builder
        .stream(&Topic::new(input.as_str(), Utf8, Utf8))
        .to(&Topic::new(output.as_str(), Utf8, Utf8));
    let topology = Arc::new(builder.build().expect("the topology is right"));
    let state = tempfile::tempdir().expect("a temporary directory");
    let mut settings = InstanceSettings::new(&name);
    settings.state.dir = state.path().to_owned();
    let instance = start(&log, &topology, settings).expect("everything is there");
    let read = |partition| {
        let end = high(&*log, &output, partition);
        let mut consumer = reader(&*log, &output, partition, 0, Isolation::ReadCommitted);
        read_until(&mut *consumer, end)
    };
    wait_for("all records are there", || {
        (0..5).map(|partition| read(partition).len()).sum::<usize>() == keys.len()
    });
    for partition in 0..5 {
        for record in read(partition) {
            assert_eq!(partition_for(record.key.as_deref().expect("a key"), 5), partition);
        }
    }
    end(instance);
}
