//! Waiting until a descriptor can be read, on either driver.
//!
//! monoio has no type for a bare descriptor. Its UDP socket is one in all but name: made from a number, it does no
//! socket call until it is asked for one, and all that is asked of it here is to wait. So listeners, eventfds and
//! UDP sockets are waited for in one way, and read with plain system calls that know how to take many at a time.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A descriptor to wait for. Closes it when dropped.
#[derive(Debug)]
pub struct Readiness {
    waiter: monoio::net::udp::UdpSocket,
    /// The same open file, to read from: monoio lends its number only.
    file: OwnedFd,
}

impl Readiness {
    /// Must be called on the thread of a running monoio runtime.
    ///
    /// # Errors
    ///
    /// If the descriptor cannot be duplicated, or not be registered with epoll.
    pub fn new(file: OwnedFd) -> io::Result<Readiness> {
        let waiter = monoio::net::udp::UdpSocket::from_std(UdpSocket::from(file.try_clone()?))?;
        Ok(Readiness { waiter, file })
    }

    /// Waits until reading would not block. May come back early; never waits when there is something to read.
    pub async fn readable(&self) {
        // An error here is a fault of the descriptor that the next read reports; there is nothing else to do about it.
        let _ = self.waiter.readable(false).await;
    }
}

impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Readiness {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.file.as_raw_fd()
    }
}
