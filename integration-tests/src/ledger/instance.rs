//! The service as a child process: the shipped binary with a configuration file.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tidegate::durability::Durability;
use tidegate::time::SystemClock;

use super::kafka::Cluster;
use super::observer::Topics;
use super::openings::{self, Opening};
use super::options::{Guarantee, Options};
use super::{LedgerError, wait};
use crate::snapshot_store::{self, SnapshotStore};

/// How long an instance may take to answer a request for its metrics.
const SCRAPE_TIMEOUT: Duration = Duration::from_millis(500);
/// Time between two base snapshots of a task: shorter than most instances live between two kills.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(1);
/// Ports for metrics, below those that the kernel gives to clients.
const PORTS: std::ops::Range<u16> = 21_000..29_000;

/// A process that runs the ledger topology, again and again on the same directory.
pub struct Instance {
    name: String,
    binary: PathBuf,
    directory: PathBuf,
    metrics: SocketAddr,
    child: Option<Child>,
    starts: u32,
    /// Texts of its configuration: the one that all starts have, or one for each of six starts in turn.
    configurations: Vec<String>,
}

/// What all instances of a run have in common.
pub struct Surroundings<'a> {
    /// Name of the application.
    pub application: &'a str,
    /// The broker.
    pub cluster: &'a Cluster,
    /// The topics.
    pub topics: &'a Topics,
    /// The object store, where the strategy needs one.
    pub store: Option<&'a SnapshotStore>,
}

/// Exit code of a service that gets SIGTERM before its instance has started.
const LEFT_BEFORE_START: i32 = 143;

/// The values of all metrics at one moment, by name and labels as they were printed.
pub type Metrics = BTreeMap<String, f64>;

impl Instance {
    /// Prepares instance number `number` in its own directory below `work`.
    ///
    /// # Errors
    /// Where the directory cannot be written, or no port is free.
    pub fn prepare(
        number: u8,
        options: &Options,
        surroundings: &Surroundings<'_>,
        binary: &Path,
        work: &Path,
    ) -> Result<Self, LedgerError> {
        let name = format!("{}-{number}", surroundings.application);
        let directory = work.join(&name);
        fs::create_dir_all(&directory).map_err(|error| LedgerError::io("make a directory", error))?;
        let metrics = free_address(number)?;
        let mut instance = Self {
            name,
            binary: binary.to_owned(),
            directory,
            metrics,
            child: None,
            starts: 0,
            configurations: Vec::new(),
        };
        let starts = if options.changes() { 1..=6 } else { 1..=1 };
        let text = |start| instance.configuration(options, options.strategy_of_start(start), surroundings);
        instance.configurations = starts.map(text).collect();
        instance.configure(1)?;
        Ok(instance)
    }

    /// Writes the configuration of the start with this number.
    fn configure(&self, start: u32) -> Result<(), LedgerError> {
        let index = start.saturating_sub(1) as usize % self.configurations.len();
        fs::write(self.configuration_file(), &self.configurations[index])
            .map_err(|error| LedgerError::io("write the configuration", error))
    }

    fn configuration(&self, options: &Options, strategy: Durability, surroundings: &Surroundings<'_>) -> String {
        let Surroundings {
            application,
            cluster,
            topics,
            store,
        } = *surroundings;
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let path = |path: PathBuf| quoted(&path.display().to_string());
        format!(
            "workers = {workers}\nguarantee = \"{guarantee}\"\n{durability}{spill}\n\
             [application]\nid = {application}\n\n\
             [instance]\nid = {name}\n\n\
             [kafka]\nbootstrap_servers = {bootstrap}\nsession_timeout = \"6s\"\ntransaction_timeout = \"15s\"\n\n\
             [commit]\ninterval = \"{commit_ms}ms\"\n\n\
             [state]\ndir = {state}\n\n\
             [http]\naddress = \"{metrics}\"\n\n\
             [log]\nformat = \"json\"\n\n\
             [parameters]\ninput = {input}\naccounts = {accounts}\nbuckets = {buckets}\nwitness = {witness}\n",
            application = quoted(application),
            name = quoted(&self.name),
            workers = options.workers,
            guarantee = match options.guarantee {
                Guarantee::ExactlyOnce => "exactly_once",
                Guarantee::AtLeastOnce => "at_least_once",
            },
            durability = snapshot_store::settings(strategy, store, SNAPSHOT_INTERVAL),
            spill = if options.spills() {
                "snapshot.spill = true\n"
            } else {
                ""
            },
            bootstrap = quoted(cluster.bootstrap()),
            commit_ms = options.commit_ms,
            state = path(self.state()),
            metrics = self.metrics,
            input = quoted(&topics.input),
            accounts = quoted(&topics.accounts),
            buckets = quoted(&topics.buckets),
            witness = path(self.witness()),
        )
    }

    /// Its configuration file.
    pub fn configuration_file(&self) -> PathBuf {
        self.directory.join("tidegate.toml")
    }

    /// Name of the instance: its static member id.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// File into which the topology notes every record that it processes.
    pub fn witness(&self) -> PathBuf {
        self.directory.join("witness.bin")
    }

    fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// Log of the last start.
    fn log(&self) -> PathBuf {
        self.directory.join(format!("log-{}.jsonl", self.starts))
    }

    /// The tasks that the last start has opened.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn openings(&self) -> Result<BTreeMap<String, Opening>, LedgerError> {
        let log = fs::read(self.log()).map_err(|error| LedgerError::io("read the log of an instance", error))?;
        Ok(openings::read(&String::from_utf8_lossy(&log)))
    }

    /// Starts the process.
    ///
    /// # Errors
    /// Where the binary cannot be started.
    pub fn start(&mut self) -> Result<(), LedgerError> {
        let binary = self.binary.display().to_string();
        let cannot = |error| LedgerError::io(&format!("start {binary}"), error);
        self.starts += 1;
        self.configure(self.starts)?;
        let log = self.open_log().map_err(cannot)?;
        let child = Command::new(&self.binary)
            .args(["run", "ledger", "--config"])
            .arg(self.directory.join("tidegate.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(cannot)?)
            .stderr(log)
            .spawn()
            .map_err(cannot)?;
        self.child = Some(child);
        Ok(())
    }

    fn open_log(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).open(self.log())
    }

    /// Fails if the process has ended although it should be running.
    ///
    /// # Errors
    /// [`LedgerError::Instance`] with the exit status.
    pub fn check(&mut self) -> Result<(), LedgerError> {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        match child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.fault(&format!("ended by itself with {status}"))),
            Err(error) => Err(LedgerError::io("look at a process", error)),
        }
    }

    /// Kills the process with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// Where it had ended before.
    pub fn kill(&mut self) -> Result<(), LedgerError> {
        self.check()?;
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        child.kill().map_err(|error| LedgerError::io("kill", error))?;
        child
            .wait()
            .map(drop)
            .map_err(|error| LedgerError::io("wait for", error))
    }

    /// Asks the process to stop with SIGTERM and waits until it has.
    ///
    /// # Errors
    /// Where it had ended before, does not end within `patience`, or ends with another status than 0.
    pub fn terminate(&mut self, clock: &SystemClock, patience: Duration) -> Result<(), LedgerError> {
        self.check()?;
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        // The standard library can only send SIGKILL; the shell's own `kill` needs nothing installed.
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -s TERM {}", child.id())])
            .status();
        sent.map_err(|error| LedgerError::io("send SIGTERM", error))?;
        let mut status: Option<ExitStatus> = None;
        let ended = wait::until(clock, patience, &format!("{} to stop after SIGTERM", self.name), || {
            status = child.try_wait().map_err(|error| LedgerError::io("wait for", error))?;
            Ok(status.is_some())
        });
        if let Err(error) = ended {
            self.child = Some(child);
            return Err(error);
        }
        match status {
            Some(status) if status.success() => Ok(()),
            // A signal before the instance has started ends the process at once: there is nothing to commit.
            Some(status) if status.code() == Some(LEFT_BEFORE_START) => Ok(()),
            status => Err(self.fault(&format!("ended after SIGTERM with {status:?}"))),
        }
    }

    /// Removes all state from the disk; the process must not be running.
    ///
    /// # Errors
    /// Where the directory cannot be removed.
    pub fn wipe(&self) -> Result<(), LedgerError> {
        match fs::remove_dir_all(self.state()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LedgerError::io("remove the state", error)),
            _ => Ok(()),
        }
    }

    /// The metrics of the running process; `None` while it does not answer.
    pub fn metrics(&self) -> Option<Metrics> {
        let text = get(self.metrics, "/metrics").ok()?;
        Some(parse_metrics(&text))
    }

    fn fault(&self, what: &str) -> LedgerError {
        LedgerError::Instance {
            name: self.name.clone(),
            what: what.to_owned(),
            log: self.log().display().to_string(),
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Nothing else can be done about a process that cannot be killed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_address(number: u8) -> Result<SocketAddr, LedgerError> {
    let span = PORTS.end - PORTS.start;
    let first = (std::process::id() as u16)
        .wrapping_mul(17)
        .wrapping_add(u16::from(number));
    (0..span)
        .map(|step| PORTS.start + first.wrapping_add(step) % span)
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .find(|address| TcpListener::bind(address).is_ok())
        .ok_or_else(|| LedgerError::Broken(format!("no port is free in {PORTS:?}")))
}

fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, SCRAPE_TIMEOUT)?;
    stream.set_read_timeout(Some(SCRAPE_TIMEOUT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(io::Error::other("no answer with status 200")),
    }
}

fn parse_metrics(text: &str) -> Metrics {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_with_their_labels() {
        let text = "# HELP a b\n# TYPE a counter\na_total{task=\"0_1\",store=\"x\"} 12\nb 0.5\n\nnot a metric\n";
        let metrics = parse_metrics(text);
        assert_eq!(metrics.len(), 2);
        let (name, value) = metrics.first_key_value().unwrap();
        assert_eq!((name.as_str(), *value), ("a_total{task=\"0_1\",store=\"x\"}", 12.0));
        assert_eq!(metrics["b"], 0.5);
    }
}
