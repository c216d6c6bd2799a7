//! Which event loop the shards run on: io_uring where it can be had, epoll where not.
//!
//! The ladder: io_uring with SINGLE_ISSUER and DEFER_TASKRUN (Linux 6.1), with COOP_TASKRUN (5.19), epoll. Without
//! one of these flags io_uring costs nearly twice the CPU, so older kernels get epoll at once. Containers' default
//! seccomp profile refuses io_uring (EPERM or ENOSYS), and a low memlock limit makes a ring fail with ENOMEM, which
//! monoio's own choice does not catch. All shards run the same: the choice is made with their real rings, on their
//! own threads, before anything is served.

use io_uring::{IoUring, opcode};
use monoio::time::TimeDriver;
use monoio::{FusionRuntime, IoUringDriver, LegacyDriver, RuntimeBuilder};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fmt;
use std::io;

/// Submission entries of a ring: more operations than that in one turn are submitted in between.
const RING_ENTRIES: u32 = 1024;

/// Locked memory for one ring of that size: between 64 and 128 KiB were measured on Linux 6.18.
const RING_LOCKED_BYTES: u64 = 128 << 10;

/// A shard's runtime, on either driver.
pub type Runtime = FusionRuntime<TimeDriver<IoUringDriver>, TimeDriver<LegacyDriver>>;

/// What drives the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring; `deferred` with DEFER_TASKRUN, else with COOP_TASKRUN.
    IoUring {
        deferred: bool,
    },
    Epoll,
}

impl Driver {
    /// As the log and a metric's label say it.
    pub fn name(self) -> &'static str {
        match self {
            Driver::IoUring { .. } => "io_uring",
            Driver::Epoll => "epoll",
        }
    }

    fn ring(self) -> io_uring::Builder {
        let mut ring = IoUring::builder();
        match self {
            Driver::IoUring { deferred: true } => ring.setup_single_issuer().setup_defer_taskrun(),
            _ => ring.setup_coop_taskrun(),
        };
        ring
    }

    /// Builds a runtime for the calling thread, which must be the one that runs it.
    ///
    /// # Errors
    ///
    /// If the ring or the epoll instance cannot be made.
    pub fn build(self) -> io::Result<Runtime> {
        match self {
            Driver::IoUring { .. } => {
                let builder = RuntimeBuilder::<IoUringDriver>::new().uring_builder(self.ring());
                Ok(builder.with_entries(RING_ENTRIES).enable_timer().build()?.into())
            }
            Driver::Epoll => Ok(RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?.into()),
        }
    }
}

/// What the operator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Auto,
    IoUring,
    Epoll,
}

/// Why io_uring cannot be used. `Display` says what to do about it.
#[derive(Debug)]
pub struct NoRing {
    pub error: io::Error,
    rings: usize,
}

impl NoRing {
    pub fn new(error: io::Error, rings: usize) -> NoRing {
        NoRing { error, rings }
    }
}

impl fmt::Display for NoRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NoRing { error, rings } = self;
        write!(f, "io_uring cannot be used: {error}. ")?;
        match error.raw_os_error() {
            Some(libc::ENOMEM) => write!(
                f,
                "The limit on locked memory is too low for {rings} rings of {} KiB; raise it with `ulimit -l {}` or \
                 LimitMEMLOCK={}K, or set runtime.driver: epoll",
                RING_LOCKED_BYTES >> 10,
                (*rings as u64 * RING_LOCKED_BYTES) >> 10,
                (*rings as u64 * RING_LOCKED_BYTES) >> 10,
            ),
            Some(libc::EPERM | libc::EACCES) => f.write_str(
                "It is forbidden here, as by containers' default seccomp profile or by kernel.io_uring_disabled; allow \
                 it, or set runtime.driver: epoll",
            ),
            Some(libc::ENOSYS | libc::EINVAL) => {
                f.write_str("This kernel is too old for it (5.19 is needed); set runtime.driver: epoll")
            }
            _ => f.write_str("Set runtime.driver: epoll to do without"),
        }
    }
}

/// Finds out whether io_uring works here at all, with a small ring and one operation that does nothing. What it says holds
/// for the flags and permissions; whether memory suffices for every shard's ring shows only when they are built.
///
/// # Errors
///
/// Why not.
pub fn probe() -> Result<Driver, NoRing> {
    let attempt = |driver: Driver| -> io::Result<Driver> {
        let mut ring = driver.ring().build(8)?;
        let entry = opcode::Nop::new().build();
        push(&mut ring, &entry)?;
        ring.submit_and_wait(1)?;
        match ring.completion().next() {
            Some(done) if done.result() == 0 => Ok(driver),
            _ => Err(io::Error::other("an operation that does nothing did not complete")),
        }
    };
    attempt(Driver::IoUring { deferred: true })
        .or_else(|fault| match fault.raw_os_error() {
            Some(libc::EINVAL) => attempt(Driver::IoUring { deferred: false }),
            _ => Err(fault),
        })
        .map_err(|error| NoRing::new(error, 1))
}

#[expect(unsafe_code, reason = "a submission entry names memory by pointer; this one names none")]
fn push(ring: &mut IoUring, entry: &io_uring::squeue::Entry) -> io::Result<()> {
    // SAFETY: only called with a no-op, which refers to no memory.
    unsafe { ring.submission().push(entry) }.map_err(|_| io::Error::other("a new ring is full"))
}

/// Raises the limits on locked memory and open files as far as this process may. Returns the limit on open files.
pub fn raise_limits(shards: usize) -> Option<u64> {
    let raise = |resource, wanted: Option<u64>| {
        let limit = getrlimit(resource);
        let enough = |have: Option<u64>| have.is_none() || (wanted.is_some() && have >= wanted);
        if enough(limit.current) {
            return limit.current;
        }
        // With privilege the hard limit goes up too; without, the soft one up to it.
        let target = wanted.or(limit.maximum);
        if !enough(limit.maximum) && setrlimit(resource, Rlimit { current: target, maximum: target }).is_ok() {
            return target;
        }
        let reachable = match (target, limit.maximum) {
            (Some(target), Some(maximum)) => Some(target.min(maximum)),
            (target, maximum) => target.or(maximum),
        };
        let _ = setrlimit(resource, Rlimit { current: reachable, maximum: limit.maximum });
        getrlimit(resource).current
    };
    // Twice what is needed: rings of an earlier run are given back late.
    raise(Resource::Memlock, Some(2 * shards as u64 * RING_LOCKED_BYTES + (8 << 20)));
    raise(Resource::Nofile, Some(OPEN_FILES_WANTED))
}

/// Open files for 65,536 connections of nginx, 4,096 of HAProxy, 1,024 of Envoy and as many log senders, and change.
const OPEN_FILES_WANTED: u64 = 73_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoll_can_always_be_built_and_io_uring_where_it_was_probed() {
        Driver::Epoll.build().unwrap();
        match probe() {
            Ok(driver) => {
                let built = std::thread::spawn(move || driver.build().map(drop)).join().unwrap();
                assert!(built.is_ok(), "{built:?}");
            }
            Err(why) => assert!(why.error.raw_os_error().is_some(), "{why}"),
        }
    }

    #[test]
    fn faults_say_what_to_do() {
        let text = |code| NoRing::new(io::Error::from_raw_os_error(code), 4).to_string();
        assert!(text(libc::ENOMEM).contains("ulimit -l 512"));
        assert!(text(libc::EPERM).contains("seccomp"));
        assert!(text(libc::ENOSYS).contains("5.19"));
    }
}
