//! YAML as a tree in which everything has its line.
//!
//! serde_yaml's own `Value` forgets positions, and its errors are the one place where they come out: an error raised
//! by a visitor gets the position of what was being visited. So the visitor here raises one for every scalar, after
//! having put the scalar aside; whoever asked for the scalar takes both, and goes on with the next. One pass, and
//! every key and every scalar has its line. It rests on serde_yaml having consumed a scalar by the time it is
//! visited (0.9.34 is its last version); the tests below would notice.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::fault::Fault;

/// A value, with the line on which it begins; `None` for an empty list or mapping, whose owner knows its line, and
/// for values that do not come from a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub line: Option<usize>,
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Nothing,
    Bool(bool),
    Integer(i128),
    Decimal(f64),
    Text(String),
    List(Vec<Node>),
    Mapping(Vec<Entry>),
    /// A value with a tag of its own (`!secret x`), which no setting has.
    Tagged(String),
}

/// One key of a mapping, in the order of the file; a key can come twice.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub key: String,
    pub line: usize,
    pub value: Node,
}

/// Reads one document. An empty text is [`Content::Nothing`]; the fault is about syntax and has the line where the
/// reader gave up.
pub(super) fn read(text: &str) -> Result<Node, Fault> {
    // A mark that some editors put first. It is not part of the text (YAML 1.2.2 §5.2).
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(fault) = control_character(text) {
        return Err(fault);
    }
    let mut documents = serde_yaml::Deserializer::from_str(text);
    let Some(first) = documents.next() else {
        return Ok(Node { line: None, content: Content::Nothing });
    };
    let root = read_document(first).map_err(|fault| explained(fault, text))?;
    for further in documents {
        let further = read_document(further).map_err(|fault| explained(fault, text))?;
        if further.content != Content::Nothing {
            return Err(Fault {
                key: String::new(),
                line: further.line,
                message: "a second document begins here: a configuration is one, remove the line ---".to_owned(),
            });
        }
    }
    Ok(root)
}

/// The first character that cannot stand in YAML (YAML 1.2.2 §5.1), whose line the reader would not tell.
fn control_character(text: &str) -> Option<Fault> {
    let (at, found) =
        text.char_indices().find(|(_, c)| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}'))?;
    let before = text.get(..at).unwrap_or_default();
    Some(Fault {
        key: String::new(),
        line: Some(1 + memchr::memchr_iter(b'\n', before.as_bytes()).count()),
        message: format!("this is not valid YAML: here is the control character {}", found.escape_default()),
    })
}

fn read_document(document: serde_yaml::Deserializer<'_>) -> Result<Node, Fault> {
    let mut scalar = None;
    match (Seed { scalar: &mut scalar, is_key: false }).deserialize(document) {
        Ok(node) => Ok(node),
        Err(error) => match scalar {
            Some(content) => Ok(Node { line: Some(error.location().map_or(1, |at| at.line())), content }),
            None => {
                let line = error.location().map(|at| at.line());
                Err(Fault { key: String::new(), line, message: format!("this is not valid YAML: {error}") })
            }
        },
    }
}

/// Adds what to write where the reader's own words do not help.
fn explained(mut fault: Fault, text: &str) -> Fault {
    let line = fault.line.and_then(|line| text.lines().nth(line.saturating_sub(1))).unwrap_or_default();
    // In a flow list a plain text cannot begin with a colon for this reader, though YAML 1.2.2 §7.3.3 would let it.
    let colon_first = line.split(['[', ',']).skip(1).any(|item| item.trim_start().starts_with("::"));
    if colon_first {
        fault.message.push_str("; between [ and ] put an address that begins with a colon in quotes");
    } else if line.trim_start_matches(' ').starts_with('\t') {
        fault.message.push_str("; indent with blanks, not with tabs");
    }
    fault
}

/// Reads any value. A scalar comes out as an error, with its content in `scalar`; see [`taken`].
struct Seed<'a> {
    scalar: &'a mut Option<Content>,
    /// A list or mapping as a key (`{{ port }}: 1`, a template that was never filled in) ends the reading, with an
    /// error of its own: no setting has such a key.
    is_key: bool,
}

/// Turns the two ways in which a value comes out of a [`Seed`] into one. What is still an error is serde_yaml's own.
fn taken<E: fmt::Display>(result: Result<Node, E>, scalar: &mut Option<Content>) -> Result<Node, E> {
    match result {
        Ok(node) => Ok(node),
        Err(error) => match scalar.take() {
            Some(content) => Ok(Node { line: Some(line_of(&error)), content }),
            None => Err(error),
        },
    }
}

/// The line that an error names. Inside a visitor the error's type is hidden and only its text can be read: it ends in
/// ` at line 3 column 5`, or in nothing for the very first character.
fn line_of(error: &impl fmt::Display) -> usize {
    let text = error.to_string();
    let Some((_, place)) = text.rsplit_once(" at line ") else { return 1 };
    place.split(' ').next().and_then(|line| line.parse().ok()).unwrap_or(1)
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Seed<'_> {
    fn put_aside<E: de::Error>(self, content: Content) -> Result<Node, E> {
        *self.scalar = Some(content);
        Err(E::custom(""))
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        self.put_aside(Content::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        self.put_aside(Content::Integer(i128::from(value)))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        self.put_aside(Content::Integer(i128::from(value)))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Node, E> {
        self.put_aside(Content::Integer(value))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Node, E> {
        // No setting reaches that far: what is beyond i128 is out of range either way.
        self.put_aside(Content::Integer(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        self.put_aside(Content::Decimal(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        self.put_aside(Content::Text(value.to_owned()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        self.put_aside(Content::Nothing)
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        self.put_aside(Content::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        if self.is_key {
            return Err(de::Error::custom("a key cannot be a list; put a text with brackets in quotes"));
        }
        let mut nodes = Vec::new();
        loop {
            // `Ok(None)` is the end of the list; it cannot be a scalar, whose seed has put one aside.
            let next = list.next_element_seed(Seed { scalar: self.scalar, is_key: false }).transpose();
            let Some(next) = next else { break };
            nodes.push(taken(next, self.scalar)?);
        }
        Ok(Node { line: nodes.first().and_then(|node| node.line), content: Content::List(nodes) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut mapping: A) -> Result<Node, A::Error> {
        if self.is_key {
            return Err(de::Error::custom("a key cannot be a mapping; put a text with braces in quotes"));
        }
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let next = mapping.next_key_seed(Seed { scalar: self.scalar, is_key: true }).transpose();
            let Some(next) = next else { break };
            let key = taken(next, self.scalar)?;
            let line = key.line.unwrap_or(1);
            let key = match key.content {
                Content::Text(text) => text,
                Content::Bool(value) => value.to_string(),
                Content::Integer(number) => number.to_string(),
                Content::Decimal(number) => number.to_string(),
                Content::Tagged(tag) => format!("!{tag}"),
                Content::Nothing | Content::List(_) | Content::Mapping(_) => String::new(),
            };
            let value = mapping.next_value_seed(Seed { scalar: self.scalar, is_key: false });
            entries.push(Entry { key, line, value: taken(value, self.scalar)? });
        }
        Ok(Node { line: entries.first().map(|entry| entry.line), content: Content::Mapping(entries) })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Node, A::Error> {
        let (tag, value) = tagged.variant_seed(TagSeed)?;
        // What stands behind the tag is read only to get past it.
        let value = value.newtype_variant_seed(Seed { scalar: self.scalar, is_key: false });
        let content = Content::Tagged(tag);
        match value {
            Ok(node) => Ok(Node { line: node.line, content }),
            Err(error) if self.scalar.is_some() => {
                *self.scalar = Some(content);
                Err(error)
            }
            Err(error) => Err(error),
        }
    }
}

struct TagSeed;

impl<'de> DeserializeSeed<'de> for TagSeed {
    type Value = String;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        String::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree as text: `2 ban: {3 max: 5}`. A scalar of a mapping is shown without its own line.
    fn shown(node: &Node) -> String {
        match &node.content {
            Content::Nothing => "~".to_owned(),
            Content::Bool(value) => value.to_string(),
            Content::Integer(number) => number.to_string(),
            Content::Decimal(number) => format!("{number:?}"),
            Content::Text(text) => format!("{text:?}"),
            Content::Tagged(tag) => format!("!{tag}"),
            Content::List(nodes) => {
                let nodes: Vec<String> =
                    nodes.iter().map(|n| format!("{} {}", n.line.unwrap_or(0), shown(n))).collect();
                format!("[{}]", nodes.join(", "))
            }
            Content::Mapping(entries) => {
                let entries: Vec<String> =
                    entries.iter().map(|e| format!("{} {}: {}", e.line, e.key, shown(&e.value))).collect();
                format!("{{{}}}", entries.join(", "))
            }
        }
    }

    fn tree(text: &str) -> String {
        match read(text) {
            Ok(node) => shown(&node),
            Err(fault) => format!("fault {:?}: {}", fault.line, fault.message),
        }
    }

    #[test]
    fn keys_and_scalars_have_their_lines() {
        for (text, want) in [
            ("", "~"),
            ("# nothing\n", "~"),
            ("---\n", "~"),
            ("five", "\"five\""),
            ("a: 1", "{1 a: 1}"),
            ("# c\n\na: 1\nb:\n  c: two\n\n  # c\n  d: 3.5\n", "{3 a: 1, 4 b: {5 c: \"two\", 8 d: 3.5}}"),
            ("a:\nb:\n  c: ~\n", "{1 a: ~, 2 b: {3 c: ~}}"),
            ("a:\n  - 1\n  - x\n  -\n  - [2,\n     3]\n", "{1 a: [2 1, 3 \"x\", 4 ~, 5 [5 2, 6 3]]}"),
            ("a:\n- b: 1\n  c: 2\n- d: 3\n-\n  e: 4\n", "{1 a: [2 {2 b: 1, 3 c: 2}, 4 {4 d: 3}, 6 {6 e: 4}]}"),
            ("a: { b: 1,\n     c: [ x, \n y ], d: true }\n", "{1 a: {1 b: 1, 2 c: [2 \"x\", 3 \"y\"], 3 d: true}}"),
            ("a: {}\nb: []\nc:\n  - {}\n  - 1\n", "{1 a: {}, 2 b: [], 3 c: [0 {}, 5 1]}"),
            (
                "a: |\n  one\n  two\nb: >-\n\n  folded\n  text\nc: 1\n",
                "{1 a: \"one\\ntwo\\n\", 4 b: \"\\nfolded text\", 8 c: 1}",
            ),
            (
                "a: 'x\n  y'\nb: \"p\\\n  q\"\nc: plain\n  text\nd: 1\n",
                "{1 a: \"x y\", 3 b: \"pq\", 5 c: \"plain text\", 7 d: 1}",
            ),
            ("a: 1\r\nb:\r\n  c: 2\r\n", "{1 a: 1, 2 b: {3 c: 2}}"),
            ("\u{feff}a: 1\n\nb: 2\n", "{1 a: 1, 3 b: 2}"),
            ("--- # c\na: 1\n...\n", "{2 a: 1}"),
            ("a: 1\na: 2\n", "{1 a: 1, 2 a: 2}"),
            (
                "a: &x\n  b: 1\nc: *x\nd: &y 5\ne:\n  - *y\n  - 6\n",
                "{1 a: {2 b: 1}, 3 c: {2 b: 1}, 4 d: 5, 5 e: [4 5, 7 6]}",
            ),
            ("a: !secret x\nb: !t [1, 2]\nc: !t {d: 1}\ne: 1\n", "{1 a: !secret, 2 b: !t, 3 c: !t, 4 e: 1}"),
            (
                "a: !!str 5\nb: \"5\"\nc: 0x10\nd: 1e3\ne: -7\n",
                "{1 a: \"5\", 2 b: \"5\", 3 c: 16, 4 d: 1000.0, 5 e: -7}",
            ),
            (
                "5: x\ntrue: y\n1.5: z\n~: n\n!t k: v\n",
                "{1 5: \"x\", 2 true: \"y\", 3 1.5: \"z\", 4 : \"n\", 5 !t: \"v\"}",
            ),
            (
                "a: ['::1', 2001:db8::/32, 10.0.0.0/8]\nb:\n  - ::1\n  - ::/0\n",
                "{1 a: [1 \"::1\", 1 \"2001:db8::/32\", 1 \"10.0.0.0/8\"], 2 b: [3 \"::1\", 4 \"::/0\"]}",
            ),
            ("a: 340282366920938463463374607431768211455\n", &format!("{{1 a: {}}}", i128::MAX)),
            ("\"at line 9 column 9\":\n  x: 1\n", "{1 at line 9 column 9: {2 x: 1}}"),
        ] {
            assert_eq!(tree(text), want, "{text}");
        }
    }

    #[test]
    fn broken_syntax_has_its_line() {
        for (text, line) in [
            ("a: 1\nb: [1, 2\nc: 3\n", 3),
            ("a: 1\n b: 2\n", 2),
            ("a: 1\n\tb: 2\n", 2),
            ("a: 'open\nb: 1\n", 3),
            ("a: *nowhere\n", 1),
            ("a: 1\n---\n\nb: 2\n", 4),
            ("a: 1\n{{ b }}: 2\n", 2),
            ("a: 1\n{{ b }}\n", 3),
            ("a: 1\n[b]: 2\n", 2),
            ("a: b: c\n", 1),
        ] {
            let fault = read(text).expect_err(text);
            assert_eq!(fault.line, Some(line), "{text}: {}", fault.message);
        }
    }

    #[test]
    fn common_slips_in_syntax_are_explained() {
        let message = |text| read(text).unwrap_err().message;
        assert!(message("a: [10.0.0.0/8, ::1]\n").ends_with("an address that begins with a colon in quotes"));
        assert!(message("a:\n\tb: 1\n").ends_with("indent with blanks, not with tabs"));
    }

    #[test]
    fn depth_and_repetition_are_bounded() {
        assert!(tree(&format!("a: {}{}", "[".repeat(500), "]".repeat(500))).starts_with("fault"));
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..9 {
            let name = format!("*a{}", i - 1);
            text.push_str(&format!("a{i}: &a{i} [{}]\n", vec![name; 10].join(", ")));
        }
        assert!(tree(&text).starts_with("fault"));
    }
}
