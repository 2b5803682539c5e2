//! Tidegate as an engine of the benchmark, by the engines' common command line (see the README beside).

mod key;
mod options;
mod workload;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tidegate::instance::{Instance, InstanceHandle, Ports};
use tidegate::log::kafka::{KafkaLog, KafkaSettings};
use tidegate::time::SystemClock;
use tokio::signal::unix::{SignalKind, signal};

use options::Options;

/// How often the instance is asked whether it runs, or has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Also serves librdkafka and RocksDB: their many small buffers fragment the C library's heap (ADR 0005).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter("info")
        .init();
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("tidegate-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let topology = Arc::new(workload::topology(options)?);
    let settings = options.settings();
    let mut kafka = KafkaSettings::new(options.bootstrap.as_str()).with_commit_interval(settings.commit_interval);
    kafka.producer_engine = options.producer_engine.into();
    let log = KafkaLog::new(kafka)?;
    let instance = Instance::start(topology, settings, Ports::new(log, Arc::new(SystemClock::default())))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run_until_terminated(&instance))?;
    instance.join()?;
    Ok(())
}

/// Says once when all tasks run, and asks the instance to stop at the first SIGTERM; returns when it has ended.
async fn run_until_terminated(instance: &InstanceHandle) -> std::io::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut said_running = false;
    while !instance.is_finished() {
        tokio::select! {
            _ = terminated.recv() => instance.stop(),
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
        if !said_running && instance.status().ready {
            said_running = true;
            println!("{}", serde_json::json!({ "event": "state", "value": "RUNNING" }));
        }
    }
    Ok(())
}
