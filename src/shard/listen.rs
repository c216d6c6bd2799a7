//! Opening the listeners: all of them, before anything starts. And taking connections from them.
//!
//! Every shard has a socket of its own on each address (SO_REUSEPORT). That option would also let a second server
//! start on the same address and silently take half of the traffic, so it is first tried without it.

use super::system;
use crate::engine::address::Address;
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, SocketType, acceptfrom_with, bind, listen, socket_with};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Connections waiting to be accepted, per shard; the kernel lowers it to net.core.somaxconn. A proxy that lost its
/// agent comes back with hundreds at once.
pub const BACKLOG: i32 = 4096;

/// Wanted size of a shard's UDP receive buffer: 40,000 usual datagrams, a tenth of a second at the rate that one core can
/// match. Above net.core.rmem_max it takes CAP_NET_ADMIN; without, the kernel gives what it may.
const UDP_BUFFER_BYTES: usize = 8 << 20;

/// How often and how long to wait for an address that is in use. After a crash the kernel takes rings apart in its own
/// time, and the operations in them keep their sockets open: a supervisor that restarts at once came too early in 8 of 25
/// tries.
const RETRIES: u32 = 30;
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Syslog,
    Question,
}

impl Service {
    pub const COUNT: usize = 2;
    pub const ALL: [Service; Service::COUNT] = [Service::Syslog, Service::Question];

    /// As labels and messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Service::Syslog => "syslog",
            Service::Question => "nginx",
        }
    }
}

/// What to listen on.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    pub syslog_udp: Option<SocketAddr>,
    pub syslog_tcp: Option<SocketAddr>,
    pub question: Option<SocketAddr>,
}

/// One shard's sockets.
#[derive(Debug, Default)]
pub struct Sockets {
    pub syslog_udp: Option<OwnedFd>,
    pub syslog_tcp: Option<OwnedFd>,
    pub question: Option<OwnedFd>,
}

/// A listener that cannot be opened. `Display` is a sentence that says what to do.
#[derive(Debug)]
pub struct ListenFault {
    /// The setting that names the address.
    pub setting: &'static str,
    pub address: SocketAddr,
    protocol: &'static str,
    pub error: io::Error,
}

impl fmt::Display for ListenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ListenFault { setting, address, protocol, error } = self;
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "something else uses this address; `ss -lnp | grep :{}` shows what. Stop it, or change {setting}",
                address.port()
            ),
            io::ErrorKind::PermissionDenied => {
                format!("ports below 1024 need a privilege; give the program CAP_NET_BIND_SERVICE, or change {setting}")
            }
            io::ErrorKind::AddrNotAvailable => {
                format!("this machine does not have that address; `ip address` shows which it has. Change {setting}")
            }
            _ if error.raw_os_error() == Some(libc::EMFILE) => {
                "too many open files; raise the limit with `ulimit -n` or LimitNOFILE=".to_owned()
            }
            _ => format!("change {setting}"),
        };
        write!(f, "cannot listen on {protocol} {address}: {error}. {advice}")
    }
}

/// Opens the sockets of `shards` shards, or none: all that cannot be opened are reported together. With the sockets come
/// remarks that an operator should see.
///
/// # Errors
///
/// A [`ListenFault`] for each address that cannot be listened on.
pub fn open(addresses: &Addresses, shards: usize) -> Result<(Vec<Sockets>, Vec<String>), Vec<ListenFault>> {
    for _ in 0..RETRIES {
        match try_open(addresses, shards) {
            Err(faults) if faults.iter().all(|fault| fault.error.kind() == io::ErrorKind::AddrInUse) => pause(),
            opened => return opened,
        }
    }
    try_open(addresses, shards)
}

#[expect(
    clippy::disallowed_methods,
    reason = "before anything runs, and the kernel tells nobody when an address is free"
)]
fn pause() {
    std::thread::sleep(RETRY_PAUSE);
}

fn try_open(addresses: &Addresses, shards: usize) -> Result<(Vec<Sockets>, Vec<String>), Vec<ListenFault>> {
    let mut all: Vec<Sockets> = (0..shards).map(|_| Sockets::default()).collect();
    let mut faults = Vec::new();
    let mut remarks = Vec::new();
    let mut place = |setting, protocol, address: Option<SocketAddr>, put: fn(&mut Sockets, OwnedFd)| {
        let Some(address) = address else { return };
        let opened = match protocol {
            "udp" => open_udp(address, shards, &mut remarks),
            _ => open_tcp(address, shards),
        };
        match opened {
            Ok(sockets) => all.iter_mut().zip(sockets).for_each(|(shard, socket)| put(shard, socket)),
            Err(error) => faults.push(ListenFault { setting, address, protocol, error }),
        }
    };
    place("syslog.address", "udp", addresses.syslog_udp, |shard, socket| shard.syslog_udp = Some(socket));
    place("syslog.address", "tcp", addresses.syslog_tcp, |shard, socket| shard.syslog_tcp = Some(socket));
    place("nginx.port", "tcp", addresses.question, |shard, socket| shard.question = Some(socket));
    if faults.is_empty() { Ok((all, remarks)) } else { Err(faults) }
}

fn open_udp(address: SocketAddr, shards: usize, remarks: &mut Vec<String>) -> io::Result<Vec<OwnedFd>> {
    drop(socket(address, SocketType::DGRAM, false)?);
    let sockets = (0..shards).map(|_| socket(address, SocketType::DGRAM, true)).collect::<io::Result<Vec<_>>>()?;
    for socket in &sockets {
        if sockopt::set_socket_recv_buffer_size_force(socket, UDP_BUFFER_BYTES).is_err() {
            sockopt::set_socket_recv_buffer_size(socket, UDP_BUFFER_BYTES)?;
        }
    }
    if let Some(socket) = sockets.first() {
        // The kernel reports twice what it was asked for: its own bookkeeping is in it.
        let granted = sockopt::socket_recv_buffer_size(socket)? / 2;
        if granted < UDP_BUFFER_BYTES {
            remarks.push(format!(
                "the UDP receive buffer is {} KiB instead of {} KiB, so bursts of log lines may be lost; \
                 `sysctl net.core.rmem_max={UDP_BUFFER_BYTES}` or CAP_NET_ADMIN allows more",
                granted >> 10,
                UDP_BUFFER_BYTES >> 10
            ));
        }
        if shards > 1
            && let Err(fault) = system::spread_datagrams(socket.as_fd(), shards as u32)
        {
            remarks.push(format!(
                "the kernel does not spread datagrams over the shards ({fault}), so each sender's go to one of them"
            ));
        }
    }
    Ok(sockets)
}

fn open_tcp(address: SocketAddr, shards: usize) -> io::Result<Vec<OwnedFd>> {
    drop(socket(address, SocketType::STREAM, false)?);
    let sockets = (0..shards).map(|_| socket(address, SocketType::STREAM, true)).collect::<io::Result<Vec<_>>>()?;
    for socket in &sockets {
        listen(socket, BACKLOG)?;
    }
    Ok(sockets)
}

/// A bound socket that does not block; shared with others of this process, or alone.
fn socket(address: SocketAddr, kind: SocketType, shared: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if kind == SocketType::STREAM {
        // Connections of an earlier run that are still closing do not keep the port; a listener does.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    if shared {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    if address.is_ipv6() {
        // `[::]` serves IPv4 too, whatever net.ipv6.bindv6only says.
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    bind(&socket, &address)?;
    if !shared && kind == SocketType::STREAM {
        // Two bound sockets that both allow reuse conflict only once one listens.
        listen(&socket, 1)?;
    }
    Ok(socket)
}

/// Takes one connection, without waiting; `None` if there is none.
pub fn accept(listener: BorrowedFd<'_>) -> Option<Result<(OwnedFd, Option<Address>), Errno>> {
    // Operations on io_uring wait in the kernel, and would give EAGAIN on a socket that does not block.
    let flags = match monoio::utils::is_legacy() {
        true => SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        false => SocketFlags::CLOEXEC,
    };
    match acceptfrom_with(listener, flags) {
        Ok((socket, peer)) => Some(Ok((socket, peer.and_then(address)))),
        Err(Errno::AGAIN) => None,
        Err(fault) => Some(Err(fault)),
    }
}

/// Whether a failed accept concerns only the connection that was to be accepted (accept(2), "Error handling").
pub fn is_passing(fault: &Errno) -> bool {
    !matches!(*fault, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::INVAL | Errno::BADF)
}

fn address(peer: SocketAddrAny) -> Option<Address> {
    SocketAddr::try_from(peer).ok().map(|peer| Address::from(peer.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    fn free_port() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    }

    #[test]
    fn a_port_that_somebody_uses_is_refused_even_if_they_share_it() {
        let address = free_port();
        let addresses = Addresses { syslog_udp: Some(address), syslog_tcp: Some(address), question: Some(free_port()) };
        let (first, _) = open(&addresses, 2).unwrap();
        let faults = open(&addresses, 2).unwrap_err();
        assert_eq!(faults.len(), 3);
        assert!(faults.iter().all(|fault| fault.error.kind() == io::ErrorKind::AddrInUse));
        assert!(faults[0].to_string().contains("something else uses this address"), "{}", faults[0]);
        drop(first);
        assert!(open(&addresses, 2).is_ok());
    }

    #[test]
    fn a_single_sender_reaches_every_socket() {
        let address = free_port();
        let addresses = Addresses { syslog_udp: Some(address), ..Addresses::default() };
        let (shards, _) = open(&addresses, 4).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..400 {
            sender.send_to(b"x", address).unwrap();
        }
        let mut batch = system::Batch::new(16);
        for shard in shards {
            let socket = shard.syslog_udp.unwrap();
            let mut got = 0;
            while let Ok(n) = batch.receive(socket.as_fd()) {
                got += n;
            }
            assert!((60..140).contains(&got), "{got} of 400 on one of four sockets");
        }
    }
}
