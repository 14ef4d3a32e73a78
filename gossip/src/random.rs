//! Choices by chance, from one seeded generator.
//!
//! Invariant: the same generator in the same state chooses the same.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::Rng;

/// A number below `bound`; 0 when there is none. Uniform but for 1 in 2^32.
pub(crate) fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    ((u64::from(rng.next_u32()) * bound as u64) >> 32) as usize
}

/// A time below `bound`, in µs.
pub(crate) fn time_below(rng: &mut ChaCha8Rng, bound: Duration) -> Duration {
    bound.mul_f64(f64::from(rng.next_u32()) / (f64::from(u32::MAX) + 1.0))
}

/// Moves a random choice of `count` items to the front, in random order, and drops the others.
pub(crate) fn choose<T>(rng: &mut ChaCha8Rng, items: &mut Vec<T>, count: usize) {
    let count = count.min(items.len());
    for place in 0..count {
        let other = place + below(rng, items.len() - place);
        items.swap(place, other);
    }
    items.truncate(count);
}
