//! The command line from outside: the real binary, real processes, their output and exit codes.
//!
//! The program under test is the `shoal` beside this test binary: `scripts/test` builds all binaries of the workspace first
//! (`cargo test -p shoal-tests` alone does not; `cargo build` does). Nothing sleeps: what takes time is asked for again
//! until it is so, and a test that hangs is ended by the test runner.

mod cluster;
mod data;
mod disk;
mod examples;
mod import;
mod life;
mod members;
mod program;
mod refusals;
mod servers;
