//! What a task's state costs: a count through `TaskState` over RocksDB, and applying with and without RocksDB's log.
//!
//! Run with `cargo run --release --example state_costs -- [keys] [updates]`. Times are CPU times of the measuring thread and of
//! the whole process, as Linux counts them, so that a busy machine disturbs them little.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use tidegate::ids::{Epoch, Lineage, StoreId};
use tidegate::state::{
    Overlay, RocksBackend, RocksShared, SortedIncrement, StateBackend, StateMeta, StoreSpec, TaskState,
};

const STORE: StoreId = StoreId(0);
const MIB: usize = 1024 * 1024;
const RECORDS_PER_EPOCH: usize = 50_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let keys: u64 = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let updates: usize = arguments.next().map_or(Ok(5_000_000), |text| text.parse())?;
    println!("{keys} keys of 16 B, {updates} updates of 8 B, epochs of {RECORDS_PER_EPOCH}; ns of CPU per update\n");
    println!("| count through TaskState | get + put | seal + apply | process | hits | cache MB | RSS MB |");
    println!("|---|---|---|---|---|---|---|");
    for cache_bytes in [0, 16 * MIB, 80 * MIB] {
        count(keys, updates, cache_bytes)?;
    }
    hits(keys.min(1_000_000))?;
    println!("\n| apply | write | process, settled | bytes written per key |");
    println!("|---|---|---|---|");
    // Twice each, so that the spread is seen.
    for round in 1..=2 {
        apply(&format!("log off, run {round}"), shared().without_log(), keys, updates)?;
        apply(&format!("log on, never synced, run {round}"), shared(), keys, updates)?;
    }
    Ok(())
}

fn shared() -> RocksShared {
    RocksShared::new(32 * MIB, 64 * MIB)
}

fn stores() -> Vec<StoreSpec> {
    vec![StoreSpec {
        name: "counts".into(),
        ordered: false,
        codecs: "bytes/bytes".into(),
    }]
}

fn meta(epoch: u64) -> StateMeta {
    StateMeta {
        lineage: Lineage(1),
        epoch: Epoch(epoch),
        ended_ms: 0,
        cut: [].into(),
        changelog: [].into(),
    }
}

/// Uniform keys in a repeatable order.
struct Keys {
    state: u64,
    count: u64,
}

impl Keys {
    fn new(count: u64) -> Self {
        Self {
            state: 0x1234_5678_9abc_def1,
            count,
        }
    }

    fn next(&mut self) -> [u8; 16] {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        key(self.state % self.count)
    }
}

/// Numbers spread over the key space, as hashed identifiers are.
fn key(number: u64) -> [u8; 16] {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut key = [0; 16];
    key[..8].copy_from_slice(&spread.to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Increments counters as a count does, and applies each epoch on the same thread.
fn count(keys: u64, updates: usize, cache_bytes: usize) -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let backend: Arc<dyn StateBackend> = Arc::new(RocksBackend::open(directory.path(), &stores(), &shared())?);
    let mut state = TaskState::new(Arc::clone(&backend), &[false], cache_bytes);
    let mut drawn = Keys::new(keys);
    let (mut updating, mut applying) = (0, 0);
    let before = process_cpu_ns()?;
    for epoch in 1..=(updates / RECORDS_PER_EPOCH) as u64 {
        let start = thread_cpu_ns()?;
        for _ in 0..RECORDS_PER_EPOCH {
            let key = drawn.next();
            let count = state
                .get(STORE, &key)?
                .and_then(|bytes| bytes.first_chunk())
                .map_or(0, |bytes| u64::from_be_bytes(*bytes));
            state.put(STORE, &key, &(count + 1).to_be_bytes());
        }
        let middle = thread_cpu_ns()?;
        let sealed = state.seal();
        backend.apply(&*sealed, &meta(epoch))?;
        drop(sealed);
        state.applied();
        updating += middle - start;
        applying += thread_cpu_ns()? - middle;
    }
    let process = process_cpu_ns()? - before;
    let counts = state.counts();
    let per_update = |ns: u64| ns / updates as u64;
    println!(
        "| cache of {} MB | {} | {} | {} | {} % | {} | {} |",
        cache_bytes / MIB,
        per_update(updating),
        per_update(applying),
        per_update(process),
        100 * counts.cache_hits / (counts.cache_hits + counts.cache_misses),
        counts.cache_bytes / MIB,
        resident_bytes()? / MIB,
    );
    Ok(())
}

/// Reads and overwrites that the cache answers, without any epoch.
fn hits(keys: u64) -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let backend: Arc<dyn StateBackend> = Arc::new(RocksBackend::open(directory.path(), &stores(), &shared())?);
    let mut state = TaskState::new(backend, &[false], 96 * MIB);
    for number in 0..keys {
        state.put(STORE, &key(number), &number.to_be_bytes());
    }
    println!();
    for (name, count) in [("all keys", keys), ("1000 keys", 1000)] {
        let rounds = 2_000_000;
        let mut drawn = Keys::new(count);
        let start = thread_cpu_ns()?;
        let mut found = 0;
        for _ in 0..rounds {
            found += state.get(STORE, &drawn.next())?.map_or(0, <[u8]>::len);
        }
        let middle = thread_cpu_ns()?;
        for _ in 0..rounds {
            let key = drawn.next();
            found += state.get(STORE, &key)?.map_or(0, <[u8]>::len);
            state.put(STORE, &key, &key[..8]);
        }
        let get = (middle - start) / rounds;
        let both = (thread_cpu_ns()? - middle) / rounds;
        println!(
            "{name}: get that hits {get} ns, get and put of a key that the epoch has {both} ns ({found} bytes read)"
        );
    }
    Ok(())
}

/// Applies increments of random keys and nothing else.
fn apply(name: &str, shared: RocksShared, keys: u64, updates: usize) -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let backend = RocksBackend::open(directory.path(), &stores(), &shared)?;
    let mut drawn = Keys::new(keys);
    let mut overlay = Overlay::new(&[false]);
    let (mut written, mut writing) = (0, 0);
    let (cpu_before, disk_before) = (process_cpu_ns()?, disk_bytes()?);
    let mut preparing = 0;
    for epoch in 1..=(updates / RECORDS_PER_EPOCH) as u64 {
        let start = thread_cpu_ns()?;
        for _ in 0..RECORDS_PER_EPOCH {
            overlay.put(STORE, &drawn.next(), &epoch.to_be_bytes());
        }
        // Sorts it.
        overlay.for_each(&mut |_, _, _| {});
        let middle = thread_cpu_ns()?;
        backend.apply(&overlay, &meta(epoch))?;
        written += overlay.len() as u64;
        overlay.clear();
        preparing += middle - start;
        writing += thread_cpu_ns()? - middle;
    }
    // Waits for flush and compaction.
    drop(backend);
    let process = process_cpu_ns()? - cpu_before - preparing;
    let disk = disk_bytes()? - disk_before;
    println!(
        "| {name} | {} | {} | {} |",
        writing / written,
        process / written,
        disk / written
    );
    Ok(())
}

fn thread_cpu_ns() -> Result<u64, Box<dyn Error>> {
    cpu_ns(Path::new("/proc/thread-self/schedstat"))
}

fn cpu_ns(path: &Path) -> Result<u64, Box<dyn Error>> {
    let text = fs::read_to_string(path)?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

/// Of the threads that are alive; RocksDB's live as long as the process.
fn process_cpu_ns() -> Result<u64, Box<dyn Error>> {
    let mut sum = 0;
    for thread in fs::read_dir("/proc/self/task")? {
        sum += cpu_ns(&thread?.path().join("schedstat"))?;
    }
    Ok(sum)
}

fn number_after(file: &str, label: &str) -> Result<u64, Box<dyn Error>> {
    let text = fs::read_to_string(file)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(label))
        .unwrap_or_default();
    Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
}

fn disk_bytes() -> Result<u64, Box<dyn Error>> {
    number_after("/proc/self/io", "wchar:")
}

fn resident_bytes() -> Result<usize, Box<dyn Error>> {
    Ok(number_after("/proc/self/status", "VmRSS:")? as usize * 1024)
}
