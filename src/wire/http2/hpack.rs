//! HPACK (RFC 7541): header blocks, read into fields; and the little that is needed to write some.
//!
//! ```text
//! 1…        an entry of the table                          index: 7 bits and more
//! 01…       a field that goes into the table               index of its name: 6, or 0 and the name; value
//! 001…      the table's new size, before all fields        5
//! 0000…     a field that does not go there                 4, or 0 and the name; value
//! 0001…     nor anywhere else ("never indexed")            the same
//! text      whether it is in Huffman's code: 1 bit; its length: 7 and more; its bytes
//! ```

use super::huffman;
use super::name::Kind;
use super::table::{Field, Table};

/// Bytes of memory for decoded texts that are kept from block to block.
const KEPT_BYTES: usize = 4 << 10;

/// Reads the header blocks of one connection, in the order in which they come.
#[derive(Debug, Default)]
pub struct Decoder {
    table: Table,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// What was read is no header block: what follows on the connection cannot be read either (§2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Decoder {
    /// Reads a whole header block, and hands each field to `visit`.
    pub fn decode(&mut self, block: &[u8], mut visit: impl FnMut(Field<'_>)) -> Result<(), Malformed> {
        let mut input = Input(block);
        let mut may_resize = true;
        while let Some(&first) = input.0.first() {
            if first & 0x80 != 0 {
                visit(self.table.get(input.integer(7)?).ok_or(Malformed)?);
            } else if first & 0xe0 == 0x20 {
                // Only in front of all fields (§4.2).
                if !may_resize || !self.table.resize(input.integer(5)?) {
                    return Err(Malformed);
                }
                continue;
            } else {
                self.literal(&mut input, first & 0x40 != 0, &mut visit)?;
            }
            may_resize = false;
        }
        self.name.shrink_to(KEPT_BYTES);
        self.value.shrink_to(KEPT_BYTES);
        Ok(())
    }

    /// A number that says whether any block since has changed how blocks are read.
    pub fn changes(&self) -> u64 {
        self.table.changes()
    }

    fn literal(
        &mut self,
        input: &mut Input<'_>,
        is_kept: bool,
        visit: &mut impl FnMut(Field<'_>),
    ) -> Result<(), Malformed> {
        let index = input.integer(if is_kept { 6 } else { 4 })?;
        let (name, kind) = if index == 0 {
            let name = input.text(&mut self.name)?;
            (name, Kind::of(name))
        } else {
            let Field { name, kind, .. } = self.table.get(index).ok_or(Malformed)?;
            // Copied, because what it comes from may have to go for it (§4.4).
            self.name.clear();
            self.name.extend_from_slice(name);
            (self.name.as_slice(), kind)
        };
        let field = Field { name, value: input.text(&mut self.value)?, kind };
        if is_kept {
            self.table.insert(field);
        }
        visit(field);
        Ok(())
    }
}

/// What is left of a block.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8, Malformed> {
        let (byte, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*byte)
    }

    /// §5.1: what fits into `bits` of the first byte, or that they are all ones, and the rest in sevens, the lowest first.
    /// Nothing that is counted here needs more than 28 bits; what does is a fault, as is a number that goes on after them.
    fn integer(&mut self, bits: u32) -> Result<usize, Malformed> {
        let limit = (1_usize << bits) - 1;
        let first = usize::from(self.byte()?) & limit;
        if first < limit {
            return Ok(first);
        }
        let mut number = limit;
        for shift in (0..28).step_by(7) {
            let byte = self.byte()?;
            number += usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    /// §5.2: from the block itself, or decoded into `buffer`.
    fn text<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], Malformed>
    where
        'a: 'b,
    {
        let is_huffman = self.0.first().is_some_and(|first| first & 0x80 != 0);
        let length = self.integer(7)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        if !is_huffman {
            return Ok(text);
        }
        buffer.clear();
        if huffman::decode(text, buffer) { Ok(buffer) } else { Err(Malformed) }
    }
}

/// The entry of the static table that says that all is well.
pub const STATUS_200: u8 = 0x80 | 8;

/// Appends a field that leaves no trace in the peer's table, with its name written out.
pub fn put(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(0);
    put_text(out, name);
    put_text(out, value);
}

/// Appends `:status`, which has a number in the static table.
pub fn put_status(out: &mut Vec<u8>, status: &str) {
    out.push(8);
    put_text(out, status);
}

/// Without Huffman's code: what is written here is short.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.len();
    if rest < 0x7f {
        out.push(rest as u8);
    } else {
        out.push(0x7f);
        rest -= 0x7f;
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::huffman::tests::encode as huffman;
    use super::super::table::SIZE_MAX;
    use super::*;
    use proptest::prelude::*;

    type Fields = Vec<(String, String)>;
    type Texts<'a> = &'a [(&'a str, &'a str)];

    fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, Malformed> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        decoder.decode(block, |field| fields.push((text(field.name), text(field.value))))?;
        Ok(fields)
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn table(decoder: &Decoder) -> Fields {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (62..).map_while(|index| decoder.table.get(index)).map(|field| (text(field.name), text(field.value))).collect()
    }

    fn fields(fields: Texts<'_>) -> Fields {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// Blocks of one connection, what is in each, and what is in the table behind each.
    fn hold(size_max: usize, blocks: &[(&str, Texts<'_>, Texts<'_>)]) {
        let mut decoder = Decoder::default();
        assert!(decoder.table.resize(size_max));
        for (block, want, behind) in blocks {
            assert_eq!(read(&mut decoder, &hex(block)), Ok(fields(want)), "{block}");
            assert_eq!(table(&decoder), fields(behind), "{block}");
        }
    }

    /// RFC 7541, Appendix C.2
    #[test]
    fn single_fields_of_the_standard() {
        let custom = [("custom-key", "custom-header")];
        hold(SIZE_MAX, &[("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", &custom, &custom)]);
        hold(SIZE_MAX, &[("040c 2f73 616d 706c 652f 7061 7468", &[(":path", "/sample/path")], &[])]);
        hold(SIZE_MAX, &[("1008 7061 7373 776f 7264 0673 6563 7265 74", &[("password", "secret")], &[])]);
        hold(SIZE_MAX, &[("82", &[(":method", "GET")], &[])]);
    }

    /// RFC 7541, Appendices C.3 and C.4: the same requests, without and with Huffman's code.
    #[test]
    fn requests_of_the_standard() {
        let first = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
        let second = [&first[..], &[("cache-control", "no-cache")]].concat();
        let third = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            (":authority", "www.example.com"),
            ("custom-key", "custom-value"),
        ];
        let behind = [("custom-key", "custom-value"), ("cache-control", "no-cache"), (":authority", "www.example.com")];
        for blocks in [
            [
                "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                "8286 84be 5808 6e6f 2d63 6163 6865",
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            ],
            [
                "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
                "8286 84be 5886 a8eb 1064 9cbf",
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            ],
        ] {
            hold(
                SIZE_MAX,
                &[(blocks[0], &first, &behind[2..]), (blocks[1], &second, &behind[1..]), (blocks[2], &third, &behind)],
            );
        }
    }

    /// RFC 7541, Appendices C.5 and C.6: the same responses, with a table of 256 bytes, from which entries have to go.
    #[test]
    fn responses_of_the_standard() {
        let date = ("date", "Mon, 21 Oct 2013 20:13:21 GMT");
        let later = ("date", "Mon, 21 Oct 2013 20:13:22 GMT");
        let location = ("location", "https://www.example.com");
        let private = ("cache-control", "private");
        let cookie = ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");
        let gzip = ("content-encoding", "gzip");
        for blocks in [
            [
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 \
                 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                "4803 3330 37c1 c0bf",
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 \
                 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 \
                 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
            ],
            [
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad \
                 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                "4883 640e ffc1 c0bf",
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 \
                 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
            ],
        ] {
            hold(
                256,
                &[
                    (
                        blocks[0],
                        &[(":status", "302"), private, date, location],
                        &[location, date, private, (":status", "302")],
                    ),
                    (
                        blocks[1],
                        &[(":status", "307"), private, date, location],
                        &[(":status", "307"), location, date, private],
                    ),
                    (blocks[2], &[(":status", "200"), private, later, location, gzip, cookie], &[cookie, gzip, later]),
                ],
            );
        }
    }

    /// RFC 7541, Appendix C.1
    #[test]
    fn numbers_of_the_standard() {
        for (bytes, bits, want) in [
            (&[0b1010][..], 5, Ok(10)),
            (&[0b11111, 0b1001_1010, 0b1010], 5, Ok(1337)),
            (&[42], 8, Ok(42)),
            (&[0xff, 0], 7, Ok(127)),
            (&[0x1f, 0xff, 0xff, 0xff, 0x7f], 5, Ok(31 + (1 << 28) - 1)),
            (&[0x1f, 0xff, 0xff, 0xff, 0xff, 0], 5, Err(Malformed)),
            (&[0x1f, 0x80, 0x80, 0x80, 0x80, 0x80, 0], 5, Err(Malformed)),
            (&[0x1f, 0x80], 5, Err(Malformed)),
            (&[0x1f], 5, Err(Malformed)),
            (&[], 5, Err(Malformed)),
        ] {
            assert_eq!(Input(bytes).integer(bits), want, "{bytes:x?}");
        }
    }

    #[test]
    fn what_is_no_block_is_malformed() {
        for block in [
            "80",                   // the entry 0
            "be",                   // an entry that is not there
            "ff ffff ffff ff",      // a number without end
            "7e 00",                // the name of an entry that is not there
            "40 01",                // a name that is cut
            "40 01 61",             // no value
            "40 01 61 02 61",       // a value that is cut
            "40 01 61 ff ff ff7f",  // a value longer than all
            "00 81 00 00",          // a name with padding of zeros
            "00 84 ff ff ff ff 00", // EOS
            "3f e2 1f",             // a table of 4097 bytes
            "82 20",                // a size behind a field (§4.2)
        ] {
            assert_eq!(read(&mut Decoder::default(), &hex(block)), Err(Malformed), "{block}");
        }
        // The largest size, the smallest before it, and both once more.
        assert_eq!(read(&mut Decoder::default(), &hex("20 3f e1 1f 20 3f e1 1f 82")).map(|fields| fields.len()), Ok(1));
    }

    /// §4.4: an entry may be named after one that has to go for it.
    #[test]
    fn a_name_outlives_its_entry() {
        let mut decoder = Decoder::default();
        let long = "x".repeat(SIZE_MAX - 100);
        let mut block = vec![0x40];
        put_text(&mut block, "named");
        put_text(&mut block, &long);
        block.push(0x40 | 62);
        put_text(&mut block, &long);
        let want = fields(&[("named", &long), ("named", &long)]);
        assert_eq!(read(&mut decoder, &block), Ok(want.clone()));
        assert_eq!(table(&decoder), want[..1]);
    }

    #[test]
    fn what_is_written_is_read() {
        let mut block = vec![STATUS_200];
        put(&mut block, "grpc-status", "0");
        put_status(&mut block, "405");
        let long = "y".repeat(300);
        put(&mut block, "x", &long);
        let mut decoder = Decoder::default();
        let want = fields(&[(":status", "200"), ("grpc-status", "0"), (":status", "405"), ("x", &long)]);
        assert_eq!(read(&mut decoder, &block), Ok(want));
        assert_eq!(decoder.changes(), 0);
    }

    proptest! {
        /// Blocks written in every way that there is are read as they were meant.
        #[test]
        fn fields_come_through_however_they_are_written(
            list in prop::collection::vec(("[a-z]{1,8}", "[ -~]{0,40}", 0..3_u8, any::<[bool; 2]>(), any::<bool>()), 0..30),
        ) {
            let mut decoder = Decoder::default();
            for fields in list.chunks(4) {
                let (mut block, mut want, mut names) = (Vec::new(), Vec::new(), table(&decoder));
                for (name, value, way, [short_name, short_value], by_number) in fields {
                    let (first, bits) = [(0x40, 6), (0, 4), (0x10, 4)][usize::from(*way)];
                    let text = |block: &mut Vec<u8>, text: &str, is_short: bool| if is_short {
                        let short = huffman(text.as_bytes());
                        block.push(0x80 | short.len() as u8);
                        block.extend(short);
                    } else {
                        put_text(block, text);
                    };
                    let known = names.iter().position(|(known, _)| known == name).filter(|_| *by_number);
                    if let Some(at) = known {
                        let (index, limit) = (62 + at, (1 << bits) - 1);
                        if index < limit {
                            block.push(first | index as u8);
                        } else {
                            block.extend([first | limit as u8, (index - limit) as u8]);
                        }
                    } else {
                        block.push(first);
                        text(&mut block, name, *short_name);
                    }
                    text(&mut block, value, *short_value);
                    want.push((name.clone(), value.clone()));
                    if *way == 0 {
                        names.insert(0, (name.clone(), value.clone()));
                    }
                }
                prop_assert_eq!(read(&mut decoder, &block), Ok(want));
                prop_assert_eq!(table(&decoder), names);
            }
        }

        #[test]
        fn any_bytes_do_no_harm(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..5)) {
            let mut decoder = Decoder::default();
            for block in blocks {
                let _ = read(&mut decoder, &block);
            }
        }
    }
}
