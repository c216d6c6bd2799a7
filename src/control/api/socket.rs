//! The control socket: where the command line of the same machine asks, without a password.

use crate::shard::SocketFile;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Its name in `runtime.state_dir`.
pub const NAME: &str = "control.sock";

/// Longest path that a unix socket can be found by (`sun_path` of unix(7), with the NUL at its end).
const PATH_BYTES_MAX: usize = 107;

/// The folder in which it is made before it gets that name.
const CRADLE: &str = ".control";

/// The listener, and the file that goes when this does.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    file: SocketFile,
}

impl ControlSocket {
    /// Makes the socket in `state_dir`, which is this process's alone: one that is there was left behind.
    ///
    /// At no time can anybody but this user connect to it: it is made in a folder that only he may enter, made his alone,
    /// and only then put where it belongs.
    ///
    /// # Errors
    ///
    /// Those of the file system; `InvalidInput` if the path is longer than a socket's can be.
    pub fn open(state_dir: &Path) -> io::Result<ControlSocket> {
        let path = state_dir.join(NAME);
        // It is made under another name, so the kernel does not see that nobody could use this one.
        if path.as_os_str().len() > PATH_BYTES_MAX {
            let most = PATH_BYTES_MAX - NAME.len() - 1;
            let why = format!("its path is too long for a unix socket: the directory's may have {most} bytes at most");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let cradle = state_dir.join(CRADLE);
        match fs::remove_dir_all(&cradle) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&cradle)?;
        let made = ControlSocket::make(&cradle.join("s"), path);
        drop(fs::remove_dir_all(&cradle));
        made
    }

    fn make(first: &Path, path: PathBuf) -> io::Result<ControlSocket> {
        let listener = UnixListener::bind(first)?;
        listener.set_nonblocking(true)?;
        fs::set_permissions(first, Permissions::from_mode(0o600))?;
        fs::rename(first, &path)?;
        Ok(ControlSocket { listener, file: SocketFile::at(path)? })
    }

    /// The listener for [`super::Api::listen_locally`], and the file, to be dropped at the end.
    pub fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;
    use std::os::unix::net::UnixStream;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("mailfail2ban-control-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn it_is_this_users_alone_and_takes_the_place_of_one_left_behind() {
        let folder = folder("made");
        let path = folder.join(NAME);
        // As a crash leaves it.
        std::mem::forget(ControlSocket::open(&folder).unwrap().into_parts().1);
        fs::create_dir_all(folder.join(CRADLE).join("x")).unwrap();
        let (listener, file) = ControlSocket::open(&folder).unwrap().into_parts();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(!folder.join(CRADLE).exists());
        UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
        drop(file);
        assert!(!path.exists());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn one_of_a_successor_is_left_alone() {
        let folder = folder("successor");
        let (_, file) = ControlSocket::open(&folder).unwrap().into_parts();
        let (_, successor) = ControlSocket::open(&folder).unwrap().into_parts();
        drop(file);
        assert!(folder.join(NAME).exists());
        drop(successor);
        assert!(!folder.join(NAME).exists());
        assert!(ControlSocket::open(&folder.join("none")).is_err());
        let long = folder.join("x".repeat(PATH_BYTES_MAX - folder.as_os_str().len() - NAME.len() - 1));
        fs::create_dir(&long).unwrap();
        assert_eq!(ControlSocket::open(&long).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        fs::remove_dir_all(folder).unwrap();
    }
}
