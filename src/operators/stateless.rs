//! Operators without state. All of them call `Fn`s: hidden state would be counted twice after a restart.

use std::fmt::Display;

use super::push::{NodeRef, Outlet, Push};
use super::{Failure, Scope};
use crate::record::Record;

/// Passes on what the function answers for the whole record; also carries `map` and `select_key`.
pub(crate) struct FlatMap<F, K2, V2> {
    pub(crate) node: NodeRef,
    pub(crate) function: F,
    pub(crate) next: Outlet<Record<K2, V2>>,
}

impl<K, V, K2, V2, I, E, F> Push<Record<K, V>> for FlatMap<F, K2, V2>
where
    I: IntoIterator<Item = Record<K2, V2>>,
    E: Display,
    F: Fn(Record<K, V>) -> Result<I, E> + Send + Sync,
{
    fn push(&self, record: Record<K, V>, scope: &mut Scope) -> Result<(), Failure> {
        let answers = match (self.function)(record) {
            Ok(answers) => answers,
            Err(error) => return self.node.bad(scope, &error),
        };
        for answer in answers {
            if answer.timestamp_ms < 0 {
                let reason = format_args!("the function answered the negative timestamp {}", answer.timestamp_ms);
                self.node.bad(scope, &reason)?;
            } else {
                self.next.push(answer, scope)?;
            }
        }
        Ok(())
    }
}

/// Passes on the record under another key.
pub(crate) struct SelectKey<F, K2, V> {
    pub(crate) node: NodeRef,
    pub(crate) function: F,
    pub(crate) next: Outlet<Record<K2, V>>,
}

impl<K, V, K2, E, F> Push<Record<K, V>> for SelectKey<F, K2, V>
where
    E: Display,
    F: Fn(&Record<K, V>) -> Result<Option<K2>, E> + Send + Sync,
{
    fn push(&self, record: Record<K, V>, scope: &mut Scope) -> Result<(), Failure> {
        match (self.function)(&record) {
            Ok(key) => self.next.push(record.with_key(key), scope),
            Err(error) => self.node.bad(scope, &error),
        }
    }
}

/// Passes on the record with another value; a null value stays null.
pub(crate) struct MapValues<F, K, V2> {
    pub(crate) node: NodeRef,
    pub(crate) function: F,
    pub(crate) next: Outlet<Record<K, V2>>,
}

impl<K, V, V2, E, F> Push<Record<K, V>> for MapValues<F, K, V2>
where
    E: Display,
    F: Fn(Option<&K>, V) -> Result<V2, E> + Send + Sync,
{
    fn push(&self, record: Record<K, V>, scope: &mut Scope) -> Result<(), Failure> {
        let Record {
            key,
            value,
            timestamp_ms,
            headers,
        } = record;
        let value = match value.map(|value| (self.function)(key.as_ref(), value)).transpose() {
            Ok(value) => value,
            Err(error) => return self.node.bad(scope, &error),
        };
        let mapped = Record {
            key,
            value,
            timestamp_ms,
            headers,
        };
        self.next.push(mapped, scope)
    }
}

/// Passes on one record per value that the function answers; a null value stays one null value.
pub(crate) struct FlatMapValues<F, K, V2> {
    pub(crate) node: NodeRef,
    pub(crate) function: F,
    pub(crate) next: Outlet<Record<K, V2>>,
}

impl<K, V, V2, I, E, F> Push<Record<K, V>> for FlatMapValues<F, K, V2>
where
    K: Clone,
    I: IntoIterator<Item = V2>,
    E: Display,
    F: Fn(V) -> Result<I, E> + Send + Sync,
{
    fn push(&self, record: Record<K, V>, scope: &mut Scope) -> Result<(), Failure> {
        let Record {
            key,
            value,
            timestamp_ms,
            headers,
        } = record;
        let with = |value| Record {
            key: key.clone(),
            value,
            timestamp_ms,
            headers: headers.clone(),
        };
        let Some(value) = value else {
            return self.next.push(with(None), scope);
        };
        match (self.function)(value) {
            Ok(values) => values
                .into_iter()
                .try_for_each(|value| self.next.push(with(Some(value)), scope)),
            Err(error) => self.node.bad(scope, &error),
        }
    }
}

/// Passes on the records for which the function answers as wanted.
pub(crate) struct Filter<F, K, V> {
    pub(crate) node: NodeRef,
    pub(crate) function: F,
    pub(crate) wanted: bool,
    pub(crate) next: Outlet<Record<K, V>>,
}

impl<K, V, E, F> Push<Record<K, V>> for Filter<F, K, V>
where
    E: Display,
    F: Fn(&Record<K, V>) -> Result<bool, E> + Send + Sync,
{
    fn push(&self, record: Record<K, V>, scope: &mut Scope) -> Result<(), Failure> {
        match (self.function)(&record) {
            Ok(answer) if answer == self.wanted => self.next.push(record, scope),
            Ok(_) => Ok(()),
            Err(error) => self.node.bad(scope, &error),
        }
    }
}

/// Shows each record to the function and passes it on unchanged.
pub(crate) struct Peek<F, K, V> {
    pub(crate) function: F,
    pub(crate) next: Outlet<Record<K, V>>,
}

impl<K, V, F> Push<Record<K, V>> for Peek<F, K, V>
where
    F: Fn(&Record<K, V>) + Send + Sync,
{
    fn push(&self, record: Record<K, V>, scope: &mut Scope) -> Result<(), Failure> {
        (self.function)(&record);
        self.next.push(record, scope)
    }
}

/// Decides whether a record belongs to a branch.
pub(crate) type Predicate<K, V> = Box<dyn Fn(&Record<K, V>) -> bool + Send + Sync>;

/// A branch: which records belong to it, and what follows.
pub(crate) type Branch<K, V> = (Predicate<K, V>, Outlet<Record<K, V>>);

/// Passes each record to the first branch whose predicate holds, else to the default branch, if there is one.
pub(crate) struct Split<K, V> {
    pub(crate) branches: Vec<Branch<K, V>>,
    pub(crate) otherwise: Option<Outlet<Record<K, V>>>,
}

impl<K, V> Push<Record<K, V>> for Split<K, V> {
    fn push(&self, record: Record<K, V>, scope: &mut Scope) -> Result<(), Failure> {
        let chosen = self.branches.iter().find(|(predicate, _)| predicate(&record));
        match chosen.map(|(_, outlet)| outlet).or(self.otherwise.as_ref()) {
            Some(outlet) => outlet.push(record, scope),
            None => Ok(()),
        }
    }
}
