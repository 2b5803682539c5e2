//! Queues of events, and the events as owned values.

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use rdkafka_sys as sys;

use super::{Client, Code, NativeError, PartitionList, PartitionResult, owned_text, timeout_ms};

/// A record that the broker did not take.
#[derive(Clone, Debug)]
pub(in crate::log::kafka) struct FailedDelivery {
    pub code: Code,
    pub topic: String,
    pub partition: i32,
    /// Size of key and value.
    pub bytes: usize,
}

/// Something that librdkafka tells.
#[derive(Debug)]
pub(in crate::log::kafka) enum Event {
    /// An error of the handle or of a connection.
    Error(NativeError),
    /// Statistics as JSON.
    Statistics(String),
    /// Records that were not delivered, in order.
    Undelivered(Vec<FailedDelivery>),
    /// Partitions to take (`true`) or to give up (`false`).
    Rebalance(bool, Vec<PartitionResult>),
    /// The answer to a commit of offsets.
    OffsetsCommitted(Result<(), NativeError>, Vec<PartitionResult>),
    /// Something that nobody here asks for.
    Other,
}

/// A queue of a handle.
pub(in crate::log::kafka) struct Queue {
    native: NonNull<sys::rd_kafka_queue_t>,
    client: Arc<Client>,
}

// SAFETY: librdkafka's queues are thread-safe.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Queue {
    /// # Safety
    /// `queue` is null, or a reference of the handle's queue that the wrapper may destroy.
    pub(super) unsafe fn from_native(queue: *mut sys::rd_kafka_queue_t, client: &Arc<Client>) -> Option<Self> {
        let client = Arc::clone(client);
        NonNull::new(queue).map(|native| Self { native, client })
    }

    pub(super) fn ptr(&self) -> *mut sys::rd_kafka_queue_t {
        self.native.as_ptr()
    }

    pub(super) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Hands the next event to `handle`; waits for it at most `timeout`. Answers whether there was one.
    ///
    /// Records of a delivery report count as in flight until `handle` has returned, so a flush does not overtake it.
    pub fn serve(&self, timeout: Duration, handle: &mut dyn FnMut(Event)) -> bool {
        // SAFETY: the queue is alive; the event is ours until it is destroyed below, and `read` copies what it needs.
        unsafe {
            let event = sys::rd_kafka_queue_poll(self.ptr(), timeout_ms(timeout));
            if event.is_null() {
                return false;
            }
            handle(read(event));
            sys::rd_kafka_event_destroy(event);
        }
        true
    }

    /// Ends a wait in [`Queue::serve`] of another thread, or the next one.
    pub fn interrupt(&self) {
        // SAFETY: the queue is alive.
        unsafe { sys::rd_kafka_queue_yield(self.ptr()) }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the reference is ours, and the handle is alive because we hold it.
        unsafe { sys::rd_kafka_queue_destroy(self.ptr()) }
    }
}

/// # Safety
/// `event` is alive.
unsafe fn read(event: *mut sys::rd_kafka_event_t) -> Event {
    // SAFETY: alive by this function's contract; every accessor fits the type of the event that was asked for.
    unsafe {
        match sys::rd_kafka_event_type(event) {
            sys::RD_KAFKA_EVENT_ERROR => Event::Error(read_error(event)),
            sys::RD_KAFKA_EVENT_STATS => Event::Statistics(owned_text(sys::rd_kafka_event_stats(event))),
            sys::RD_KAFKA_EVENT_DR => Event::Undelivered(read_undelivered(event)),
            sys::RD_KAFKA_EVENT_REBALANCE => {
                let assigned =
                    sys::rd_kafka_event_error(event) == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
                Event::Rebalance(assigned, read_partitions(event))
            }
            sys::RD_KAFKA_EVENT_OFFSET_COMMIT => {
                let outcome = NativeError::from_code(sys::rd_kafka_event_error(event));
                Event::OffsetsCommitted(outcome, read_partitions(event))
            }
            _ => Event::Other,
        }
    }
}

/// # Safety
/// `event` is alive and an error event.
unsafe fn read_error(event: *mut sys::rd_kafka_event_t) -> NativeError {
    // SAFETY: by this function's contract.
    unsafe {
        NativeError {
            fatal: sys::rd_kafka_event_error_is_fatal(event) != 0,
            reason: owned_text(sys::rd_kafka_event_error_string(event)),
            ..NativeError::plain(sys::rd_kafka_event_error(event).into())
        }
    }
}

/// # Safety
/// `event` is alive and carries a list of partitions, or none.
unsafe fn read_partitions(event: *mut sys::rd_kafka_event_t) -> Vec<PartitionResult> {
    // SAFETY: the list belongs to the event and is only read while that is alive.
    unsafe { PartitionList::read_native(sys::rd_kafka_event_topic_partition_list(event)) }
}

/// # Safety
/// `event` is alive and a delivery report.
unsafe fn read_undelivered(event: *mut sys::rd_kafka_event_t) -> Vec<FailedDelivery> {
    let mut failed = Vec::new();
    loop {
        // SAFETY: messages belong to the event and are only read while that is alive; they always have a topic.
        unsafe {
            let message = sys::rd_kafka_event_message_next(event);
            if message.is_null() {
                return failed;
            }
            if let Err(error) = NativeError::from_code((*message).err) {
                failed.push(FailedDelivery {
                    code: error.code,
                    topic: owned_text(sys::rd_kafka_topic_name((*message).rkt)),
                    partition: (*message).partition,
                    bytes: (*message).len + (*message).key_len,
                });
            }
        }
    }
}
