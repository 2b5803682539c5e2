//! The `tidegate` program as a process: exit codes and signals.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Stdio};

/// The program with a state directory of its own, logging to a pipe.
struct Process {
    child: Child,
    stderr: BufReader<ChildStderr>,
    _state: tempfile::TempDir,
}

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let state = tempfile::tempdir().expect("a temporary directory");
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["run", "word_count", "--set", "http.address=127.0.0.1:0"])
            .arg("--set")
            .arg(format!("state.dir={}", state.path().display()))
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        Self {
            child,
            stderr,
            _state: state,
        }
    }

    /// Reads the log up to a line that contains `text`.
    fn wait_for(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            let bytes = self.stderr.read_line(&mut line).expect("the log is text");
            assert!(bytes > 0, "the log ends without {text:?}");
        }
    }

    /// Sends a signal by its name without `SIG`.
    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let status = Command::new("sh")
            .args(["-c", &kill])
            .status()
            .expect("there is a shell");
        assert!(status.success(), "{kill}");
    }

    /// The exit code, and what was logged until then.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).expect("the log is text");
        (self.child.wait().expect("it was started").code(), rest)
    }
}

impl Drop for Process {
    /// A test that fails leaves no process behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const NO_BROKER: [&str; 4] = [
    "--set",
    "kafka.bootstrap_servers=127.0.0.1:1",
    "--set",
    "application.id=process-test",
];

#[test]
fn sigterm_ends_a_running_instance_cleanly() {
    let mut process = Process::start(&["--embedded"]);
    process.wait_for("tasks assigned");
    process.signal("TERM");
    let (code, log) = process.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("stopping") && log.contains("instance ended"), "{log}");
}

#[test]
fn a_signal_while_kafka_is_not_there_leaves_at_once() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut process = Process::start(&[&NO_BROKER[..], &["--set", "kafka.startup_timeout=1h"]].concat());
        process.wait_for("starting");
        process.signal(signal);
        let (ended, log) = process.end();
        assert_eq!(ended, Some(code), "{log}");
    }
}

#[test]
fn kafka_that_is_not_reached_within_the_startup_timeout_is_exit_code_3() {
    let process = Process::start(&[&NO_BROKER[..], &["--set", "kafka.startup_timeout=1s"]].concat());
    let (code, log) = process.end();
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("error[TG4101]") && log.contains("127.0.0.1:1"), "{log}");
}

#[test]
fn logs_are_json_when_they_are_asked_to_be() {
    let mut process = Process::start(&["--embedded", "--set", "log.format=json"]);
    process.wait_for("tasks assigned");
    process.signal("INT");
    let (code, log) = process.end();
    assert_eq!(code, Some(0), "{log}");
    let lines = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("each line is JSON"));
    assert!(
        lines
            .into_iter()
            .all(|line| line["level"].is_string() && line["message"].is_string())
    );
}
