//! How values are written: integers big-endian, texts and byte strings behind their length.

use crate::record::{Header, Headers};

/// Length that stands for Kafka's null.
const NULL: u32 = u32::MAX;

/// Appends values to a buffer.
pub(super) struct Writer<'a>(pub &'a mut Vec<u8>);

impl Writer<'_> {
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub fn bytes(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            None => self.u32(NULL),
            Some(bytes) => {
                self.u32(bytes.len() as u32);
                self.0.extend_from_slice(bytes);
            }
        }
    }

    pub fn text(&mut self, text: &str) {
        self.bytes(Some(text.as_bytes()));
    }

    pub fn headers(&mut self, headers: &Headers) {
        self.u32(headers.as_slice().len() as u32);
        for header in headers.as_slice() {
            self.text(&header.name);
            self.bytes(header.value.as_deref());
        }
    }
}

/// Takes values from the start of a buffer; `None` where it holds something else.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// The outer `None`: there is no byte string; the inner one: it is null.
    pub fn bytes(&mut self) -> Option<Option<&'a [u8]>> {
        match self.u32()? {
            NULL => Some(None),
            length => self.take(length as usize).map(Some),
        }
    }

    pub fn text(&mut self) -> Option<String> {
        let bytes = self.bytes()??;
        Some(std::str::from_utf8(bytes).ok()?.to_owned())
    }

    pub fn headers(&mut self) -> Option<Headers> {
        let count = self.u32()?;
        let header = |reader: &mut Self| {
            Some(Header {
                name: reader.text()?.into(),
                value: reader.bytes()?.map(<[u8]>::to_vec),
            })
        };
        let headers: Option<Vec<_>> = (0..count).map(|_| header(self)).collect();
        Some(Headers::new(headers?))
    }

    /// Whether everything is taken.
    pub fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }
}
