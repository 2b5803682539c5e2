//! Kinds of options: what a value must look like, and how it is checked.

use std::time::Duration;

use serde_json::Value;

use super::size::ByteSize;
use crate::time::HumanDuration;

/// What values an option takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A whole number within limits.
    Integer {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
        /// What is counted.
        unit: &'static str,
    },
    /// A [`HumanDuration`] within limits, in milliseconds.
    Duration {
        /// Shortest, in milliseconds.
        min_ms: u64,
        /// Longest, in milliseconds.
        max_ms: u64,
    },
    /// A [`ByteSize`] within limits.
    Size {
        /// Smallest.
        min_bytes: u64,
        /// Largest.
        max_bytes: u64,
    },
    /// Text that is not empty.
    Text,
    /// Text that is never printed.
    Secret,
    /// Text of letters, digits, `.`, `_` and `-`, since names of topics are made of it.
    Name,
    /// `host:port`, several separated by commas, or an array of them.
    Addresses,
    /// Address and port to listen on.
    SocketAddress,
    /// A level or directives as `tracing-subscriber` reads them.
    LogFilter,
    /// One of some words.
    Choice {
        /// The words.
        words: &'static [&'static str],
    },
    /// A table of whatever the topology takes.
    Parameters,
    /// A table of options of the Kafka client (librdkafka), passed on as they are.
    ClientOptions,
    /// A table from node name to one of some words.
    ChoiceByName {
        /// The words.
        words: &'static [&'static str],
    },
}

/// Why a value is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is something else; the text says what is expected.
    Expected(String),
}

/// Longest duration that any option takes: a hundred years, far from overflow.
pub const UNLIMITED_MS: u64 = 100 * 365 * 86_400_000;
/// Largest size that any option takes.
pub const UNLIMITED_BYTES: u64 = 1 << 50;

impl Kind {
    /// Whether values are tables whose keys the user chooses.
    pub fn is_table(self) -> bool {
        matches!(self, Kind::Parameters | Kind::ClientOptions | Kind::ChoiceByName { .. })
    }

    /// The type, as the reference shows it.
    pub fn type_name(self) -> &'static str {
        match self {
            Kind::Boolean => "boolean",
            Kind::Integer { .. } => "integer",
            Kind::Duration { .. } => "duration",
            Kind::Size { .. } => "size",
            Kind::Text | Kind::Name | Kind::LogFilter => "string",
            Kind::Secret => "secret",
            Kind::Addresses => "addresses",
            Kind::SocketAddress => "address",
            Kind::Choice { .. } => "choice",
            Kind::Parameters | Kind::ClientOptions | Kind::ChoiceByName { .. } => "table",
        }
    }

    /// The unit of the value, as the reference shows it.
    pub fn unit(self) -> &'static str {
        match self {
            Kind::Integer { unit, .. } => unit,
            Kind::Duration { .. } => "ms, s, m, h, d",
            Kind::Size { .. } => "B, KiB, MiB, GiB",
            _ => "–",
        }
    }

    /// What is expected, as a phrase: "a duration from 1ms to 5m".
    pub fn expected(self) -> String {
        match self {
            Kind::Boolean => "true or false".to_owned(),
            Kind::Integer { min, max, unit } => format!("a whole number from {min} to {max} ({unit})"),
            Kind::Duration { min_ms, max_ms } => {
                let human = |ms| HumanDuration(Duration::from_millis(ms));
                let to = if max_ms == UNLIMITED_MS {
                    String::new()
                } else {
                    format!(" to {}", human(max_ms))
                };
                format!(
                    "a duration from {}{to}, in quotes and with its unit (ms, s, m, h, d)",
                    human(min_ms)
                )
            }
            Kind::Size { min_bytes, max_bytes } => {
                let to = if max_bytes == UNLIMITED_BYTES {
                    String::new()
                } else {
                    format!(" to {}", ByteSize(max_bytes))
                };
                format!(
                    "a size from {}{to}, in quotes and with its unit (B, KiB, MiB, GiB)",
                    ByteSize(min_bytes)
                )
            }
            Kind::Text | Kind::Secret => "a string that is not empty".to_owned(),
            Kind::Name => "1 to 150 letters, digits, '.', '_' or '-'".to_owned(),
            Kind::Addresses => "\"host:port\", several separated by commas".to_owned(),
            Kind::SocketAddress => "an address and a port to listen on, such as \"0.0.0.0:9464\"".to_owned(),
            Kind::LogFilter => {
                "a level (error, warn, info, debug, trace), or directives such as \"info,tidegate::log=debug\""
                    .to_owned()
            }
            Kind::Choice { words, .. } => format!("one of {}", words.join(", ")),
            Kind::Parameters => "a table".to_owned(),
            Kind::ClientOptions => {
                "a table of options of the Kafka client, values being strings, numbers or booleans".to_owned()
            }
            Kind::ChoiceByName { words } => format!("a table from name to one of {}", words.join(", ")),
        }
    }

    /// Checks a scalar and brings it to the one form in which it is kept. Text from the environment or the
    /// command line is first read as what the option needs.
    ///
    /// # Errors
    /// The [`Refusal`], in words for the user.
    pub fn check(self, value: &Value, is_plain_text: bool) -> Result<Value, Refusal> {
        let expected = || Refusal::Expected(self.expected());
        let text = value.as_str().filter(|text| !text.trim().is_empty());
        match self {
            Kind::Boolean if is_plain_text => text.and_then(|t| t.parse().ok()).map(Value::Bool).ok_or_else(expected),
            Kind::Boolean => value.as_bool().map(Value::Bool).ok_or_else(expected),
            Kind::Integer { min, max, .. } => {
                let number = if is_plain_text {
                    text.and_then(|t| t.parse().ok())
                } else {
                    value.as_i64()
                };
                number
                    .filter(|n| (min..=max).contains(n))
                    .map(Value::from)
                    .ok_or_else(expected)
            }
            Kind::Duration { min_ms, max_ms } => {
                let duration: Option<HumanDuration> = text.and_then(|t| t.parse().ok());
                let in_range = |d: &HumanDuration| (u128::from(min_ms)..=u128::from(max_ms)).contains(&d.0.as_millis());
                duration
                    .filter(in_range)
                    .and(text)
                    .map(Value::from)
                    .ok_or_else(expected)
            }
            Kind::Size { min_bytes, max_bytes } => {
                let size: Option<ByteSize> = text.and_then(|t| t.parse().ok());
                size.filter(|s| (min_bytes..=max_bytes).contains(&s.0))
                    .and(text)
                    .map(Value::from)
                    .ok_or_else(expected)
            }
            Kind::Text | Kind::Secret => text.map(Value::from).ok_or_else(expected),
            Kind::Name => text.filter(|t| is_name(t)).map(Value::from).ok_or_else(expected),
            Kind::Addresses => addresses(value).map(Value::from).ok_or_else(expected),
            Kind::SocketAddress => text
                .filter(|t| is_host_and_port(t, 0))
                .map(Value::from)
                .ok_or_else(expected),
            Kind::LogFilter => text.filter(|t| is_log_filter(t)).map(Value::from).ok_or_else(expected),
            Kind::Choice { words } => choice(value, words),
            Kind::ChoiceByName { words } => choice(value, words),
            Kind::ClientOptions => match value {
                Value::String(text) => Ok(Value::from(text.as_str())),
                Value::Bool(_) | Value::Number(_) => Ok(Value::from(value.to_string())),
                _ => Err(Refusal::Expected("a string, a number or a boolean".to_owned())),
            },
            Kind::Parameters => Ok(if is_plain_text {
                read_as_toml(value)
            } else {
                value.clone()
            }),
        }
    }
}

fn choice(value: &Value, words: &[&str]) -> Result<Value, Refusal> {
    let text = value.as_str().unwrap_or_default();
    if words.contains(&text) {
        return Ok(Value::from(text));
    }
    Err(Refusal::Expected(format!("one of {}", words.join(", "))))
}

/// A name becomes part of topics such as `<name>-<store>-changelog`, which may have 249 characters.
fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    text.len() <= 150 && text.chars().all(allowed) && text != "." && text != ".."
}

fn is_host_and_port(text: &str, lowest_port: u16) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(char::is_whitespace)
            && port.parse::<u16>().is_ok_and(|port| port >= lowest_port)
    })
}

fn addresses(value: &Value) -> Option<String> {
    let listed: Option<Vec<&str>> = match value {
        Value::String(text) => Some(text.split(',').map(str::trim).collect()),
        Value::Array(values) => values.iter().map(Value::as_str).collect(),
        _ => None,
    };
    let listed = listed?;
    let all_good = !listed.is_empty() && listed.iter().all(|address| is_host_and_port(address, 1));
    all_good.then(|| listed.join(","))
}

/// A bare word must be a level: the library would take a misspelt one for the name of a module, and log nothing else.
fn is_log_filter(text: &str) -> bool {
    let is_level = |word: &str| word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    let has_form = |directive: &str| directive.contains(['=', '[']) || is_level(directive.trim());
    text.split(',').all(has_form) && tracing_subscriber::EnvFilter::builder().parse(text).is_ok()
}

/// `5`, `true`, `"x"` and `[1, 2]` are read as TOML would; what is no TOML value is text.
fn read_as_toml(value: &Value) -> Value {
    let text = value.as_str().unwrap_or_default();
    let table = format!("value = {text}")
        .parse::<toml::Table>()
        .ok()
        .filter(|table| table.len() == 1);
    match table.and_then(|mut table| table.remove("value")) {
        None | Some(toml::Value::Datetime(_)) => value.clone(),
        Some(read) => serde_json::to_value(read).unwrap_or_else(|_| value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_from_the_environment_is_read_as_the_option_needs_and_values_in_files_keep_their_type() {
        let workers = Kind::Integer {
            min: 1,
            max: 8,
            unit: "threads",
        };
        assert_eq!(workers.check(&json!("4"), true), Ok(json!(4)));
        assert!(workers.check(&json!("4"), false).is_err());
        assert!(workers.check(&json!(9), false).is_err());
        assert_eq!(Kind::Boolean.check(&json!("true"), true), Ok(json!(true)));
        assert!(Kind::Boolean.check(&json!("yes"), true).is_err());
        for (text, read) in [
            ("5", json!(5)),
            ("true", json!(true)),
            ("24h", json!("24h")),
            ("[1, 2]", json!([1, 2])),
        ] {
            assert_eq!(Kind::Parameters.check(&json!(text), true), Ok(read));
        }
        assert_eq!(
            Kind::Parameters.check(&json!("1\nother = 2"), true),
            Ok(json!("1\nother = 2"))
        );
    }

    #[test]
    fn addresses_are_one_string_an_array_or_refused() {
        let check = |value| Kind::Addresses.check(&value, false).ok();
        assert_eq!(check(json!("a:1, b:2")), Some(json!("a:1,b:2")));
        assert_eq!(check(json!(["a:1", "b:2"])), Some(json!("a:1,b:2")));
        for refused in [
            json!("a"),
            json!("a:0"),
            json!("a:99999"),
            json!(":1"),
            json!([]),
            json!(["a:1", 2]),
            json!(""),
        ] {
            assert_eq!(check(refused.clone()), None, "{refused} was accepted");
        }
    }

    #[test]
    fn a_misspelt_level_is_no_log_filter() {
        let check = |text: &str| Kind::LogFilter.check(&json!(text), false).is_ok();
        assert!(check("info") && check("OFF") && check("warn,tidegate::log=debug"));
        for refused in ["inof", "info,debgu", "tidegate=loud", ""] {
            assert!(!check(refused), "{refused:?} was accepted");
        }
    }
}
