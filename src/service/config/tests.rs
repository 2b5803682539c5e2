use std::collections::BTreeSet;
use std::path::PathBuf;

use super::*;
use crate::errors::Coded;
use crate::instance::{Backend, Guarantee};
use crate::operators::OnError;

fn file(directory: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = directory.path().join(name);
    std::fs::write(&path, text).expect("a temporary directory can be written");
    path
}

fn environment(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

fn load(text: &str, variables: &[(&str, &str)], assignments: &[&str]) -> Result<Configuration, ConfigErrors> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    Configuration::load(&Sources {
        files: vec![file(&directory, "test.toml", text)],
        environment: environment(variables),
        assignments: assignments.iter().map(|text| (*text).to_owned()).collect(),
    })
}

fn refusal(text: &str, variables: &[(&str, &str)], assignments: &[&str]) -> String {
    load(text, variables, assignments).map_or_else(|errors| errors.to_string(), |_| "accepted".to_owned())
}

#[test]
fn the_command_line_beats_the_environment_beats_later_files_beat_earlier_ones_beat_defaults() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let interval = |files: &[&str], variables: &[(&str, &str)], assignments: &[&str]| {
        let files = files
            .iter()
            .enumerate()
            .map(|(n, text)| file(&directory, &format!("{n}.toml"), text))
            .collect();
        let assignments = assignments.iter().map(|text| (*text).to_owned()).collect();
        let sources = Sources {
            files,
            environment: environment(variables),
            assignments,
        };
        Configuration::load(&sources)
            .map(|c| c.settings().commit.interval.to_string())
            .map_err(|e| e.to_string())
    };
    let one = "[commit]\ninterval = \"1s\"";
    let two = "commit.interval = \"2s\"";
    let variable = [("TIDEGATE__COMMIT__INTERVAL", "3s")];
    assert_eq!(interval(&[], &[], &[]), Ok("100ms".to_owned()));
    assert_eq!(interval(&[one], &[], &[]), Ok("1s".to_owned()));
    assert_eq!(interval(&[one, two], &[], &[]), Ok("2s".to_owned()));
    assert_eq!(interval(&[one, two], &variable, &[]), Ok("3s".to_owned()));
    assert_eq!(
        interval(&[one, two], &variable, &["commit.interval=4s"]),
        Ok("4s".to_owned())
    );
    assert_eq!(
        interval(&[one], &variable, &["commit.interval=4s", "commit.interval = 5s"]),
        Ok("5s".to_owned())
    );
}

#[test]
fn tables_are_merged_key_by_key_across_layers() {
    let text = r#"
        [kafka.consumer]
        "fetch.min.bytes" = 1
        fetch.max.bytes = 1000
        [parameters]
        grace = "24h"
        window = { size = "1h", emit = "on_close" }
        [errors.nodes]
        "count-words" = "skip"
    "#;
    let variables = [
        ("TIDEGATE__KAFKA__CONSUMER__FETCH_MIN_BYTES", "2"),
        ("TIDEGATE__PARAMETERS__LIMIT", "5"),
        ("UNRELATED", "x"),
        ("TIDEGATE_OTHER", "x"),
    ];
    let loaded = load(
        text,
        &variables,
        &["parameters.window.size=2h", "errors.nodes.parse=dead_letter"],
    );
    let settings = loaded.expect("a right configuration").settings;
    let consumer: Vec<_> = settings
        .kafka
        .consumer
        .0
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(consumer, ["fetch.max.bytes=1000", "fetch.min.bytes=2"]);
    let expected = serde_json::json!({"grace": "24h", "limit": 5, "window": {"size": "2h", "emit": "on_close"}});
    assert_eq!(Some(settings.parameters.table()), expected.as_object());
    assert_eq!(settings.errors.nodes.get("count-words"), Some(&PolicySetting::Skip));
    assert_eq!(settings.errors.nodes.get("parse"), Some(&PolicySetting::DeadLetter));
}

#[test]
fn unknown_options_are_refused_with_file_and_nearest_name() {
    let misspelt = refusal("[commit]\nintervall = \"1s\"", &[], &[]);
    assert!(
        misspelt.contains("unknown option commit.intervall") && misspelt.contains("test.toml"),
        "{misspelt}"
    );
    assert!(misspelt.contains("did you mean commit.interval?"), "{misspelt}");
    let section = refusal("[kafak]\nbootstrap_servers = \"a:1\"", &[], &[]);
    assert!(
        section.contains("unknown option kafak (") && section.contains("did you mean kafka?"),
        "{section}"
    );
    let misplaced = refusal("bootstrap_servers = \"a:1\"", &[], &[]);
    assert!(
        misplaced.contains("did you mean kafka.bootstrap_servers?"),
        "{misplaced}"
    );
    let deep = refusal("[kafka.security]\npasword = \"x\"", &[], &[]);
    assert!(deep.contains("did you mean kafka.security.password?"), "{deep}");
    let variable = refusal("", &[("TIDEGATE__COMMIT__INTERVALL", "1s")], &[]);
    let expected = "unknown option TIDEGATE__COMMIT__INTERVALL (environment); did you mean TIDEGATE__COMMIT__INTERVAL?";
    assert_eq!(variable, expected);
    let flag = refusal("", &[], &["workes=2"]);
    assert_eq!(flag, "unknown option workes (command line); did you mean workers?");
    let hopeless = refusal("", &[], &["zzzzzzzzzzzzzz=2"]);
    assert!(hopeless.contains("tidegate config reference"), "{hopeless}");
}

#[test]
fn wrong_values_are_refused_with_key_value_and_what_is_expected() {
    for (text, expected) in [
        ("workers = \"4\"", "workers = \"4\" ("),
        ("workers = 0", "a whole number from 1 to 256 (threads)"),
        ("[commit]\ninterval = 100", "expected a duration from 1ms to 5m"),
        ("[commit]\ninterval = \"0ms\"", "expected a duration from 1ms to 5m"),
        ("[state]\ncache = \"64MB\"", "B, KiB, MiB, GiB"),
        ("guarantee = \"twice\"", "one of exactly_once, at_least_once"),
        ("commit = 5", "a table with interval"),
        ("parameters = 5", "expected a table"),
        ("[log]\nlevel = \"loud=very\"", "a level (error"),
        ("[application]\nid = \"my app\"", "letters, digits"),
        ("[http]\naddress = \"9464\"", "an address and a port"),
        (
            "[errors.nodes]\nparse = \"explode\"",
            "errors.nodes.parse = \"explode\"",
        ),
        ("[kafka.common]\nx = [1]", "kafka.common.x = [1]"),
    ] {
        let refused = refusal(text, &[], &[]);
        assert!(refused.contains(expected), "{text}: {refused}");
    }
    assert_eq!(
        load("durability = \"paper\"", &[], &[]).map_err(|e| e.code()).err(),
        Some("TG5002")
    );
    let broken = refusal("workers = ", &[], &[]);
    assert!(
        broken.contains("test.toml is not valid TOML") && broken.contains("line 1"),
        "{broken}"
    );
}

#[test]
fn everything_wrong_is_reported_at_once_and_missing_files_are_named() {
    let sources = Sources {
        files: vec![PathBuf::from("no-such-file.toml")],
        environment: environment(&[("TIDEGATE__WORKERS", "many")]),
        assignments: vec!["workers".to_owned()],
    };
    let errors = Configuration::load(&sources).expect_err("three things are wrong");
    let codes: Vec<_> = errors.0.iter().map(Coded::code).collect();
    assert_eq!(codes, ["TG5003", "TG5002", "TG5008"]);
    assert!(errors.to_string().contains("no-such-file.toml"));
}

#[test]
fn secrets_are_printed_nowhere() {
    let text = r#"
        application.id = "app"
        [kafka]
        bootstrap_servers = "broker:9093"
        [kafka.security]
        protocol = "sasl_ssl"
        sasl_mechanism = "PLAIN"
        username = "ann"
        password = "hunter2"
        key_password = "hunter2"
        [kafka.common]
        "sasl.oauthbearer.client.secret" = "hunter2"
        [parameters]
        api = { password = "hunter2" }
        list = [{ client_secret = "hunter2" }]
    "#;
    let configuration = load(text, &[], &[]).expect("a right configuration");
    assert!(configuration.check_complete().is_ok());
    let settings = configuration.settings();
    assert_eq!(
        settings.kafka.security.password.as_ref().map(Secret::expose),
        Some("hunter2")
    );
    let shown = configuration.show();
    assert!(shown.contains("kafka.security.password = \"***\""), "{shown}");
    assert!(shown.contains("kafka.security.username = \"ann\""), "{shown}");
    for printed in [
        shown,
        format!("{configuration:?}"),
        format!("{settings:#?}"),
        format!("{:?}", configuration.parameters()),
    ] {
        assert!(!printed.contains("hunter2"), "{printed}");
    }
    let refused = refusal("[kafka.security]\npassword = [\"hunter2\"]", &[], &[]);
    assert!(
        refused.contains("kafka.security.password = ***") && !refused.contains("hunter2"),
        "{refused}"
    );
}

#[test]
fn show_tells_where_each_value_comes_from() {
    let shown = load(
        "workers = 2",
        &[("TIDEGATE__HTTP__ENABLED", "false")],
        &["parameters.a.b=1"],
    )
    .map(|c| c.show());
    let shown = shown.expect("a right configuration");
    let line = |name: &str| {
        shown
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or("")
            .to_owned()
    };
    assert!(line("workers = 2").ends_with("test.toml"), "{shown}");
    assert!(line("http.enabled = false").ends_with("# environment"), "{shown}");
    assert!(line("parameters.a.b = 1").ends_with("# command line"), "{shown}");
    assert!(line("commit.interval = \"100ms\"").ends_with("# default"), "{shown}");
}

#[test]
fn what_an_instance_needs_as_a_whole_is_checked_as_a_whole() {
    let problems = |text: &str| {
        let configuration = load(text, &[], &[]).expect("right one by one");
        configuration
            .check_complete()
            .map_or_else(|errors| errors.to_string(), |()| String::new())
    };
    let nothing = problems("");
    assert!(
        nothing.contains("kafka.bootstrap_servers is not set") && nothing.contains("application.id"),
        "{nothing}"
    );
    assert_eq!(problems("embedded.enabled = true"), "");
    let kafka = "application.id = \"a\"\nkafka.bootstrap_servers = \"b:1\"\n";
    assert_eq!(problems(kafka), "");
    let sasl = problems(&format!("{kafka}kafka.security.protocol = \"sasl_ssl\""));
    assert!(
        sasl.contains("sasl_mechanism") && sasl.contains("username") && sasl.contains("password"),
        "{sasl}"
    );
    let letters = problems(&format!("{kafka}errors.nodes.parse = \"dead_letter\""));
    assert!(letters.contains("errors.dead_letter_topic is not set"), "{letters}");
    let slow = problems(&format!("{kafka}commit.interval = \"40s\""));
    assert!(
        slow.contains("commit.interval = 40s and kafka.transaction_timeout = 10s do not go together"),
        "{slow}"
    );
    let reserved = problems(&format!("{kafka}kafka.common.\"group.id\" = \"x\""));
    assert!(reserved.contains("set application.id"), "{reserved}");
}

#[test]
fn an_instance_gets_what_was_configured() {
    let text = r#"
        workers = 3
        guarantee = "at_least_once"
        instance.id = "i-1"
        tasks.max_idle = "1s"
        limits.overlay = "1MiB"
        state = { dir = "elsewhere", backend = "memory", cache = "0B" }
        topics.replication_factor = 3
        errors = { default = "skip", nodes = { parse = "stop" } }
    "#;
    let settings = load(text, &[], &[])
        .expect("a right configuration")
        .settings
        .instance_settings("word_count");
    assert_eq!(settings.application_id, "word_count");
    assert_eq!(settings.instance_id.as_deref(), Some("i-1"));
    assert_eq!((settings.workers, settings.guarantee), (3, Guarantee::AtLeastOnce));
    assert_eq!(settings.max_task_idle, std::time::Duration::from_secs(1));
    assert_eq!((settings.overlay_max_bytes, settings.state.cache_bytes), (1 << 20, 0));
    assert_eq!(
        (settings.state.dir, settings.state.backend),
        (PathBuf::from("elsewhere"), Backend::Memory)
    );
    assert_eq!(
        (settings.replication_factor, settings.default_on_error),
        (Some(3), OnError::Skip)
    );
    assert_eq!(settings.on_error.get("parse"), Some(&OnError::Stop));
}

/// The dotted names of all leaves; an empty table counts as one.
fn leaves(value: &Value, name: &str, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(table) if !table.is_empty() => table.iter().for_each(|(key, value)| {
            let inner = if name.is_empty() {
                key.clone()
            } else {
                format!("{name}.{key}")
            };
            leaves(value, &inner, out);
        }),
        _ => drop(out.insert(name.to_owned())),
    }
}

#[test]
fn the_table_of_options_and_the_typed_settings_have_the_same_names() {
    let configuration = Configuration::load(&Sources::default()).expect("the defaults are right");
    let serialised = serde_json::to_value(configuration.settings()).expect("settings can be serialised");
    let mut fields = BTreeSet::new();
    leaves(&serialised, "", &mut fields);
    let options: BTreeSet<String> = OPTIONS.iter().map(|option| option.name.to_owned()).collect();
    assert_eq!(fields, options);
    assert_eq!(options.len(), OPTIONS.len(), "a name stands twice in the table");
}

#[test]
fn the_reference_has_every_option_and_no_other() {
    for format in [ReferenceFormat::Text, ReferenceFormat::Markdown, ReferenceFormat::Toml] {
        let text = reference(format);
        for option in OPTIONS {
            let name = match format {
                ReferenceFormat::Text => format!("{} (", option.name),
                ReferenceFormat::Markdown => format!("| `{}` |", option.name),
                ReferenceFormat::Toml if option.kind.is_table() => format!("# [{}]", option.name),
                ReferenceFormat::Toml => format!("{} = ", option.short_name()),
            };
            assert!(text.contains(&name), "{format:?} lacks {name}");
        }
    }
    let markdown_rows = reference(ReferenceFormat::Markdown)
        .lines()
        .filter(|line| line.starts_with("| `"))
        .count();
    assert_eq!(markdown_rows, OPTIONS.len());
}

fn in_repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_default_file_and_the_configuration_page_are_up_to_date() {
    for (path, format) in [
        ("config/default.toml", ReferenceFormat::Toml),
        ("docs/configuration.md", ReferenceFormat::Markdown),
    ] {
        let on_disk = std::fs::read_to_string(in_repository(path)).unwrap_or_default();
        assert!(
            on_disk == reference(format),
            "{path} is not what `tidegate config reference --format …` prints; write it anew from there"
        );
    }
}

#[test]
fn the_shipped_files_are_right_and_complete() {
    for name in ["development.toml", "production.toml"] {
        let sources = Sources {
            files: vec![in_repository("config").join(name)],
            ..Sources::default()
        };
        let configuration = Configuration::load(&sources).unwrap_or_else(|errors| panic!("{name}: {errors}"));
        configuration
            .check_complete()
            .unwrap_or_else(|errors| panic!("{name}: {errors}"));
    }
}

#[test]
fn every_default_passes_its_own_check() {
    let configuration = Configuration::load(&Sources::default()).expect("the defaults are right");
    let from_default = configuration
        .effective
        .iter()
        .filter(|effective| effective.origin == Origin::Default)
        .count();
    assert_eq!(
        from_default,
        OPTIONS.iter().filter(|option| option.default.is_some()).count()
    );
    assert!(OptionSpec::named("durability").is_some_and(|option| option.default == Some("\"changelog\"")));
}

#[test]
fn snapshots_need_a_place_and_times_that_go_together() {
    let complaint = |text: &str| {
        let embedded = format!("embedded.enabled = true\n{text}");
        let loaded = load(&embedded, &[], &[]).expect("each option by itself is right");
        loaded
            .check_complete()
            .err()
            .map(|errors| errors.to_string())
            .unwrap_or_default()
    };
    assert!(complaint("durability = \"snapshot\"").contains("snapshot.url"));
    let placed = "durability = \"changelog+snapshot\"\nsnapshot.url = \"s3://bucket/folder\"\n";
    assert_eq!(complaint(placed), "");
    let short_grace = format!("{placed}kafka.transaction_timeout = \"10m\"");
    assert!(complaint(&short_grace).contains("snapshot.grace"));
    let slow = "durability = \"snapshot\"\nsnapshot.url = \"s3://bucket/folder\"\nsnapshot.persist_timeout = \"10s\"";
    assert!(complaint(slow).contains("snapshot.persist_timeout"));
    let lazy = format!("{placed}snapshot.restore = \"lazy\"\n");
    assert_eq!(complaint(&lazy), "");
    assert!(complaint(&format!("{lazy}snapshot.lazy_timeout = \"10s\"")).contains("snapshot.lazy_timeout"));
    let attempts = format!("{placed}snapshot.request_timeout = \"1m\"");
    assert!(complaint(&attempts).contains("snapshot.call_timeout"));
}
