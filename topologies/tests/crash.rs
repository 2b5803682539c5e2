//! The demo in a directory, killed again and again: what comes out is what an undisturbed run gives.

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const KILLED: i32 = 9;

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["demo", "--set", "commit.interval=20ms"]).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start(dir: &Path) -> Demo {
    let child = demo(&["--dir"]).arg(dir).spawn();
    Demo(child.expect("the program starts"))
}

/// A running demo; a test that fails leaves none behind.
struct Demo(Child);

impl Demo {
    /// What it printed, once it has ended by itself, and its exit code.
    fn end(mut self) -> (String, String, Option<i32>) {
        let (mut out, mut log) = (String::new(), String::new());
        let streams = (self.0.stdout.take(), self.0.stderr.take());
        streams.0.expect("a pipe").read_to_string(&mut out).expect("text");
        streams.1.expect("a pipe").read_to_string(&mut log).expect("text");
        (out, log, self.0.wait().expect("it was started").code())
    }

    /// Kills it, and makes sure that it was that which ended it.
    fn kill(mut self) {
        self.0.kill().expect("it can be killed");
        let status = self.0.wait().expect("it was started");
        assert_eq!(status.signal(), Some(KILLED), "it had ended before");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bytes of all files of the log; it may change meanwhile.
fn bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => bytes(&entry.path()),
        _ => entry.metadata().map_or(0, |metadata| metadata.len()),
    });
    sizes.sum()
}

/// The tables at the end, without what is only of this process.
fn tables(out: &str) -> &str {
    let start = out.find("Departures per airport").expect("the results are shown");
    let end = out.find("Late records").expect("and a line after them");
    &out[start..end]
}

#[test]
fn a_demo_that_is_killed_at_any_time_goes_on_and_counts_every_flight_once() {
    let in_memory = demo(&[]).output().expect("the program starts");
    let out = String::from_utf8_lossy(&in_memory.stdout).into_owned();
    let undisturbed = tempfile::tempdir().expect("a temporary directory");
    let (in_directory, log, code) = start(undisturbed.path()).end();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(tables(&in_directory), tables(&out));
    let whole = bytes(&undisturbed.path().join("log"));

    let dir = tempfile::tempdir().expect("a temporary directory");
    // While flights are written, and while they are counted.
    for eighths in [1, 3, 5, 6, 7] {
        let mut demo = start(dir.path());
        while bytes(&dir.path().join("log")) < whole * eighths / 8 {
            assert!(
                demo.0.try_wait().expect("it was started").is_none(),
                "it ended at {eighths}/8"
            );
            std::thread::park_timeout(Duration::from_millis(1));
        }
        if eighths == 3 {
            let (_, log, code) = start(dir.path()).end();
            assert_eq!(code, Some(1), "{log}");
            assert!(log.contains("TG1021"), "a second process is refused: {log}");
        }
        demo.kill();
    }
    for round in 0..2 {
        let (again, log, code) = start(dir.path()).end();
        assert_eq!(code, Some(0), "{log}");
        assert_eq!(tables(&again), tables(&out), "round {round}");
    }
}
