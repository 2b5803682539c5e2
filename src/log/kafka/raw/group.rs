//! Group membership, and reads and writes of a group's offsets.

use std::ffi::CString;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka_sys as sys;

use super::{Client, Code, NativeError, PartitionList, Queue, owned_text, timeout_ms};
use crate::log::GroupMetadata;

fn native_text(text: &str) -> Result<CString, NativeError> {
    CString::new(text).map_err(|_| NativeError::plain(Code::InvalidArgument))
}

/// librdkafka's form of a member's identity.
pub(super) struct NativeGroupMetadata(NonNull<sys::rd_kafka_consumer_group_metadata_t>);

impl NativeGroupMetadata {
    pub(super) fn new(group: &GroupMetadata) -> Result<Self, NativeError> {
        let id = native_text(&group.group)?;
        let member = native_text(&group.member_id)?;
        let instance = group.instance_id.as_deref().map(native_text).transpose()?;
        // SAFETY: the strings end with a zero byte and are copied; a null instance id means a dynamic member.
        let native = unsafe {
            let instance = instance.as_ref().map_or(ptr::null(), |instance| instance.as_ptr());
            sys::rd_kafka_consumer_group_metadata_new_with_genid(
                id.as_ptr(),
                group.generation,
                member.as_ptr(),
                instance,
            )
        };
        NonNull::new(native)
            .map(Self)
            .ok_or_else(|| NativeError::plain(Code::InvalidArgument))
    }

    pub(super) fn ptr(&self) -> *mut sys::rd_kafka_consumer_group_metadata_t {
        self.0.as_ptr()
    }
}

impl Drop for NativeGroupMetadata {
    fn drop(&mut self) {
        // SAFETY: ours and destroyed once.
        unsafe { sys::rd_kafka_consumer_group_metadata_destroy(self.ptr()) }
    }
}

impl Client {
    /// The queue that a member must serve; from now on it carries the events of the whole handle too.
    pub fn member_queue(self: &Arc<Self>) -> Option<Queue> {
        // SAFETY: the handle is alive; the returned queue is a new reference that the wrapper destroys.
        unsafe {
            sys::rd_kafka_poll_set_consumer(self.ptr());
            Queue::from_native(sys::rd_kafka_queue_get_consumer(self.ptr()), self)
        }
    }

    pub fn subscribe(&self, topics: &PartitionList) -> Result<(), NativeError> {
        // SAFETY: handle and list are alive.
        NativeError::from_code(unsafe { sys::rd_kafka_subscribe(self.ptr(), topics.ptr()) })
    }

    pub fn take_partitions(&self, partitions: &PartitionList) -> Result<(), NativeError> {
        // SAFETY: handle and list are alive; the error is taken over.
        unsafe { NativeError::check(sys::rd_kafka_incremental_assign(self.ptr(), partitions.ptr())) }
    }

    pub fn give_up_partitions(&self, partitions: &PartitionList) -> Result<(), NativeError> {
        // SAFETY: handle and list are alive; the error is taken over.
        unsafe { NativeError::check(sys::rd_kafka_incremental_unassign(self.ptr(), partitions.ptr())) }
    }

    /// Whether the partitions may belong to somebody else already.
    pub fn assignment_lost(&self) -> bool {
        // SAFETY: the handle is alive.
        unsafe { sys::rd_kafka_assignment_lost(self.ptr()) != 0 }
    }

    /// The member's identity at this moment. Asks the client's main thread, never the network.
    pub fn group_metadata(&self) -> Option<GroupMetadata> {
        // SAFETY: the handle is alive; the object is ours, and its texts are copied before it is destroyed.
        unsafe {
            let native = NonNull::new(sys::rd_kafka_consumer_group_metadata(self.ptr())).map(NativeGroupMetadata)?;
            let ptr = native.ptr();
            let instance = sys::rd_kafka_consumer_group_metadata_group_instance_id(ptr);
            Some(GroupMetadata {
                group: owned_text(sys::rd_kafka_consumer_group_metadata_group_id(ptr)),
                generation: sys::rd_kafka_consumer_group_metadata_generation_id(ptr),
                member_id: owned_text(sys::rd_kafka_consumer_group_metadata_member_id(ptr)),
                instance_id: (!instance.is_null()).then(|| owned_text(instance)),
            })
        }
    }

    /// Begins to leave the group; what remains to be answered comes to `queue` until [`Client::is_closed`].
    pub fn close(&self, queue: &Queue) -> Result<(), NativeError> {
        // SAFETY: handle and queue are alive; the error is taken over.
        unsafe { NativeError::check(sys::rd_kafka_consumer_close_queue(self.ptr(), queue.ptr())) }
    }

    pub fn is_closed(&self) -> bool {
        // SAFETY: the handle is alive.
        unsafe { sys::rd_kafka_consumer_closed(self.ptr()) != 0 }
    }

    /// Commits offsets as the member that this handle is; the answer comes to `queue`.
    pub fn commit_offsets(&self, offsets: &PartitionList, queue: &Queue) -> Result<(), NativeError> {
        // SAFETY: handle, list and queue are alive; librdkafka copies the list and keeps a reference of the queue.
        let code = unsafe { sys::rd_kafka_commit_queue(self.ptr(), offsets.ptr(), queue.ptr(), None, ptr::null_mut()) };
        NativeError::from_code(code)
    }

    /// Fills in what the handle's group has committed; waits for pending transactions if the handle reads committed.
    pub fn committed(&self, partitions: &PartitionList, timeout: Duration) -> Result<(), NativeError> {
        // SAFETY: handle and list are alive.
        let code = unsafe { sys::rd_kafka_committed(self.ptr(), partitions.ptr(), timeout_ms(timeout)) };
        NativeError::from_code(code)
    }
}
