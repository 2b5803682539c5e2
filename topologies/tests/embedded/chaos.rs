//! Flights while instances crash, stand still, lose their disks and come back.

use std::collections::BTreeMap;

use tidegate::codec::{Json, Utf8};
use tidegate::record::Record;
use tidegate::testkit::TestCluster;
use tidegate::topology::Topic;
use tidegate_topologies::flights::{CarrierTotals, Dataset, Flight, Parameters, topics, topology};

#[test]
fn totals_per_carrier_survive_chaos() {
    let flights = Topic::new(topics::FLIGHTS, Utf8, Json::<Flight>::new());
    let carriers = Topic::new(topics::CARRIERS, Utf8, Json::<CarrierTotals>::new());
    let rows = Dataset::sample().expect("the shipped sample").flights;
    let topology = topology(&Parameters::default()).expect("the topology is right");
    let cluster = TestCluster::new(topology).instances(3).partitions(2);
    cluster.chaos(0..10, |cluster| {
        let mut expected: BTreeMap<String, CarrierTotals> = BTreeMap::new();
        for row in &rows[..600] {
            let totals = expected.remove(&row.flight.carrier).unwrap_or_default();
            expected.insert(row.flight.carrier.clone(), totals.with(&row.flight));
            let record = Record::new(row.flight.origin.clone(), row.flight.clone(), row.event_time_ms());
            cluster.pipe(&flights, record);
        }
        cluster.settle();
        let said = cluster.read(&carriers).into_iter();
        let last: BTreeMap<_, _> = said.filter_map(|record| Some((record.key?, record.value?))).collect();
        assert_eq!(last, expected);
    });
}
