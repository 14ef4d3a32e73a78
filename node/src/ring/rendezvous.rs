//! Rendezvous scores: how much a node wants a partition.
//!
//! Shape: u = the first 64 bits of blake3(node, partition index) over 2^64; score = -log2(u) / weight, lower is better, so
//! a node wins with a chance proportional to its weight (the base of the logarithm does not matter).
//! Units: `-log2(u)` in fixed point with `FRACTION_BITS` fractional bits, integers only: no maths library is asked, so every
//! platform ranks alike. Source: Schindelhauer & Schomaker 2005 (weighted rendezvous); DESIGN §5.

use std::cmp::Ordering;

use shoal_protocol::id::NodeId;

/// `-log2(u)` of one node and partition, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Draw(u64);

impl Draw {
    /// The draw of a node for a partition index. It does not depend on the class, so fewer replicas are a part of more.
    pub(super) fn of(node: NodeId, index: u16) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("shoal 2025 placement rendezvous");
        hasher.update(&node.0.to_be_bytes());
        hasher.update(&index.to_be_bytes());
        Self::of_hash(u64::from_be_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes")))
    }

    /// Orders two draws by draw / weight without dividing.
    pub(super) fn cmp_weighted(self, weight: u32, other: Self, other_weight: u32) -> Ordering {
        (u128::from(self.0) * u128::from(other_weight)).cmp(&(u128::from(other.0) * u128::from(weight)))
    }

    fn of_hash(hash: u64) -> Self {
        let hash = hash.max(1);
        let zeros = hash.leading_zeros();
        let mut log = u64::from(63 - zeros);
        // The mantissa in [1, 2) with 63 fractional bits; squaring it doubles its logarithm, which brings out one bit.
        let mut mantissa = hash << zeros;
        for _ in 0..FRACTION_BITS {
            let square = (u128::from(mantissa) * u128::from(mantissa)) >> 63;
            let carry = square >> 64;
            log = log << 1 | carry as u64;
            mantissa = (square >> carry) as u64;
        }
        Self((64 << FRACTION_BITS) - log)
    }
}

/// Two of a million draws are alike to 40 bits once in two million maps; the tie then falls to the id.
const FRACTION_BITS: u32 = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_exact_at_powers_of_two_and_monotone() {
        assert_eq!(Draw::of_hash(1 << 63), Draw(1 << FRACTION_BITS));
        assert_eq!(Draw::of_hash(1 << 40), Draw(24 << FRACTION_BITS));
        assert_eq!(Draw::of_hash(0), Draw(64 << FRACTION_BITS));
        assert_eq!(Draw::of_hash(u64::MAX), Draw(1));
        let mut last = Draw::of_hash(1);
        for hash in (0..4_000u64).map(|i| i.pow(5) + 2 * i + 1) {
            assert!(Draw::of_hash(hash) <= last);
            last = Draw::of_hash(hash);
        }
    }

    #[test]
    fn the_logarithm_agrees_with_the_library() {
        for hash in (1..2_000u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let wanted = 64.0 - (hash as f64).log2();
            let got = Draw::of_hash(hash).0 as f64 / (1u64 << FRACTION_BITS) as f64;
            assert!((wanted - got).abs() < 1e-9, "{hash}: {wanted} {got}");
        }
    }

    #[test]
    fn weight_divides() {
        assert_eq!(Draw(200).cmp_weighted(2, Draw(100), 1), Ordering::Equal);
        assert_eq!(Draw(200).cmp_weighted(3, Draw(100), 1), Ordering::Less);
    }
}
