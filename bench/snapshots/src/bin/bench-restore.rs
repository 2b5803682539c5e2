//! How long it takes until a task has its state on an empty disk: by a base snapshot and what came after it, and by replaying the changelog.

// It measures real time.
#![allow(clippy::disallowed_methods)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use tempfile::TempDir;
use tidegate::durability::Durability;
use tidegate::log::Log;
use tidegate::worker::RestoreMode;
use tidegate_integration_tests::{Broker, S3Server};
use tidegate_snapshot_bench::Failure;
use tidegate_snapshot_bench::application::{
    Application, Place, contents, create_topic, stop, time_to_first_output, wait_for, wait_for_bases,
};
use tidegate_snapshot_bench::page::{Page, command, line_through, median};
use tidegate_snapshot_bench::records::{self, KEY_BYTES, Random, VALUE_BYTES};

/// Also serves librdkafka and RocksDB, as in the service (ADR 0005).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How many times faster than a replay a restore from snapshots has to be.
const TARGET: f64 = 10.0;
/// While the state is filled, bases are made this often; the last one is followed by some increments.
const BASE_INTERVAL: Duration = Duration::from_secs(5);
/// One key of so many changes after the last base.
const CHANGED_AFTER_BASE: u64 = 100;
/// Seconds within which the first output of a lazy restore has to be committed, whatever the size of the state.
const FIRST_OUTPUT_TARGET: f64 = 2.0;
/// Records that wait to be processed when an instance starts.
const PENDING: u64 = 1_000;
const PATIENCE: Duration = Duration::from_secs(1_800);

/// Restores a task on an empty disk and compares with a replay of its changelog; fails where the target is missed.
#[derive(Debug, Parser)]
struct Options {
    /// Keys in the store.
    #[arg(long, default_value_t = 5_000_000)]
    keys: u64,
    /// Runs of each restore; the page shows medians.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Sizes in gigabytes of keys and values at which the first output of a lazy restore is timed, ascending; 0 for none.
    #[arg(long, value_delimiter = ',', default_values_t = [0.5, 1.0, 2.0])]
    lazy: Vec<f64>,
    /// Where the page goes; it is always printed.
    #[arg(long)]
    page: Option<PathBuf>,
    /// Directory for state and for the object store that is a directory; a temporary one if not given.
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
            eprintln!("bench-restore: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// A way to get the state, and what was measured of it.
struct Way {
    name: &'static str,
    application: Application,
    seconds: Vec<f64>,
    contents: Option<(u64, u64)>,
}

fn run(options: &Options) -> Result<Page, Failure> {
    let work = match &options.work {
        Some(directory) => TempDir::new_in(directory)?,
        None => TempDir::new()?,
    };
    let broker = Broker::start();
    let server = S3Server::start();
    let input = "bench-input";
    create_topic(&*broker.log(), input)?;
    eprintln!("writing {} records", options.keys);
    records::write(&*broker.log(), input, 1, 0..options.keys)?;
    let s3 = Place::S3 {
        bucket: server.bucket(),
        options: server.options(),
    };
    let directory = Place::Directory(work.path().join("store"));
    let mut ways = Vec::new();
    for (name, id, durability, place) in [
        ("replay of the changelog", "by-changelog", Durability::Changelog, None),
        (
            "base and increments, S3",
            "by-snapshot",
            Durability::Snapshot,
            Some(&s3),
        ),
        (
            "base and rest of the changelog, directory",
            "by-both",
            Durability::ChangelogAndSnapshot,
            Some(&directory),
        ),
    ] {
        let mut application = Application::new(&broker, (id, input), durability, place, None)?;
        application.settings.snapshots.limits.interval = BASE_INTERVAL;
        ways.push(Way {
            name,
            application,
            seconds: Vec::new(),
            contents: None,
        });
    }
    fill(&ways, options.keys, input, work.path())?;
    for run in 0..options.runs {
        for way in &mut ways {
            let disk = TempDir::new_in(work.path())?;
            let (took, opened) = way.application.restore(disk.path())?;
            eprintln!("run {run}: {}: {:.2} s", way.name, took.as_secs_f64());
            way.seconds.push(took.as_secs_f64());
            if let (Some(backend), None) = (&opened.backend, way.contents) {
                way.contents = Some(contents(&**backend)?);
            }
        }
    }
    let mut page = report(options, &ways)?;
    drop(ways);
    lazy(options, &broker, &s3, work.path(), &mut page)?;
    let work = format!(
        "Work: {} keys of {KEY_BYTES} bytes with values of {VALUE_BYTES} bytes that do not compress, in one task; one key of {CHANGED_AFTER_BASE} changed after the last base snapshot. Options as shipped, but a base every {} s while the state is filled, and time-outs.",
        options.keys,
        BASE_INTERVAL.as_secs(),
    );
    let command = command("bench-restore", &["KEYS", "RUNS", "LAZY"]);
    page.write("Restoring state", &command, &work, options.page.as_deref())?;
    Ok(page)
}

/// Times the first committed output of an instance with an empty disk, while the state grows.
fn lazy(options: &Options, broker: &Broker, place: &Place, work: &Path, page: &mut Page) -> Result<(), Failure> {
    let sizes: Vec<f64> = options.lazy.iter().copied().filter(|size| *size > 0.0).collect();
    if sizes.is_empty() {
        return Ok(());
    }
    let input = "lazy-input";
    create_topic(&*broker.log(), input)?;
    let mut application = Application::new(broker, ("lazily", input), Durability::Snapshot, Some(place), None)?;
    application.settings.snapshots.limits.interval = BASE_INTERVAL;
    let filled = TempDir::new_in(work)?;
    let (mut there, mut points) = (0, Vec::new());
    page.heading("Until the first output is committed, on an empty disk");
    page.lines("| GB | lazy s | spread s | all files after s | full s |\n|---|---|---|---|---|");
    for size in sizes {
        let keys = (size * 1e9 / (KEY_BYTES + VALUE_BYTES) as f64) as u64;
        application.settings.snapshots.restore = RestoreMode::Full;
        let instance = application.start(filled.path())?;
        let fresh = records::write(&**application.log(), input, keys, there..keys)?;
        wait_for(&instance, PATIENCE, "all records", |counters| {
            counters.records_committed.get() >= fresh
        })?;
        wait_for_bases(&instance, PATIENCE, 2 * BASE_INTERVAL)?;
        stop(instance)?;
        there = keys;
        let full = first_output(&mut application, RestoreMode::Full, keys, work)?.0;
        let runs: Result<Vec<_>, _> = (0..options.runs)
            .map(|_| first_output(&mut application, RestoreMode::Lazy, keys, work))
            .collect();
        let runs = runs?;
        let of = |part: fn(&(f64, f64)) -> f64| runs.iter().map(part).collect::<Vec<f64>>();
        let first = of(|run| run.0);
        let least = first.iter().copied().fold(f64::INFINITY, f64::min);
        let most = first.iter().copied().fold(0.0, f64::max);
        eprintln!("{size} GB: lazy {:.2} s, full {full:.2} s", median(&first));
        page.lines(&format!(
            "| {size} | {:.2} | {least:.2}–{most:.2} | {:.1} | {full:.2} |",
            median(&first),
            median(&of(|run| run.1)),
        ));
        points.push((size, median(&first)));
    }
    page.lines("\nFrom the start of an instance, joining the group included, to its first record at a read_committed consumer; the record counts what the state had of its key.");
    let (offset, slope) = line_through(&points);
    page.lines(&format!(
        "Line through the lazy ones: {offset:.2} s and {slope:.3} s per GB."
    ));
    for size in [1.0, 5.0, 20.0] {
        let seconds = offset + slope * size;
        page.target(
            &format!("first output of a lazy restore at {size:.0} GB, by the line through what was measured"),
            &format!("{seconds:.2} s"),
            &format!("≤ {FIRST_OUTPUT_TARGET} s"),
            seconds <= FIRST_OUTPUT_TARGET,
        );
    }
    Ok(())
}

/// Seconds until the first output, and until all files are here.
fn first_output(
    application: &mut Application,
    restore: RestoreMode,
    keys: u64,
    work: &Path,
) -> Result<(f64, f64), Failure> {
    application.settings.snapshots.restore = restore;
    let mut random = Random::new(keys);
    let pending = (0..PENDING).map(|_| random.draw() % keys);
    let pending = records::write(&**application.log(), "lazy-input", 3, pending)?;
    let disk = TempDir::new_in(work)?;
    let began = Instant::now();
    let (took, instance) = time_to_first_output(application, disk.path(), PATIENCE)?;
    wait_for(&instance, PATIENCE, "all files", |counters| {
        counters.tasks_lacking_files.get() == 0 && counters.records_committed.get() >= pending
    })?;
    let all = began.elapsed().as_secs_f64();
    stop(instance)?;
    Ok((took.as_secs_f64(), all))
}

/// Has each application process all records as production does, and then a few more after its last base.
fn fill(ways: &[Way], keys: u64, input: &str, work: &Path) -> Result<(), Failure> {
    let mut instances = Vec::new();
    for way in ways {
        eprintln!("filling: {}", way.name);
        let disk = TempDir::new_in(work)?;
        let instance = way.application.start(disk.path())?;
        wait_for(&instance, PATIENCE, "all records", |counters| {
            counters.records_committed.get() >= keys
        })?;
        if way.application.settings.durability.has_snapshots() {
            wait_for_bases(&instance, PATIENCE, 2 * BASE_INTERVAL)?;
        }
        instances.push((instance, disk));
    }
    let changed = (0..keys).step_by(usize::try_from(CHANGED_AFTER_BASE)?);
    let log: &dyn Log = &**ways[0].application.log();
    let changed = records::write(log, input, 2, changed)?;
    for (instance, _disk) in instances {
        let all = keys + changed;
        wait_for(&instance, PATIENCE, "the last records", |counters| {
            counters.records_committed.get() >= all
        })?;
        stop(instance)?;
    }
    Ok(())
}

fn report(options: &Options, ways: &[Way]) -> Result<Page, Failure> {
    let mut page = Page::default();
    let replay = median(&ways[0].seconds);
    let state_bytes = options.keys * (KEY_BYTES + VALUE_BYTES) as u64;
    let mut table =
        String::from("| | s | spread s | MB of keys and values per s | times as fast |\n|---|---|---|---|---|\n");
    for way in ways {
        let seconds = median(&way.seconds);
        let times = replay / seconds;
        let least = way.seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let most = way.seconds.iter().copied().fold(0.0, f64::max);
        table.push_str(&format!(
            "| {} | {seconds:.2} | {least:.2}–{most:.2} | {:.0} | {times:.1} |\n",
            way.name,
            state_bytes as f64 / 1e6 / seconds,
        ));
        if way.application.settings.durability.has_snapshots() {
            let what = format!("{}, beside a replay of the changelog", way.name);
            page.target(
                &what,
                &format!("{times:.1} ×"),
                &format!("≥ {TARGET} ×"),
                times >= TARGET,
            );
        }
    }
    page.heading("Until a task has its state on an empty disk");
    page.lines(&table);
    page.lines(
        "\nFrom the question to Kafka what is committed to the open database, by the code that opens a task. Medians.",
    );
    let expected = ways[0].contents;
    let are_equal =
        ways.iter().all(|way| way.contents == expected) && expected.is_some_and(|(entries, _)| entries == options.keys);
    page.target(
        "entries of all three databases",
        if are_equal { "the same" } else { "different" },
        "the same, byte by byte",
        are_equal,
    );
    Ok(page)
}
