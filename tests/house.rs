//! The rules of the house, held by a test: which room may import which, and what the pure rooms must not touch.
//!
//! Imports point one way (`ARCHITECTURE.md` has the picture). Everything that decides is in `engine` and `wire`, and
//! gets bytes, values and the time as arguments.

use std::fs;
use std::path::{Path, PathBuf};

/// Each room, and the rooms it may import.
const ROOMS: &[(&str, &[&str])] = &[
    ("engine", &[]),
    ("wire", &[]),
    ("config", &["engine"]),
    ("shard", &["engine", "wire"]),
    ("control", &["config", "engine", "shard", "wire"]),
    ("cli", &["config", "control", "engine", "wire"]),
];

/// What must not be named in a room: crates and parts of the standard library, as paths begin.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("engine", PURE),
    ("wire", PURE),
    ("config", &["tokio", "monoio", "axum", "rustix", "libc", "tracing", "std::thread", "std::time::Instant"]),
    ("shard", &["tokio", "axum", "hyper", "sqlx", "tracing", "std::fs", "std::env", "serde_yaml", "flume"]),
    ("control", &["monoio", "io_uring", "rtrb", "libc", "rustix"]),
    ("cli", &["monoio", "io_uring", "rtrb", "libc", "rustix", "tokio"]),
];

const PURE: &[&str] = &[
    "tokio",
    "h2",
    "monoio",
    "axum",
    "rustix",
    "libc",
    "io_uring",
    "rtrb",
    "flume",
    "sqlx",
    "tracing",
    "metrics",
    "rand",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::os",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::io::Read",
    "std::io::stdin",
    "std::io::stdout",
    "std::sync::Mutex",
    "std::sync::mpsc",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The code of a file without comments and without what follows its `mod tests`: nothing, if all of it is for tests.
fn code(text: &str) -> String {
    if text.contains("\n#![cfg(test)]\n") {
        return String::new();
    }
    let product = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    let lines = product.lines().map(|line| line.split("//").next().unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether `path` is named in `code` as a path, whole words only, also as `std::{net::X, …}` at its simplest.
fn names(code: &str, path: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + path.len()..].chars().next();
        let follows = path.contains("::") || code[at + path.len()..].starts_with("::");
        !before.is_some_and(|c| is_word(c) || c == ':') && !after.is_some_and(is_word) && follows
    })
}

/// What a file of `room` does that it must not.
fn breaches(room: &str, text: &str) -> Vec<String> {
    let code = code(text);
    let allowed = ROOMS.iter().find(|(name, _)| *name == room).map_or(&[][..], |(_, allowed)| allowed);
    let others = ROOMS.iter().map(|(name, _)| *name).filter(|name| *name != room && !allowed.contains(name));
    let rooms = others.filter(|other| names(&code, &format!("crate::{other}"))).map(|other| format!("imports {other}"));
    let forbidden = FORBIDDEN.iter().filter(|(name, _)| *name == room).flat_map(|(_, forbidden)| *forbidden);
    let outside = forbidden.filter(|path| names(&code, path)).map(|path| format!("uses {path}"));
    rooms.chain(outside).collect()
}

#[test]
fn imports_point_one_way_and_pure_rooms_stay_pure() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for (room, _) in ROOMS {
        let mut files = Vec::new();
        sources(&root.join(room), &mut files);
        assert!(!files.is_empty(), "there is no room {room}");
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            let name = file.strip_prefix(&root).unwrap().display().to_string();
            found.extend(breaches(room, &text).into_iter().map(|what| format!("{name} {what}")));
        }
    }
    assert!(found.is_empty(), "the house rules are broken:\n{}", found.join("\n"));
    let rooms: Vec<_> = fs::read_dir(&root).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    assert_eq!(rooms.len(), ROOMS.len(), "a room is missing from the table: {rooms:?}");
}

#[test]
fn a_breach_is_seen() {
    assert_eq!(breaches("engine", "use crate::shard::Core;\n"), ["imports shard"]);
    assert_eq!(breaches("shard", "let x = crate::config::load();"), ["imports config"]);
    assert_eq!(breaches("wire", "fn f() { std::time::Instant::now(); }"), ["uses std::time::Instant"]);
    assert_eq!(breaches("engine", "use tokio::time;"), ["uses tokio"]);
    assert_eq!(breaches("cli", "use crate::shard::open;"), ["imports shard"]);
    let fine = "use crate::engine::address;\n// crate::shard is not for us\nuse std::time::Duration;\nlet rand = 1;";
    assert!(breaches("engine", fine).is_empty());
    assert!(breaches("control", "use crate::shard::Shards;\n#[cfg(test)]\nmod tests { use monoio::x; }").is_empty());
    assert!(breaches("wire", "//! A peer to test with.\n\n#![cfg(test)]\n\nuse tokio::io::AsyncRead;").is_empty());
}

#[test]
fn unsafe_code_is_in_one_file_but_for_a_line() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let with_unsafe: Vec<String> = files
        .iter()
        .filter(|file| names_unsafe(&code(&fs::read_to_string(file).unwrap())))
        .map(|file| file.strip_prefix(&root).unwrap().display().to_string())
        .collect();
    let mut with_unsafe: Vec<&str> = with_unsafe.iter().map(String::as_str).collect();
    with_unsafe.sort_unstable();
    assert_eq!(with_unsafe, ["shard/driver.rs", "shard/system.rs"]);
}

fn names_unsafe(code: &str) -> bool {
    code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl")
}
