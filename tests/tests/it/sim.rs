//! Simulated histories: a fixed number of seeds, each a cluster with faults, judged from outside.
//!
//! A failure names the command that plays the seed again. Seeds that once broke a rule are among `REGRESSIONS` for ever.

use std::ops::Range;

use shoal_tests::sim::mutant::Mutant;
use shoal_tests::sim::{Options, run};

fn play(seeds: impl IntoIterator<Item = u64>) {
    for seed in seeds {
        let report = run(seed, Options::default());
        let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        assert!(findings.is_empty(), "cargo run -p shoal-tests --bin sim -- {seed}\n{}", findings.join("\n"));
    }
}

/// One part of the range, so that parts run beside each other.
fn part(n: u64) -> Range<u64> {
    n * PART_SEEDS_COUNT..(n + 1) * PART_SEEDS_COUNT
}

macro_rules! parts {
    ($($name:ident: $n:literal),*) => { $(
        #[test]
        fn $name() {
            play(part($n));
        }
    )* };
}

parts! {
    no_history_breaks_a_rule_part_0: 0, no_history_breaks_a_rule_part_1: 1, no_history_breaks_a_rule_part_2: 2,
    no_history_breaks_a_rule_part_3: 3, no_history_breaks_a_rule_part_4: 4, no_history_breaks_a_rule_part_5: 5,
    no_history_breaks_a_rule_part_6: 6, no_history_breaks_a_rule_part_7: 7
}

#[test]
fn no_history_that_once_broke_a_rule_breaks_one_again() {
    play(REGRESSIONS);
}

#[test]
fn one_seed_twice_gives_one_trace() {
    for seed in 0..20 {
        let [first, second] = [(); 2].map(|()| run(seed, Options::default()));
        assert_eq!((first.hash, first.events), (second.hash, second.events), "seed {seed}");
    }
}

#[test]
fn every_mutant_breaks_a_rule_that_the_checkers_see() {
    for mutant in Mutant::ALL {
        let breaks = |seed| !run(seed, Options { mutant: Some(mutant), ..Options::default() }).findings.is_empty();
        assert!((0..MUTANT_SEEDS_COUNT).any(breaks), "{mutant:?} goes unseen for {MUTANT_SEEDS_COUNT} seeds");
    }
}

/// Eight parts: 1,200 histories in all.
const PART_SEEDS_COUNT: u64 = 150;
/// Most are seen by the first seeds; an ack before the sync takes ten, an admission taken for an ack some two hundred.
const MUTANT_SEEDS_COUNT: u64 = 600;
/// Seeds beyond the range that once broke a rule, most of them for a reason since mended; all are played for ever.
const REGRESSIONS: [u64; 2] = [1_416, 2_278];
