//! How often each record was processed, committed or not: what the topology's witness file says.
//!
//! The topology appends the sequence number of every record that it sees to a file, outside of any transaction. So
//! the file shows work that was done and thrown away, which no consumer of the output can see.

use std::io;
use std::path::Path;

/// Records processed, by how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Processed {
    /// Times that a record went through the topology.
    pub total: u64,
    /// Different records among them.
    pub distinct: u64,
}

impl Processed {
    /// How often a record was processed again.
    pub fn repeated(&self) -> u64 {
        self.total - self.distinct
    }
}

/// Counts what some witness files say together; a file that does not exist counts as empty.
///
/// # Errors
/// Where a file cannot be read.
pub fn count<'a>(files: impl IntoIterator<Item = &'a Path>) -> io::Result<Processed> {
    let mut processed = Processed::default();
    let mut seen = Vec::new();
    for file in files {
        let bytes = match std::fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        add(&bytes, &mut seen, &mut processed);
    }
    Ok(processed)
}

fn add(bytes: &[u8], seen: &mut Vec<u64>, processed: &mut Processed) {
    let (entries, _torn) = bytes.as_chunks::<8>();
    for entry in entries {
        let sequence = u64::from_le_bytes(*entry) as usize;
        let (word, bit) = (sequence / 64, 1 << (sequence % 64));
        if word >= seen.len() {
            seen.resize(word + 1, 0);
        }
        processed.total += 1;
        if seen[word] & bit == 0 {
            seen[word] |= bit;
            processed.distinct += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_found_within_and_across_files() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, sequences: &[u64]| {
            let path = directory.path().join(name);
            let bytes: Vec<u8> = sequences.iter().flat_map(|sequence| sequence.to_le_bytes()).collect();
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let (one, two) = (write("one", &[0, 1, 2, 1]), write("two", &[2, 3, 200]));
        let absent = directory.path().join("absent");
        let processed = count([one.as_path(), two.as_path(), absent.as_path()]).unwrap();
        assert_eq!(processed, Processed { total: 7, distinct: 5 });
        assert_eq!(processed.repeated(), 2);
    }
}
