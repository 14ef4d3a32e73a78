//! Scrub: every partition held is verified once per period, one after the other.
//!
//! Shape: the pace is spread evenly over the period, the beginning is drawn: processes that are restarted more often than a
//! period is long reach all partitions in the long run. Invariant: at most one partition is being verified.

use std::time::Duration;

use shoal_protocol::id::Partition;
use shoal_protocol::time::Instant;

#[derive(Debug)]
pub(super) struct Scrub {
    period: Duration,
    /// The partition verified last.
    last: Option<Partition>,
    next_at: Option<Instant>,
    /// What is being verified, and until when that is waited for.
    open: Option<(Partition, Instant)>,
    verified_count: u64,
}

impl Scrub {
    pub(super) fn new(period: Duration) -> Self {
        Self { period, last: None, next_at: None, open: None, verified_count: 0 }
    }

    /// Begins behind a partition, unless it has begun.
    pub(super) fn begin(&mut self, now: Instant, behind: Option<Partition>) {
        if self.next_at.is_none() && behind.is_some() {
            self.last = behind;
            self.next_at = Some(now);
        }
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.open.map(|(_, until)| until).or(self.next_at)
    }

    /// The partition to verify now, out of these in order, if one is due.
    pub(super) fn next(
        &mut self,
        now: Instant,
        mut held: impl Iterator<Item = Partition> + Clone,
    ) -> Option<Partition> {
        // Without an answer its store failed, or cannot verify yet.
        self.open.take_if(|(_, until)| *until <= now);
        if self.open.is_some() || self.next_at.is_none_or(|at| now < at) {
            return None;
        }
        let count = held.clone().count();
        let first = held.clone().next();
        let next = held.find(|partition| self.last < Some(*partition)).or(first);
        self.next_at = Some(now + self.period / u32::try_from(count.max(1)).unwrap_or(u32::MAX));
        self.last = next;
        self.open = next.map(|partition| (partition, now + VERIFY_MAX));
        next
    }

    /// A partition was verified.
    pub(super) fn verified(&mut self, partition: Partition) {
        if self.open.take_if(|(open, _)| *open == partition).is_some() {
            self.verified_count += 1;
        }
    }

    pub(super) fn verified_count(&self) -> u64 {
        self.verified_count
    }
}

/// Guess: the largest partition takes seconds.
const VERIFY_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use shoal_protocol::id::Class;

    use super::*;

    #[test]
    fn a_pass_takes_a_period_and_leaves_nothing_out() {
        let held: Vec<Partition> =
            (0..10).map(|index| Partition { class: Class { n: 3, r: 0, w: 0 }, index }).collect();
        let mut scrub = Scrub::new(Duration::from_secs(100));
        assert_eq!(scrub.next(Instant(0), held.iter().copied()), None);
        scrub.begin(Instant(0), Some(held[6]));
        let (mut now, mut seen) = (Instant(0), Vec::new());
        for _ in 0..10 {
            let partition = scrub.next(now, held.iter().copied()).unwrap();
            assert_eq!(scrub.next(now, held.iter().copied()), None);
            scrub.verified(partition);
            seen.push(partition.index);
            now = scrub.next_at().unwrap();
        }
        assert_eq!(seen, [7, 8, 9, 0, 1, 2, 3, 4, 5, 6]);
        assert_eq!((now, scrub.verified_count()), (Instant(100_000_000), 10));
        // Nobody answers: it goes on all the same.
        scrub.next(now, held.iter().copied()).unwrap();
        assert_eq!(scrub.next(scrub.next_at().unwrap(), held.iter().copied()), Some(held[8]));
    }
}
