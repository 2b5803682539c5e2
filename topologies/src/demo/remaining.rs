//! Whether an application has worked off everything, asked of the log alone.

use std::sync::Arc;
use std::time::Duration;

use tidegate::ids::TopicPartition;
use tidegate::log::{Assignment, Isolation, Log, LogResult};

use super::{APPLICATION, READ_TIMEOUT};

/// How long a reader waits for records that are there.
const POLL: Duration = Duration::from_millis(50);

/// Whether nothing that was committed in `topics` is left to do. Asked twice, since the end of one topic may bring records
/// into another that was looked at before.
pub fn is_nothing(log: &dyn Log, topics: &[Arc<str>]) -> bool {
    (0..2).all(|_| topics.iter().all(|topic| is_worked_off(log, topic).unwrap_or(false)))
}

fn is_worked_off(log: &dyn Log, topic: &Arc<str>) -> LogResult<bool> {
    let partitions = log
        .admin()
        .topic(topic, READ_TIMEOUT)?
        .map_or(0, |info| info.partitions);
    for number in 0..partitions {
        let partition = TopicPartition::new(Arc::clone(topic), number);
        let watermarks = log.admin().watermarks(&partition, READ_TIMEOUT)?;
        let committed = log
            .admin()
            .committed(APPLICATION, std::slice::from_ref(&partition), POLL)?;
        let committed = committed.into_iter().flatten().map(|committed| committed.offset).next();
        let offset = committed.unwrap_or(0).max(watermarks.low);
        let mut consumer = log.consumer("remaining", Isolation::ReadCommitted)?;
        let slot = 0;
        consumer.assign(&[Assignment {
            slot,
            partition,
            offset,
        }])?;
        // A record is left, or an open transaction stands before the end.
        if consumer.poll(1, POLL)?.is_some()
            || consumer
                .position(slot)
                .is_none_or(|position| position < watermarks.high)
        {
            return Ok(false);
        }
    }
    Ok(true)
}
