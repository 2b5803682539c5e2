//! Configuration: TOML files over the defaults, the environment over the files, the command line over all.

mod complete;
mod error;
mod kafka;
mod kind;
mod layers;
mod options;
mod reference;
mod secret;
mod settings;
mod size;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;

use serde_json::{Map, Value};

pub use error::{ConfigError, ConfigErrors, Origin};
pub use kind::{Kind, Refusal};
pub use layers::Effective;
pub use options::{ENVIRONMENT_PREFIX, OPTIONS, OptionSpec};
pub use reference::{ReferenceFormat, reference};
pub use secret::{ClientOptions, Secret};
pub use settings::{
    ApplicationSection, BackendSetting, CommitSection, EmbeddedSection, ErrorsSection, GuaranteeSetting, HttpSection,
    InstanceSection, KafkaSection, LimitsSection, LogFormat, LogSection, PolicySetting, SecuritySection, Settings,
    StateSection, TasksSection, TopicsSection,
};
pub use size::ByteSize;

use crate::topology::Parameters;
use layers::{Layers, full_name};
use secret::MASK;

/// The defaults, in the form of a configuration file.
pub const DEFAULT_TOML: &str = include_str!("../../../config/default.toml");

/// Where a configuration is read from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Files, later ones over earlier ones.
    pub files: Vec<PathBuf>,
    /// Environment variables; only those with [`ENVIRONMENT_PREFIX`] count.
    pub environment: Vec<(OsString, OsString)>,
    /// `key=value` of the command line, later ones over earlier ones.
    pub assignments: Vec<String>,
}

/// A configuration that was read and found right.
#[derive(Clone, Debug)]
pub struct Configuration {
    settings: Settings,
    effective: Vec<Effective>,
}

impl Configuration {
    /// Reads and checks a configuration. Options that are right one by one are checked together by [`Configuration::check_complete`].
    ///
    /// # Errors
    /// Everything that is wrong, not only the first thing.
    pub fn load(sources: &Sources) -> Result<Self, ConfigErrors> {
        let mut layers = Layers::default();
        layers.add_toml(DEFAULT_TOML, &Origin::Default);
        sources.files.iter().for_each(|path| layers.add_file(path));
        layers.add_environment(sources.environment.iter().cloned());
        sources
            .assignments
            .iter()
            .for_each(|assignment| layers.add_assignment(assignment));
        let effective = layers.finish().map_err(ConfigErrors)?;
        let settings = typed(&effective)?;
        Ok(Self { settings, effective })
    }

    /// The options, typed.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What the topology is told.
    pub fn parameters(&self) -> Parameters {
        self.settings.parameters.clone()
    }

    /// Every value that takes effect, as `key = value  # origin` in the order of the reference, secrets masked.
    pub fn show(&self) -> String {
        let shown: Vec<(String, &Origin)> = self
            .effective
            .iter()
            .map(|effective| {
                let name = full_name(effective.option, &effective.key);
                let value = if effective.option.is_secret(&name) {
                    format!("\"{MASK}\"")
                } else {
                    masked(effective.option, &effective.value).to_string()
                };
                (format!("{} = {value}", toml_name(effective)), &effective.origin)
            })
            .collect();
        let width = shown
            .iter()
            .map(|(line, _)| line.chars().count())
            .max()
            .unwrap_or(0)
            .min(60);
        shown
            .iter()
            .map(|(line, origin)| format!("{line:width$}  # {origin}\n"))
            .collect()
    }
}

/// Puts the values into their sections and reads them as [`Settings`].
fn typed(effective: &[Effective]) -> Result<Settings, ConfigErrors> {
    let mut root = Map::new();
    for option in OPTIONS {
        let empty = if option.kind.is_table() {
            Value::Object(Map::new())
        } else {
            Value::Null
        };
        insert(&mut root, option.name.split('.'), empty);
    }
    for Effective { option, key, value, .. } in effective {
        let path = option.name.split('.').chain(key.iter().map(String::as_str));
        insert(&mut root, path, value.clone());
    }
    serde_json::from_value(Value::Object(root)).map_err(|e| {
        // Every value has passed its check, so that the only thing left is an option without a value.
        ConfigError::Missing {
            key: "of the defaults".to_owned(),
            reason: e.to_string(),
        }
        .into()
    })
}

fn insert<'a>(table: &mut Map<String, Value>, path: impl Iterator<Item = &'a str>, value: Value) {
    let mut path = path.peekable();
    let mut table = table;
    while let Some(part) = path.next() {
        if path.peek().is_none() {
            table.insert(part.to_owned(), value);
            return;
        }
        let inner = table
            .entry(part.to_owned())
            .or_insert_with(|| Value::Object(Map::new()));
        if !inner.is_object() {
            *inner = Value::Object(Map::new());
        }
        let Value::Object(inner) = inner else { return };
        table = inner;
    }
}

/// The name as a TOML file has it: keys of tables in quotes where they contain dots.
fn toml_name(effective: &Effective) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let quoted = effective.key.iter().map(|part| {
        if part.chars().all(plain) && !part.is_empty() {
            part.clone()
        } else {
            format!("{part:?}")
        }
    });
    std::iter::once(effective.option.name.to_owned())
        .chain(quoted)
        .collect::<Vec<_>>()
        .join(".")
}

/// The value with secrets inside tables within arrays masked too.
fn masked(option: &OptionSpec, value: &Value) -> Value {
    match value {
        Value::Array(values) => values.iter().map(|value| masked(option, value)).collect(),
        Value::Object(table) => table
            .iter()
            .map(|(key, value)| {
                let value = if option.is_secret(key) {
                    Value::from(MASK)
                } else {
                    masked(option, value)
                };
                (key.clone(), value)
            })
            .collect(),
        other => other.clone(),
    }
}
