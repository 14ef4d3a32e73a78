//! What processes of this machine have used, as Linux counts it; elsewhere nothing is known.
//!
//! CPU: the sum over a process's threads of /proc/PID/task/*/schedstat (ns on a processor), with user and system time.
//! Written: `wchar` of /proc/PID/io, bytes handed to write calls, files only (sockets use other calls).
//! Loopback: bytes received by `lo` in /proc/net/dev: everything on this machine, so measure on a quiet one.

use std::io;
use std::path::Path;

use shoal_client::Client;

use crate::cli::failure::Failure;

/// Counters that only grow, or their growth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// This process, ns of CPU.
    pub(super) client_ns: u64,
    /// The nodes together, ns of CPU.
    pub(super) nodes_ns: u64,
    /// The nodes together, bytes handed to write calls.
    pub(super) nodes_written: u64,
    /// The nodes together, allocations as their status tells.
    pub(super) nodes_allocations: u64,
    /// The machine, bytes over the loopback interface.
    pub(super) loopback: u64,
}

impl Usage {
    /// `pids` are the nodes' processes, `nodes` clients that each ask one node.
    pub(super) async fn now(pids: &[u32], nodes: &[Client]) -> Result<Self, Failure> {
        let mut usage = Self {
            client_ns: cpu_ns("/proc/self".as_ref()).unwrap_or(0),
            loopback: loopback().unwrap_or(0),
            ..Self::default()
        };
        for node in nodes {
            let figures = node.status().await?.figures;
            usage.nodes_allocations += figures.iter().find(|(name, _)| name == "allocations").map_or(0, |(_, n)| *n);
        }
        for pid in pids {
            let process = format!("/proc/{pid}");
            let process = Path::new(&process);
            let missing = |error| Failure::file(process, &error);
            usage.nodes_ns += cpu_ns(process).map_err(missing)?;
            usage.nodes_written += written(process).map_err(missing)?;
        }
        Ok(usage)
    }

    pub(super) const fn since(&self, earlier: &Self) -> Self {
        Self {
            client_ns: self.client_ns.saturating_sub(earlier.client_ns),
            nodes_ns: self.nodes_ns.saturating_sub(earlier.nodes_ns),
            nodes_written: self.nodes_written.saturating_sub(earlier.nodes_written),
            nodes_allocations: self.nodes_allocations.saturating_sub(earlier.nodes_allocations),
            loopback: self.loopback.saturating_sub(earlier.loopback),
        }
    }

    pub(super) const fn add(&mut self, more: &Self) {
        self.client_ns += more.client_ns;
        self.nodes_ns += more.nodes_ns;
        self.nodes_written += more.nodes_written;
        self.nodes_allocations += more.nodes_allocations;
        self.loopback += more.loopback;
    }
}

fn cpu_ns(process: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for thread in std::fs::read_dir(process.join("task"))? {
        let schedstat = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        sum += first_number(&schedstat)?;
    }
    Ok(sum)
}

fn written(process: &Path) -> io::Result<u64> {
    let counters = std::fs::read_to_string(process.join("io"))?;
    let wchar = counters.lines().find_map(|line| line.strip_prefix("wchar:"));
    first_number(wchar.unwrap_or_default())
}

fn loopback() -> io::Result<u64> {
    let interfaces = std::fs::read_to_string("/proc/net/dev")?;
    let lo = interfaces.lines().find_map(|line| line.trim_start().strip_prefix("lo:"));
    first_number(lo.unwrap_or_default())
}

fn first_number(text: &str) -> io::Result<u64> {
    let number = text.split_ascii_whitespace().next().and_then(|number| number.parse().ok());
    number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no number where the system keeps one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn this_process_has_used_something_and_a_process_that_is_not_there_is_said() {
        let usage = Usage::now(&[std::process::id()], &[]).await.unwrap();
        assert!(usage.client_ns > 0 && usage.nodes_ns > 0);
        assert_eq!(Usage::now(&[u32::MAX], &[]).await.unwrap_err().code(), "io");
    }
}
