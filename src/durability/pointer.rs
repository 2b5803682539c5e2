//! The short form of the pointer to a task's state: metadata of the committed offsets.

use crate::errors::Coded;
use crate::ids::{Epoch, Lineage};

const FORMAT: &str = "tg1";

/// What the metadata of a committed offset says about the state at that cut.
///
/// Written as `tg1;<lineage>;<epoch>;<plan>;<crc32 of the text before it>`, at most 80 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// The history that the state belongs to.
    pub lineage: Lineage,
    /// The epoch that ended at the committed offsets.
    pub epoch: Epoch,
    /// Fingerprint of the plan that wrote it.
    pub plan: String,
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
        let text = format!("{FORMAT};{};{};{}", self.lineage, self.epoch, self.plan);
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
        if !metadata.starts_with("tg1;") {
            return Err(PointerError::Foreign {
                metadata: metadata.to_owned(),
            });
        }
        let (text, crc) = metadata.rsplit_once(';').ok_or_else(|| damaged("no checksum"))?;
        if format!("{:08x}", crc32fast::hash(text.as_bytes())) != crc {
            return Err(damaged("the checksum differs"));
        }
        let fields: Vec<&str> = text.split(';').collect();
        let [_, lineage, epoch, plan] = fields[..] else {
            return Err(damaged("it does not have five fields"));
        };
        Ok(Pointer {
            lineage: lineage
                .parse()
                .map_err(|_| damaged("the lineage is not 16 hex digits"))?,
            epoch: Epoch(epoch.parse().map_err(|_| damaged("the epoch is not a number"))?),
            plan: plan.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_format_is_fixed() {
        let pointer = Pointer {
            lineage: Lineage(0x1234),
            epoch: Epoch(7),
            plan: "00c0ffee".into(),
        };
        let metadata = "tg1;0000000000001234;7;00c0ffee;079528b3";
        assert_eq!(pointer.to_metadata(), metadata);
        assert_eq!(Pointer::from_metadata(metadata), Ok(pointer));
    }

    #[test]
    fn a_changed_byte_is_noticed_and_foreign_metadata_is_named_as_such() {
        let metadata = Pointer {
            lineage: Lineage(1),
            epoch: Epoch(41),
            plan: "abc".into(),
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
        fn any_text_is_refused_or_read_without_panic(text in ".{0,80}", tail in "tg1;[0-9a-f;]{0,60}") {
            let _ = Pointer::from_metadata(&text);
            let _ = Pointer::from_metadata(&tail);
        }

        #[test]
        fn what_is_written_is_read_back(lineage: u64, epoch: u64, plan in "[0-9a-f]{0,32}") {
            let pointer = Pointer { lineage: Lineage(lineage), epoch: Epoch(epoch), plan };
            let metadata = pointer.to_metadata();
            prop_assert!(metadata.len() <= 512);
            prop_assert_eq!(Pointer::from_metadata(&metadata), Ok(pointer));
        }
    }
}
