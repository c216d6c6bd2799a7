//! Comma-separated lists in header fields (RFC 9110 §5.6.1).

/// The elements, empty ones left out (RFC 9110 §5.6.1.2). From the right too.
pub(super) fn elements(list: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    list.split(|&byte| byte == b',').map(trim_blanks).filter(|element| !element.is_empty())
}

/// Without the optional white space around it: SP and HTAB, nothing else (RFC 9110 §5.6.3).
pub(super) fn trim_blanks(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_stand_between_commas_from_either_side() {
        let list = b" a,\t,b c\t ,, d\x0b,";
        let want = [&b"a"[..], b"b c", b"d\x0b"];
        assert!(elements(list).eq(want));
        assert!(elements(list).rev().eq(want.into_iter().rev()));
        assert_eq!(elements(b" , ").count(), 0);
    }
}
