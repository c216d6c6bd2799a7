//! Everything that decides. Pure: values and the time come in as arguments, values go out.
//!
//! No clock, socket, file, random source, environment or async lives here, and nothing of the project is imported.
//! So it can be tested with a made-up clock, fuzzed, and run with any number of shards in one thread.
//!
//! A line's way through it: [`matcher`] says whose failure it tells of, [`logins`] whether another line told of it
//! already, [`owner`] counts it in the client's [`window`] and makes a [`ban`] whose length [`escalation`] says, every [`replica`] applies the decision, and
//! [`verdict`] is what a proxy is told.

pub mod address;
pub mod ban;
mod capture;
pub mod escalation;
pub mod evidence;
pub mod logins;
pub mod matcher;
pub mod owner;
pub mod pattern;
mod placeholder;
pub mod policy;
mod re2;
mod recency;
pub mod replica;
mod scan;
pub mod steer;
pub mod survey;
pub mod table;
pub mod time;
pub mod trial;
pub mod verdict;
mod window;
