//! The books of the generator: which sequence numbers were written for which account, and in which order.

use std::time::Duration;

use super::random::Random;

/// Number of accounts; the key of an input record is one of `0..ACCOUNTS` in decimal digits.
pub const ACCOUNTS: usize = 1_000;
/// Number of buckets that the second stage sums up; an account belongs to bucket `account % BUCKETS`.
pub const BUCKETS: usize = tidegate_topologies::ledger::BUCKETS as usize;

/// What has been written so far. Sequence numbers are dense: 0, 1, 2, …
#[derive(Debug)]
pub struct Inputs {
    account_of: Vec<u16>,
    by_account: Vec<Vec<u32>>,
    entered_ms: Vec<u32>,
    random: Random,
}

impl Inputs {
    /// Empty books; the accounts of all later records follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            account_of: Vec::new(),
            by_account: vec![Vec::new(); ACCOUNTS],
            entered_ms: Vec::new(),
            random: Random::new(seed),
        }
    }

    /// Enters the next record for a random account at this time of the run; answers its account and its sequence number.
    pub fn enter(&mut self, now: Duration) -> (u16, u32) {
        let account = self.random.below(ACCOUNTS as u64) as u16;
        (account, self.enter_for(account, now))
    }

    /// Enters the next record for `account`; answers its sequence number.
    pub fn enter_for(&mut self, account: u16, now: Duration) -> u32 {
        let sequence = self.account_of.len() as u32;
        self.entered_ms.push(now.as_millis() as u32);
        self.account_of.push(account);
        self.by_account[account as usize].push(sequence);
        sequence
    }

    /// Number of records entered.
    pub fn len(&self) -> usize {
        self.account_of.len()
    }

    /// Whether nothing was entered.
    pub fn is_empty(&self) -> bool {
        self.account_of.is_empty()
    }

    /// The account that a sequence number was entered for; `None` if it was never entered.
    pub fn account_of(&self, sequence: i64) -> Option<u16> {
        let index = usize::try_from(sequence).ok()?;
        self.account_of.get(index).copied()
    }

    /// When a sequence number was entered, in milliseconds of the run.
    pub fn entered_ms(&self, sequence: i64) -> Option<u32> {
        let index = usize::try_from(sequence).ok()?;
        self.entered_ms.get(index).copied()
    }

    /// The sequence numbers of an account, in order.
    pub fn of_account(&self, account: u16) -> &[u32] {
        &self.by_account[account as usize]
    }
}
