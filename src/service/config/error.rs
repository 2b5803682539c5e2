//! What can be wrong with a configuration.

use std::fmt;
use std::path::PathBuf;

use super::options::environment_variable;
use crate::errors::Coded;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Tidegate's own defaults.
    Default,
    /// A file.
    File(PathBuf),
    /// The environment.
    Environment,
    /// `--set` or another flag.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Environment => f.write_str("environment"),
            Origin::CommandLine => f.write_str("command line"),
        }
    }
}

impl Origin {
    /// How the user wrote `key` there.
    pub fn spelling(&self, key: &str) -> String {
        match self {
            Origin::Environment => environment_variable(key),
            _ => key.to_owned(),
        }
    }
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConfigError {
    /// No option has this name.
    #[error("unknown option {} ({origin}){}", .origin.spelling(.key), suggestion(.origin, .nearest.as_deref()))]
    UnknownKey {
        /// Full name of what was set.
        key: String,
        /// Where it was set.
        origin: Origin,
        /// The option or section that was probably meant.
        nearest: Option<String>,
    },
    /// The value has the wrong type or is out of range.
    #[error("{} = {value} ({origin}) cannot be used: expected {expected}", .origin.spelling(.key))]
    InvalidValue {
        /// Full name of the option.
        key: String,
        /// Where it was set.
        origin: Origin,
        /// The value as it was given; masked where it is secret.
        value: String,
        /// What is expected.
        expected: String,
    },
    /// The file cannot be read.
    #[error("configuration file {} cannot be read: {reason}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The file is not TOML.
    #[error("configuration file {} is not valid TOML: {reason}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser says, with line and column.
        reason: String,
    },
    /// An option is needed and not set.
    #[error("option {key} is not set: {reason}")]
    Missing {
        /// Full name of the option.
        key: String,
        /// Why it is needed, and how to do without it.
        reason: String,
    },
    /// Options that are right by themselves do not go together.
    #[error("{keys} do not go together: {reason}")]
    Conflict {
        /// The options.
        keys: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// Something on the command line or in the environment is not of the form `key=value`, or not UTF-8.
    #[error("{given} ({origin}) cannot be read: {reason}")]
    Malformed {
        /// What was given.
        given: String,
        /// Where.
        origin: Origin,
        /// What is expected.
        reason: String,
    },
}

fn suggestion(origin: &Origin, nearest: Option<&str>) -> String {
    nearest.map_or_else(
        || "; `tidegate config reference` lists all options".to_owned(),
        |key| format!("; did you mean {}?", origin.spelling(key)),
    )
}

impl Coded for ConfigError {
    fn code(&self) -> &'static str {
        match self {
            ConfigError::UnknownKey { .. } => "TG5001",
            ConfigError::InvalidValue { .. } => "TG5002",
            ConfigError::Unreadable { .. } => "TG5003",
            ConfigError::Syntax { .. } => "TG5004",
            ConfigError::Missing { .. } => "TG5005",
            ConfigError::Conflict { .. } => "TG5007",
            ConfigError::Malformed { .. } => "TG5008",
        }
    }
}

/// Everything that is wrong with a configuration, so that it can be put right in one go. Never empty.
#[derive(Clone, Debug)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl Coded for ConfigErrors {
    fn code(&self) -> &'static str {
        self.0.first().map_or("TG5002", Coded::code)
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        ConfigErrors(vec![error])
    }
}
