//! Histories of the simulated world: a fixed number of fresh seeds, the seeds that once found something, and mutants that
//! the checkers must see.

use std::collections::BTreeMap;
use std::ops::Range;

use shoal_tests::sim::mutant::Mutant;
use shoal_tests::sim::{Options, Report, run};

/// Plays these seeds; every history must keep every rule. Returns how often what happened.
fn play(seeds: impl IntoIterator<Item = u64>) -> BTreeMap<&'static str, u64> {
    let mut figures = BTreeMap::new();
    for seed in seeds {
        let report = run(seed, Options::default());
        assert!(report.findings.is_empty(), "{}", explain(&report));
        for (what, times) in report.figures {
            *figures.entry(what).or_default() += times;
        }
    }
    figures
}

fn explain(report: &Report) -> String {
    let seed = report.scenario.seed;
    let again = format!("cargo run -p shoal-tests --bin sim -- {seed} --trace");
    format!("{}{}\nto see it: {again}", report.scenario, report.findings.join("\n"))
}

macro_rules! histories {
    ($($name:ident: $seeds:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let seeds: Range<u64> = $seeds;
                play(seeds);
            }
        )*
    };
}

// One test each, so that they run beside each other.
histories! {
    a_cluster_keeps_its_promises_in_the_second_200_histories: 200..400;
    a_cluster_keeps_its_promises_in_the_third_200_histories: 400..600;
    a_cluster_keeps_its_promises_in_the_fourth_200_histories: 600..800;
    a_cluster_keeps_its_promises_in_the_fifth_200_histories: 800..1000;
    a_cluster_keeps_its_promises_in_the_sixth_200_histories: 1000..1200;
    a_cluster_keeps_its_promises_in_the_seventh_200_histories: 1200..1400;
    a_cluster_keeps_its_promises_in_the_eighth_200_histories: 1400..1600;
}

/// The first 200 histories also show that the world does what it is for.
#[test]
fn a_cluster_keeps_its_promises_in_the_first_200_histories_which_see_every_fault() {
    let figures = play(0..200);
    for what in MUST_HAPPEN {
        assert!(figures.contains_key(what), "in 200 histories there was no `{what}`: {figures:#?}");
    }
}

/// A wiped member, or one with an older disk, comes back under its node id: it counts for writes, never for reads, and nothing
/// acknowledged is lost.
#[test]
fn nothing_acknowledged_is_lost_with_the_disk_of_one_machine_nor_called_absent_by_its_new_store() {
    let (mut wipes, mut restores) = (0, 0);
    for seed in 0..200 {
        let report = run(seed, Options { wipes: true, ..Options::default() });
        assert!(report.findings.is_empty(), "{} --wipes", explain(&report));
        wipes += report.figures.get("wipes").copied().unwrap_or_default();
        restores += report.figures.get("restores").copied().unwrap_or_default();
    }
    assert!(wipes > 150 && restores > 100, "the histories are too tame: {wipes} wipes, {restores} restores");
}

/// Bits flip in rows of one machine: they are never shown, and are as they were within a scrub period.
#[test]
fn rotten_rows_are_healed_from_the_others_within_a_scrub_period_and_never_shown() {
    let mut rotten = 0;
    for seed in 0..15 {
        let report = run(seed, Options { rots: true, ..Options::default() });
        assert!(report.findings.is_empty(), "{} --rots", explain(&report));
        rotten += report.figures.get("rows rotten").copied().unwrap_or_default();
    }
    assert!(rotten > 15, "the histories are too tame: {rotten} rows");
}

/// Newcomers join and members leave, while nodes fail and clients work; in the end one layout is left, and nothing is missing.
#[test]
fn a_cluster_grows_and_shrinks_and_keeps_its_promises_on_the_way() {
    let (mut leaves, mut boots) = (0, 0);
    for seed in 0..40 {
        let report = run(seed, Options { growth: true, ..Options::default() });
        assert!(report.findings.is_empty(), "{} --growth", explain(&report));
        leaves += report.figures.get("leaves").copied().unwrap_or_default();
        boots += report.figures.get("boots").copied().unwrap_or_default();
    }
    assert!(leaves > 30 && boots > 200, "the histories are too tame: {leaves} leaves, {boots} starts");
}

#[test]
fn seeds_that_once_found_something_find_nothing_any_more() {
    play(REGRESSIONS.iter().map(|(seed, _)| *seed));
}

#[test]
fn one_seed_gives_one_trace() {
    for seed in 0..20 {
        let [first, second] = [0, 1].map(|_| run(seed, Options::default()));
        assert_eq!((first.hash, first.events), (second.hash, second.events), "seed {seed} gave two histories");
    }
    assert_ne!(run(0, Options::default()).hash, run(1, Options::default()).hash);
}

/// Some history among so many breaks a rule.
fn is_seen(mutant: Mutant) {
    let options = Options { mutant: Some(mutant), ..Options::default() };
    let seen = (0..MUTANT_SEEDS).any(|seed| !run(seed, options).findings.is_empty());
    assert!(seen, "no checker sees {mutant:?} in {MUTANT_SEEDS} histories");
}

macro_rules! mutants {
    ($($name:ident: $mutant:ident;)*) => { $( #[test] fn $name() { is_seen(Mutant::$mutant); } )* };
}

mutants! {
    acks_before_the_sync_are_seen: AckBeforeSync;
    a_read_quorum_of_one_is_seen: QuorumOfOne;
    skipping_a_delta_whose_dot_is_covered_is_seen: SkipCovered;
    repeating_under_a_fresh_dot_is_seen: FreshDot;
    read_repairs_thrown_away_are_seen: NoRepair;
    a_hint_forgotten_before_its_target_synced_it_is_seen: HintForgotten;
    a_comparison_that_skips_a_level_is_seen: SkipLevel;
    a_comparison_of_truncated_ranges_is_seen: TruncatedRanges;
    limits_in_merge_are_seen: LimitInMerge;
    taking_admission_for_an_ack_is_seen: AdmittedIsAck;
    answering_twice_is_seen: AnswerTwice;
    never_answering_is_seen: NeverAnswer;
    waiting_for_a_node_that_stays_away_is_seen: WaitForAll;
}

/// Seeds that broke a rule before a fix, and what they had found.
const REGRESSIONS: &[(u64, &str)] = &[
    (129, "a keyspace shown by the only node that had it so far was called gone by the two others"),
    (137, "the oracle took an lww value that a later context had replaced for the last write"),
    (241, "while a store was given another incarnation, the node asked for ticks without end"),
    (439, "the world's own: one store of a machine that had lost power went on on the disk from before"),
    (1_416, "a removal by context, minted where the element had not arrived, removed nothing and was acknowledged"),
    (2_278, "an lww store dropped a loser in memory only and showed it again after a restart"),
    (2_820, "the world's own: a machine that was to stay dead was started again after an earlier loss of power"),
    (5_799, "the same"),
    (6_761, "the same"),
];

/// What a few hundred histories must see.
const MUST_HAPPEN: &[&str] = &[
    "acks",
    "acks of fallbacks",
    "stood in",
    "reads",
    "scans",
    "repeats",
    "intents",
    "writes refused",
    "writes unknown",
    "limit",
    "wrong_type",
    "keys over a limit",
    "flushes",
    "torn writes",
    "storage failures",
    "failures of one store of several",
    "opens failed",
    "rivals",
    "drops",
    "third dead",
    "third apart",
    "third deaf",
    "third mute",
    "third's disk hangs",
    "third's disk is full",
    "fault split",
    "fault bridge",
    "fault one-way",
    "fault flap",
    "fault isolate",
    "fault swizzle",
    "fault crash",
    "fault power cut",
    "fault torn write",
    "fault restart",
    "fault slow node",
    "fault slow disk",
    "fault disk error",
    "fault disk full",
    "fault clock jump",
];
/// A mutant is seen within so many histories.
const MUTANT_SEEDS: u64 = 300;
