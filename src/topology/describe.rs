//! Showing a topology: as text, for Graphviz, for Mermaid.

use std::fmt::{self, Write};

use super::plan::{NodeInfo, Plan, TopicRef};
use crate::ids::NodeId;

/// A topology to look at. Prints as text.
#[derive(Clone, Copy, Debug)]
pub struct Description<'a> {
    plan: &'a Plan,
}

impl<'a> Description<'a> {
    pub(crate) fn new(plan: &'a Plan) -> Self {
        Self { plan }
    }

    /// As text, one line per node, grouped by sub-topology.
    pub fn text(&self) -> String {
        self.to_string()
    }

    /// In the language of Graphviz' `dot`.
    pub fn graphviz(&self) -> String {
        let mut out = String::from("digraph topology {\n  rankdir=LR;\n  node [shape=box];\n");
        for (number, sub_topology) in self.plan.sub_topologies.iter().enumerate() {
            let _ = write!(
                out,
                "  subgraph cluster_{number} {{\n    label=\"sub-topology {number}\";\n"
            );
            for id in &sub_topology.nodes {
                let label = self.label(*id).join("\\n");
                let _ = writeln!(out, "    n{} [label=\"{label}\"];", id.0);
            }
            out.push_str("  }\n");
        }
        for (index, topic) in self.topics().iter().enumerate() {
            let _ = writeln!(out, "  t{index} [label=\"{topic}\", shape=cylinder];");
        }
        self.write_edges(&mut out, "->", ";");
        out.push_str("}\n");
        out
    }

    /// In the language of Mermaid, for Markdown pages.
    pub fn mermaid(&self) -> String {
        let mut out = String::from("flowchart LR\n");
        for (number, sub_topology) in self.plan.sub_topologies.iter().enumerate() {
            let _ = writeln!(out, "  subgraph s{number} [sub-topology {number}]");
            for id in &sub_topology.nodes {
                let label = self.label(*id).join("<br/>");
                let _ = writeln!(out, "    n{}[\"{label}\"]", id.0);
            }
            out.push_str("  end\n");
        }
        for (index, topic) in self.topics().iter().enumerate() {
            let _ = writeln!(out, "  t{index}[(\"{topic}\")]");
        }
        self.write_edges(&mut out, "-->", "");
        out
    }

    fn info(&self, id: NodeId) -> &'a NodeInfo {
        &self.plan.nodes[id.0 as usize]
    }

    fn label(&self, id: NodeId) -> Vec<String> {
        let node = self.info(id);
        let mut lines = vec![node.name.to_string(), node.kind.to_owned()];
        lines.extend(node.parameters.iter().chain(&node.settings).cloned());
        lines.extend(node.stores.iter().map(|store| format!("store {store}")));
        lines
    }

    /// All topics, each once, in the order of the nodes that touch them.
    fn topics(&self) -> Vec<&'a TopicRef> {
        let mut topics = Vec::new();
        for topic in self.plan.nodes.iter().filter_map(|node| node.topic.as_ref()) {
            if !topics.contains(&topic) {
                topics.push(topic);
            }
        }
        topics
    }

    fn write_edges(&self, out: &mut String, arrow: &str, end: &str) {
        let topics = self.topics();
        for (id, node) in self.plan.nodes.iter().enumerate() {
            if let Some(index) = topics.iter().position(|topic| node.topic.as_ref() == Some(topic)) {
                let _ = match node.kind {
                    "source" => writeln!(out, "  t{index} {arrow} n{id}{end}"),
                    _ => writeln!(out, "  n{id} {arrow} t{index}{end}"),
                };
            }
            for child in &node.children {
                let _ = writeln!(out, "  n{id} {arrow} n{}{end}", child.0);
            }
        }
    }
}

impl fmt::Display for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, sub_topology) in self.plan.sub_topologies.iter().enumerate() {
            writeln!(f, "sub-topology {number}")?;
            for id in &sub_topology.nodes {
                let node = self.info(*id);
                write!(f, "  {}: {}", node.name, node.kind)?;
                if let Some(topic) = &node.topic {
                    write!(f, " (topic {topic})")?;
                }
                for parameter in node.parameters.iter().chain(&node.settings) {
                    write!(f, " {parameter}")?;
                }
                if !node.stores.is_empty() {
                    write!(f, " (stores: {})", node.stores.join(", "))?;
                }
                let children: Vec<&str> = node.children.iter().map(|child| &*self.info(*child).name).collect();
                if !children.is_empty() {
                    write!(f, " -> {}", children.join(", "))?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}
