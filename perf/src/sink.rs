//! Receiving datagrams and doing nothing with them, many to a system call: what receiving alone costs. The yardstick for a
//! server that also reads them.

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, setsockopt, sockopt};
use serde::Serialize;
use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

const BATCH: usize = 64;
const DATAGRAM_BYTES_MAX: usize = 2048;

/// As the server asks for.
const BUFFER_BYTES: usize = 8 << 20;

/// What was received.
#[derive(Clone, Copy, Debug, Default, Serialize, PartialEq, Eq)]
pub struct Received {
    pub received: u64,
    pub bytes: u64,
    pub system_calls: u64,
}

/// Receives until there is nothing for `silence`, after there was something.
///
/// # Errors
///
/// The address is taken, or none of ours.
pub fn run(listen: SocketAddr, silence: Duration, ready: impl FnOnce(SocketAddr)) -> anyhow::Result<Received> {
    let socket = UdpSocket::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &BUFFER_BYTES)?;
    }
    socket.set_read_timeout(Some(silence))?;
    ready(socket.local_addr()?);
    let mut buffers = vec![[0_u8; DATAGRAM_BYTES_MAX]; BATCH];
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    let mut received = Received::default();
    loop {
        let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| [IoSliceMut::new(&mut buffer[..])]).collect();
        let result = recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_WAITFORONE, None);
        match result {
            Ok(datagrams) => {
                received.system_calls += 1;
                for datagram in datagrams {
                    received.received += 1;
                    received.bytes += datagram.bytes as u64;
                }
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if received.received > 0 => return Ok(received),
            Err(Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_counted() {
        let (tell, told) = std::sync::mpsc::channel();
        let sink = std::thread::spawn(move || {
            let ready = move |address| tell.send(address).unwrap();
            run("127.0.0.1:0".parse().unwrap(), Duration::from_millis(300), ready).unwrap()
        });
        let to = told.recv().unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..500 {
            sender.send_to(b"line", to).unwrap();
        }
        let received = sink.join().unwrap();
        assert_eq!((received.received, received.bytes), (500, 2000));
    }
}
