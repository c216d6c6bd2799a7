//! What the kernel says of processes: CPU time, by the scheduler's own nanoseconds. And on which core we run.

use anyhow::Context;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::str::FromStr;

/// A process whose CPU time is to be measured, and what it is called in results.
#[derive(Clone, Debug)]
pub struct Process {
    pub name: String,
    pub pid: u32,
}

impl FromStr for Process {
    type Err = String;

    fn from_str(text: &str) -> Result<Process, String> {
        let (name, pid) = text.split_once('=').unwrap_or(("server", text));
        let pid = pid.parse().map_err(|_| format!("{pid:?} is no process id; write NAME=PID"))?;
        Ok(Process { name: name.to_owned(), pid })
    }
}

impl Process {
    /// CPU seconds that all its threads have used, user and system. Threads that ended are not in it.
    ///
    /// # Errors
    ///
    /// It is gone.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let threads = Path::new("/proc").join(self.pid.to_string()).join("task");
        let mut nanoseconds = 0;
        for thread in fs::read_dir(&threads).with_context(|| format!("{}: process {} is gone", self.name, self.pid))? {
            // A thread may end between being listed and being read.
            let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            nanoseconds += text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or_default();
        }
        Ok(nanoseconds as f64 / 1e9)
    }
}

/// Keeps this process, and threads that it will start, on one core.
///
/// # Errors
///
/// There is no such core.
pub fn pin(core: usize) -> anyhow::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &cores)).with_context(|| format!("core {core}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_used_some_time() {
        let own: Process = format!("own={}", std::process::id()).parse().unwrap();
        let before = own.cpu_seconds().unwrap();
        let mut sum = 0_u64;
        while own.cpu_seconds().unwrap() < before + 0.01 {
            sum = std::hint::black_box(sum + 1);
        }
        assert_eq!(own.name, "own");
        assert!("server=x".parse::<Process>().is_err());
        assert!(Process { name: "none".into(), pid: u32::MAX }.cpu_seconds().is_err());
    }
}
