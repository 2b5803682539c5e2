use serde::Deserialize;

use super::*;
use crate::codec::Utf8;
use crate::topology::{Parameters, Topic};

#[derive(Deserialize)]
struct CopyParameters {
    #[serde(default)]
    source: Option<String>,
}

fn copy(parameters: &Parameters) -> Result<Topology, BoxError> {
    let parameters: CopyParameters = parameters.parse()?;
    let source = parameters.source.unwrap_or_else(|| "in".to_owned());
    let builder = Topology::builder();
    builder
        .stream(&Topic::new(source, Utf8, Utf8))
        .filter(|_| true)
        .to(&Topic::new("out", Utf8, Utf8));
    Ok(builder.build()?)
}

fn broken(_: &Parameters) -> Result<Topology, BoxError> {
    Err("the moon is full".into())
}

fn greet(arguments: &[String]) -> Result<(), BoxError> {
    if arguments == ["--name", "Ann", "-v"] {
        Ok(())
    } else {
        Err(format!("got {arguments:?}").into())
    }
}

fn application() -> Application {
    Application::new("example", "1.2.3")
        .topology("copy", copy)
        .topology("broken", broken)
        .topology("counting", super::snapshot_tests::counting)
        .command("greet", "Say hello", greet)
}

pub(super) struct Outcome {
    pub(super) code: u8,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

pub(super) fn run_line(line: &str) -> Outcome {
    run_with(line, &[])
}

fn run_with(line: &str, environment: &[(&str, &str)]) -> Outcome {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let arguments = std::iter::once("example")
        .chain(line.split_whitespace())
        .map(OsString::from);
    let environment = environment
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let code = run(&application(), arguments, environment, &mut stdout, &mut stderr);
    let text = |bytes| String::from_utf8(bytes).expect("output is text");
    Outcome {
        code,
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

#[test]
fn version_help_and_reference_are_printed_with_a_clean_end() {
    let version = run_line("--version");
    assert_eq!((version.code, version.stdout.as_str()), (0, "example 1.2.3\n"));
    let help = run_line("--help");
    assert_eq!(help.code, 0);
    for part in ["run", "topology", "config", "greet", "Say hello", "Exit codes"] {
        assert!(help.stdout.contains(part), "{part} is missing in {}", help.stdout);
    }
    let reference = run_line("config reference");
    assert!(
        reference.code == 0 && reference.stdout.contains("commit.interval (a duration"),
        "{}",
        reference.stderr
    );
    let defaults = run_line("config reference --format toml").stdout;
    assert!(defaults == crate::service::config::DEFAULT_TOML, "{defaults}");
    assert_eq!(run_line("topology list").stdout, "copy\nbroken\ncounting\n");
}

#[test]
fn wrong_command_lines_and_configurations_end_with_code_2() {
    assert_eq!(run_line("").code, EXIT_USAGE);
    assert_eq!(run_line("runn copy").code, EXIT_USAGE);
    let unknown = run_line("run copi --embedded");
    assert_eq!(unknown.code, EXIT_USAGE);
    assert!(
        unknown
            .stderr
            .starts_with("error[TG5011]: there is no topology \"copi\"; did you mean copy?"),
        "{}",
        unknown.stderr
    );
    let no_kafka = run_line("run copy");
    assert_eq!(no_kafka.code, EXIT_USAGE);
    assert!(
        no_kafka
            .stderr
            .contains("error[TG5005]: option kafka.bootstrap_servers is not set"),
        "{}",
        no_kafka.stderr
    );
    assert!(
        no_kafka.stderr.contains("more in docs/errors/TG5005.md"),
        "{}",
        no_kafka.stderr
    );
    let key = run_line("run copy --embedded --set comit.interval=1s");
    assert_eq!(key.code, EXIT_USAGE);
    assert!(
        key.stderr.contains("error[TG5001]") && key.stderr.contains("did you mean commit.interval?"),
        "{}",
        key.stderr
    );
    let broken = run_line("run broken --embedded");
    assert_eq!(broken.code, EXIT_USAGE);
    assert!(
        broken
            .stderr
            .contains("error[TG5012]: topology broken cannot be built\n  because: the moon is full"),
        "{}",
        broken.stderr
    );
}

#[test]
fn parameters_reach_the_topology_and_unknown_ones_are_refused_by_it() {
    let described = run_line("topology describe copy --set parameters.source=elsewhere");
    assert!(
        described.code == 0 && described.stdout.contains("elsewhere"),
        "{}",
        described.stderr
    );
    let from_environment = run_with("topology describe copy", &[("TIDEGATE__PARAMETERS__SOURCE", "faraway")]);
    assert!(
        from_environment.stdout.contains("faraway"),
        "{}",
        from_environment.stderr
    );
    let misspelt = run_line("topology describe copy --set parameters.sorce=elsewhere");
    assert_eq!(misspelt.code, EXIT_USAGE);
    assert!(misspelt.stderr.contains("error[TG2091]"), "{}", misspelt.stderr);
    assert!(
        misspelt.stderr.contains("did you mean parameters.source?"),
        "{}",
        misspelt.stderr
    );
}

#[test]
fn a_topology_is_described_as_text_for_graphviz_and_for_mermaid() {
    let text = run_line("topology describe copy").stdout;
    assert!(text.contains("sub-topology 0") && text.contains("filter"), "{text}");
    assert!(
        run_line("topology describe copy --format dot")
            .stdout
            .starts_with("digraph")
    );
    assert!(
        run_line("topology describe copy --format mermaid")
            .stdout
            .starts_with("flowchart")
    );
    assert_eq!(run_line("topology describe copy --format png").code, EXIT_USAGE);
}

#[test]
fn a_configuration_is_checked_and_shown_with_its_origins() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("my.toml");
    std::fs::write(&file, "embedded.enabled = true\n[errors.nodes]\nfiltr = \"skip\"").expect("it can be written");
    let file = file.to_string_lossy();
    let checked = run_line(&format!("config check {file}"));
    assert_eq!(
        (checked.code, checked.stdout.as_str()),
        (0, "the configuration is right\n"),
        "{}",
        checked.stderr
    );
    let with_topology = run_line(&format!("config check {file} --topology copy"));
    assert_eq!(with_topology.code, EXIT_USAGE);
    assert!(
        with_topology.stderr.contains("unknown option errors.nodes.filtr"),
        "{}",
        with_topology.stderr
    );
    let shown = run_line(&format!("config show {file} --set workers=3"));
    assert!(
        shown.stdout.contains("workers = 3") && shown.stdout.contains("# command line"),
        "{}",
        shown.stdout
    );
    assert!(
        shown.stdout.contains("embedded.enabled = true") && shown.stdout.contains("my.toml"),
        "{}",
        shown.stdout
    );
    let missing = run_line("config check no-such-file.toml");
    assert!(
        missing.code == EXIT_USAGE && missing.stderr.contains("error[TG5003]"),
        "{}",
        missing.stderr
    );
}

#[test]
fn the_embedded_log_may_be_given_a_directory() {
    let plain = run_line("config show --embedded");
    assert!(
        plain.stdout.contains("embedded.enabled = true") && !plain.stdout.contains("embedded.dir ="),
        "{}",
        plain.stdout
    );
    let kept = run_line("config show --embedded=some/where");
    assert!(
        kept.stdout.contains("embedded.enabled = true") && kept.stdout.contains("embedded.dir = \"some/where\""),
        "{}",
        kept.stdout
    );
}

#[test]
fn own_commands_get_their_arguments_as_they_are() {
    let greeted = run_line("greet --name Ann -v");
    assert_eq!(greeted.code, EXIT_CLEAN, "{}", greeted.stderr);
    let refused = run_line("greet --help");
    assert_eq!(
        (refused.code, refused.stderr.as_str()),
        (EXIT_FAILED, "error: got [\"--help\"]\n")
    );
}

/// A writer whose reader has gone.
struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let arguments = ["example", "config", "reference"].map(OsString::from);
    let mut stderr = Vec::new();
    assert_eq!(
        run(&application(), arguments, Vec::new(), &mut Gone, &mut stderr),
        EXIT_CLEAN
    );
    assert!(stderr.is_empty());
}

#[test]
fn savepoints_are_asked_for_listed_and_deleted_without_kafka() {
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!("snapshot.url=file://{}", directory.path().display());
    let line = |rest: &str| run_line(&format!("savepoint {rest} --set application.id=app --set {url}"));
    let nobody = line("create before --timeout 1s");
    assert_eq!(nobody.code, EXIT_FAILED, "{}", nobody.stderr);
    assert!(
        nobody.stderr.contains("TG4203") && nobody.stderr.contains("no instance has seen"),
        "{}",
        nobody.stderr
    );
    let none = line("list");
    assert_eq!(
        (none.code, none.stdout.lines().count()),
        (EXIT_CLEAN, 1),
        "{}",
        none.stderr
    );
    assert_eq!(line("list --json").stdout, "[]\n");
    for missing in ["verify before", "delete before"] {
        assert!(line(missing).stderr.contains("TG4202"), "{missing}");
    }
    let wrong = line("create ../before");
    assert!(
        wrong.stderr.contains("is not the name of a savepoint"),
        "{}",
        wrong.stderr
    );
    let nowhere = run_line("savepoint list --set application.id=app");
    assert!(nowhere.stderr.contains("TG4216"), "{}", nowhere.stderr);
    assert_eq!(run_line("savepoint list").code, EXIT_USAGE, "no application is named");
}

#[test]
fn the_grammar_holds_together() {
    command(&application()).debug_assert();
}
