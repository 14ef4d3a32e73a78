//! Runs the replay cases of one file on Shoal's own objects and prints what every read saw, as one JSON document.
//!
//! The format is in `tests/cases/README.md`. Exit code 0 when every case ran, 1 when the file cannot be read or a case
//! cannot be run (then nothing is on stdout), 2 for wrong usage.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use shoal_tests::replay::replay;

/// Replay histories of one key on three replicas.
#[derive(Parser)]
struct Arguments {
    /// The file with the cases.
    file: PathBuf,
}

fn main() -> ExitCode {
    let Arguments { file } = Arguments::parse();
    let outcome = std::fs::read_to_string(&file).map_err(|error| error.to_string());
    match outcome.and_then(|text| replay(&text).map_err(|error| error.to_string())) {
        Ok(document) => {
            println!("{document:#}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("replay: {}: {error}", file.display());
            ExitCode::FAILURE
        }
    }
}
