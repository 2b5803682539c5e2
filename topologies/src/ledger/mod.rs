//! The ledger: counts entries per account, then once more per bucket of accounts.
//!
//! It exists to be audited. Every entry leaves one record at each of the two stages that names the entry and the
//! running totals after it, so that whoever reads the output sees at once whether an entry was counted twice, not at
//! all, or in the wrong order. The second stage lies behind a repartition topic.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tidegate::codec::{DefaultCodec, I64Be, Json, Utf8};
use tidegate::errors::Coded;
use tidegate::topology::{Builder, Topic, Topology, TopologyError};

/// Number of buckets; an account belongs to bucket `account % BUCKETS`.
pub const BUCKETS: u64 = 10;
/// Names of the stores of the two stages.
pub const STORES: [&str; 2] = ["accounts", "buckets"];

/// What the topology may be told, in the table `[parameters]` of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Parameters {
    /// Topic of the entries: key = number of the account in decimal digits, value = sequence number as 64-bit integer.
    pub input: String,
    /// Topic of the balances per account.
    pub accounts: String,
    /// Topic of the balances per bucket.
    pub buckets: String,
    /// File to which the sequence number of every entry is appended when it is processed, committed or not.
    pub witness: Option<PathBuf>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            input: "ledger-entries".to_owned(),
            accounts: "ledger-accounts".to_owned(),
            buckets: "ledger-buckets".to_owned(),
            witness: None,
        }
    }
}

/// The running total of an account or of a bucket after one entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// Entries so far, this one included.
    pub count: u64,
    /// Sum of their sequence numbers, this one included.
    pub sum: i64,
    /// Sequence number of this entry.
    pub sequence: i64,
}

impl Balance {
    fn after(self, sequence: i64) -> Self {
        Self {
            count: self.count + 1,
            sum: self.sum + sequence,
            sequence,
        }
    }
}

impl DefaultCodec for Balance {
    type Codec = Json<Balance>;
}

/// Why the ledger cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The witness file cannot be opened.
    #[error("cannot open {path}: {source}; parameters.witness must be a file that can be written, or be left out")]
    Witness {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The topology is wrong.
    #[error(transparent)]
    Topology(#[from] TopologyError),
}

impl Coded for LedgerError {
    fn code(&self) -> &'static str {
        match self {
            LedgerError::Witness { .. } => "TG5111",
            LedgerError::Topology(error) => error.code(),
        }
    }
}

/// Builds the topology.
///
/// # Errors
/// [`LedgerError::Witness`] where the witness file cannot be opened.
pub fn topology(parameters: &Parameters) -> Result<Topology, LedgerError> {
    let witness = parameters.witness.as_deref().map(Witness::open).transpose()?;
    let builder = Builder::new();
    let balances = builder
        .stream(&Topic::new(parameters.input.as_str(), Utf8, I64Be))
        .peek(move |entry| {
            if let (Some(witness), Some(sequence)) = (&witness, entry.value) {
                witness.note(sequence);
            }
        })
        .group_by_key()
        .aggregate(STORES[0], Balance::default, |_, sequence, balance| {
            balance.after(sequence)
        })
        .to_stream();
    balances.to(&Topic::new(parameters.accounts.as_str(), Utf8, Json::<Balance>::new()));
    balances
        .map_values(|balance| balance.sequence)
        .group_by("by-bucket", |entry| entry.key.as_deref().and_then(bucket))
        .aggregate(STORES[1], Balance::default, |_, sequence, balance| {
            balance.after(sequence)
        })
        .to_stream()
        .to(&Topic::new(parameters.buckets.as_str(), Utf8, Json::<Balance>::new()));
    Ok(builder.build()?)
}

/// The bucket of an account; none where the account is no number.
fn bucket(account: &str) -> Option<String> {
    let account: u64 = account.parse().ok()?;
    Some((account % BUCKETS).to_string())
}

/// Notes entries in a file as they are processed, without buffering: the notes outlive a process that is killed.
struct Witness(File);

impl Witness {
    fn open(path: &Path) -> Result<Self, LedgerError> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.map(Self).map_err(|source| LedgerError::Witness {
            path: path.to_owned(),
            source,
        })
    }

    fn note(&self, sequence: i64) {
        if let Err(error) = (&self.0).write_all(&sequence.to_le_bytes()) {
            tracing::warn!(%error, sequence, "the witness file does not take the entry");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_stages_keep_a_store_and_a_repartition_topic_lies_between_them() {
        let topology = topology(&Parameters::default()).unwrap();
        let plan = topology.plan();
        let stores = plan.sub_topologies.iter().flat_map(|sub| &sub.stores);
        assert_eq!(stores.map(|store| &*store.name).collect::<Vec<_>>(), STORES);
        assert_eq!(plan.sub_topologies.len(), 2);
        assert_eq!(plan.repartitions.len(), 1);
    }

    #[test]
    fn a_balance_counts_and_sums() {
        let balance = Balance::default().after(5).after(7);
        assert_eq!((balance.count, balance.sum, balance.sequence), (2, 12, 7));
        assert_eq!((bucket("123").as_deref(), bucket("x")), (Some("3"), None));
    }

    #[test]
    fn a_witness_that_cannot_be_opened_is_named() {
        let parameters = Parameters {
            witness: Some("/no-such-directory/witness".into()),
            ..Parameters::default()
        };
        let refused = topology(&parameters).err().map(|error| error.to_string());
        assert!(refused.is_some_and(|error| error.contains("/no-such-directory/witness")));
    }
}
