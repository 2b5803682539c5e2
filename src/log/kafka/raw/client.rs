//! A librdkafka handle, its configuration, its topics, and what can be asked of any handle.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka_sys as sys;

use super::{Code, Queue, owned_text, timeout_ms};

const ERROR_TEXT_BYTES: usize = 512;

/// Errors kept until somebody asks; a fault repeats, so what does not fit comes again.
const KEPT_ERRORS: usize = 64;

/// Errors that librdkafka reports to a callback, which is what a batch consumer gets about topics and partitions.
type Reported = Mutex<Vec<NativeError>>;

/// What kind of handle to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::log::kafka) enum Kind {
    Consumer,
    Producer,
}

impl Kind {
    fn native(self) -> sys::rd_kafka_type_t {
        match self {
            Kind::Consumer => sys::rd_kafka_type_t::RD_KAFKA_CONSUMER,
            Kind::Producer => sys::rd_kafka_type_t::RD_KAFKA_PRODUCER,
        }
    }
}

/// An error with what librdkafka says about it.
#[derive(Clone, Debug)]
pub(in crate::log::kafka) struct NativeError {
    pub code: Code,
    /// The handle cannot be used any more.
    pub fatal: bool,
    /// The same call may be made again to go on with it.
    pub retriable: bool,
    /// The transaction must be aborted; the handle stays usable.
    pub abortable: bool,
    pub reason: String,
}

impl NativeError {
    pub fn plain(code: Code) -> Self {
        Self {
            code,
            fatal: false,
            retriable: false,
            abortable: false,
            reason: super::describe(code),
        }
    }

    /// Takes over and destroys a native error object; null means success.
    ///
    /// # Safety
    /// `error` is null, or an error object that the caller owns and does not use afterwards.
    pub(super) unsafe fn check(error: *mut sys::rd_kafka_error_t) -> Result<(), NativeError> {
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: the object is valid until it is destroyed at the end of this block, and nobody else has it.
        unsafe {
            let taken = NativeError {
                code: sys::rd_kafka_error_code(error).into(),
                fatal: sys::rd_kafka_error_is_fatal(error) != 0,
                retriable: sys::rd_kafka_error_is_retriable(error) != 0,
                abortable: sys::rd_kafka_error_txn_requires_abort(error) != 0,
                reason: owned_text(sys::rd_kafka_error_string(error)),
            };
            sys::rd_kafka_error_destroy(error);
            Err(taken)
        }
    }

    /// Success, or the plain error of that code.
    pub(super) fn from_code(code: sys::rd_kafka_resp_err_t) -> Result<(), NativeError> {
        match code {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
            failed => Err(NativeError::plain(failed.into())),
        }
    }
}

/// A configuration that is destroyed unless a handle takes it over.
struct Properties(NonNull<sys::rd_kafka_conf_t>);

impl Properties {
    fn new(properties: &BTreeMap<String, String>) -> Result<Self, String> {
        // SAFETY: plain constructor; null is checked.
        let conf = NonNull::new(unsafe { sys::rd_kafka_conf_new() }).ok_or("out of memory")?;
        let conf = Self(conf);
        for (name, value) in properties {
            conf.set(name, value)?;
        }
        Ok(conf)
    }

    /// The error names the property and never its value, which may be a secret.
    fn set(&self, name: &str, value: &str) -> Result<(), String> {
        let zero_byte = |_| format!("property {name:?} holds a zero byte");
        let native_name = CString::new(name).map_err(zero_byte)?;
        let native_value = CString::new(value).map_err(zero_byte)?;
        let mut text: [c_char; ERROR_TEXT_BYTES] = [0; ERROR_TEXT_BYTES];
        // SAFETY: the configuration is alive, both strings end with a zero byte, and the buffer has the length given.
        let result = unsafe {
            sys::rd_kafka_conf_set(
                self.0.as_ptr(),
                native_name.as_ptr(),
                native_value.as_ptr(),
                text.as_mut_ptr(),
                text.len(),
            )
        };
        match result {
            sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK => Ok(()),
            sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_UNKNOWN => {
                Err(format!("the Kafka client knows no property {name:?}"))
            }
            _ => Err(format!("the Kafka client refuses the value of property {name:?}")),
        }
    }
}

impl Drop for Properties {
    fn drop(&mut self) {
        // SAFETY: the configuration was not given to a handle, since that forgets the wrapper.
        unsafe { sys::rd_kafka_conf_destroy(self.0.as_ptr()) }
    }
}

/// Whether librdkafka knows all these properties and accepts their values.
pub(in crate::log::kafka) fn check_properties(properties: &BTreeMap<String, String>) -> Result<(), String> {
    Properties::new(properties).map(|_| ())
}

/// Called by librdkafka's threads.
unsafe extern "C" fn forward_log(
    handle: *const sys::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    line: *const c_char,
) {
    // SAFETY: librdkafka passes strings that are valid during the call; the handle may be null.
    let (client, facility, line) = unsafe {
        let client = match handle.is_null() {
            true => String::new(),
            false => owned_text(sys::rd_kafka_name(handle)),
        };
        (client, owned_text(facility), owned_text(line))
    };
    match level {
        ..=4 => tracing::warn!(target: "librdkafka", client, facility, "{line}"),
        5..=6 => tracing::info!(target: "librdkafka", client, facility, "{line}"),
        _ => tracing::debug!(target: "librdkafka", client, facility, "{line}"),
    }
}

/// Called by whichever thread of ours serves a queue of the handle.
unsafe extern "C" fn keep_error(_: *mut sys::rd_kafka_t, code: c_int, reason: *const c_char, opaque: *mut c_void) {
    // SAFETY: `opaque` is the list that the client owns and that outlives the handle; the reason is valid during the call.
    let (reported, reason) = unsafe { (&*opaque.cast::<Reported>(), owned_text(reason)) };
    let code = sys::rd_kafka_resp_err_t::try_from(code).map_or(Code::Unknown, Code::from);
    let mut reported = reported.lock().unwrap_or_else(PoisonError::into_inner);
    if reported.len() < KEPT_ERRORS {
        reported.push(NativeError {
            reason,
            ..NativeError::plain(code)
        });
    }
}

/// A librdkafka handle. Thread-safe, as librdkafka is.
pub(in crate::log::kafka) struct Client {
    handle: NonNull<sys::rd_kafka_t>,
    /// Boxed, since librdkafka keeps its address.
    reported: Box<Reported>,
}

// SAFETY: librdkafka documents its handles as thread-safe.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl Client {
    /// Makes a handle. `events` are the `RD_KAFKA_EVENT_*` flags that its queues shall deliver.
    pub fn new(kind: Kind, properties: &BTreeMap<String, String>, events: i32) -> Result<Arc<Self>, String> {
        let conf = Properties::new(properties)?;
        let reported = Box::<Reported>::default();
        let mut text: [c_char; ERROR_TEXT_BYTES] = [0; ERROR_TEXT_BYTES];
        // SAFETY: the configuration is alive, and the buffer has the length given. On success the handle owns the
        // configuration, so it is forgotten; on failure it is still ours and dropped. The list of errors lives as long
        // as the client, which destroys the handle first.
        unsafe {
            sys::rd_kafka_conf_set_events(conf.0.as_ptr(), events);
            sys::rd_kafka_conf_set_log_cb(conf.0.as_ptr(), Some(forward_log));
            sys::rd_kafka_conf_set_error_cb(conf.0.as_ptr(), Some(keep_error));
            sys::rd_kafka_conf_set_opaque(conf.0.as_ptr(), ptr::from_ref(&*reported).cast_mut().cast());
            let handle = sys::rd_kafka_new(kind.native(), conf.0.as_ptr(), text.as_mut_ptr(), text.len());
            match NonNull::new(handle) {
                Some(handle) => {
                    std::mem::forget(conf);
                    Ok(Arc::new(Self { handle, reported }))
                }
                None => Err(owned_text(text.as_ptr())),
            }
        }
    }

    pub(super) fn ptr(&self) -> *mut sys::rd_kafka_t {
        self.handle.as_ptr()
    }

    /// Errors that came without an event since this was asked last.
    pub fn take_reported(&self) -> Vec<NativeError> {
        let mut reported: MutexGuard<'_, _> = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *reported)
    }

    /// The queue of events that belong to the whole handle: errors, statistics, delivery reports.
    pub fn main_queue(self: &Arc<Self>) -> Option<Queue> {
        // SAFETY: the handle is alive; the returned queue is a new reference that the wrapper destroys.
        unsafe { Queue::from_native(sys::rd_kafka_queue_get_main(self.ptr()), self) }
    }

    /// A new queue of our own.
    pub fn new_queue(self: &Arc<Self>) -> Option<Queue> {
        // SAFETY: the handle is alive; the returned queue belongs to the wrapper.
        unsafe { Queue::from_native(sys::rd_kafka_queue_new(self.ptr()), self) }
    }

    /// The fatal error of this handle, if one was raised.
    pub fn fatal_error(&self) -> Option<NativeError> {
        let mut text: [c_char; ERROR_TEXT_BYTES] = [0; ERROR_TEXT_BYTES];
        // SAFETY: the handle is alive, and the buffer has the length given.
        let code = unsafe { sys::rd_kafka_fatal_error(self.ptr(), text.as_mut_ptr(), text.len()) };
        NativeError::from_code(code).err().map(|error| NativeError {
            fatal: true,
            // SAFETY: librdkafka ended the text with a zero byte.
            reason: unsafe { owned_text(text.as_ptr()) },
            ..error
        })
    }

    /// Asks the cluster about one topic, or only whether a broker answers (`None`).
    pub fn metadata(&self, topic: Option<&Topic>, timeout: Duration) -> Result<Option<TopicMetadata>, NativeError> {
        let only = topic.map_or(ptr::null_mut(), Topic::ptr);
        let mut metadata: *const sys::rd_kafka_metadata = ptr::null();
        // SAFETY: handle and topic are alive; on success `metadata` points to an object that is ours to destroy, whose
        // arrays have the lengths it states.
        unsafe {
            let code = sys::rd_kafka_metadata(self.ptr(), 0, only, &mut metadata, timeout_ms(timeout));
            NativeError::from_code(code)?;
            let described = match topic {
                Some(_) if (*metadata).topic_cnt > 0 => Some(TopicMetadata::read(&*(*metadata).topics)),
                _ => None,
            };
            sys::rd_kafka_metadata_destroy(metadata);
            Ok(described)
        }
    }

    /// Low and high watermark as the partition's leader states them now, by this handle's isolation level.
    pub fn query_watermarks(&self, topic: &str, partition: i32, timeout: Duration) -> Result<(i64, i64), NativeError> {
        let topic = CString::new(topic).map_err(|_| NativeError::plain(Code::InvalidTopic))?;
        let (mut low, mut high) = (0, 0);
        // SAFETY: the handle is alive, the name ends with a zero byte, and the results are written to two locals.
        let code = unsafe {
            let (ptr, name, ms) = (self.ptr(), topic.as_ptr(), timeout_ms(timeout));
            sys::rd_kafka_query_watermark_offsets(ptr, name, partition, &mut low, &mut high, ms)
        };
        NativeError::from_code(code).map(|()| (low, high))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // A member leaves its group explicitly or not at all, so destroying a handle must not wait for that.
        // SAFETY: this is the last reference, so no queue, topic or message of the handle is left.
        unsafe { sys::rd_kafka_destroy_flags(self.ptr(), sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE) }
    }
}

/// A topic as one handle knows it.
pub(in crate::log::kafka) struct Topic {
    native: NonNull<sys::rd_kafka_topic_t>,
    name: Arc<str>,
    client: Arc<Client>,
}

// SAFETY: librdkafka's topic handles are reference-counted and thread-safe.
unsafe impl Send for Topic {}
// SAFETY: as above.
unsafe impl Sync for Topic {}

impl Topic {
    pub fn new(client: &Arc<Client>, name: &Arc<str>) -> Result<Self, NativeError> {
        let native_name = CString::new(&**name).map_err(|_| NativeError::plain(Code::InvalidTopic))?;
        // SAFETY: the handle is alive, the name ends with a zero byte, and a null configuration means the default one.
        let native = unsafe { sys::rd_kafka_topic_new(client.ptr(), native_name.as_ptr(), ptr::null_mut()) };
        match NonNull::new(native) {
            Some(native) => Ok(Self {
                native,
                name: Arc::clone(name),
                client: Arc::clone(client),
            }),
            None => Err(NativeError::plain(Code::InvalidTopic)),
        }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    pub(super) fn ptr(&self) -> *mut sys::rd_kafka_topic_t {
        self.native.as_ptr()
    }

    /// Identifies the topic within its handle; messages carry the same address.
    pub fn address(&self) -> usize {
        self.native.as_ptr() as usize
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: the reference is ours, and the handle is alive because we hold it.
        unsafe { sys::rd_kafka_topic_destroy(self.ptr()) }
    }
}

/// What the cluster says about a topic.
#[derive(Clone, Debug)]
pub(in crate::log::kafka) struct TopicMetadata {
    pub error: Option<Code>,
    pub partitions: i32,
    /// Whether every partition has a leader.
    pub led: bool,
}

impl TopicMetadata {
    /// # Safety
    /// `topic` lies in a metadata object that is alive, so its partition array has the length it states.
    unsafe fn read(topic: &sys::rd_kafka_metadata_topic) -> Self {
        let count = usize::try_from(topic.partition_cnt).unwrap_or(0);
        let partitions = match topic.partitions.is_null() {
            true => &[][..],
            // SAFETY: not null, and of that length by this function's contract.
            false => unsafe { std::slice::from_raw_parts(topic.partitions, count) },
        };
        Self {
            error: NativeError::from_code(topic.err).err().map(|error| error.code),
            partitions: topic.partition_cnt,
            led: partitions.iter().all(|partition| partition.leader >= 0),
        }
    }
}
