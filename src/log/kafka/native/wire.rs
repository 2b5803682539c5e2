//! Numbers, texts and arrays as Kafka's protocol writes them in its flexible versions.

/// Bytes that are not what the protocol says; with what was expected there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not what the protocol says: {0}")]
pub(super) struct Malformed(pub &'static str);

/// Writes a request.
#[derive(Debug, Default)]
pub(super) struct Writer(pub Vec<u8>);

impl Writer {
    pub fn i8(&mut self, value: i8) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub fn i16(&mut self, value: i16) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub fn i32(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub fn bool(&mut self, value: bool) {
        self.0.push(u8::from(value));
    }

    pub fn varint(&mut self, value: u32) {
        write_varint(&mut self.0, u64::from(value));
    }

    /// A length as the flexible versions write it: 0 is null, so every other one is greater by one.
    fn length(&mut self, length: usize) {
        // Whatever is longer than this does not pass the limit of a request.
        self.varint(u32::try_from(length + 1).unwrap_or(u32::MAX));
    }

    pub fn array(&mut self, length: usize) {
        self.length(length);
    }

    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub fn nullable_text(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.text(text),
            None => self.varint(0),
        }
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// A text as the inflexible versions write it.
    pub fn old_text(&mut self, text: &str) {
        let text = &text.as_bytes()[..text.len().min(i16::MAX as usize)];
        self.i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
        self.0.extend_from_slice(text);
    }

    /// No tagged fields.
    pub fn no_tags(&mut self) {
        self.varint(0);
    }
}

/// Appends an unsigned number in groups of seven bits, the lowest first.
#[inline]
pub(super) fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that [`write_varint`] appends.
#[inline]
pub(super) fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Signed numbers so that small ones stay short.
#[inline]
pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Reads an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed(what))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.take(N, "a number")?;
        bytes.try_into().map_err(|_| Malformed("a number"))
    }

    pub fn i8(&mut self) -> Result<i8, Malformed> {
        self.number().map(i8::from_be_bytes)
    }

    pub fn i16(&mut self) -> Result<i16, Malformed> {
        self.number().map(i16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, Malformed> {
        self.number().map(i32::from_be_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, Malformed> {
        self.number().map(i64::from_be_bytes)
    }

    pub fn bool(&mut self) -> Result<bool, Malformed> {
        Ok(self.i8()? != 0)
    }

    pub fn varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0_u64;
        for shift in (0..35).step_by(7) {
            let byte = self.i8()? as u8;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| Malformed("a shorter number"));
            }
        }
        Err(Malformed("a shorter number"))
    }

    fn length(&mut self) -> Result<Option<usize>, Malformed> {
        let length = self.varint()? as usize;
        Ok(length.checked_sub(1))
    }

    /// Elements that follow; a null array has none. Never more than there are bytes.
    pub fn array(&mut self) -> Result<usize, Malformed> {
        let length = self.length()?.unwrap_or(0);
        match length <= self.0.len() {
            true => Ok(length),
            false => Err(Malformed("a shorter array")),
        }
    }

    /// The same as the inflexible versions write it.
    pub fn old_array(&mut self) -> Result<usize, Malformed> {
        let length = usize::try_from(self.i32()?).unwrap_or(0);
        match length <= self.0.len() {
            true => Ok(length),
            false => Err(Malformed("a shorter array")),
        }
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        match self.length()? {
            Some(length) => self.take(length, "as many bytes as stated"),
            None => Ok(&[]),
        }
    }

    /// A text, or null.
    pub fn nullable_text(&mut self) -> Result<Option<&'a str>, Malformed> {
        let Some(length) = self.length()? else {
            return Ok(None);
        };
        let bytes = self.take(length, "a text")?;
        std::str::from_utf8(bytes).map(Some).map_err(|_| Malformed("UTF-8"))
    }

    /// A text; null counts as an empty one.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        Ok(self.nullable_text()?.unwrap_or_default())
    }

    /// A text as the inflexible versions write it.
    pub fn old_text(&mut self) -> Result<&'a str, Malformed> {
        let length = usize::try_from(self.i16()?).unwrap_or(0);
        let bytes = self.take(length, "a text")?;
        std::str::from_utf8(bytes).map_err(|_| Malformed("UTF-8"))
    }

    pub fn skip(&mut self, count: usize) -> Result<(), Malformed> {
        self.take(count, "more bytes").map(|_| ())
    }

    /// Calls `visit` with each tagged field's tag and bytes.
    pub fn tags(&mut self, mut visit: impl FnMut(u32, Reader<'a>) -> Result<(), Malformed>) -> Result<(), Malformed> {
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let length = self.varint()? as usize;
            let field = self.take(length, "a tagged field")?;
            visit(tag, Reader(field))?;
        }
        Ok(())
    }

    pub fn skip_tags(&mut self) -> Result<(), Malformed> {
        self.tags(|_, _| Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut writer = Writer::default();
        writer.i16(-7);
        writer.i64(1 << 40);
        writer.text("größer");
        writer.nullable_text(None);
        writer.bytes(&[1, 2, 3]);
        writer.array(3);
        writer.i8(1);
        writer.i8(2);
        writer.i8(3);
        writer.no_tags();
        let mut reader = Reader::new(&writer.0);
        assert_eq!(reader.i16(), Ok(-7));
        assert_eq!(reader.i64(), Ok(1 << 40));
        assert_eq!(reader.text(), Ok("größer"));
        assert_eq!(reader.nullable_text(), Ok(None));
        assert_eq!(reader.bytes(), Ok(&[1, 2, 3][..]));
        assert_eq!(reader.array(), Ok(3));
        assert_eq!(reader.skip(3), Ok(()));
        assert_eq!(reader.skip_tags(), Ok(()));
        assert!(reader.i8().is_err(), "nothing is left");
    }

    #[test]
    fn lengths_of_numbers_are_known_before_they_are_written() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            write_varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "{value}");
        }
        let signed = [0, -1, 1, -2, 2, i64::MAX, i64::MIN];
        assert_eq!(signed.map(zigzag), [0, 1, 2, 3, 4, u64::MAX - 1, u64::MAX]);
    }

    #[test]
    fn no_answer_makes_the_reader_go_beyond_its_end() {
        // Lengths and numbers of elements that the bytes behind them do not have.
        for bytes in [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0x05, 1], &[0xff; 12], &[]] {
            assert!(Reader::new(bytes).array().is_err() || bytes.is_empty());
            assert!(Reader::new(bytes).bytes().is_err());
            assert!(Reader::new(bytes).text().is_err());
            assert!(Reader::new(bytes).skip_tags().is_err());
        }
        assert_eq!(Reader::new(&[3, b'a', 0xff]).text(), Err(Malformed("UTF-8")));
    }
}
