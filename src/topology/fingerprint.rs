//! The fingerprint of a plan: what of a topology its state depends on, as text and as a hash.

use super::plan::Plan;

/// The plan as canonical text, one line per node, store and topic that state depends on.
///
/// Nodes without state are left out, and so are topics that are only written: a new version of an application may
/// change them freely. Numbers of sub-topologies are in, since tasks are named by them.
pub(crate) fn plan_text(plan: &Plan) -> String {
    let mut lines = vec!["plan format 1".to_owned()];
    for (number, sub_topology) in plan.sub_topologies.iter().enumerate() {
        for source in &sub_topology.sources {
            lines.push(format!("sub-topology {number} reads {source}"));
        }
        for node in sub_topology.nodes.iter().map(|id| &plan.nodes[id.0 as usize]) {
            if !node.stores.is_empty() {
                let mut line = format!("sub-topology {number} node {}: {}", node.name, node.kind);
                for parameter in &node.parameters {
                    line.push(' ');
                    line.push_str(parameter);
                }
                line.push_str(&format!(" with {}", node.stores.join(", ")));
                lines.push(line);
            }
        }
        for store in &sub_topology.stores {
            let order = if store.ordered { "ordered" } else { "hashed" };
            lines.push(format!(
                "sub-topology {number} store {}: {order}, {}",
                store.name, store.codecs
            ));
        }
    }
    for repartition in &plan.repartitions {
        let partitions = match repartition.partitions {
            Some(partitions) => format!("{partitions} partitions"),
            None => "partitions as upstream".to_owned(),
        };
        lines.push(format!(
            "topic {}-repartition: {partitions}, {}",
            repartition.name, repartition.codecs
        ));
    }
    lines.join("\n") + "\n"
}

/// 64-bit FNV-1a of the text, as 16 hex digits. It tells versions of one topology apart; it is not for adversaries.
pub(crate) fn fingerprint(text: &str) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in text.bytes() {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
    }
    format!("{hash:016x}")
}

/// The difference between two plans' texts, as lines that start with `-` (only in the old one) or `+` (only in the new
/// one); `None` if they are equal.
///
/// ```
/// let old = "store counts: utf8 -> i64-be\ntopic a\n";
/// let new = "store counts: utf8 -> json\ntopic a\n";
/// let difference = tidegate::topology::diff(old, new).unwrap();
/// assert_eq!(difference, "- store counts: utf8 -> i64-be\n+ store counts: utf8 -> json\n");
/// assert_eq!(tidegate::topology::diff(old, old), None);
/// ```
pub fn diff(old_text: &str, new_text: &str) -> Option<String> {
    if old_text == new_text {
        return None;
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (old_text.lines().collect(), new_text.lines().collect());
    let mut out = String::new();
    let mut add = |sign: char, line: &str| {
        out.push(sign);
        out.push(' ');
        out.push_str(line);
        out.push('\n');
    };
    for line in old.iter().filter(|line| !new.contains(line)) {
        add('-', line);
    }
    for line in new.iter().filter(|line| !old.contains(line)) {
        add('+', line);
    }
    if out.is_empty() {
        out.push_str("the same lines in another order\n");
    }
    Some(out)
}
