//! Lists of partitions with offsets and metadata.

use std::ffi::{CString, c_int};
use std::ptr::{self, NonNull};

use rdkafka_sys as sys;

use super::{Code, NativeError, owned_text};
use crate::ids::TopicPartition;

/// One element of a list that librdkafka filled in.
#[derive(Clone, Debug)]
pub(in crate::log::kafka) struct PartitionResult {
    pub partition: TopicPartition,
    /// Negative where librdkafka has none.
    pub offset: i64,
    pub metadata: String,
    pub error: Option<Code>,
}

/// A native list of partitions.
pub(in crate::log::kafka) struct PartitionList(NonNull<sys::rd_kafka_topic_partition_list_t>);

impl PartitionList {
    pub fn with_capacity(capacity: usize) -> Option<Self> {
        let size = c_int::try_from(capacity).ok()?;
        // SAFETY: plain constructor; null is checked.
        NonNull::new(unsafe { sys::rd_kafka_topic_partition_list_new(size) }).map(Self)
    }

    pub(super) fn ptr(&self) -> *mut sys::rd_kafka_topic_partition_list_t {
        self.0.as_ptr()
    }

    /// Appends a partition with an offset, and with metadata unless that is empty.
    pub fn push(&mut self, partition: &TopicPartition, offset: i64, metadata: &str) -> Result<(), NativeError> {
        let topic = CString::new(&*partition.topic).map_err(|_| NativeError::plain(Code::InvalidTopic))?;
        // SAFETY: the list is alive and copies the name. The metadata is put into memory of librdkafka's allocator,
        // which is what the list frees; it is written only where the allocation succeeded and is that long.
        unsafe {
            let element = sys::rd_kafka_topic_partition_list_add(self.ptr(), topic.as_ptr(), partition.partition);
            (*element).offset = offset;
            if !metadata.is_empty() {
                let copy = sys::rd_kafka_mem_malloc(ptr::null_mut(), metadata.len());
                if copy.is_null() {
                    return Err(NativeError::plain(Code::CriticalSystemResource));
                }
                ptr::copy_nonoverlapping(metadata.as_ptr(), copy.cast(), metadata.len());
                (*element).metadata = copy;
                (*element).metadata_size = metadata.len();
            }
        }
        Ok(())
    }

    /// All elements, in librdkafka's order.
    pub fn read(&self) -> Vec<PartitionResult> {
        // SAFETY: the list is alive.
        unsafe { Self::read_native(self.ptr()) }
    }

    /// # Safety
    /// `list` is null or alive.
    pub(super) unsafe fn read_native(list: *mut sys::rd_kafka_topic_partition_list_t) -> Vec<PartitionResult> {
        if list.is_null() {
            return Vec::new();
        }
        // SAFETY: the list is alive, and its array has as many elements as it states.
        let elements = unsafe {
            match usize::try_from((*list).cnt) {
                Ok(count) if count > 0 => std::slice::from_raw_parts((*list).elems, count),
                _ => &[],
            }
        };
        // SAFETY: name and metadata of an element are valid while the list is; metadata is as long as stated.
        let read_element = |element: &sys::rd_kafka_topic_partition_t| unsafe {
            let metadata = match element.metadata.is_null() {
                true => &[][..],
                false => std::slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size),
            };
            PartitionResult {
                partition: TopicPartition::new(owned_text(element.topic), element.partition),
                offset: element.offset,
                metadata: String::from_utf8_lossy(metadata).into_owned(),
                error: NativeError::from_code(element.err).err().map(|error| error.code),
            }
        };
        elements.iter().map(read_element).collect()
    }
}

impl Drop for PartitionList {
    fn drop(&mut self) {
        // SAFETY: the list is ours and destroyed once.
        unsafe { sys::rd_kafka_topic_partition_list_destroy(self.ptr()) }
    }
}
