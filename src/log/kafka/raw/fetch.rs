//! Fetching by manual start and stop of partitions, in batches, without copying what was fetched.
//!
//! This is librdkafka's consumer without a group: it needs no group id, so it neither looks for a coordinator nor
//! needs a right to one. Each assignment has a queue of its own, so what an earlier one left behind cannot come up.

use std::ffi::CString;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka_sys as sys;

use super::{Client, Code, NativeError, PartitionList, Queue, Topic, owned_text, timeout_ms};
use crate::ids::TopicPartition;
use crate::record::{Header, Headers, RecordRef};
use crate::time::NO_TIMESTAMP;

impl Topic {
    /// Starts to fetch a partition at `offset` into `queue`.
    pub fn start(&self, partition: i32, offset: i64, queue: &Queue) -> Result<(), NativeError> {
        // SAFETY: topic and queue are alive and of the same handle, which the caller made them from.
        match unsafe { sys::rd_kafka_consume_start_queue(self.ptr(), partition, offset, queue.ptr()) } {
            0 => Ok(()),
            _ => Err(last_error()),
        }
    }

    /// Stops to fetch a partition; waits until the client's threads have let go of it, never for the network.
    pub fn stop(&self, partition: i32) -> Result<(), NativeError> {
        // SAFETY: the topic is alive.
        match unsafe { sys::rd_kafka_consume_stop(self.ptr(), partition) } {
            0 => Ok(()),
            _ => Err(last_error()),
        }
    }
}

fn last_error() -> NativeError {
    // SAFETY: reads a thread-local that the failed call has set.
    NativeError::plain(unsafe { sys::rd_kafka_last_error() }.into())
}

impl Client {
    /// Stops or resumes fetching; a partition that stops forgets what it had fetched and fetches that again later.
    pub fn pause(&self, partitions: &PartitionList, paused: bool) -> Result<(), NativeError> {
        // SAFETY: handle and list are alive.
        let code = unsafe {
            match paused {
                true => sys::rd_kafka_pause_partitions(self.ptr(), partitions.ptr()),
                false => sys::rd_kafka_resume_partitions(self.ptr(), partitions.ptr()),
            }
        };
        NativeError::from_code(code)
    }

    /// Offset after what was delivered or skipped, `None` while nothing was.
    pub fn position(&self, partition: &TopicPartition) -> Option<i64> {
        let mut list = PartitionList::with_capacity(1)?;
        list.push(partition, 0, "").ok()?;
        // SAFETY: handle and list are alive.
        NativeError::from_code(unsafe { sys::rd_kafka_position(self.ptr(), list.ptr()) }).ok()?;
        let position = list.read().first()?.offset;
        (position >= 0).then_some(position)
    }

    /// Low and high watermark as the last fetch reported them, `None` before the first. The high one is the real high
    /// watermark at every isolation level.
    pub fn cached_watermarks(&self, partition: &TopicPartition) -> Option<(i64, i64)> {
        let topic = CString::new(&*partition.topic).ok()?;
        let (mut low, mut high) = (0, 0);
        // SAFETY: the handle is alive, the name ends with a zero byte, and the results are written to two locals.
        let code = unsafe {
            let (ptr, name) = (self.ptr(), topic.as_ptr());
            sys::rd_kafka_get_watermark_offsets(ptr, name, partition.partition, &mut low, &mut high)
        };
        NativeError::from_code(code).ok()?;
        (high >= 0).then_some((low, high))
    }
}

/// Memory for the messages of one fetch, used again for the next.
#[derive(Default)]
pub(in crate::log::kafka) struct Scratch(Vec<*mut sys::rd_kafka_message_t>);

// SAFETY: between two fetches it is empty.
unsafe impl Send for Scratch {}

/// One message of a fetch, before it is sorted into records and errors.
#[derive(Debug)]
pub(in crate::log::kafka) enum Fetched {
    /// A record of the partition with this topic address and number.
    Record { topic: usize, partition: i32 },
    /// The partition reports an error.
    Failed {
        topic: usize,
        partition: i32,
        offset: i64,
        error: NativeError,
    },
}

/// Messages that were fetched. Destroys them when it is dropped; keeps the handle alive until then.
pub(in crate::log::kafka) struct Messages {
    messages: Vec<*mut sys::rd_kafka_message_t>,
    /// librdkafka parses headers on first use and keeps the result in the message, which two threads must not do at once.
    headers: Mutex<()>,
    /// Messages must be gone before their handle is.
    _client: Arc<Client>,
}

// SAFETY: a message is plain memory that only this object refers to; its reference counts are atomic, and the one call
// that changes it (headers) is behind a lock.
unsafe impl Send for Messages {}
// SAFETY: as above.
unsafe impl Sync for Messages {}

impl Messages {
    /// Takes up to `max` messages from the queue; waits for the first one at most `wait`.
    ///
    /// librdkafka would wait for the last one too, so waiting and filling up are separate calls.
    pub fn fetch(queue: &Queue, max: usize, wait: Duration, scratch: &mut Scratch) -> Self {
        let taken = take(queue, Duration::ZERO, max, scratch);
        if taken == 0 && !wait.is_zero() && take(queue, wait, 1, scratch) == 1 {
            take(queue, Duration::ZERO, max - 1, scratch);
        }
        Self {
            // A vector of the exact length, since batches may be kept for a while and most are small.
            messages: scratch.0.drain(..).collect(),
            headers: Mutex::new(()),
            _client: Arc::clone(queue.client()),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Looks at every message in order; those for which `keep` answers false are destroyed.
    pub fn sort(&mut self, mut keep: impl FnMut(Fetched) -> bool) {
        self.messages.retain(|message| {
            // SAFETY: every message in the list is alive, and is destroyed only when it leaves the list.
            unsafe {
                let kept = keep(look(&**message));
                if !kept {
                    sys::rd_kafka_message_destroy(*message);
                }
                kept
            }
        });
    }

    /// The record at `index`.
    #[inline]
    pub fn record(&self, index: usize) -> RecordRef<'_> {
        let message = self.messages[index];
        // SAFETY: the message is alive as long as `self`, which the slices borrow; key and payload are as long as stated.
        unsafe {
            let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
            let timestamp_ms = sys::rd_kafka_message_timestamp(message, &mut kind);
            let absent = kind == sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
            let message = &*message;
            RecordRef {
                offset: message.offset,
                timestamp_ms: if absent { NO_TIMESTAMP } else { timestamp_ms },
                key: bytes(message.key, message.key_len),
                value: bytes(message.payload, message.len),
            }
        }
    }

    /// The headers of the record at `index`.
    pub fn headers(&self, index: usize) -> Headers {
        let message = self.messages[index];
        let _parsing = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut native = ptr::null_mut();
        // SAFETY: the message is alive, and no other thread parses its headers; the list belongs to the message.
        unsafe {
            // Most records have none, and say so by an error: its text is not worth building for each of them.
            match sys::rd_kafka_message_headers(message, &mut native) {
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => read_headers(native),
                _ => Headers::default(),
            }
        }
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        for message in self.messages.drain(..) {
            // SAFETY: the message is ours and destroyed once; its handle is alive because we hold it.
            unsafe { sys::rd_kafka_message_destroy(message) }
        }
    }
}

/// Appends up to `max` messages to `scratch`.
fn take(queue: &Queue, wait: Duration, max: usize, scratch: &mut Scratch) -> usize {
    let messages = &mut scratch.0;
    messages.reserve(max);
    // SAFETY: at most `max` pointers are written, into memory that was reserved for as many.
    let taken = unsafe {
        let free = messages.spare_capacity_mut().as_mut_ptr().cast();
        sys::rd_kafka_consume_batch_queue(queue.ptr(), timeout_ms(wait), free, max)
    };
    let taken = usize::try_from(taken).unwrap_or(0);
    // SAFETY: librdkafka has written that many messages after the previous ones, and they are ours now.
    unsafe { messages.set_len(messages.len() + taken) };
    taken
}

/// # Safety
/// `message` is alive.
unsafe fn look(message: &sys::rd_kafka_message_t) -> Fetched {
    let (topic, partition) = (message.rkt as usize, message.partition);
    match NativeError::from_code(message.err) {
        Ok(()) => Fetched::Record { topic, partition },
        Err(error) => Fetched::Failed {
            topic,
            partition,
            offset: message.offset,
            error: NativeError {
                // SAFETY: the text belongs to the message, which is alive.
                reason: unsafe { owned_text(sys::rd_kafka_message_errstr(message)) },
                ..error
            },
        },
    }
}

/// # Safety
/// `data` is null or points to `len` bytes that stay as they are during `'a`.
#[inline]
unsafe fn bytes<'a>(data: *const std::ffi::c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: by this function's contract.
    (!data.is_null()).then(|| unsafe { std::slice::from_raw_parts(data.cast(), len) })
}

/// # Safety
/// `headers` is alive.
unsafe fn read_headers(headers: *const sys::rd_kafka_headers_t) -> Headers {
    let mut list = Vec::new();
    loop {
        let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
        // SAFETY: alive by this function's contract; results go to three locals and belong to the headers.
        unsafe {
            let code = sys::rd_kafka_header_get_all(headers, list.len(), &mut name, &mut value, &mut len);
            if NativeError::from_code(code).is_err() {
                return Headers::new(list);
            }
            list.push(Header {
                name: owned_text(name).into(),
                value: bytes(value, len).map(<[u8]>::to_vec),
            });
        }
    }
}

impl Client {
    /// Whether the code says that a partition or topic is not there.
    pub fn is_unknown(code: Code) -> bool {
        matches!(
            code,
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicId
        )
    }
}
