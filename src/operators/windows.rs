//! Tumbling windows, and the layout of their stores.

use std::sync::Arc;
use std::time::Duration;

use crate::codec::{Codec, CodecError, KeyCodec, Windowed};
use crate::time::Millis;

/// Windows of one size that follow each other without gap or overlap, aligned to the Unix epoch.
///
/// A window `[start, end)` closes when the operator has observed a record at `end + grace` or later. Records for a
/// closed window are late: dropped and counted.
///
/// ```
/// use std::time::Duration;
/// use tidegate::operators::TumblingWindows;
///
/// let hours = TumblingWindows::of(Duration::from_secs(3600)).grace(Duration::from_secs(60));
/// assert_eq!(hours.size_ms(), 3_600_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TumblingWindows {
    size_ms: Millis,
    grace_ms: Millis,
}

impl TumblingWindows {
    /// Windows of `size`, in whole milliseconds, without grace.
    pub fn of(size: Duration) -> Self {
        Self {
            size_ms: millis(size),
            grace_ms: 0,
        }
    }

    /// Keeps each window open for records that are up to `grace` behind the newest one.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Self {
        Self {
            grace_ms: millis(grace),
            ..self
        }
    }

    /// Size of each window in milliseconds.
    pub fn size_ms(&self) -> Millis {
        self.size_ms
    }

    /// Grace in milliseconds.
    pub fn grace_ms(&self) -> Millis {
        self.grace_ms
    }

    /// The window of a record at `timestamp_ms`, at least 0.
    pub(crate) fn window_of<K>(&self, timestamp_ms: Millis, key: K) -> Windowed<K> {
        let start_ms = timestamp_ms - timestamp_ms % self.size_ms;
        Windowed {
            start_ms,
            end_ms: start_ms.saturating_add(self.size_ms),
            key,
        }
    }

    /// Start of the newest window that is closed once `observed_ms` was observed; -1 if there is none.
    pub(crate) fn newest_closed_start_ms(&self, observed_ms: Millis) -> Millis {
        let newest = observed_ms.saturating_sub(self.grace_ms).saturating_sub(self.size_ms);
        if newest < 0 { -1 } else { newest - newest % self.size_ms }
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

/// When a windowed aggregate passes its results on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Emit {
    /// At every change of a window, as Kafka Streams' default. The last result of a window is its final one.
    #[default]
    OnUpdate,
    /// Once per window, when it has closed, in order of start, then key.
    OnClose,
}

/// Keys of a window store: start of the window (8 bytes, big-endian), then the key, so that old windows come first.
pub(crate) struct StartFirst<K> {
    pub(crate) key: Arc<dyn KeyCodec<Item = K>>,
    pub(crate) size_ms: Millis,
}

/// The one key of a window store that is no window: it holds the operator's clock, and sorts after all windows.
pub(crate) const CLOCK_KEY: &[u8] = &[0xff];

impl<K: 'static> Codec for StartFirst<K> {
    type Item = Windowed<K>;

    fn encode(&self, item: &Windowed<K>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(&item.start_ms.to_be_bytes());
        self.key.encode(&item.key, out)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Windowed<K>, CodecError> {
        let Some((start, key)) = bytes.split_first_chunk::<8>() else {
            return Err(CodecError::Decode {
                codec: self.id(),
                bytes: bytes.len(),
                reason: "a key of a window store starts with 8 bytes of window start".into(),
            });
        };
        let start_ms = Millis::from_be_bytes(*start);
        Ok(Windowed {
            start_ms,
            end_ms: start_ms.saturating_add(self.size_ms),
            key: self.key.decode(key)?,
        })
    }

    fn id(&self) -> String {
        format!("start-first({}, {} ms)", self.key.id(), self.size_ms)
    }
}

impl<K: 'static> KeyCodec for StartFirst<K> {
    fn partition_bytes<'a>(&self, encoded: &'a [u8]) -> &'a [u8] {
        self.key.partition_bytes(encoded.get(8..).unwrap_or(encoded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_aligned_to_zero_and_close_exactly_at_end_plus_grace() {
        let windows = TumblingWindows::of(Duration::from_millis(10)).grace(Duration::from_millis(5));
        let window = windows.window_of(19, "k");
        assert_eq!((window.start_ms, window.end_ms), (10, 20));
        assert_eq!(windows.window_of(0, "k").start_ms, 0);
        assert_eq!(windows.newest_closed_start_ms(-1), -1);
        assert_eq!(windows.newest_closed_start_ms(14), -1);
        assert_eq!(windows.newest_closed_start_ms(15), 0);
        assert_eq!(windows.newest_closed_start_ms(24), 0);
        assert_eq!(windows.newest_closed_start_ms(25), 10);
        assert_eq!(windows.newest_closed_start_ms(1_000), 980);
    }

    #[test]
    fn the_end_of_time_does_not_overflow() {
        let windows = TumblingWindows::of(Duration::from_millis(10)).grace(Duration::MAX);
        assert_eq!(windows.newest_closed_start_ms(Millis::MAX), -1);
        assert_eq!(windows.window_of(Millis::MAX, "k").end_ms, Millis::MAX);
    }
}
