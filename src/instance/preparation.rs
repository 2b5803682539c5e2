//! What has to be right before an instance joins: topics, their numbers and settings, the plan.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::durability::snapshot::{RECORD_MAX_BYTES, spill_topic_spec};
use crate::durability::{Durability, PLAN_KEY, changelog};
use crate::ids::TopicPartition;
use crate::log::{Admin, Assignment, Commit, Isolation, Log, LogError, OutBatch, TopicInfo, TopicSpec};
use crate::time::Clock;
use crate::topology::{PartitionCounts, TopicRef, Topology, diff};
use crate::worker::{StateTopics, Topics, commits_topic, committed_strategies, repartition_topic};

use super::error::InstanceError;
use super::settings::InstanceSettings;

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_BACK_OFF: Duration = Duration::from_millis(250);
const LAST_BACK_OFF: Duration = Duration::from_secs(5);
/// A topic that another instance has just created is looked for this often, with a pause each time.
const VISIBLE_ATTEMPTS: u32 = 100;
const VISIBLE_PAUSE: Duration = Duration::from_millis(100);
/// For so long a topic that somebody creates before the start may be unknown to the broker that is asked.
const MISSING_GRACE: Duration = Duration::from_secs(5);
const REPARTITION_SEGMENT_BYTES: u32 = 52_428_800;

/// Checks and creates what an instance needs of the log.
pub(super) struct Preparation<'a> {
    pub(super) topology: &'a Topology,
    pub(super) settings: &'a InstanceSettings,
    pub(super) log: &'a Arc<dyn Log>,
    pub(super) clock: &'a Arc<dyn Clock>,
}

/// Checks and creates the topics of an application, and its plan, as an instance does at its start. **Blocks** until the log has answered.
///
/// # Errors
/// [`InstanceError`].
pub fn prepare(
    topology: &Topology,
    settings: &InstanceSettings,
    log: &Arc<dyn Log>,
    clock: &Arc<dyn Clock>,
) -> Result<Topics, InstanceError> {
    let preparation = Preparation {
        topology,
        settings,
        log,
        clock,
    };
    preparation.run()
}

impl Preparation<'_> {
    /// Everything, in order. Retries while no broker answers, until the start-up time-out, and for a moment while a topic
    /// is not there.
    pub(super) fn run(&self) -> Result<Topics, InstanceError> {
        let started = self.clock.monotonic();
        let deadline = started + self.settings.startup_timeout;
        let missing_until = deadline.min(started + MISSING_GRACE);
        let mut back_off = FIRST_BACK_OFF;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let source = match self.attempt() {
                Err(InstanceError::Log(source @ (LogError::Unreachable { .. } | LogError::TimedOut { .. }))) => source,
                Err(missing @ InstanceError::MissingTopic { .. }) if self.clock.monotonic() < missing_until => {
                    debug!(%missing, "looking again");
                    std::thread::park_timeout(VISIBLE_PAUSE);
                    continue;
                }
                other => return other,
            };
            if self.clock.monotonic() + back_off >= deadline {
                let timeout_ms = u64::try_from(self.settings.startup_timeout.as_millis()).unwrap_or(u64::MAX);
                return Err(InstanceError::LogUnreachable {
                    timeout_ms,
                    attempts,
                    source,
                });
            }
            warn!(error = %source, attempts, "the log does not answer; trying again in {} ms", back_off.as_millis());
            std::thread::park_timeout(back_off);
            back_off = (back_off * 2).min(LAST_BACK_OFF);
        }
    }

    fn attempt(&self) -> Result<Topics, InstanceError> {
        let admin = self.log.admin();
        let externals = self.external_topics(&*admin)?;
        let plan = self.topology.plan();
        let counts = plan.partition_counts(&|topic| externals.get(topic).map(|info| info.partitions))?;
        self.check_stores()?;
        let of_state = self.create_internal_topics(&*admin, &counts)?;
        self.check_plan()?;
        let dead_letter = self.settings.dead_letter_topic.as_deref().map(Arc::from);
        let topics = Topics::new(
            plan,
            &self.settings.application_id,
            &of_state,
            dead_letter.as_ref(),
            &counts,
        );
        self.check_changelogs(&*admin, &topics)?;
        Ok(topics)
    }

    /// Stores that have a strategy of their own are there, and those of one sub-topology have the same.
    fn check_stores(&self) -> Result<(), InstanceError> {
        let refused = |reason| Err(InstanceError::StoreDurability { reason });
        let subs = &self.topology.plan().sub_topologies;
        let named = &self.settings.store_durability;
        let is_there = |name: &String| {
            subs.iter()
                .any(|sub| sub.stores.iter().any(|store| store.name == *name))
        };
        if let Some(unknown) = named.keys().find(|name| !is_there(name)) {
            return refused(format!("the topology has no store {unknown:?}"));
        }
        for sub in subs {
            let mut stores = sub.stores.iter().map(|store| {
                let own = named.get(&store.name).copied();
                (&store.name, own.unwrap_or(self.settings.durability))
            });
            let Some((first, durability)) = stores.next() else {
                continue;
            };
            if let Some((other, differs)) = stores.find(|(_, other)| *other != durability) {
                return refused(format!(
                    "{first:?} ({}) and {other:?} ({}) are stores of one sub-topology: what a task has in them is committed and restored as one, so both need the same strategy",
                    durability.word(),
                    differs.word(),
                ));
            }
        }
        Ok(())
    }

    fn external_topics(&self, admin: &dyn Admin) -> Result<BTreeMap<String, TopicInfo>, InstanceError> {
        let mut roles: Vec<(&str, &'static str)> = Vec::new();
        for sub in &self.topology.plan().sub_topologies {
            for (references, role) in [(&sub.sources, "a source"), (&sub.sinks, "an output")] {
                let names = references.iter().filter_map(|reference| match reference {
                    TopicRef::External(name) => Some((&**name, role)),
                    TopicRef::Repartition(_) => None,
                });
                roles.extend(names);
            }
        }
        roles.extend(
            self.settings
                .dead_letter_topic
                .as_deref()
                .map(|topic| (topic, "the dead-letter topic")),
        );
        let mut found = BTreeMap::new();
        for (topic, role) in roles {
            let info = admin.topic(topic, CALL_TIMEOUT).map_err(InstanceError::Log)?;
            let topic = topic.to_owned();
            match info {
                Some(info) => found.insert(topic, info),
                None => return Err(InstanceError::MissingTopic { topic, role }),
            };
        }
        Ok(found)
    }

    /// Answers which topics the state of each sub-topology has.
    fn create_internal_topics(
        &self,
        admin: &dyn Admin,
        counts: &PartitionCounts,
    ) -> Result<Vec<StateTopics>, InstanceError> {
        let application = &self.settings.application_id;
        let replication = self.settings.replication_factor;
        for (name, partitions) in &counts.repartitions {
            let spec = TopicSpec {
                name: repartition_topic(application, name),
                partitions: *partitions,
                replication,
                config: vec![
                    ("cleanup.policy".into(), "delete".into()),
                    ("retention.ms".into(), "-1".into()),
                    ("segment.bytes".into(), REPARTITION_SEGMENT_BYTES.to_string()),
                    ("message.timestamp.type".into(), "CreateTime".into()),
                ],
            };
            ensure(admin, &spec)?;
        }
        let subs = self.topology.plan().sub_topologies.iter().zip(&counts.sub_topologies);
        let mut of_state = Vec::new();
        for (number, (sub, counts)) in subs.enumerate() {
            let durability = self.settings.durability_of(sub);
            let mut has = StateTopics {
                changelogs: true,
                spill: false,
            };
            for store in &sub.stores {
                let spec = changelog::topic_spec(application, &store.name, durability, counts.tasks, replication);
                has.changelogs &= match durability.has_changelogs() {
                    true => look_for(admin, &spec)?.is_some() || create(admin, &spec).map(|_| true)?,
                    // They may be needed by tasks that have still to change their strategy.
                    false => look_for(admin, &spec)?.is_some(),
                };
            }
            if self.settings.snapshots.spill && !sub.stores.is_empty() {
                let spec = spill_topic_spec(application, number as u16, counts.tasks, replication);
                has.spill = match durability.has_packs() {
                    true => ensure(admin, &spec).map(|()| true)?,
                    // It may be needed by tasks that have still to change their strategy.
                    false => look_for(admin, &spec)?.is_some(),
                };
            }
            of_state.push(has);
        }
        let commits = TopicSpec {
            name: commits_topic(application),
            partitions: 1,
            replication,
            config: vec![("cleanup.policy".into(), "compact".into())],
        };
        ensure(admin, &commits)?;
        Ok(of_state)
    }

    /// Changelogs are kept as the strategy wants it. Those of an application that comes from another strategy are altered, as soon as no task needs
    /// them as they were; whatever else differs is refused.
    fn check_changelogs(&self, admin: &dyn Admin, topics: &Topics) -> Result<(), InstanceError> {
        for (number, sub) in self.topology.plan().sub_topologies.iter().enumerate() {
            let (number, durability) = (number as u16, self.settings.durability_of(sub));
            if !durability.has_changelogs() {
                continue;
            }
            for topic in topics.changelog_names(number) {
                let spec = TopicSpec {
                    name: topic,
                    partitions: topics.tasks(number),
                    replication: None,
                    config: changelog::settings(durability),
                };
                let Some(info) = look_for(admin, &spec)? else {
                    continue;
                };
                match is_of_another_strategy(&info, durability) {
                    true => self.alter_changelog(topics, number, durability, &spec)?,
                    false => check(&spec, &info)?,
                }
            }
        }
        Ok(())
    }

    /// Not before no task needs it as it is.
    fn alter_changelog(
        &self,
        topics: &Topics,
        sub_topology: u16,
        durability: Durability,
        spec: &TopicSpec,
    ) -> Result<(), InstanceError> {
        let (log, application) = (&**self.log, &self.settings.application_id);
        let tasks = topics.tasks_with_input(sub_topology);
        let strategies = committed_strategies(log, application, &tasks).map_err(InstanceError::Log)?;
        let is_needed = strategies.iter().flatten().any(|strategy| strategy.has_snapshots());
        if durability == Durability::Changelog && is_needed {
            info!(topic = %spec.name, "compacted as soon as all tasks have changed their strategy");
            return Ok(());
        }
        log.admin()
            .alter_topic(&spec.name, &spec.config, CALL_TIMEOUT)
            .map_err(InstanceError::Log)?;
        info!(topic = %spec.name, settings = ?spec.config, "changelog topic altered: the strategy has changed");
        Ok(())
    }

    /// Compares the plan with the one that the commits topic holds; writes it there the first time.
    fn check_plan(&self) -> Result<(), InstanceError> {
        let text = self.topology.plan_text();
        match self.read_plan()? {
            Some(former) if former == text => Ok(()),
            Some(former) => Err(InstanceError::PlanChanged {
                application_id: self.settings.application_id.clone(),
                difference: diff(&former, text).unwrap_or_default(),
            }),
            None => self.write_plan(text).map_err(InstanceError::Log),
        }
    }

    fn read_plan(&self) -> Result<Option<String>, InstanceError> {
        let partition = TopicPartition::new(commits_topic(&self.settings.application_id), 0);
        let watermarks = self
            .log
            .admin()
            .watermarks(&partition, CALL_TIMEOUT)
            .map_err(InstanceError::Log)?;
        if watermarks.low >= watermarks.high {
            return Ok(None);
        }
        let mut consumer = self
            .log
            .consumer("plan", Isolation::ReadUncommitted)
            .map_err(InstanceError::Log)?;
        let assignment = Assignment {
            slot: 0,
            partition: partition.clone(),
            offset: watermarks.low,
        };
        consumer.assign(&[assignment]).map_err(InstanceError::Log)?;
        let deadline = self.clock.monotonic() + CALL_TIMEOUT;
        let mut plan = None;
        while consumer.position(0).unwrap_or(0) < watermarks.high {
            if self.clock.monotonic() >= deadline {
                let timeout_ms = u64::try_from(CALL_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
                return Err(InstanceError::Log(LogError::TimedOut {
                    operation: format!("reading {partition}"),
                    timeout_ms,
                }));
            }
            let Some(batch) = consumer
                .poll(10_000, Duration::from_millis(50))
                .map_err(InstanceError::Log)?
            else {
                continue;
            };
            for run in batch.runs() {
                for record in (run.start..run.end).map(|index| batch.record(index)) {
                    if record.key == Some(PLAN_KEY.as_bytes()) {
                        plan = record.value.map(|text| String::from_utf8_lossy(text).into_owned());
                    }
                }
            }
        }
        Ok(plan)
    }

    /// Written without a transaction: two instances that start at once write the same text.
    fn write_plan(&self, text: &str) -> Result<(), LogError> {
        let mut producer = self.log.producer("plan", None)?;
        producer.init(CALL_TIMEOUT)?;
        producer.prepare(&[commits_topic(&self.settings.application_id)])?;
        producer.begin()?;
        let records = Arc::new(PlanRecord(text.to_owned()));
        let batch = OutBatch {
            topic: crate::log::OutTopic(0),
            partition: 0,
            records,
        };
        producer.start_commit(Commit {
            batches: vec![batch],
            ..Commit::of_records(CALL_TIMEOUT)
        })?;
        let deadline = self.clock.monotonic() + CALL_TIMEOUT * 2;
        let written = loop {
            if let Some(written) = producer.poll_commit(Duration::from_millis(100)) {
                break written;
            }
            if self.clock.monotonic() >= deadline {
                let timeout_ms = u64::try_from(CALL_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
                let operation = "writing the plan to the commits topic".to_owned();
                break Err(LogError::TimedOut { operation, timeout_ms });
            }
        };
        written?;
        info!(application = %self.settings.application_id, "plan recorded");
        Ok(())
    }
}

struct PlanRecord(String);

impl crate::log::BatchSource for PlanRecord {
    fn len(&self) -> usize {
        1
    }

    fn for_each(&self, visit: &mut dyn FnMut(&[u8], Option<&[u8]>)) {
        visit(PLAN_KEY.as_bytes(), Some(self.0.as_bytes()));
    }
}

/// Creates an internal topic, or checks one that exists.
fn ensure(admin: &dyn Admin, spec: &TopicSpec) -> Result<(), InstanceError> {
    match look_for(admin, spec)? {
        Some(info) => check(spec, &info),
        None if create(admin, spec)? => Ok(()),
        None => {
            // Another instance was faster.
            let info = look_for(admin, spec)?;
            info.map_or(Ok(()), |info| check(spec, &info))
        }
    }
}

fn look_for(admin: &dyn Admin, spec: &TopicSpec) -> Result<Option<TopicInfo>, InstanceError> {
    admin.topic(&spec.name, CALL_TIMEOUT).map_err(InstanceError::Log)
}

/// Creates an internal topic; false where another instance was faster. It is there in both cases.
fn create(admin: &dyn Admin, spec: &TopicSpec) -> Result<bool, InstanceError> {
    match admin.create_topic(spec, CALL_TIMEOUT) {
        Ok(()) => {
            info!(topic = %spec.name, partitions = spec.partitions, "internal topic created");
            return Ok(true);
        }
        Err(LogError::TopicExists { .. }) => {}
        Err(error) => return Err(InstanceError::Log(error)),
    }
    // It may take a moment to be seen.
    for _ in 0..VISIBLE_ATTEMPTS {
        if look_for(admin, spec)?.is_some() {
            return Ok(false);
        }
        std::thread::park_timeout(VISIBLE_PAUSE);
    }
    Err(InstanceError::MissingTopic {
        topic: spec.name.to_string(),
        role: "an internal topic",
    })
}

/// Whether a changelog topic is as another strategy than `durability` has it, and as nothing but Tidegate makes it.
fn is_of_another_strategy(info: &TopicInfo, durability: Durability) -> bool {
    match durability.has_snapshots() {
        true => info.cleanup_policy == "compact",
        false => info.cleanup_policy == "delete" && (info.retention_ms, info.retention_bytes) == (-1, -1),
    }
}

fn check(spec: &TopicSpec, info: &TopicInfo) -> Result<(), InstanceError> {
    let topic = spec.name.to_string();
    let policy = spec
        .config
        .iter()
        .find(|(name, _)| name == "cleanup.policy")
        .map_or("delete", |(_, policy)| policy);
    if info.cleanup_policy != policy {
        return Err(InstanceError::InternalTopic {
            topic,
            setting: "cleanup.policy",
            found: info.cleanup_policy.clone(),
            expected: policy.to_owned(),
            remedy: "set it with kafka-configs.sh, or delete the topic if the application never ran",
        });
    }
    let kept_ms = spec
        .config
        .iter()
        .find(|(name, _)| name == "delete.retention.ms")
        .and_then(|(_, kept)| kept.parse::<i64>().ok());
    if let Some(kept_ms) = kept_ms.filter(|kept_ms| info.delete_retention_ms < *kept_ms) {
        return Err(InstanceError::InternalTopic {
            topic,
            setting: "delete.retention.ms",
            found: info.delete_retention_ms.to_string(),
            expected: format!("{kept_ms} or more"),
            remedy: "raise it with kafka-configs.sh: a disk that was away for a while would miss deletions",
        });
    }
    let takes = spec.config.iter().any(|(name, _)| name == "max.message.bytes");
    if takes && info.max_message_bytes < RECORD_MAX_BYTES {
        return Err(InstanceError::InternalTopic {
            topic,
            setting: "max.message.bytes",
            found: info.max_message_bytes.to_string(),
            expected: format!("{RECORD_MAX_BYTES} or more"),
            remedy: "raise it with kafka-configs.sh: increments are cut into records of this size",
        });
    }
    if info.partitions != spec.partitions {
        return Err(InstanceError::InternalTopic {
            topic,
            setting: "number of partitions",
            found: info.partitions.to_string(),
            expected: spec.partitions.to_string(),
            remedy: "a source topic has got more partitions since; state cannot follow, use a new application.id",
        });
    }
    Ok(())
}
