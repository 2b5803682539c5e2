//! A Kafka broker in a container, with a port that survives stop and start.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use testcontainers::core::{IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};
use tidegate::log::kafka::{KafkaLog, KafkaSettings, ProducerEngine};
use tokio::runtime::Runtime;

/// Name and tag of the broker's image, if another one shall be tested.
const IMAGE_VARIABLE: &str = "KAFKA_IMAGE";
const DEFAULT_IMAGE: &str = "tidegate-kafka:4.3.1";

/// Addresses of a broker that runs already; then the shared broker is that one, and no container is started for it.
const SHARED_VARIABLE: &str = "KAFKA_SHARED";

/// What the tidying broker does in its own time it does often, so that no case waits long for it. Of a broker that is
/// given by `KAFKA_SHARED` the same is expected.
const TIDYING_PROPERTIES: &str = "\
log.cleaner.backoff.ms=300
log.retention.check.interval.ms=500
log.initial.task.delay.ms=500
transaction.abort.timed.out.transaction.cleanup.interval.ms=500";

/// Ports below the range that the kernel gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
pub(crate) const START_ATTEMPTS: usize = 10;
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// A broker of its own for one test. The container is removed when this is dropped.
pub struct Broker {
    container: Option<ContainerAsync<GenericImage>>,
    runtime: Runtime,
    address: String,
}

impl Broker {
    /// Starts a broker with the test image's settings.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a broker with environment variables of the test image, for example `KAFKA_PROPERTIES`.
    pub fn start_with(variables: &[(&str, &str)]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime for the container client");
        let image = std::env::var(IMAGE_VARIABLE).unwrap_or_else(|_| DEFAULT_IMAGE.to_owned());
        let (name, tag) = image.split_once(':').expect("the image is given as name:tag");
        let mut last_error = String::new();
        for _ in 0..START_ATTEMPTS {
            let port = free_port();
            let address = format!("127.0.0.1:{port}");
            let mut request = GenericImage::new(name, tag)
                .with_wait_for(WaitFor::message_on_stderr("Kafka Server started"))
                .with_mapped_port(port, 9092.tcp())
                .with_env_var("KAFKA_ADVERTISED", &address);
            for (key, value) in variables {
                request = request.with_env_var(*key, *value);
            }
            match runtime.block_on(request.start()) {
                Ok(container) => {
                    remove_after_this_process(container.id());
                    return Self {
                        container: Some(container),
                        runtime,
                        address,
                    };
                }
                // Somebody else may have taken the port meanwhile.
                Err(error) => last_error = error.to_string(),
            }
        }
        panic!("no broker started; the last error was: {last_error}");
    }

    /// The broker that all tests of this process share; they must not hurt it.
    pub fn shared() -> SharedBroker {
        static ADDRESS: OnceLock<String> = OnceLock::new();
        SharedBroker::started_once(&ADDRESS, &[])
    }

    /// One that compacts, deletes and aborts soon. That costs the more the more topics there are, so those that do not need it
    /// have [`Broker::shared`].
    pub fn tidying() -> SharedBroker {
        static ADDRESS: OnceLock<String> = OnceLock::new();
        SharedBroker::started_once(&ADDRESS, &[("KAFKA_PROPERTIES", TIDYING_PROPERTIES)])
    }

    /// The address for clients on this host.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Settings of a client of this broker.
    pub fn settings(&self) -> KafkaSettings {
        KafkaSettings::new(&self.address)
    }

    /// A log on this broker.
    pub fn log(&self) -> Arc<KafkaLog> {
        KafkaLog::new(self.settings()).expect("the settings are valid")
    }

    /// A log on this broker, with producers of one library.
    pub fn log_with(&self, engine: ProducerEngine) -> Arc<KafkaLog> {
        let mut settings = self.settings();
        settings.producer_engine = engine;
        KafkaLog::new(settings).expect("the settings are valid")
    }

    /// Runs a command in the container and answers what it prints.
    pub fn run(&self, command: &[&str]) -> String {
        let ran = Command::new("docker")
            .args(["exec", self.container().id()])
            .args(command)
            .output();
        let ran = ran.expect("the docker client runs");
        let printed = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{command:?} failed: {printed}");
        printed
    }

    fn container(&self) -> &ContainerAsync<GenericImage> {
        self.container
            .as_ref()
            .expect("the container is there until the broker is dropped")
    }

    /// Freezes the broker: connections stay, requests get no answer.
    pub fn pause(&self) {
        self.runtime
            .block_on(self.container().pause())
            .expect("the container can be paused");
    }

    /// Ends [`Broker::pause`].
    pub fn unpause(&self) {
        self.runtime
            .block_on(self.container().unpause())
            .expect("the container can go on");
    }

    /// Shuts the broker down in order.
    pub fn stop(&self) {
        self.runtime
            .block_on(self.container().stop())
            .expect("the container can be stopped");
    }

    /// Kills the broker with SIGKILL.
    pub fn kill(&self) {
        let killed = Command::new("docker")
            .args(["kill", self.container().id()])
            .stdout(Stdio::null())
            .status();
        assert!(
            killed.expect("the docker client runs").success(),
            "the container can be killed"
        );
    }

    /// Starts a stopped or killed broker under the same address and waits until it answers.
    pub fn start_again(&self) {
        self.runtime
            .block_on(self.container().start())
            .expect("the container can be started");
        let admin = tidegate::log::Log::admin(&*self.log());
        let deadline = Instant::now() + READY_TIMEOUT;
        while admin.topic("no-such-topic", Duration::from_secs(1)).is_err() {
            assert!(Instant::now() < deadline, "the broker answers again");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(container) = self.container.take() {
            // The container is gone by itself when this process ends, should this fail.
            let _ = self.runtime.block_on(container.rm());
        }
    }
}

/// The address of the broker that tests share.
#[derive(Clone, Debug)]
pub struct SharedBroker {
    address: String,
}

impl SharedBroker {
    fn started_once(address: &OnceLock<String>, variables: &[(&str, &str)]) -> Self {
        let address = address.get_or_init(|| match std::env::var(SHARED_VARIABLE) {
            Ok(address) => address,
            // Lives as long as the process; the container is removed after it.
            Err(_) => Box::leak(Box::new(Broker::start_with(variables))).address.clone(),
        });
        Self {
            address: address.clone(),
        }
    }

    /// The address for clients on this host.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Settings of a client of this broker.
    pub fn settings(&self) -> KafkaSettings {
        KafkaSettings::new(&self.address)
    }

    /// A log on this broker.
    pub fn log(&self) -> Arc<KafkaLog> {
        KafkaLog::new(self.settings()).expect("the settings are valid")
    }

    /// A log on this broker, with producers of one library.
    pub fn log_with(&self, engine: ProducerEngine) -> Arc<KafkaLog> {
        let mut settings = self.settings();
        settings.producer_engine = engine;
        KafkaLog::new(settings).expect("the settings are valid")
    }
}

/// Makes two tests of each function over a [`ProducerEngine`]: one with the native producer, one with librdkafka's.
#[macro_export]
macro_rules! tests_with_both_producers {
    ($($name:ident)*) => {
        mod native {
            $(
                #[test]
                fn $name() {
                    super::$name(tidegate::log::kafka::ProducerEngine::Native);
                }
            )*
        }
        mod librdkafka {
            $(
                #[test]
                fn $name() {
                    super::$name(tidegate::log::kafka::ProducerEngine::Librdkafka);
                }
            )*
        }
    };
}

/// A name that no other test, process or run uses on the same broker.
pub fn unique(name: &str) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let run = std::time::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_millis() % 1_000_000_000);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("it-{name}-{}-{run}-{number}", std::process::id())
}

/// A port of this host that nobody listens on, and that stays the same through stop and start of a container.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    for _ in 0..count {
        // Processes begin at different places, so that they rarely want the same port.
        let step = std::process::id().wrapping_mul(131) + u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + u16::try_from(step % count).expect("less than the number of ports");
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
    panic!("no port between {} and {} is free", PORTS.start, PORTS.end);
}

/// Removes a container when this process has ended, however it ends.
pub(crate) fn remove_after_this_process(container: &str) {
    let script = format!(
        "while kill -0 {}; do sleep 1; done; docker rm -f {container}",
        std::process::id()
    );
    let watcher = Command::new("setsid")
        .args(["sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if let Err(error) = watcher {
        eprintln!("container {container} may stay behind: {error}");
    }
}
