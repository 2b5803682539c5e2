//! Parameters: what a topology may be told from outside, typed by the topology itself.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::errors::{Coded, nearest, sounds_secret};

/// The table `[parameters]` of the configuration, handed to the topology when it is built.
///
/// ```
/// use serde::Deserialize;
/// use tidegate::time::HumanDuration;
/// use tidegate::topology::Parameters;
///
/// #[derive(Deserialize)]
/// struct Sessions {
///     gap: HumanDuration,
///     #[serde(default)]
///     verbose: bool,
/// }
///
/// let table = serde_json::json!({ "gap": "30s" });
/// let sessions: Sessions = Parameters::try_from(table)?.parse()?;
/// assert_eq!(sessions.gap.as_millis(), 30_000);
///
/// let misspelt = serde_json::json!({ "gap": "30s", "verbos": true });
/// let refused = Parameters::try_from(misspelt)?.parse::<Sessions>();
/// assert!(refused.is_err_and(|e| e.to_string().contains("did you mean parameters.verbose")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Parameters(Map<String, Value>);

/// Why parameters do not fit their topology.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// The topology knows no parameter of that name.
    #[error("unknown parameter {}{}{}", path(.key), did_you_mean(.key, .nearest.as_deref()), listed(.known))]
    Unknown {
        /// The name, from the table `parameters` on, parts joined by dots.
        key: String,
        /// The name that was probably meant, without what is before its last dot.
        nearest: Option<String>,
        /// All names that are known in its place.
        known: Vec<String>,
    },
    /// The topology needs the parameter and it is not set.
    #[error("parameter {} is missing; set it under [parameters]", path(.key))]
    Missing {
        /// The name.
        key: String,
    },
    /// The value has the wrong type or is out of range.
    #[error("parameter {} cannot be used: {reason}", path(.key))]
    Invalid {
        /// The name.
        key: String,
        /// What is wrong, and what is expected.
        reason: String,
    },
}

impl Coded for ParameterError {
    fn code(&self) -> &'static str {
        match self {
            ParameterError::Unknown { .. } => "TG2091",
            ParameterError::Missing { .. } => "TG2092",
            ParameterError::Invalid { .. } => "TG2093",
        }
    }
}

fn path(key: &str) -> String {
    if key.is_empty() {
        "table [parameters]".to_owned()
    } else {
        format!("parameters.{key}")
    }
}

fn did_you_mean(key: &str, nearest: Option<&str>) -> String {
    let section = key
        .rsplit_once('.')
        .map(|(section, _)| format!("{section}."))
        .unwrap_or_default();
    nearest
        .map(|name| format!("; did you mean parameters.{section}{name}?"))
        .unwrap_or_default()
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "; there are no parameters here".to_owned()
    } else {
        format!(" (known: {})", names.join(", "))
    }
}

impl Parameters {
    /// Parameters from a table.
    pub fn new(table: Map<String, Value>) -> Self {
        Parameters(table)
    }

    /// Reads the parameters as `T`, usually a struct with named fields. A key that is no field of the struct
    /// is refused, in nested structs too, whether or not they say `deny_unknown_fields`.
    ///
    /// # Errors
    /// [`ParameterError`], naming the parameter.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ParameterError> {
        T::deserialize(StrictTable(&self.0))
    }

    /// The raw table.
    pub fn table(&self) -> &Map<String, Value> {
        &self.0
    }
}

impl fmt::Debug for Parameters {
    /// Prints the names only: a parameter may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl TryFrom<Value> for Parameters {
    type Error = ParameterError;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        match value {
            Value::Object(table) => Ok(Parameters(table)),
            other => Err(ParameterError::Invalid {
                key: String::new(),
                reason: format!("{other} is not a table"),
            }),
        }
    }
}

impl ParameterError {
    /// The same error seen from one level further out. What is wrong with a secret is told without the secret.
    fn within(mut self, outer: &str) -> Self {
        if let ParameterError::Invalid { reason, .. } = &mut self
            && sounds_secret(outer)
        {
            *reason = "it is of the wrong type or out of range, and not shown since it may be secret".to_owned();
        }
        let (ParameterError::Unknown { key, .. }
        | ParameterError::Missing { key }
        | ParameterError::Invalid { key, .. }) = &mut self;
        *key = if key.is_empty() {
            outer.to_owned()
        } else {
            format!("{outer}.{key}")
        };
        self
    }
}

impl de::Error for ParameterError {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        ParameterError::Invalid {
            key: String::new(),
            reason: reason.to_string(),
        }
    }

    fn missing_field(field: &'static str) -> Self {
        ParameterError::Missing { key: field.to_owned() }
    }
}

/// A table that refuses keys which the struct read from it does not have.
struct StrictTable<'a>(&'a Map<String, Value>);

impl StrictTable<'_> {
    fn refuse_unknown(&self, fields: &[&str]) -> Result<(), ParameterError> {
        match self.0.keys().find(|key| !fields.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => Err(ParameterError::Unknown {
                key: key.clone(),
                nearest: nearest(key, fields.iter().copied()).map(str::to_owned),
                known: fields.iter().map(|field| (*field).to_owned()).collect(),
            }),
        }
    }
}

impl<'de> de::Deserializer<'de> for StrictTable<'de> {
    type Error = ParameterError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_map(StrictEntries {
            entries: self.0.iter(),
            current: None,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.refuse_unknown(fields)?;
        self.deserialize_any(visitor)
    }

    /// A struct without fields: nothing may be set.
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.refuse_unknown(&[])?;
        visitor.visit_unit()
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.refuse_unknown(&[])?;
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_enum(MapAccessDeserializer::new(StrictEntries {
            entries: self.0.iter(),
            current: None,
        }))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        seq tuple tuple_struct map identifier ignored_any
    }
}

struct StrictEntries<'de> {
    entries: serde_json::map::Iter<'de>,
    current: Option<(&'de String, &'de Value)>,
}

impl<'de> MapAccess<'de> for StrictEntries<'de> {
    type Error = ParameterError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Self::Error> {
        self.current = self.entries.next();
        let Some((key, _)) = self.current else { return Ok(None) };
        seed.deserialize(key.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Self::Error> {
        let (key, value) = self
            .current
            .ok_or_else(|| de::Error::custom("a value was asked for before its key"))?;
        seed.deserialize(StrictValue(value))
            .map_err(|e: ParameterError| e.within(key))
    }
}

/// Any value below the table; tables in it are strict too.
#[derive(Clone, Copy)]
struct StrictValue<'a>(&'a Value);

impl<'de> IntoDeserializer<'de, ParameterError> for StrictValue<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> de::Deserializer<'de> for StrictValue<'de> {
    type Error = ParameterError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(values) => visitor.visit_seq(SeqDeserializer::new(values.iter().map(StrictValue))),
            Value::Object(table) => StrictTable(table).deserialize_any(visitor),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), _, _) => visitor.visit_u64(value),
                (_, Some(value), _) => visitor.visit_i64(value),
                (_, _, Some(value)) => visitor.visit_f64(value),
                _ => Err(de::Error::custom(format!("{number} is no number that can be read"))),
            },
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Object(table) => StrictTable(table).deserialize_struct(name, fields, visitor),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        if self.0.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::String(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Value::Object(table) => StrictTable(table).deserialize_enum(name, variants, visitor),
            other => Err(de::Error::custom(format!("{other} is none of {}", variants.join(", ")))),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::time::HumanDuration;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "snake_case")]
    enum Emit {
        OnUpdate,
        OnClose,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Window {
        size: HumanDuration,
        emit: Emit,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Example {
        topic: String,
        window: Window,
        limit: Option<u32>,
        #[serde(default)]
        ratio: f64,
        #[serde(default)]
        names: Vec<String>,
        #[serde(default)]
        weights: BTreeMap<String, i64>,
    }

    fn parse(table: Value) -> Result<Example, ParameterError> {
        Parameters::try_from(table).and_then(|parameters| parameters.parse())
    }

    fn message(table: Value) -> String {
        parse(table).map_or_else(|error| error.to_string(), |example| format!("accepted: {example:?}"))
    }

    #[test]
    fn parameters_are_read_as_the_topology_declares_them() {
        let table = json!({
            "topic": "in", "window": {"size": "1h", "emit": "on_close"}, "limit": 7,
            "ratio": 0.5, "names": ["a", "b"], "weights": {"x": -1},
        });
        let expected = Example {
            topic: "in".into(),
            window: Window {
                size: HumanDuration(std::time::Duration::from_secs(3600)),
                emit: Emit::OnClose,
            },
            limit: Some(7),
            ratio: 0.5,
            names: vec!["a".into(), "b".into()],
            weights: BTreeMap::from([("x".into(), -1)]),
        };
        assert_eq!(parse(table), Ok(expected));
    }

    #[test]
    fn unknown_parameters_are_refused_with_the_nearest_known_one_at_any_depth() {
        let window = json!({"size": "1h", "emit": "on_close"});
        let outer = message(json!({"topic": "in", "window": window, "limt": 7}));
        assert!(
            outer.contains("unknown parameter parameters.limt; did you mean parameters.limit?"),
            "{outer}"
        );
        let inner = message(json!({"topic": "in", "window": {"sise": "1h", "emit": "on_close"}}));
        assert!(
            inner.contains("parameters.window.sise; did you mean parameters.window.size?"),
            "{inner}"
        );
        assert!(Parameters::try_from(json!({"a": 1})).is_ok_and(|p| p.parse::<()>().is_err()));
        assert!(Parameters::default().parse::<()>().is_ok());
    }

    #[test]
    fn wrong_and_missing_parameters_are_named_in_full() {
        let duration = message(json!({"topic": "in", "window": {"size": "soon", "emit": "on_close"}}));
        assert!(
            duration.starts_with("parameter parameters.window.size cannot be used: \"soon\""),
            "{duration}"
        );
        let variant = message(json!({"topic": "in", "window": {"size": "1h", "emit": "never"}}));
        assert!(
            variant.contains("parameters.window.emit") && variant.contains("on_update"),
            "{variant}"
        );
        let missing = message(json!({"topic": "in", "window": {"emit": "on_close"}}));
        assert!(missing.contains("parameters.window.size is missing"), "{missing}");
        let kind = message(json!({"topic": 5, "window": {"size": "1h", "emit": "on_update"}}));
        assert!(
            kind.contains("parameters.topic cannot be used: invalid type: integer `5`, expected a string"),
            "{kind}"
        );
    }

    #[test]
    fn a_secret_of_the_wrong_type_is_named_and_not_shown() {
        let table = json!({"api_secret": "hunter2"});
        let refused = Parameters::try_from(table).and_then(|parameters| parameters.parse::<BTreeMap<String, u32>>());
        let message = refused.map_or_else(|error| error.to_string(), |_| "accepted".to_owned());
        assert!(
            message.contains("parameters.api_secret") && !message.contains("hunter2"),
            "{message}"
        );
    }
}
