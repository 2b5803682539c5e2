//! How much longer a process lives: until it has made so many more calls on what is outside of it.
//!
//! What a process leaves behind it leaves by its calls on log, object store and disk. One that ends in the midst of a turn is therefore one
//! whose calls have no effect any more from some call on, and which is gone when the turn is over.

use std::sync::atomic::{AtomicU64, Ordering};

/// Nothing is decided.
const FOR_EVER: u64 = u64::MAX;

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Lifeline(AtomicU64);

impl Default for Lifeline {
    fn default() -> Self {
        Self(AtomicU64::new(FOR_EVER))
    }
}

impl Lifeline {
    /// The process ends with the call after so many more.
    pub(super) fn end_after(&self, calls: u64) {
        self.0.store(calls, Ordering::SeqCst);
    }

    /// A new process, or one whose end was called off.
    pub(super) fn renew(&self) {
        self.0.store(FOR_EVER, Ordering::SeqCst);
    }

    /// Notes a call. False if the process has ended before it: then it must have no effect.
    pub(super) fn lives_to_call(&self) -> bool {
        let one_less = |left| match left {
            FOR_EVER | 0 => None,
            left => Some(left - 1),
        };
        match self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) {
            Ok(_) => true,
            Err(left) => left == FOR_EVER,
        }
    }

    /// Whether the process has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_for_as_many_calls_as_were_left_to_it() {
        let lifeline = Lifeline::default();
        assert!((0..100).all(|_| lifeline.lives_to_call()));
        lifeline.end_after(2);
        let calls: Vec<bool> = (0..4).map(|_| lifeline.lives_to_call()).collect();
        assert_eq!(calls, [true, true, false, false]);
        assert!(lifeline.has_ended());
        lifeline.renew();
        assert!(!lifeline.has_ended() && lifeline.lives_to_call());
    }
}
