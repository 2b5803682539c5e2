//! What can go wrong in the service itself.

use super::application::BoxError;
use super::config::ConfigErrors;
use super::report::code_of;
use crate::errors::Coded;

/// Why the service does not run, or no longer runs.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// No topology of this program has the name.
    #[error("there is no topology {name:?}{} (this program has {})", did_you_mean(.nearest.as_deref()), .known.join(", "))]
    UnknownTopology {
        /// The name that was asked for.
        name: String,
        /// The name that was probably meant.
        nearest: Option<String>,
        /// The names there are.
        known: Vec<String>,
    },
    /// The topology could not be built: its parameters do not fit, or it is not sound.
    #[error("topology {name} cannot be built")]
    Topology {
        /// Name of the topology.
        name: String,
        /// What the topology says.
        source: BoxError,
    },
    /// The address for HTTP cannot be listened on.
    #[error("cannot listen on http.address = {address}: {reason}; choose another one, or set http.enabled = false")]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        reason: String,
    },
    /// A thread or the signals of the process cannot be set up.
    #[error("cannot set up {what}: {reason}")]
    Setup {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        reason: String,
    },
    /// The instance did not start.
    #[error("the instance did not start")]
    Start {
        /// Why.
        source: BoxError,
        /// The code of the reason.
        code: &'static str,
    },
    /// The instance stopped because of an error.
    #[error("the instance stopped because of an error")]
    Stopped {
        /// Why.
        source: BoxError,
        /// The code of the reason.
        code: &'static str,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest
        .map(|name| format!("; did you mean {name}?"))
        .unwrap_or_default()
}

impl ServiceError {
    /// The instance did not start because of `error`.
    pub fn start(error: impl Coded + Send + Sync + 'static) -> Self {
        ServiceError::Start {
            code: error.code(),
            source: Box::new(error),
        }
    }

    /// The instance stopped because of `error`.
    pub fn stopped(error: impl Coded + Send + Sync + 'static) -> Self {
        ServiceError::Stopped {
            code: error.code(),
            source: Box::new(error),
        }
    }
}

/// The code where a topology's own code says no, with an error that has none.
const TOPOLOGY_REFUSES: &str = "TG5012";

impl Coded for ServiceError {
    fn code(&self) -> &'static str {
        match self {
            ServiceError::Config(errors) => errors.code(),
            ServiceError::UnknownTopology { .. } => "TG5011",
            ServiceError::Topology { source, .. } => code_of(&**source).unwrap_or(TOPOLOGY_REFUSES),
            ServiceError::Listen { .. } => "TG5013",
            ServiceError::Setup { .. } => "TG5014",
            ServiceError::Start { code, .. } | ServiceError::Stopped { code, .. } => code,
        }
    }
}
