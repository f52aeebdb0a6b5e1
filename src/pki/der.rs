//! The little of DER (X.690) that keys, requests and certificates need: build from the inside out,
//! read from the outside in. Lengths up to 16 MiB; one-byte tags.

use time::OffsetDateTime;

use crate::instants::{Within, in_utc};

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const UTF8_STRING: u8 = 0x0c;
pub(super) const PRINTABLE_STRING: u8 = 0x13;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// `NULL`, complete.
pub(super) const NULL: &[u8] = &[0x05, 0x00];
/// `TRUE`, complete.
pub(super) const TRUE: &[u8] = &[0x01, 0x01, 0xff];

/// The encoding breaks off, has another tag, or a length that is not DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the encoding is not valid DER")]
pub struct DerError;

/// The tag of a constructed, context-specific element.
pub(super) const fn explicit(number: u8) -> u8 {
    0xa0 | number
}

/// The tag of a primitive, context-specific element.
pub(super) const fn implicit(number: u8) -> u8 {
    0x80 | number
}

/// Tag, length, and the parts one after the other.
pub(super) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut out = Vec::with_capacity(length + 6);
    out.push(tag);
    if length < 0x80 {
        out.push(length.to_le_bytes()[0]);
    } else {
        let bytes = length.to_be_bytes();
        let skipped = length.leading_zeros() as usize / 8;
        let significant = &bytes[skipped..];
        out.push(0x80 | significant.len().to_le_bytes()[0]);
        out.extend_from_slice(significant);
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// `SEQUENCE` of complete elements.
pub(super) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, parts)
}

/// `OBJECT IDENTIFIER` from its content octets.
pub(super) fn oid(content: &[u8]) -> Vec<u8> {
    element(OBJECT_IDENTIFIER, &[content])
}

/// `INTEGER` from the big-endian bytes of a non-negative number.
pub(super) fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|byte| *byte != 0);
    match start.map(|start| &bytes[start..]) {
        None => vec![INTEGER, 1, 0],
        Some(digits) if digits[0] & 0x80 == 0 => element(INTEGER, &[digits]),
        // A set top bit would read as a minus sign.
        Some(digits) => element(INTEGER, &[&[0], digits]),
    }
}

/// `BIT STRING` of whole bytes.
pub(super) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    element(BIT_STRING, &[&[0], bytes])
}

/// `BIT STRING` of named bits, whose trailing zeros DER leaves out; bit 0 is the highest of `bits`.
pub(super) fn named_bits(bits: u16) -> Vec<u8> {
    let unused = bits.trailing_zeros().min(16);
    let bytes = bits.to_be_bytes();
    let (content, unused) = match unused {
        0..=7 => (&bytes[..2], unused),
        8..=15 => (&bytes[..1], unused - 8),
        _ => (&bytes[..0], 0),
    };
    element(BIT_STRING, &[&[unused.to_le_bytes()[0]], content])
}

/// `OCTET STRING`.
pub(super) fn octet_string(bytes: &[u8]) -> Vec<u8> {
    element(OCTET_STRING, &[bytes])
}

/// A time as RFC 5280 4.1.2.5 wants it: two-digit years up to 2049, four digits after; years
/// outside 1950 to 9999 have no encoding and take the nearest that has one.
pub(super) fn validity_time(at: OffsetDateTime) -> Vec<u8> {
    let at = in_utc(at);
    let year = at.year().within(1950, 9999);
    let rest = format!(
        "{:02}{:02}{:02}{:02}{:02}Z",
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    );
    if year < 2050 {
        let text = format!("{:02}{rest}", year % 100);
        element(UTC_TIME, &[text.as_bytes()])
    } else {
        let text = format!("{year:04}{rest}");
        element(GENERALIZED_TIME, &[text.as_bytes()])
    }
}

/// Reads elements one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from the beginning.
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether nothing is left.
    pub(super) const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Whether the next element has `tag`.
    pub(super) fn next_is(&self, tag: u8) -> bool {
        self.rest.first() == Some(&tag)
    }

    /// The content of the next element, which must have `tag`.
    pub(super) fn read(&mut self, tag: u8) -> Result<&'a [u8], DerError> {
        let [found, first, after @ ..] = self.rest else {
            return Err(DerError);
        };
        if *found != tag {
            return Err(DerError);
        }
        let (length, after) = match *first {
            short @ ..=0x7f => (usize::from(short), after),
            long @ 0x81..=0x83 => long_length(after, usize::from(long & 0x7f))?,
            _ => return Err(DerError),
        };
        let (content, rest) = after.split_at_checked(length).ok_or(DerError)?;
        self.rest = rest;
        Ok(content)
    }

    /// The next element, which must have `tag`, to be read inside.
    pub(super) fn enter(&mut self, tag: u8) -> Result<Self, DerError> {
        self.read(tag).map(Self::new)
    }

    /// The next element with its tag and length.
    pub(super) fn read_whole(&mut self, tag: u8) -> Result<&'a [u8], DerError> {
        let before = self.rest;
        self.read(tag)?;
        Ok(&before[..before.len() - self.rest.len()])
    }

    /// The whole bytes of the next `BIT STRING`.
    pub(super) fn read_bit_string(&mut self) -> Result<&'a [u8], DerError> {
        match self.read(BIT_STRING)? {
            [0, bytes @ ..] => Ok(bytes),
            _ => Err(DerError),
        }
    }
}

fn long_length(bytes: &[u8], digits: usize) -> Result<(usize, &[u8]), DerError> {
    let (length, rest) = bytes.split_at_checked(digits).ok_or(DerError)?;
    let value = length
        .iter()
        .fold(0_usize, |value, byte| value << 8 | usize::from(*byte));
    let is_shortest = value >= 0x80 && length.first() != Some(&0);
    if is_shortest {
        Ok((value, rest))
    } else {
        Err(DerError)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn numbers_stay_positive_and_short() {
        assert_eq!(unsigned(&[0, 0, 0x7f]), [INTEGER, 1, 0x7f]);
        assert_eq!(unsigned(&[0x80]), [INTEGER, 2, 0, 0x80]);
        assert_eq!(unsigned(&[]), [INTEGER, 1, 0]);
    }

    #[test]
    fn named_bits_lose_their_trailing_zeros() {
        // digitalSignature and keyEncipherment; keyCertSign and cRLSign.
        assert_eq!(named_bits(0xa000), [BIT_STRING, 2, 5, 0xa0]);
        assert_eq!(named_bits(0x0600), [BIT_STRING, 2, 1, 0x06]);
    }

    #[test]
    fn years_after_2049_take_four_digits() {
        let early = validity_time(datetime!(2049-12-31 23:59:59 UTC));
        assert_eq!(&early[2..], b"491231235959Z");
        let late = validity_time(datetime!(2050-01-01 01:00 +1));
        assert_eq!(&late[2..], b"20500101000000Z");
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(content in proptest::collection::vec(any::<u8>(), 0..70_000)) {
            let written = octet_string(&content);
            let mut reader = Reader::new(&written);
            prop_assert_eq!(reader.read(OCTET_STRING).unwrap(), &content[..]);
            prop_assert!(reader.is_at_end());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader::new(&bytes);
            let _ = reader.read(SEQUENCE);
            let _ = Reader::new(&bytes).read_bit_string();
        }
    }
}
