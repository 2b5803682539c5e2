//! Real input: all flights that left New York City, counted in three ways.
//!
//! | output | key | what |
//! |---|---|---|
//! | `departures` | airport | departed flights per hour, emitted once, when the hour is closed |
//! | `carriers` | airline | running totals, every update emitted |
//! | `manufacturers` | manufacturer | running counts of flights, by a join with the table of planes |
//!
//! Event time is the actual departure, but the records come in the order of the schedule: so the stream is out of
//! order as reality is, by up to a day.

mod dataset;
mod loader;
mod reader;
mod results;
mod rows;
pub mod topics;
mod topology;

pub use dataset::{Dataset, DatasetError, MAX_ROWS};
pub use loader::{CHUNK_RECORDS, LoadError, LoadOptions, create_topics, load};
pub use reader::{ReadError, Results, read_results};
pub use results::{CarrierTotals, Departures, HourTotals, ManufacturerFlights};
pub use rows::{Flight, Plane, ScheduledFlight};
pub use topology::{Parameters, processed_records, topology};
