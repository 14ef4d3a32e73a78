//! A circuit breaker per node: after some failures in a row the node is left alone for a while, then probed.
//!
//! Shape: closed -> (failures) -> open until a time -> one probe -> closed, or open for longer. It orders nodes, it never
//! forbids the last one: a node that is configured is never given up (DESIGN §8).

use rand_core::Rng;
use shoal_protocol::time::Instant;

use super::backoff;

/// What one node's recent answers say of it.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    failures: u32,
    open_until: Option<Instant>,
}

impl Breaker {
    /// Whether a request may go to the node now. After the pause the first caller is the probe, the others go on waiting.
    pub fn admit(&mut self, now: Instant, rng: &mut impl Rng) -> bool {
        match self.open_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                self.open_until = Some(now + backoff(self.failures, rng));
                true
            }
        }
    }

    /// When the node may be tried again; `None` while the breaker is closed.
    #[must_use]
    pub const fn open_until(&self) -> Option<Instant> {
        self.open_until
    }

    /// The node answered.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// The node left a request without an answer.
    pub fn failed(&mut self, now: Instant, rng: &mut impl Rng) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES_MAX {
            self.open_until = Some(now + backoff(self.failures, rng));
        }
    }

    /// No connection to the node can be had, or it ended: open at once.
    pub fn disconnected(&mut self, now: Instant, rng: &mut impl Rng) {
        self.failures = self.failures.saturating_add(1);
        self.open_until = Some(now + backoff(self.failures, rng));
    }
}

/// Silences in a row before a node that is still connected is left alone.
const FAILURES_MAX: u32 = 3;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn an_open_breaker_lets_one_probe_through_and_closes_on_its_success() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut breaker = Breaker::default();
        let start = Instant(1);
        for _ in 0..FAILURES_MAX {
            assert!(breaker.admit(start, &mut rng));
            breaker.failed(start, &mut rng);
        }
        assert!(!breaker.admit(start, &mut rng));
        let later = start + Duration::from_secs(10);
        assert!(breaker.admit(later, &mut rng));
        assert!(!breaker.admit(later, &mut rng));
        breaker.succeeded();
        assert!(breaker.admit(later, &mut rng));
    }

    #[test]
    fn a_lost_connection_opens_it_at_once() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut breaker = Breaker::default();
        breaker.disconnected(Instant(1), &mut rng);
        assert!(!breaker.admit(Instant(1), &mut rng));
        assert!(breaker.open_until().is_some_and(|until| until > Instant(1)));
    }
}
