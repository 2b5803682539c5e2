//! Exhaustive models of Tidegate's protocols: every order of steps of a small world, not a sample of them.
//!
//! [`commit`] is the commit of epochs beside rebalances, crashes and zombies; [`restore`] the replay of a changelog;
//! [`snapshots`] the ownership and deletion of snapshot files. Each has its rules in a struct `Rules`. With all of them the checker
//! finds nothing; with one of them switched off it finds the violation that the rule prevents. `docs/models.md` has the
//! tables.
#![deny(missing_docs)]

pub mod checking;
pub mod commit;
pub mod restore;
pub mod snapshots;
