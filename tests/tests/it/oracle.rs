//! The oracle agrees with every read of 100,000 random histories, and notices every broken rule.

use std::ops::Range;

use shoal_tests::oracle::{Fault, Mutant, explain, run};

/// Histories per part; eight parts make 100,000.
const PART: u64 = 12_500;

fn agrees_on(seeds: Range<u64>) {
    for seed in seeds {
        if let Err(finding) = run(seed, None) {
            panic!("{finding:?}\n{}", explain(seed, None));
        }
    }
}

/// One test per part, so that they run side by side.
macro_rules! parts {
    ($($name:ident = $part:literal),*) => {
        $(#[test]
        fn $name() {
            agrees_on($part * PART..($part + 1) * PART);
        })*
    };
}

parts! {
    the_oracle_agrees_on_histories_of_part_0 = 0,
    the_oracle_agrees_on_histories_of_part_1 = 1,
    the_oracle_agrees_on_histories_of_part_2 = 2,
    the_oracle_agrees_on_histories_of_part_3 = 3,
    the_oracle_agrees_on_histories_of_part_4 = 4,
    the_oracle_agrees_on_histories_of_part_5 = 5,
    the_oracle_agrees_on_histories_of_part_6 = 6,
    the_oracle_agrees_on_histories_of_part_7 = 7
}

#[test]
fn one_seed_is_one_history() {
    for seed in 0..16 {
        assert_eq!(explain(seed, None), explain(seed, None));
    }
}

/// Seeds beyond the parts that found something once. So far only broken rules did: these catch each of them, and must find
/// nothing when no rule is broken.
#[test]
fn the_oracle_agrees_on_histories_that_found_something_once() {
    for (seed, mutant) in REGRESSIONS {
        agrees_on(seed..seed + 1);
        assert!(run(seed, Some(mutant)).is_err(), "{seed} no longer catches {mutant:?}");
    }
}

/// The faults that the first seeds find with one rule broken.
fn caught(mutant: Mutant) -> Vec<(u64, Fault)> {
    let found = |seed| run(seed, Some(mutant)).err().map(|finding| (seed, finding.fault));
    (0..MUTANT_SEEDS).filter_map(found).take(3).collect()
}

fn is_caught_as(mutant: Mutant, faults: &[Fault]) {
    let caught = caught(mutant);
    println!("{mutant:?}: {caught:?}");
    assert_eq!(caught.len(), 3, "{caught:?}");
    assert!(caught.iter().all(|(_, fault)| faults.contains(fault)), "{caught:?}");
}

#[test]
fn a_blind_put_with_a_replica_s_whole_context_is_caught() {
    is_caught_as(Mutant::WholeContextPut, &[Fault::Read]);
}

#[test]
fn a_bound_delta_skipped_because_its_dot_is_covered_is_caught() {
    is_caught_as(Mutant::SkipCovered, &[Fault::ReplacedIsBack]);
}

#[test]
fn prev_0_after_a_lost_row_is_caught() {
    is_caught_as(Mutant::PrevZeroAfterLostRow, &[Fault::Read]);
}

#[test]
fn the_old_incarnation_after_a_lost_row_is_caught() {
    is_caught_as(Mutant::OldIncarnationAfterLostRow, &[Fault::Read]);
}

#[test]
fn a_total_bound_before_an_earlier_verdict_is_caught() {
    is_caught_as(Mutant::EagerTotal, &[Fault::Read, Fault::RefusedCounted]);
}

#[test]
fn a_replica_minted_delta_sent_before_its_sync_is_caught() {
    is_caught_as(Mutant::EarlyDelta, &[Fault::Read]);
}

#[test]
fn a_limit_refused_in_merge_is_caught() {
    is_caught_as(Mutant::LimitInMerge, &[Fault::Diverged, Fault::AckedLost]);
}

#[test]
fn a_set_or_nested_removal_with_the_whole_context_is_caught() {
    is_caught_as(Mutant::WholeContextRemove, &[Fault::Read]);
}

/// Seeds tried on a mutant.
const MUTANT_SEEDS: u64 = 20_000;
const REGRESSIONS: [(u64, Mutant); 8] = [
    (1_000_001, Mutant::WholeContextPut),
    (1_000_298, Mutant::SkipCovered),
    (1_000_071, Mutant::PrevZeroAfterLostRow),
    (1_000_071, Mutant::OldIncarnationAfterLostRow),
    (1_000_005, Mutant::EagerTotal),
    (1_000_010, Mutant::EarlyDelta),
    (1_000_000, Mutant::LimitInMerge),
    (1_000_003, Mutant::WholeContextRemove),
];
