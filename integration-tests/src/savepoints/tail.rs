//! What an application has put out, kept so that it can be audited behind what another one has said before.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::BaseConsumer;

use crate::ledger::LedgerError;
use crate::ledger::audit::{Audit, Findings, Output, Stage};
use crate::ledger::inputs::{ACCOUNTS, Inputs};
use crate::ledger::kafka::Cluster;
use crate::ledger::observer::{Topics, read_output};

const POLL: Duration = Duration::from_millis(50);

/// All output records of an application, per key in order.
pub struct Tail {
    consumer: BaseConsumer,
    accounts_topic: String,
    outputs: BTreeMap<(Stage, u16), Vec<Output>>,
    /// The last input of each account whose effect was seen.
    last: BTreeMap<(Stage, u16), i64>,
    records: usize,
}

impl Tail {
    /// Reads both outputs from their beginning.
    pub fn start(cluster: &Cluster, topics: &Topics) -> Result<Self, LedgerError> {
        let outputs = [
            (topics.accounts.as_str(), topics.partitions),
            (topics.buckets.as_str(), topics.partitions),
        ];
        Ok(Self {
            consumer: cluster.reader_of("read_committed", &outputs)?,
            accounts_topic: topics.accounts.clone(),
            outputs: BTreeMap::new(),
            last: BTreeMap::new(),
            records: 0,
        })
    }

    /// Output records so far.
    pub fn len(&self) -> usize {
        self.records
    }

    /// Takes what is there, waiting a moment for the first record.
    pub fn read(&mut self) -> Result<(), LedgerError> {
        let mut patience = POLL;
        while let Some(polled) = self.consumer.poll(patience) {
            patience = Duration::ZERO;
            // Errors of the connection pass; what cannot be decoded does not.
            if let Ok(message) = polled {
                let (stage, output) = read_output(&message, &self.accounts_topic)?;
                self.outputs.entry((stage, output.key)).or_default().push(output);
                self.records += 1;
                self.last.insert((stage, output.key), output.sequence);
            }
        }
        Ok(())
    }

    /// Whether the effect of the last input of every account was seen at both stages.
    pub fn is_complete(&self, inputs: &Inputs) -> bool {
        (0..ACCOUNTS as u16).all(|account| {
            let Some(last) = inputs.of_account(account).last().copied() else {
                return true;
            };
            let bucket = account % crate::ledger::inputs::BUCKETS as u16;
            let of_bucket = self.outputs.get(&(Stage::Buckets, bucket));
            let mut seen = of_bucket.into_iter().flatten().rev();
            self.last.get(&(Stage::Accounts, account)) == Some(&i64::from(last))
                && seen.any(|output| output.sequence == i64::from(last))
        })
    }

    /// Audits this output as what follows upon that of `before`: of each key, what `before` has said up to the count from which this one goes on.
    pub fn audit_after(&self, before: &Tail, inputs: &Inputs) -> Findings {
        let mut audit = Audit::default();
        for (key, said) in &before.outputs {
            let own = self.outputs.get(key).map(Vec::as_slice).unwrap_or_default();
            let goes_on_at = own.first().map_or(u64::MAX, |first| first.count);
            let up_to_it = said.iter().filter(|output| output.count < goes_on_at);
            for output in up_to_it.chain(own) {
                audit.observe(inputs, key.0, output);
            }
        }
        audit.finish(inputs)
    }
}
