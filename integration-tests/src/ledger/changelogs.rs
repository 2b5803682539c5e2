//! Reads the changelogs while the run goes on, since a strategy with snapshots trims them behind its bases.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::BaseConsumer;
use tidegate::time::SystemClock;

use super::epochs::Increments;
use super::kafka::{Cluster, has_reached};
use super::report::Changelogs;
use super::{LedgerError, wait};

const POLL: Duration = Duration::from_millis(50);

/// The reader's thread.
pub struct ChangelogReader {
    topics: Vec<(String, i32)>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Reader>,
}

impl ChangelogReader {
    /// Starts to read the changelogs of an application that has started.
    ///
    /// # Errors
    /// Where a changelog is not there, or the client refuses its settings.
    pub fn start(cluster: &Cluster, application: &str) -> Result<Self, LedgerError> {
        let all = cluster.topics(application)?;
        let find = |store: &str| {
            let name = format!("{application}-{store}-changelog");
            let found = all.iter().find(|(topic, _)| *topic == name).cloned();
            found.ok_or_else(|| LedgerError::Broken(format!("changelog {name} is not there")))
        };
        let topics: Result<Vec<_>, _> = tidegate_topologies::ledger::STORES.into_iter().map(find).collect();
        let topics = topics?;
        let named: Vec<_> = topics
            .iter()
            .map(|(name, partitions)| (name.as_str(), *partitions))
            .collect();
        let mut reader = Reader {
            consumer: cluster.reader_of("read_committed", &named)?,
            increments: BTreeMap::new(),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("changelog-reader".to_owned())
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    reader.read();
                }
                reader
            })
            .map_err(|error| LedgerError::io("start the reader of the changelogs", error))?;
        Ok(Self { topics, stop, thread })
    }

    /// Reads up to the ends, given that nothing writes any more.
    ///
    /// # Errors
    /// Where the ends are not reached within `patience`.
    pub fn finish(self, cluster: &Cluster, patience: Duration, clock: &SystemClock) -> Result<Changelogs, LedgerError> {
        self.stop.store(true, Ordering::Relaxed);
        let panicked = |_| LedgerError::Broken("the reader of the changelogs panicked".to_owned());
        let mut reader = self.thread.join().map_err(panicked)?;
        let mut ends = Vec::new();
        for (topic, partitions) in &self.topics {
            ends.push((topic.clone(), cluster.ends(topic, *partitions)?));
        }
        wait::until(clock, patience, "the ends of the changelogs", || {
            reader.read();
            has_reached(&reader.consumer, &ends)
        })?;
        let mut take = |(topic, partitions): &(String, i32)| {
            let mut of = |partition| reader.increments.remove(&(topic.clone(), partition));
            (0..*partitions)
                .map(|partition| of(partition).unwrap_or_default())
                .collect()
        };
        Ok(self.topics.iter().map(&mut take).collect())
    }
}

struct Reader {
    consumer: BaseConsumer,
    increments: BTreeMap<(String, i32), Increments>,
}

impl Reader {
    /// Takes what is there, waiting a moment for the first record. Errors of the connection pass.
    fn read(&mut self) {
        let mut patience = POLL;
        while let Some(polled) = self.consumer.poll(patience) {
            patience = Duration::ZERO;
            let Ok(message) = polled else { continue };
            let timestamp_ms = message.timestamp().to_millis().unwrap_or(-1);
            let partition = (message.topic().to_owned(), message.partition());
            let increments = self.increments.entry(partition).or_default();
            increments.observe(message.offset(), timestamp_ms);
        }
    }
}
