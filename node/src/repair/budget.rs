//! How much repair may do per second: a bucket of bytes and one of objects.
//!
//! Shape: tokens come in with time, up to one second's worth; what was moved is taken out afterwards, below zero if it was
//! more, and nothing is asked for while a bucket is below zero. Units: bytes, objects, µs.
//! Invariant: over any time span no more is begun than the rates allow for it, plus one second's worth.

use std::time::Duration;

use shoal_protocol::time::Instant;

/// What repair moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Bytes of objects, keys and hashes.
    pub bytes: u64,
    /// Objects.
    pub objects: u64,
}

impl Moved {
    pub(super) fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.objects += other.objects;
    }
}

#[derive(Debug)]
pub(super) struct Budget {
    /// Per second.
    rates: [u64; 2],
    /// Millionths of a byte, and of an object.
    levels: [i128; 2],
    filled_at: Instant,
}

impl Budget {
    pub(super) fn new(bytes_per_s: u64, objects_per_s: u64) -> Self {
        let rates = [bytes_per_s.max(1), objects_per_s.max(1)];
        Self { rates, levels: rates.map(full), filled_at: Instant(0) }
    }

    /// When something may be asked for; `now` if it may be at once.
    pub(super) fn ready_at(&mut self, now: Instant) -> Instant {
        let passed = i128::try_from(now.since(self.filled_at).as_micros()).unwrap_or(i128::MAX / (1 << 64));
        self.filled_at = now;
        let mut wait_us = 0;
        for (level, rate) in self.levels.iter_mut().zip(self.rates) {
            *level = (*level + passed * i128::from(rate)).min(full(rate));
            if *level < 0 {
                wait_us = wait_us.max(-*level / i128::from(rate) + 1);
            }
        }
        now + Duration::from_micros(u64::try_from(wait_us).unwrap_or(u64::MAX / 2))
    }

    pub(super) fn spend(&mut self, moved: Moved) {
        for (level, spent) in self.levels.iter_mut().zip([moved.bytes, moved.objects]) {
            *level -= i128::from(spent) * MILLION;
        }
    }
}

fn full(rate: u64) -> i128 {
    i128::from(rate) * MILLION
}

const MILLION: i128 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_spent_comes_back_with_time_and_no_more_than_a_second_of_it() {
        let mut budget = Budget::new(1_000, 10);
        let now = Instant(50_000_000);
        assert_eq!(budget.ready_at(now), now);
        budget.spend(Moved { bytes: 3_000, objects: 1 });
        let ready = budget.ready_at(now);
        assert_eq!(ready.since(now), Duration::from_micros(2_000_001));
        assert_eq!(budget.ready_at(ready), ready);
        budget.spend(Moved { bytes: 0, objects: 30 });
        assert!(budget.ready_at(ready) > ready + Duration::from_millis(1_900));
        let later = ready + Duration::from_secs(1_000);
        assert_eq!(budget.ready_at(later), later);
        budget.spend(Moved { bytes: 1_001, objects: 0 });
        assert!(budget.ready_at(later) > later);
    }
}
