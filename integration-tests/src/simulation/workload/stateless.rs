//! Operators without state, two merged inputs, a repartition topic, and bad records that go to the dead-letter topic.

use std::collections::BTreeMap;

use tidegate::codec::{Bytes, I64Be, Utf8};
use tidegate::instance::InstanceSettings;
use tidegate::operators::OnError;
use tidegate::record::Record;
use tidegate::testkit::TestCluster;
use tidegate::topology::{Builder, Repartitioned, Topic, Topology};

use super::{Said, Workload, mixed};

const CHAPTER: u64 = 60;
const KEYS: i64 = 5;
const DEAD_LETTERS: &str = "dead-letters";

/// See the [module documentation](self).
pub struct Stateless {
    seed: u64,
    left: Topic<String, i64>,
    right: Topic<String, i64>,
    output: Topic<String, String>,
    dead: Topic<Vec<u8>, Vec<u8>>,
    piped: i64,
    expected: BTreeMap<String, Vec<String>>,
    bad: usize,
    said: Said<String, String>,
    said_bad: usize,
}

impl Stateless {
    /// The workload of a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            left: Topic::new("left", Utf8, I64Be),
            right: Topic::new("right", Utf8, I64Be),
            output: Topic::new("output", Utf8, Utf8),
            dead: Topic::new(DEAD_LETTERS, Bytes, Bytes),
            piped: 0,
            expected: BTreeMap::new(),
            bad: 0,
            said: Said::default(),
            said_bad: 0,
        }
    }

    /// What becomes of a record of one side.
    fn expect(&mut self, side: &str, number: i64) {
        if number % 7 == 3 {
            self.bad += 1;
        } else if number % 4 != 1 {
            let key = format!("{side}{}", number % KEYS);
            for copy in 0..1 + number % 2 {
                self.expected
                    .entry(key.clone())
                    .or_default()
                    .push(format!("{number}.{copy}"));
            }
        }
    }
}

impl Workload for Stateless {
    fn topology(&self) -> Topology {
        let builder = Builder::new();
        let side = |topic: &Topic<String, i64>, name: &'static str| {
            builder
                .stream(topic)
                .select_key(move |record| record.value.map(|number| format!("{name}{}", number % KEYS)))
        };
        let both = side(&self.left, "l").merge(side(&self.right, "r"));
        both.filter_not(|record| record.value.is_some_and(|number| number % 7 != 3 && number % 4 == 1))
            .try_map_values(|number: i64| match number % 7 {
                3 => Err(format!("{number} is bad")),
                _ => Ok(number),
            })
            .peek(|_| {})
            .map(|record| record)
            .flat_map(|record| [record])
            .map_values_with_key(|_, number| number)
            .try_filter(|record| Ok::<_, String>(record.key.is_some()))
            .flat_map_values(|number: i64| (0..1 + number % 2).map(move |copy| format!("{number}.{copy}")))
            .repartition(Repartitioned::new("again", Utf8, Utf8))
            .filter(|record| record.value.is_some())
            .to(&self.output);
        builder.build().expect("the topology is right")
    }

    fn adapt(&self, settings: &mut InstanceSettings) {
        settings.default_on_error = OnError::DeadLetter;
        settings.dead_letter_topic = Some(DEAD_LETTERS.to_owned());
    }

    fn chapter(&mut self, cluster: &mut TestCluster, _chapter: u64) {
        for _ in 0..CHAPTER {
            let number = self.piped;
            self.piped += 1;
            let mixed = mixed(self.seed, number as u64);
            let (topic, side) = match mixed % 2 {
                0 => (&self.left, "l"),
                _ => (&self.right, "r"),
            };
            // Records of one output key come by one input partition, so that their order is defined.
            let key = format!("{}", number % KEYS);
            cluster.pipe(topic, Record::new(key, number, number));
            self.expect(side, number);
        }
        cluster.settle();
        self.said.read(cluster, &self.output);
        self.said_bad += cluster.read(&self.dead).len();
        assert_eq!(self.said.0, self.expected, "after {} records", self.piped);
        assert_eq!(self.said_bad, self.bad, "dead letters after {} records", self.piped);
    }
}
