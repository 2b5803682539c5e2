//! The thread beside the instance: HTTP, signals, and the progress bar of a restore.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use super::config::Settings;
use super::error::ServiceError;
use super::exit::leave_at_once;
use super::observed::{Observed, Place};
use super::progress::RestoreBar;
use super::signals::{Ending, Endings};
use super::{http, logging};

/// How often the progress bar is drawn anew.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// How long requests that are being answered may take when the monitor closes.
const CLOSING_LIMIT: Duration = Duration::from_secs(2);

/// What a monitor does.
#[derive(Clone, Debug, Default)]
pub struct MonitorSettings {
    /// Where to serve HTTP; `None`: nowhere.
    pub http_address: Option<String>,
}

impl From<&Settings> for MonitorSettings {
    fn from(settings: &Settings) -> Self {
        let http = &settings.http;
        Self {
            http_address: http.enabled.then(|| http.address.clone()),
        }
    }
}

/// Watches over an instance: answers probes and scrapes from the start on, also before the instance is there, and
/// turns signals into a wish to stop.
///
/// The first SIGINT or SIGTERM is the wish; a second one ends the process at once, with code 130 or 143. So does the
/// first one as long as nothing is observed, since then nothing has been started that would need an orderly end.
pub struct Monitor {
    http_address: Option<SocketAddr>,
    place: Arc<Place>,
    is_observing: Arc<AtomicBool>,
    stops: Receiver<Ending>,
    close: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Starts listening for requests and signals.
    ///
    /// # Errors
    /// [`ServiceError::Listen`], [`ServiceError::Setup`].
    pub fn start(settings: &MonitorSettings) -> Result<Self, ServiceError> {
        Self::start_with(settings, SignalSource::Process, leave_at_once_after_signal)
    }

    fn start_with(settings: &MonitorSettings, signals: SignalSource, leave: fn(Ending)) -> Result<Self, ServiceError> {
        let place = Arc::new(Place::default());
        let is_observing = Arc::new(AtomicBool::new(false));
        let (stop_sender, stops) = bounded(1);
        let (started_sender, started) = bounded(1);
        let (close, closed) = oneshot::channel();
        let task = Task {
            place: Arc::clone(&place),
            is_observing: Arc::clone(&is_observing),
            stops: stop_sender,
            leave,
            closed,
        };
        let address = settings.http_address.clone();
        let run = move || run_thread(task, address, signals, &started_sender);
        let thread = std::thread::Builder::new()
            .name("tidegate-monitor".to_owned())
            .spawn(run);
        let thread = thread.map_err(|e| setup_failed("the monitor's thread", e))?;
        let ended = || ServiceError::Setup {
            what: "the monitor's thread",
            reason: "it ended at once".to_owned(),
        };
        let http_address = started.recv().map_err(|_| ended())??;
        if let Some(address) = http_address {
            info!(%address, "serving /metrics, /healthz and /readyz");
        }
        Ok(Self {
            http_address,
            place,
            is_observing,
            stops,
            close: Some(close),
            thread: Some(thread),
        })
    }

    /// The address that HTTP is served on, with the port that was taken if any was right.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// From now on metrics and health are those of `observed`. Called once.
    pub fn observe(&self, observed: Arc<dyn Observed>) {
        self.place.put(observed);
        self.is_observing.store(true, Ordering::SeqCst);
    }

    /// Waits at most `at_most` for a signal that asks for the end; true if there was one.
    pub fn stop_is_asked_for(&self, at_most: Duration) -> bool {
        self.stops.recv_timeout(at_most).is_ok()
    }

    /// Stops serving. Answers what it observed no more afterwards.
    pub fn close(mut self) {
        self.close_thread();
    }

    fn close_thread(&mut self) {
        drop(self.close.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the monitor's thread panicked");
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.close_thread();
    }
}

fn leave_at_once_after_signal(ending: Ending) {
    warn!(signal = ending.name(), "leaving at once");
    leave_at_once(ending.exit_code());
}

fn setup_failed(what: &'static str, reason: impl ToString) -> ServiceError {
    ServiceError::Setup {
        what,
        reason: reason.to_string(),
    }
}

/// Where signals come from.
enum SignalSource {
    /// The process.
    Process,
    /// A test.
    #[cfg(test)]
    Channel(mpsc::Receiver<Ending>),
}

/// What the monitor's thread does.
struct Task {
    place: Arc<Place>,
    is_observing: Arc<AtomicBool>,
    stops: Sender<Ending>,
    leave: fn(Ending),
    closed: oneshot::Receiver<()>,
}

type Started = Sender<Result<Option<SocketAddr>, ServiceError>>;

fn run_thread(task: Task, address: Option<String>, signals: SignalSource, started: &Started) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(task.start(address, signals, started)),
        Err(e) => drop(started.send(Err(setup_failed("the monitor's runtime", e)))),
    }
}

impl Task {
    async fn start(self, address: Option<String>, signals: SignalSource, started: &Started) {
        let listening = async {
            let endings = listen_for_signals(signals)?;
            Ok((bind(address).await?, endings))
        };
        match listening.await {
            Ok((listener, endings)) => {
                let bound = listener.as_ref().and_then(|listener| listener.local_addr().ok());
                let _ = started.send(Ok(bound));
                self.run(listener, endings).await;
            }
            Err(e) => drop(started.send(Err(e))),
        }
    }

    async fn run(mut self, listener: Option<TcpListener>, mut endings: mpsc::Receiver<Ending>) {
        let (stop_serving, serving_stops) = oneshot::channel::<()>();
        let server = listener.map(|listener| {
            let until = async move { drop(serving_stops.await) };
            tokio::spawn(http::serve(listener, Arc::clone(&self.place), until))
        });
        let mut bar = RestoreBar::new(logging::progress_bars().clone());
        let mut ticks = interval(PROGRESS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_stopping = false;
        loop {
            tokio::select! {
                _ = &mut self.closed => break,
                Some(ending) = endings.recv() => self.end(ending, &mut is_stopping),
                _ = ticks.tick(), if !logging::progress_bars().is_hidden() => bar.update(&self.place.health().restores),
            }
        }
        bar.update(&[]);
        drop(stop_serving);
        if let Some(server) = server
            && timeout(CLOSING_LIMIT, server).await.is_err()
        {
            warn!("some HTTP requests were not answered before the end");
        }
    }

    fn end(&self, ending: Ending, is_stopping: &mut bool) {
        if *is_stopping || !self.is_observing.load(Ordering::SeqCst) {
            (self.leave)(ending);
        } else {
            info!(signal = ending.name(), "stopping; a second signal leaves at once");
            // One wish is enough, and the channel has room for it.
            let _ = self.stops.try_send(ending);
        }
        *is_stopping = true;
    }
}

/// Forwards signals to a channel. The task ends with the runtime.
fn listen_for_signals(source: SignalSource) -> Result<mpsc::Receiver<Ending>, ServiceError> {
    match source {
        SignalSource::Process => {
            let mut endings = Endings::listen()?;
            let (sender, receiver) = mpsc::channel(4);
            tokio::spawn(async move { while sender.send(endings.next().await).await.is_ok() {} });
            Ok(receiver)
        }
        #[cfg(test)]
        SignalSource::Channel(receiver) => Ok(receiver),
    }
}

async fn bind(address: Option<String>) -> Result<Option<TcpListener>, ServiceError> {
    let Some(address) = address else { return Ok(None) };
    match TcpListener::bind(&address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(e) => Err(ServiceError::Listen {
            address,
            reason: e.to_string(),
        }),
    }
}

#[cfg(test)]
pub mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::Mutex;

    use super::*;
    use crate::ids::TaskId;
    use crate::metrics::{Sample, Source, Value};
    use crate::service::observed::{Health, Restore};

    /// An instance whose health is told to it.
    #[derive(Default)]
    pub struct Fake {
        pub health: Mutex<Health>,
    }

    struct FakeMetrics;

    impl Source for FakeMetrics {
        fn samples(&self, out: &mut Vec<Sample>) {
            let labels = vec![("task", "0_0".to_owned())];
            out.push(Sample {
                name: "tidegate_records_total",
                help: "Records.",
                labels,
                value: Value::Counter(42),
            });
        }
    }

    impl Observed for Fake {
        fn metrics(&self) -> Arc<dyn Source> {
            Arc::new(FakeMetrics)
        }

        fn health(&self) -> Health {
            self.health.lock().expect("no panic").clone()
        }
    }

    const ANY_PORT: &str = "127.0.0.1:0";

    fn settings() -> MonitorSettings {
        MonitorSettings {
            http_address: Some(ANY_PORT.to_owned()),
        }
    }

    fn never(_: Ending) {
        panic!("the process would have been left");
    }

    fn monitor() -> Monitor {
        let (_, no_signals) = mpsc::channel(1);
        Monitor::start_with(&settings(), SignalSource::Channel(no_signals), never).expect("a free port")
    }

    /// Status line and body of a request.
    fn get(monitor: &Monitor, path: &str) -> (String, String) {
        let address = monitor.http_address().expect("HTTP is served");
        let mut stream = TcpStream::connect(address).expect("the address is listened on");
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("the request is taken");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the answer is text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
    }

    fn is(status: &str, code: u16) -> bool {
        status.starts_with(&format!("HTTP/1.1 {code} "))
    }

    #[test]
    fn probes_follow_the_instance_from_starting_over_restoring_to_ready_and_dead() {
        let monitor = monitor();
        assert!(is(&get(&monitor, "/healthz").0, 200));
        let (status, body) = get(&monitor, "/readyz");
        assert!(
            is(&status, 503) && body.contains("\"detail\":\"starting\""),
            "{status} {body}"
        );

        let fake = Arc::new(Fake::default());
        let restore = Restore {
            task: TaskId {
                sub_topology: 0,
                partition: 3,
            },
            restored: 10,
            target: 40,
        };
        let health = |live, ready, restores| Health {
            live,
            ready,
            detail: "1 task".to_owned(),
            restores,
        };
        *fake.health.lock().expect("no panic") = health(true, false, vec![restore]);
        monitor.observe(Arc::<Fake>::clone(&fake));
        let (status, body) = get(&monitor, "/readyz");
        let expected = r#""restores":[{"restored":10,"target":40,"task":"0_3"}]"#;
        assert!(is(&status, 503) && body.contains(expected), "{status} {body}");
        assert!(is(&get(&monitor, "/healthz").0, 200));

        *fake.health.lock().expect("no panic") = health(true, true, vec![]);
        assert!(is(&get(&monitor, "/readyz").0, 200));
        *fake.health.lock().expect("no panic") = health(false, true, vec![]);
        assert!(is(&get(&monitor, "/healthz").0, 503));
        assert!(is(&get(&monitor, "/readyz").0, 503));
        assert!(is(&get(&monitor, "/nothing").0, 404));
    }

    #[test]
    fn metrics_are_served_before_and_after_the_instance_is_there() {
        let monitor = monitor();
        let (status, body) = get(&monitor, "/metrics");
        assert!(
            is(&status, 200) && body.contains("tidegate_build_info") && !body.contains("records_total"),
            "{body}"
        );
        monitor.observe(Arc::new(Fake::default()));
        let (_, body) = get(&monitor, "/metrics");
        assert!(body.contains("tidegate_records_total{task=\"0_0\"} 42"), "{body}");
    }

    #[test]
    fn an_address_in_use_is_an_error_that_names_it() {
        let first = monitor();
        let taken = first.http_address().expect("HTTP is served").to_string();
        let (_, no_signals) = mpsc::channel(1);
        let settings = MonitorSettings {
            http_address: Some(taken.clone()),
        };
        let second = Monitor::start_with(&settings, SignalSource::Channel(no_signals), never);
        let error = second.err().expect("the port is taken").to_string();
        assert!(error.contains(&format!("http.address = {taken}")), "{error}");
    }

    #[test]
    fn more_connections_than_the_limit_wait_and_idle_ones_do_not_keep_the_monitor_from_closing() {
        let monitor = monitor();
        let address = monitor.http_address().expect("HTTP is served");
        let idle: Vec<TcpStream> = (0..100).filter_map(|_| TcpStream::connect(address).ok()).collect();
        assert_eq!(idle.len(), 100, "the system's queue takes those above the limit");
        drop(idle);
        assert!(is(&get(&monitor, "/healthz").0, 200));
        monitor.close();
        assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    }

    /// The signals of a monitor that serves nothing.
    pub struct Signals {
        sender: mpsc::Sender<Ending>,
        is_observing: Arc<AtomicBool>,
    }

    impl Signals {
        /// A monitor that gets its signals from here. Leaving at once does nothing.
        pub fn monitor() -> (Monitor, Signals) {
            let (sender, receiver) = mpsc::channel(1);
            let monitor = Monitor::start_with(&MonitorSettings::default(), SignalSource::Channel(receiver), |_| {});
            let monitor = monitor.expect("nothing to listen on");
            let is_observing = Arc::clone(&monitor.is_observing);
            (monitor, Signals { sender, is_observing })
        }

        /// Sends SIGTERM if there is something to stop.
        pub fn terminate_if_observed(&self) {
            if self.is_observing.load(Ordering::SeqCst) {
                let _ = self.sender.try_send(Ending::Terminate);
            }
            std::thread::yield_now();
        }
    }

    static LEFT: Mutex<Vec<Ending>> = Mutex::new(Vec::new());

    #[test]
    fn the_first_signal_is_a_wish_to_stop_and_the_second_leaves_at_once() {
        let (signals, receiver) = mpsc::channel(4);
        let note = |ending| LEFT.lock().expect("no panic").push(ending);
        let monitor = Monitor::start_with(&MonitorSettings::default(), SignalSource::Channel(receiver), note);
        let monitor = monitor.expect("nothing to listen on");
        assert_eq!(monitor.http_address(), None);
        monitor.observe(Arc::new(Fake::default()));
        signals.blocking_send(Ending::Terminate).expect("the monitor listens");
        assert!(monitor.stop_is_asked_for(Duration::from_secs(60)));
        assert_eq!(*LEFT.lock().expect("no panic"), []);
        signals.blocking_send(Ending::Interrupt).expect("the monitor listens");
        // The channel closes when the monitor's loop has ended, hence has served what came before.
        while LEFT.lock().expect("no panic").is_empty() {
            assert!(
                !monitor.stop_is_asked_for(Duration::from_millis(1)),
                "one wish is enough"
            );
        }
        assert_eq!(*LEFT.lock().expect("no panic"), [Ending::Interrupt]);
        assert_eq!(
            (Ending::Interrupt.exit_code(), Ending::Terminate.exit_code()),
            (130, 143)
        );
    }

    static LEFT_EARLY: Mutex<Vec<Ending>> = Mutex::new(Vec::new());

    #[test]
    fn a_signal_before_the_instance_is_there_leaves_at_once() {
        let (signals, receiver) = mpsc::channel(4);
        let note = |ending| LEFT_EARLY.lock().expect("no panic").push(ending);
        let monitor = Monitor::start_with(&MonitorSettings::default(), SignalSource::Channel(receiver), note);
        let monitor = monitor.expect("nothing to listen on");
        signals.blocking_send(Ending::Terminate).expect("the monitor listens");
        while LEFT_EARLY.lock().expect("no panic").is_empty() {
            assert!(
                !monitor.stop_is_asked_for(Duration::from_millis(1)),
                "there is nothing to stop"
            );
        }
    }
}
