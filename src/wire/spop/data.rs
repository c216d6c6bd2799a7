//! Data types: SPOE.txt section 3.1, and the KV-LISTs of section 3.2 that are made of them.
//!
//! Every string, count and identifier is a varint in the encoding of HAProxy's peers protocol. The first byte holds a
//! number below 240 by itself; from 240 on, its low four bits are the number's lowest, and bytes of seven bits follow,
//! lowest first, as long as bit 7 is set. The marking bits are not masked away but are part of the sum, so no number
//! has two encodings:
//!
//! ```text
//!        0 ..        240   1 byte    nnnnnnnn
//!      240 ..      2,288   2 bytes   1111nnnn 0nnnnnnn
//!    2,288 ..    264,432   3 bytes   1111nnnn 1nnnnnnn 0nnnnnnn
//!  264,432 .. 33,818,864   4 bytes   1111nnnn 1nnnnnnn 1nnnnnnn 0nnnnnnn
//!  and so on, 10 bytes at most
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest varint in bytes: that of 2⁶⁴ − 1.
pub(super) const VARINT_BYTES_MAX: usize = 10;

/// Type identifiers, the low four bits of the first byte of TYPED-DATA. The high four are flags.
mod kind {
    pub const NULL: u8 = 0;
    pub const BOOL: u8 = 1;
    pub const INT32: u8 = 2;
    pub const UINT32: u8 = 3;
    pub const INT64: u8 = 4;
    pub const UINT64: u8 = 5;
    pub const IPV4: u8 = 6;
    pub const IPV6: u8 = 7;
    pub const STRING: u8 = 8;
    pub const BINARY: u8 = 9;
    /// A boolean's value.
    pub const FLAG_TRUE: u8 = 0x10;
}

/// TYPED-DATA, borrowed from its frame.
///
/// HAProxy itself sends integers as `Int64` (in messages) or `Uint32` (in hellos), and `Null` where a sample could not
/// be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int32(i32),
    Uint32(u32),
    Int64(i64),
    Uint64(u64),
    Ipv4(Ipv4Addr),
    /// As it was sent: `::ffff:192.0.2.1` stays IPv6.
    Ipv6(Ipv6Addr),
    /// Bytes that the sender calls text; whether they are UTF-8 is not known.
    String(&'a [u8]),
    Binary(&'a [u8]),
}

impl Value<'_> {
    /// The number where the specification wants a `Uint32`; `None` if it is none at all. HAProxy takes any of the four
    /// types there, and so do we. What is out of range is brought to the nearest number that is not.
    pub(super) fn number(self) -> Option<u32> {
        match self {
            Value::Uint32(number) => Some(number),
            Value::Uint64(number) => Some(u32::try_from(number).unwrap_or(u32::MAX)),
            Value::Int32(number) => Some(u32::try_from(number).unwrap_or(0)),
            Value::Int64(number) => Some(u32::try_from(number.max(0)).unwrap_or(u32::MAX)),
            Value::Null | Value::Bool(_) | Value::Ipv4(_) | Value::Ipv6(_) | Value::String(_) | Value::Binary(_) => {
                None
            }
        }
    }
}

/// Reads from the front of a slice. What is cut off, too big or not defined is `None`; what is then left is undefined.
///
/// Inlined by order: where a value is only passed over, none is made then, and a question of ten arguments takes 100 ns
/// instead of 190.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Decoder<'a> {
        Decoder { rest: bytes }
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline(always)]
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    #[inline(always)]
    pub(super) fn array<const BYTES: usize>(&mut self) -> Option<[u8; BYTES]> {
        let (array, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*array)
    }

    /// HAProxy lets a number beyond 64 bits wrap round; here it is malformed, for it can only be a mistake or an attack.
    #[inline(always)]
    pub(super) fn varint(&mut self) -> Option<u64> {
        let first = self.byte()?;
        if first < 240 {
            return Some(u64::from(first));
        }
        let mut number = u64::from(first);
        let mut shift = 4;
        loop {
            let byte = self.byte()?;
            // Of the byte at shift 60 only four bits have room, so bit 7 ends the loop there at the latest.
            let part = u64::from(byte) << shift;
            if part >> shift != u64::from(byte) {
                return None;
            }
            number = number.checked_add(part)?;
            if byte < 0x80 {
                return Some(number);
            }
            shift += 7;
        }
    }

    /// A length and as many bytes.
    #[inline(always)]
    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let bytes = usize::try_from(self.varint()?).ok()?;
        let (string, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(string)
    }

    #[inline(always)]
    pub(super) fn value(&mut self) -> Option<Value<'a>> {
        let first = self.byte()?;
        Some(match first & 0x0f {
            kind::NULL => Value::Null,
            kind::BOOL => Value::Bool(first & kind::FLAG_TRUE != 0),
            // A negative number is the varint of its 64 bits, whatever its type; other senders may well take 32. Both
            // are the same once the upper half is cut off. A number that does not fit loses its upper half too: such an
            // argument names no client, and is not worth the connection.
            kind::INT32 => Value::Int32(self.varint()? as i32),
            kind::UINT32 => Value::Uint32(self.varint()? as u32),
            kind::INT64 => Value::Int64(self.varint()? as i64),
            kind::UINT64 => Value::Uint64(self.varint()?),
            kind::IPV4 => Value::Ipv4(Ipv4Addr::from(self.array::<4>()?)),
            kind::IPV6 => Value::Ipv6(Ipv6Addr::from(self.array::<16>()?)),
            kind::STRING => Value::String(self.string()?),
            kind::BINARY => Value::Binary(self.string()?),
            // Reserved: how long it is, and so where the next one begins, is not known.
            _ => return None,
        })
    }

    /// One item of a KV-LIST.
    #[inline(always)]
    pub(super) fn item(&mut self) -> Option<(&'a [u8], Value<'a>)> {
        Some((self.string()?, self.value()?))
    }
}

pub(super) fn push_varint(out: &mut Vec<u8>, number: u64) {
    if number < 240 {
        out.push(number as u8);
        return;
    }
    out.push(number as u8 | 0xf0);
    let mut rest = (number - 240) >> 4;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest = (rest - 0x80) >> 7;
    }
    out.push(rest as u8);
}

/// A length and the bytes, as names and keys are written.
pub(super) fn push_string(out: &mut Vec<u8>, string: &[u8]) {
    push_varint(out, string.len() as u64);
    out.extend_from_slice(string);
}

/// TYPED-DATA of a string.
pub(super) fn push_string_value(out: &mut Vec<u8>, string: &[u8]) {
    out.push(kind::STRING);
    push_string(out, string);
}

/// TYPED-DATA of an unsigned 32-bit integer.
pub(super) fn push_uint32_value(out: &mut Vec<u8>, number: u32) {
    out.push(kind::UINT32);
    push_varint(out, u64::from(number));
}

/// TYPED-DATA of a signed 32-bit integer that is not negative.
pub(super) fn push_int32_value(out: &mut Vec<u8>, number: u32) {
    debug_assert!(i32::try_from(number).is_ok(), "{number} is no int32");
    out.push(kind::INT32);
    push_varint(out, u64::from(number));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn varint(mut bytes: &[u8]) -> Option<u64> {
        let mut decoder = Decoder::new(bytes);
        let number = decoder.varint()?;
        bytes = decoder.rest();
        assert!(bytes.is_empty(), "{bytes:?} was left");
        Some(number)
    }

    fn written(number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        push_varint(&mut out, number);
        out
    }

    /// The table of section 3.1, continued: the first number of each length, and the last one before it.
    #[test]
    fn a_varint_has_the_length_of_the_table() {
        let firsts: [u64; 9] = [
            240,
            2288,
            264_432,
            33_818_864,
            4_328_786_160,
            0x81_0204_08f0,
            0x4081_0204_08f0,
            0x20_4081_0204_08f0,
            0x1020_4081_0204_08f0,
        ];
        for (first, bytes) in firsts.into_iter().zip(2..) {
            assert_eq!(written(first - 1).len(), bytes - 1, "{}", first - 1);
            assert_eq!(written(first).len(), bytes, "{first}");
        }
        assert_eq!(written(u64::MAX).len(), VARINT_BYTES_MAX);
    }

    #[test]
    fn varints_are_read_and_written() {
        for (number, bytes) in [
            (0, &[0][..]),
            (239, &[0xef]),
            (240, &[0xf0, 0x00]),
            (255, &[0xff, 0x00]),
            (256, &[0xf0, 0x01]),
            // A stream-id and a max-frame-size that HAProxy sent.
            (469, &[0xf5, 0x0e]),
            (16380, &[0xfc, 0xf0, 0x06]),
            (2287, &[0xff, 0x7f]),
            (2288, &[0xf0, 0x80, 0x00]),
            (264_431, &[0xff, 0xff, 0x7f]),
            (264_432, &[0xf0, 0x80, 0x80, 0x00]),
            // HAProxy's -5.
            (-5_i64 as u64, &[0xfb, 0xf0, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x0e]),
            (u64::MAX, &[0xff, 0xf0, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x0e]),
        ] {
            assert_eq!(written(number), bytes, "{number}");
            assert_eq!(varint(bytes), Some(number), "{bytes:x?}");
        }
    }

    #[test]
    fn a_varint_that_is_cut_or_too_big_is_none() {
        for bytes in [
            &[][..],
            &[0xf0],
            &[0xff, 0x80],
            // 2⁶⁴, as a sum and as a part.
            &[0xf0, 0xf1, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x0e],
            &[0xf0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f],
            // More bytes than any number has.
            &[0xf0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
            &[0xff; 40],
        ] {
            assert_eq!(varint(bytes), None, "{bytes:x?}");
        }
    }

    #[test]
    fn values_are_read() {
        for (bytes, want) in [
            (&[0x00][..], Value::Null),
            (&[0x01], Value::Bool(false)),
            (&[0x11], Value::Bool(true)),
            // Only the first flag is a boolean's value, and flags mean nothing elsewhere.
            (&[0xe1], Value::Bool(false)),
            (&[0xf1], Value::Bool(true)),
            (&[0xf0], Value::Null),
            (&[0xf3, 0x07], Value::Uint32(7)),
            (&[0x02, 0x01], Value::Int32(1)),
            (&[0x02, 0xfb, 0xf0, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x0e], Value::Int32(-5)),
            // -5 in 32 bits, 2³² + 1, and 2³² + 1 again.
            (&[0x02, 0xfb, 0xf0, 0xfe, 0xfe, 0x7e], Value::Int32(-5)),
            (&[0x02, 0xf1, 0xf1, 0xfe, 0xfe, 0x7e], Value::Int32(1)),
            (&[0x03, 0xf1, 0xf1, 0xfe, 0xfe, 0x7e], Value::Uint32(1)),
            (&[0x04, 0xfb, 0xf0, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x0e], Value::Int64(-5)),
            (&[0x05, 0xff, 0xf0, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x0e], Value::Uint64(u64::MAX)),
            (&[0x06, 192, 0, 2, 1], Value::Ipv4(Ipv4Addr::new(192, 0, 2, 1))),
            (
                &[0x07, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1],
                Value::Ipv6(Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped()),
            ),
            (b"\x08\x00", Value::String(b"")),
            (b"\x08\x03a\xffb", Value::String(b"a\xffb")),
            (b"\x09\x02\0\n", Value::Binary(b"\0\n")),
        ] {
            let mut decoder = Decoder::new(bytes);
            assert_eq!(decoder.value(), Some(want), "{bytes:x?}");
            assert!(decoder.rest().is_empty());
            for end in 0..bytes.len() {
                assert_eq!(Decoder::new(&bytes[..end]).value(), None, "{:x?}", &bytes[..end]);
            }
        }
    }

    #[test]
    fn reserved_types_and_lengths_beyond_the_end_are_none() {
        for first in 0..=255_u8 {
            if first & 0x0f > kind::BINARY {
                assert_eq!(Decoder::new(&[first, 0, 0, 0]).value(), None, "{first:#x}");
            }
        }
        assert_eq!(Decoder::new(b"\x08\x04abc").value(), None);
        let longest = [&[0x09][..], &written(u64::MAX), b"abc"].concat();
        assert_eq!(Decoder::new(&longest).value(), None);
    }

    proptest! {
        #[test]
        fn varints_there_and_back(number in any::<u64>(), bits in 0..64_u32) {
            let number = number >> bits;
            prop_assert_eq!(varint(&written(number)), Some(number));
        }

        /// No number has two encodings.
        #[test]
        fn varints_back_and_there(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let mut decoder = Decoder::new(&bytes);
            if let Some(number) = decoder.varint() {
                prop_assert_eq!(written(number), &bytes[..bytes.len() - decoder.rest().len()]);
            }
        }
    }
}
