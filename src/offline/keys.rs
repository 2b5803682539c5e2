//! Which task a row belongs to.

use crate::partitioner::partition_for;

use super::shape::{Shape, StoreShape};

/// How a store's rows are spread over tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread(StoreShape);

/// To whom a row belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// To the task of this partition.
    Partition(i32),
    /// To each task: it is the clock of a window operator.
    Clock,
}

impl Spread {
    /// What the codecs of a store say; `None` with the reason where its keys do not tell the record's key.
    ///
    /// # Errors
    /// Why the store cannot be spread anew.
    pub fn of(codecs: &str) -> Result<Self, &'static str> {
        let shape = StoreShape::of(codecs);
        match shape.key {
            Shape::Timer => Err("its keys are times of timers, which do not say of which record"),
            _ if !shape.has_time => Err("it is not known what its keys are"),
            _ => Ok(Self(shape)),
        }
    }

    /// Who owns a row where there are so many partitions, as Java's clients spread keys.
    pub fn owner(&self, key: &[u8], partitions: i32) -> Owner {
        match (&self.0.key, key) {
            (Shape::StartFirst(_), [0xff]) => Owner::Clock,
            _ => Owner::Partition(partition_for(record_key(&self.0.key, key), partitions)),
        }
    }
}

/// The part of a row's key that the record was partitioned by.
fn record_key<'a>(shape: &Shape, key: &'a [u8]) -> &'a [u8] {
    match shape {
        Shape::StartFirst(inner) => record_key(inner, key.get(8..).unwrap_or(key)),
        Shape::StartLast(inner) => record_key(inner, &key[..key.len().saturating_sub(8)]),
        _ => key,
    }
}

/// The clock of a window operator that takes the place of several: the largest time that any has observed, and the newest window that any has
/// closed, so that a window that was closed stays closed. Both are 8 bytes, big-endian; what is none is left out.
pub fn latest_clock(clocks: &[Vec<u8>]) -> Option<Vec<u8>> {
    let part = |from: usize| {
        let times = clocks
            .iter()
            .filter_map(|clock| clock.get(from..from + 8)?.try_into().ok().map(i64::from_be_bytes));
        times.max()
    };
    let (observed, closed) = (part(0)?, part(8)?);
    Some([observed.to_be_bytes(), closed.to_be_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_where_their_records_go() {
        let plain = Spread::of("utf8 -> row of i64-be").expect("a plain store");
        assert_eq!(plain.owner(b"JFK", 12), Owner::Partition(partition_for(b"JFK", 12)));
        let windows = Spread::of("start-first(utf8, 1000 ms) -> row of json").expect("a window store");
        let key = [&5_000_i64.to_be_bytes()[..], b"JFK"].concat();
        assert_eq!(windows.owner(&key, 12), Owner::Partition(partition_for(b"JFK", 12)));
        assert_eq!(windows.owner(&[0xff], 12), Owner::Clock);
        let nested =
            Spread::of("start-first(time-windowed(utf8, 5 ms), 1000 ms) -> row of json").expect("a window store");
        let key = [&5_000_i64.to_be_bytes()[..], b"JFK", &7_i64.to_be_bytes()].concat();
        assert_eq!(nested.owner(&key, 12), Owner::Partition(partition_for(b"JFK", 12)));
        assert!(Spread::of("timers").is_err_and(|reason| reason.contains("timers")));
        assert!(Spread::of("something else").is_err());
    }

    #[test]
    fn what_was_closed_anywhere_stays_closed() {
        let clock = |observed: i64, closed: i64| [observed.to_be_bytes(), closed.to_be_bytes()].concat();
        assert_eq!(latest_clock(&[clock(5, -1), clock(3, 2)]), Some(clock(5, 2)));
        assert_eq!(latest_clock(&[]), None);
    }
}
