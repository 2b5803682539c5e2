//! Layers: defaults, files, environment and command line, each checked by itself, then laid over one another.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use config::{Environment, File, FileFormat, Source};
use serde_json::{Map, Value};

use super::error::{ConfigError, Origin};
use super::kind::{Kind, Refusal};
use super::options::{ENVIRONMENT_PREFIX, OPTIONS, OptionSpec};
use super::secret::MASK;
use crate::errors::nearest;

/// A value that takes effect, and where it comes from.
#[derive(Clone)]
pub struct Effective {
    /// The option.
    pub option: &'static OptionSpec,
    /// For an option that is a table: the key within it, its parts from outside in. Else empty.
    pub key: Vec<String>,
    /// The value, checked.
    pub value: Value,
    /// Where it comes from.
    pub origin: Origin,
}

impl fmt::Debug for Effective {
    /// Leaves the value out, since it may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", full_name(self.option, &self.key), self.origin)
    }
}

/// Values by option and key, later layers over earlier ones, and what was refused on the way.
#[derive(Debug, Default)]
pub struct Layers {
    values: BTreeMap<(&'static str, Vec<String>), Effective>,
    errors: Vec<ConfigError>,
}

impl Layers {
    /// Lays the contents of a TOML file over what is there.
    pub fn add_toml(&mut self, text: &str, origin: &Origin) {
        let path = match origin {
            Origin::File(path) => path.clone(),
            _ => PathBuf::from("default.toml"),
        };
        let read = File::from_str(text, FileFormat::Toml)
            .collect()
            .map_err(|e| e.to_string());
        let table: Result<Map<String, Value>, String> = read.and_then(|table| {
            let value = config::Value::new(None, config::ValueKind::Table(table));
            value.try_deserialize().map_err(|e| e.to_string())
        });
        match table {
            Ok(table) => self.add_table("", &table, origin),
            Err(reason) => self.errors.push(ConfigError::Syntax { path, reason }),
        }
    }

    /// Reads a file and lays it over what is there.
    pub fn add_file(&mut self, path: &Path) {
        match std::fs::read_to_string(path) {
            Ok(text) => self.add_toml(&text, &Origin::File(path.to_owned())),
            Err(e) => self.errors.push(ConfigError::Unreadable {
                path: path.to_owned(),
                reason: e.to_string(),
            }),
        }
    }

    /// Lays environment variables over what is there; those without the prefix are none of ours.
    pub fn add_environment(&mut self, variables: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>) {
        let origin = Origin::Environment;
        let mut ours = BTreeMap::new();
        for (name, value) in variables {
            let name = name.to_string_lossy().into_owned();
            if !name.starts_with(ENVIRONMENT_PREFIX) {
                continue;
            }
            match value.into_string() {
                Ok(value) => drop(ours.insert(name, value)),
                Err(_) => self.errors.push(ConfigError::Malformed {
                    given: name,
                    origin: origin.clone(),
                    reason: "the value is not UTF-8".to_owned(),
                }),
            }
        }
        let separator = "__";
        let environment = Environment::with_prefix(ENVIRONMENT_PREFIX.trim_end_matches('_'))
            .prefix_separator(separator)
            .separator(separator)
            .source(Some(ours.into_iter().collect()));
        match environment.collect() {
            // The library answers names in lower case with dots in place of the separator.
            Ok(values) => values
                .into_iter()
                .collect::<BTreeMap<_, _>>()
                .into_iter()
                .for_each(|(name, value)| {
                    let text = value.into_string().unwrap_or_default();
                    self.add_text(&name, &text, &origin);
                }),
            Err(e) => self.errors.push(ConfigError::Malformed {
                given: format!("{ENVIRONMENT_PREFIX}*"),
                origin,
                reason: e.to_string(),
            }),
        }
    }

    /// Lays one `key=value` of the command line over what is there.
    pub fn add_assignment(&mut self, assignment: &str) {
        match assignment.split_once('=') {
            Some((name, text)) => self.add_text(name.trim(), text, &Origin::CommandLine),
            None => self.errors.push(ConfigError::Malformed {
                given: format!("--set {assignment}"),
                origin: Origin::CommandLine,
                reason: "expected key=value, for example --set commit.interval=50ms".to_owned(),
            }),
        }
    }

    /// What takes effect, in the order of the options.
    ///
    /// # Errors
    /// Everything that was refused.
    pub fn finish(self) -> Result<Vec<Effective>, Vec<ConfigError>> {
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        let mut values: Vec<Effective> = self.values.into_values().collect();
        let place = |effective: &Effective| OPTIONS.iter().position(|option| option.name == effective.option.name);
        values.sort_by_key(place);
        Ok(values)
    }

    fn add_table(&mut self, section: &str, table: &Map<String, Value>, origin: &Origin) {
        for (key, value) in table {
            let name = if section.is_empty() {
                key.clone()
            } else {
                format!("{section}.{key}")
            };
            match (OptionSpec::named(&name), value) {
                (Some(option), Value::Object(entries)) if option.kind.is_table() => {
                    self.add_entries(option, &[], entries, origin);
                }
                (Some(option), _) if option.kind.is_table() => {
                    self.refuse(option, &[], value, option.kind.expected(), origin);
                }
                (Some(option), _) => self.add_value(option, Vec::new(), value, false, origin),
                (None, Value::Object(inner)) if is_section(&name) => self.add_table(&name, inner, origin),
                (None, _) if is_section(&name) => self.errors.push(ConfigError::InvalidValue {
                    expected: format!("a table with {}", children(&name).join(", ")),
                    key: name,
                    origin: origin.clone(),
                    value: value.to_string(),
                }),
                (None, _) => self.refuse_unknown(name, origin),
            }
        }
    }

    fn add_entries(
        &mut self,
        option: &'static OptionSpec,
        outer: &[String],
        table: &Map<String, Value>,
        origin: &Origin,
    ) {
        for (key, value) in table {
            let path = match (option.kind, outer) {
                // TOML reads `fetch.min.bytes = 1` as tables within tables, but to the client it is one name.
                (Kind::ClientOptions, [name]) => vec![format!("{name}.{key}")],
                _ => outer.iter().chain([key]).cloned().collect(),
            };
            let nests = matches!(option.kind, Kind::Parameters | Kind::ClientOptions);
            match value {
                Value::Object(inner) if nests && !inner.is_empty() => self.add_entries(option, &path, inner, origin),
                _ => self.add_value(option, path, value, false, origin),
            }
        }
    }

    fn add_text(&mut self, name: &str, text: &str, origin: &Origin) {
        let value = Value::from(text);
        if let Some(option) = OptionSpec::named(name) {
            return if option.kind.is_table() {
                let example = format!("one key at a time, such as {}", origin.spelling(&format!("{name}.key")));
                self.refuse(option, &[], &value, example, origin);
            } else {
                self.add_value(option, Vec::new(), &value, true, origin);
            };
        }
        let in_table = |option: &&OptionSpec| option.kind.is_table() && name.starts_with(&format!("{}.", option.name));
        match OPTIONS.iter().find(in_table) {
            Some(option) => {
                let rest = &name[option.name.len() + 1..];
                self.add_value(option, table_key(option, rest, origin), &value, true, origin);
            }
            None => self.refuse_unknown(name.to_owned(), origin),
        }
    }

    fn add_value(
        &mut self,
        option: &'static OptionSpec,
        key: Vec<String>,
        value: &Value,
        is_text: bool,
        origin: &Origin,
    ) {
        match option.kind.check(value, is_text) {
            Ok(value) => {
                // A table gives way to a value of the same name, and the other way round.
                self.values.retain(|(name, other), _| {
                    *name != option.name || *other == key || !(other.starts_with(&key) || key.starts_with(other))
                });
                let effective = Effective {
                    option,
                    key: key.clone(),
                    value,
                    origin: origin.clone(),
                };
                self.values.insert((option.name, key), effective);
            }
            Err(Refusal::Expected(expected)) => self.refuse(option, &key, value, expected, origin),
        }
    }

    fn refuse(&mut self, option: &OptionSpec, key: &[String], value: &Value, expected: String, origin: &Origin) {
        let name = full_name(option, key);
        let value = if option.is_secret(&name) {
            MASK.to_owned()
        } else {
            value.to_string()
        };
        self.errors.push(ConfigError::InvalidValue {
            key: name,
            origin: origin.clone(),
            value,
            expected,
        });
    }

    fn refuse_unknown(&mut self, key: String, origin: &Origin) {
        let nearest = suggest(&key);
        self.errors.push(ConfigError::UnknownKey {
            key,
            origin: origin.clone(),
            nearest,
        });
    }
}

/// The full name of a value: the option, and the key within its table.
pub fn full_name(option: &OptionSpec, key: &[String]) -> String {
    std::iter::once(option.name)
        .chain(key.iter().map(String::as_str))
        .collect::<Vec<_>>()
        .join(".")
}

/// The key within a table option as text outside TOML gives it. Names of the Kafka client's options contain dots,
/// which shells do not allow in names of variables: an underscore stands for one there.
fn table_key(option: &OptionSpec, rest: &str, origin: &Origin) -> Vec<String> {
    match option.kind {
        Kind::Parameters => rest.split('.').map(str::to_owned).collect(),
        Kind::ClientOptions if *origin == Origin::Environment => vec![rest.replace('_', ".")],
        _ => vec![rest.to_owned()],
    }
}

fn is_section(name: &str) -> bool {
    let inside = format!("{name}.");
    OPTIONS.iter().any(|option| option.name.starts_with(&inside))
}

/// Names of the options and sections directly within a section, without the section's own name.
fn children(section: &str) -> Vec<&'static str> {
    let inside = if section.is_empty() {
        String::new()
    } else {
        format!("{section}.")
    };
    let mut names: Vec<&str> = OPTIONS
        .iter()
        .filter_map(|option| option.name.strip_prefix(&inside))
        .map(|rest| rest.split('.').next().unwrap_or(rest))
        .collect();
    names.dedup();
    names
}

/// What was probably meant: a name in the same place, else the same name in another place, else the nearest of all.
fn suggest(key: &str) -> Option<String> {
    let (section, short) = key.rsplit_once('.').unwrap_or(("", key));
    let in_section = |name: &str| {
        if section.is_empty() {
            name.to_owned()
        } else {
            format!("{section}.{name}")
        }
    };
    let is_place = section.is_empty() || is_section(section);
    if let Some(name) = nearest(short, children(section)).filter(|_| is_place) {
        return Some(in_section(name));
    }
    let elsewhere = OPTIONS
        .iter()
        .find(|option| option.short_name() == short)
        .map(|option| option.name);
    elsewhere
        .or_else(|| nearest(key, OPTIONS.iter().map(|option| option.name)))
        .map(str::to_owned)
}
