//! What a process may not: set between fork and exec, for the child alone.

#![expect(unsafe_code, reason = "limits are set by system calls between fork and exec")]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// `linux/capability.h`.
pub const CAP_NET_BIND_SERVICE: u32 = 10;
const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_RESOURCE: u32 = 24;

/// Something a child may not have.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// More open files than this. It cannot raise the limit again.
    OpenFiles(u64),
    /// More locked memory than this, in bytes. It cannot raise the limit again.
    LockedMemory(u64),
    /// Files longer than this, in bytes, which is as if the disk was full. [`give_room`] takes it back.
    FileBytes(u64),
    /// A capability, by its number.
    Capability(u32),
    /// io_uring: its system call fails with EPERM, as in containers with their default seccomp profile.
    IoUring,
}

/// Has `command` start its child with these limits. The child also ends when the thread that starts it does.
pub fn apply(command: &mut Command, limits: &[Limit]) {
    let limits = limits.to_vec();
    let set = move || {
        check(die_with_parent())?;
        limits.iter().try_for_each(set)
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: these are plain system calls on values
    // that were made before; nothing is allocated and no lock is taken.
    unsafe { command.pre_exec(set) };
}

fn set(limit: &Limit) -> io::Result<()> {
    match *limit {
        Limit::OpenFiles(files) => {
            drop_capability(CAP_SYS_RESOURCE)?;
            set_limit(libc::RLIMIT_NOFILE, files)
        }
        Limit::LockedMemory(bytes) => {
            // Whoever has either of these is not limited.
            drop_capability(CAP_IPC_LOCK)?;
            drop_capability(CAP_SYS_RESOURCE)?;
            set_limit(libc::RLIMIT_MEMLOCK, bytes)
        }
        Limit::FileBytes(bytes) => {
            // Or it would be killed for trying.
            // SAFETY: takes numbers only.
            if unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) } == libc::SIG_ERR {
                return Err(io::Error::last_os_error());
            }
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: `limit` lives through the call, which only reads it.
            check(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) })
        }
        Limit::Capability(capability) => drop_capability(capability),
        Limit::IoUring => deny_io_uring(),
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn die_with_parent() -> libc::c_int {
    // SAFETY: takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }
}

fn set_limit(resource: libc::__rlimit_resource_t, value: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: `limit` lives through the call, which only reads it.
    check(unsafe { libc::setrlimit(resource, &raw const limit) })
}

/// The child is without it from exec on. Whoever is not root has no capability to lose.
fn drop_capability(capability: u32) -> io::Result<()> {
    // SAFETY: takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Ok(());
    }
    // SAFETY: takes numbers only.
    check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability)) })
}

fn deny_io_uring() -> io::Result<()> {
    // The system call's number is the first field of `struct seccomp_data`.
    let instruction = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let deny = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let mut program = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_io_uring_setup as u32, 0, 1),
        instruction(libc::BPF_RET | libc::BPF_K, deny, 0, 0),
        instruction(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: takes numbers only. Without it a filter takes a privilege.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    // SAFETY: `filter` describes `program`, and both live through the call, which copies them.
    check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) })
}

/// Lets a child's files be as long as it likes.
pub fn give_room(pid: u32) {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` lives through the call, which only reads it; the old limit is not asked for.
    let given =
        unsafe { libc::prlimit(pid as libc::pid_t, libc::RLIMIT_FSIZE, &raw const limit, std::ptr::null_mut()) };
    check(given).expect("a child of this user");
}

/// Sends a signal to a child that was not waited for yet, so that its number is still its own.
pub fn kill(pid: u32, signal: libc::c_int) {
    // SAFETY: takes numbers only.
    check(unsafe { libc::kill(pid as libc::pid_t, signal) }).expect("a child that was not waited for");
}

/// Has `last` called when this process ends by itself.
pub fn at_exit(last: extern "C" fn()) {
    // SAFETY: takes a function only, which lives as long as the process.
    check(unsafe { libc::atexit(last) }).expect("a place among the few functions that are called then");
}

/// Whether this process is root.
pub fn is_root() -> bool {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Whether io_uring can be used by this process: its system call fails for want of memory to write to, not of a right.
pub fn has_io_uring() -> bool {
    // SAFETY: with a null pointer for its parameters the call makes nothing and fails, with EFAULT where it is allowed.
    let result = unsafe { libc::syscall(libc::SYS_io_uring_setup, 8, std::ptr::null_mut::<libc::c_void>()) };
    result == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

/// Has the kernel end a connection with a reset when it is dropped, with what was not read or sent.
pub fn reset_on_drop(socket: &impl std::os::fd::AsRawFd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: `linger` lives through the call, which only reads it, and the length is its own.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    check(result).expect("an option of every socket");
}

/// Bytes of a TCP connection that the other side's kernel has not confirmed yet.
pub fn unconfirmed_bytes(socket: &impl std::os::fd::AsRawFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the call (SIOCOUTQ, which is TIOCOUTQ) writes one int, into one that lives through it.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) }).expect("a TCP socket");
    bytes as usize
}
