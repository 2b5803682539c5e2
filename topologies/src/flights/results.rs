//! What the topology says: the values of its three outputs, with the fields in the order in which JSON has them.

use serde::{Deserialize, Serialize};
use tidegate::time::Millis;

use super::rows::Flight;

/// Flights that departed from one airport within one hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departures {
    /// Airport of departure.
    pub origin: String,
    /// First millisecond of the hour, since the Unix epoch.
    pub window_start_ms: Millis,
    /// Number of flights.
    pub count: u64,
    /// Sum of their departure delays in minutes; early ones count negative.
    pub sum_dep_delay: i64,
    /// The largest departure delay in minutes.
    pub max_dep_delay: i64,
}

/// What is kept of an hour while it is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HourTotals {
    /// Number of flights.
    pub count: u64,
    /// Sum of their departure delays in minutes.
    pub sum_dep_delay: i64,
    /// The largest departure delay in minutes.
    pub max_dep_delay: i64,
}

impl HourTotals {
    /// An hour without flights.
    pub fn none() -> Self {
        Self {
            count: 0,
            sum_dep_delay: 0,
            max_dep_delay: i64::MIN,
        }
    }

    /// With one more flight, which departed with this delay in minutes.
    #[must_use]
    pub fn with(self, dep_delay: i64) -> Self {
        Self {
            count: self.count + 1,
            sum_dep_delay: self.sum_dep_delay + dep_delay,
            max_dep_delay: self.max_dep_delay.max(dep_delay),
        }
    }
}

/// Totals of one airline so far. Without flights it has no name yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarrierTotals {
    /// Two-letter code of the airline.
    pub carrier: String,
    /// Number of flights, cancelled ones included.
    pub flights: u64,
    /// How many of them were cancelled.
    pub cancelled: u64,
    /// Sum of the arrival delays, in minutes, of the flights that arrived where they should.
    pub sum_arr_delay: i64,
}

impl CarrierTotals {
    /// With one more flight of the airline.
    #[must_use]
    pub fn with(self, flight: &Flight) -> Self {
        Self {
            carrier: flight.carrier.clone(),
            flights: self.flights + 1,
            cancelled: self.cancelled + u64::from(flight.is_cancelled()),
            sum_arr_delay: self.sum_arr_delay + i64::from(flight.arr_delay.unwrap_or(0)),
        }
    }
}

/// Number of flights so far with aircraft of one manufacturer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManufacturerFlights {
    /// The manufacturer as the registry spells it; `unknown` where the aircraft is not in the registry.
    pub manufacturer: String,
    /// Number of flights.
    pub flights: i64,
}
