//! What goes: manifests by retention, files by collection, the changelog by trimming.

use tidegate::invariants::{nothing_referenced_is_deleted, trim_only_behind_verified};

use super::repository::{ATTEMPTS, Attempt, State, Step, bits};
use super::rules::Rules;

impl State {
    /// Retention removes a manifest behind a newer one.
    pub fn retire(&mut self, at: usize, rules: &Rules) {
        let order = |at: usize| (self.attempts[at].map(|attempt| attempt.epoch), at);
        let counts = |attempt: Attempt| match rules.retires_behind_verified {
            true => attempt.is_verified(),
            false => attempt.is_retained(),
        };
        let is_newer = |other: &usize| order(*other) > order(at) && self.attempts[*other].is_some_and(counts);
        let has_newer = (0..ATTEMPTS).any(|other| is_newer(&other));
        let Some(attempt) = self.attempts[at].filter(|attempt| attempt.is_retained() && has_newer) else {
            return;
        };
        self.attempts[at] = Some(Attempt {
            step: Step::Over,
            ..attempt
        });
    }

    /// What the collector sees somebody refer to.
    fn seen_by_collector(&self, rules: &Rules) -> u8 {
        let newest = self.newest().and_then(|at| self.attempts[at]);
        let mut seen = match rules.looks_at_all_manifests {
            true => bits(
                self.attempts()
                    .filter(|attempt| attempt.is_retained())
                    .flat_map(Attempt::files),
            ),
            false => newest.map_or(0, |attempt| bits(attempt.files())),
        };
        if rules.keeps_savepoints {
            seen |= self.savepoint.unwrap_or(0);
        }
        if rules.keeps_what_is_read {
            seen |= self.reader.unwrap_or(0);
        }
        seen
    }

    /// The grace of a file is over to which the collector saw nobody refer. No attempt that uses it lasts as long.
    pub fn age(&mut self, at: usize, rules: &Rules) {
        let in_use = bits(
            self.attempts()
                .filter(|attempt| attempt.is_under_way())
                .flat_map(Attempt::files),
        );
        let is_used = rules.waits_for_the_grace && in_use & (1 << at) != 0;
        if self.seen_by_collector(rules) & (1 << at) == 0
            && !is_used
            && let Some(file) = &mut self.files[at]
        {
            file.is_old = true;
        }
    }

    /// The collector lists the repository.
    pub fn list(&mut self, rules: &Rules) {
        let seen = self.seen_by_collector(rules);
        let is_old = |at: &u8| self.files[usize::from(*at)].is_some_and(|file| file.is_old);
        let condemned = bits((0..ATTEMPTS as u8).filter(|at| seen & (1 << at) == 0).filter(is_old));
        self.condemned = (condemned != 0).then_some(condemned);
    }

    /// The collector deletes what it found.
    pub fn delete(&mut self) {
        let Some(condemned) = self.condemned.take() else { return };
        let referenced = self.referenced();
        let names: [u8; ATTEMPTS] = std::array::from_fn(|at| at as u8);
        for at in names.into_iter().filter(|at| condemned & (1 << at) != 0) {
            let mut kept = names;
            kept.sort_by_key(|name| referenced & (1 << name) == 0);
            let kept = &kept[..referenced.count_ones() as usize];
            self.broken.note(nothing_referenced_is_deleted(&at, kept));
            self.files[usize::from(at)] = None;
        }
    }

    /// The changelog is trimmed up to a snapshot.
    pub fn trim(&mut self, rules: &Rules) {
        let oldest = |counts: fn(&Attempt) -> bool| {
            let attempts = self.attempts().filter(|attempt| counts(attempt));
            attempts.map(|attempt| attempt.epoch).min()
        };
        let oldest_verified = oldest(Attempt::is_verified);
        let to = match rules.trims_behind_verified {
            true => oldest_verified,
            false => oldest(Attempt::is_retained),
        };
        let Some(to) = to.filter(|to| *to > self.trimmed) else {
            return;
        };
        self.broken
            .note(trim_only_behind_verified(i64::from(to), oldest_verified.map(i64::from)));
        self.trimmed = to;
    }
}
