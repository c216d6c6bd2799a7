//! Opening the listeners: all of them, before anything starts. And taking connections from them.
//!
//! Every shard has a socket of its own on each address (SO_REUSEPORT). That option would also let a second server
//! start on the same address and silently take half of the traffic, so it is first tried without it. A unix socket has
//! no such option: there the shards share one listener, and who is free first takes the connection.

use super::socket_file::{self, SocketFile};
use super::system;
use crate::engine::address::Address;
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, SocketType, acceptfrom_with, bind, listen, socket_with};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
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

/// What a connection is for: log lines, or the questions of one kind of proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Syslog,
    Spoa,
    Envoy,
    Nginx,
}

impl Service {
    pub const COUNT: usize = 4;
    pub const ALL: [Service; Service::COUNT] = [Service::Syslog, Service::Spoa, Service::Envoy, Service::Nginx];
    /// Those that answer questions.
    pub const ASKED: [Service; 3] = [Service::Spoa, Service::Envoy, Service::Nginx];

    /// As settings, labels and messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Service::Syslog => "syslog",
            Service::Spoa => "spoa",
            Service::Envoy => "envoy",
            Service::Nginx => "nginx",
        }
    }
}

/// What to listen on.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    pub syslog_udp: Option<SocketAddr>,
    pub streams: Vec<(Service, Endpoint)>,
}

/// Where connections are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(address) => address.fmt(f),
            Endpoint::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Endpoint {
    /// As messages call it.
    pub fn protocol(&self) -> &'static str {
        match self {
            Endpoint::Tcp(_) => "tcp",
            Endpoint::Unix(_) => "unix",
        }
    }

    /// The setting that names it.
    fn setting(&self, service: Service) -> &'static str {
        match (self, service) {
            (_, Service::Syslog) => "syslog.address",
            (Endpoint::Tcp(_), Service::Spoa) => "spoa.port",
            (Endpoint::Tcp(_), Service::Envoy) => "envoy.port",
            (Endpoint::Tcp(_), Service::Nginx) => "nginx.port",
            (Endpoint::Unix(_), Service::Spoa) => "spoa.socket",
            (Endpoint::Unix(_), Service::Envoy) => "envoy.socket",
            (Endpoint::Unix(_), Service::Nginx) => "nginx.socket",
        }
    }
}

/// One shard's sockets.
#[derive(Debug, Default)]
pub struct Sockets {
    pub syslog_udp: Option<OwnedFd>,
    pub listeners: Vec<(Service, OwnedFd)>,
}

/// Everything that was opened.
#[derive(Debug)]
pub struct Opened {
    /// By shard.
    pub sockets: Vec<Sockets>,
    /// To be kept as long as the unix sockets shall have their names.
    pub files: Vec<SocketFile>,
    /// What an operator should see.
    pub remarks: Vec<String>,
}

/// A listener that cannot be opened. `Display` is a sentence that says what to do.
#[derive(Debug)]
pub struct ListenFault {
    /// The setting that names the address.
    pub setting: &'static str,
    pub endpoint: Endpoint,
    protocol: &'static str,
    pub error: io::Error,
}

impl fmt::Display for ListenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ListenFault { setting, endpoint, protocol, error } = self;
        let advice = match (error.kind(), endpoint) {
            (io::ErrorKind::AddrInUse, Endpoint::Tcp(address)) => format!(
                "something else uses this address; `ss -lnp | grep :{}` shows what. Stop it, or change {setting}",
                address.port()
            ),
            (io::ErrorKind::AddrInUse, Endpoint::Unix(_)) => {
                format!("something else listens there; `ss -lxp` shows what. Stop it, or change {setting}")
            }
            (io::ErrorKind::AlreadyExists, _) => {
                format!("there is a file that is no socket. Remove it, or change {setting}")
            }
            (io::ErrorKind::NotFound, _) => format!("its folder does not exist. Make it, or change {setting}"),
            (io::ErrorKind::PermissionDenied, Endpoint::Unix(_)) => {
                format!("this user may not make a file there. Give it the folder, or change {setting}")
            }
            (io::ErrorKind::PermissionDenied, _) => {
                format!("ports below 1024 need a privilege; give the program CAP_NET_BIND_SERVICE, or change {setting}")
            }
            (io::ErrorKind::AddrNotAvailable, _) => {
                format!("this machine does not have that address; `ip address` shows which it has. Change {setting}")
            }
            _ if error.raw_os_error() == Some(libc::EMFILE) => {
                "too many open files; raise the limit with `ulimit -n` or LimitNOFILE=".to_owned()
            }
            _ => format!("change {setting}"),
        };
        write!(f, "cannot listen on {protocol} {endpoint}: {error}. {advice}")
    }
}

/// Opens the sockets of `shards` shards, or none: all that cannot be opened are reported together.
///
/// # Errors
///
/// A [`ListenFault`] for each address that cannot be listened on.
pub fn open(addresses: &Addresses, shards: usize) -> Result<Opened, Vec<ListenFault>> {
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

fn try_open(addresses: &Addresses, shards: usize) -> Result<Opened, Vec<ListenFault>> {
    let mut sockets: Vec<Sockets> = (0..shards).map(|_| Sockets::default()).collect();
    let mut files = Vec::new();
    let mut faults = Vec::new();
    let mut remarks = Vec::new();
    if let Some(address) = addresses.syslog_udp {
        let endpoint = Endpoint::Tcp(address);
        match open_udp(address, shards, &mut remarks) {
            Ok(opened) => {
                sockets.iter_mut().zip(opened).for_each(|(shard, socket)| shard.syslog_udp = Some(socket));
            }
            Err(error) => {
                faults.push(ListenFault { setting: "syslog.address", endpoint, protocol: "udp", error });
            }
        }
    }
    for (service, endpoint) in &addresses.streams {
        let opened = match endpoint {
            Endpoint::Tcp(address) => open_tcp(*address, shards),
            Endpoint::Unix(path) => socket_file::open(path, BACKLOG).and_then(|(socket, file)| {
                files.push(file);
                (0..shards).map(|_| socket.try_clone()).collect()
            }),
        };
        match opened {
            Ok(opened) => {
                sockets.iter_mut().zip(opened).for_each(|(shard, socket)| shard.listeners.push((*service, socket)));
            }
            Err(error) => {
                let (setting, protocol) = (endpoint.setting(*service), endpoint.protocol());
                faults.push(ListenFault { setting, endpoint: endpoint.clone(), protocol, error });
            }
        }
    }
    if faults.is_empty() { Ok(Opened { sockets, files, remarks }) } else { Err(faults) }
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
        let streams = vec![(Service::Syslog, Endpoint::Tcp(address)), (Service::Nginx, Endpoint::Tcp(free_port()))];
        let addresses = Addresses { syslog_udp: Some(address), streams };
        let first = open(&addresses, 2).unwrap();
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
        let shards = open(&addresses, 4).unwrap().sockets;
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..400 {
            sender.send_to(b"x", address).unwrap();
        }
        let mut batch = system::Batch::new(16);
        for shard in shards {
            let socket = shard.syslog_udp.unwrap();
            let mut got = 0;
            while let Ok(n) = batch.receive(socket.as_fd(), false) {
                got += n;
            }
            assert!((60..140).contains(&got), "{got} of 400 on one of four sockets");
        }
    }
}
