//! Suspicion: how long a suspect may refute before it is down.
//!
//! Shape: `timeout = max - (max - min) * ln(c + 1) / ln(k + 1)`, c = independent confirmations (0..=k),
//! `min = alpha * max(1, log10(n))` periods, `max = beta * min`; k is at most the number of members that could confirm.
//! Without LHA-Suspicion the timeout is `min`. Source: Lifeguard §IV-B; memberlist `suspicion.go`.
//! Invariants: the deadline never moves away while a suspicion lives; one member confirms once.

use std::time::Duration;

use shoal_protocol::id::NodeId;
use shoal_protocol::time::Instant;

use crate::config::GossipConfig;

/// One member under suspicion.
#[derive(Clone, Debug)]
pub(crate) struct Suspicion {
    since: Instant,
    min: Duration,
    max: Duration,
    confirmations_max: usize,
    /// Who suspects it: whoever was first, then those that confirmed.
    by: Vec<NodeId>,
}

impl Suspicion {
    /// Begins when `by` says so, in a cluster of `members_count` live members.
    pub(crate) fn new(config: &GossipConfig, members_count: usize, now: Instant, by: NodeId) -> Self {
        let periods = config.suspicion.alpha * (members_count as f64).log10().max(1.0);
        let min = config.probe_period.mul_f64(periods);
        let max = if config.lifeguard.suspicion { min.mul_f64(config.suspicion.beta) } else { min };
        // Neither the suspect nor who was first can confirm.
        let confirmations_max = config.suspicion.confirmations.min(members_count.saturating_sub(2));
        Self { since: now, min, max, confirmations_max, by: vec![by] }
    }

    /// Takes a confirmation; whether it is a new one that counts, and so is worth passing on.
    pub(crate) fn confirm(&mut self, by: NodeId) -> bool {
        let counts = self.by.len() <= self.confirmations_max && !self.by.contains(&by);
        if counts {
            self.by.push(by);
        }
        counts
    }

    /// When the suspect is down unless it refutes.
    pub(crate) fn deadline(&self) -> Instant {
        let confirmations = self.by.len() - 1;
        if confirmations >= self.confirmations_max {
            return self.since + self.min;
        }
        let share = ((confirmations + 1) as f64).ln() / ((self.confirmations_max + 1) as f64).ln();
        self.since + (self.max - (self.max - self.min).mul_f64(share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Lifeguard;

    fn seconds(suspicion: &Suspicion) -> f64 {
        suspicion.deadline().since(Instant(0)).as_secs_f64()
    }

    #[test]
    fn each_confirmation_shortens_it_by_the_published_formula() {
        let mut suspicion = Suspicion::new(&GossipConfig::default(), 100, Instant(0), NodeId(1));
        let mut timeouts = vec![seconds(&suspicion)];
        for by in 2..=4 {
            assert!(suspicion.confirm(NodeId(by)));
            timeouts.push(seconds(&suspicion));
        }
        // min = 4 * log10(100) = 8 s, max = 48 s.
        let expected = [48.0, 48.0 - 40.0 * 2f64.ln() / 4f64.ln(), 48.0 - 40.0 * 3f64.ln() / 4f64.ln(), 8.0];
        assert!(timeouts.iter().zip(expected).all(|(got, want)| (got - want).abs() < 1e-5), "{timeouts:?}");
    }

    #[test]
    fn who_suspected_already_and_who_comes_too_late_do_not_count() {
        let mut suspicion = Suspicion::new(&GossipConfig::default(), 100, Instant(0), NodeId(1));
        assert!(!suspicion.confirm(NodeId(1)));
        assert!((2..=4).all(|by| suspicion.confirm(NodeId(by))));
        assert!(!suspicion.confirm(NodeId(5)));
    }

    #[test]
    fn where_nobody_can_confirm_it_is_short_from_the_start() {
        let two = Suspicion::new(&GossipConfig::default(), 2, Instant(0), NodeId(1));
        assert_eq!(seconds(&two), 4.0);
        let mut three = Suspicion::new(&GossipConfig::default(), 3, Instant(0), NodeId(1));
        assert_eq!(seconds(&three), 24.0);
        assert!(three.confirm(NodeId(2)));
        assert_eq!(seconds(&three), 4.0);
    }

    #[test]
    fn plain_swim_waits_the_same_time_always() {
        let config = GossipConfig { lifeguard: Lifeguard::OFF, ..GossipConfig::default() };
        let mut suspicion = Suspicion::new(&config, 100, Instant(0), NodeId(1));
        assert_eq!(seconds(&suspicion), 8.0);
        suspicion.confirm(NodeId(2));
        assert_eq!(seconds(&suspicion), 8.0);
    }
}
