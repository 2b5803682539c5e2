//! What the flights topology must say, worked out with plain loops over the CSV.
//!
//! Nothing here comes from the engine, from a topology or from a stream library: the rows are split by hand, and
//! partitions, windows and lateness are computed from their definitions. So an error is not made twice.
//!
//! # Lateness
//!
//! A departure belongs to the hour of its event time. An hour is closed for a departure when its end is not after
//! *observed time − grace*, and observed time is the latest event time that **the windowed operator of this
//! task** has seen, this departure included. Three things follow, as in Kafka Streams:
//!
//! - Each partition of the flights topic has an observed time of its own, so the number of partitions changes which
//!   flights are late. Within a partition the order is that of the schedule, whatever runs it.
//! - Cancelled flights are filtered out before the operator. They move the time of the task, not that of the operator.
//! - An hour comes out when it closes, once, if a flight was counted in it; hours still open when the input ends do not come out.
//!
//! `carriers` and `manufacturers` have no windows: neither partitions nor grace change their last values.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;

/// One hour of one airport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hour {
    /// Number of departures.
    pub count: u64,
    /// Sum of their delays in minutes.
    pub sum_dep_delay: i64,
    /// Largest of their delays in minutes.
    pub max_dep_delay: i64,
}

/// All flights of one airline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carrier {
    /// Number of flights.
    pub flights: u64,
    /// How many did not depart.
    pub cancelled: u64,
    /// Sum of the known arrival delays in minutes.
    pub sum_arr_delay: i64,
    /// Latest event time of them, in milliseconds since the Unix epoch.
    pub latest_ms: i64,
}

/// All flights with aircraft of one manufacturer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manufacturer {
    /// Number of flights.
    pub flights: u64,
    /// Latest event time of them, in milliseconds since the Unix epoch.
    pub latest_ms: i64,
}

/// What must have been committed when all input is consumed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Every closed hour, by origin and start in milliseconds since the Unix epoch.
    pub departures: BTreeMap<(String, i64), Hour>,
    /// The last value of every carrier.
    pub carriers: BTreeMap<String, Carrier>,
    /// The last value of every manufacturer.
    pub manufacturers: BTreeMap<String, Manufacturer>,
    /// Departures that came after their hour had closed.
    pub late: u64,
    /// Rows of the flights file.
    pub flights: u64,
    /// Rows of the planes file.
    pub planes: u64,
}

/// Evaluates the files `flights.csv` and `planes.csv`, plain or with `.gz`, of `directory`.
///
/// # Errors
/// A sentence that names the file and the line, where a file is not what it should be.
pub fn evaluate(directory: &Path, partitions: u32, grace_ms: i64) -> Result<Expected, String> {
    let (mut flights, manufacturer_of) = (read_flights(directory)?, read_planes(directory)?);
    flights.sort_by(|a, b| (a.scheduled_ms, &a.carrier, a.number).cmp(&(b.scheduled_ms, &b.carrier, b.number)));
    let mut expected = Expected {
        flights: flights.len() as u64,
        planes: manufacturer_of.len() as u64,
        ..Expected::default()
    };
    count_departures(&flights, partitions, grace_ms, &mut expected);
    for flight in &flights {
        let carrier = expected.carriers.entry(flight.carrier.clone()).or_default();
        carrier.flights += 1;
        carrier.cancelled += u64::from(flight.dep_delay.is_none());
        carrier.sum_arr_delay += flight.arr_delay.unwrap_or(0);
        carrier.latest_ms = flight.event_time_ms().max(carrier.latest_ms);
        if let Some(tail_number) = &flight.tail_number {
            let name = manufacturer_of.get(tail_number).map_or("unknown", String::as_str);
            let manufacturer = expected.manufacturers.entry(name.to_owned()).or_default();
            manufacturer.flights += 1;
            manufacturer.latest_ms = flight.event_time_ms().max(manufacturer.latest_ms);
        }
    }
    Ok(expected)
}

fn count_departures(flights: &[FlightRow], partitions: u32, grace_ms: i64, expected: &mut Expected) {
    let mut observed_ms = vec![i64::MIN; partitions as usize];
    let mut hours: BTreeMap<(String, i64), Hour> = BTreeMap::new();
    for flight in flights {
        let Some(delay) = flight.dep_delay else {
            continue;
        };
        let departed_ms = flight.event_time_ms();
        let observed_ms = &mut observed_ms[partition_of(&flight.origin, partitions)];
        *observed_ms = departed_ms.max(*observed_ms);
        let start = departed_ms - departed_ms.rem_euclid(HOUR_MS);
        if start + HOUR_MS <= *observed_ms - grace_ms {
            expected.late += 1;
            continue;
        }
        let hour = hours.entry((flight.origin.clone(), start)).or_insert(Hour {
            count: 0,
            sum_dep_delay: 0,
            max_dep_delay: delay,
        });
        hour.count += 1;
        hour.sum_dep_delay += delay;
        hour.max_dep_delay = hour.max_dep_delay.max(delay);
    }
    hours.retain(|(origin, start), _| start + HOUR_MS <= observed_ms[partition_of(origin, partitions)] - grace_ms);
    expected.departures = hours;
}

// ---------------------------------------------------------------------------------------------- rows

struct FlightRow {
    scheduled_ms: i64,
    carrier: String,
    number: i64,
    origin: String,
    tail_number: Option<String>,
    dep_delay: Option<i64>,
    arr_delay: Option<i64>,
}

impl FlightRow {
    fn event_time_ms(&self) -> i64 {
        self.scheduled_ms + self.dep_delay.unwrap_or(0) * MINUTE_MS
    }
}

fn read_flights(directory: &Path) -> Result<Vec<FlightRow>, String> {
    let names = [
        "time_hour",
        "minute",
        "carrier",
        "flight",
        "origin",
        "tailnum",
        "dep_delay",
        "arr_delay",
    ];
    let mut rows = Vec::new();
    for_each_row(
        directory,
        "flights",
        names,
        |[hour, minute, carrier, number, origin, tail, dep, arr]| {
            rows.push(FlightRow {
                scheduled_ms: utc_ms(hour)? + whole(minute)?.ok_or("minute is NA")? * MINUTE_MS,
                carrier: carrier.to_owned(),
                number: whole(number)?.ok_or("flight is NA")?,
                origin: origin.to_owned(),
                tail_number: (tail != "NA").then(|| tail.to_owned()),
                dep_delay: whole(dep)?,
                arr_delay: whole(arr)?,
            });
            Ok(())
        },
    )?;
    Ok(rows)
}

fn read_planes(directory: &Path) -> Result<BTreeMap<String, String>, String> {
    let mut manufacturer_of = BTreeMap::new();
    for_each_row(
        directory,
        "planes",
        ["tailnum", "manufacturer"],
        |[tail, manufacturer]| {
            let manufacturer = if manufacturer == "NA" { "unknown" } else { manufacturer };
            manufacturer_of.insert(tail.to_owned(), manufacturer.to_owned());
            Ok(())
        },
    )?;
    Ok(manufacturer_of)
}

/// Calls `take` with the named columns of every row.
fn for_each_row<const N: usize>(
    directory: &Path,
    name: &str,
    columns: [&str; N],
    mut take: impl FnMut([&str; N]) -> Result<(), String>,
) -> Result<(), String> {
    let plain = directory.join(format!("{name}.csv"));
    let gzip = directory.join(format!("{name}.csv.gz"));
    let path = if gzip.exists() { gzip } else { plain };
    let at = |line: usize, reason: String| format!("{}, line {line}: {reason}", path.display());
    let file = File::open(&path).map_err(|error| at(0, error.to_string()))?;
    let bytes: Box<dyn Read> = match path.extension().is_some_and(|extension| extension == "gz") {
        true => Box::new(flate2::read::MultiGzDecoder::new(file)),
        false => Box::new(file),
    };
    let mut indices = [0; N];
    for (line, text) in BufReader::new(bytes).lines().enumerate() {
        let text = text.map_err(|error| at(line + 1, error.to_string()))?;
        if text.contains('"') {
            return Err(at(
                line + 1,
                "quoted fields are not expected in this data set".to_owned(),
            ));
        }
        let fields: Vec<&str> = text.trim_end_matches('\r').split(',').collect();
        if line == 0 {
            for (index, column) in indices.iter_mut().zip(columns) {
                let found = fields.iter().position(|field| *field == column);
                *index = found.ok_or_else(|| at(1, format!("there is no column {column}")))?;
            }
            continue;
        }
        let mut row = [""; N];
        for (field, index) in row.iter_mut().zip(indices) {
            *field = fields
                .get(index)
                .ok_or_else(|| at(line + 1, "the row is too short".to_owned()))?;
        }
        take(row).map_err(|reason| at(line + 1, reason))?;
    }
    Ok(())
}

fn whole(text: &str) -> Result<Option<i64>, String> {
    match text {
        "NA" => Ok(None),
        _ => text.parse().map(Some).map_err(|error| format!("{text:?}: {error}")),
    }
}

/// Milliseconds since the Unix epoch of a time like `2013-01-01T10:00:00Z`, by counting the days one by one.
fn utc_ms(text: &str) -> Result<i64, String> {
    let numbers: Vec<i64> = text
        .split(['-', 'T', ':', 'Z'])
        .filter_map(|part| part.parse().ok())
        .collect();
    let &[year, month, day, hour, minute, second] = &numbers[..] else {
        return Err(format!("{text:?} is not a time like 2013-01-01T10:00:00Z"));
    };
    if !(1970..3000).contains(&year) || !(1..=12).contains(&month) {
        return Err(format!("{text:?} is not between 1970 and 3000"));
    }
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let february = if is_leap(year) { 29 } else { 28 };
    let month_days = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut days = day - 1;
    days += (1970..year)
        .map(|year| if is_leap(year) { 366 } else { 365 })
        .sum::<i64>();
    days += month_days[..month as usize - 1].iter().sum::<i64>();
    Ok((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000)
}

// ---------------------------------------------------------------------------------------------- partitions

/// The partition that a Java producer gives to a key.
pub fn partition_of(key: &str, partitions: u32) -> usize {
    (murmur2(key.as_bytes()) & 0x7fff_ffff) as usize % partitions as usize
}

/// MurmurHash2, 32 bits, with the seed of Kafka's Java client.
fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ bytes.len() as u32;
    let mut position = 0;
    while position + 4 <= bytes.len() {
        let mut block = 0;
        for index in (0..4).rev() {
            block = block << 8 | u32::from(bytes[position + index]);
        }
        block = block.wrapping_mul(M);
        block = (block ^ block >> 24).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ block;
        position += 4;
    }
    if position < bytes.len() {
        for (index, byte) in bytes[position..].iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../topologies/data")
    }

    /// Values of Kafka's own test of its partitioner.
    #[test]
    fn murmur2_is_kafkas() {
        assert_eq!(murmur2(b"21") as i32, -973_932_308);
        assert_eq!(murmur2(b"foobar") as i32, -790_332_482);
        assert_eq!(murmur2(b"a-little-bit-long-string") as i32, -985_981_536);
        assert_eq!(murmur2(b"abc") as i32, 479_470_107);
    }

    #[test]
    fn times_are_counted_in_utc() {
        assert_eq!(utc_ms("1970-01-01T00:00:00Z"), Ok(0));
        assert_eq!(utc_ms("2013-01-01T10:00:00Z"), Ok(1_357_034_400_000));
        assert_eq!(utc_ms("2024-03-01T00:00:00Z"), Ok(1_709_251_200_000));
        assert!(utc_ms("yesterday").is_err());
    }

    #[test]
    fn with_a_day_of_grace_no_flight_of_the_sample_is_late_and_with_two_hours_many_are() {
        let day = evaluate(&sample(), 1, 24 * HOUR_MS).expect("the sample is sound");
        assert_eq!((day.flights, day.planes, day.late), (27_004, 3_322, 0));
        let two_hours = evaluate(&sample(), 1, 2 * HOUR_MS).expect("the sample is sound");
        assert_eq!(two_hours.late, 10_617);
        assert_eq!(day.carriers, two_hours.carriers);
        assert_eq!(day.manufacturers, two_hours.manufacturers);
    }

    #[test]
    fn every_flight_of_the_sample_is_in_one_total_of_each_output() {
        let expected = evaluate(&sample(), 3, 0).expect("the sample is sound");
        let departed: u64 = expected.departures.values().map(|hour| hour.count).sum();
        let cancelled: u64 = expected.carriers.values().map(|carrier| carrier.cancelled).sum();
        let flights: u64 = expected.carriers.values().map(|carrier| carrier.flights).sum();
        assert_eq!(flights, expected.flights);
        // The last hour of each partition is still open; without grace all others are closed.
        let open = expected.flights - departed - cancelled - expected.late;
        assert!(open > 0 && open < 100, "{open} departures are in open hours");
        let with_tail_number: u64 = expected
            .manufacturers
            .values()
            .map(|manufacturer| manufacturer.flights)
            .sum();
        assert!(with_tail_number < expected.flights, "some have no tail number");
    }
}
