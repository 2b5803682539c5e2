//! The workloads as topologies.

use tidegate::codec::{Bytes, I64Be, Ignored};
use tidegate::topology::{Builder, Topic, Topology, TopologyError};

use crate::key::KeyBytes;
use crate::options::{Options, Workload};

/// The topology of a workload.
///
/// # Errors
/// Where the builder refuses it.
pub fn topology(options: &Options) -> Result<Topology, TopologyError> {
    let builder = Builder::new();
    let (input, output) = (options.input.as_str(), options.output.as_str());
    match options.workload {
        Workload::Count => builder
            .stream(&Topic::new(input, KeyBytes, Ignored))
            .group_by_key()
            .count("store")
            .to_stream()
            .to(&Topic::new(output, KeyBytes, I64Be)),
        Workload::Pass => builder
            .stream(&Topic::new(input, KeyBytes, Bytes))
            .map_values(changed)
            .to(&Topic::new(output, KeyBytes, Bytes)),
    }
    builder.build()
}

/// The value with one bit changed, so that the record is really written anew.
fn changed(mut value: Vec<u8>) -> Vec<u8> {
    if let Some(last) = value.last_mut() {
        *last ^= 1;
    }
    value
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn only_the_count_keeps_state() {
        let stores = |workload: &str| {
            let common = [
                "x",
                "--bootstrap",
                "b:1",
                "--input",
                "i",
                "--output",
                "o",
                "--app-id",
                "a",
            ];
            let rest = ["--state-dir", "s", "--workload", workload];
            let options = Options::parse_from(common.into_iter().chain(rest));
            let topology = topology(&options).unwrap();
            topology
                .plan()
                .sub_topologies
                .iter()
                .map(|sub| sub.stores.len())
                .sum::<usize>()
        };
        assert_eq!((stores("count"), stores("pass")), (1, 0));
    }
}
