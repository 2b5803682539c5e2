//! Word count: how often each word was said.
//!
//! The first topology to read. It takes lines of text from the topic `lines`, splits them into words, and writes to
//! the topic `word-counts`, for every word, how often it has occurred so far:
//!
//! ```text
//! lines                          word-counts
//! (null, "to be or not to be")   ("to", 1) ("be", 1) ("or", 1) ("not", 1) ("to", 2) ("be", 2)
//! ```
//!
//! Words of one line go to different partitions, so that all occurrences of a word are counted in one place: `group_by`
//! sends them through an internal topic. The counts are kept in a store. Kill the process at any moment: when it is
//! started again every word counts once.

use tidegate::codec::{I64Be, Utf8};
use tidegate::topology::{Builder, Topic, Topology, TopologyError};

/// The topic with lines of text.
pub const LINES: &str = "lines";
/// The topic with counts: key the word, value its count as 8 bytes, big-endian.
pub const WORD_COUNTS: &str = "word-counts";

/// Builds the topology.
///
/// # Errors
/// [`TopologyError`] if the topology contradicts itself, which its test rules out.
pub fn topology() -> Result<Topology, TopologyError> {
    let builder = Builder::new();
    builder
        .stream(&Topic::new(LINES, Utf8, Utf8))
        .flat_map_values(words)
        .group_by("by-word", |record| record.value.clone())
        .count("counts")
        .to_stream()
        .to(&Topic::new(WORD_COUNTS, Utf8, I64Be));
    builder.build()
}

/// The words of a line in lower case, without punctuation around them.
fn words(line: String) -> Vec<String> {
    line.split(|letter: char| !letter.is_alphanumeric() && letter != '\'')
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_lower_case_and_have_no_punctuation() {
        assert_eq!(
            words("To be, or not -- to BE?".to_owned()),
            ["to", "be", "or", "not", "to", "be"]
        );
        assert!(words(" … ".to_owned()).is_empty());
    }
}
