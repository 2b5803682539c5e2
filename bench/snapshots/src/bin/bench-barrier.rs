//! What base snapshots cost a task that goes on: how long it processes nothing, and how many bytes are uploaded for what has changed.

// It measures real time.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use tempfile::TempDir;
use tidegate::durability::Durability;
use tidegate::log::Log;
use tidegate_integration_tests::{Broker, S3Server};
use tidegate_snapshot_bench::Failure;
use tidegate_snapshot_bench::application::{Application, Place, TASK, create_topic, stop, wait_for, wait_for_bases};
use tidegate_snapshot_bench::page::{Page, command, quantile};
use tidegate_snapshot_bench::records::{self, KEY_BYTES, Random, VALUE_BYTES};
use tidegate_snapshot_bench::stalls::Stalls;

/// Also serves librdkafka and RocksDB, as in the service (ADR 0005).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The longest pause of a window, in nearly all windows.
const STALL_TARGET: Duration = Duration::from_millis(10);
/// What may be uploaded for one key of a hundred, on the mean over all rounds.
const UPLOAD_TARGET: f64 = 0.05;
/// One key of so many changes in a round.
const CHANGED: u64 = 100;
const WINDOW: Duration = Duration::from_millis(100);
/// What an instance does in its first seconds does not count.
const WARM_UP: Duration = Duration::from_secs(3);
/// Where no file changes for so long nothing is being compacted.
const SETTLED: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(3_600);
/// While nothing but the load is measured there are no bases.
const NEVER: Duration = Duration::from_secs(24 * 3_600);

/// What the figures of the rounds show.
const BURSTS: &str = "\
A base uploads the files that its parent has not: what has changed since, and what compaction has rewritten. Compaction merges runs of similar size
(ADR 19), so most rounds upload what has changed, some the sum of the smaller runs. What bounds that is the size of all runs but the oldest. They are
merged into the oldest one, and all is uploaded anew, when they have grown as large as it is: with one key of a hundred drawn by chance, not before
some hundred rounds after the last time.
";

/// Makes base snapshots of a large state under load; fails where a target is missed.
#[derive(Debug, Parser)]
struct Options {
    /// Gigabytes of keys and values.
    #[arg(long, default_value_t = 5.0)]
    size: f64,
    /// Rounds of changes, each with a base snapshot.
    #[arg(long, default_value_t = 30)]
    rounds: usize,
    /// Seconds between two base snapshots of the rounds. A base that is made while changes of a round are processed counts in this round.
    #[arg(long, default_value_t = 10.0)]
    interval: f64,
    /// Records that are processed while stalls are measured, with base snapshots one after the other and without any.
    #[arg(long, default_value_t = 1_500_000)]
    load: u64,
    /// Where the page goes; it is always printed.
    #[arg(long)]
    page: Option<PathBuf>,
    /// Directory for state; a temporary one if not given.
    #[arg(long)]
    work: Option<PathBuf>,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned()))
        .init();
    match run(&Options::parse()) {
        Ok(page) if page.is_missed() => ExitCode::from(3),
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench-barrier: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// The application, its disk, and how many records it was given.
struct Bench {
    application: Application,
    disk: TempDir,
    keys: u64,
    seed: u64,
    stalls: Arc<Stalls>,
}

/// What a round came to.
struct Round {
    uploaded: u64,
    state: u64,
}

/// What a load came to.
struct Load {
    stalls_ms: Vec<f64>,
    seconds: f64,
    bases: u64,
}

fn run(options: &Options) -> Result<Page, Failure> {
    let work = match &options.work {
        Some(directory) => TempDir::new_in(directory)?,
        None => TempDir::new()?,
    };
    let broker = Broker::start();
    let server = S3Server::start();
    let place = Place::S3 {
        bucket: server.bucket(),
        options: server.options(),
    };
    create_topic(&*broker.log(), "bench-input")?;
    let stalls = Arc::new(Stalls::new(WINDOW));
    let mut bench = Bench {
        application: Application::new(
            &broker,
            ("bench-barrier", "bench-input"),
            Durability::ChangelogAndSnapshot,
            Some(&place),
            Some(Arc::clone(&stalls)),
        )?,
        disk: TempDir::new_in(work.path())?,
        keys: (options.size * 1e9 / (KEY_BYTES + VALUE_BYTES) as f64) as u64,
        seed: 1,
        stalls,
    };
    bench.fill()?;
    let rounds = bench.rounds(options)?;
    let quiet = bench.load(options.load, NEVER)?;
    let busy = bench.load(options.load, Duration::from_millis(1))?;
    report(options, &bench, &rounds, &quiet, &busy)
}

impl Bench {
    /// Writes records of keys with these numbers, and answers how many.
    fn write(&mut self, numbers: impl Iterator<Item = u64>) -> Result<u64, Failure> {
        self.seed += 1;
        let log: &dyn Log = &**self.application.log();
        records::write(log, "bench-input", self.seed, numbers)
    }

    fn fill(&mut self) -> Result<(), Failure> {
        eprintln!("filling {} keys", self.keys);
        self.application.settings.snapshots.limits.interval = Duration::from_secs(60);
        let instance = self.application.start(self.disk.path())?;
        let keys = self.keys;
        // The instance processes while it is written.
        let written = self.write(0..keys)?;
        wait_for(&instance, PATIENCE, "all keys", |counters| {
            counters.records_committed.get() >= written
        })?;
        wait_for(&instance, PATIENCE, "a base snapshot", |counters| {
            counters.snapshots.get() > 0
        })?;
        stop(instance)
    }

    /// Some keys of all, drawn by chance.
    fn some(&self, count: u64, seed: u64) -> impl Iterator<Item = u64> + use<> {
        let (keys, mut random) = (self.keys, Random::new(seed));
        (0..count).map(move |_| random.draw() % keys)
    }

    fn rounds(&mut self, options: &Options) -> Result<Vec<Round>, Failure> {
        let interval = Duration::from_secs_f64(options.interval);
        self.application.settings.snapshots.limits.interval = interval;
        let instance = self.application.start(self.disk.path())?;
        let counters = instance.counters();
        // What the filling left to be compacted is no change of a round: it is uploaded with the base of a few changes before them.
        settle(&self.disk.path().join("bench-barrier").join(TASK.to_string()))?;
        let first = self.write(self.some(1_000, 7))?;
        wait_for(&instance, PATIENCE, "the first records", |counters| {
            counters.records_committed.get() >= first
        })?;
        wait_for_bases(&instance, PATIENCE, 2 * interval)?;
        let mut rounds = Vec::new();
        let mut committed = counters.records_committed.get();
        for round in 0..options.rounds {
            let (uploaded, bases) = (counters.snapshot_bytes.get(), counters.snapshots.get());
            committed += self.write(self.some(self.keys / CHANGED, 1_000 + round as u64))?;
            wait_for(&instance, PATIENCE, "the changes", |counters| {
                counters.records_committed.get() >= committed
            })?;
            wait_for(&instance, PATIENCE, "the base of a round", |counters| {
                counters.snapshots.get() > bases
            })?;
            let made = Round {
                uploaded: counters.snapshot_bytes.get() - uploaded,
                state: bytes_below(&self.disk.path().join("bench-barrier").join(TASK.to_string()))?,
            };
            eprintln!(
                "round {round}: uploaded {:.1} MB of {:.1} MB: {:.2} %",
                made.uploaded as f64 / 1e6,
                made.state as f64 / 1e6,
                100.0 * made.share(),
            );
            rounds.push(made);
        }
        stop(instance)?;
        Ok(rounds)
    }

    /// Processes records as fast as it can, with base snapshots that often.
    fn load(&mut self, records: u64, interval: Duration) -> Result<Load, Failure> {
        let written = self.write(self.some(records, 99))?;
        self.application.settings.snapshots.limits.interval = interval;
        self.stalls.forget();
        let began = Instant::now();
        let instance = self.application.start(self.disk.path())?;
        wait_for(&instance, PATIENCE, "the load", |counters| {
            counters.records_processed.get() >= written
        })?;
        let seconds = began.elapsed().as_secs_f64();
        let windows = self.stalls.windows();
        let bases = instance.counters().snapshots.get();
        stop(instance)?;
        let (Some(first), Some(last)) = (windows.first(), windows.last()) else {
            return Err("no record was seen".into());
        };
        let counted = windows
            .iter()
            .filter(|window| window.from >= first.from + WARM_UP && window.from < last.from);
        let stalls_ms: Vec<f64> = counted.map(|window| window.longest.as_secs_f64() * 1e3).collect();
        if stalls_ms.is_empty() {
            return Err("the load was over before it was measured; raise it".into());
        }
        Ok(Load {
            stalls_ms,
            seconds,
            bases,
        })
    }
}

impl Round {
    fn share(&self) -> f64 {
        self.uploaded as f64 / self.state as f64
    }
}

/// Waits until no data file in a directory has grown, come or gone for a while.
fn settle(directory: &Path) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = (bytes_below(directory)?, Instant::now());
    while seen.1.elapsed() < SETTLED {
        if Instant::now() > deadline {
            return Err("compaction does not come to an end".into());
        }
        std::thread::sleep(SETTLED / 10);
        let bytes = bytes_below(directory)?;
        if bytes != seen.0 {
            seen = (bytes, Instant::now());
        }
    }
    Ok(())
}

/// Bytes of all data files in a directory. A database removes some while this looks.
fn bytes_below(directory: &Path) -> Result<u64, Failure> {
    let mut seen = BTreeSet::new();
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let is_data = entry.file_name().to_string_lossy().ends_with(".sst");
        if is_data && seen.insert(entry.file_name()) {
            bytes += entry.metadata().map_or(0, |metadata| metadata.len());
        }
    }
    Ok(bytes)
}

fn report(options: &Options, bench: &Bench, rounds: &[Round], quiet: &Load, busy: &Load) -> Result<Page, Failure> {
    let mut page = Page::default();
    let stall = quantile(&busy.stalls_ms, 0.99);
    let wanted_ms = STALL_TARGET.as_secs_f64() * 1e3;
    page.target(
        "longest pause of 99 % of the windows of 100 ms, while base snapshots are made",
        &format!("{stall:.1} ms"),
        &format!("≤ {wanted_ms:.0} ms"),
        stall <= wanted_ms,
    );
    let shares: Vec<f64> = rounds.iter().map(Round::share).collect();
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    page.target(
        &format!("uploaded per base for 1 % of the keys, mean of {} rounds", rounds.len()),
        &format!("{:.2} % of the state", 100.0 * mean),
        &format!("≤ {:.0} %", 100.0 * UPLOAD_TARGET),
        mean <= UPLOAD_TARGET,
    );
    page.heading("Pauses");
    page.lines("| base snapshots | records/s | bases made | p50 ms | p90 ms | p99 ms | p99.9 ms | most ms | windows |\n|---|---|---|---|---|---|---|---|---|");
    for (name, load) in [("none", quiet), ("one after the other", busy)] {
        let at = |share| quantile(&load.stalls_ms, share);
        page.lines(&format!(
            "| {name} | {:.0} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {} |",
            options.load as f64 / load.seconds,
            load.bases,
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            at(1.0),
            load.stalls_ms.len(),
        ));
    }
    page.lines("\nThe longest time in each window of 100 ms in which no record was processed, while records waited to be processed. Broker, object store, load and engine share the cores: the first row is what that comes to without base snapshots.");
    page.heading("Bytes per base snapshot");
    page.lines("| round | uploaded MB | state MB | share |\n|---|---|---|---|");
    for (number, round) in rounds.iter().enumerate() {
        page.lines(&format!(
            "| {} | {:.1} | {:.1} | {:.2} % |",
            number + 1,
            round.uploaded as f64 / 1e6,
            round.state as f64 / 1e6,
            100.0 * round.share(),
        ));
    }
    page.lines(&format!(
        "\nMedian {:.2} %, most {:.2} %. In each round one key of {CHANGED} changes, drawn by chance.",
        100.0 * quantile(&shares, 0.5),
        100.0 * quantile(&shares, 1.0),
    ));
    page.heading("Where the bursts come from");
    page.lines(BURSTS);
    let work = format!(
        "Work: {} keys of {KEY_BYTES} bytes with values of {VALUE_BYTES} bytes that do not compress ({:.2} GB), in one task, `changelog+snapshot`, an S3 server.",
        bench.keys, options.size,
    );
    let command = command("bench-barrier", &["SIZE", "ROUNDS", "INTERVAL", "LOAD"]);
    page.write("Base snapshots under load", &command, &work, options.page.as_deref())?;
    Ok(page)
}
