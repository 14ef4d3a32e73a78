//! Every parameter of the protocol, and the parts of Lifeguard one by one.
//!
//! Sources: DESIGN §8; SWIM §4; Lifeguard §IV; memberlist's `DefaultLANConfig` where the papers leave a number open.

use std::time::Duration;

/// Parameters. All members of a cluster have the same.
#[derive(Clone, Debug, PartialEq)]
pub struct GossipConfig {
    /// One member is probed per period.
    pub probe_period: Duration,
    /// An ack is expected within this; then others are asked to probe, until the period ends. Below the period.
    pub probe_timeout: Duration,
    /// How many others are asked to probe a member that did not answer (SWIM's k).
    pub indirect_count: usize,
    /// An update is worth packets of its own until it was sent `retransmit * ceil(log10(members + 1))` times (SWIM's lambda);
    /// then it goes along as often again on those that are sent anyway.
    pub retransmit: u32,
    /// How long a suspect may refute.
    pub suspicion: SuspicionConfig,
    /// Packets of their own for news; without them news travels only on probes.
    pub ticks: Option<GossipTicks>,
    /// Lists are compared with a random alive member so often; more rarely above 32 members. memberlist exchanges whole
    /// states every 30 s; a comparison is 35 bytes, so it can be done more often.
    pub push_pull_period: Duration,
    /// Lists are compared with a random member that is down after this, less or more by half.
    pub down_retry_period: Duration,
    /// What SWIM is extended by.
    pub lifeguard: Lifeguard,
}

/// How long a suspect may refute before it is down.
#[derive(Clone, Debug, PartialEq)]
pub struct SuspicionConfig {
    /// The shortest: `alpha * max(1, log10(members))` periods.
    pub alpha: f64,
    /// The longest, in shortest ones.
    pub beta: f64,
    /// So many others must confirm a suspicion until it is as short as it gets (K).
    pub confirmations: usize,
}

/// While there is news, it is sent to `fanout` random members every `period`.
#[derive(Clone, Debug, PartialEq)]
pub struct GossipTicks {
    /// Time between two rounds.
    pub period: Duration,
    /// Members told per round.
    pub fanout: usize,
}

/// The parts of Lifeguard, each of which can be left out for comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifeguard {
    /// A node that has reason to doubt its own health probes more slowly and waits longer (LHA-Probe).
    pub health: bool,
    /// Who was asked to probe says before the timeout that it is there, when the probed member is not (nack).
    pub nack: bool,
    /// A suspicion begins long and shrinks with each independent confirmation (LHA-Suspicion).
    pub suspicion: bool,
    /// Whoever pings a suspect tells it first of all that it is suspected (Buddy System).
    pub buddy: bool,
}

impl Lifeguard {
    /// All of it.
    pub const ON: Self = Self { health: true, nack: true, suspicion: true, buddy: true };
    /// Plain SWIM.
    pub const OFF: Self = Self { health: false, nack: false, suspicion: false, buddy: false };
}

impl GossipConfig {
    /// The same without Lifeguard.
    #[must_use]
    pub fn plain_swim() -> Self {
        Self { lifeguard: Lifeguard::OFF, ..Self::default() }
    }
}

impl Default for GossipConfig {
    fn default() -> Self {
        Self {
            probe_period: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(500),
            indirect_count: 3,
            retransmit: 4,
            suspicion: SuspicionConfig { alpha: 4.0, beta: 6.0, confirmations: 3 },
            ticks: Some(GossipTicks { period: Duration::from_millis(200), fanout: 3 }),
            push_pull_period: Duration::from_secs(10),
            down_retry_period: Duration::from_secs(30),
            lifeguard: Lifeguard::ON,
        }
    }
}
