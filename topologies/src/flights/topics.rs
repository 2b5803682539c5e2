//! Names of the topics, and which way they go.

/// Flights: key origin, value [`super::Flight`] as JSON, event time the actual departure.
pub const FLIGHTS: &str = "flights";
/// Planes: key tail number, value [`super::Plane`] as JSON, event time 0.
pub const PLANES: &str = "planes";
/// Departed flights per origin and hour: key origin, value [`super::Departures`].
pub const DEPARTURES: &str = "departures";
/// Running totals: key carrier, value [`super::CarrierTotals`].
pub const CARRIERS: &str = "carriers";
/// Running counts: key manufacturer, value [`super::ManufacturerFlights`].
pub const MANUFACTURERS: &str = "manufacturers";

/// What the topology reads.
pub const INPUTS: [&str; 2] = [FLIGHTS, PLANES];
/// What the topology writes.
pub const OUTPUTS: [&str; 3] = [DEPARTURES, CARRIERS, MANUFACTURERS];
/// All of them.
pub const ALL: [&str; 5] = [FLIGHTS, PLANES, DEPARTURES, CARRIERS, MANUFACTURERS];
