//! The process as the system sees it. Shell: reads `/proc/self`.

use std::fs;

/// The kernel reports CPU time to programs in hundredths of a second, on every Linux (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// What `/proc/self` says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// User and system time so far.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Open file descriptors.
    pub open_fds: u64,
}

/// What the machine calls itself; in a pod, the pod's name.
#[must_use]
pub fn host_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

impl Process {
    /// Reads `/proc/self`; `None` where there is none.
    #[must_use]
    pub fn read() -> Option<Self> {
        let mut process = Self::parse(
            &fs::read_to_string("/proc/self/stat").ok()?,
            &fs::read_to_string("/proc/self/status").ok()?,
        )?;
        process.open_fds = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        Some(process)
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The program's name stands in brackets and may hold anything; what follows the last bracket is plain.
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let ticks = |i: usize| fields.get(i)?.parse::<u32>().ok().map(f64::from);
        let line = |name: &str| -> Option<u64> {
            let value = status.lines().find_map(|line| line.strip_prefix(name))?;
            value.split_ascii_whitespace().next()?.parse().ok()
        };
        Some(Self {
            cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
            resident_bytes: line("VmRSS:")? * 1024,
            threads: line("Threads:")?,
            open_fds: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 1000 1 1 1";
        let status = "Name:\ta\nVmRSS:\t    2048 kB\nThreads:\t4\n";
        let want = Process { cpu_seconds: 2.0, resident_bytes: 2_097_152, threads: 4, open_fds: 0 };
        assert_eq!(Process::parse(stat, status), Some(want));
        assert_eq!(Process::parse("", status), None);
    }
}
