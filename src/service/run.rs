//! Running one topology until it is asked to stop, or fails.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::config::{ConfigError, Configuration};
use super::embedded::embedded_log;
use super::error::ServiceError;
use super::monitor::{Monitor, MonitorSettings};
use super::observed::{Health, Observed, Restore};
use crate::blob::BlobStore;
use crate::blob::metrics::BlobMetrics;
use crate::blob::object::ObjectBlobs;
use crate::instance::{Instance, InstanceError, InstanceHandle, Ports};
use crate::log::Log;
use crate::log::embedded::{EmbeddedLog, EmbeddedSettings};
use crate::log::kafka::{KafkaLog, KafkaSettings, ProducerEngine};
use crate::metrics::{Sample, Source};
use crate::time::{Clock, SystemClock};
use crate::topology::Topology;

/// How often it is looked whether the instance has ended by itself.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Runs `topology` as one instance until a signal asks it to stop, or it fails. **Blocks** until then.
///
/// # Errors
/// [`ServiceError`]: why it did not start, or why it stopped without having been asked to.
pub fn run_topology(name: &str, topology: Topology, configuration: &Configuration) -> Result<(), ServiceError> {
    configuration.check_nodes(&topology)?;
    let settings = configuration.settings();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let monitor = Monitor::start(&MonitorSettings::from(settings))?;
    let log = open_log(name, &topology, configuration, &clock)?;
    let instance_settings = settings.instance_settings(name);
    let blob_metrics = Arc::new(BlobMetrics::default());
    let blobs = open_blobs(&instance_settings.application_id, configuration, &blob_metrics)?;
    let (application_id, workers) = (instance_settings.application_id.clone(), instance_settings.workers);
    info!(
        topology = name,
        application_id,
        workers,
        version = env!("CARGO_PKG_VERSION"),
        "starting"
    );
    let instance = Instance::start(Arc::new(topology), instance_settings, Ports { log, blobs, clock });
    let instance = instance.map_err(ServiceError::start)?;
    info!(topology = name, application_id, "started");
    supervise(monitor, Service { instance, blob_metrics })
}

/// Opens the object store that the configuration names, where the strategy needs one.
///
/// # Errors
/// [`ServiceError::Start`] where it cannot be used.
pub(super) fn open_blobs(
    application_id: &str,
    configuration: &Configuration,
    metrics: &Arc<BlobMetrics>,
) -> Result<Option<Arc<dyn BlobStore>>, ServiceError> {
    let settings = configuration.settings();
    // Without snapshots it may serve savepoints.
    if settings.snapshot.url.is_none() {
        return Ok(None);
    }
    let url = format!(
        "{}/{application_id}",
        settings
            .snapshot
            .url
            .as_deref()
            .unwrap_or_default()
            .trim_end_matches('/')
    );
    let (options, limits) = (settings.snapshot.s3_options(), settings.snapshot.limits());
    let blobs = ObjectBlobs::open(&url, &options, limits, Arc::clone(metrics));
    let blobs = blobs.map_err(|error| ServiceError::start(InstanceError::ObjectStore(error)))?;
    Ok(Some(blobs))
}

/// Connects to the log that the configuration names. With the embedded one, creates the topics of `topology`.
///
/// # Errors
/// [`ServiceError::Config`] where the Kafka client refuses an option, [`ServiceError::Start`].
pub fn open_log(
    name: &str,
    topology: &Topology,
    configuration: &Configuration,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn Log>, ServiceError> {
    let settings = configuration.settings();
    if settings.embedded.enabled {
        let dir = settings.embedded.dir.as_deref();
        match dir {
            Some(dir) => info!(dir = %dir.display(), "the embedded log is kept in a directory"),
            None => warn!("the embedded log is kept in memory and ends with this process"),
        }
        let dead_letter_topic = settings.errors.dead_letter_topic.as_deref();
        return embedded_log(
            dir,
            topology,
            dead_letter_topic,
            settings.embedded.partitions,
            EmbeddedSettings {
                transaction_timeout: settings.kafka.transaction_timeout.0,
                ..EmbeddedSettings::default()
            },
            Arc::clone(clock),
        );
    }
    open_kafka(name, configuration)
}

/// Connects to the log of an application for a tool: nothing is created. `None` where the configuration names none that outlives a process.
///
/// # Errors
/// As [`open_log`]; an embedded log that another process has open is refused.
pub fn open_log_of_tool(
    configuration: &Configuration,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Arc<dyn Log>>, ServiceError> {
    let settings = configuration.settings();
    if settings.embedded.enabled {
        let Some(dir) = settings.embedded.dir.as_deref() else {
            return Ok(None);
        };
        let log = EmbeddedLog::open(dir, Arc::clone(clock), EmbeddedSettings::default());
        return Ok(Some(log.map_err(ServiceError::start)?));
    }
    match settings.kafka.bootstrap_servers {
        Some(_) => open_kafka("tool", configuration).map(Some),
        None => Ok(None),
    }
}

fn open_kafka(name: &str, configuration: &Configuration) -> Result<Arc<dyn Log>, ServiceError> {
    let kafka = kafka_settings(name, configuration);
    let refused = |e: crate::log::LogError| ConfigError::Conflict {
        keys: "the options under [kafka]".to_owned(),
        reason: e.to_string(),
    };
    let log = KafkaLog::new(kafka).map_err(|e| ServiceError::Config(refused(e).into()))?;
    Ok(log)
}

fn kafka_settings(name: &str, configuration: &Configuration) -> KafkaSettings {
    let settings = configuration.settings();
    let kafka = &settings.kafka;
    let mut out = KafkaSettings::new(kafka.bootstrap_servers.clone().unwrap_or_default());
    out.client_id = settings.application.id.clone().unwrap_or_else(|| name.to_owned());
    out.common = kafka.common_client_options();
    out.consumer = kafka.consumer.0.clone();
    out.producer = kafka.producer.0.clone();
    out.admin = kafka.admin.0.clone();
    out.transaction_timeout = kafka.transaction_timeout.0;
    out.linger = kafka.linger.0;
    out.fetch_buffer_bytes = kafka.fetch_buffer.as_usize();
    out.send_buffer_bytes = kafka.send_buffer.as_usize();
    out.producer_engine = match kafka.producer_engine.as_str() {
        "native" => ProducerEngine::Native,
        "librdkafka" => ProducerEngine::Librdkafka,
        _ => ProducerEngine::Auto,
    };
    out.with_commit_interval(settings.commit.interval.0)
}

/// What the service needs of a running instance besides observing it.
trait Running: Observed + 'static {
    fn stop(&self);
    fn is_finished(&self) -> bool;
    fn join(self) -> Result<(), ServiceError>;
}

/// An instance and what else there is to observe.
struct Service {
    instance: InstanceHandle,
    blob_metrics: Arc<BlobMetrics>,
}

/// The metrics of several sources.
struct Sources([Arc<dyn Source>; 2]);

impl Source for Sources {
    fn samples(&self, out: &mut Vec<Sample>) {
        self.0.iter().for_each(|source| source.samples(out));
    }
}

impl Observed for InstanceHandle {
    fn metrics(&self) -> Arc<dyn Source> {
        InstanceHandle::metrics(self)
    }

    fn health(&self) -> Health {
        let status = self.status();
        let restores = status.restores.iter().map(|progress| Restore {
            task: progress.task,
            restored: progress.passed,
            target: progress.target,
        });
        Health {
            live: status.live,
            ready: status.ready,
            restores: restores.collect(),
            detail: status.detail,
        }
    }
}

impl Observed for Service {
    fn metrics(&self) -> Arc<dyn Source> {
        let blobs = Arc::<BlobMetrics>::clone(&self.blob_metrics);
        Arc::new(Sources([self.instance.metrics(), blobs]))
    }

    fn health(&self) -> Health {
        self.instance.health()
    }
}

impl Running for Service {
    fn stop(&self) {
        self.instance.stop();
    }

    fn is_finished(&self) -> bool {
        self.instance.is_finished()
    }

    fn join(self) -> Result<(), ServiceError> {
        self.instance.join().map_err(ServiceError::stopped)
    }
}

/// Waits for the end of an instance, asking for it when a signal does.
fn supervise<R: Running>(monitor: Monitor, instance: R) -> Result<(), ServiceError> {
    let instance = Arc::new(instance);
    monitor.observe(Arc::<R>::clone(&instance));
    while !instance.is_finished() {
        if monitor.stop_is_asked_for(CHECK_INTERVAL) {
            instance.stop();
        }
    }
    // The monitor's own reference goes with it, so that the instance is ours alone again.
    monitor.close();
    match Arc::try_unwrap(instance) {
        Ok(instance) => instance.join(),
        Err(_) => Err(ServiceError::Setup {
            what: "the end of the instance",
            reason: "something still observes it".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::log::LogError;
    use crate::service::monitor::tests::Signals;

    /// An instance that ends when it is asked to, or by itself with an error.
    #[derive(Default)]
    struct Fake {
        is_finished: AtomicBool,
        failure: Mutex<Option<LogError>>,
    }

    struct Nothing;

    impl Source for Nothing {
        fn samples(&self, _out: &mut Vec<crate::metrics::Sample>) {}
    }

    impl Observed for Fake {
        fn metrics(&self) -> Arc<dyn Source> {
            Arc::new(Nothing)
        }

        fn health(&self) -> Health {
            Health::default()
        }
    }

    impl Running for Fake {
        fn stop(&self) {
            self.is_finished.store(true, Ordering::SeqCst);
        }

        fn is_finished(&self) -> bool {
            self.is_finished.load(Ordering::SeqCst)
        }

        fn join(self) -> Result<(), ServiceError> {
            match self.failure.into_inner().expect("no panic") {
                Some(error) => Err(ServiceError::stopped(error)),
                None => Ok(()),
            }
        }
    }

    #[test]
    fn a_signal_ends_the_instance_cleanly() {
        let (monitor, signals) = Signals::monitor();
        std::thread::scope(|scope| {
            let supervised = scope.spawn(|| supervise(monitor, Fake::default()));
            // Sent again and again, since the first may come before the instance is observed.
            while !supervised.is_finished() {
                signals.terminate_if_observed();
            }
            assert!(supervised.join().is_ok_and(|outcome| outcome.is_ok()));
        });
    }

    #[test]
    fn an_instance_that_fails_by_itself_ends_with_its_reason() {
        let (monitor, _signals) = Signals::monitor();
        let failure = LogError::UnknownTopic { topic: "orders".into() };
        let fake = Fake {
            is_finished: true.into(),
            failure: Mutex::new(Some(failure)),
        };
        let error = supervise(monitor, fake).expect_err("it failed");
        assert_eq!(crate::errors::Coded::code(&error), "TG1008");
    }
}
