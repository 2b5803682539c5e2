//! The topologies that ship with Tidegate. Each is small, has a test, and is meant to be read.
#![deny(missing_docs)]

pub mod flights;
pub mod ledger;
pub mod word_count;
