//! `tidegate demo`: a month of flights, replayed and counted before your eyes.

mod error;
mod remaining;
mod tables;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use tidegate::errors::Coded;
use tidegate::instance::{Instance, InstanceHandle, Ports};
use tidegate::log::Log;
use tidegate::service::config::{Configuration, Sources};
use tidegate::service::{BoxError, Monitor, MonitorSettings, ServiceError, logging, open_log};
use tidegate::time::{Clock, SystemClock};
use tidegate::topology::Topology;
use tidegate_topologies::flights::{self, Dataset, LoadOptions, Parameters, Results};

use error::DemoError;

/// What the command is for, as `tidegate --help` has it.
pub const ABOUT: &str = "Replay a month of flights and show the results";

const APPLICATION: &str = "flights-demo";
const WORKERS: usize = 2;
const PARTITIONS: i32 = 3;
/// How often the progress is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// After this time without progress it is looked whether there is anything left to do.
const IDLE_TIME: Duration = Duration::from_millis(500);
/// Longest time without any progress.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Replays the flights of January 2013, counts them per hour, airline and manufacturer, and shows the results.
#[derive(Debug, Parser)]
#[command(name = "tidegate demo")]
struct Options {
    /// Brokers to run on, as host:port; without it everything happens in this process.
    #[arg(long, value_name = "ADDRESSES")]
    kafka: Option<String>,
    /// Directory for the log inside the process and the state. A demo that was killed goes on from there.
    #[arg(long, value_name = "DIR", conflicts_with = "kafka")]
    dir: Option<PathBuf>,
    /// Set one option, for example parameters.grace=2h or http.address=127.0.0.1:9464.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Runs the command with the arguments after its name.
pub fn run(arguments: &[String]) -> Result<(), BoxError> {
    let options = Options::parse_from(std::iter::once("tidegate demo").chain(arguments.iter().map(String::as_str)));
    let temporary = tempfile::tempdir().map_err(|error| {
        coded(DemoError::State {
            reason: error.to_string(),
        })
    })?;
    let dir = options.dir.as_deref().unwrap_or(temporary.path());
    let mut assignments = vec![
        format!("application.id={APPLICATION}"),
        format!("workers={WORKERS}"),
        format!("state.dir={}", dir.join("state").display()),
        "http.address=127.0.0.1:0".to_owned(),
        "log.level=warn,tidegate::service::run=error".to_owned(),
    ];
    assignments.push(match &options.kafka {
        Some(addresses) => format!("kafka.bootstrap_servers={addresses}"),
        None => "embedded.enabled=true".to_owned(),
    });
    if options.kafka.is_none() {
        assignments.push(format!("embedded.partitions={PARTITIONS}"));
    }
    if options.dir.is_some() {
        assignments.push(format!("embedded.dir={}", dir.join("log").display()));
    }
    assignments.extend(options.set.iter().cloned());
    let configuration = Configuration::load(&Sources {
        assignments,
        ..Sources::default()
    })?;
    let place = match (&options.kafka, &options.dir) {
        (Some(addresses), _) => format!("Kafka at {addresses}"),
        (None, Some(dir)) => format!("the log inside this process, kept in {}", dir.display()),
        (None, None) => "the log inside this process".to_owned(),
    };
    Demo {
        configuration,
        place,
        resumes: options.dir.is_some(),
        clock: Arc::new(SystemClock::default()),
    }
    .run()
}

struct Demo {
    configuration: Configuration,
    /// Where the log is, for people.
    place: String,
    /// Whether an earlier demo may have done a part of it.
    resumes: bool,
    clock: Arc<dyn Clock>,
}

impl Demo {
    fn run(&self) -> Result<(), BoxError> {
        let settings = self.configuration.settings();
        let data = Dataset::sample().map_err(coded)?;
        let parameters: Parameters = self.configuration.parameters().parse()?;
        let topology = flights::topology(&parameters)?;
        let monitor = Monitor::start(&MonitorSettings::from(settings))?;
        logging::start(&settings.log);
        let log = open_log("flights", &topology, &self.configuration, &self.clock)?;
        println!(
            "{} flights of January 2013 and {} planes go through {}.",
            data.flights.len(),
            data.planes.len(),
            self.place
        );
        self.load(&*log, &data)?;
        let instance_settings = settings.instance_settings("flights");
        let inputs = inputs(&topology, &instance_settings.application_id);
        let topology = Arc::new(topology);
        let instance = Instance::start(
            topology,
            instance_settings,
            Ports::new(Arc::clone(&log), Arc::clone(&self.clock)),
        )?;
        let instance = Arc::new(instance);
        monitor.observe(Arc::<InstanceHandle>::clone(&instance));
        let address = monitor.http_address();
        if let Some(address) = address {
            println!("Metrics are at http://{address}/metrics while this runs.");
        }
        let consumed = self.consume(&monitor, &instance, &data, &|| {
            self.resumes && remaining::is_nothing(&*log, &inputs)
        });
        let results = match consumed {
            Ok(()) => Some(flights::read_results(&*log, READ_TIMEOUT).map_err(coded)?),
            Err(_) => None,
        };
        let late: u64 = instance
            .counters()
            .node_counts()
            .values()
            .map(|counts| counts.late)
            .sum();
        close(monitor, instance)?;
        consumed.map_err(coded)?;
        let since = if self.resumes { " since this start" } else { "" };
        show(
            &results.unwrap_or_default(),
            &format!("Late records{since}: {late}"),
            address,
        );
        Ok(())
    }

    /// Writes the data set into the topics.
    fn load(&self, log: &dyn Log, data: &Dataset) -> Result<(), BoxError> {
        let options = LoadOptions {
            partitions: PARTITIONS,
            resume: self.resumes,
            ..LoadOptions::default()
        };
        let total = data.flights.len() + data.planes.len();
        let bar = progress_bar("writing", total as u64);
        let start = self.clock.monotonic();
        flights::create_topics(log, &options).map_err(coded)?;
        flights::load(log, data, &options, &mut |written| bar.set_position(written as u64)).map_err(coded)?;
        bar.finish_and_clear();
        self.say_rate("written", total as u64, start);
        Ok(())
    }

    /// Waits until the instance has committed everything. A demo that goes on has less to commit than there is, and
    /// asks `nothing_remains` when it stands still.
    fn consume(
        &self,
        monitor: &Monitor,
        instance: &InstanceHandle,
        data: &Dataset,
        nothing_remains: &dyn Fn() -> bool,
    ) -> Result<(), DemoError> {
        let total = flights::processed_records(data);
        let bar = progress_bar("counting", total);
        let counters = instance.counters();
        let start = self.clock.monotonic();
        let (mut committed, mut last_progress) = (0, start);
        while committed < total {
            if monitor.stop_is_asked_for(LOOK_INTERVAL) {
                return Err(DemoError::Interrupted);
            }
            if instance.is_finished() {
                return Err(DemoError::Ended { committed, total });
            }
            let now = self.clock.monotonic();
            let committed_now = counters.records_committed.get();
            if committed_now > committed {
                (committed, last_progress) = (committed_now, now);
                bar.set_position(committed);
            } else if now - last_progress > IDLE_TIME && nothing_remains() {
                committed = counters.records_committed.get();
                break;
            } else if now - last_progress > STALL_TIMEOUT {
                return Err(DemoError::Stalled {
                    committed,
                    total,
                    stalled_s: STALL_TIMEOUT.as_secs(),
                });
            }
        }
        bar.finish_and_clear();
        self.say_rate(
            "processed, internal topics included, and committed exactly once",
            committed,
            start,
        );
        Ok(())
    }

    fn say_rate(&self, what: &str, records: u64, start: Duration) {
        let seconds = (self.clock.monotonic() - start).as_secs_f64();
        println!("{records} records {what} in {seconds:.1} s.");
    }
}

/// Names of all topics that the topology reads.
fn inputs(topology: &Topology, application_id: &str) -> Vec<Arc<str>> {
    let sub_topologies = topology.plan().sub_topologies.iter();
    let sources = sub_topologies.flat_map(|sub| &sub.sources);
    sources.map(|topic| topic.full_name(application_id)).collect()
}

/// An error with its code, which has a page in `docs/errors/`.
fn coded(error: impl Coded) -> BoxError {
    format!("{}: {error}", error.code()).into()
}

/// Stops serving and ends the instance in order; why it failed, if it did.
fn close(monitor: Monitor, instance: Arc<InstanceHandle>) -> Result<(), BoxError> {
    instance.stop();
    // The monitor's own reference goes with it, so that the instance is ours alone again.
    monitor.close();
    match Arc::try_unwrap(instance) {
        Ok(instance) => Ok(instance.join().map_err(ServiceError::stopped)?),
        Err(_) => Err(Box::new(ServiceError::Setup {
            what: "the end of the instance",
            reason: "something still observes it".to_owned(),
        })),
    }
}

fn progress_bar(what: &'static str, total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:10} [{bar:40}] {human_pos}/{human_len} records, {per_sec}");
    let bar = ProgressBar::new(total).with_message(what);
    // The template is a constant; were it wrong, the default style would do.
    let bar = style.into_iter().fold(bar, ProgressBar::with_style);
    logging::progress_bars().add(bar)
}

fn show(results: &Results, late: &str, address: Option<std::net::SocketAddr>) {
    println!("\n{}", tables::tables(results));
    println!("{late}");
    match address {
        Some(address) => println!("Metrics: http://{address}/metrics"),
        None => println!("Metrics: not served (http.enabled = false)"),
    }
}
