//! Runs the combinations one after the other and says in what they differ from the evaluation.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate::log::Log;
use tidegate::time::{Clock, SystemClock};
use tidegate_topologies::flights::{self, Dataset, LoadOptions, topics};

use super::CheckError;
use super::evaluator::{self, Expected};
use super::kafka::{Cluster, Progress};
use super::options::{Combination, Options};
use super::outputs::{self, Outputs};
use super::service::{Service, pause};
use crate::snapshot_store::{self, SnapshotStore};

const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Time between two base snapshots of a task.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(1);
/// Differences that are shown of each combination.
const SHOWN_DIFFERENCES: usize = 10;

/// What one combination did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The settings.
    pub combination: Combination,
    /// Records in each output.
    pub records: [usize; 3],
    /// Late records by the service's own count.
    pub late: u64,
    /// Base snapshots made.
    pub bases: u64,
    /// Flights of the input.
    pub flights: u64,
    /// Time from the start of the process until all input was consumed and committed.
    pub elapsed: Duration,
    /// In what the outputs, or the late records, differ from what they must be.
    pub differences: Vec<String>,
}

/// Runs every combination on the broker at `bootstrap`, which `log` is connected to.
///
/// # Errors
/// Where a combination cannot be carried out. Differences are no error: see [`Outcome::differences`].
pub fn run(options: &Options, bootstrap: &str, log: &dyn Log) -> Result<Vec<Outcome>, CheckError> {
    let store = SnapshotStore::start_for(options.strategy);
    let directory = options.data();
    let data = Dataset::read(&directory).map_err(|error| CheckError::Data(error.to_string()))?;
    let work = tempfile::tempdir().map_err(|error| CheckError::io("create a directory in", "TMPDIR", &error))?;
    let check = Check {
        cluster: Cluster::new(bootstrap),
        log,
        binary: binary(options)?,
        work: work.path().to_owned(),
        patience: options.patience(),
        durability: snapshot_store::settings(options.strategy, store.as_ref(), SNAPSHOT_INTERVAL),
        clock: SystemClock::default(),
    };
    let mut expectations = Expectations {
        directory,
        evaluated: BTreeMap::new(),
    };
    let combinations = options.combinations();
    let mut outcomes: Vec<Outcome> = Vec::new();
    for combination in &combinations {
        let previous = outcomes.last().map(|outcome| outcome.combination.partitions);
        if previous != Some(combination.partitions) {
            check.load(&data, combination.partitions)?;
        }
        let expected = expectations.of(combination)?;
        let (outcome, outputs) = check.combination(combination, expected)?;
        report(&outcome);
        if let Some(out) = &options.out {
            write_tables(out, combination, combinations.len() == 1, &outputs)?;
        }
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// What must come out, evaluated once for each pair of partitions and grace: nothing else may change it.
struct Expectations {
    directory: PathBuf,
    evaluated: BTreeMap<(u16, i64), Expected>,
}

impl Expectations {
    fn of(&mut self, combination: &Combination) -> Result<&Expected, CheckError> {
        let (partitions, grace_ms) = (combination.partitions, combination.grace.as_millis());
        match self.evaluated.entry((partitions, grace_ms)) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let expected = evaluator::evaluate(&self.directory, u32::from(partitions), grace_ms);
                Ok(entry.insert(expected.map_err(CheckError::Data)?))
            }
        }
    }
}

/// The figures of all combinations as a table; the last line is the verdict.
pub fn figures(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "partitions grace commit workers  departures carriers manufacturers   late  bases  seconds  flights/s  result\n",
    );
    for outcome in outcomes {
        let Combination {
            partitions,
            commit,
            workers,
            ..
        } = outcome.combination;
        let [departures, carriers, manufacturers] = outcome.records;
        let seconds = outcome.elapsed.as_secs_f64();
        let rate = outcome.flights as f64 / seconds;
        let result = match outcome.differences.len() {
            0 => "equal".to_owned(),
            count => format!("{count} differences"),
        };
        let (grace, commit) = (outcome.combination.grace_text(), commit.to_string());
        text.push_str(&format!(
            "{partitions:>10} {grace:>5} {commit:>6} {workers:>7} {departures:>11} {carriers:>8} {manufacturers:>13} {:>6} {:>6} {seconds:>8.1} {rate:>10.0}  {result}\n",
            outcome.late, outcome.bases,
        ));
    }
    let equal = outcomes.iter().filter(|outcome| outcome.differences.is_empty()).count();
    text.push_str(&format!(
        "{equal} of {} combinations equal the evaluation",
        outcomes.len()
    ));
    text
}

fn report(outcome: &Outcome) {
    let count = outcome.differences.len();
    let seconds = outcome.elapsed.as_secs_f64();
    eprintln!("{}: {count} differences, {seconds:.1} s", outcome.combination.name());
    for difference in outcome.differences.iter().take(SHOWN_DIFFERENCES) {
        eprintln!("  {difference}");
    }
    if count > SHOWN_DIFFERENCES {
        eprintln!("  and {} more", count - SHOWN_DIFFERENCES);
    }
}

struct Check<'a> {
    cluster: Cluster,
    log: &'a dyn Log,
    binary: PathBuf,
    work: PathBuf,
    patience: Duration,
    /// The settings of the strategy.
    durability: String,
    clock: SystemClock,
}

impl Check<'_> {
    /// Makes the topics anew and writes the data set into them.
    fn load(&self, data: &Dataset, partitions: u16) -> Result<(), CheckError> {
        for topic in topics::ALL {
            let deleted = self.log.admin().delete_topic(topic, ADMIN_TIMEOUT);
            deleted.map_err(|error| CheckError::kafka(format!("delete topic {topic}"), &error))?;
        }
        let options = LoadOptions {
            partitions: i32::from(partitions),
            ..LoadOptions::default()
        };
        let loaded = flights::create_topics(self.log, &options)
            .and_then(|()| flights::load(self.log, data, &options, &mut |_| {}));
        loaded.map_err(|error| CheckError::kafka("load the data set", &error))?;
        let (flights, planes) = (data.flights.len(), data.planes.len());
        eprintln!("{flights} flights and {planes} planes are in {partitions} partitions");
        Ok(())
    }

    fn combination(&self, combination: &Combination, expected: &Expected) -> Result<(Outcome, Outputs), CheckError> {
        let name = combination.name();
        let application = format!("flights-check-{}-{name}", std::process::id());
        let partitions = i32::from(combination.partitions);
        let starts = self.output_ends(partitions)?;
        let directory = self.work.join(&name);
        let start = self.clock.monotonic();
        let mut service = Service::start(
            &self.binary,
            &directory,
            self.cluster.bootstrap(),
            &application,
            combination,
            &self.durability,
        )?;
        self.until_consumed(&mut service, &application, partitions)?;
        let elapsed = self.clock.monotonic() - start;
        let (late, bases) = (service.late_records()?, service.base_snapshots());
        service.stop()?;
        let outputs = Outputs {
            departures: self.cluster.read(topics::DEPARTURES, &starts[0])?,
            carriers: self.cluster.read(topics::CARRIERS, &starts[1])?,
            manufacturers: self.cluster.read(topics::MANUFACTURERS, &starts[2])?,
        };
        let mut differences = outputs::differences(&outputs, expected, u32::from(combination.partitions));
        if late != expected.late {
            differences.push(format!("late records: {late}, expected {}", expected.late));
        }
        self.clean_up(&application)?;
        let outcome = Outcome {
            combination: *combination,
            records: [
                outputs.departures.len(),
                outputs.carriers.len(),
                outputs.manufacturers.len(),
            ],
            late,
            bases,
            flights: expected.flights,
            elapsed,
            differences,
        };
        Ok((outcome, outputs))
    }

    fn output_ends(&self, partitions: i32) -> Result<Vec<Vec<i64>>, CheckError> {
        let ends = topics::OUTPUTS.map(|topic| self.cluster.ends(topic, partitions));
        ends.into_iter().collect()
    }

    /// Waits until the group has committed the ends of the inputs, and then of the internal topics.
    fn until_consumed(&self, service: &mut Service, application: &str, partitions: i32) -> Result<(), CheckError> {
        let progress = Progress::of(&self.cluster, application)?;
        let inputs = topics::INPUTS.map(|topic| (topic.to_owned(), partitions));
        let deadline = self.clock.monotonic() + self.patience;
        loop {
            service.check_alive()?;
            let mut behind = progress.first_behind(&inputs)?;
            if behind.is_none() {
                // The internal topics are listed late, since the service makes them at its start.
                behind = progress.first_behind(&self.repartition_topics(application)?)?;
            }
            let Some(partition) = behind else {
                return Ok(());
            };
            if self.clock.monotonic() > deadline {
                return Err(CheckError::TooLate {
                    what: format!("the end of {partition} was committed"),
                    patience_s: self.patience.as_secs(),
                    log: service.log_tail(),
                });
            }
            pause(LOOK_INTERVAL);
        }
    }

    fn repartition_topics(&self, application: &str) -> Result<Vec<(String, i32)>, CheckError> {
        let mut topics = self.cluster.topics(&format!("{application}-"))?;
        topics.retain(|(name, _)| name.ends_with("-repartition"));
        Ok(topics)
    }

    /// Removes what a combination leaves on the broker and on the disk.
    fn clean_up(&self, application: &str) -> Result<(), CheckError> {
        for (topic, _) in self.cluster.topics(&format!("{application}-"))? {
            let deleted = self.log.admin().delete_topic(&topic, ADMIN_TIMEOUT);
            deleted.map_err(|error| CheckError::kafka(format!("delete topic {topic}"), &error))?;
        }
        Ok(())
    }
}

/// Writes the CSV files to `out`; of several combinations each has a directory there, and the shipped settings `out` itself too.
fn write_tables(out: &Path, combination: &Combination, is_only: bool, outputs: &Outputs) -> Result<(), CheckError> {
    let tables =
        outputs::tables(outputs).map_err(|error| CheckError::Data(format!("an output is no JSON: {error}")))?;
    let mut directories = Vec::new();
    if is_only || *combination == Combination::as_shipped() {
        directories.push(out.to_owned());
    }
    if !is_only {
        directories.push(out.join(combination.name()));
    }
    for directory in directories {
        fs::create_dir_all(&directory).map_err(|error| CheckError::io("create", &directory, &error))?;
        for (name, text) in &tables {
            let path = directory.join(name);
            fs::write(&path, text).map_err(|error| CheckError::io("write", &path, &error))?;
        }
    }
    Ok(())
}

/// The service's binary: as given, or the one that Cargo has put beside this program.
fn binary(options: &Options) -> Result<PathBuf, CheckError> {
    if let Some(path) = &options.tidegate {
        return Ok(path.clone());
    }
    let program = std::env::current_exe().map_err(|error| CheckError::io("find", "this program", &error))?;
    let binary = program.with_file_name("tidegate");
    if binary.is_file() {
        return Ok(binary);
    }
    let missing = std::io::Error::other("it is not there; build it by cargo build --bin tidegate");
    Err(CheckError::io("run", binary, &missing))
}
