//! The storage bench: what the engine costs, beside redb alone and beside the log alone.
//!
//! Shape: an interleaved run first (`rounds`): in every round each system has its turn at each number of writers, so what slows the
//! machine down meets all of them. Then what shows only in the long run (`lasting`): overwriting, loading, restarting, memory.
//! Medians, and the goals with what was measured, come last (`report`). Nothing is asserted on time.
//!
//!     cargo bench -p shoal-node --all-features --bench storage              about ten minutes
//!     cargo bench -p shoal-node --all-features --bench storage -- --quick   seconds, to see that it runs

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a bench has a clock, threads and files")]

mod child;
mod closed_loop;
mod counted_disk;
mod group_commit;
mod keys;
mod lasting;
mod meter;
mod report;
mod rounds;
mod shoal;

use std::alloc::System as SystemAllocator;
use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Parser;
use shoal_node::host::disk::DirectoryDisk;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use counted_disk::CountedDisk;

/// As in the `shoal` binary.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<SystemAllocator> = &INSTRUMENTED_SYSTEM;

/// Whatever goes wrong ends the bench.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Measures the storage engine.
#[derive(Clone, Debug, Parser)]
struct Options {
    /// Different keys.
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Writers at once, one number after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256])]
    writers: Vec<usize>,
    /// Readers at once.
    #[arg(long, default_value_t = 64)]
    readers: usize,
    /// Rounds of the interleaved run.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of one system's turn.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How often every key is overwritten.
    #[arg(long, default_value_t = 10)]
    overwrites: usize,
    /// Records in the log when the process is killed.
    #[arg(long, default_value_t = 500_000)]
    log_records: usize,
    /// Where files are put, in a directory of their own that is removed at the end.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Only these parts.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Few keys and fractions of a second: the figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Who puts: each run over the same store is a later one.
    #[arg(long, hide = true, default_value_t = 0)]
    generation: u64,
    /// What a child of the bench is to do, in which directory.
    #[arg(long, hide = true, num_args = 2, value_names = ["TASK", "DIR"])]
    child: Vec<String>,
    /// Cargo says this.
    #[arg(long, hide = true)]
    #[allow(dead_code, reason = "there is nothing else to do")]
    bench: bool,
}

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The interleaved run.
    Rounds,
    /// Loading, overwriting, restarting, memory.
    Lasting,
}

impl Options {
    fn scaled(self) -> Self {
        if !self.quick {
            return self;
        }
        Self { keys: 20_000, rounds: 1, seconds: 0.2, overwrites: 2, log_records: 5_000, ..self }
    }

    fn runs(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

fn disk(path: &Path) -> Outcome<CountedDisk> {
    Ok(CountedDisk::new(DirectoryDisk::open(path)?))
}

fn main() -> Outcome<()> {
    let options = Options::parse().scaled();
    if let [task, directory] = &options.child[..] {
        return child::run(task, Path::new(directory), &options);
    }
    let directory = match &options.dir {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    };
    println!(
        "{} keys, {} B values, load average {} at the start",
        options.keys,
        options.value_bytes,
        meter::load_average()
    );
    let rounds = options.runs(Part::Rounds).then(|| rounds::run(directory.path(), &options)).transpose()?;
    let lasting = options.runs(Part::Lasting).then(|| lasting::run(directory.path(), &options)).transpose()?;
    if let Some(rounds) = &rounds {
        report::print_rounds(rounds);
    }
    if let Some(lasting) = &lasting {
        report::print_lasting(lasting);
    }
    report::print_goals(rounds.as_ref(), lasting.as_ref());
    println!("load average {} at the end", meter::load_average());
    Ok(())
}
