//! The service as a child process: written configuration, log in a file, metrics over HTTP.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tidegate::time::{Clock, SystemClock};

use super::CheckError;
use super::options::Combination;

/// Longest wait for the service to commit and close after SIGTERM.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(60);
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);
/// Records that came after their window had closed.
const LATE_METRIC: &str = "tidegate_records_late_total";
/// Records that were processed.
const PROCESSED_METRIC: &str = "tidegate_records_processed_total";
/// Base snapshots made.
const SNAPSHOTS_METRIC: &str = "tidegate_snapshots_total";
/// Lines of the log that an error shows.
const LOG_LINES: usize = 30;

/// A running service. Killed when dropped before it was stopped.
pub struct Service {
    child: Child,
    metrics: SocketAddr,
    log: PathBuf,
}

impl Service {
    /// Starts `binary run flights` with the settings of `combination` and further ones, everything it writes in `directory`.
    pub fn start(
        binary: &Path,
        directory: &Path,
        bootstrap: &str,
        application: &str,
        combination: &Combination,
        further: &str,
    ) -> Result<Self, CheckError> {
        fs::create_dir_all(directory).map_err(|error| CheckError::io("create", directory, &error))?;
        let metrics = free_address().map_err(|error| CheckError::io("find a free port for", binary, &error))?;
        let config = directory.join("tidegate.toml");
        let text = configuration(directory, bootstrap, application, combination, metrics) + further;
        fs::write(&config, text).map_err(|error| CheckError::io("write", &config, &error))?;
        let log = directory.join("tidegate.log");
        let log_file = File::create(&log).map_err(|error| CheckError::io("create", &log, &error))?;
        let stdout = log_file
            .try_clone()
            .map_err(|error| CheckError::io("share", &log, &error))?;
        let child = Command::new(binary)
            .args(["run", "flights", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(log_file)
            .spawn()
            .map_err(|error| CheckError::io("start", binary, &error))?;
        Ok(Self { child, metrics, log })
    }

    /// Fails if the service has ended.
    pub fn check_alive(&mut self) -> Result<(), CheckError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failed(format!("ended with {status}"))),
            Err(error) => Err(CheckError::io("watch", &self.log, &error)),
        }
    }

    /// The number of late records that the service has counted, all nodes together. A node is listed once it has
    /// counted something.
    pub fn late_records(&self) -> Result<u64, CheckError> {
        let text = http_get(self.metrics, "/metrics")
            .map_err(|error| self.failed(format!("does not serve its metrics at {}: {error}", self.metrics)))?;
        match sum_of(&text, PROCESSED_METRIC) {
            None | Some(0) => Err(self.failed(format!("has no metric {PROCESSED_METRIC}, or it is 0"))),
            Some(_) => Ok(sum_of(&text, LATE_METRIC).unwrap_or(0)),
        }
    }

    /// The number of base snapshots that the service has made.
    pub fn base_snapshots(&self) -> u64 {
        let text = http_get(self.metrics, "/metrics").unwrap_or_default();
        sum_of(&text, SNAPSHOTS_METRIC).unwrap_or_default()
    }

    /// Sends SIGTERM and waits for a clean end.
    pub fn stop(mut self) -> Result<(), CheckError> {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        sent.map_err(|error| CheckError::io("send SIGTERM to", &self.log, &error))?;
        let clock = SystemClock::default();
        while clock.monotonic() < CLOSE_TIMEOUT {
            let ended = self.child.try_wait();
            match ended.map_err(|error| CheckError::io("watch", &self.log, &error))? {
                Some(status) if ExitStatus::success(&status) => return Ok(()),
                Some(status) => return Err(self.failed(format!("ended with {status} after SIGTERM"))),
                None => pause(Duration::from_millis(10)),
            }
        }
        Err(self.failed(format!(
            "did not end within {} s after SIGTERM",
            CLOSE_TIMEOUT.as_secs()
        )))
    }

    /// The last lines of the log.
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    fn failed(&self, what: String) -> CheckError {
        CheckError::Service {
            what,
            log: self.log_tail(),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Both fail where the process has ended already, which is the usual case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The sum over all labels of the metric `name` in Prometheus' text format; `None` if it is not there.
fn sum_of(text: &str, name: &str) -> Option<u64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
        rest.rsplit(' ').next()?.parse::<f64>().ok()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0) + value as u64))
}

/// Gives the thread back for about `pause`.
pub fn pause(pause: Duration) {
    std::thread::park_timeout(pause);
}

fn configuration(
    directory: &Path,
    bootstrap: &str,
    application: &str,
    combination: &Combination,
    metrics: SocketAddr,
) -> String {
    let state = directory.join("state");
    format!(
        "workers = {workers}\n\
         application.id = \"{application}\"\n\
         commit.interval = \"{commit}\"\n\
         kafka.bootstrap_servers = \"{bootstrap}\"\n\
         state.dir = {state:?}\n\
         http.address = \"{metrics}\"\n\
         parameters.grace = \"{grace}\"\n",
        workers = combination.workers,
        commit = combination.commit,
        grace = combination.grace,
    )
}

fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn http_get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, HTTP_TIMEOUT)?;
    stream.set_read_timeout(Some(HTTP_TIMEOUT))?;
    stream.set_write_timeout(Some(HTTP_TIMEOUT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other(format!(
            "{path} answers {:?}",
            answer.lines().next()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_over_their_labels() {
        let text = "# HELP late_total Late.\nlate_total{node=\"a\"} 3\nlate_total{node=\"b\"} 4\nlate_total_other 5\nplain 6\n";
        assert_eq!(sum_of(text, "late_total"), Some(7));
        assert_eq!(sum_of(text, "plain"), Some(6));
        assert_eq!(sum_of(text, "late"), None);
    }
}
