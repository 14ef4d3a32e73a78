//! The `shoal` binary. Everything is in `shoal_node::cli`; here is what a process has only one of: its allocator, which
//! counts, so that `shoal status` and `shoal bench` can tell how often a node allocates.

use std::alloc::System;
use std::process::ExitCode;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    shoal_node::host::count_allocations_with(|| ALLOCATOR.stats().allocations as u64);
    shoal_node::cli::main()
}
