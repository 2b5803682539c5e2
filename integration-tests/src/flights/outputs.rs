//! What the topology committed, compared with what it must say.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::evaluator::{Carrier, Expected, Hour, Manufacturer, partition_of};

const HOUR_MS: i64 = 3_600_000;

/// A record as a `read_committed` consumer got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Partition of the output topic.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// Timestamp in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Key as text.
    pub key: String,
    /// Value as text.
    pub value: String,
}

/// All records of the three outputs, in order of offsets within each partition.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// Of topic `departures`.
    pub departures: Vec<Committed>,
    /// Of topic `carriers`.
    pub carriers: Vec<Committed>,
    /// Of topic `manufacturers`.
    pub manufacturers: Vec<Committed>,
}

/// The values as the issue of the topology specifies them, in this order of fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeparturesValue {
    origin: String,
    window_start_ms: i64,
    count: u64,
    sum_dep_delay: i64,
    max_dep_delay: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CarrierValue {
    carrier: String,
    flights: u64,
    cancelled: u64,
    sum_arr_delay: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManufacturerValue {
    manufacturer: String,
    flights: u64,
}

/// Everything in which the outputs differ from what is expected, one sentence each; empty if nothing does.
pub fn differences(outputs: &Outputs, expected: &Expected, partitions: u32) -> Vec<String> {
    let mut report = Report {
        partitions,
        differences: Vec::new(),
    };
    report.departures(&outputs.departures, &expected.departures);
    report.carriers(&outputs.carriers, &expected.carriers);
    report.manufacturers(&outputs.manufacturers, &expected.manufacturers);
    report.differences
}

struct Report {
    partitions: u32,
    differences: Vec<String>,
}

impl Report {
    fn note(&mut self, topic: &str, record: &Committed, what: impl AsRef<str>) {
        self.differences.push(format!(
            "{topic}-{}@{}, key {:?}: {}",
            record.partition,
            record.offset,
            record.key,
            what.as_ref()
        ));
    }

    /// Each closed hour exactly once, hours of an airport in order of time, record time = end of the hour.
    fn departures(&mut self, records: &[Committed], expected: &BTreeMap<(String, i64), Hour>) {
        let topic = "departures";
        let mut seen: BTreeMap<(String, i64), Hour> = BTreeMap::new();
        let mut last_start: BTreeMap<String, i64> = BTreeMap::new();
        for record in records {
            let Some(value) = self.value::<DeparturesValue>(topic, record, |value| &value.origin) else {
                continue;
            };
            let start = value.window_start_ms;
            if record.timestamp_ms != start + HOUR_MS {
                self.note(
                    topic,
                    record,
                    format!(
                        "record time is {}, not the end of the hour {start}",
                        record.timestamp_ms
                    ),
                );
            }
            if last_start
                .insert(value.origin.clone(), start)
                .is_some_and(|last| last >= start)
            {
                self.note(topic, record, format!("hour {start} comes after a later one, or again"));
            }
            let hour = Hour {
                count: value.count,
                sum_dep_delay: value.sum_dep_delay,
                max_dep_delay: value.max_dep_delay,
            };
            if seen.insert((value.origin, start), hour).is_some() {
                self.note(topic, record, format!("hour {start} came out before"));
            }
        }
        self.compare(topic, &seen, expected);
    }

    /// Each update in order and exactly once: flights 1, 2, 3, …; the last one as expected.
    fn carriers(&mut self, records: &[Committed], expected: &BTreeMap<String, Carrier>) {
        let topic = "carriers";
        let mut last: BTreeMap<String, Carrier> = BTreeMap::new();
        for record in records {
            let Some(value) = self.value::<CarrierValue>(topic, record, |value| &value.carrier) else {
                continue;
            };
            let before = last.get(&record.key).cloned().unwrap_or_default();
            self.follows(topic, record, before.flights, value.flights, before.latest_ms);
            if !(before.cancelled..=before.cancelled + 1).contains(&value.cancelled) {
                self.note(
                    topic,
                    record,
                    format!("cancelled goes from {} to {}", before.cancelled, value.cancelled),
                );
            }
            let carrier = Carrier {
                flights: value.flights,
                cancelled: value.cancelled,
                sum_arr_delay: value.sum_arr_delay,
                latest_ms: record.timestamp_ms,
            };
            last.insert(value.carrier, carrier);
        }
        self.compare(topic, &last, expected);
    }

    fn manufacturers(&mut self, records: &[Committed], expected: &BTreeMap<String, Manufacturer>) {
        let topic = "manufacturers";
        let mut last: BTreeMap<String, Manufacturer> = BTreeMap::new();
        for record in records {
            let Some(value) = self.value::<ManufacturerValue>(topic, record, |value| &value.manufacturer) else {
                continue;
            };
            let before = last.get(&record.key).cloned().unwrap_or_default();
            self.follows(topic, record, before.flights, value.flights, before.latest_ms);
            let manufacturer = Manufacturer {
                flights: value.flights,
                latest_ms: record.timestamp_ms,
            };
            last.insert(value.manufacturer, manufacturer);
        }
        self.compare(topic, &last, expected);
    }

    /// Decodes a value and checks what holds of every record: fields and their order, key, partition.
    fn value<V>(&mut self, topic: &str, record: &Committed, key: impl Fn(&V) -> &String) -> Option<V>
    where
        V: Serialize + DeserializeOwned,
    {
        let value: V = match serde_json::from_str(&record.value) {
            Ok(value) => value,
            Err(error) => {
                self.note(topic, record, format!("value {:?}: {error}", record.value));
                return None;
            }
        };
        if serde_json::to_string(&value).ok().as_deref() != Some(&record.value) {
            self.note(
                topic,
                record,
                format!("value {:?} has its fields in another order", record.value),
            );
        }
        if *key(&value) != record.key {
            self.note(
                topic,
                record,
                format!("value {:?} belongs to another key", record.value),
            );
        }
        if partition_of(&record.key, self.partitions) as i32 != record.partition {
            self.note(topic, record, "the key belongs to another partition");
        }
        Some(value)
    }

    fn follows(&mut self, topic: &str, record: &Committed, before: u64, flights: u64, before_ms: i64) {
        if flights != before + 1 {
            self.note(topic, record, format!("flights go from {before} to {flights}"));
        }
        if record.timestamp_ms < before_ms {
            self.note(
                topic,
                record,
                format!("record time goes back from {before_ms} to {}", record.timestamp_ms),
            );
        }
    }

    fn compare<K: Ord + Debug, V: PartialEq + Debug>(
        &mut self,
        topic: &str,
        found: &BTreeMap<K, V>,
        expected: &BTreeMap<K, V>,
    ) {
        for (key, want) in expected {
            match found.get(key) {
                Some(value) if value == want => {}
                Some(value) => self
                    .differences
                    .push(format!("{topic}, {key:?}: {value:?}, expected {want:?}")),
                None => self
                    .differences
                    .push(format!("{topic}, {key:?}: missing, expected {want:?}")),
            }
        }
        for (key, value) in found {
            if !expected.contains_key(key) {
                self.differences
                    .push(format!("{topic}, {key:?}: {value:?}, but nothing is expected"));
            }
        }
    }
}

/// The three outputs as CSV text, by file name: the fields as header, the last value of each key, sorted.
pub fn tables(outputs: &Outputs) -> Result<Vec<(&'static str, String)>, serde_json::Error> {
    let mut departures = BTreeMap::new();
    for record in &outputs.departures {
        let value: DeparturesValue = serde_json::from_str(&record.value)?;
        let row = format!("{},{},{}", value.count, value.sum_dep_delay, value.max_dep_delay);
        departures.insert((value.origin, value.window_start_ms), row);
    }
    let mut carriers = BTreeMap::new();
    for record in &outputs.carriers {
        let value: CarrierValue = serde_json::from_str(&record.value)?;
        let row = format!("{},{},{}", value.flights, value.cancelled, value.sum_arr_delay);
        carriers.insert(value.carrier, row);
    }
    let mut manufacturers = BTreeMap::new();
    for record in &outputs.manufacturers {
        let value: ManufacturerValue = serde_json::from_str(&record.value)?;
        manufacturers.insert(value.manufacturer, value.flights);
    }
    let departures = departures
        .iter()
        .map(|((origin, start), row)| format!("{origin},{start},{row}"));
    let carriers = carriers.iter().map(|(carrier, row)| format!("{carrier},{row}"));
    let manufacturers = manufacturers.iter().map(|(name, flights)| format!("{name},{flights}"));
    Ok(vec![
        (
            "departures.csv",
            csv_text("origin,window_start_ms,count,sum_dep_delay,max_dep_delay", departures),
        ),
        (
            "carriers.csv",
            csv_text("carrier,flights,cancelled,sum_arr_delay", carriers),
        ),
        ("manufacturers.csv", csv_text("manufacturer,flights", manufacturers)),
    ])
}

fn csv_text(header: &str, rows: impl Iterator<Item = String>) -> String {
    let mut text = format!("{header}\n");
    for row in rows {
        text.push_str(&row);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, timestamp_ms: i64, value: &str) -> Committed {
        Committed {
            partition: 0,
            offset: 0,
            timestamp_ms,
            key: key.to_owned(),
            value: value.to_owned(),
        }
    }

    fn expected() -> Expected {
        let mut expected = Expected::default();
        let hour = Hour {
            count: 2,
            sum_dep_delay: -3,
            max_dep_delay: 4,
        };
        expected.departures.insert(("JFK".to_owned(), 0), hour);
        let carrier = Carrier {
            flights: 2,
            cancelled: 1,
            sum_arr_delay: 5,
            latest_ms: 70,
        };
        expected.carriers.insert("AA".to_owned(), carrier);
        let manufacturer = Manufacturer {
            flights: 1,
            latest_ms: 60,
        };
        expected.manufacturers.insert("BOEING".to_owned(), manufacturer);
        expected
    }

    fn outputs() -> Outputs {
        let departures = r#"{"origin":"JFK","window_start_ms":0,"count":2,"sum_dep_delay":-3,"max_dep_delay":4}"#;
        Outputs {
            departures: vec![record("JFK", HOUR_MS, departures)],
            carriers: vec![
                record(
                    "AA",
                    60,
                    r#"{"carrier":"AA","flights":1,"cancelled":1,"sum_arr_delay":0}"#,
                ),
                record(
                    "AA",
                    70,
                    r#"{"carrier":"AA","flights":2,"cancelled":1,"sum_arr_delay":5}"#,
                ),
            ],
            manufacturers: vec![record("BOEING", 60, r#"{"manufacturer":"BOEING","flights":1}"#)],
        }
    }

    #[test]
    fn outputs_as_expected_have_no_differences() {
        assert_eq!(differences(&outputs(), &expected(), 1), [""; 0]);
    }

    #[test]
    fn a_lost_a_repeated_and_a_wrong_record_are_each_found() {
        let mut lost = outputs();
        lost.departures.clear();
        assert_eq!(differences(&lost, &expected(), 1).len(), 1);

        let mut repeated = outputs();
        repeated.departures.push(repeated.departures[0].clone());
        repeated.carriers.push(repeated.carriers[1].clone());
        let found = differences(&repeated, &expected(), 1);
        assert!(found.iter().any(|text| text.contains("came out before")), "{found:?}");
        assert!(
            found.iter().any(|text| text.contains("flights go from 2 to 2")),
            "{found:?}"
        );

        let mut wrong = outputs();
        wrong.manufacturers[0].value = r#"{"flights":1,"manufacturer":"BOEING"}"#.to_owned();
        wrong.departures[0].timestamp_ms += 1;
        let found = differences(&wrong, &expected(), 1);
        assert!(found.iter().any(|text| text.contains("another order")), "{found:?}");
        assert!(
            found.iter().any(|text| text.contains("not the end of the hour")),
            "{found:?}"
        );
    }

    #[test]
    fn tables_have_the_fields_as_header_and_sorted_rows() {
        let tables = tables(&outputs()).expect("the values are sound");
        assert_eq!(
            tables[0].1,
            "origin,window_start_ms,count,sum_dep_delay,max_dep_delay\nJFK,0,2,-3,4\n"
        );
        assert_eq!(tables[1].1, "carrier,flights,cancelled,sum_arr_delay\nAA,2,1,5\n");
        assert_eq!(tables[2].1, "manufacturer,flights\nBOEING,1\n");
    }
}
