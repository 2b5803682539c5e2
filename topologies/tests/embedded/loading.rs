//! What the loader writes.

use std::sync::Arc;

use tidegate::errors::Coded;
use tidegate::log::Log;
use tidegate::log::embedded::EmbeddedLog;
use tidegate::time::SystemClock;
use tidegate_topologies::flights::{CHUNK_RECORDS, Dataset, LoadOptions, create_topics, load, topics};

use crate::{evaluator, records};

/// A row as it lies in a topic: timestamp, key, JSON.
fn read_rows(log: &dyn Log, topic: &str, partition: i32) -> Vec<(i64, String, serde_json::Value)> {
    let records = records::read(log, topic, partition).into_iter();
    let row = |record: records::Entry| {
        let value = serde_json::from_slice(&record.value).expect("JSON");
        (record.timestamp_ms, record.key.expect("a key"), value)
    };
    records.map(row).collect()
}

#[test]
fn flights_are_written_in_order_of_their_schedule_at_the_time_they_departed() {
    let log = EmbeddedLog::new(Arc::new(SystemClock::default()));
    let data = Dataset::sample().expect("the sample is sound");
    let options = LoadOptions {
        partitions: 3,
        ..LoadOptions::default()
    };
    create_topics(&*log, &options).expect("topics are made");
    let mut progress = Vec::new();
    load(&*log, &data, &options, &mut |written| progress.push(written)).expect("the sample is loaded");
    assert_eq!(progress.last(), Some(&(data.flights.len() + data.planes.len())));
    assert!(progress.is_sorted() && progress.len() > data.flights.len() / CHUNK_RECORDS);

    let mut planes = 0;
    let mut flights = 0;
    for partition in 0..3 {
        for (timestamp_ms, key, value) in read_rows(&*log, topics::PLANES, partition) {
            assert_eq!((timestamp_ms, value["tailnum"].as_str()), (0, Some(&*key)));
            assert_eq!(evaluator::partition_of(&key, 3), partition as usize);
            planes += 1;
        }
        let mut last_scheduled = (String::new(), 0);
        for (timestamp_ms, key, value) in read_rows(&*log, topics::FLIGHTS, partition) {
            assert_eq!(value["origin"].as_str(), Some(&*key));
            assert_eq!(evaluator::partition_of(&key, 3), partition as usize);
            let hour = value["time_hour"].as_str().expect("a time").to_owned();
            let minute = value["minute"].as_i64().expect("a number");
            let delay = value["dep_delay"].as_i64();
            assert_eq!(delay.is_none(), value["dep_time"].is_null());
            // Whole minutes: the timestamp is the scheduled minute and the delay, within the hour.
            assert_eq!((timestamp_ms / 60_000 - delay.unwrap_or(0)) % 60, minute);
            assert!(last_scheduled <= (hour.clone(), minute));
            last_scheduled = (hour, minute);
            flights += 1;
        }
    }
    assert_eq!((planes, flights), (data.planes.len(), data.flights.len()));
}

#[test]
fn a_data_set_is_not_loaded_twice_nor_into_topics_of_another_size() {
    let log = EmbeddedLog::new(Arc::new(SystemClock::default()));
    let mut data = Dataset::sample().expect("the sample is sound");
    data.flights.truncate(10);
    data.planes.truncate(10);
    let options = LoadOptions::default();
    create_topics(&*log, &options).expect("topics are made");
    load(&*log, &data, &options, &mut |_| {}).expect("it is loaded");
    let again = load(&*log, &data, &options, &mut |_| {}).expect_err("it is there already");
    assert_eq!(again.code(), "TG5104");
    let other = LoadOptions {
        partitions: 2,
        ..options
    };
    let other = create_topics(&*log, &other).expect_err("the topics have one partition");
    assert_eq!(other.code(), "TG5105");
}
