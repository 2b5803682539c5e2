//! The audit: is every input in the output exactly once, in order, and do the totals agree?
//!
//! Both stages emit, for every record that they count, the key's running count and sum and the record's sequence
//! number. So each output record names the one input that it stands for, and the audit finds a record that was
//! counted twice or not at all even where the totals happen to agree.

use std::collections::BTreeMap;
use std::fmt;

use super::inputs::{ACCOUNTS, BUCKETS, Inputs};

/// Findings that are kept in full; the rest is only counted.
const FINDINGS_KEPT: usize = 20;

/// One of the two steps of the ledger topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Records counted by account, directly from the input.
    Accounts,
    /// The same records again, counted by bucket behind a repartition topic.
    Buckets,
}

/// One output record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// Partition of the output topic.
    pub partition: i32,
    /// Offset in that partition.
    pub offset: i64,
    /// Account or bucket.
    pub key: u16,
    /// How many records the key has, this one included.
    pub count: u64,
    /// Sum of their sequence numbers, this one included.
    pub sum: i64,
    /// Sequence number of the record that this output is the effect of.
    pub sequence: i64,
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The effect of this input was seen before.
    Duplicate,
    /// Inputs of the same account were jumped over; they may still come, or be missing in the end.
    Gap,
    /// The effect comes after that of a later input of the same account.
    Reordered,
    /// The effect never came.
    Missing,
    /// Count or sum do not continue from the key's previous output.
    WrongTotal,
    /// No such input was written, or it belongs to another key.
    Foreign,
}

/// A fault with its coordinates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where it was found.
    pub stage: Stage,
    /// What is wrong.
    pub fault: Fault,
    /// The output record; `None` where one is missing.
    pub output: Option<Output>,
    /// Sequence number of the input.
    pub sequence: i64,
    /// What was expected instead.
    pub expected: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}: input {}", self.stage, self.fault, self.sequence)?;
        if let Some(output) = &self.output {
            write!(
                f,
                ", output partition {} offset {} key {} count {} sum {}",
                output.partition, output.offset, output.key, output.count, output.sum
            )?;
        }
        write!(f, "; expected {}", self.expected)
    }
}

/// All that was found, in numbers, and the first findings in full.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// How often each fault was found at each stage.
    pub counts: BTreeMap<(Stage, Fault), u64>,
    /// The first ones.
    pub first: Vec<Finding>,
}

impl Findings {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    fn add(&mut self, finding: Finding) {
        *self.counts.entry((finding.stage, finding.fault)).or_default() += 1;
        if self.first.len() < FINDINGS_KEPT {
            self.first.push(finding);
        }
    }
}

/// The running total of a key as the last output gave it.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    count: u64,
    sum: i64,
}

/// What one stage has put out so far.
#[derive(Debug)]
struct StageBooks {
    stage: Stage,
    totals: Vec<Total>,
    /// For every account the position of the next expected input in [`Inputs::of_account`].
    next: Vec<usize>,
    /// One bit per sequence number: its effect was seen.
    seen: Vec<u64>,
    records: u64,
}

impl StageBooks {
    fn new(stage: Stage, keys: usize) -> Self {
        Self {
            stage,
            totals: vec![Total::default(); keys],
            next: vec![0; ACCOUNTS],
            seen: Vec::new(),
            records: 0,
        }
    }

    fn is_seen(&self, sequence: usize) -> bool {
        self.seen
            .get(sequence / 64)
            .is_some_and(|bits| bits & (1 << (sequence % 64)) != 0)
    }

    fn mark_seen(&mut self, sequence: usize) {
        let word = sequence / 64;
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        self.seen[word] |= 1 << (sequence % 64);
    }

    fn key_of(&self, account: u16) -> usize {
        match self.stage {
            Stage::Accounts => account as usize,
            Stage::Buckets => account as usize % BUCKETS,
        }
    }

    fn observe(&mut self, inputs: &Inputs, output: &Output, findings: &mut Findings) {
        self.records += 1;
        let finding = |fault, expected| Finding {
            stage: self.stage,
            fault,
            output: Some(*output),
            sequence: output.sequence,
            expected,
        };
        let account = match inputs.account_of(output.sequence) {
            Some(account) if self.key_of(account) == output.key as usize => account,
            Some(account) => {
                let expected = format!("key {} for this input", self.key_of(account));
                findings.add(finding(Fault::Foreign, expected));
                return;
            }
            None => {
                findings.add(finding(Fault::Foreign, format!("one of {} inputs", inputs.len())));
                return;
            }
        };
        if let Some((fault, expected)) = self.check_order(inputs, account, output.sequence as usize) {
            findings.add(finding(fault, expected));
        }
        if let Some(expected) = self.check_total(output) {
            findings.add(finding(Fault::WrongTotal, expected));
        }
        // What follows is compared with what the output said, so that one fault is not found again in every later record.
        self.totals[output.key as usize] = Total {
            count: output.count,
            sum: output.sum,
        };
        self.advance(inputs, account, output.sequence as usize);
    }

    fn check_order(&self, inputs: &Inputs, account: u16, sequence: usize) -> Option<(Fault, String)> {
        let entries = inputs.of_account(account);
        let next = self.next[account as usize];
        let expected = match entries.get(next) {
            Some(sequence) => format!("input {sequence} as the next of account {account}"),
            None => format!("no more output for account {account}"),
        };
        if self.is_seen(sequence) {
            return Some((Fault::Duplicate, expected));
        }
        match entries.get(next) {
            Some(expected_sequence) if *expected_sequence as usize == sequence => None,
            Some(expected_sequence) if (*expected_sequence as usize) < sequence => Some((Fault::Gap, expected)),
            _ => Some((Fault::Reordered, expected)),
        }
    }

    fn check_total(&self, output: &Output) -> Option<String> {
        let before = self.totals[output.key as usize];
        let count = before.count + 1;
        let sum = before.sum + output.sequence;
        (output.count != count || output.sum != sum).then(|| format!("count {count} sum {sum}"))
    }

    fn advance(&mut self, inputs: &Inputs, account: u16, sequence: usize) {
        self.mark_seen(sequence);
        let entries = inputs.of_account(account);
        let position = entries.partition_point(|entered| (*entered as usize) <= sequence);
        let next = &mut self.next[account as usize];
        *next = (*next).max(position);
    }

    fn find_missing(&self, inputs: &Inputs, findings: &mut Findings) {
        for sequence in (0..inputs.len()).filter(|sequence| !self.is_seen(*sequence)) {
            let account = inputs.account_of(sequence as i64).unwrap_or_default();
            findings.add(Finding {
                stage: self.stage,
                fault: Fault::Missing,
                output: None,
                sequence: sequence as i64,
                expected: format!("an output for key {}", self.key_of(account)),
            });
        }
    }
}

/// Compares output records with the books as they come in.
#[derive(Debug)]
pub struct Audit {
    accounts: StageBooks,
    buckets: StageBooks,
    findings: Findings,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            accounts: StageBooks::new(Stage::Accounts, ACCOUNTS),
            buckets: StageBooks::new(Stage::Buckets, BUCKETS),
            findings: Findings::default(),
        }
    }
}

impl Audit {
    /// Takes the next output record of a partition. Records of one key must be given in order of their offsets.
    pub fn observe(&mut self, inputs: &Inputs, stage: Stage, output: &Output) {
        match stage {
            Stage::Accounts => self.accounts.observe(inputs, output, &mut self.findings),
            Stage::Buckets => self.buckets.observe(inputs, output, &mut self.findings),
        }
    }

    /// Number of output records taken at a stage.
    pub fn records(&self, stage: Stage) -> u64 {
        match stage {
            Stage::Accounts => self.accounts.records,
            Stage::Buckets => self.buckets.records,
        }
    }

    /// What is wrong so far; what is missing is known only at the end.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// What is wrong in all, given that no output will come any more.
    pub fn finish(mut self, inputs: &Inputs) -> Findings {
        self.accounts.find_missing(inputs, &mut self.findings);
        self.buckets.find_missing(inputs, &mut self.findings);
        self.findings
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Books with inputs 0..6: accounts 1, 2, 1, 11, 1, 2. Accounts 1 and 11 share bucket 1.
    fn books() -> Inputs {
        let mut inputs = Inputs::new(0);
        for account in [1, 2, 1, 11, 1, 2] {
            inputs.enter_for(account, Duration::ZERO);
        }
        inputs
    }

    fn output(key: u16, count: u64, sum: i64, sequence: i64) -> Output {
        Output {
            partition: 0,
            offset: sequence,
            key,
            count,
            sum,
            sequence,
        }
    }

    const ACCOUNT_OUTPUTS: [(u16, u64, i64, i64); 6] = [
        (1, 1, 0, 0),
        (2, 1, 1, 1),
        (1, 2, 2, 2),
        (11, 1, 3, 3),
        (1, 3, 6, 4),
        (2, 2, 6, 5),
    ];
    const BUCKET_OUTPUTS: [(u16, u64, i64, i64); 6] = [
        (1, 1, 0, 0),
        (2, 1, 1, 1),
        (1, 2, 2, 2),
        (1, 3, 5, 3),
        (1, 4, 9, 4),
        (2, 2, 6, 5),
    ];

    fn audit(accounts: &[(u16, u64, i64, i64)], buckets: &[(u16, u64, i64, i64)]) -> Findings {
        let inputs = books();
        let mut audit = Audit::default();
        for (stage, outputs) in [(Stage::Accounts, accounts), (Stage::Buckets, buckets)] {
            for (key, count, sum, sequence) in outputs {
                audit.observe(&inputs, stage, &output(*key, *count, *sum, *sequence));
            }
        }
        audit.finish(&inputs)
    }

    fn faults(findings: &Findings) -> Vec<(Stage, Fault, u64)> {
        let counts = findings.counts.iter();
        counts.map(|((stage, fault), count)| (*stage, *fault, *count)).collect()
    }

    #[test]
    fn output_with_every_input_once_and_in_order_is_clean() {
        let findings = audit(&ACCOUNT_OUTPUTS, &BUCKET_OUTPUTS);
        assert!(findings.is_clean(), "{findings:?}");
    }

    #[test]
    fn accounts_may_interleave_in_any_way_within_a_bucket() {
        let buckets = [
            (1, 1, 0, 0),
            (2, 1, 1, 1),
            (2, 2, 6, 5),
            (1, 2, 3, 3),
            (1, 3, 5, 2),
            (1, 4, 9, 4),
        ];
        assert!(audit(&ACCOUNT_OUTPUTS, &buckets).is_clean());
    }

    #[test]
    fn a_record_counted_twice_is_a_duplicate_with_a_total_that_still_adds_up() {
        let mut accounts = ACCOUNT_OUTPUTS.to_vec();
        accounts.insert(3, (1, 3, 4, 2));
        accounts[5] = (1, 4, 8, 4);
        let findings = audit(&accounts, &BUCKET_OUTPUTS);
        assert_eq!(faults(&findings), [(Stage::Accounts, Fault::Duplicate, 1)]);
        assert_eq!(findings.first[0].sequence, 2);
    }

    #[test]
    fn an_output_sent_twice_is_a_duplicate_and_breaks_the_total() {
        let mut accounts = ACCOUNT_OUTPUTS.to_vec();
        accounts.insert(3, (1, 2, 2, 2));
        let found = faults(&audit(&accounts, &BUCKET_OUTPUTS));
        assert_eq!(
            found,
            [
                (Stage::Accounts, Fault::Duplicate, 1),
                (Stage::Accounts, Fault::WrongTotal, 1)
            ]
        );
    }

    #[test]
    fn a_record_that_was_not_counted_is_a_gap_and_missing_in_the_end() {
        let accounts = [(1, 1, 0, 0), (2, 1, 1, 1), (11, 1, 3, 3), (1, 2, 4, 4), (2, 2, 6, 5)];
        let findings = audit(&accounts, &BUCKET_OUTPUTS);
        assert_eq!(
            faults(&findings),
            [(Stage::Accounts, Fault::Gap, 1), (Stage::Accounts, Fault::Missing, 1)]
        );
        assert_eq!(findings.first[0].sequence, 4);
        assert_eq!(findings.first[1].sequence, 2);
    }

    #[test]
    fn an_output_that_was_counted_but_lost_breaks_the_total_too() {
        let mut buckets = BUCKET_OUTPUTS.to_vec();
        buckets.remove(3);
        let found = faults(&audit(&ACCOUNT_OUTPUTS, &buckets));
        assert_eq!(
            found,
            [
                (Stage::Buckets, Fault::Missing, 1),
                (Stage::Buckets, Fault::WrongTotal, 1)
            ]
        );
    }

    #[test]
    fn output_that_ends_early_is_missing_without_a_gap() {
        let found = faults(&audit(&ACCOUNT_OUTPUTS[..4], &BUCKET_OUTPUTS[..5]));
        assert_eq!(
            found,
            [
                (Stage::Accounts, Fault::Missing, 2),
                (Stage::Buckets, Fault::Missing, 1)
            ]
        );
    }

    #[test]
    fn records_of_an_account_in_another_order_are_reordered_even_where_totals_add_up() {
        let accounts = [
            (1, 1, 0, 0),
            (2, 1, 1, 1),
            (1, 2, 4, 4),
            (11, 1, 3, 3),
            (1, 3, 6, 2),
            (2, 2, 6, 5),
        ];
        let found = faults(&audit(&accounts, &BUCKET_OUTPUTS));
        assert_eq!(
            found,
            [(Stage::Accounts, Fault::Gap, 1), (Stage::Accounts, Fault::Reordered, 1)]
        );
        let buckets = [
            (1, 1, 0, 0),
            (2, 1, 1, 1),
            (1, 2, 4, 4),
            (1, 3, 7, 3),
            (1, 4, 9, 2),
            (2, 2, 6, 5),
        ];
        let found = faults(&audit(&ACCOUNT_OUTPUTS, &buckets));
        assert_eq!(
            found,
            [(Stage::Buckets, Fault::Gap, 1), (Stage::Buckets, Fault::Reordered, 1)]
        );
    }

    #[test]
    fn a_total_that_started_from_old_state_is_wrong_once_not_for_ever() {
        let mut accounts = ACCOUNT_OUTPUTS.to_vec();
        accounts[2] = (1, 1, 2, 2);
        accounts[4] = (1, 2, 6, 4);
        let findings = audit(&accounts, &BUCKET_OUTPUTS);
        assert_eq!(faults(&findings), [(Stage::Accounts, Fault::WrongTotal, 1)]);
        assert!(
            findings.first[0].to_string().contains("expected count 2 sum 2"),
            "{}",
            findings.first[0]
        );
    }

    #[test]
    fn outputs_of_unknown_inputs_or_under_a_wrong_key_are_foreign() {
        let mut accounts = ACCOUNT_OUTPUTS.to_vec();
        accounts.push((1, 4, 105, 99));
        accounts.push((2, 3, 10, 4));
        accounts.push((1, 4, 5, -1));
        let found = faults(&audit(&accounts, &BUCKET_OUTPUTS));
        assert_eq!(found, [(Stage::Accounts, Fault::Foreign, 3)]);
    }

    #[test]
    fn many_findings_are_counted_and_only_the_first_are_kept() {
        let findings = audit(&ACCOUNT_OUTPUTS.repeat(10), &BUCKET_OUTPUTS);
        assert_eq!(findings.counts[&(Stage::Accounts, Fault::Duplicate)], 54);
        assert_eq!(findings.first.len(), FINDINGS_KEPT);
    }
}
