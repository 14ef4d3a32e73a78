//! What this process uses: CPU, allocations, memory.
//!
//! Shape: counters that only grow, read before and after; of one thread by its name where background work is to be told
//! apart. Units: CPU in ns, memory in bytes. Source: CLOCK_PROCESS_CPUTIME_ID (which counts threads that have ended too), and
//! Linux's /proc/self; elsewhere what /proc tells is 0.

use std::fs;

use crate::ALLOCATOR;

/// Counters that only grow, or their growth.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_ns: u64,
    /// Of `cpu_ns`, what threads that write rows have used.
    pub(crate) rows_cpu_ns: u64,
    pub(crate) allocations: u64,
}

impl Usage {
    pub(crate) fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Self {
            cpu_ns: time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs(),
            rows_cpu_ns: threads_cpu_ns("shoal-rows"),
            allocations: ALLOCATOR.stats().allocations as u64,
        }
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(before.cpu_ns),
            rows_cpu_ns: self.rows_cpu_ns.saturating_sub(before.rows_cpu_ns),
            allocations: self.allocations.saturating_sub(before.allocations),
        }
    }
}

/// CPU of all threads that live and whose names begin so.
fn threads_cpu_ns(name: &str) -> u64 {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return 0 };
    let of_thread = |path: std::path::PathBuf| {
        let is_named = fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.starts_with(name));
        let schedstat = is_named.then(|| fs::read_to_string(path.join("schedstat")).ok()).flatten()?;
        schedstat.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    threads.flatten().filter_map(|thread| of_thread(thread.path())).sum()
}

/// Memory of this process that is not paged out.
pub(crate) fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_ascii_whitespace().next()?.parse().ok());
    kib.unwrap_or(0_u64) * 1024
}

/// Load average of the machine over the last minute, as the system prints it.
pub(crate) fn load_average() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_ascii_whitespace().next().unwrap_or("unknown").to_owned()
}
