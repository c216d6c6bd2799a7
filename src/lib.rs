//! Real-time IP banning at the edge of mail clusters.
//!
//! The map of the house; `ARCHITECTURE.md` says more. Imports point one way:
//! `cli → control, shard → config → engine, wire`.
//!
//! - [`engine`] decides: addresses, matcher, window, escalation, bans, replica, verdict. Pure.
//! - [`wire`] speaks: syslog, HTTP. Pure.
//! - [`config`] knows what an operator may set.
//! - [`shard`] acts: one core, its event loop, sockets and front ends.
//! - [`control`] steers: policies, logs, metrics, signals.
//! - [`cli`] is what people type.

pub mod cli;
pub mod config;
pub mod control;
pub mod engine;
pub mod shard;
pub mod wire;
