//! The `shoal` binary. Everything is in `shoal_node::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    shoal_node::cli::main()
}
