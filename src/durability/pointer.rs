//! The short form of the pointer to a task's state: metadata of the committed offsets.

use std::str::FromStr;

use crate::errors::Coded;
use crate::ids::{Epoch, Lineage};

use super::snapshot::StateRef;
use super::{Beginning, Durability};

/// Without a reference to stored state.
const FORMAT: &str = "tg1";
/// With one.
const FORMAT_WITH_STATE: &str = "tg2";
/// With offsets at which the changelogs begin.
const FORMAT_WITH_SINCE: &str = "tg3";

/// What the metadata of a committed offset says about the state at that cut.
///
/// Written as `tg1;<lineage>;<epoch>;<plan>;<crc32 of the text before it>`, at most 80 bytes; or, under other strategies than `changelog`, as
/// `tg2;<lineage>;<epoch>;<plan>;<durability>;<base snapshot>;<increment>;<crc32>`; base and increment may be empty; at most 320 bytes.
/// After the strategy has changed to one with changelogs, as `tg3` with the fields of `tg2` and [`Pointer::since`] before the checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// The history that the state belongs to.
    pub lineage: Lineage,
    /// The epoch that ended at the committed offsets.
    pub epoch: Epoch,
    /// Fingerprint of the plan that wrote it.
    pub plan: String,
    /// The strategy that the commit was made under.
    pub durability: Durability,
    /// Where the state is stored; empty under strategy `changelog`.
    pub state: StateRef,
    /// Where the changelogs begin to count. `None`: at their first records. Never under strategy `snapshot`.
    pub since: Option<Beginning>,
}

/// Why the metadata of a committed offset is not a pointer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// The offsets were committed by something that is not Tidegate.
    #[error(
        "the metadata {metadata:?} was not written by Tidegate; another application commits to this consumer group, give this one its own application.id"
    )]
    Foreign {
        /// The metadata.
        metadata: String,
    },
    /// The metadata begins like a pointer and is damaged.
    #[error("the state pointer {metadata:?} is damaged: {reason}")]
    Damaged {
        /// The metadata.
        metadata: String,
        /// What is wrong.
        reason: &'static str,
    },
}

impl Coded for PointerError {
    fn code(&self) -> &'static str {
        match self {
            PointerError::Foreign { .. } => "TG3001",
            PointerError::Damaged { .. } => "TG3002",
        }
    }
}

impl Pointer {
    /// The pointer as offset metadata.
    pub fn to_metadata(&self) -> String {
        let mut text = format!("{};{};{}", self.lineage, self.epoch, self.plan);
        let format = match (self.durability, &self.since) {
            (_, Some(_)) => FORMAT_WITH_SINCE,
            (Durability::Changelog, None) => FORMAT,
            _ => FORMAT_WITH_STATE,
        };
        text = format!("{format};{text}");
        if format != FORMAT {
            let base = self.state.base.map(|base| base.to_string()).unwrap_or_default();
            let increment = self.state.increment.as_ref().map(ToString::to_string);
            let (word, increment) = (self.durability.word(), increment.unwrap_or_default());
            text = format!("{text};{word};{base};{increment}");
        }
        if let Some(since) = &self.since {
            text = format!("{text};{since}");
        }
        let crc = crc32fast::hash(text.as_bytes());
        format!("{text};{crc:08x}")
    }

    /// Reads offset metadata.
    ///
    /// # Errors
    /// [`PointerError`] where it is not exactly what [`Pointer::to_metadata`] writes.
    pub fn from_metadata(metadata: &str) -> Result<Self, PointerError> {
        let damaged = |reason| PointerError::Damaged {
            metadata: metadata.to_owned(),
            reason,
        };
        if !["tg1;", "tg2;", "tg3;"]
            .iter()
            .any(|format| metadata.starts_with(format))
        {
            return Err(PointerError::Foreign {
                metadata: metadata.to_owned(),
            });
        }
        let (text, crc) = metadata.rsplit_once(';').ok_or_else(|| damaged("no checksum"))?;
        if format!("{:08x}", crc32fast::hash(text.as_bytes())) != crc {
            return Err(damaged("the checksum differs"));
        }
        let fields: Vec<&str> = text.split(';').collect();
        let (lineage, epoch, plan, stored, since) = match fields[..] {
            [FORMAT, lineage, epoch, plan] => (lineage, epoch, plan, None, None),
            [FORMAT_WITH_STATE, lineage, epoch, plan, word, base, increment] => {
                (lineage, epoch, plan, Some((word, base, increment)), None)
            }
            [FORMAT_WITH_SINCE, lineage, epoch, plan, word, base, increment, since] => {
                (lineage, epoch, plan, Some((word, base, increment)), Some(since))
            }
            _ => return Err(damaged("it does not have the fields of its format")),
        };
        let (mut durability, mut state) = Default::default();
        if let Some((word, base, increment)) = stored {
            state = StateRef {
                base: parsed(base).map_err(|_| damaged("it does not name a base snapshot"))?,
                increment: parsed(increment).map_err(|_| damaged("it does not name an increment"))?,
            };
            let fits = |durability: &Durability| match since {
                Some(_) => durability.has_changelogs(),
                None => durability.has_snapshots(),
            };
            let named = Durability::of_word(word).filter(fits);
            durability = named.ok_or_else(|| damaged("it does not name a strategy"))?;
        }
        let since = since.map(str::parse).transpose();
        let since = since.map_err(|_: String| damaged("it does not say where changelogs begin"))?;
        Ok(Pointer {
            lineage: lineage
                .parse()
                .map_err(|_| damaged("the lineage is not 16 hex digits"))?,
            epoch: Epoch(epoch.parse().map_err(|_| damaged("the epoch is not a number"))?),
            plan: plan.to_owned(),
            durability,
            state,
            since,
        })
    }
}

/// Reads a field that may be empty.
fn parsed<T: FromStr>(field: &str) -> Result<Option<T>, T::Err> {
    match field {
        "" => Ok(None),
        field => field.parse().map(Some),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::durability::snapshot::{Attempt, IncrementRef, PackId, Place, SnapshotId, SpillId, WriterName};

    #[test]
    fn the_format_is_fixed() {
        let pointer = Pointer {
            lineage: Lineage(0x1234),
            epoch: Epoch(7),
            plan: "00c0ffee".into(),
            durability: Durability::Changelog,
            state: StateRef::default(),
            since: None,
        };
        let metadata = "tg1;0000000000001234;7;00c0ffee;079528b3";
        assert_eq!(pointer.to_metadata(), metadata);
        assert_eq!(Pointer::from_metadata(metadata), Ok(pointer));
    }

    /// Stands for the spill topic in place of an instance.
    const SPILLED: &str = "!";

    fn stored(base: Option<(u64, u64)>, increment: Option<(u64, &str)>) -> StateRef {
        StateRef {
            base: base.map(|(epoch, attempt)| SnapshotId {
                epoch: Epoch(epoch),
                attempt: Attempt(attempt),
            }),
            increment: increment.map(|(epoch, instance)| IncrementRef {
                epoch: Epoch(epoch),
                place: match instance {
                    SPILLED => Place::Spilled(SpillId {
                        from: 1203,
                        attempt: Attempt(9),
                    }),
                    instance => Place::Pack(PackId {
                        writer: WriterName::new(instance, "worker-1"),
                        sequence: epoch,
                        attempt: Attempt(9),
                    }),
                },
            }),
        }
    }

    #[test]
    fn the_format_with_state_is_fixed() {
        let pointer = Pointer {
            lineage: Lineage(0x1234),
            epoch: Epoch(7),
            plan: "00c0ffee".into(),
            durability: Durability::Snapshot,
            state: stored(Some((5, 0xab)), Some((7, "host"))),
            since: None,
        };
        let metadata =
            "tg2;0000000000001234;7;00c0ffee;snapshot;5-00000000000000ab;7@host/worker-1/7-0000000000000009;df3eb03e";
        assert_eq!(pointer.to_metadata(), metadata);
        assert_eq!(Pointer::from_metadata(metadata), Ok(pointer));
    }

    #[test]
    fn an_increment_may_be_in_the_spill_topic() {
        let pointer = Pointer {
            lineage: Lineage(0x1234),
            epoch: Epoch(7),
            plan: "00c0ffee".into(),
            durability: Durability::Snapshot,
            state: stored(Some((5, 0xab)), Some((7, SPILLED))),
            since: None,
        };
        let metadata = "tg2;0000000000001234;7;00c0ffee;snapshot;5-00000000000000ab;7!1203-0000000000000009;";
        assert!(pointer.to_metadata().starts_with(metadata), "{}", pointer.to_metadata());
        assert_eq!(Pointer::from_metadata(&pointer.to_metadata()), Ok(pointer));
    }

    #[test]
    fn the_format_with_the_beginning_of_changelogs_is_fixed() {
        let mut pointer = Pointer {
            lineage: Lineage(0x1234),
            epoch: Epoch(7),
            plan: "00c0ffee".into(),
            durability: Durability::Changelog,
            state: StateRef::default(),
            since: Some(Beginning {
                epoch: Epoch(5),
                offsets: vec![12, 0],
            }),
        };
        let metadata = "tg3;0000000000001234;7;00c0ffee;changelog;;;5@12,0;";
        assert!(pointer.to_metadata().starts_with(metadata), "{}", pointer.to_metadata());
        assert_eq!(Pointer::from_metadata(&pointer.to_metadata()), Ok(pointer.clone()));
        pointer.durability = Durability::Snapshot;
        let refused = Pointer::from_metadata(&pointer.to_metadata());
        assert!(
            matches!(refused, Err(PointerError::Damaged { .. })),
            "snapshots have no changelogs"
        );
    }

    #[test]
    fn a_changed_byte_is_noticed_and_foreign_metadata_is_named_as_such() {
        let metadata = Pointer {
            lineage: Lineage(1),
            epoch: Epoch(41),
            plan: "abc".into(),
            durability: Durability::Changelog,
            state: StateRef::default(),
            since: None,
        }
        .to_metadata();
        let changed = metadata.replace(";41;", ";42;");
        assert!(matches!(
            Pointer::from_metadata(&changed),
            Err(PointerError::Damaged { .. })
        ));
        assert!(matches!(
            Pointer::from_metadata("AgAAAA=="),
            Err(PointerError::Foreign { .. })
        ));
        assert!(matches!(Pointer::from_metadata(""), Err(PointerError::Foreign { .. })));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_read_without_panic(text in ".{0,80}", tail in "tg[123];[0-9a-f;@/,-]{0,60}") {
            let _ = Pointer::from_metadata(&text);
            let _ = Pointer::from_metadata(&tail);
        }

        #[test]
        fn what_is_written_is_read_back(lineage: u64, epoch: u64, plan in "[0-9a-f]{0,32}",
            base: Option<(u64, u64)>, increment: Option<u64>, instance in ".{0,300}", both: bool,
            since in proptest::option::of(proptest::collection::vec(0_i64..1 << 40, 1..8))) {
            let state = stored(base, increment.map(|epoch| (epoch, &instance[..])));
            let durability = if both { Durability::ChangelogAndSnapshot } else { Durability::Snapshot };
            let since = since.filter(|_| both).map(|offsets| Beginning { epoch: Epoch(epoch / 2), offsets });
            let pointer = Pointer { lineage: Lineage(lineage), epoch: Epoch(epoch), plan, durability, state, since };
            let metadata = pointer.to_metadata();
            prop_assert!(metadata.len() <= 512);
            prop_assert_eq!(Pointer::from_metadata(&metadata), Ok(pointer));
        }
    }
}
