//! The oracle agrees with every read of random histories, and notices every broken rule.

use std::ops::Range;

use shoal_tests::oracle::{Fault, Mutant, explain, run};

/// Histories per test; eight tests make 100,000.
const PART: u64 = 12_500;

fn agrees_on(seeds: Range<u64>) {
    for seed in seeds {
        if let Err(finding) = run(seed, None) {
            panic!("{finding:?}\n{}", explain(seed, None));
        }
    }
}

#[test]
fn the_oracle_agrees_on_histories_of_part_1() {
    agrees_on(0..PART);
}

#[test]
fn the_oracle_agrees_on_histories_of_part_2() {
    agrees_on(PART..2 * PART);
}

#[test]
fn the_oracle_agrees_on_histories_of_part_3() {
    agrees_on(2 * PART..3 * PART);
}

#[test]
fn the_oracle_agrees_on_histories_of_part_4() {
    agrees_on(3 * PART..4 * PART);
}

#[test]
fn the_oracle_agrees_on_histories_of_part_5() {
    agrees_on(4 * PART..5 * PART);
}

#[test]
fn the_oracle_agrees_on_histories_of_part_6() {
    agrees_on(5 * PART..6 * PART);
}

#[test]
fn the_oracle_agrees_on_histories_of_part_7() {
    agrees_on(6 * PART..7 * PART);
}

#[test]
fn the_oracle_agrees_on_histories_of_part_8() {
    agrees_on(7 * PART..8 * PART);
}

#[test]
fn one_seed_is_one_history() {
    for seed in 0..16 {
        assert_eq!(explain(seed, None), explain(seed, None));
    }
}

/// Seeds that found something once: the first that catch each mutant.
#[test]
fn the_oracle_agrees_on_histories_that_once_failed() {
    for seed in REGRESSIONS {
        agrees_on(seed..seed + 1);
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
const REGRESSIONS: [u64; 0] = [];
