//! The topology: three ways to count flights.

use std::time::Duration;

use serde::Deserialize;
use tidegate::codec::{DefaultCodec, Json, Utf8, Windowed};
use tidegate::operators::{Emit, TumblingWindows};
use tidegate::record::Record;
use tidegate::time::HumanDuration;
use tidegate::topology::{Builder, Stream, Table, Topic, Topology, TopologyError};

use super::dataset::Dataset;
use super::results::{CarrierTotals, Departures, HourTotals, ManufacturerFlights};
use super::rows::{Flight, Plane};
use super::topics;

impl DefaultCodec for Flight {
    type Codec = Json<Self>;
}

impl DefaultCodec for HourTotals {
    type Codec = Json<Self>;
}

impl DefaultCodec for CarrierTotals {
    type Codec = Json<Self>;
}

/// What the topology may be told, in the table `[parameters]` of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Parameters {
    /// How long an hour of departures stays open for late flights, in event time. With the default of a day no flight
    /// of 2013 is late.
    pub grace: HumanDuration,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            grace: HumanDuration(Duration::from_secs(24 * 3_600)),
        }
    }
}

/// Builds the topology.
///
/// # Errors
/// [`TopologyError`] if the topology contradicts itself, which its tests rule out.
pub fn topology(parameters: &Parameters) -> Result<Topology, TopologyError> {
    let builder = Builder::new();
    let flights = builder.stream(&Topic::new(topics::FLIGHTS, Utf8, Json::new()));
    let planes = builder.table(&Topic::new(topics::PLANES, Utf8, Json::new()), "planes");
    departures(flights, parameters.grace);
    carriers(flights);
    manufacturers(flights, &planes);
    builder.build()
}

/// Input records that the tasks process until all of `data` is through, internal topics included: every plane once,
/// every flight as it comes and by its carrier, and those with a tail number by that and by their manufacturer.
pub fn processed_records(data: &Dataset) -> u64 {
    let with_tail_number = data.flights.iter().filter(|row| row.flight.tailnum.is_some()).count();
    (data.planes.len() + 2 * data.flights.len() + 2 * with_tail_number) as u64
}

/// Departed flights per airport and hour, once, when the hour closes.
///
/// Flights are keyed by airport already, so nothing has to be repartitioned. Cancelled flights end here and do not
/// reach the windows: they never departed, so they do not move the windows' time either.
fn departures(flights: Stream<'_, String, Flight>, grace: HumanDuration) {
    let hours = TumblingWindows::of(Duration::from_secs(3_600)).grace(grace.into());
    flights
        .flat_map_values(|flight| flight.dep_delay.map(i64::from))
        .group_by_key()
        .windowed_by(hours)
        .emit(Emit::OnClose)
        .aggregate(
            "departures-per-hour",
            HourTotals::none,
            |_, dep_delay, totals| match dep_delay {
                Some(minutes) => totals.with(minutes),
                None => totals,
            },
        )
        .to_stream()
        .flat_map(departures_of_hour)
        .to(&Topic::new(topics::DEPARTURES, Utf8, Json::new()));
}

/// The record of a closed hour; its time is the end of the hour.
fn departures_of_hour(hour: Record<Windowed<String>, HourTotals>) -> Option<Record<String, Departures>> {
    let (window, totals) = (hour.key?, hour.value?);
    let departures = Departures {
        origin: window.key.clone(),
        window_start_ms: window.start_ms,
        count: totals.count,
        sum_dep_delay: totals.sum_dep_delay,
        max_dep_delay: totals.max_dep_delay,
    };
    Some(Record::new(window.key, departures, window.end_ms))
}

/// Running totals of each airline. The new key sends the flights through a repartition topic.
fn carriers(flights: Stream<'_, String, Flight>) {
    flights
        .group_by("flights-by-carrier", |record| {
            record.value.as_ref().map(|flight| flight.carrier.clone())
        })
        .aggregate("carrier-totals", CarrierTotals::default, |_, flight, totals| {
            totals.with(&flight)
        })
        .to_stream()
        .to(&Topic::new(topics::CARRIERS, Utf8, Json::new()));
}

/// Flights per manufacturer of the aircraft. Flights without a tail number cannot be keyed by it and are left out; those
/// whose aircraft the table does not have count as `unknown`.
fn manufacturers(flights: Stream<'_, String, Flight>, planes: &Table<'_, String, Plane>) {
    flights
        .flat_map(by_tail_number)
        .left_join_table("flights-by-tail-number", planes, |(), plane| manufacturer(plane))
        .group_by("flights-by-manufacturer", |record| record.value.clone())
        .count("manufacturer-flights")
        .to_stream()
        .flat_map(flights_of_manufacturer)
        .to(&Topic::new(topics::MANUFACTURERS, Utf8, Json::new()));
}

/// A flight keyed by its aircraft. To be counted it needs no value.
fn by_tail_number(flight: Record<String, Flight>) -> Option<Record<String, ()>> {
    let tail_number = flight.value.as_ref()?.tailnum.clone()?;
    Some(flight.with_key(Some(tail_number)).with_value(Some(())))
}

fn manufacturer(plane: Option<Plane>) -> String {
    plane
        .and_then(|plane| plane.manufacturer)
        .unwrap_or_else(|| "unknown".to_owned())
}

fn flights_of_manufacturer(count: Record<String, i64>) -> Option<Record<String, ManufacturerFlights>> {
    let manufacturer = count.key.clone()?;
    let flights = count.value?;
    Some(count.with_value(Some(ManufacturerFlights { manufacturer, flights })))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn grace_is_a_day_unless_it_is_set() {
        let grace =
            |table| tidegate::topology::Parameters::try_from(table).and_then(|table| table.parse::<Parameters>());
        assert_eq!(grace(json!({})), Ok(Parameters::default()));
        let two_hours = HumanDuration(Duration::from_secs(7_200));
        assert_eq!(grace(json!({"grace": "2h"})), Ok(Parameters { grace: two_hours }));
        assert!(grace(json!({"graze": "2h"})).is_err());
    }

    #[test]
    fn only_new_keys_cross_a_topic() {
        let topology = topology(&Parameters::default()).expect("it is consistent");
        let repartitions: Vec<&str> = topology.plan().repartitions.iter().map(|topic| &*topic.name).collect();
        assert_eq!(
            repartitions,
            [
                "flights-by-carrier",
                "flights-by-tail-number",
                "flights-by-manufacturer"
            ]
        );
        assert_eq!(topology.plan().sub_topologies.len(), 4);
    }
}
