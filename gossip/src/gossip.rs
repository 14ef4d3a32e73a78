//! The member list: one node's part of the protocol.
//!
//! Shape: `handle` takes one input and appends outputs; only `Tick` looks at the time. `hearing` is what claims do to the
//! list, `probing` finds out who answers, `exchanging` compares whole lists and fetches descriptions, `leaving` says goodbye.
//! Invariants: one packet per destination and occasion; nothing is waited for without a deadline; an input of any content
//! takes bounded memory.

mod exchanging;
mod hearing;
mod leaving;
mod probing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use shoal_protocol::id::NodeId;
use shoal_protocol::time::Instant;

use crate::broadcasts::{Broadcasts, Fit};
use crate::config::GossipConfig;
use crate::health::Health;
use crate::input::Input;
use crate::member::{Liveness, Member};
use crate::message::{Body, Draft, Malformed, Message};
use crate::output::Output;
use crate::own::Own;
use crate::probe::Probes;
use crate::random;
use crate::roster::{Record, Roster};
use crate::suspicion::Suspicion;
use exchanging::Wanted;
use hearing::Way;
use leaving::Leaving;

/// The member list of one node.
#[derive(Debug)]
pub struct Gossip {
    config: GossipConfig,
    own: Own,
    roster: Roster,
    suspicions: BTreeMap<NodeId, Suspicion>,
    broadcasts: Broadcasts,
    probes: Probes,
    health: Health,
    wanted: Wanted,
    timers: Timers,
    /// What has no meaning for the protocol.
    aside: Aside,
}

#[derive(Debug)]
struct Timers {
    probe: Instant,
    compare: Instant,
    down_retry: Instant,
    /// While there is news and ticks are on.
    news: Option<Instant>,
    leaving: Option<Leaving>,
}

#[derive(Debug)]
struct Aside {
    rng: ChaCha8Rng,
    dropped: Dropped,
}

/// What was received and not used, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Messages and descriptions that could not be read.
    pub malformed: u64,
    /// Messages in a format of another version.
    pub foreign_version: u64,
    /// Members beyond the 1,024 that a list takes.
    pub members: u64,
    /// Requests to probe beyond the 256 that are under way.
    pub relays: u64,
}

impl Gossip {
    /// A list without other members. Nothing is sent before the first `handle`.
    #[must_use]
    pub fn new(config: GossipConfig, own: Member, seed: [u8; 32], now: Instant) -> Self {
        let mut rng = ChaCha8Rng::from_seed(seed);
        let timers = Timers {
            probe: now + random::time_below(&mut rng, config.probe_period),
            compare: now + random::time_below(&mut rng, config.push_pull_period),
            down_retry: now + random::time_below(&mut rng, config.down_retry_period),
            news: None,
            leaving: None,
        };
        Self {
            own: Own::new(own),
            roster: Roster::default(),
            suspicions: BTreeMap::new(),
            broadcasts: Broadcasts::default(),
            probes: Probes::new(rng.next_u32()),
            health: Health::new(config.lifeguard.health),
            wanted: Wanted::default(),
            timers,
            aside: Aside { rng, dropped: Dropped::default() },
            config,
        }
    }

    /// Takes one input; appends what is to be sent and what changed to `out`.
    pub fn handle(&mut self, now: Instant, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Tick => self.tick(now, out),
            Input::Packet { from, bytes } | Input::Message { from, bytes } => self.receive(now, from, &bytes, out),
            Input::Met(member) => self.met(now, member, out),
            Input::Lost(node) => self.lost(now, node, out),
            Input::PacketSize { to, bytes } => self.roster.set_packet_bytes(to, bytes),
            Input::Describe(member) => {
                if self.own.describe(member) {
                    self.broadcasts.add(self.own.node(), true);
                }
            }
            Input::Leave => self.leave(now, out),
            Input::Forget(node) => self.forget(node, out),
        }
        self.expect_news(now);
    }

    /// When to hand in a `Tick` at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let timers = &self.timers;
        let always = [self.probes.next_deadline(), timers.news];
        let later = match &timers.leaving {
            Some(leaving) => [leaving.next_round(), None, None],
            None => [Some(timers.probe), Some(timers.compare), Some(timers.down_retry)],
        };
        let suspicions = self.suspicions.values().map(Suspicion::deadline);
        always.into_iter().chain(later).flatten().chain(suspicions).min()
    }

    /// What this node says of itself.
    #[must_use]
    pub const fn own(&self) -> &Member {
        self.own.member()
    }

    /// The others, in id order; those that left included.
    pub fn members(&self) -> impl Iterator<Item = (&Member, Liveness)> {
        self.roster.iter().map(|record| (&record.member, record.claim.state))
    }

    /// What is known of one member.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.roster.find(node).map(|record| &record.member)
    }

    /// What is believed of one member; one never seen is `Down`.
    #[must_use]
    pub fn liveness(&self, node: NodeId) -> Liveness {
        self.roster.liveness(node)
    }

    /// Lifeguard's local health multiplier: 0 when this node has no reason to doubt its own health.
    #[must_use]
    pub const fn health(&self) -> u32 {
        self.health.score()
    }

    /// What was received and not used.
    #[must_use]
    pub const fn dropped(&self) -> Dropped {
        self.aside.dropped
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.end_probes(now, out);
        self.end_suspicions(now, out);
        if self.timers.leaving.is_some() {
            self.go_on_leaving(now, out);
        } else {
            self.probe_next(now, out);
            self.compare_next(now, out);
        }
        self.spread_news(now, out);
    }

    fn receive(&mut self, now: Instant, from: NodeId, bytes: &Bytes, out: &mut Vec<Output>) {
        if from == self.own.node() {
            return;
        }
        let message = match Message::decode(from, bytes) {
            Ok(message) => message,
            Err(why) => return self.count_malformed(why),
        };
        self.roster.spoke(from);
        self.hear(now, message.sender.into(), Way::Direct, out);
        let theirs: Vec<_> = message.told.iter().map(|told| told.claim).chain([message.sender]).collect();
        let way = if matches!(message.body, Body::Claims | Body::Answer) { Way::Exchange } else { Way::Rumour };
        for told in message.told {
            self.hear(now, told, way, out);
        }
        match message.body {
            Body::Ping { sequence } => self.send(from, &Body::Ack { sequence }, out),
            Body::Ack { sequence } => self.acked(from, sequence, out),
            Body::Nack { sequence } => self.probes.nack(from, sequence),
            Body::PingRequest { sequence, target } => self.probe_for(now, (from, sequence), target, out),
            Body::Compare { summary } => self.compared(from, summary, out),
            Body::Claims => self.answer(from, &theirs, out),
            Body::Want { nodes } => self.describe_to(from, &nodes, out),
            Body::News | Body::Answer | Body::Described => {}
        }
        self.want(from, out);
    }

    fn count_malformed(&mut self, why: Malformed) {
        let dropped = &mut self.aside.dropped;
        match why {
            Malformed::ForeignVersion { .. } => dropped.foreign_version += 1,
            Malformed::Truncated
            | Malformed::TooLong { .. }
            | Malformed::BadValue { .. }
            | Malformed::BadText
            | Malformed::Trailing => dropped.malformed += 1,
        }
    }

    /// Sends one datagram, filled up with news.
    fn send(&mut self, to: NodeId, body: &Body, out: &mut Vec<Output>) {
        let mut draft = self.draft(to, body, self.roster.packet_bytes(to));
        let limit = self.retransmit_limit();
        let is_told_first = self.roster.find(to).is_some_and(|record| self.must_tell(record));
        let Self { broadcasts, roster, own, .. } = self;
        broadcasts.offer(limit, |news| {
            let (claim, description) = match roster.find(news.node) {
                Some(record) => (record.claim, Some(&record.description).filter(|_| record.is_described())),
                None => (own.claim(), Some(own.description())),
            };
            let is_idle = news.node == to && (is_told_first || claim.state == Liveness::Alive);
            let description = description.filter(|bytes| news.is_described && bytes.len() <= INLINE_BYTES_MAX);
            if draft.is_full() {
                Fit::Full
            } else if !is_idle && (draft.put(&claim, description) || draft.put(&claim, None)) {
                Fit::Sent
            } else {
                Fit::Skipped
            }
        });
        out.push(Output::Packet { to, bytes: draft.finish() });
    }

    /// Begins a message that first tells the receiver what it must hear of itself.
    fn draft(&self, to: NodeId, body: &Body, bytes_max: usize) -> Draft {
        let mut draft = Draft::new(&self.own.claim(), body, bytes_max);
        if let Some(record) = self.roster.find(to).filter(|record| self.must_tell(record)) {
            draft.put(&record.claim, None);
        }
        draft
    }

    /// Whether a member must hear what is believed of it: that it is down or left (else it could never come back), that it
    /// is suspect (Lifeguard's Buddy System), or something newer than it says itself.
    const fn must_tell(&self, record: &Record) -> bool {
        match record.claim.state {
            Liveness::Alive => record.is_outdated,
            Liveness::Suspect => record.is_outdated || self.config.lifeguard.buddy,
            Liveness::Down | Liveness::Left => true,
        }
    }

    /// While there is urgent news, a round of ticks is due.
    fn expect_news(&mut self, now: Instant) {
        if let Some(ticks) = &self.config.ticks
            && self.timers.news.is_none()
            && self.broadcasts.is_urgent(self.retransmit_limit())
            && self.roster.live_count() > 0
        {
            self.timers.news = Some(now + ticks.period);
        }
    }

    fn spread_news(&mut self, now: Instant, out: &mut Vec<Output>) {
        let Some(ticks) = self.config.ticks.as_ref().filter(|_| self.timers.news.is_some_and(|at| at <= now)) else {
            return;
        };
        self.timers.news = None;
        for to in self.roster.choose(&mut self.aside.rng, ticks.fanout, |claim| claim.state.is_live()) {
            if self.broadcasts.is_urgent(self.retransmit_limit()) {
                self.send(to, &Body::News, out);
            }
        }
    }

    /// Members that live, this node included.
    fn members_count(&self) -> usize {
        self.roster.live_count() + 1
    }

    /// How often an update is sent (SWIM §4.1): `lambda * ceil(log10(n + 1))`.
    fn retransmit_limit(&self) -> u32 {
        self.config.retransmit * ((self.members_count() + 1) as f64).log10().ceil() as u32
    }
}

/// Longer descriptions do not travel in datagrams; who needs one asks for it.
const INLINE_BYTES_MAX: u16 = 512;
