//! The shipped topologies over the embedded log; flights compared with an evaluation that shares no code with it.

mod chaos;
#[path = "../../../integration-tests/src/flights/evaluator.rs"]
mod evaluator;
mod instance;
mod invariance;
mod lazy;
mod loading;
mod records;
mod results;
mod word_count;
