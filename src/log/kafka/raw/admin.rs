//! Administration of topics: requests that answer to a queue of their own.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use rdkafka_sys as sys;

use super::{Client, Code, NativeError, PartitionList, PartitionResult, Queue, owned_text, timeout_ms};

/// What librdkafka may take beyond a request's time-out to say so.
const ANSWER_SLACK: Duration = Duration::from_secs(1);

/// A topic to create.
pub(in crate::log::kafka) struct NewTopic<'a> {
    pub name: &'a str,
    pub partitions: i32,
    /// -1 for the broker's default.
    pub replication: i32,
    pub config: &'a [(String, String)],
}

/// A native object that is destroyed by the function it was wrapped with.
struct Owned<T>(NonNull<T>, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    /// # Safety
    /// `object` is null, or the caller's own, and `destroy` is the function that destroys it.
    unsafe fn new(object: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Result<Self, NativeError> {
        let object = NonNull::new(object).ok_or_else(|| NativeError::plain(Code::InvalidArgument))?;
        Ok(Self(object, destroy))
    }

    fn ptr(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: by the contract of `new`.
        unsafe { (self.1)(self.ptr()) }
    }
}

type Options = Owned<sys::rd_kafka_AdminOptions_t>;

fn native_text(text: &str) -> Result<CString, NativeError> {
    CString::new(text).map_err(|_| NativeError::plain(Code::InvalidArgument))
}

fn failed(code: sys::rd_kafka_resp_err_t, reason: String) -> Result<(), NativeError> {
    NativeError::from_code(code).map_err(|error| match reason.is_empty() {
        true => error,
        false => NativeError { reason, ..error },
    })
}

/// # Safety
/// `list` is null or points to `count` elements that stay valid during `'a`.
unsafe fn slice<'a, T>(list: *mut *const T, count: usize) -> &'a [*const T] {
    match list.is_null() {
        true => &[],
        // SAFETY: by this function's contract.
        false => unsafe { std::slice::from_raw_parts(list, count) },
    }
}

/// # Safety
/// `array` is null or points to `count` elements that stay valid during `'a`.
unsafe fn elements<'a, T>(array: *mut T, count: std::ffi::c_int) -> &'a [T] {
    match usize::try_from(count) {
        // SAFETY: by this function's contract.
        Ok(count) if !array.is_null() => unsafe { std::slice::from_raw_parts(array, count) },
        _ => &[],
    }
}

/// # Safety
/// `list` is a list of groups of the caller, who does not use it afterwards.
unsafe extern "C" fn destroy_groups(list: *mut sys::rd_kafka_group_list) {
    // SAFETY: by this function's contract.
    unsafe { sys::rd_kafka_group_list_destroy(list) }
}

impl Client {
    fn options(&self, timeout: Duration, operation: bool) -> Result<Options, NativeError> {
        let mut text: [c_char; 128] = [0; 128];
        let ms = timeout_ms(timeout);
        // SAFETY: handle and options are alive, and the buffer has the length given.
        unsafe {
            let options = sys::rd_kafka_AdminOptions_new(self.ptr(), sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_ANY);
            let options = Owned::new(options, sys::rd_kafka_AdminOptions_destroy)?;
            let (ptr, out, len) = (options.ptr(), text.as_mut_ptr(), text.len());
            NativeError::from_code(sys::rd_kafka_AdminOptions_set_request_timeout(ptr, ms, out, len))?;
            if operation {
                NativeError::from_code(sys::rd_kafka_AdminOptions_set_operation_timeout(ptr, ms, out, len))?;
            }
            Ok(options)
        }
    }

    fn answer_queue(self: &Arc<Self>) -> Result<Queue, NativeError> {
        self.new_queue()
            .ok_or_else(|| NativeError::plain(Code::CriticalSystemResource))
    }

    pub fn create_topic(self: &Arc<Self>, topic: &NewTopic<'_>, timeout: Duration) -> Result<(), NativeError> {
        let name = native_text(topic.name)?;
        let mut text: [c_char; 256] = [0; 256];
        let queue = self.answer_queue()?;
        let options = self.options(timeout, true)?;
        // SAFETY: everything passed is alive during the calls and copied by librdkafka; `text` has the length given; the
        // results belong to the event and are read while that is alive.
        unsafe {
            let (partitions, replication) = (topic.partitions, topic.replication);
            let (out, len) = (text.as_mut_ptr(), text.len());
            let new = sys::rd_kafka_NewTopic_new(name.as_ptr(), partitions, replication, out, len);
            let new = Owned::new(new, sys::rd_kafka_NewTopic_destroy).map_err(|error| NativeError {
                reason: owned_text(text.as_ptr()),
                ..error
            })?;
            for (key, value) in topic.config {
                let (key, value) = (native_text(key)?, native_text(value)?);
                let set = sys::rd_kafka_NewTopic_set_config(new.ptr(), key.as_ptr(), value.as_ptr());
                NativeError::from_code(set)?;
            }
            sys::rd_kafka_CreateTopics(self.ptr(), &mut new.ptr(), 1, options.ptr(), queue.ptr());
            let event = answer(&queue, timeout)?;
            let mut count = 0;
            let result = sys::rd_kafka_event_CreateTopics_result(event.ptr());
            topic_results(slice(
                sys::rd_kafka_CreateTopics_result_topics(result, &mut count),
                count,
            ))
        }
    }

    /// Sets these settings of a topic, and no others.
    pub fn alter_topic(
        self: &Arc<Self>,
        name: &str,
        config: &[(String, String)],
        timeout: Duration,
    ) -> Result<(), NativeError> {
        let name = native_text(name)?;
        let queue = self.answer_queue()?;
        let options = self.options(timeout, false)?;
        let kind = sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
        let set = sys::rd_kafka_AlterConfigOpType_t::RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET;
        // SAFETY: as in `create_topic`; the error of an entry is ours and `check` destroys it.
        unsafe {
            let resource = sys::rd_kafka_ConfigResource_new(kind, name.as_ptr());
            let resource = Owned::new(resource, sys::rd_kafka_ConfigResource_destroy)?;
            for (key, value) in config {
                let (key, value) = (native_text(key)?, native_text(value)?);
                let (key, value) = (key.as_ptr(), value.as_ptr());
                let added = sys::rd_kafka_ConfigResource_add_incremental_config(resource.ptr(), key, set, value);
                NativeError::check(added)?;
            }
            sys::rd_kafka_IncrementalAlterConfigs(self.ptr(), &mut resource.ptr(), 1, options.ptr(), queue.ptr());
            let event = answer(&queue, timeout)?;
            let mut count = 0;
            let result = sys::rd_kafka_event_IncrementalAlterConfigs_result(event.ptr());
            for resource in slice(
                sys::rd_kafka_IncrementalAlterConfigs_result_resources(result, &mut count),
                count,
            ) {
                let reason = owned_text(sys::rd_kafka_ConfigResource_error_string(*resource));
                failed(sys::rd_kafka_ConfigResource_error(*resource), reason)?;
            }
            Ok(())
        }
    }

    pub fn delete_topic(self: &Arc<Self>, name: &str, timeout: Duration) -> Result<(), NativeError> {
        let name = native_text(name)?;
        let queue = self.answer_queue()?;
        let options = self.options(timeout, true)?;
        // SAFETY: as in `create_topic`.
        unsafe {
            let topic = sys::rd_kafka_DeleteTopic_new(name.as_ptr());
            let topic = Owned::new(topic, sys::rd_kafka_DeleteTopic_destroy)?;
            sys::rd_kafka_DeleteTopics(self.ptr(), &mut topic.ptr(), 1, options.ptr(), queue.ptr());
            let event = answer(&queue, timeout)?;
            let mut count = 0;
            let result = sys::rd_kafka_event_DeleteTopics_result(event.ptr());
            topic_results(slice(
                sys::rd_kafka_DeleteTopics_result_topics(result, &mut count),
                count,
            ))
        }
    }

    /// Deletes the records before the offsets of `before`; each partition answers for itself.
    pub fn delete_records(
        self: &Arc<Self>,
        before: &PartitionList,
        timeout: Duration,
    ) -> Result<Vec<PartitionResult>, NativeError> {
        let queue = self.answer_queue()?;
        let options = self.options(timeout, true)?;
        // SAFETY: as in `create_topic`; the list is only read.
        unsafe {
            let request = sys::rd_kafka_DeleteRecords_new(before.ptr());
            let request = Owned::new(request, sys::rd_kafka_DeleteRecords_destroy)?;
            sys::rd_kafka_DeleteRecords(self.ptr(), &mut request.ptr(), 1, options.ptr(), queue.ptr());
            let event = answer(&queue, timeout)?;
            let result = sys::rd_kafka_event_DeleteRecords_result(event.ptr());
            Ok(PartitionList::read_native(
                sys::rd_kafka_DeleteRecords_result_offsets(result).cast_mut(),
            ))
        }
    }

    /// Whether a group is stable, and what its members were given, each as the consumer protocol encodes it.
    ///
    /// By the older call: the one of the administration interface fails an assertion of librdkafka 2.12 and ends the
    /// process when the coordinator goes away in the middle of it (`rd_kafka_enq_once_del_source_return`).
    pub fn describe_group(&self, group: &str, timeout: Duration) -> Result<(bool, Vec<Vec<u8>>), NativeError> {
        let name = native_text(group)?;
        let mut list: *const sys::rd_kafka_group_list = std::ptr::null();
        let mut is_stable = false;
        let mut assignments = Vec::new();
        // SAFETY: handle and name are alive; the list is ours, is read while it is alive, and its arrays have the lengths given.
        unsafe {
            let code = sys::rd_kafka_list_groups(self.ptr(), name.as_ptr(), &mut list, timeout_ms(timeout));
            // There may be a list beside an error: what some of the brokers have answered.
            let list = Owned::new(list.cast_mut(), destroy_groups);
            NativeError::from_code(code)?;
            let list = list?;
            let groups = elements((*list.ptr()).groups, (*list.ptr()).group_cnt);
            for group in groups.iter().filter(|found| owned_text(found.group) == group) {
                NativeError::from_code(group.err)?;
                is_stable = owned_text(group.state) == "Stable";
                for member in elements(group.members, group.member_cnt) {
                    let bytes = elements(member.member_assignment.cast::<u8>(), member.member_assignment_size);
                    assignments.push(bytes.to_vec());
                }
            }
        }
        Ok((is_stable, assignments))
    }

    /// All settings of a topic, by name.
    pub fn topic_config(
        self: &Arc<Self>,
        name: &str,
        timeout: Duration,
    ) -> Result<BTreeMap<String, String>, NativeError> {
        let name = native_text(name)?;
        let queue = self.answer_queue()?;
        let options = self.options(timeout, false)?;
        let kind = sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
        let mut config = BTreeMap::new();
        // SAFETY: as in `create_topic`.
        unsafe {
            let resource = sys::rd_kafka_ConfigResource_new(kind, name.as_ptr());
            let resource = Owned::new(resource, sys::rd_kafka_ConfigResource_destroy)?;
            sys::rd_kafka_DescribeConfigs(self.ptr(), &mut resource.ptr(), 1, options.ptr(), queue.ptr());
            let event = answer(&queue, timeout)?;
            let mut count = 0;
            let result = sys::rd_kafka_event_DescribeConfigs_result(event.ptr());
            for resource in slice(
                sys::rd_kafka_DescribeConfigs_result_resources(result, &mut count),
                count,
            ) {
                let reason = owned_text(sys::rd_kafka_ConfigResource_error_string(*resource));
                failed(sys::rd_kafka_ConfigResource_error(*resource), reason)?;
                let mut entries = 0;
                for entry in slice(sys::rd_kafka_ConfigResource_configs(*resource, &mut entries), entries) {
                    let key = owned_text(sys::rd_kafka_ConfigEntry_name(*entry));
                    config.insert(key, owned_text(sys::rd_kafka_ConfigEntry_value(*entry)));
                }
            }
        }
        Ok(config)
    }
}

/// The event that answers a request, if it says that the request as a whole went well.
///
/// # Safety
/// `queue` gets the answer of one request and nothing else.
unsafe fn answer(queue: &Queue, timeout: Duration) -> Result<Owned<sys::rd_kafka_event_t>, NativeError> {
    // SAFETY: the queue is alive; the event is ours, and its text is read while it is alive.
    unsafe {
        let event = sys::rd_kafka_queue_poll(queue.ptr(), timeout_ms(timeout.saturating_add(ANSWER_SLACK)));
        if event.is_null() {
            return Err(NativeError::plain(Code::OperationTimedOut));
        }
        let event = Owned::new(event, sys::rd_kafka_event_destroy)?;
        let reason = owned_text(sys::rd_kafka_event_error_string(event.ptr()));
        failed(sys::rd_kafka_event_error(event.ptr()), reason)?;
        Ok(event)
    }
}

/// # Safety
/// All results are alive.
unsafe fn topic_results(results: &[*const sys::rd_kafka_topic_result_t]) -> Result<(), NativeError> {
    for result in results {
        // SAFETY: alive by this function's contract.
        unsafe {
            let reason = owned_text(sys::rd_kafka_topic_result_error_string(*result));
            failed(sys::rd_kafka_topic_result_error(*result), reason)?;
        }
    }
    Ok(())
}
