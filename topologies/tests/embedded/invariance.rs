//! Settings never change results (invariant I15): flights under all strategies, intervals, and numbers of workers and instances.
//!
//! With one partition all output is the same, in order, and all state. With several, what comes from different partitions of a topic meets
//! in a repartition topic in an order that Kafka does not promise; then what is said last of each key is the same, and how often.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate::codec::{Json, Utf8};
use tidegate::durability::Durability;
use tidegate::invariants::settings_never_change_results;
use tidegate::record::Record;
use tidegate::testkit::TestCluster;
use tidegate::topology::Topic;
use tidegate_topologies::flights::{Dataset, Flight, Parameters, Plane, topics, topology};

const FLIGHTS: usize = 1_500;
/// Between two parts of the input so much time passes that every interval comes to its end in most of the runs.
const PART: usize = 250;
const PAUSE: Duration = Duration::from_secs(4);

/// What may differ between two runs.
#[derive(Clone, Copy, Debug)]
struct Variation {
    durability: Durability,
    commit: Duration,
    snapshots: Duration,
    workers: usize,
    instances: usize,
}

/// What must not: the committed output, per topic and key in order, and all state.
type Results = (BTreeMap<(&'static str, String), Vec<String>>, u64);

fn variations() -> Vec<Variation> {
    let millis = Duration::from_millis;
    let off = Duration::from_secs(1_000_000);
    let strategies = [
        (Durability::Changelog, vec![off]),
        (Durability::Snapshot, vec![millis(1_000), millis(10_000), off]),
        (
            Durability::ChangelogAndSnapshot,
            vec![millis(1_000), millis(10_000), off],
        ),
    ];
    let mut variations = Vec::new();
    for (durability, intervals) in strategies {
        for snapshots in intervals {
            for commit in [10, 100, 1_000, 5_000].map(millis) {
                for (workers, instances) in [(1, 1), (2, 1), (4, 1), (2, 3)] {
                    variations.push(Variation {
                        durability,
                        commit,
                        snapshots,
                        workers,
                        instances,
                    });
                }
            }
        }
    }
    variations
}

fn run(data: &Dataset, partitions: i32, variation: Variation) -> Results {
    let flights = Topic::new(topics::FLIGHTS, Utf8, Json::<Flight>::new());
    let planes = Topic::new(topics::PLANES, Utf8, Json::<Plane>::new());
    let topology = topology(&Parameters::default()).expect("the topology is right");
    let mut cluster = TestCluster::new(topology)
        .partitions(partitions)
        .instances(variation.instances)
        .durability(variation.durability)
        .settings(|settings| {
            settings.workers = variation.workers;
            settings.commit_interval = variation.commit;
            settings.snapshots.limits.interval = variation.snapshots;
            settings.snapshots.limits.max_objects = 1_000;
        });
    for plane in &data.planes {
        cluster.pipe(&planes, Record::new(plane.tailnum.clone(), plane.clone(), 0));
    }
    cluster.settle();
    for part in data.flights[..FLIGHTS].chunks(PART) {
        for row in part {
            let record = Record::new(row.flight.origin.clone(), row.flight.clone(), row.event_time_ms());
            cluster.pipe(&flights, record);
        }
        cluster.settle();
        cluster.advance(PAUSE);
    }
    cluster.settle();
    let mut said: BTreeMap<(&'static str, String), Vec<String>> = BTreeMap::new();
    for name in [topics::DEPARTURES, topics::CARRIERS, topics::MANUFACTURERS] {
        for record in cluster.read(&Topic::new(name, Utf8, Utf8)) {
            let key = (name, record.key.unwrap_or_default());
            said.entry(key).or_default().push(record.value.unwrap_or_default());
        }
    }
    (said, cluster.state_digest())
}

/// The first key of which something else was said.
fn difference(expected: &Results, found: &Results) -> Option<String> {
    let keys = expected.0.keys().chain(found.0.keys());
    let differs = |key: &&(&'static str, String)| expected.0.get(*key) != found.0.get(*key);
    let key = keys.into_iter().find(differs)?;
    Some(format!(
        "{key:?}: {:?}, not {:?}",
        found.0.get(key),
        expected.0.get(key)
    ))
}

fn last_words(results: &Results) -> BTreeMap<(&'static str, String), (usize, Option<&String>)> {
    let words = results.0.iter();
    words
        .map(|(key, said)| (key.clone(), (said.len(), said.last())))
        .collect()
}

#[test]
fn results_do_not_depend_on_strategy_intervals_workers_or_instances() {
    let data = Dataset::sample().expect("the shipped sample");
    let variations = variations();
    let expected = run(&data, 1, variations[0]);
    let outputs: usize = expected.0.values().map(Vec::len).sum();
    assert!(outputs > FLIGHTS && expected.1 > 0, "{outputs} outputs");
    for variation in &variations[1..] {
        let found = run(&data, 1, *variation);
        assert_eq!(difference(&expected, &found), None, "{variation:?}");
        let same_state = settings_never_change_results(expected.1, found.1);
        same_state.unwrap_or_else(|violation| panic!("{variation:?}: {violation}"));
    }
    println!(
        "{} variations: {outputs} outputs and state {:016x} in each",
        variations.len(),
        expected.1
    );
}

#[test]
fn with_several_partitions_the_last_words_do_not_depend_on_them_either() {
    let data = Dataset::sample().expect("the shipped sample");
    let variations: Vec<Variation> = variations().into_iter().step_by(5).collect();
    let expected = run(&data, 3, variations[0]);
    for variation in &variations[1..] {
        let found = run(&data, 3, *variation);
        assert!(last_words(&expected) == last_words(&found), "{variation:?}");
    }
    println!("{} variations over 3 partitions", variations.len());
}
