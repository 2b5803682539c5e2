//! Splitting a stream.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::Stream;
use super::graph::GraphNode;
use crate::operators::{Outlet, Predicate, Split};
use crate::record::Record;

impl<'b, K: Clone + 'static, V: Clone + 'static> Stream<'b, K, V> {
    /// Starts to split the stream: each record goes to the first branch whose predicate holds.
    ///
    /// ```
    /// # use tidegate::codec::{I64Be, Utf8};
    /// # use tidegate::topology::{Builder, Topic};
    /// # let builder = Builder::new();
    /// # let readings = Topic::new("readings", Utf8, I64Be);
    /// let mut split = builder.stream(&readings).split();
    /// let missing = split.branch(|record| record.value.is_none());
    /// let frozen = split.branch(|record| record.value < Some(0));
    /// let others = split.default_branch();
    /// # missing.merge(frozen).merge(others).to(&readings);
    /// # assert!(builder.build().is_ok());
    /// ```
    pub fn split(self) -> Branches<'b, K, V> {
        let rules: Rc<RefCell<Rules<K, V>>> = Rc::default();
        let shared = Rc::clone(&rules);
        let node = self
            .builder
            .add(GraphNode::unnamed("split", vec![self.node]), move |linker, _| {
                let rules = shared.take();
                let branches = rules.branches.into_iter();
                Arc::new(Split {
                    branches: branches.map(|(rule, node)| (rule, linker.outlet(node))).collect(),
                    otherwise: rules.otherwise.map(|node| linker.outlet(node)),
                }) as Outlet<Record<K, V>>
            });
        Branches {
            split: Stream::new(self.builder, node, self.key_changed),
            rules,
        }
    }
}

/// A stream that is being split; see [`Stream::split`]. Without a default branch, records that belong to no branch end here.
pub struct Branches<'b, K, V> {
    split: Stream<'b, K, V>,
    rules: Rc<RefCell<Rules<K, V>>>,
}

struct Rules<K, V> {
    branches: Vec<(Predicate<K, V>, usize)>,
    otherwise: Option<usize>,
}

impl<K, V> Default for Rules<K, V> {
    fn default() -> Self {
        Self {
            branches: Vec::new(),
            otherwise: None,
        }
    }
}

impl<'b, K: Clone + 'static, V: Clone + 'static> Branches<'b, K, V> {
    /// The records for which the predicate holds and none of the predicates before it.
    pub fn branch(&mut self, predicate: impl Fn(&Record<K, V>) -> bool + Send + Sync + 'static) -> Stream<'b, K, V> {
        let branch = self.add_branch();
        self.rules
            .borrow_mut()
            .branches
            .push((Box::new(predicate), branch.node));
        branch
    }

    /// The records for which no predicate holds.
    pub fn default_branch(self) -> Stream<'b, K, V> {
        let branch = self.add_branch();
        self.rules.borrow_mut().otherwise = Some(branch.node);
        branch
    }

    fn add_branch(&self) -> Stream<'b, K, V> {
        let node = GraphNode::unnamed("branch", vec![self.split.node]);
        let node = self
            .split
            .builder
            .add(node, |linker, id| linker.next::<Record<K, V>>(id));
        Stream::new(self.split.builder, node, self.split.key_changed)
    }
}
