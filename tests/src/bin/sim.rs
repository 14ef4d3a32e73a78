//! Plays simulated histories and prints their scenario, what happened how often, and every rule that was broken.
//!
//! Exit code 0 when no rule was broken, 1 otherwise, 2 for wrong usage. The same seed plays the same history.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use shoal_tests::sim::mutant::Mutant;
use shoal_tests::sim::{Options, Report, run};

/// Play the history of a seed.
#[derive(Parser)]
struct Arguments {
    /// The seed.
    seed: u64,
    /// Go on with the seeds after it, so many in all; only histories that break a rule are printed, and the sum of all.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Operations that clients begin, instead of what the seed says.
    #[arg(long)]
    steps: Option<usize>,
    /// Print everything that is delivered and done.
    #[arg(long)]
    trace: bool,
    /// Make the system wrong in this way.
    #[arg(long)]
    mutant: Option<Mutant>,
    /// Let one machine lose its disk while clients work.
    #[arg(long)]
    wipes: bool,
    /// Let nodes come and go while clients work.
    #[arg(long)]
    growth: bool,
    /// Let bits of one machine's rows flip at the end.
    #[arg(long)]
    rots: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match play(&arguments, &mut io::stdout().lock()) {
        Ok(0) => ExitCode::SUCCESS,
        // Nobody reads on: not our failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Ok(_) | Err(_) => ExitCode::FAILURE,
    }
}

/// How many histories broke a rule.
fn play(arguments: &Arguments, out: &mut impl Write) -> io::Result<u64> {
    let Arguments { seed, count, steps, trace, mutant, wipes, growth, rots } = *arguments;
    let mut broken = 0;
    let mut sum: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in seed..seed.saturating_add(count) {
        let report = run(seed, Options { steps, trace, mutant, wipes, growth, rots });
        let wrong = !report.findings.is_empty();
        broken += u64::from(wrong);
        for (what, times) in &report.figures {
            *sum.entry(what).or_default() += times;
        }
        if count == 1 || wrong {
            print(&report, out)?;
        }
    }
    if count > 1 {
        print_figures(&sum, out)?;
    }
    if broken == 0 {
        writeln!(out, "no rule was broken")?;
    } else {
        writeln!(out, "{broken} of {count} histories broke a rule")?;
    }
    Ok(broken)
}

fn print(report: &Report, out: &mut impl Write) -> io::Result<()> {
    for line in &report.trace {
        writeln!(out, "{line}")?;
    }
    write!(out, "{}", report.scenario)?;
    print_figures(&report.figures, out)?;
    writeln!(out, "  {} events in {:?}, trace {:016x}", report.events, report.lasted, report.hash)?;
    for finding in &report.findings {
        writeln!(out, "BROKEN {finding}")?;
    }
    Ok(())
}

fn print_figures(figures: &BTreeMap<&str, u64>, out: &mut impl Write) -> io::Result<()> {
    for (what, times) in figures {
        writeln!(out, "  {times:>7} {what}")?;
    }
    Ok(())
}
