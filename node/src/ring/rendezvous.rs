//! Rendezvous scores: how much a node wants a partition.
//!
//! Shape: a node's hash of each partition index, blake3(node, index), is replaced by its rank among all of the node's: the
//! k-th smallest of Q moves into the k-th of Q equal parts of [0, 1) and gives u. score = log2(-log2(u) / weight), lower is
//! better, so a node wins with a chance proportional to its weight (the bases do not matter). The ranks change nothing in
//! that, but spread each node's luck evenly: loads scatter less, fewer nodes are full, and a join moves less.
//! Units: logarithms in fixed point with `FRACTION_BITS` fractional bits, integers only: no maths library is asked, so
//! every platform ranks alike. Source: Schindelhauer & Schomaker 2005 (weighted rendezvous); McKay, Beckman & Conover 1979
//! (one draw from each of equal parts); docs/decisions/0013. Invariant: a node's scores depend on nothing but itself.

use shoal_protocol::id::NodeId;

/// How much a node wants a partition; lower is more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Score(pub(super) i64);

impl Score {
    /// The scores of a node for all partition indexes. They do not depend on the class, so fewer replicas are a part of more.
    pub(super) fn of_node(node: NodeId, weight: u32, partitions_count: u16) -> Vec<Self> {
        let mut hashes: Vec<(u64, usize)> =
            (0..partitions_count).map(|index| (hash(node, index), usize::from(index))).collect();
        hashes.sort_unstable();
        let mut scores = vec![Self(0); hashes.len()];
        for (&(hash, index), rank) in hashes.iter().zip(0u128..) {
            let even = (rank << 64 | u128::from(hash)) / u128::from(partitions_count);
            scores[index] = Self::of_uniform(even as u64, weight);
        }
        scores
    }

    /// The score of u = uniform / 2^64.
    fn of_uniform(uniform: u64, weight: u32) -> Self {
        let draw = (64 << FRACTION_BITS) - log2(uniform.max(1));
        Self(log2(draw).cast_signed() - log2(u64::from(weight.max(1))).cast_signed())
    }
}

fn hash(node: NodeId, index: u16) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("shoal 2025 placement rendezvous");
    hasher.update(&node.0.to_be_bytes());
    hasher.update(&index.to_be_bytes());
    u64::from_be_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// The logarithm of a number that is not 0, rounded down.
fn log2(number: u64) -> u64 {
    let zeros = number.leading_zeros();
    let mut log = u64::from(63 - zeros);
    // The mantissa in [1, 2) with 63 fractional bits; squaring it doubles its logarithm, which brings out one bit.
    let mut mantissa = number << zeros;
    for _ in 0..FRACTION_BITS {
        let square = (u128::from(mantissa) * u128::from(mantissa)) >> 63;
        let carry = square >> 64;
        log = log << 1 | carry as u64;
        mantissa = (square >> carry) as u64;
    }
    log
}

/// Two of a million scores are alike to 40 bits once in two million maps; the tie then falls to the id.
const FRACTION_BITS: u32 = 40;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_logarithm_is_exact_at_powers_of_two_and_monotone() {
        assert_eq!(log2(1), 0);
        assert_eq!(log2(1 << 40), 40 << FRACTION_BITS);
        assert_eq!(log2(u64::MAX), (64 << FRACTION_BITS) - 1);
        let mut last = 0;
        for number in (0..4_000u64).map(|i| i.pow(5) + 2 * i + 1) {
            assert!(log2(number) >= last);
            last = log2(number);
        }
    }

    #[test]
    fn the_logarithm_agrees_with_the_library() {
        for number in (1..2_000u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let got = log2(number) as f64 / (1u64 << FRACTION_BITS) as f64;
            assert!(((number as f64).log2() - got).abs() < 1e-9, "{number}: {got}");
        }
    }

    #[test]
    fn weight_divides() {
        let [one, four] = [1, 4].map(|weight| Score::of_uniform(1 << 40, weight));
        assert_eq!(one.0 - four.0, 2 << FRACTION_BITS);
    }

    #[test]
    fn a_node_draws_once_from_every_part() {
        // u = 2^-x with x = 2^score, less the fixed point's own 2^40.
        let part = |score: &Score| {
            let draw = (score.0 as f64 / (1u64 << FRACTION_BITS) as f64 - f64::from(FRACTION_BITS)).exp2();
            ((-draw).exp2() * 256.0) as usize
        };
        let scores = Score::of_node(NodeId(5), 1, 256);
        assert_eq!(scores.iter().map(part).collect::<BTreeSet<_>>().len(), 256);
    }
}
