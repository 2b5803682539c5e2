//! The rows that the topology reads: flights and planes.

use serde::{Deserialize, Serialize};
use tidegate::time::Millis;

/// One scheduled flight. What the source does not know (`NA` in the CSV) is `None`, and `null` in JSON.
///
/// The fields are in the order of the CSV's columns, and so in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flight {
    /// Year of the scheduled departure, local time.
    pub year: i32,
    /// Month of the scheduled departure, local time.
    pub month: i32,
    /// Day of the scheduled departure, local time.
    pub day: i32,
    /// Actual departure as the number `hmm` or `hhmm`, local time.
    pub dep_time: Option<i32>,
    /// Scheduled departure as the number `hmm` or `hhmm`, local time.
    pub sched_dep_time: Option<i32>,
    /// Departure delay in minutes, negative when early; `None` for a cancelled flight.
    pub dep_delay: Option<i32>,
    /// Actual arrival as the number `hmm` or `hhmm`, local time.
    pub arr_time: Option<i32>,
    /// Scheduled arrival as the number `hmm` or `hhmm`, local time.
    pub sched_arr_time: Option<i32>,
    /// Arrival delay in minutes, negative when early; `None` for a cancelled or diverted flight.
    pub arr_delay: Option<i32>,
    /// Two-letter code of the airline.
    pub carrier: String,
    /// Flight number.
    pub flight: i32,
    /// Tail number of the aircraft.
    pub tailnum: Option<String>,
    /// Airport of departure.
    pub origin: String,
    /// Airport of destination.
    pub dest: String,
    /// Minutes in the air.
    pub air_time: Option<i32>,
    /// Miles between the airports.
    pub distance: Option<i32>,
    /// Hour of the scheduled departure, local time.
    pub hour: i32,
    /// Minute of the scheduled departure.
    pub minute: i32,
    /// Hour of the scheduled departure in UTC, for example `2013-01-01T10:00:00Z`.
    pub time_hour: String,
}

impl Flight {
    /// Whether the flight never left.
    pub fn is_cancelled(&self) -> bool {
        self.dep_delay.is_none()
    }
}

/// One aircraft. What the registry does not know is `None`, and `null` in JSON.
///
/// The fields are in the order of the CSV's columns, and so in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plane {
    /// Tail number.
    pub tailnum: String,
    /// Year of manufacture.
    pub year: Option<i32>,
    /// Kind of aircraft, for example `Fixed wing multi engine`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Manufacturer, as the registry spells it.
    pub manufacturer: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// Number of engines.
    pub engines: Option<i32>,
    /// Number of seats.
    pub seats: Option<i32>,
    /// Cruising speed in miles per hour.
    pub speed: Option<i32>,
    /// Kind of engine.
    pub engine: Option<String>,
}

/// A flight with the two times that order it: when it should have left and when it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledFlight {
    /// Scheduled departure in milliseconds since the Unix epoch.
    pub scheduled_ms: Millis,
    /// The row.
    pub flight: Flight,
}

impl ScheduledFlight {
    /// Event time of the flight: its actual departure, or the scheduled one where it was cancelled.
    pub fn event_time_ms(&self) -> Millis {
        self.scheduled_ms + Millis::from(self.flight.dep_delay.unwrap_or(0)) * MINUTE_MS
    }
}

pub(super) const MINUTE_MS: Millis = 60_000;
