//! One run from the first topic to the verdict.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate::time::{Clock, SystemClock};

use super::generator::Generator;
use super::inputs::Inputs;
use super::instance::Metrics;
use super::kafka::Cluster;
use super::link::Link;
use super::observer::{Observer, Seen, Topics, input_differences, read_increments};
use super::options::{BrokerFault, Options};
use super::random::Random;
use super::report::{Changelogs, Report, Restores};
use super::scenario::{Run, prepare_instances};
use super::{LedgerError, lock, witness};
use crate::Broker;

/// Does what the options say and answers what was found out. Files and topics stay where the run fails.
///
/// # Errors
/// Where the run cannot be brought to its end; the first findings are printed then.
pub fn run(options: &Options) -> Result<Report, LedgerError> {
    let clock = Arc::new(SystemClock::default());
    let seed = options.seed.unwrap_or_else(|| clock.wall_ms() as u64 % 1_000_000);
    let application = format!("ledger-{}-{}", clock.wall_ms() % 1_000_000_000, std::process::id());
    let binary = binary(options)?;
    let work = work_directory(options)?;
    println!("seed {seed}, application {application}, files in {}", work.display());
    let broker = match &options.bootstrap {
        Some(_) => None,
        None => Some(OwnBroker::start()?),
    };
    let cluster = match (&broker, &options.bootstrap) {
        (Some(broker), _) => Cluster::new(broker.link.address().to_string()),
        (None, Some(address)) => Cluster::new(address.as_str()),
        (None, None) => return Err(LedgerError::Broken("there is no broker".to_owned())),
    };
    let topics = Topics {
        input: format!("{application}-in"),
        accounts: format!("{application}-accounts"),
        buckets: format!("{application}-buckets"),
        partitions: options.partitions,
    };
    let names = [&topics.input, &topics.accounts, &topics.buckets];
    cluster.create_topics(&names.map(|name| (name.as_str(), topics.partitions)))?;
    let inputs = Arc::new(Mutex::new(Inputs::new(seed)));
    let mut run = Run {
        options,
        clock: Arc::clone(&clock),
        cluster: &cluster,
        topics: &topics,
        observer: Observer::start(&cluster, &topics, Arc::clone(&inputs))?,
        inputs,
        instances: prepare_instances(options, &application, &cluster, &topics, &binary, &work)?,
        starts: Vec::new(),
        metrics: Metrics::new(),
        random: Random::new(seed),
    };
    let load = Load {
        options,
        seed,
        application: &application,
        start: clock.monotonic(),
    };
    if let Err(error) = load.drive(&mut run, broker.as_ref()) {
        run.observer.print_findings();
        return Err(error);
    }
    let report = load.close(run)?;
    if report.failures().is_empty() {
        cluster.delete_topics(&application)?;
        if options.work.is_none() {
            std::fs::remove_dir_all(&work).map_err(|error| LedgerError::io("remove the files of the run", error))?;
        }
    }
    Ok(report)
}

struct Load<'a> {
    options: &'a Options,
    seed: u64,
    application: &'a str,
    start: Duration,
}

impl Load<'_> {
    fn drive(&self, run: &mut Run<'_>, broker: Option<&OwnBroker>) -> Result<(), LedgerError> {
        let inputs = Arc::clone(&run.inputs);
        let clock = Arc::clone(&run.clock);
        let generator = Generator::start(run.cluster, &run.topics.input, self.options.rate, inputs, clock)?;
        run.start_all()?;
        match (self.options.fault, broker) {
            (BrokerFault::None, _) => run.stop_again_and_again()?,
            (BrokerFault::Broker, Some(own)) => run.disturb(&own.broker, &own.link)?,
            (BrokerFault::Broker, None) => {
                let reason = "--fault broker stops the broker, so it needs one of its own: leave --bootstrap out";
                return Err(LedgerError::Broken(reason.to_owned()));
            }
        }
        let elapsed = run.clock.monotonic() - self.start;
        run.go_on_for(Duration::from_secs(self.options.seconds).saturating_sub(elapsed))?;
        run.finish(generator)
    }

    fn close(&self, run: Run<'_>) -> Result<Report, LedgerError> {
        let patience = self.options.patience();
        let witnesses = run.witnesses();
        let processed = witness::count(witnesses.iter().map(PathBuf::as_path))
            .map_err(|error| LedgerError::io("read a witness file", error))?;
        let (seen, findings): (Seen, _) = run.observer.finish(run.cluster, run.topics, patience, &run.clock)?;
        let inputs = lock(&run.inputs);
        let input_differences = input_differences(run.cluster, run.topics, &inputs, patience, &run.clock)?;
        let changelogs = self.changelogs(run.cluster, &run.clock)?;
        Ok(Report {
            options: self.options.clone(),
            seed: self.seed,
            inputs: inputs.len() as u64,
            input_differences,
            seen,
            findings,
            processed,
            restores: Restores::judge(&run.starts, &changelogs),
            starts: run.starts,
            metrics: run.metrics,
            duration: run.clock.monotonic() - self.start,
        })
    }

    fn changelogs(&self, cluster: &Cluster, clock: &SystemClock) -> Result<Changelogs, LedgerError> {
        let all = cluster.topics(self.application)?;
        let read = |store: &str| {
            let name = format!("{}-{store}-changelog", self.application);
            match all.iter().find(|(topic, _)| *topic == name) {
                Some((topic, partitions)) => {
                    read_increments(cluster, topic, *partitions, self.options.patience(), clock)
                }
                None => Err(LedgerError::Broken(format!("changelog {name} is not there"))),
            }
        };
        let [accounts, buckets] = tidegate_topologies::ledger::STORES;
        Ok([read(accounts)?, read(buckets)?])
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
