//! `make savepoints`: a savepoint under load on real servers, and two applications that start from the first one and run beside it.
//!
//! The load is that of the ledger. The first fork starts from a savepoint that was taken before (`savepoint restore`), the second one from a moment in the
//! midst of the load (`savepoint fork`); both read the same input, and each writes to topics of its own. The ledger of the application has to be
//! exact, and so has that of each fork: what the application had said of a key up to the savepoint, and what the fork says of it from there on.

mod command;
mod tail;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use tidegate::durability::Durability;
use tidegate::time::{Clock, SystemClock};

use crate::ledger::audit::Findings;
use crate::ledger::generator::{Generator, write_one_for_each};
use crate::ledger::inputs::Inputs;
use crate::ledger::instance::{Instance, Surroundings};
use crate::ledger::kafka::Cluster;
use crate::ledger::observer::{Observer, Topics};
use crate::ledger::options::Options as LedgerOptions;
use crate::ledger::{LedgerError, wait};
use crate::simulation::strategy;
use crate::{Broker, SnapshotStore};

use command::{Taken, savepoint};
use tail::Tail;

/// Takes a savepoint under load, starts two applications from it, and proves that all three count every input once.
#[derive(Clone, Debug, Parser)]
#[command(name = "savepoints")]
pub struct Options {
    /// What makes state durable: changelog, snapshot or changelog+snapshot.
    #[arg(long, default_value = "snapshot", value_parser = strategy)]
    pub strategy: Durability,
    /// native or canonical.
    #[arg(long, default_value = "native")]
    pub format: String,
    /// Records per second that the generator writes.
    #[arg(long, default_value_t = 2_000)]
    pub rate: u32,
    /// Duration of the load, in seconds.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Address of a broker that runs already; without it one is started in a container.
    #[arg(long)]
    pub bootstrap: Option<String>,
    /// Whether the second fork is left out.
    #[arg(long)]
    pub one_fork: bool,
    /// The service's binary; without it the one beside this program.
    #[arg(long)]
    pub tidegate: Option<PathBuf>,
    /// How long anything may take that has to happen, in seconds.
    #[arg(long, default_value_t = 120)]
    pub patience_seconds: u64,
}

/// What was found out of one fork.
#[derive(Debug)]
pub struct Fork {
    /// How it came to be.
    pub how: &'static str,
    /// How long the command took.
    pub took: Duration,
    /// Output records of its own.
    pub outputs: u64,
    /// What is wrong with its ledger.
    pub findings: Findings,
}

/// What was found out.
#[derive(Debug)]
pub struct Report {
    strategy: Durability,
    inputs: u64,
    taken: Taken,
    held: Duration,
    findings: Findings,
    forks: Vec<Fork>,
}

impl Report {
    /// Whether all ledgers are exact.
    pub fn is_exact(&self) -> bool {
        self.findings.is_clean()
            && self
                .forks
                .iter()
                .all(|fork| fork.findings.is_clean() && fork.outputs > 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Taken { tasks, bytes, took_ms } = self.taken;
        writeln!(f, "strategy             {}", self.strategy.word())?;
        writeln!(f, "inputs               {}", self.inputs)?;
        writeln!(
            f,
            "savepoint            {tasks} tasks, {bytes} bytes, complete after {took_ms} ms"
        )?;
        writeln!(f, "tasks stood still    {} ms at most", self.held.as_millis())?;
        for fork in &self.forks {
            let (how, took, outputs) = (fork.how, fork.took.as_millis(), fork.outputs);
            writeln!(f, "{how:<20} in place after {took} ms, {outputs} outputs of its own")?;
        }
        let all = std::iter::once(&self.findings).chain(self.forks.iter().map(|fork| &fork.findings));
        for finding in all.flat_map(|findings| &findings.first) {
            writeln!(f, "look at              {finding}")?;
        }
        let verdict = if self.is_exact() { "EXACT" } else { "NOT EXACT" };
        write!(f, "verdict              {verdict}")
    }
}

/// An application with its instances.
struct Application {
    id: String,
    topics: Topics,
    instances: Vec<Instance>,
}

struct Run<'a> {
    options: &'a Options,
    ledger: LedgerOptions,
    cluster: Cluster,
    store: SnapshotStore,
    binary: PathBuf,
    work: tempfile::TempDir,
    clock: Arc<SystemClock>,
    inputs: Arc<Mutex<Inputs>>,
}

/// Does what the options say.
///
/// # Errors
/// Where the run cannot be brought to its end.
pub fn run(options: &Options) -> Result<Report, LedgerError> {
    let clock = Arc::new(SystemClock::default());
    let own = options.bootstrap.is_none().then(Broker::start);
    let bootstrap = options
        .bootstrap
        .clone()
        .or(own.as_ref().map(|own| own.address().to_owned()));
    let ledger = LedgerOptions::parse_from(["ledger", "--strategy", options.strategy.word(), "--workers", "2"]);
    let beside = || {
        let own = std::env::current_exe().map_err(|error| LedgerError::Broken(error.to_string()))?;
        Ok::<_, LedgerError>(own.with_file_name("tidegate"))
    };
    let run = Run {
        options,
        ledger,
        cluster: Cluster::new(bootstrap.unwrap_or_default()),
        store: SnapshotStore::start(),
        binary: options.tidegate.clone().map_or_else(beside, Ok)?,
        work: tempfile::tempdir().map_err(|error| LedgerError::Broken(error.to_string()))?,
        inputs: Arc::new(Mutex::new(Inputs::new(clock.wall_ms() as u64))),
        clock,
    };
    run.drive()
}

impl Run<'_> {
    fn patience(&self) -> Duration {
        Duration::from_secs(self.options.patience_seconds)
    }

    fn share(&self, of: u32) -> Duration {
        Duration::from_secs(self.options.seconds) / of
    }

    fn application(&self, id: &str, input: &str, instances: u8) -> Result<Application, LedgerError> {
        let topics = Topics {
            input: input.to_owned(),
            accounts: format!("{id}-accounts"),
            buckets: format!("{id}-buckets"),
            partitions: self.ledger.partitions,
        };
        let names = [
            (&*topics.accounts, topics.partitions),
            (&*topics.buckets, topics.partitions),
        ];
        self.cluster.create_topics(&names)?;
        let surroundings = Surroundings {
            application: id,
            cluster: &self.cluster,
            topics: &topics,
            store: Some(&self.store),
        };
        let prepared = (0..instances)
            .map(|number| Instance::prepare(number, &self.ledger, &surroundings, &self.binary, self.work.path()));
        let instances = prepared.collect::<Result<_, _>>()?;
        Ok(Application {
            id: id.to_owned(),
            topics,
            instances,
        })
    }

    fn go_on(&self, applications: &mut [&mut Application], time: Duration) -> Result<(), LedgerError> {
        wait::for_time(&self.clock, time, || {
            let mut all = applications
                .iter_mut()
                .flat_map(|application| &mut application.instances);
            all.try_for_each(Instance::check)
        })
    }

    fn drive(&self) -> Result<Report, LedgerError> {
        let id = format!(
            "savepoints-{}-{}",
            self.clock.wall_ms() % 1_000_000_000,
            std::process::id()
        );
        let input = format!("{id}-in");
        self.cluster.create_topics(&[(&input, self.ledger.partitions)])?;
        let mut first = self.application(&id, &input, 2)?;
        let observer = Observer::start(
            &self.cluster,
            &first.topics,
            Arc::clone(&self.inputs),
            Arc::clone(&self.clock),
        )?;
        let (inputs, clock) = (Arc::clone(&self.inputs), Arc::clone(&self.clock));
        let generator = Generator::start(&self.cluster, &input, self.options.rate, inputs, clock)?;
        first.instances.iter_mut().try_for_each(Instance::start)?;
        wait::until(&self.clock, self.patience(), "output of both stages", || {
            let seen = observer.seen()?;
            Ok(seen.accounts > 0 && seen.buckets > 0)
        })?;
        self.go_on(&mut [&mut first], self.share(3))?;
        let format = ["create", "before", "--json", "--format", &self.options.format];
        let taken = Taken::read(&savepoint(&self.binary, first.instances[0].configuration_file(), &format)?.0)?;
        let held = held(&first.instances);
        self.go_on(&mut [&mut first], self.share(6))?;
        let mut forks = vec![self.restored(&first, &input)?];
        if !self.options.one_fork {
            forks.push(self.forked(&first, &input)?);
        }
        let mut all: Vec<&mut Application> = forks.iter_mut().map(|(fork, ..)| fork).collect();
        all.push(&mut first);
        self.go_on(&mut all, self.share(3))?;
        generator.stop()?;
        write_one_for_each(&self.cluster, &input, &self.inputs, &self.clock)?;
        self.close(first, observer, forks, taken, held)
    }

    fn restored(&self, first: &Application, input: &str) -> Result<(Application, &'static str, Duration), LedgerError> {
        let mut fork = self.application(&format!("{}-restored", first.id), input, 1)?;
        let arguments = ["restore", "ledger", "before", "--of", &first.id, "--no-claim"];
        let (_, took) = savepoint(&self.binary, fork.instances[0].configuration_file(), &arguments)?;
        fork.instances.iter_mut().try_for_each(Instance::start)?;
        Ok((fork, "savepoint restore", took))
    }

    fn forked(&self, first: &Application, input: &str) -> Result<(Application, &'static str, Duration), LedgerError> {
        let mut fork = self.application(&format!("{}-forked", first.id), input, 1)?;
        let arguments = ["fork", "ledger", "--to", &fork.id.clone()];
        let (_, took) = savepoint(&self.binary, first.instances[0].configuration_file(), &arguments)?;
        fork.instances.iter_mut().try_for_each(Instance::start)?;
        Ok((fork, "savepoint fork", took))
    }

    fn close(
        &self,
        mut first: Application,
        observer: Observer,
        forks: Vec<(Application, &'static str, Duration)>,
        taken: Taken,
        held: Duration,
    ) -> Result<Report, LedgerError> {
        let written = crate::ledger::lock_inputs(&self.inputs).len() as u64;
        wait::until(&self.clock, self.patience(), "all output of the application", || {
            let seen = observer.seen()?;
            first.instances.iter_mut().try_for_each(Instance::check)?;
            Ok(seen.accounts >= written && seen.buckets >= written)
        })?;
        let mut tails = Vec::new();
        for (mut fork, how, took) in forks {
            let mut tail = Tail::start(&self.cluster, &fork.topics)?;
            wait::until(
                &self.clock,
                self.patience(),
                &format!("all output of {}", fork.id),
                || {
                    fork.instances.iter_mut().try_for_each(Instance::check)?;
                    tail.read()?;
                    Ok(tail.is_complete(&crate::ledger::lock_inputs(&self.inputs)))
                },
            )?;
            stop(&mut fork, &self.clock, self.patience())?;
            tails.push((tail, how, took));
        }
        stop(&mut first, &self.clock, self.patience())?;
        let mut whole = Tail::start(&self.cluster, &first.topics)?;
        wait::until(
            &self.clock,
            self.patience(),
            "the output of the application once more",
            || {
                whole.read()?;
                Ok(whole.is_complete(&crate::ledger::lock_inputs(&self.inputs)))
            },
        )?;
        let observed = observer.finish(&self.cluster, &first.topics, self.patience(), &self.clock)?;
        let inputs = crate::ledger::lock_inputs(&self.inputs);
        let forks = tails.into_iter().map(|(tail, how, took)| Fork {
            how,
            took,
            outputs: tail.len() as u64,
            findings: tail.audit_after(&whole, &inputs),
        });
        let report = Report {
            strategy: self.options.strategy,
            inputs: written,
            taken,
            held,
            findings: observed.findings,
            forks: forks.collect(),
        };
        if report.is_exact() {
            self.cluster.delete_topics(&first.id)?;
        }
        Ok(report)
    }
}

fn stop(application: &mut Application, clock: &SystemClock, patience: Duration) -> Result<(), LedgerError> {
    let mut instances = application.instances.iter_mut();
    instances.try_for_each(|instance| instance.terminate(clock, patience))
}

/// The longest that tasks of an instance have stood still.
fn held(instances: &[Instance]) -> Duration {
    let held = instances.iter().filter_map(|instance| {
        let metrics = instance.metrics()?;
        let sum = metrics.get("tidegate_savepoint_held_seconds_sum")?;
        let count = metrics.get("tidegate_savepoint_held_seconds_count")?;
        (*count > 0.0).then(|| Duration::from_secs_f64(sum / count))
    });
    held.max().unwrap_or_default()
}

/// Whether a program is where it should be, for a message that helps.
pub(crate) fn exists(path: &Path) -> bool {
    path.is_file()
}
