//! What can be wrong with a topology, when it is built and when it meets the topics.

use crate::errors::Coded;

/// Why a topology cannot be built. All of these are mistakes in the program that builds it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// Two nodes, two stores or two repartition topics have one name.
    #[error("the topology has two {what} called {name:?}; names identify state, give each its own")]
    DuplicateName {
        /// What has the name: nodes, stores, repartition topics.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A name cannot be part of a topic's name.
    #[error("{name:?} cannot be a name: {reason}; use 1 to 180 of the letters a-z, A-Z, 0-9, '.', '_' and '-'")]
    InvalidName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// One topic is read in two ways.
    #[error(
        "topic {topic} is read twice with different settings ({first} and {second}); read it once and use the stream twice"
    )]
    TopicReadTwice {
        /// The topic.
        topic: String,
        /// Types and codecs of the first reader.
        first: String,
        /// Types and codecs of the second.
        second: String,
    },
    /// A parameter of an operator makes no sense.
    #[error("node {node}: {reason}")]
    InvalidParameter {
        /// Name of the node.
        node: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A stream or table of another builder is used.
    #[error("node {node} is given a stream or table of another builder; build both with one builder")]
    ForeignStream {
        /// Name of the node.
        node: String,
    },
    /// Nothing is read.
    #[error("the topology reads no topic; start it with Builder::stream or Builder::table")]
    NoSource,
    /// More than 65,535 nodes.
    #[error("the topology has more than 65535 nodes; split it into several applications")]
    TooLarge,
}

impl Coded for TopologyError {
    fn code(&self) -> &'static str {
        match self {
            TopologyError::DuplicateName { .. } => "TG2001",
            TopologyError::InvalidName { .. } => "TG2002",
            TopologyError::TopicReadTwice { .. } => "TG2003",
            TopologyError::InvalidParameter { .. } => "TG2004",
            TopologyError::ForeignStream { .. } => "TG2005",
            TopologyError::NoSource => "TG2006",
            TopologyError::TooLarge => "TG2007",
        }
    }
}

/// Why a plan does not fit the topics as they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A source topic does not exist.
    #[error("source topic {topic} does not exist; create it, with as many partitions as the topics it is joined with")]
    MissingTopic {
        /// The topic.
        topic: String,
    },
    /// Topics that one node brings together have different numbers of partitions.
    #[error(
        "node {node} needs {first} and {second} co-partitioned, but {first} has {first_partitions} partitions and \
         {second} has {second_partitions}; give both the same number, or put a repartition() before the node"
    )]
    NotCoPartitioned {
        /// Name of the node that needs it.
        node: String,
        /// One topic.
        first: String,
        /// Its number of partitions.
        first_partitions: i32,
        /// The other topic.
        second: String,
        /// Its number of partitions.
        second_partitions: i32,
    },
}

impl Coded for PlanError {
    fn code(&self) -> &'static str {
        match self {
            PlanError::MissingTopic { .. } => "TG2011",
            PlanError::NotCoPartitioned { .. } => "TG2012",
        }
    }
}
