//! Rows for people: what the codecs' ids in a manifest say about bytes. The types of a topology are not known here, only its codecs of general
//! use; what else there is stays bytes.

use serde_json::{Value, json};

use crate::codec::{Codec, I32Be, I64Be, Utf8};

/// How bytes are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Text.
    Utf8,
    /// A 64-bit integer.
    I64,
    /// A 32-bit integer.
    I32,
    /// JSON.
    Json,
    /// A window's start, and the key.
    StartFirst(Box<Shape>),
    /// The key, and a window's start.
    StartLast(Box<Shape>),
    /// A timer: its time, and its tag.
    Timer,
    /// Only bytes.
    Bytes,
}

impl Shape {
    /// What the id of a codec says.
    pub fn of(codec: &str) -> Self {
        let inner = |name: &str| {
            let arguments = codec.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')')?;
            Some(Box::new(Shape::of(arguments.rsplit_once(", ")?.0)))
        };
        if let Some(key) = inner("start-first") {
            return Shape::StartFirst(key);
        }
        if let Some(key) = inner("time-windowed") {
            return Shape::StartLast(key);
        }
        match codec {
            "utf8" => Shape::Utf8,
            "i64-be" => Shape::I64,
            "i32-be" => Shape::I32,
            "json" => Shape::Json,
            _ => Shape::Bytes,
        }
    }

    /// The bytes as a value; `None` where they are not what the codec writes, or only bytes.
    pub fn read(&self, bytes: &[u8]) -> Option<Value> {
        match self {
            Shape::Utf8 => Utf8.decode(bytes).ok().map(Value::from),
            Shape::I64 => I64Be.decode(bytes).ok().map(Value::from),
            Shape::I32 => I32Be.decode(bytes).ok().map(Value::from),
            Shape::Json => serde_json::from_slice(bytes).ok(),
            Shape::StartFirst(key) => {
                let (start, rest) = bytes.split_first_chunk::<8>()?;
                Some(
                    json!({"start_ms": i64::from_be_bytes(*start), "key": key.read(rest).unwrap_or_else(|| hex(rest).into())}),
                )
            }
            Shape::StartLast(key) => {
                let (rest, start) = bytes.split_last_chunk::<8>()?;
                Some(
                    json!({"key": key.read(rest).unwrap_or_else(|| hex(rest).into()), "start_ms": i64::from_be_bytes(*start)}),
                )
            }
            Shape::Timer => {
                let (time, tag) = bytes.split_first_chunk::<8>()?;
                Some(json!({"time_ms": i64::from_be_bytes(*time), "tag": hex(tag)}))
            }
            Shape::Bytes => None,
        }
    }

    /// The bytes of a value, as [`Shape::read`] answers it.
    ///
    /// # Errors
    /// What would have been right.
    pub fn encode(&self, value: &Value) -> Result<Vec<u8>, String> {
        let wrong = |what: &str| format!("{value} is not {what}");
        let window = |key: &Shape| {
            let start = value["start_ms"]
                .as_i64()
                .ok_or_else(|| wrong("{\"start_ms\": …, \"key\": …}"))?;
            Ok::<_, String>((start.to_be_bytes(), key.encode(&value["key"])?))
        };
        match self {
            Shape::Utf8 => value
                .as_str()
                .map(|text| text.as_bytes().to_vec())
                .ok_or_else(|| wrong("text")),
            Shape::I64 => value
                .as_i64()
                .map(|number| number.to_be_bytes().to_vec())
                .ok_or_else(|| wrong("a 64-bit integer")),
            Shape::I32 => {
                let number = value.as_i64().and_then(|number| i32::try_from(number).ok());
                number
                    .map(|number| number.to_be_bytes().to_vec())
                    .ok_or_else(|| wrong("a 32-bit integer"))
            }
            Shape::Json => serde_json::to_vec(value).map_err(|error| error.to_string()),
            Shape::StartFirst(key) => window(key).map(|(start, key)| [&start[..], &key].concat()),
            Shape::StartLast(key) => window(key).map(|(start, key)| [&key[..], &start].concat()),
            Shape::Timer | Shape::Bytes => {
                Err("its codec is not known here: give its bytes in hexadecimal digits".to_owned())
            }
        }
    }

    /// The bytes of a key that somebody has typed: as its codec writes it, `<start in ms>/<key>` for a windowed one, or `0x` and its bytes in
    /// hexadecimal digits.
    ///
    /// # Errors
    /// What would have been right.
    pub fn write(&self, text: &str) -> Result<Vec<u8>, String> {
        if let Some(digits) = text.strip_prefix("0x") {
            return unhex(digits)
                .ok_or_else(|| format!("{text:?} is not an even number of hexadecimal digits after 0x"));
        }
        let windowed = |key: &Shape| {
            let (start, text) = text
                .split_once('/')
                .ok_or("expected <start in ms>/<key>, or 0x and its bytes")?;
            let start: i64 = start
                .parse()
                .map_err(|_| format!("{start:?} is not the start of a window in ms"))?;
            Ok::<_, String>((start.to_be_bytes(), key.write(text)?))
        };
        match self {
            Shape::Utf8 => Ok(text.as_bytes().to_vec()),
            Shape::I64 => text
                .parse::<i64>()
                .map(|number| number.to_be_bytes().to_vec())
                .map_err(|_| not_a("64-bit integer", text)),
            Shape::I32 => text
                .parse::<i32>()
                .map(|number| number.to_be_bytes().to_vec())
                .map_err(|_| not_a("32-bit integer", text)),
            Shape::StartFirst(key) => windowed(key).map(|(start, key)| [&start[..], &key].concat()),
            Shape::StartLast(key) => windowed(key).map(|(start, key)| [&key[..], &start].concat()),
            Shape::Json | Shape::Timer | Shape::Bytes => Err(not_a("key that its codec says how to write", text)),
        }
    }
}

fn not_a(what: &str, text: &str) -> String {
    format!("{text:?} is not a {what}; it can be given as 0x and its bytes in hexadecimal digits")
}

/// How the rows of a store are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreShape {
    /// Keys.
    pub key: Shape,
    /// Values, after the time that a row begins with.
    pub value: Shape,
    /// Whether a value begins with the time of its last change.
    pub has_time: bool,
}

/// A row as far as it can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The key.
    pub key: Option<Value>,
    /// The time of its last change, in milliseconds since the Unix epoch.
    pub time_ms: Option<i64>,
    /// The value.
    pub value: Option<Value>,
}

impl StoreShape {
    /// What the codecs of a store say, as a manifest has them.
    pub fn of(codecs: &str) -> Self {
        match codecs.split_once(" -> row of ") {
            Some((key, value)) => Self {
                key: Shape::of(key),
                value: Shape::of(value),
                has_time: true,
            },
            None => Self {
                key: if codecs == "timers" { Shape::Timer } else { Shape::Bytes },
                value: Shape::Bytes,
                has_time: false,
            },
        }
    }

    /// Reads a row.
    pub fn read(&self, key: &[u8], value: &[u8]) -> Reading {
        let key = self.key.read(key);
        match value.split_first_chunk::<8>() {
            // The clock of a window store is no row: its key is no window.
            Some((time, rest)) if self.has_time && (key.is_some() || self.key == Shape::Bytes) => Reading {
                key,
                time_ms: Some(i64::from_be_bytes(*time)),
                value: self.value.read(rest),
            },
            _ => Reading {
                key,
                ..Reading::default()
            },
        }
    }
}

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes of hexadecimal digits; `None` for anything else.
pub fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let digit = |digit: u8| (digit as char).to_digit(16);
    let pairs = digits
        .chunks(2)
        .map(|pair| Some((digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?) as u8));
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_their_codecs_say_and_keys_are_written_the_same_way() {
        let counts = StoreShape::of("utf8 -> row of i64-be");
        let row = [&1_000_i64.to_be_bytes()[..], &7_i64.to_be_bytes()].concat();
        let read = counts.read(b"w1", &row);
        assert_eq!(
            (read.key, read.time_ms, read.value),
            (Some("w1".into()), Some(1_000), Some(7.into()))
        );
        let windows = StoreShape::of("start-first(utf8, 60000 ms) -> row of json");
        let key = windows.key.write("60000/JFK").expect("a windowed key");
        let json = [&5_i64.to_be_bytes()[..], br#"{"late":2}"#].concat();
        let read = windows.read(&key, &json);
        assert_eq!(read.key, Some(json!({"start_ms": 60_000, "key": "JFK"})));
        assert_eq!(read.value, Some(json!({"late": 2})));
        // The operator's clock.
        assert_eq!(windows.read(&[0xff], &[0; 16]), Reading::default());
        let nested = Shape::of("time-windowed(start-first(i32-be, 5 ms), 10 ms)");
        assert_eq!(
            nested,
            Shape::StartLast(Box::new(Shape::StartFirst(Box::new(Shape::I32))))
        );
        assert_eq!(
            StoreShape::of("timers").read(&[0; 9], &[1]).key,
            Some(json!({"time_ms": 0, "tag": "00"}))
        );
    }

    #[test]
    fn what_a_row_is_read_as_is_written_the_same_way() {
        for (codec, bytes) in [
            ("utf8", &b"ebb"[..]),
            ("i64-be", &7_i64.to_be_bytes()),
            ("i32-be", &[0, 0, 1, 2]),
            ("json", br#"{"late":2}"#),
            ("start-first(utf8, 5 ms)", b"\0\0\0\0\0\0\0\x05ebb"),
            ("time-windowed(utf8, 5 ms)", b"ebb\0\0\0\0\0\0\0\x05"),
        ] {
            let shape = Shape::of(codec);
            let value = shape.read(bytes).expect("it is what the codec writes");
            assert_eq!(shape.encode(&value).as_deref(), Ok(bytes), "{codec}");
        }
        assert!(Shape::Bytes.encode(&json!(1)).is_err() && Shape::Utf8.encode(&json!(1)).is_err());
    }

    #[test]
    fn bytes_of_codecs_that_are_not_known_stay_bytes_and_keys_can_be_given_as_such() {
        let own = StoreShape::of("avro(7) -> row of avro(8)");
        assert_eq!((own.key.clone(), own.read(b"a", &[0; 9]).value), (Shape::Bytes, None));
        assert_eq!(own.key.write("0x00ff"), Ok(vec![0, 0xff]));
        assert!(own.key.write("text").is_err_and(|reason| reason.contains("0x")));
        for wrong in ["0x0", "0xzz", "0x+f"] {
            assert!(Shape::Utf8.write(wrong).is_err(), "{wrong}");
        }
        assert!(Shape::I64.write("x").is_err() && Shape::StartFirst(Box::new(Shape::Utf8)).write("k").is_err());
        assert_eq!(unhex(&hex(&[0, 0xab, 0xff])), Some(vec![0, 0xab, 0xff]));
    }
}
