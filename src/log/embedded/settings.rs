//! The settings of a topic, by Kafka's names and with Kafka's limits.

use std::str::FromStr;

use super::broker::BrokerError;
use super::segments::SegmentLimits;
use crate::time::Millis;

/// Kafka's default for `max.message.bytes`.
const DEFAULT_MAX_MESSAGE_BYTES: usize = 1_048_588;
const DAY_MS: Millis = 86_400_000;
/// Stands for "without limit" in `retention.ms` and `retention.bytes`.
const UNLIMITED: i64 = -1;
/// The smallest segment that Kafka allows since 4.0.
const SEGMENT_MIN_BYTES: i64 = 1 << 20;

/// Settings that a topic may have besides those of [`TopicSettings`]; they are taken and not acted upon.
const OTHER_SETTINGS: [&str; 18] = [
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.type",
    "compression.zstd.level",
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "index.interval.bytes",
    "max.compaction.lag.ms",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.type",
    "min.insync.replicas",
    "preallocate",
    "segment.index.bytes",
    "segment.jitter.ms",
    "remote.storage.enable",
    "unclean.leader.election.enable",
];

/// What happens to old records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CleanupPolicy {
    /// Segments go when they are too old, or too many.
    pub delete: bool,
    /// Of several records with one key the last one stays.
    pub compact: bool,
}

impl CleanupPolicy {
    fn parse(text: &str) -> Option<Self> {
        let mut policy = Self {
            delete: false,
            compact: false,
        };
        for word in text.split(',') {
            match word.trim() {
                "delete" => policy.delete = true,
                "compact" => policy.compact = true,
                _ => return None,
            }
        }
        Some(policy)
    }

    /// The policy as it is shown.
    pub fn name(self) -> &'static str {
        match (self.compact, self.delete) {
            (true, true) => "compact,delete",
            (true, false) => "compact",
            _ => "delete",
        }
    }
}

/// What a topic was created with. Defaults are Kafka's, but for `retention.ms`: nothing is deleted by its age unless
/// it is set, since records of the past are what a log without Kafka is mostly filled with.
#[derive(Clone, Debug)]
pub(super) struct TopicSettings {
    /// `cleanup.policy`
    pub cleanup_policy: CleanupPolicy,
    /// `max.message.bytes`
    pub max_message_bytes: usize,
    /// `segment.bytes` and `segment.ms`
    pub segments: SegmentLimits,
    /// `retention.ms`; `None` for ever.
    pub retention_ms: Option<Millis>,
    /// `retention.bytes`; `None` for no limit.
    pub retention_bytes: Option<u64>,
    /// `delete.retention.ms`
    pub delete_retention_ms: Millis,
    /// `min.compaction.lag.ms`
    pub min_compaction_lag_ms: Millis,
    /// `min.cleanable.dirty.ratio`
    pub min_cleanable_dirty_ratio: f64,
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            cleanup_policy: CleanupPolicy {
                delete: true,
                compact: false,
            },
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            segments: SegmentLimits {
                bytes: 1 << 30,
                ms: 7 * DAY_MS,
            },
            retention_ms: None,
            retention_bytes: None,
            delete_retention_ms: DAY_MS,
            min_compaction_lag_ms: 0,
            min_cleanable_dirty_ratio: 0.5,
        }
    }
}

impl TopicSettings {
    /// The settings that `config` names, and defaults for the others.
    pub fn new(config: &[(String, String)]) -> Result<Self, BrokerError> {
        let mut settings = Self::default();
        for (name, value) in config {
            let valid = settings.set(name, value);
            valid.ok_or_else(|| BrokerError::InvalidConfig(format!("{name}={value}")))?;
        }
        Ok(settings)
    }

    /// Sets one; `None` where the name is unknown or the value is not one that Kafka takes.
    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "cleanup.policy" => self.cleanup_policy = CleanupPolicy::parse(value)?,
            "max.message.bytes" => self.max_message_bytes = usize::try_from(at_least(0_i32, value)?).ok()?,
            "segment.bytes" => {
                self.segments.bytes = u64::try_from(at_least(SEGMENT_MIN_BYTES, value)?).ok()?;
                i32::try_from(self.segments.bytes).ok()?;
            }
            "segment.ms" => self.segments.ms = at_least(1, value)?,
            "retention.ms" => self.retention_ms = limit(at_least(UNLIMITED, value)?),
            "retention.bytes" => self.retention_bytes = limit(value.parse().ok()?).map(i64::unsigned_abs),
            "delete.retention.ms" => self.delete_retention_ms = at_least(0, value)?,
            "min.compaction.lag.ms" => self.min_compaction_lag_ms = at_least(0, value)?,
            "min.cleanable.dirty.ratio" => {
                let ratio: f64 = value.parse().ok()?;
                self.min_cleanable_dirty_ratio = (0.0..=1.0).contains(&ratio).then_some(ratio)?;
            }
            _ if OTHER_SETTINGS.contains(&name) => {}
            _ => return None,
        }
        Some(())
    }
}

fn at_least<T: FromStr + PartialOrd>(least: T, value: &str) -> Option<T> {
    value.parse().ok().filter(|number| *number >= least)
}

fn limit(number: i64) -> Option<i64> {
    (number >= 0).then_some(number)
}
