//! Plays one simulated history and prints its scenario, what happened how often, and every rule that was broken.
//!
//! Exit code 0 when no rule was broken, 1 otherwise, 2 for wrong usage. The same seed plays the same history.

use std::process::ExitCode;

use clap::Parser;
use shoal_tests::sim::mutant::Mutant;
use shoal_tests::sim::{Options, run};

/// Play the history of a seed.
#[derive(Parser)]
struct Arguments {
    /// The seed.
    seed: u64,
    /// Go on with so many seeds after it.
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
    /// Print nothing of histories that break no rule.
    #[arg(long)]
    quiet: bool,
}

fn main() -> ExitCode {
    let Arguments { seed, count, steps, trace, mutant, quiet } = Arguments::parse();
    let mut broken = 0;
    for seed in seed..seed.saturating_add(count) {
        let report = run(seed, Options { steps, trace, mutant });
        let wrong = !report.findings.is_empty();
        broken += u64::from(wrong);
        if quiet && !wrong {
            continue;
        }
        for line in &report.trace {
            println!("{line}");
        }
        print!("{}", report.scenario);
        for (what, count) in &report.figures {
            println!("  {count:>7} {what}");
        }
        println!("  {} events in {:?}, trace {:016x}", report.events, report.lasted, report.hash);
        for finding in &report.findings {
            println!("BROKEN {finding}");
        }
    }
    if broken == 0 {
        println!("no rule was broken");
        ExitCode::SUCCESS
    } else {
        println!("{broken} of {count} histories broke a rule");
        ExitCode::FAILURE
    }
}
