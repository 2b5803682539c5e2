//! Producing, and transactions.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::time::Duration;

use rdkafka_sys as sys;

use super::{Client, Code, NativeError, PartitionList, Topic, timeout_ms};
use crate::log::GroupMetadata;
use crate::record::Headers;

use sys::rd_kafka_vtype_t as Tag;

/// Address and length as librdkafka takes them; null and empty stay different.
fn native_bytes(bytes: Option<&[u8]>) -> (*mut c_void, usize) {
    match bytes {
        None => (ptr::null_mut(), 0),
        Some(bytes) => (bytes.as_ptr().cast_mut().cast(), bytes.len()),
    }
}

/// Headers that are destroyed unless a record takes them over.
struct NativeHeaders(*mut sys::rd_kafka_headers_t);

impl NativeHeaders {
    /// Null for no headers.
    fn new(headers: &Headers) -> Result<Self, NativeError> {
        let list = headers.as_slice();
        if list.is_empty() {
            return Ok(Self(ptr::null_mut()));
        }
        // SAFETY: plain constructor.
        let native = Self(unsafe { sys::rd_kafka_headers_new(list.len()) });
        for header in list {
            let (value, len) = native_bytes(header.value.as_deref());
            let too_long = |_| NativeError::plain(Code::MessageSizeTooLarge);
            let name_len = isize::try_from(header.name.len()).map_err(too_long)?;
            let value_len = isize::try_from(len).map_err(too_long)?;
            // SAFETY: the headers are ours; name and value are copied and as long as stated.
            let code = unsafe {
                let name = header.name.as_ptr().cast();
                sys::rd_kafka_header_add(native.0, name, name_len, value, value_len)
            };
            NativeError::from_code(code)?;
        }
        Ok(native)
    }
}

impl Drop for NativeHeaders {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: ours; a record that takes the headers over sets the pointer to null.
            unsafe { sys::rd_kafka_headers_destroy(self.0) }
        }
    }
}

impl Topic {
    /// Queues one record; its bytes are copied. A timestamp of 0 would mean "now", so the caller must not pass it.
    #[inline]
    pub fn produce(
        &self,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp_ms: i64,
        headers: &Headers,
    ) -> Result<(), Code> {
        debug_assert_ne!(timestamp_ms, 0);
        let mut native_headers = NativeHeaders::new(headers).map_err(|error| error.code)?;
        let (value, value_len) = native_bytes(value);
        let (key, key_len) = native_bytes(key);
        // SAFETY: every tag is followed by arguments of the types that its documentation names, and END is last; handle
        // and topic are alive; F_COPY makes librdkafka copy the bytes before it returns.
        let code = unsafe {
            sys::rd_kafka_producev(
                self.client().ptr(),
                Tag::RD_KAFKA_VTYPE_RKT,
                self.ptr(),
                Tag::RD_KAFKA_VTYPE_PARTITION,
                partition,
                Tag::RD_KAFKA_VTYPE_MSGFLAGS,
                sys::RD_KAFKA_MSG_F_COPY,
                Tag::RD_KAFKA_VTYPE_VALUE,
                value,
                value_len,
                Tag::RD_KAFKA_VTYPE_KEY,
                key,
                key_len,
                Tag::RD_KAFKA_VTYPE_TIMESTAMP,
                timestamp_ms,
                Tag::RD_KAFKA_VTYPE_HEADERS,
                native_headers.0,
                Tag::RD_KAFKA_VTYPE_END,
            )
        };
        match code {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {
                native_headers.0 = ptr::null_mut();
                Ok(())
            }
            failed => Err(failed.into()),
        }
    }

    /// Queues all records of `chunk` for one partition, copying them once more. Answers the error of the first that was
    /// not taken; those that were taken have left the chunk.
    pub fn produce_chunk(&self, partition: i32, chunk: &mut RecordChunk) -> Result<(), Code> {
        chunk.point();
        let count = c_int::try_from(chunk.messages.len()).unwrap_or(c_int::MAX);
        // SAFETY: the topic is alive; each message points into the chunk's bytes, which do not move during the call, and
        // F_COPY makes librdkafka copy them before it returns.
        unsafe {
            let messages = chunk.messages.as_mut_ptr();
            sys::rd_kafka_produce_batch(self.ptr(), partition, sys::RD_KAFKA_MSG_F_COPY, messages, count);
        }
        chunk.keep_refused()
    }
}

/// Where one record lies within a [`RecordChunk`].
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    key_len: usize,
    value_len: Option<usize>,
}

/// Records of one partition on their way into the client's queue; its memory is used again.
#[derive(Default)]
pub(in crate::log::kafka) struct RecordChunk {
    bytes: Vec<u8>,
    spans: Vec<Span>,
    messages: Vec<sys::rd_kafka_message_t>,
}

// SAFETY: the pointers in `messages` are written and used within one call, and point into `bytes`.
unsafe impl Send for RecordChunk {}

impl RecordChunk {
    /// Number of records.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Size of all keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Forgets all records and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.spans.clear();
    }

    /// Size of the key and the value of the first record.
    pub fn first_bytes(&self) -> usize {
        self.spans
            .first()
            .map_or(0, |span| span.key_len + span.value_len.unwrap_or(0))
    }

    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.spans.push(Span {
            start: self.bytes.len(),
            key_len: key.len(),
            value_len: value.map(<[u8]>::len),
        });
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
    }

    /// Writes the native messages. Only now, since the bytes move while they grow.
    fn point(&mut self) {
        self.messages.clear();
        for span in &self.spans {
            let (key, rest) = self.bytes[span.start..].split_at(span.key_len);
            let value = span.value_len.map(|len| &rest[..len]);
            let (payload, len) = native_bytes(value);
            let (key, key_len) = native_bytes(Some(key));
            self.messages.push(sys::rd_kafka_message_t {
                err: sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
                rkt: ptr::null_mut(),
                partition: 0,
                payload,
                len,
                key,
                key_len,
                offset: 0,
                _private: ptr::null_mut(),
            });
        }
    }

    /// Keeps the records that were refused, in order.
    fn keep_refused(&mut self) -> Result<(), Code> {
        let mut outcome = Ok(());
        let mut taken = 0;
        for (index, message) in self.messages.iter().enumerate() {
            match NativeError::from_code(message.err) {
                Ok(()) => taken += 1,
                Err(error) => {
                    outcome = outcome.and(Err(error.code));
                    self.spans[index - taken] = self.spans[index];
                }
            }
        }
        self.spans.truncate(self.messages.len() - taken);
        self.messages.clear();
        outcome
    }
}

impl Client {
    /// Number of records and events that are not worked off.
    pub fn queued(&self) -> usize {
        // SAFETY: the handle is alive.
        usize::try_from(unsafe { sys::rd_kafka_outq_len(self.ptr()) }).unwrap_or(0)
    }

    /// Waits until no record is in flight. Undelivered ones leave only when their events are served by another thread.
    pub fn flush(&self, timeout: Duration) -> Result<(), NativeError> {
        // SAFETY: the handle is alive.
        NativeError::from_code(unsafe { sys::rd_kafka_flush(self.ptr(), timeout_ms(timeout)) })
    }

    /// Drops queued records, and with `in_flight` also forgets those that were sent.
    pub fn purge(&self, in_flight: bool) {
        let flags = match in_flight {
            true => sys::RD_KAFKA_PURGE_F_QUEUE | sys::RD_KAFKA_PURGE_F_INFLIGHT,
            false => sys::RD_KAFKA_PURGE_F_QUEUE,
        };
        // SAFETY: the handle is alive; it can only fail on a consumer, which has nothing to purge.
        unsafe { sys::rd_kafka_purge(self.ptr(), flags) };
    }

    pub fn init_transactions(&self, timeout: Duration) -> Result<(), NativeError> {
        // SAFETY: the handle is alive; the error is taken over.
        unsafe { NativeError::check(sys::rd_kafka_init_transactions(self.ptr(), timeout_ms(timeout))) }
    }

    pub fn begin_transaction(&self) -> Result<(), NativeError> {
        // SAFETY: as above.
        unsafe { NativeError::check(sys::rd_kafka_begin_transaction(self.ptr())) }
    }

    pub fn commit_transaction(&self, timeout: Duration) -> Result<(), NativeError> {
        // SAFETY: as above.
        unsafe { NativeError::check(sys::rd_kafka_commit_transaction(self.ptr(), timeout_ms(timeout))) }
    }

    pub fn abort_transaction(&self, timeout: Duration) -> Result<(), NativeError> {
        // SAFETY: as above.
        unsafe { NativeError::check(sys::rd_kafka_abort_transaction(self.ptr(), timeout_ms(timeout))) }
    }

    /// Adds the offsets to the transaction, on behalf of exactly that member of that generation.
    pub fn send_offsets(
        &self,
        offsets: &PartitionList,
        group: &GroupMetadata,
        timeout: Duration,
    ) -> Result<(), NativeError> {
        let group = super::group::NativeGroupMetadata::new(group)?;
        // SAFETY: handle, list and metadata are alive; the error is taken over.
        unsafe {
            let (offsets, group) = (offsets.ptr(), group.ptr());
            let error = sys::rd_kafka_send_offsets_to_transaction(self.ptr(), offsets, group, timeout_ms(timeout));
            NativeError::check(error)
        }
    }
}
