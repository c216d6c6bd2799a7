//! Unix sockets to listen on: their files come and go with the program.
//!
//! A crash leaves the file behind, and a file that is there cannot be bound to. So what is found is tried first: if
//! somebody answers, the address is in use; if nobody does, the file is a leaving of an earlier run and goes.

use rustix::fs::{FileType, Mode, chmod, lstat, unlink};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Whoever may enter the folder may ask: proxies run as users of their own.
const EVERYBODY: Mode = Mode::from_raw_mode(0o666);

/// The file of a socket that this process listens on. Removed when dropped, unless another one has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: which file it is, whatever its name.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if lstat(&self.path).is_ok_and(|found| (found.st_dev, found.st_ino) == self.identity) {
            let _ = unlink(&self.path);
        }
    }
}

impl SocketFile {
    /// That of a socket which is at `path`.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub fn at(path: PathBuf) -> io::Result<SocketFile> {
        let found = lstat(&path)?;
        Ok(SocketFile { path, identity: (found.st_dev, found.st_ino) })
    }
}

/// Listens on a unix socket at `path`, where `backlog` connections may wait to be accepted.
///
/// # Errors
///
/// `AddrInUse` if somebody listens there, `AlreadyExists` if there is something that is no socket, and those of the
/// system calls.
pub fn open(path: &Path, backlog: i32) -> io::Result<(OwnedFd, SocketFile)> {
    let address = SocketAddrUnix::new(path)?;
    match lstat(path) {
        Err(Errno::NOENT) => {}
        Err(fault) => return Err(fault.into()),
        Ok(found) if !FileType::from_raw_mode(found.st_mode).is_socket() => return Err(Errno::EXIST.into()),
        Ok(_) => match connect(stream_socket()?, &address) {
            Err(Errno::CONNREFUSED) => unlink(path)?,
            // Connected, or its backlog is full: somebody is there.
            Ok(()) | Err(Errno::AGAIN) => return Err(Errno::ADDRINUSE.into()),
            Err(fault) => return Err(fault.into()),
        },
    }
    let socket = stream_socket()?;
    bind(&socket, &address)?;
    let file = SocketFile::at(path.to_owned())?;
    chmod(path, EVERYBODY)?;
    listen(&socket, backlog)?;
    Ok((socket, file))
}

fn stream_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("mailfail2ban-socket-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_file_left_behind_goes_and_one_in_use_stays() {
        let folder = folder("left");
        let path = folder.join("s");
        drop(UnixListener::bind(&path).unwrap());
        let (socket, file) = open(&path, 16).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        UnixStream::connect(&path).unwrap();
        assert_eq!(open(&path, 16).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop((socket, file));
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        assert_eq!(open(&path, 16).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert_eq!(open(&folder.join("none/s"), 16).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_file_of_a_successor_is_left_alone() {
        let folder = folder("successor");
        let path = folder.join("s");
        let (_socket, file) = open(&path, 16).unwrap();
        fs::remove_file(&path).unwrap();
        let _successor = UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
        fs::remove_dir_all(folder).unwrap();
    }
}
