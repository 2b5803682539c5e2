//! Starting an instance, and the handle on a running one.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tracing::{error, info};

use crate::errors::Coded;
use crate::metrics::Source;
use crate::topology::Topology;
use crate::worker::{Background, RestoreProgress, Threads, WorkerMetrics};

use super::assembly::{Assembly, Means, Ports};
use super::error::InstanceError;
use super::purge::Place;
use super::settings::InstanceSettings;
use super::threads::{self, WorkerThread};

/// Makes and starts instances.
#[derive(Debug)]
pub struct Instance;

/// What an instance tells about itself, for health checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether its threads are alive.
    pub live: bool,
    /// Whether it has joined and all its tasks run.
    pub ready: bool,
    /// One line for people.
    pub detail: String,
    /// Tasks that are being restored, and how far they are.
    pub restores: Vec<RestoreProgress>,
}

const MEMBER_THREAD: &str = "tidegate-member";

/// What the parts of an instance share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) stop: AtomicBool,
    pub(super) joined: AtomicBool,
    pub(super) finished: AtomicBool,
    pub(super) metrics: Arc<WorkerMetrics>,
    failure: Mutex<Option<InstanceError>>,
}

impl Shared {
    /// Notes why the instance must stop; the first reason stays.
    pub(super) fn fail(&self, error: InstanceError) {
        error!(code = error.code(), %error, "the instance stops");
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
        self.stop.store(true, Ordering::SeqCst);
    }

    /// What it tells about itself, `live` as long as something runs it.
    pub(super) fn status(&self, live: bool) -> Status {
        let joined = self.joined.load(Ordering::SeqCst);
        let stopping = self.stop.load(Ordering::SeqCst);
        let opening = self.metrics.tasks_opening.get();
        let running = self.metrics.tasks_running.get();
        let detail = match (live, stopping, joined) {
            (false, ..) => "ended".to_owned(),
            (_, true, _) => "stopping".to_owned(),
            (_, _, false) => "joining the group".to_owned(),
            _ => format!("{running} tasks running, {opening} opening"),
        };
        Status {
            live,
            ready: live && joined && !stopping && opening == 0,
            detail,
            restores: self.metrics.restores(),
        }
    }
}

/// A running instance. Dropping the handle stops it without waiting for its end.
pub struct InstanceHandle {
    shared: Arc<Shared>,
    member: Option<JoinHandle<()>>,
}

impl Instance {
    /// Checks topics and plan, opens the state directory, starts the workers and joins the group. **Blocks** until then,
    /// at most for `startup_timeout` while no broker answers.
    ///
    /// # Errors
    /// [`InstanceError`]: nothing runs then.
    pub fn start(
        topology: Arc<Topology>,
        settings: InstanceSettings,
        ports: Ports,
    ) -> Result<InstanceHandle, InstanceError> {
        let means = Means {
            background: &|name, opener, clock| Ok(Box::new(Threads::start(name, opener, clock)?) as Box<dyn Background>),
            random: Arc::new(random),
            place: Place::Aside,
            disk: None,
        };
        let assembly = Assembly::of(topology, settings, ports, &means)?;
        let shared = assembly.shared;
        let mut workers = Vec::new();
        for (name, worker) in assembly.workers {
            workers.push(WorkerThread::start(&name, worker, &shared)?);
        }
        let (member, of_thread) = (assembly.member, Arc::clone(&shared));
        let thread = threads::start(MEMBER_THREAD, move || threads::run_member(member, workers, &of_thread))?;
        Ok(InstanceHandle {
            shared,
            member: Some(thread),
        })
    }
}

/// Randomness for names: the standard library seeds every `RandomState` from the system.
fn random() -> u64 {
    RandomState::new().hash_one(0_u64)
}

impl InstanceHandle {
    /// The instance's metrics.
    pub fn metrics(&self) -> Arc<dyn Source> {
        Arc::<WorkerMetrics>::clone(&self.shared.metrics)
    }

    /// The workers' counters.
    pub fn counters(&self) -> Arc<WorkerMetrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// Whether the instance lives and is ready.
    pub fn status(&self) -> Status {
        self.shared.status(!self.is_finished())
    }

    /// Asks the instance to commit, close and leave. Returns at once.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }

    /// Whether everything has ended.
    pub fn is_finished(&self) -> bool {
        self.shared.finished.load(Ordering::SeqCst) || self.member.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// Why it stopped, unless it was asked to.
    pub fn join(mut self) -> Result<(), InstanceError> {
        if let Some(member) = self.member.take()
            && member.join().is_err()
        {
            return Err(threads::failed(MEMBER_THREAD, "it panicked; see the log".to_owned()));
        }
        info!("instance ended");
        match self
            .shared
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }
}

impl Drop for InstanceHandle {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}
