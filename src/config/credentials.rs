//! Users, passwords and tokens. What is wrong with one is said without showing it: reports end up in logs and tickets.

use super::fault::{Fault, printable};
use super::kind::{Kind, Spot, TextRule, read_text};
use super::parse::once_each;
use super::settings::{Choice as _, Role, Secret, Token, TokenSettings, UserSettings};
use super::suggest;
use super::yaml::{Content, Entry, Node};
use argon2::password_hash::phc::PasswordHash;
use argon2::{ARGON2ID_IDENT, Params};

/// What every argon2id hash begins with.
pub(super) const HASHED: &str = "$argon2id$";

/// A shorter token can be guessed.
const TOKEN_CHARS_MIN: usize = 16;

/// Longest secret. It comes in a header, of which all together have 64 KiB.
const SECRET_BYTES_MAX: usize = 1_024;

/// Most memory that checking one password may take, in KiB, and most passes over it. Two are checked at a time.
const MEMORY_KIB_MAX: u32 = 256 * 1_024;
const PASSES_MAX: u32 = 64;

/// Reads a password or its hash; an empty one means that there is none.
pub(super) fn read_password(content: &Content) -> Result<String, String> {
    let text = read_secret(content, "a password")?;
    if text.is_empty() {
        return Ok(text);
    }
    if text.starts_with(HASHED) {
        return check_hash(&text).map(|()| text);
    }
    // `$2y$…`, `$6$…`: as a password in the clear it would be one that nobody knows he has.
    if text.starts_with('$') && text.matches('$').count() > 2 {
        return Err(format!("looks like a hash of a kind that is not known; those that are begin with {HASHED}"));
    }
    Ok(text)
}

/// Whether the hash can be computed here.
fn check_hash(text: &str) -> Result<(), String> {
    let wrong = |why: &str| format!("is not an argon2id hash: {why}");
    let hash = PasswordHash::new(text).map_err(|why| wrong(&why.to_string()))?;
    let params = Params::try_from(&hash).map_err(|why| wrong(&why.to_string()))?;
    if hash.algorithm != ARGON2ID_IDENT || hash.salt.is_none() || hash.hash.is_none() {
        return Err(wrong("a part of it is missing"));
    }
    if params.m_cost() > MEMORY_KIB_MAX || params.t_cost() > PASSES_MAX {
        return Err(format!(
            "takes too much to check: m is at most {MEMORY_KIB_MAX}, t at most {PASSES_MAX}; m=19456,t=2,p=1 will do"
        ));
    }
    Ok(())
}

fn read_secret(content: &Content, what: &str) -> Result<String, String> {
    match content {
        Content::Text(text) if text.len() > SECRET_BYTES_MAX => {
            Err(format!("expected {what} of at most {SECRET_BYTES_MAX} bytes, found one of {}", text.len()))
        }
        Content::Text(text) if text.chars().any(char::is_control) => {
            Err(format!("expected {what}, found one with a control character in it"))
        }
        Content::Text(text) => Ok(text.clone()),
        Content::Bool(_) | Content::Integer(_) | Content::Decimal(_) => {
            Err(format!("expected {what}, found {}; put it in quotes", shape(content)))
        }
        other => Err(format!("expected {what}, found {}", shape(other))),
    }
}

/// What stands there, without showing it.
fn shape(content: &Content) -> &'static str {
    match content {
        Content::Nothing => "nothing",
        Content::Bool(_) => "true or false",
        Content::Integer(_) | Content::Decimal(_) => "a number",
        Content::Text(_) => "a text",
        Content::List(_) => "a list",
        Content::Mapping(_) => "a group of keys",
        Content::Tagged(_) => "a value with a tag",
    }
}

/// Reads users, or says all that is wrong with them.
pub(super) fn read_users(node: &Node, spot: &Spot, faults: &mut Vec<Fault>) -> Option<Vec<UserSettings>> {
    let entries = match &node.content {
        // `users:` above users that are all commented out.
        Content::Nothing => &[][..],
        Content::Mapping(entries) => entries,
        other => {
            faults.push(spot.fault(format!("expected {}, found {}", Kind::Users.expected(), shape(other))));
            return None;
        }
    };
    let before = faults.len();
    let mut users = Vec::with_capacity(entries.len());
    for entry in once_each(entries, &format!("{}.", spot.key), spot.line.is_some(), faults) {
        let spot = below(spot, &entry.key, entry.line);
        let named =
            read_text(TextRule::User, &Content::Text(entry.key.clone())).and_then(|name| match name.is_empty() {
                true => Err("a user needs a name".to_owned()),
                false => Ok(name),
            });
        let name = named.map_err(|message| faults.push(spot.fault(message))).unwrap_or_default();
        let Some((password, role)) = read_user(entry, &spot, faults) else { continue };
        users.push(UserSettings { name, password, role });
    }
    (faults.len() == before).then_some(users)
}

/// Reads what stands behind a user's name: his password alone, or with his role.
fn read_user(entry: &Entry, spot: &Spot, faults: &mut Vec<Fault>) -> Option<(Secret, Role)> {
    let needs_one = |password: String| match password.is_empty() {
        true => Err("must not be empty: every user has a password".to_owned()),
        false => Ok(Secret::new(password)),
    };
    let Content::Mapping(entries) = &entry.value.content else {
        let password = read_password(&entry.value.content).and_then(needs_one);
        return password.map_err(|message| faults.push(spot.fault(message))).ok().map(|secret| (secret, Role::Admin));
    };
    let mut password = None;
    let mut role = Role::Admin;
    let before = faults.len();
    for entry in once_each(entries, &format!("{}.", spot.key), spot.line.is_some(), faults) {
        let spot = below(spot, &entry.key, entry.line);
        let read = match entry.key.as_str() {
            "password" => read_password(&entry.value.content).and_then(needs_one).map(|secret| password = Some(secret)),
            "role" => read_role(&entry.value.content).map(|read| role = read),
            other => Err(unknown(other, &["password", "role"])),
        };
        read.unwrap_or_else(|message| faults.push(spot.fault(message)));
    }
    if password.is_none() && faults.len() == before {
        faults.push(spot.fault("needs a `password`"));
    }
    password.map(|password| (password, role))
}

/// Reads tokens, or says all that is wrong with them.
pub(super) fn read_tokens(node: &Node, spot: &Spot, faults: &mut Vec<Fault>) -> Option<Vec<TokenSettings>> {
    let nodes = match &node.content {
        Content::Nothing => &[][..],
        Content::List(nodes) => nodes,
        other => {
            faults.push(spot.fault(format!("expected {}, found {}", Kind::Tokens.expected(), shape(other))));
            return None;
        }
    };
    let before = faults.len();
    let mut tokens: Vec<TokenSettings> = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        let line = spot.line.map(|line| node.line.unwrap_or(line));
        let spot = Spot { key: format!("{}[{index}]", spot.key), line };
        let Some(token) = read_token(node, &spot, faults) else { continue };
        if tokens.iter().any(|other| other.name == token.name) {
            faults.push(spot.fault(format!("the name \"{}\" is taken by another token", printable(&token.name))));
        }
        tokens.push(token);
    }
    (faults.len() == before).then_some(tokens)
}

fn read_token(node: &Node, spot: &Spot, faults: &mut Vec<Fault>) -> Option<TokenSettings> {
    let Content::Mapping(entries) = &node.content else {
        let found = shape(&node.content);
        faults.push(spot.fault(format!("expected a token with `name` and `token` or `hash`, found {found}")));
        return None;
    };
    let (mut name, mut secrets, mut role) = (None, Vec::new(), Role::Admin);
    let before = faults.len();
    for entry in once_each(entries, &format!("{}.", spot.key), spot.line.is_some(), faults) {
        let spot = below(spot, &entry.key, entry.line);
        let content = &entry.value.content;
        let read = match entry.key.as_str() {
            "name" => read_text(TextRule::Name, content).map(|text| name = Some(text)),
            "token" => read_clear(content).map(|token| secrets.push(token)),
            "hash" => read_hash(content).map(|token| secrets.push(token)),
            "role" => read_role(content).map(|read| role = read),
            other => Err(unknown(other, &["name", "token", "hash", "role"])),
        };
        read.unwrap_or_else(|message| faults.push(spot.fault(message)));
    }
    if faults.len() > before {
        return None;
    }
    match (name, secrets.pop(), secrets.is_empty()) {
        (Some(name), Some(token), true) => Some(TokenSettings { name, token, role }),
        (None, ..) => {
            faults.push(spot.fault("needs a `name`"));
            None
        }
        (_, None, _) => {
            faults.push(spot.fault("needs a `token` or its `hash`"));
            None
        }
        (_, Some(_), false) => {
            faults.push(spot.fault("has a `token` and a `hash`: one of them is enough"));
            None
        }
    }
}

fn read_clear(content: &Content) -> Result<Token, String> {
    let text = read_secret(content, "a token")?;
    if text.chars().count() < TOKEN_CHARS_MIN {
        return Err(format!("expected a token of at least {TOKEN_CHARS_MIN} characters, found a shorter one"));
    }
    // token68 of RFC 9110 §11.2 is what follows `Bearer`.
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)) {
        return Err("expected a token of letters, digits and - . _ ~ + / =, found another character in it".to_owned());
    }
    Ok(Token::Clear(Secret::new(text)))
}

fn read_hash(content: &Content) -> Result<Token, String> {
    let text = read_secret(content, "the SHA-256 of a token")?;
    let digits = text.strip_prefix("sha256:").unwrap_or(&text);
    let mut hash = [0; 32];
    let right = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    for (byte, at) in hash.iter_mut().zip((0..digits.len()).step_by(2)) {
        *byte = digits.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok()).unwrap_or_default();
    }
    let wrong = "expected the SHA-256 of a token, 64 hexadecimal digits (printf %s TOKEN | sha256sum)";
    right.then_some(Token::Hash(hash)).ok_or_else(|| wrong.to_owned())
}

fn read_role(content: &Content) -> Result<Role, String> {
    let mut role = Role::Admin;
    match content {
        Content::Text(text) if role.choose(text) => Ok(role),
        other => Err(format!("expected admin or read, found {}", super::kind::found(other))),
    }
}

fn unknown(key: &str, known: &[&'static str]) -> String {
    match suggest::nearest(key, known.iter().copied()) {
        Some(near) => format!("there is no such key; did you mean `{near}`?"),
        None => format!("there is no such key; there are {}", known.join(", ")),
    }
}

/// The place of a key within another.
fn below(spot: &Spot, key: &str, line: usize) -> Spot {
    Spot { key: format!("{}.{}", spot.key, printable(key)), line: spot.line.map(|_| line) }
}
