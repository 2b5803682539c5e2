//! Everything `unsafe` about librdkafka: small safe wrappers over its C functions, in one place.
//!
//! What the wrappers guarantee together: a handle ([`Client`]) outlives every queue, topic, message and list that was
//! made from it, because each of them holds an `Arc` of it; and every native object is destroyed exactly once.

mod admin;
mod client;
mod event;
mod fetch;
mod group;
mod partitions;
mod produce;

pub(super) use admin::NewTopic;
pub(super) use client::{Client, Kind, NativeError, Topic, check_properties};
pub(super) use event::{Event, FailedDelivery, Queue};
pub(super) use fetch::{Fetched, Messages, Scratch};
pub(super) use partitions::{PartitionList, PartitionResult};
pub(super) use produce::RecordChunk;

/// Which events a handle shall deliver.
pub(super) use rdkafka_sys::{
    RD_KAFKA_EVENT_DR as UNDELIVERED, RD_KAFKA_EVENT_ERROR as ERRORS,
    RD_KAFKA_EVENT_OFFSET_COMMIT as OFFSETS_COMMITTED, RD_KAFKA_EVENT_REBALANCE as REBALANCES,
    RD_KAFKA_EVENT_STATS as STATISTICS,
};

/// librdkafka's error codes, as the crate names them.
pub(super) use rdkafka_sys::types::RDKafkaErrorCode as Code;

use std::ffi::{CStr, c_char, c_int};
use std::time::Duration;

/// librdkafka takes time-outs in whole milliseconds; a wait that is not zero must not become zero.
fn timeout_ms(timeout: Duration) -> c_int {
    let rounded_up = timeout.as_nanos().div_ceil(1_000_000);
    c_int::try_from(rounded_up).unwrap_or(c_int::MAX)
}

/// Copies a C string that librdkafka owns.
///
/// # Safety
/// `text` is null or points to a string that ends with a zero byte and stays valid during the call.
unsafe fn owned_text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and valid by this function's own contract.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// The description of an error code.
pub(super) fn describe(code: Code) -> String {
    code.to_string()
}
