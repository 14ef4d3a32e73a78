//! Local health: how much reason a node has to doubt itself rather than those that do not answer it.
//!
//! Source: Lifeguard §IV-A (LHA-Probe), memberlist `awareness.go`. Shape: a score from 0 (well) to 8; probe period and
//! timeout are `score + 1` times as long. A probe that succeeds takes one off; one that fails, each nack that was due and did
//! not come, and having to refute, add one.
//! Invariant: without LHA-Probe the score stays 0.

use std::time::Duration;

/// The local health multiplier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Health {
    is_counted: bool,
    score: u32,
}

impl Health {
    pub(crate) const fn new(is_counted: bool) -> Self {
        Self { is_counted, score: 0 }
    }

    pub(crate) const fn score(self) -> u32 {
        self.score
    }

    pub(crate) fn worsen(&mut self, by: u32) {
        if self.is_counted {
            self.score = self.score.saturating_add(by).min(SCORE_MAX);
        }
    }

    pub(crate) const fn improve(&mut self) {
        self.score = self.score.saturating_sub(1);
    }

    pub(crate) fn scale(self, time: Duration) -> Duration {
        time * (self.score + 1)
    }
}

/// Lifeguard's S.
const SCORE_MAX: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_stays_between_its_bounds_and_stretches_time() {
        let mut health = Health::new(true);
        health.improve();
        assert_eq!(health.scale(Duration::from_secs(1)), Duration::from_secs(1));
        health.worsen(5);
        health.worsen(5);
        assert_eq!((health.score(), health.scale(Duration::from_secs(1))), (8, Duration::from_secs(9)));
        health.improve();
        assert_eq!(health.score(), 7);
    }

    #[test]
    fn a_node_that_does_not_count_is_always_well() {
        let mut health = Health::new(false);
        health.worsen(3);
        assert_eq!(health.score(), 0);
    }
}
