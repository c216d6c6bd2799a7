//! The control thread: everything that is not urgent. One thread with a tokio loop of its own.
//!
//! It reads the settings, compiles policies and publishes them, says in the log what shards announce, and answers who
//! asks for metrics. It never touches a ring or a socket of a shard: it tells shards by command and hears by event.

mod journal;
mod log;
mod metrics;
pub mod publish;
mod server;

pub use server::{About, RunFault, run};
