//! Everything that is not urgent. Two threads, each with a tokio loop of its own: control, and the [`store`] beside it.
//!
//! Control publishes policies, says in the log what shards announce, answers who asks for metrics, and ends the program in
//! order. The store makes policies of the file and the database, and keeps what was decided. Neither touches a ring or a
//! socket of a shard: they tell shards by command and hear by event.

mod api;
pub mod candidate;
mod desk;
mod errand;
mod history;
mod http;
mod journal;
mod log;
mod metrics;
mod outbox;
pub mod publish;
mod server;
pub mod store;

pub use api::CONTROL_SOCKET;
pub use server::{About, RunFault, run};
