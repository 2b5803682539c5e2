//! How RocksDB is set up: what all tasks of an instance share, and what each database gets.

use std::sync::Once;

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompactionStyle, DBCompressionType, Env,
    LogLevel, Options, UniversalCompactOptions, WriteBufferManager,
};

use super::METADATA;
use crate::threads::give_way;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// Larger skiplists are colder and slower, smaller ones compact more often.
const MAX_MEMTABLE_BYTES: usize = 16 * MIB;
/// Memtables of a store that may wait for the disk before writes do; the manager bounds the bytes of all together. The metadata has one in
/// each flush, so it needs as many as the stores: with RocksDB's two, writes stop as soon as a second flush is asked for.
const MEMTABLES: i32 = 4;
/// Every open database reserves at least one such piece per store that was written.
const ARENA_PIECE_BYTES: usize = 256 * KIB;
const MAX_OPEN_FILES: i32 = 256;
/// Threads that merge into the oldest runs, for all databases of the process.
const LARGE_MERGES: i32 = 1;
/// Sorted runs of a store at which some of them are merged. Each that a lookup does not find its key in costs it a filter.
const RUNS: i32 = 8;
/// All is rewritten when what came later is so many percent of the oldest run. Less would be more rewriting, more would be a larger disk, and
/// a longer restore.
const LATER_PERCENT: i32 = 100;
/// A run consists of files of this size. The first record of a task that is restored lazily waits for one of each run; an open file takes a
/// descriptor.
const FILE_BYTES: u64 = 32 * MIB as u64;
/// Sorted runs at which RocksDB lets writes wait, and at which it stops them. Far from what it takes to merge some: writes wait at both.
pub(super) const SLOWDOWN_FILES: usize = 40;
pub(super) const STOP_FILES: usize = 60;
/// The first two levels are rewritten all the time and hold little; what is compressed there costs more than it saves.
const COMPRESSION: [DBCompressionType; 7] = [
    DBCompressionType::None,
    DBCompressionType::None,
    DBCompressionType::Lz4,
    DBCompressionType::Lz4,
    DBCompressionType::Lz4,
    DBCompressionType::Lz4,
    DBCompressionType::Lz4,
];

/// What the databases of all tasks of one instance share, so that their memory is bounded together. A clone shares it too.
#[derive(Clone)]
pub struct RocksShared {
    block_cache: Cache,
    write_buffers: WriteBufferManager,
    memtable_bytes: usize,
    pub(super) log: bool,
}

impl RocksShared {
    /// A block cache of at most `block_cache_bytes` for data, indexes and filters, and memtables of about `write_buffer_bytes`
    /// in all: past that bound, a database that is written to flushes.
    pub fn new(block_cache_bytes: usize, write_buffer_bytes: usize) -> Self {
        start_large_merges();
        Self {
            block_cache: Cache::new_hyper_clock_cache(block_cache_bytes, 0),
            write_buffers: WriteBufferManager::new_write_buffer_manager(write_buffer_bytes, false),
            // A quarter at most, since each memtable reserves a twentieth of its size as soon as it is opened.
            memtable_bytes: (write_buffer_bytes / 4).clamp(MIB, MAX_MEMTABLE_BYTES),
            log: true,
        }
    }

    /// Databases without a write-ahead log: a killed process loses what was not flushed. Only to measure what the log costs.
    #[doc(hidden)]
    pub fn without_log(self) -> Self {
        Self { log: false, ..self }
    }

    /// Bytes that cached blocks take.
    pub fn block_cache_bytes(&self) -> usize {
        self.block_cache.get_usage()
    }

    /// Bytes that memtables take.
    pub fn write_buffer_bytes(&self) -> usize {
        self.write_buffers.get_usage()
    }

    pub(super) fn database_options(&self) -> Options {
        let mut options = Options::default();
        options.set_write_buffer_manager(&self.write_buffers);
        // Stores and metadata reach the disk together, so what survives a machine crash is a prefix of whole batches.
        options.set_atomic_flush(true);
        options.set_max_total_wal_size(128 * MIB as u64);
        options.set_max_background_jobs(2);
        options.set_max_open_files(MAX_OPEN_FILES);
        options.set_bytes_per_sync(MIB as u64);
        options.set_manifest_preallocation_size(64 * KIB);
        options.set_max_manifest_file_size(16 * MIB);
        options.set_log_level(LogLevel::Warn);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(MIB);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options.set_skip_stats_update_on_db_open(true);
        options
    }

    pub(super) fn store(&self, column_family: &str, is_compacted: bool) -> ColumnFamilyDescriptor {
        let mut options = Options::default();
        options.set_disable_auto_compactions(!is_compacted);
        options.set_write_buffer_size(self.memtable_bytes);
        options.set_max_write_buffer_number(MEMTABLES);
        options.set_arena_block_size(ARENA_PIECE_BYTES);
        options.set_compression_per_level(&COMPRESSION);
        // A key that is absent, as most new keys are, then costs no walk through the memtable.
        options.set_memtable_prefix_bloom_ratio(0.05);
        options.set_memtable_whole_key_filtering(true);
        options.set_block_based_table_factory(&self.table_options());
        // What is rewritten is uploaded again: runs of similar size are merged, and none of them into all that there is
        // (docs/adr/0019-few-rewrites.md).
        options.set_compaction_style(DBCompactionStyle::Universal);
        options.set_universal_compaction_options(&universal());
        options.set_level_zero_file_num_compaction_trigger(RUNS);
        options.set_level_zero_slowdown_writes_trigger(SLOWDOWN_FILES as i32);
        options.set_level_zero_stop_writes_trigger(STOP_FILES as i32);
        options.set_target_file_size_base(FILE_BYTES);
        ColumnFamilyDescriptor::new(column_family, options)
    }

    /// One small value that is overwritten by every epoch.
    pub(super) fn metadata(&self, is_compacted: bool) -> ColumnFamilyDescriptor {
        let mut options = Options::default();
        options.set_disable_auto_compactions(!is_compacted);
        // When it is full all stores are flushed with it.
        options.set_write_buffer_size(4 * MIB);
        options.set_max_write_buffer_number(MEMTABLES);
        options.set_arena_block_size(64 * KIB);
        options.set_block_based_table_factory(&self.table_options());
        ColumnFamilyDescriptor::new(METADATA, options)
    }

    fn table_options(&self) -> BlockBasedOptions {
        let mut options = BlockBasedOptions::default();
        options.set_block_cache(&self.block_cache);
        options.set_block_size(4 * KIB);
        options.set_bloom_filter(10.0, false);
        // Else their memory would grow with the state, without a bound.
        options.set_cache_index_and_filter_blocks(true);
        options.set_pin_l0_filter_and_index_blocks_in_cache(true);
        // A lookup then needs 4 KiB of index and filter, not all of a file: of a large state more than the cache holds.
        options.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        options.set_partition_filters(true);
        options.set_metadata_block_size(4 * KIB);
        options.set_pin_top_level_index_and_filter(true);
        options
    }
}

fn universal() -> UniversalCompactOptions {
    let mut universal = UniversalCompactOptions::default();
    universal.set_max_size_amplification_percent(LATER_PERCENT);
    universal
}

/// Starts the thread of this process that merges into the oldest runs. All of a store takes it long: beside it the small merges go on in
/// another, and it gives way. It is started by a thread that does, since RocksDB itself knows only its own priority and the lowest, at which
/// it would stand still on a busy machine.
fn start_large_merges() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let starter = std::thread::Builder::new().name("rocksdb-start".to_owned());
        let starter = starter.spawn(|| {
            give_way();
            // A number that is set starts the threads that are missing, at once.
            Env::new().map(|mut env| env.set_bottom_priority_background_threads(LARGE_MERGES))
        });
        let started = starter.map(std::thread::JoinHandle::join);
        if !matches!(started, Ok(Ok(Ok(())))) {
            tracing::debug!("large merges of databases hold up the small ones");
        }
    });
}
