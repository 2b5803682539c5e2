//! Flights while instances crash, stand still and come back.

use std::collections::BTreeMap;

use tidegate::codec::{Json, Utf8};
use tidegate::record::Record;
use tidegate::testkit::TestCluster;
use tidegate::topology::Topic;
use tidegate_topologies::flights::{CarrierTotals, Dataset, Flight, Parameters, topics, topology};

const FLIGHTS: usize = 600;

#[test]
fn totals_per_carrier_survive_chaos() {
    let data = Dataset::sample().expect("the shipped sample");
    let flights = Topic::new(topics::FLIGHTS, Utf8, Json::<Flight>::new());
    let carriers = Topic::new(topics::CARRIERS, Utf8, Json::<CarrierTotals>::new());
    let mut expected: BTreeMap<String, CarrierTotals> = BTreeMap::new();
    for row in &data.flights[..FLIGHTS] {
        let totals = expected.remove(&row.flight.carrier).unwrap_or_default();
        expected.insert(row.flight.carrier.clone(), totals.with(&row.flight));
    }
    let topology = topology(&Parameters::default()).expect("the topology is right");
    TestCluster::new(topology)
        .instances(3)
        .partitions(2)
        .chaos(0..10, |cluster| {
            for row in &data.flights[..FLIGHTS] {
                let record = Record::new(row.flight.origin.clone(), row.flight.clone(), row.event_time_ms());
                cluster.pipe(&flights, record);
            }
            cluster.settle();
            let said = cluster.read(&carriers).into_iter();
            let last: BTreeMap<String, CarrierTotals> =
                said.filter_map(|record| Some((record.key?, record.value?))).collect();
            assert_eq!(last.values().map(|totals| totals.flights).sum::<u64>(), FLIGHTS as u64);
            assert_eq!(last.len(), expected.len());
            for (carrier, totals) in &last {
                let wanted = &expected[carrier];
                assert_eq!(
                    (totals.flights, totals.cancelled, totals.sum_arr_delay),
                    (wanted.flights, wanted.cancelled, wanted.sum_arr_delay),
                    "{carrier}"
                );
            }
        });
}
