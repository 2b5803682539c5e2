//! The segments of a partition: how its records are divided for retention and compaction.
//!
//! A segment is a range of offsets and what is known of it; where its records lie is the partition's business. The last
//! one is *active*: it takes new records and is never compacted.

use std::collections::VecDeque;

use super::settings::TopicSettings;
use crate::time::{Millis, NO_TIMESTAMP};

/// When the active segment is closed: Kafka's `segment.bytes` and `segment.ms`.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentLimits {
    /// No segment is larger, unless one append is.
    pub bytes: u64,
    /// No record of a segment is newer by more than this than the first one.
    pub ms: Millis,
}

/// What is appended at once, as far as segments care.
#[derive(Clone, Copy, Debug)]
pub(super) struct Appended {
    /// Size in bytes.
    pub bytes: u64,
    /// The newest timestamp.
    pub timestamp_ms: Millis,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    base_offset: i64,
    bytes: u64,
    /// Timestamp of the first append; `None` while the segment is empty.
    first_timestamp_ms: Option<Millis>,
    largest_timestamp_ms: Millis,
    /// When the first append came, by the broker's clock.
    appended_at_ms: Millis,
}

impl Segment {
    fn empty(base_offset: i64) -> Self {
        Self {
            base_offset,
            bytes: 0,
            first_timestamp_ms: None,
            largest_timestamp_ms: NO_TIMESTAMP,
            appended_at_ms: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.first_timestamp_ms.is_none()
    }

    fn is_full(&self, limits: SegmentLimits, appended: Appended, wall_ms: Millis) -> bool {
        let Some(first) = self.first_timestamp_ms else {
            return false;
        };
        let age_ms = match first {
            // Records without a time are as old as their stay in the log.
            NO_TIMESTAMP => wall_ms.saturating_sub(self.appended_at_ms),
            first => appended.timestamp_ms.saturating_sub(first),
        };
        self.bytes + appended.bytes > limits.bytes || age_ms > limits.ms
    }

    /// The time that retention and the compaction lag count from.
    fn newest_ms(&self) -> Millis {
        match self.largest_timestamp_ms {
            NO_TIMESTAMP => self.appended_at_ms,
            largest => largest,
        }
    }
}

/// What compaction may work on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cleanable {
    /// First offset that was never cleaned.
    pub from: i64,
    /// Offset after the last one that may be cleaned.
    pub end: i64,
    /// Share of the bytes before `end` that was never cleaned.
    pub dirty_ratio: f64,
}

/// What is left of a segment after compaction.
#[derive(Clone, Copy, Debug, Default)]
struct Remains {
    bytes: u64,
    largest_timestamp_ms: Option<Millis>,
}

/// Counts what a compaction leaves of each segment.
#[derive(Debug, Default)]
pub(super) struct Tally(Vec<(i64, Remains)>);

/// All segments of a partition.
#[derive(Debug)]
pub(super) struct Segments {
    limits: SegmentLimits,
    closed: VecDeque<Segment>,
    active: Segment,
    bytes: u64,
}

impl Segments {
    /// One empty segment.
    pub fn new(limits: SegmentLimits) -> Self {
        Self {
            limits,
            closed: VecDeque::new(),
            active: Segment::empty(0),
            bytes: 0,
        }
    }

    /// From now on segments are closed by other limits.
    pub fn set_limits(&mut self, limits: SegmentLimits) {
        self.limits = limits;
    }

    /// First offset of the active segment.
    pub fn active_base(&self) -> i64 {
        self.active.base_offset
    }

    /// First offsets of all segments but the first, in order.
    pub fn bases(&self) -> impl Iterator<Item = i64> {
        self.all().skip(1).map(|segment| segment.base_offset)
    }

    /// Size of all segments.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Closes the active segment; the next one begins at `offset`.
    pub fn begin_at(&mut self, offset: i64) {
        if !self.active.is_empty() {
            self.roll(offset);
        }
    }

    /// Notes an append at `offset`; answers whether a new segment begins with it.
    pub fn append(&mut self, offset: i64, appended: Appended, wall_ms: Millis) -> bool {
        let rolls = self.active.is_full(self.limits, appended, wall_ms);
        if rolls {
            self.roll(offset);
        }
        let active = &mut self.active;
        if active.first_timestamp_ms.is_none() {
            active.first_timestamp_ms = Some(appended.timestamp_ms);
            active.appended_at_ms = wall_ms;
        }
        active.largest_timestamp_ms = active.largest_timestamp_ms.max(appended.timestamp_ms);
        active.bytes += appended.bytes;
        self.bytes += appended.bytes;
        rolls
    }

    fn roll(&mut self, offset: i64) {
        let closed = std::mem::replace(&mut self.active, Segment::empty(offset));
        self.closed.push_back(closed);
    }

    fn all(&self) -> impl Iterator<Item = &Segment> {
        self.closed.iter().chain([&self.active])
    }

    /// Closes segments that are too old, or too many, and answers the offset before which they lie, at most `stable`.
    /// `high` is the end of the active one, which goes too if everything does.
    pub fn expire(&mut self, settings: &TopicSettings, stable: i64, high: i64, wall_ms: Millis) -> Option<i64> {
        let mut bytes = self.bytes;
        let mut before = None;
        let ends = self.all().skip(1).map(|next| next.base_offset).chain([high]);
        for (segment, end) in self.all().zip(ends) {
            let too_old = settings
                .retention_ms
                .is_some_and(|retention| wall_ms.saturating_sub(segment.newest_ms()) > retention);
            let too_many = settings
                .retention_bytes
                .is_some_and(|retention| bytes.checked_sub(retention).is_some_and(|over| over >= segment.bytes));
            if segment.is_empty() || end > stable || !(too_old || too_many) {
                break;
            }
            bytes -= segment.bytes;
            before = Some(end);
        }
        if before == Some(high) && !self.active.is_empty() {
            self.roll(high);
        }
        before
    }

    /// Whether retention has something to watch.
    pub fn may_expire(&self, settings: &TopicSettings) -> bool {
        let sized = settings.retention_bytes.is_some_and(|retention| self.bytes > retention);
        let aging = settings.retention_ms.is_some() && !(self.active.is_empty() && self.closed.is_empty());
        sized || aging
    }

    /// Forgets the closed segments that lie before `low` as a whole.
    pub fn forget_before(&mut self, low: i64) {
        while let Some(first) = self.closed.front()
            && self.closed.get(1).unwrap_or(&self.active).base_offset <= low
        {
            self.bytes -= first.bytes;
            self.closed.pop_front();
        }
    }

    /// What compaction may work on: whole segments after what was cleaned before, up to the active one, the one that holds
    /// the last stable offset, or the first with a record that is too new.
    pub fn cleanable(&self, settings: &TopicSettings, from: i64, stable: i64, wall_ms: Millis) -> Option<Cleanable> {
        let newest_ms = wall_ms.saturating_sub(settings.min_compaction_lag_ms);
        let mut end = self.active_base();
        let (mut clean, mut dirty) = (0, 0);
        for (segment, next) in self.closed.iter().zip(self.all().skip(1)) {
            // A trim may have made the first dirty offset lie within a segment.
            let is_clean = next.base_offset <= from;
            let too_new = settings.min_compaction_lag_ms > 0 && segment.newest_ms() > newest_ms;
            if next.base_offset > stable || (too_new && !is_clean) {
                end = segment.base_offset;
                break;
            }
            match is_clean {
                true => clean += segment.bytes,
                false => dirty += segment.bytes,
            }
        }
        (end > from && dirty > 0).then(|| Cleanable {
            from,
            end,
            dirty_ratio: dirty as f64 / (clean + dirty) as f64,
        })
    }

    /// Notes in `tally` that compaction keeps a record.
    pub fn count(&self, tally: &mut Tally, offset: i64, bytes: u64, timestamp_ms: Millis) {
        let after = self.closed.partition_point(|segment| segment.base_offset <= offset);
        let Some(base) = after.checked_sub(1).map(|index| self.closed[index].base_offset) else {
            return;
        };
        if tally.0.last().is_none_or(|(last, _)| *last != base) {
            tally.0.push((base, Remains::default()));
        }
        if let Some((_, remains)) = tally.0.last_mut() {
            remains.bytes += bytes;
            remains.largest_timestamp_ms = remains.largest_timestamp_ms.max(Some(timestamp_ms));
        }
    }

    /// Takes over what a compaction before `end` has left; empty segments go.
    pub fn compacted(&mut self, tally: &Tally, end: i64) {
        let bases = self.closed.iter().skip(1).chain([&self.active]);
        let whole = bases.take_while(|next| next.base_offset <= end).count();
        let rest = self.closed.split_off(whole.min(self.closed.len()));
        self.closed.retain_mut(|segment| {
            let Ok(index) = tally.0.binary_search_by_key(&segment.base_offset, |(base, _)| *base) else {
                return false;
            };
            let (_, remains) = tally.0[index];
            segment.bytes = remains.bytes;
            segment.largest_timestamp_ms = remains.largest_timestamp_ms.unwrap_or(segment.largest_timestamp_ms);
            true
        });
        self.closed.extend(rest);
        self.bytes = self.all().map(|segment| segment.bytes).sum();
    }
}
