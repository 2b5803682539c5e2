//! Random numbers from a seed, so that a run can be repeated with the same choices.

use std::time::Duration;

/// A small generator (SplitMix64): enough to choose moments and accounts, not for secrets.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator that always gives the same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, and without, `bound`; 0 where `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.bits() % bound }
    }

    /// A duration between two others, in steps of a microsecond.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = most.saturating_sub(least).as_micros();
        let extra = self.below(u64::try_from(span).unwrap_or(u64::MAX).saturating_add(1));
        least + Duration::from_micros(extra)
    }

    /// True in `per_cent` of 100 cases.
    pub fn chance(&mut self, per_cent: u64) -> bool {
        self.below(100) < per_cent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_choices_within_bounds() {
        let (mut one, mut two) = (Random::new(7), Random::new(7));
        let (least, most) = (Duration::from_millis(5), Duration::from_millis(9));
        for _ in 0..1_000 {
            let chosen = one.between(least, most);
            assert_eq!(chosen, two.between(least, most));
            assert!((least..=most).contains(&chosen));
            assert_eq!(one.below(10), two.below(10));
        }
        assert_ne!(Random::new(1).bits(), Random::new(2).bits());
        assert_eq!(Random::new(1).below(0), 0);
    }
}
