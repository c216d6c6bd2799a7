//! The system calls that no safe crate offers: everything `unsafe` of the project is in this file.

#![expect(
    unsafe_code,
    reason = "recvmmsg, SO_ATTACH_REUSEPORT_CBPF, SO_MEMINFO and shutdown by number, each claimed below"
)]

use crate::engine::address::Address;
use rustix::net::SendFlags;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// How many datagrams one system call receives: beyond 64 the cost per datagram no longer falls.
pub const BATCH: usize = 64;

/// Buffers begin so many bytes apart, and then some: three lines of the cache, as many as a usual datagram fills. With
/// a power of two between them all would compete for the same few places in it.
const APART: (usize, usize) = (4096, 192);

/// Buffers for datagrams, received many at a time.
pub struct Batch {
    buffers: Box<[u8]>,
    buffer_bytes: usize,
    /// From one buffer's beginning to the next.
    stride: usize,
    addresses: Box<[libc::sockaddr_storage; BATCH]>,
    vectors: Box<[libc::iovec; BATCH]>,
    headers: Box<[libc::mmsghdr; BATCH]>,
    received: usize,
}

/// One datagram of a [`Batch`].
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    pub bytes: &'a [u8],
    /// It was longer than the buffer; `bytes` is its beginning.
    pub cut: bool,
    /// Who sent it; `None` for a family other than IPv4 and IPv6, and where nobody asked.
    pub sender: Option<Address>,
}

impl Batch {
    /// Buffers for datagrams of at most `datagram_bytes_max` bytes; longer ones arrive cut.
    pub fn new(datagram_bytes_max: usize) -> Batch {
        // SAFETY: a plain C structure, for which zero bytes are a valid value (no address).
        let addresses = Box::new(unsafe { std::mem::zeroed() });
        // SAFETY: a plain C structure, for which zero bytes are a valid value (null, nothing long).
        let vectors = Box::new(unsafe { std::mem::zeroed() });
        // SAFETY: a plain C structure, for which zero bytes are a valid value (null pointers and lengths).
        let headers = Box::new(unsafe { std::mem::zeroed() });
        let stride = datagram_bytes_max.next_multiple_of(APART.0) + APART.1;
        Batch {
            buffers: vec![0; stride * BATCH].into_boxed_slice(),
            buffer_bytes: datagram_bytes_max,
            stride,
            addresses,
            vectors,
            headers,
            received: 0,
        }
    }

    /// Receives what is there, up to [`BATCH`] datagrams, without waiting. Returns how many. Who sent them is only asked where
    /// somebody wants to know: it costs a twentieth of receiving.
    ///
    /// # Errors
    ///
    /// Those of `recvmmsg(2)`; `WouldBlock` if nothing is there.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, wants_senders: bool) -> io::Result<usize> {
        self.received = 0;
        let buffers = self.buffers.chunks_exact_mut(self.stride);
        let parts = self.vectors.iter_mut().zip(self.addresses.iter_mut()).zip(buffers);
        for (header, ((vector, address), buffer)) in self.headers.iter_mut().zip(parts) {
            vector.iov_base = buffer.as_mut_ptr().cast();
            vector.iov_len = self.buffer_bytes;
            header.msg_len = 0;
            (header.msg_hdr.msg_name, header.msg_hdr.msg_namelen) = match wants_senders {
                true => {
                    let bytes = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
                    (std::ptr::from_mut(address).cast(), bytes)
                }
                false => (std::ptr::null_mut(), 0),
            };
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = std::ptr::null_mut();
            header.msg_hdr.msg_controllen = 0;
            header.msg_hdr.msg_flags = 0;
        }
        // SAFETY: every header points to its own vector, and its own address or none, every vector to its own part of
        // `buffers`, with no more than their true lengths, all set just above and owned by `self`, which is borrowed for the whole call. MSG_DONTWAIT
        // makes it return at once. `udp_datagrams_arrive_whole_and_cut` in tests below would notice a mistake.
        let count = unsafe {
            let headers = self.headers.as_mut_ptr();
            libc::recvmmsg(socket.as_raw_fd(), headers, BATCH as _, libc::MSG_DONTWAIT, std::ptr::null_mut())
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        self.received = count.min(BATCH);
        Ok(self.received)
    }

    /// The datagrams of the last [`Batch::receive`].
    pub fn iter(&self) -> impl Iterator<Item = Datagram<'_>> {
        let buffers = self.buffers.chunks_exact(self.stride).map(|buffer| &buffer[..self.buffer_bytes]);
        let parts = self.headers.iter().zip(self.addresses.iter()).zip(buffers);
        parts.take(self.received).map(|((header, address), buffer)| Datagram {
            bytes: buffer.get(..header.msg_len as usize).unwrap_or(buffer),
            cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            sender: address_of(address, header.msg_hdr.msg_namelen),
        })
    }
}

/// `len` is 0 where the kernel was not asked.
fn address_of(storage: &libc::sockaddr_storage, len: libc::socklen_t) -> Option<Address> {
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET if len as usize >= size_of::<libc::sockaddr_in>() => {
            // SAFETY: the kernel says that it wrote a sockaddr_in, and storage is aligned and large enough for one.
            let v4 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            Some(Address::from(Ipv4Addr::from_bits(u32::from_be(v4.sin_addr.s_addr))))
        }
        libc::AF_INET6 if len as usize >= size_of::<libc::sockaddr_in6>() => {
            // SAFETY: as above, for a sockaddr_in6.
            let v6 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            Some(Address::from(Ipv6Addr::from(v6.sin6_addr.s6_addr)))
        }
        _ => None,
    }
}

/// Makes the kernel spread datagrams evenly over the `sockets` sockets of this one's SO_REUSEPORT group, whoever sent
/// them. Without it the addresses and ports decide, and one relay's flow would all go to one shard.
///
/// The program is classic BPF: a random number modulo the number of sockets. It needs no privilege (socket(7)).
///
/// # Errors
///
/// Those of `setsockopt(2)`.
pub fn spread_datagrams(socket: BorrowedFd<'_>, sockets: u32) -> io::Result<()> {
    const RANDOM: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;
    let instruction = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut program = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, RANDOM),
        instruction(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, sockets),
        instruction(libc::BPF_RET | libc::BPF_A, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `filter` describes `program`, both live through the call, and the length is that of `filter`. The kernel
    // copies and verifies the program. `a_single_sender_reaches_every_socket` would notice a mistake.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            std::ptr::from_ref(&filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A descriptor by its number, for somebody who does not own it: the sweep over connections, and whoever counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(RawFd);

impl Handle {
    pub fn of(socket: &impl AsRawFd) -> Handle {
        Handle(socket.as_raw_fd())
    }

    /// Shuts the socket down; whoever waits for it is woken and finds an end. Errors do not matter: the peer may have
    /// gone already.
    ///
    /// The caller vouches that the socket is still open: an entry of [`super::connections::Connections`] goes before
    /// its socket is closed, on the same thread.
    pub fn shutdown(self, how: rustix::net::Shutdown) {
        // SAFETY: open, as the caller vouches; and were it not, the call would fail or shut down another socket of
        // this process, which is a fault of ours but not undefined behaviour.
        let socket = unsafe { BorrowedFd::borrow_raw(self.0) };
        let _ = rustix::net::shutdown(socket.as_fd(), how);
    }

    /// A second name for the socket, which stays open when this one is closed.
    ///
    /// The caller vouches that the socket is still open, as above.
    pub fn duplicate(self) -> io::Result<OwnedFd> {
        // SAFETY: as above.
        let socket = unsafe { BorrowedFd::borrow_raw(self.0) };
        socket.try_clone_to_owned()
    }

    /// How many datagrams the kernel dropped on this socket because its buffer was full, since it was opened (SO_MEMINFO,
    /// socket(7)). Zero where the kernel does not say.
    ///
    /// The caller vouches that the socket is still open, as above.
    pub fn datagrams_dropped(self) -> u64 {
        /// `SK_MEMINFO_VARS` and the index of `SK_MEMINFO_DROPS` in `linux/sock_diag.h`.
        const VARS: usize = 9;
        const DROPS: usize = 8;
        let mut values = [MaybeUninit::<u32>::zeroed(); VARS];
        let mut len = size_of::<[u32; VARS]>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes into `values` and says how many in `len`.
        let result = unsafe {
            libc::getsockopt(self.0, libc::SOL_SOCKET, libc::SO_MEMINFO, values.as_mut_ptr().cast(), &raw mut len)
        };
        if result != 0 || (len as usize) < size_of::<[u32; VARS]>() {
            return 0;
        }
        // SAFETY: zeroed at first, so initialised whatever the kernel wrote.
        u64::from(unsafe { values[DROPS].assume_init() })
    }

    /// Sends a few bytes without waiting, beside a read that is under way. All of them or none: if only some could be sent,
    /// what follows would be read as their rest, and the socket is shut down.
    ///
    /// The caller vouches that the socket is still open, as above.
    pub fn send_now(self, bytes: &[u8]) {
        // SAFETY: as above.
        let socket = unsafe { BorrowedFd::borrow_raw(self.0) };
        let sent = rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        if sent.is_ok_and(|sent| sent < bytes.len()) {
            self.shutdown(rustix::net::Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn udp_datagrams_arrive_whole_and_cut() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = receiver.local_addr().unwrap();
        let mut batch = Batch::new(8);
        assert_eq!(batch.receive(receiver.as_fd(), true).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        for text in ["", "one", "eightby.", "ninebytes"] {
            sender.send_to(text.as_bytes(), to).unwrap();
        }
        assert_eq!(batch.receive(receiver.as_fd(), true).unwrap(), 4);
        let got: Vec<_> = batch.iter().map(|d| (String::from_utf8_lossy(d.bytes).into_owned(), d.cut)).collect();
        let want = [("", false), ("one", false), ("eightby.", false), ("ninebyte", true)];
        assert_eq!(got, want.map(|(text, cut)| (text.to_owned(), cut)));
        assert!(batch.iter().all(|d| d.sender == Address::parse(b"127.0.0.1")));
        for _ in 0..BATCH + 1 {
            sender.send_to(b"x", to).unwrap();
        }
        assert_eq!(batch.receive(receiver.as_fd(), true).unwrap(), BATCH);
        assert_eq!(batch.receive(receiver.as_fd(), true).unwrap(), 1);
        assert_eq!(batch.iter().count(), 1);
        sender.send_to(b"y", to).unwrap();
        assert_eq!(batch.receive(receiver.as_fd(), false).unwrap(), 1);
        assert!(batch.iter().all(|d| d.bytes == b"y" && d.sender.is_none()));
    }

    #[test]
    fn datagrams_that_find_no_room_are_counted() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&receiver, 64 << 10).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (sent, mut received, mut batch) = (1000, 0, Batch::new(8));
        assert_eq!(Handle::of(&receiver).datagrams_dropped(), 0);
        for _ in 0..sent {
            sender.send_to(b"x", receiver.local_addr().unwrap()).unwrap();
        }
        while let Ok(count) = batch.receive(receiver.as_fd(), false) {
            received += count as u64;
        }
        let dropped = Handle::of(&receiver).datagrams_dropped();
        assert!(received > 0 && dropped > 0);
        assert_eq!(received + dropped, sent);
    }

    #[test]
    fn a_datagram_over_ipv6_has_its_sender() {
        let Ok(receiver) = UdpSocket::bind("[::1]:0") else { return };
        let sender = UdpSocket::bind("[::1]:0").unwrap();
        sender.send_to(b"x", receiver.local_addr().unwrap()).unwrap();
        let mut batch = Batch::new(8);
        assert_eq!(batch.receive(receiver.as_fd(), true).unwrap(), 1);
        assert_eq!(batch.iter().next().unwrap().sender, Address::parse(b"::1"));
    }
}
