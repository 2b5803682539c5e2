//! The data set: two CSV files of nycflights13, read and put in the order in which the flights were due.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use csv::StringRecord;
use flate2::read::MultiGzDecoder;
use tidegate::errors::Coded;
use tidegate::time::Millis;

use super::rows::{Flight, MINUTE_MS, Plane, ScheduledFlight};

/// Most rows that a file may have: ten times a year of New York's flights. They are sorted in memory.
pub const MAX_ROWS: usize = 4_000_000;

/// Why a data set could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The file is missing, or cannot be read to its end.
    #[error("{path} cannot be read: {reason}; give a directory with flights.csv(.gz) and planes.csv(.gz)")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// A row, or the header, is not what nycflights13 has.
    #[error("{path}, line {line}: {reason}; correct or remove the row")]
    BadRow {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The file has more rows than are sorted in memory.
    #[error("{path} has more than {limit} rows; split it")]
    TooManyRows {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
}

impl Coded for DatasetError {
    fn code(&self) -> &'static str {
        match self {
            DatasetError::Unreadable { .. } => "TG5101",
            DatasetError::BadRow { .. } => "TG5102",
            DatasetError::TooManyRows { .. } => "TG5103",
        }
    }
}

/// Flights in the order in which they were due, and planes in the order of the file.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Sorted by scheduled departure, then carrier, then flight number.
    pub flights: Vec<ScheduledFlight>,
    /// The planes.
    pub planes: Vec<Plane>,
}

impl Dataset {
    /// The month that ships with Tidegate, from the binary itself.
    ///
    /// # Errors
    /// [`DatasetError::BadRow`] if the shipped files were damaged before the build.
    pub fn sample() -> Result<Self, DatasetError> {
        Self::from_sources(
            Source::shipped("flights.csv.gz", include_bytes!("../../data/flights.csv.gz")),
            Source::shipped("planes.csv.gz", include_bytes!("../../data/planes.csv.gz")),
        )
    }

    /// Reads `flights.csv.gz` or `flights.csv`, and the same of `planes`, from `directory`.
    ///
    /// # Errors
    /// All of [`DatasetError`].
    pub fn read(directory: &Path) -> Result<Self, DatasetError> {
        Self::from_sources(Source::open(directory, "flights")?, Source::open(directory, "planes")?)
    }

    fn from_sources(flights: Source<'_>, planes: Source<'_>) -> Result<Self, DatasetError> {
        let planes = planes.rows(PLANE_COLUMNS, plane)?;
        let mut flights = flights.rows(FLIGHT_COLUMNS, flight)?;
        // Stable: rows that are equal in all three keep the order of the file.
        flights.sort_by(|a, b| {
            (a.scheduled_ms, &a.flight.carrier, a.flight.flight).cmp(&(
                b.scheduled_ms,
                &b.flight.carrier,
                b.flight.flight,
            ))
        });
        Ok(Self { flights, planes })
    }
}

/// One CSV file, plain or gzip'd.
struct Source<'a> {
    path: PathBuf,
    bytes: Box<dyn Read + 'a>,
}

impl<'a> Source<'a> {
    fn shipped(name: &str, gzip: &'a [u8]) -> Self {
        Source {
            path: PathBuf::from(name),
            bytes: Box::new(MultiGzDecoder::new(gzip)),
        }
    }

    fn open(directory: &Path, name: &str) -> Result<Self, DatasetError> {
        let compressed = directory.join(format!("{name}.csv.gz"));
        let is_compressed = compressed.exists();
        let path = if is_compressed {
            compressed
        } else {
            directory.join(format!("{name}.csv"))
        };
        match File::open(&path) {
            Ok(file) if is_compressed => Ok(Source {
                path,
                bytes: Box::new(MultiGzDecoder::new(file)),
            }),
            Ok(file) => Ok(Source {
                path,
                bytes: Box::new(file),
            }),
            Err(error) => Err(DatasetError::Unreadable {
                path,
                reason: error.to_string(),
            }),
        }
    }

    fn rows<T>(self, columns: &[&str], parse: impl Fn(&Row<'_>) -> Result<T, String>) -> Result<Vec<T>, DatasetError> {
        let path = self.path;
        let mut reader = csv::Reader::from_reader(self.bytes);
        let header = reader.headers().map_err(|error| failed(&path, &error))?;
        if header != columns {
            return Err(DatasetError::BadRow {
                path,
                line: 1,
                reason: format!("the columns must be {}", columns.join(",")),
            });
        }
        let mut rows = Vec::new();
        let mut record = StringRecord::new();
        while reader.read_record(&mut record).map_err(|error| failed(&path, &error))? {
            if rows.len() == MAX_ROWS {
                return Err(DatasetError::TooManyRows { path, limit: MAX_ROWS });
            }
            let row = Row {
                columns,
                record: &record,
            };
            rows.push(parse(&row).map_err(|reason| DatasetError::BadRow {
                path: path.clone(),
                line: record.position().map_or(0, csv::Position::line),
                reason,
            })?);
        }
        Ok(rows)
    }
}

fn failed(path: &Path, error: &csv::Error) -> DatasetError {
    match error.position() {
        Some(position) => DatasetError::BadRow {
            path: path.to_owned(),
            line: position.line(),
            reason: error.to_string(),
        },
        None => DatasetError::Unreadable {
            path: path.to_owned(),
            reason: error.to_string(),
        },
    }
}

/// One row of a CSV file, read by the index of the column.
struct Row<'a> {
    columns: &'a [&'a str],
    record: &'a StringRecord,
}

impl Row<'_> {
    fn known(&self, column: usize) -> Option<&str> {
        self.record.get(column).filter(|text| *text != "NA")
    }

    fn text(&self, column: usize) -> Result<String, String> {
        let missing = || format!("{} is missing", self.columns[column]);
        self.known(column).map(str::to_owned).ok_or_else(missing)
    }

    fn number<N: FromStr>(&self, column: usize) -> Result<Option<N>, String> {
        let parse = |text: &str| {
            text.parse()
                .map_err(|_| format!("{} is {text:?}, not a whole number", self.columns[column]))
        };
        self.known(column).map(parse).transpose()
    }

    fn required<N: FromStr>(&self, column: usize) -> Result<N, String> {
        self.number(column)?
            .ok_or_else(|| format!("{} is missing", self.columns[column]))
    }
}

const FLIGHT_COLUMNS: &[&str] = &[
    "year",
    "month",
    "day",
    "dep_time",
    "sched_dep_time",
    "dep_delay",
    "arr_time",
    "sched_arr_time",
    "arr_delay",
    "carrier",
    "flight",
    "tailnum",
    "origin",
    "dest",
    "air_time",
    "distance",
    "hour",
    "minute",
    "time_hour",
];

fn flight(row: &Row<'_>) -> Result<ScheduledFlight, String> {
    let flight = Flight {
        year: row.required(0)?,
        month: row.required(1)?,
        day: row.required(2)?,
        dep_time: row.number(3)?,
        sched_dep_time: row.number(4)?,
        dep_delay: row.number(5)?,
        arr_time: row.number(6)?,
        sched_arr_time: row.number(7)?,
        arr_delay: row.number(8)?,
        carrier: row.text(9)?,
        flight: row.required(10)?,
        tailnum: row.known(11).map(str::to_owned),
        origin: row.text(12)?,
        dest: row.text(13)?,
        air_time: row.number(14)?,
        distance: row.number(15)?,
        hour: row.required(16)?,
        minute: row.required(17)?,
        time_hour: row.text(18)?,
    };
    let hour_ms = parse_utc_hour(&flight.time_hour)
        .ok_or_else(|| format!("time_hour is {:?}, not like 2013-01-01T10:00:00Z", flight.time_hour))?;
    Ok(ScheduledFlight {
        scheduled_ms: hour_ms + Millis::from(flight.minute) * MINUTE_MS,
        flight,
    })
}

const PLANE_COLUMNS: &[&str] = &[
    "tailnum",
    "year",
    "type",
    "manufacturer",
    "model",
    "engines",
    "seats",
    "speed",
    "engine",
];

fn plane(row: &Row<'_>) -> Result<Plane, String> {
    Ok(Plane {
        tailnum: row.text(0)?,
        year: row.number(1)?,
        kind: row.known(2).map(str::to_owned),
        manufacturer: row.known(3).map(str::to_owned),
        model: row.known(4).map(str::to_owned),
        engines: row.number(5)?,
        seats: row.number(6)?,
        speed: row.number(7)?,
        engine: row.known(8).map(str::to_owned),
    })
}

/// Milliseconds since the Unix epoch of a time like `2013-01-01T10:00:00Z`; `None` if it is none.
fn parse_utc_hour(text: &str) -> Option<Millis> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = fields(date, '-')?;
    let [hour, minute, second] = fields(time, ':')?;
    let in_range = (1..=9_999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..60).contains(&second);
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    in_range.then_some(seconds * 1_000)
}

fn fields(text: &str, separator: char) -> Option<[i64; 3]> {
    let mut parts = text.split(separator).map(str::parse);
    let fields = [parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?];
    parts.next().is_none().then_some(fields)
}

/// Days from 1970-01-01 in the Gregorian calendar. Years are counted from March, so that a leap day is the last day.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let shifted_month = (month + 9) % 12;
    let leap_days = shifted_year.div_euclid(4) - shifted_year.div_euclid(100) + shifted_year.div_euclid(400);
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    const DAYS_FROM_MARCH_OF_YEAR_0: i64 = 719_468;
    shifted_year * 365 + leap_days + day_of_year - DAYS_FROM_MARCH_OF_YEAR_0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_read_as_utc() {
        assert_eq!(parse_utc_hour("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse_utc_hour("2013-01-01T10:00:00Z"), Some(1_357_034_400_000));
        assert_eq!(parse_utc_hour("2024-02-29T23:00:00Z"), Some(1_709_247_600_000));
        assert_eq!(parse_utc_hour("2013-01-01 10:00:00"), None);
        assert_eq!(parse_utc_hour("2013-13-01T10:00:00Z"), None);
    }

    #[test]
    fn the_sample_is_sorted_by_schedule_then_carrier_then_number() {
        let data = Dataset::sample().expect("the sample is part of the source");
        assert_eq!(data.flights.len(), 27_004);
        assert_eq!(data.planes.len(), 3_322);
        let order = |row: &ScheduledFlight| (row.scheduled_ms, row.flight.carrier.clone(), row.flight.flight);
        assert!(data.flights.is_sorted_by_key(order));
        let cancelled = data.flights.iter().find(|row| row.flight.is_cancelled());
        let cancelled = cancelled.expect("some flights are cancelled");
        assert_eq!(cancelled.event_time_ms(), cancelled.scheduled_ms);
    }

    #[test]
    fn a_row_that_is_no_flight_is_named_by_file_and_line() {
        let text = format!(
            "{}\n{}\n",
            FLIGHT_COLUMNS.join(","),
            "2013,x".to_owned() + &",1".repeat(17)
        );
        let source = Source {
            path: "flights.csv".into(),
            bytes: Box::new(text.as_bytes()),
        };
        let error = source.rows(FLIGHT_COLUMNS, flight).expect_err("month is not a number");
        assert_eq!(error.code(), "TG5102");
        assert!(
            error.to_string().starts_with("flights.csv, line 2: month is \"x\""),
            "{error}"
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Dataset::read(Path::new("no-such-directory")).expect_err("there is no such directory");
        assert_eq!(error.code(), "TG5101");
        assert!(error.to_string().contains("flights.csv"), "{error}");
    }
}
