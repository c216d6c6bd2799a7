//! HPACK's Huffman code (RFC 7541 §5.2, Appendix B), read four bits at a time.
//!
//! The code is canonical: codes of one length follow each other in the order of their symbols, and shorter ones come first.
//! So the lengths say it all, and from them the tables below are made when this is compiled.

/// The length in bits of each symbol's code. The last symbol is EOS, which nobody may send.
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];

const SYMBOLS: usize = 257;
const EOS: usize = 256;

/// Longest code in bits.
const LENGTH_MAX: u8 = 30;

/// Inner nodes of the code's tree. It has 257 leaves, and is complete.
const NODES: usize = SYMBOLS - 1;

/// Where four bits lead from an inner node. The shortest code has five, so they end one symbol at most.
#[derive(Clone, Copy)]
struct Step {
    /// The node after it.
    next: u8,
    /// The symbol that has ended on the way.
    symbol: u8,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Goes,
    Ends,
    /// It was EOS.
    Faults,
}

struct Tables {
    steps: [[Step; 16]; NODES],
    /// Whether a text may end here: behind a whole symbol, or up to seven bits of EOS, which are ones (RFC 7541 §5.2).
    may_end: [bool; NODES],
}

static TABLES: Tables = tables();

#[expect(
    clippy::indexing_slicing,
    reason = "runs when it is compiled, where a wrong index is an error of the compiler"
)]
const fn tables() -> Tables {
    let tree = tree();
    let mut steps = [[Step { next: 0, symbol: 0, what: What::Goes }; 16]; NODES];
    let mut node = 0;
    while node < NODES {
        let mut bits = 0;
        while bits < 16 {
            let mut step = Step { next: 0, symbol: 0, what: What::Goes };
            let mut at = node;
            let mut bit = 4;
            while bit > 0 {
                bit -= 1;
                at = tree[at][(bits >> bit) & 1];
                if at >= LEAF {
                    let symbol = at - LEAF;
                    step.what = if symbol == EOS { What::Faults } else { What::Ends };
                    step.symbol = symbol as u8;
                    at = 0;
                }
            }
            step.next = at as u8;
            steps[node][bits] = step;
            bits += 1;
        }
        node += 1;
    }
    let mut may_end = [false; NODES];
    let (mut node, mut ones) = (0, 0);
    while ones <= 7 {
        may_end[node] = true;
        node = tree[node][1];
        ones += 1;
    }
    Tables { steps, may_end }
}

/// What is below this is an inner node, the others are leaves: their symbols.
const LEAF: usize = NODES;

/// The two branches of every inner node; the root is 0.
#[expect(
    clippy::indexing_slicing,
    reason = "runs when it is compiled, where a wrong index is an error of the compiler"
)]
const fn tree() -> [[usize; 2]; NODES] {
    let mut tree = [[0; 2]; NODES];
    let (mut nodes, mut code, mut length) = (1, 0_u32, 1);
    while length <= LENGTH_MAX {
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] == length {
                let (mut node, mut bit) = (0, length);
                while bit > 1 {
                    bit -= 1;
                    let branch = (code >> bit) as usize & 1;
                    if tree[node][branch] == 0 {
                        tree[node][branch] = nodes;
                        nodes += 1;
                    }
                    node = tree[node][branch];
                }
                tree[node][code as usize & 1] = LEAF + symbol;
                code += 1;
            }
            symbol += 1;
        }
        code <<= 1;
        length += 1;
    }
    tree
}

/// Appends the text that `bytes` stand for. False if they are none: EOS is in them, or what follows the last symbol is not
/// the beginning of EOS, or as long as a byte. At most 8/5 of their number are appended.
#[must_use]
pub fn decode(bytes: &[u8], text: &mut Vec<u8>) -> bool {
    text.reserve(bytes.len().saturating_mul(8) / 5);
    let mut node = 0_u8;
    for byte in bytes {
        for bits in [byte >> 4, byte & 15] {
            let steps = TABLES.steps.get(usize::from(node));
            let Some(step) = steps.and_then(|steps| steps.get(usize::from(bits))) else { return false };
            match step.what {
                What::Goes => {}
                What::Ends => text.push(step.symbol),
                What::Faults => return false,
            }
            node = step.next;
        }
    }
    TABLES.may_end.get(usize::from(node)).is_some_and(|may_end| *may_end)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The codes as Appendix B of RFC 7541 has them.
    #[rustfmt::skip]
    const CODES: [u32; SYMBOLS] = [
        0x1ff8, 0x7fffd8, 0xfffffe2, 0xfffffe3, 0xfffffe4, 0xfffffe5, 0xfffffe6, 0xfffffe7, 0xfffffe8, 0xffffea,
        0x3ffffffc, 0xfffffe9, 0xfffffea, 0x3ffffffd, 0xfffffeb, 0xfffffec, 0xfffffed, 0xfffffee, 0xfffffef, 0xffffff0,
        0xffffff1, 0xffffff2, 0x3ffffffe, 0xffffff3, 0xffffff4, 0xffffff5, 0xffffff6, 0xffffff7, 0xffffff8, 0xffffff9,
        0xffffffa, 0xffffffb, 0x14, 0x3f8, 0x3f9, 0xffa, 0x1ff9, 0x15, 0xf8, 0x7fa, 0x3fa, 0x3fb, 0xf9, 0x7fb, 0xfa,
        0x16, 0x17, 0x18, 0x0, 0x1, 0x2, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x5c, 0xfb, 0x7ffc, 0x20, 0xffb,
        0x3fc, 0x1ffa, 0x21, 0x5d, 0x5e, 0x5f, 0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b,
        0x6c, 0x6d, 0x6e, 0x6f, 0x70, 0x71, 0x72, 0xfc, 0x73, 0xfd, 0x1ffb, 0x7fff0, 0x1ffc, 0x3ffc, 0x22, 0x7ffd, 0x3,
        0x23, 0x4, 0x24, 0x5, 0x25, 0x26, 0x27, 0x6, 0x74, 0x75, 0x28, 0x29, 0x2a, 0x7, 0x2b, 0x76, 0x2c, 0x8, 0x9,
        0x2d, 0x77, 0x78, 0x79, 0x7a, 0x7b, 0x7ffe, 0x7fc, 0x3ffd, 0x1ffd, 0xffffffc, 0xfffe6, 0x3fffd2, 0xfffe7,
        0xfffe8, 0x3fffd3, 0x3fffd4, 0x3fffd5, 0x7fffd9, 0x3fffd6, 0x7fffda, 0x7fffdb, 0x7fffdc, 0x7fffdd, 0x7fffde,
        0xffffeb, 0x7fffdf, 0xffffec, 0xffffed, 0x3fffd7, 0x7fffe0, 0xffffee, 0x7fffe1, 0x7fffe2, 0x7fffe3, 0x7fffe4,
        0x1fffdc, 0x3fffd8, 0x7fffe5, 0x3fffd9, 0x7fffe6, 0x7fffe7, 0xffffef, 0x3fffda, 0x1fffdd, 0xfffe9, 0x3fffdb,
        0x3fffdc, 0x7fffe8, 0x7fffe9, 0x1fffde, 0x7fffea, 0x3fffdd, 0x3fffde, 0xfffff0, 0x1fffdf, 0x3fffdf, 0x7fffeb,
        0x7fffec, 0x1fffe0, 0x1fffe1, 0x3fffe0, 0x1fffe2, 0x7fffed, 0x3fffe1, 0x7fffee, 0x7fffef, 0xfffea, 0x3fffe2,
        0x3fffe3, 0x3fffe4, 0x7ffff0, 0x3fffe5, 0x3fffe6, 0x7ffff1, 0x3ffffe0, 0x3ffffe1, 0xfffeb, 0x7fff1, 0x3fffe7,
        0x7ffff2, 0x3fffe8, 0x1ffffec, 0x3ffffe2, 0x3ffffe3, 0x3ffffe4, 0x7ffffde, 0x7ffffdf, 0x3ffffe5, 0xfffff1,
        0x1ffffed, 0x7fff2, 0x1fffe3, 0x3ffffe6, 0x7ffffe0, 0x7ffffe1, 0x3ffffe7, 0x7ffffe2, 0xfffff2, 0x1fffe4,
        0x1fffe5, 0x3ffffe8, 0x3ffffe9, 0xffffffd, 0x7ffffe3, 0x7ffffe4, 0x7ffffe5, 0xfffec, 0xfffff3, 0xfffed,
        0x1fffe6, 0x3fffe9, 0x1fffe7, 0x1fffe8, 0x7ffff3, 0x3fffea, 0x3fffeb, 0x1ffffee, 0x1ffffef, 0xfffff4, 0xfffff5,
        0x3ffffea, 0x7ffff4, 0x3ffffeb, 0x7ffffe6, 0x3ffffec, 0x3ffffed, 0x7ffffe7, 0x7ffffe8, 0x7ffffe9, 0x7ffffea,
        0x7ffffeb, 0xffffffe, 0x7ffffec, 0x7ffffed, 0x7ffffee, 0x7ffffef, 0x7fffff0, 0x3ffffee, 0x3fffffff,
    ];

    /// Bit by bit, from the standard's table.
    pub fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits = Bits::default();
        text.iter().for_each(|byte| bits.symbol(usize::from(*byte)));
        bits.padded()
    }

    #[derive(Default)]
    struct Bits(Vec<bool>);

    impl Bits {
        fn symbol(&mut self, symbol: usize) {
            self.0.extend((0..LENGTHS[symbol]).rev().map(|bit| CODES[symbol] >> bit & 1 == 1));
        }

        fn padded(mut self) -> Vec<u8> {
            while !self.0.len().is_multiple_of(8) {
                self.0.push(true);
            }
            self.0.chunks(8).map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit))).collect()
        }
    }

    fn decoded(bytes: &[u8]) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        decode(bytes, &mut text).then_some(text)
    }

    #[test]
    fn every_symbol_is_read_as_the_standard_writes_it() {
        for (symbol, code) in CODES.iter().enumerate() {
            assert_eq!(u32::from(LENGTHS[symbol]).max(32 - code.leading_zeros()), u32::from(LENGTHS[symbol]));
        }
        let all: Vec<u8> = (0..=255).collect();
        for byte in &all {
            for count in 1..9 {
                let text = vec![*byte; count];
                assert_eq!(decoded(&encode(&text)), Some(text), "{byte}");
            }
        }
        assert_eq!(decoded(&encode(&all)), Some(all));
        assert_eq!(decoded(b""), Some(vec![]));
    }

    /// RFC 7541 §5.2
    #[test]
    fn eos_and_wrong_padding_are_faults() {
        let mut eos = Bits::default();
        eos.symbol(usize::from(b'a'));
        eos.symbol(EOS);
        assert_eq!(decoded(&eos.padded()), None);
        // '0' is five zeros: three ones behind it are right, eleven are too many, and zeros are none.
        assert_eq!(decoded(&[0b0000_0111]), Some(b"0".to_vec()));
        assert_eq!(decoded(&[0b0000_0111, 0xff]), None);
        assert_eq!(decoded(&[0b0000_0110]), None);
        assert_eq!(decoded(&[0b0000_0000]), None);
        // '&' is eight bits: nothing has to be padded.
        assert_eq!(decoded(&[0xf8]), Some(b"&".to_vec()));
        assert_eq!(decoded(&[0xf8, 0xff]), None);
        assert_eq!(decoded(&[0xff; 4]), None);
        assert_eq!(decoded(&[0xff]), None);
    }

    proptest! {
        #[test]
        fn texts_go_there_and_back(text in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(decoded(&encode(&text)), Some(text));
        }

        #[test]
        fn what_is_read_is_what_would_be_written(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(text) = decoded(&bytes) {
                prop_assert_eq!(encode(&text), bytes);
            }
        }
    }
}
