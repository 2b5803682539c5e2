//! What holds for the repository as a whole: who may import whom, which crate is named where, that every error code
//! has its page, and that nothing committed speaks of one machine.

mod error_pages;
mod imports;
mod layout;
mod places;
mod sources;
mod tokens;
