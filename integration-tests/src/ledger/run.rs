//! One run from the first topic to the verdict.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate::time::{Clock, SystemClock};

use super::generator::Generator;
use super::inputs::Inputs;
use super::instance::{Metrics, Surroundings};
use super::kafka::Cluster;
use super::link::Link;
use super::observer::{Observer, Topics, input_differences};
use super::options::{Fault, Options};
use super::random::Random;
use super::report::{Report, Restores};
use super::scenario::{Run, prepare_instances};
use super::{LedgerError, lock, witness};
use crate::{Broker, SnapshotStore};

/// Does what the options say and answers what was found out. Files and topics stay where the run fails.
///
/// # Errors
/// Where the run cannot be brought to its end; the first findings are printed then.
pub fn run(options: &Options) -> Result<Report, LedgerError> {
    options.check()?;
    let clock = Arc::new(SystemClock::default());
    let seed = options.seed.unwrap_or_else(|| clock.wall_ms() as u64 % 1_000_000);
    let application = format!("ledger-{}-{}", clock.wall_ms() % 1_000_000_000, std::process::id());
    let binary = binary(options)?;
    let work = work_directory(options)?;
    println!("seed {seed}, application {application}, files in {}", work.display());
    let servers = Servers::start(options)?;
    let cluster = servers.cluster();
    let topics = Topics {
        input: format!("{application}-in"),
        accounts: format!("{application}-accounts"),
        buckets: format!("{application}-buckets"),
        partitions: options.partitions,
    };
    let names = [&topics.input, &topics.accounts, &topics.buckets];
    cluster.create_topics(&names.map(|name| (name.as_str(), topics.partitions)))?;
    let inputs = Arc::new(Mutex::new(Inputs::new(seed)));
    let surroundings = Surroundings {
        application: &application,
        cluster: &cluster,
        topics: &topics,
        store: servers.store.as_ref(),
    };
    let mut run = Run {
        options,
        observer: Observer::start(&cluster, &topics, Arc::clone(&inputs), Arc::clone(&clock))?,
        clock: Arc::clone(&clock),
        cluster: &cluster,
        application: &application,
        topics: &topics,
        inputs,
        instances: prepare_instances(options, &surroundings, &binary, &work)?,
        starts: Vec::new(),
        metrics: Metrics::new(),
        changelogs: None,
        phases: Vec::new(),
        outages: Vec::new(),
        random: Random::new(seed),
    };
    let start = clock.monotonic();
    if let Err(error) = drive(&mut run, start, &servers) {
        run.observer.print_findings();
        return Err(error);
    }
    let report = close(run, seed, start)?;
    if report.failures().is_empty() {
        cluster.delete_topics(&application)?;
        if options.work.is_none() {
            std::fs::remove_dir_all(&work).map_err(|error| LedgerError::io("remove the files of the run", error))?;
        }
    }
    Ok(report)
}

fn drive(run: &mut Run<'_>, start: Duration, servers: &Servers) -> Result<(), LedgerError> {
    let (inputs, clock) = (Arc::clone(&run.inputs), Arc::clone(&run.clock));
    let generator = Generator::start(run.cluster, &run.topics.input, run.options.rate, inputs, clock)?;
    run.start_all()?;
    match (run.options.fault, &servers.broker, &servers.store) {
        (Fault::None, ..) => run.stop_again_and_again()?,
        (Fault::Broker, Some(own), _) => run.disturb_broker(&own.broker, &own.link)?,
        (Fault::Store, _, Some(store)) => run.disturb_store(store)?,
        (Fault::Broker | Fault::Store, ..) => {
            return Err(LedgerError::Broken("there is nothing to disturb".to_owned()));
        }
    }
    let elapsed = run.clock.monotonic() - start;
    run.go_on_for(run.options.least_load().saturating_sub(elapsed))?;
    run.finish(generator)
}

fn close(run: Run<'_>, seed: u64, start: Duration) -> Result<Report, LedgerError> {
    let patience = run.options.patience();
    let witnesses = run.witnesses();
    let processed = witness::count(witnesses.iter().map(PathBuf::as_path))
        .map_err(|error| LedgerError::io("read a witness file", error))?;
    let observed = run.observer.finish(run.cluster, run.topics, patience, &run.clock)?;
    let inputs = lock(&run.inputs);
    let input_differences = input_differences(run.cluster, run.topics, &inputs, patience, &run.clock)?;
    let changelogs = match run.changelogs {
        Some(reader) => Some(reader.finish(run.cluster, patience, &run.clock)?),
        None => None,
    };
    let mut topics = run.cluster.topics(run.application)?;
    topics.retain(|(name, _)| name.ends_with("-changelog"));
    Ok(Report {
        options: run.options.clone(),
        seed,
        inputs: inputs.len() as u64,
        input_differences,
        seen: observed.seen,
        findings: observed.findings,
        processed,
        restores: Restores::judge(&run.starts, changelogs.as_ref()),
        changelogs: topics.len(),
        starts: run.starts,
        metrics: run.metrics,
        latencies: run
            .phases
            .iter()
            .filter_map(|phase| observed.latencies.of(phase))
            .collect(),
        outages: run.outages,
        duration: run.clock.monotonic() - start,
    })
}

/// What the service depends on: started for the run, except for a broker that runs already.
struct Servers {
    broker: Option<OwnBroker>,
    bootstrap: String,
    store: Option<SnapshotStore>,
}

impl Servers {
    fn start(options: &Options) -> Result<Self, LedgerError> {
        let broker = match &options.bootstrap {
            Some(_) => None,
            None => Some(OwnBroker::start()?),
        };
        let own = broker.as_ref().map(|broker| broker.link.address().to_string());
        Ok(Self {
            bootstrap: options.bootstrap.clone().or(own).unwrap_or_default(),
            broker,
            store: match options.changes() {
                true => Some(SnapshotStore::start()),
                false => SnapshotStore::start_for(options.strategy),
            },
        })
    }

    fn cluster(&self) -> Cluster {
        Cluster::new(self.bootstrap.as_str())
    }
}

fn binary(options: &Options) -> Result<PathBuf, LedgerError> {
    let beside = || {
        let own = std::env::current_exe().map_err(|error| LedgerError::io("find this program", error))?;
        Ok(own.with_file_name("tidegate"))
    };
    let binary = options.tidegate.clone().map_or_else(beside, Ok)?;
    if binary.is_file() {
        return Ok(binary);
    }
    let path = binary.display();
    Err(LedgerError::Broken(format!(
        "{path} is not there; build it with `cargo build -p tidegate-topologies`, or name it with --tidegate"
    )))
}

fn work_directory(options: &Options) -> Result<PathBuf, LedgerError> {
    let failed = |error| LedgerError::io("make a directory for the run", error);
    match &options.work {
        Some(directory) => {
            std::fs::create_dir_all(directory).map_err(failed)?;
            Path::new(directory).canonicalize().map_err(failed)
        }
        None => tempfile::Builder::new()
            .prefix("ledger-")
            .tempdir()
            .map(tempfile::TempDir::keep)
            .map_err(failed),
    }
}

/// A broker in a container, and the link by which all clients reach it.
struct OwnBroker {
    broker: Broker,
    link: Link,
}

impl OwnBroker {
    fn start() -> Result<Self, LedgerError> {
        let link = Link::open()?;
        let broker = Broker::start_with(&[("KAFKA_ADVERTISED", &link.address().to_string())]);
        let address = broker.address().parse();
        link.lead_to(address.map_err(|error| LedgerError::Broken(format!("{}: {error}", broker.address())))?);
        Ok(Self { broker, link })
    }
}
