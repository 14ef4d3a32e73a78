//! How long it takes until a member that died is noticed, and until all know.
//!
//! Measures, each from the moment of death, in protocol periods, in a cluster where nobody's periods begin at the same time:
//! - *first probe*: the number of whole periods up to and including the one in which somebody's probe of it begins. SWIM §3.1
//!   expects e/(e-1) = 1.58 of it; the time itself, not rounded up, is 1.0 on average.
//! - *suspected*: until the first member suspects it, which is one period after the first probe began, as a time.
//! - *down*: until the first member believes it down, as a time. *known*: until the last member does.

use std::time::Duration;

use shoal_protocol::id::NodeId;
use shoal_protocol::time::Instant;

use super::{Network, Protocol, feed};
use crate::gossip::Gossip;
use crate::input::Input;
use crate::member::{Liveness, Member};

/// One death.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Whole periods until a probe of it had begun.
    pub first_probe_periods: f64,
    /// Periods until somebody suspected it, where the protocol tells.
    pub suspected: Option<f64>,
    /// Periods until somebody believed it down.
    pub down: f64,
    /// Periods until everybody did.
    pub known: f64,
}

/// Kills a random member of a network at a random time and watches the others; nothing when they did not all find out
/// within 200 periods.
pub fn kill_one<P: Protocol>(network: &mut Network<P>, period: Duration) -> Option<Detection> {
    let victim = network.chance(network.count());
    let pause = period.mul_f64(1.0 + network.chance(1000) as f64 / 1000.0);
    network.run_for(pause);
    let death = network.now();
    network.kill(victim);
    network.take_probes();
    network.take_history();
    let is_noticed = network.run_while(death + period * 200, |network| !network.agrees());
    let periods = |at: Instant| at.since(death).as_secs_f64() / period.as_secs_f64();
    let probe = network.take_probes().into_iter().find(|(_, target)| *target == victim).map(|(at, _)| periods(at));
    let history = network.take_history();
    let first = |liveness: Liveness| {
        let seen = history.iter().find(|seen| seen.subject == victim && seen.liveness == liveness);
        seen.map(|seen| periods(seen.at))
    };
    let known = periods(network.now());
    is_noticed.then_some(Detection {
        first_probe_periods: probe?.ceil().max(1.0),
        suspected: first(Liveness::Suspect),
        down: first(Liveness::Down)?,
        known,
    })
}

/// Lets a random member say something new of itself and returns the seconds until all know it.
pub fn spread(network: &mut Network<Gossip>) -> Option<f64> {
    let speaker = network.chance(network.count());
    let node = NodeId(speaker as u64);
    let weight = network.protocol(speaker).own().weight + 1;
    network.act(speaker, |gossip, now, out| {
        let member = Member { weight, ..gossip.own().clone() };
        feed(gossip, now, Input::Describe(member), out);
    });
    let start = network.now();
    let knows = move |network: &Network<Gossip>, other: usize| {
        network.protocol(other).member(node).is_none_or(|member| member.weight == weight)
    };
    let all_know = |network: &Network<Gossip>| (0..network.count()).all(|other| knows(network, other));
    let is_known = network.run_while(start + Duration::from_secs(60), |network| !all_know(network));
    is_known.then(|| network.now().since(start).as_secs_f64())
}

/// The mean.
#[must_use]
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The median.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
