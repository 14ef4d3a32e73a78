//! When to try again, and when to stop: decisions only, no I/O.
//!
//! Shape: `Attempts` carries one request through its attempts (`step` says what to do next, `ended` reports how an attempt
//! went), `RetryBudget` bounds how much load retries add, `Breaker` keeps a failing node out of the way, `backoff` draws
//! the pauses. The caller owns sockets and timers, so the same code runs natively and in a browser.
//! Source: DESIGN §6 (overload); Brooker, "Exponential Backoff And Jitter" (2015); Finagle's `RetryBudget`.
//! Invariant: a request is never reported refused when an attempt may have been admitted.

mod attempts;
mod breaker;
mod budget;

use std::time::Duration;

use rand_core::Rng;

pub use attempts::{Attempts, End, GiveUp, Repeat, Step};
pub use breaker::Breaker;
pub use budget::RetryBudget;

/// The pause after the `failures`-th failure in a row (from 1): half of it fixed, half drawn.
#[must_use]
pub fn backoff(failures: u32, rng: &mut impl Rng) -> Duration {
    let doubled = BACKOFF_BASE * 2u32.saturating_pow(failures.saturating_sub(1).min(16));
    let whole = doubled.min(BACKOFF_MAX);
    let half = u64::try_from(whole.as_micros() / 2).unwrap_or(u64::MAX);
    Duration::from_micros(half + rng.next_u64() % (half + 1))
}

/// First pause. Guess, to be measured by the overload test.
const BACKOFF_BASE: Duration = Duration::from_millis(50);
/// Longest pause: a node that is back is noticed within it.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_differ() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (failures, whole) in [(1, BACKOFF_BASE), (2, BACKOFF_BASE * 2), (3, BACKOFF_BASE * 4), (40, BACKOFF_MAX)] {
            let drawn: Vec<Duration> = (0..50).map(|_| backoff(failures, &mut rng)).collect();
            assert!(drawn.iter().all(|d| (whole / 2..=whole).contains(d)), "{failures}: {drawn:?}");
            assert!(drawn.iter().any(|d| *d != drawn[0]));
        }
    }
}
