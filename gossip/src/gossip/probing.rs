//! Who answers: a probe per period, through others when it fails, and the verdict of suspicion when that fails too.
//!
//! Source: SWIM §3.1, §4.1; Lifeguard §IV-A. Invariant: a node that slept past several periods probes once, not in a burst.

use shoal_protocol::id::NodeId;
use shoal_protocol::time::Instant;

use super::Gossip;
use crate::member::Liveness;
use crate::message::Body;
use crate::output::Output;
use crate::probe::{Acked, Relay, nack_after};

impl Gossip {
    /// The probe of this period.
    pub(super) fn probe_next(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.timers.probe > now {
            return;
        }
        self.timers.probe = now + self.health.scale(self.config.probe_period);
        let live = |node| self.roster.liveness(node).is_live() && !self.probes.is_probed(node);
        let live: Vec<_> = self.roster.iter().map(|record| record.claim.node).filter(|node| live(*node)).collect();
        let target = self.probes.next(&mut self.aside.rng, |node| live.binary_search(&node).is_ok());
        if let Some(target) = target {
            self.probe(now, target, out);
        }
    }

    /// A connection to this member was lost.
    pub(super) fn lost(&mut self, now: Instant, node: NodeId, out: &mut Vec<Output>) {
        if self.roster.liveness(node).is_live() && !self.probes.is_probed(node) && !self.own.has_left() {
            self.probe(now, node, out);
        }
    }

    fn probe(&mut self, now: Instant, target: NodeId, out: &mut Vec<Output>) {
        let ask_at = now + self.health.scale(self.config.probe_timeout);
        let end = now + self.health.scale(self.config.probe_period);
        let sequence = self.probes.begin(target, ask_at, end);
        self.send(target, &Body::Ping { sequence }, out);
    }

    /// Acts on probes that were not answered in time, own ones and those made for others.
    pub(super) fn end_probes(&mut self, now: Instant, out: &mut Vec<Output>) {
        for relay in self.probes.due_nacks(now) {
            self.send(relay.origin, &Body::Nack { sequence: relay.origin_sequence }, out);
        }
        for (sequence, target) in self.probes.due_to_ask(now) {
            let others = self.roster.choose(&mut self.aside.rng, self.config.indirect_count, |claim| {
                claim.state == Liveness::Alive && claim.node != target
            });
            self.probes.asked(sequence, &others);
            for other in others {
                self.send(other, &Body::PingRequest { sequence, target }, out);
            }
        }
        for probe in self.probes.failed(now) {
            let silent_count = probe.asked.values().filter(|is_there| !**is_there).count() as u32;
            let counts_nacks = self.config.lifeguard.nack && !probe.asked.is_empty();
            self.health.worsen(if counts_nacks { silent_count } else { 1 });
            self.suspect(now, probe.target, out);
        }
    }

    pub(super) fn acked(&mut self, from: NodeId, sequence: u32, out: &mut Vec<Output>) {
        match self.probes.ack(from, sequence) {
            Acked::Own => self.health.improve(),
            Acked::Relayed(relay) => self.send(relay.origin, &Body::Ack { sequence: relay.origin_sequence }, out),
            Acked::Nothing => {}
        }
    }

    /// Another node asks for a probe, under its own number.
    pub(super) fn probe_for(
        &mut self,
        now: Instant,
        (origin, origin_sequence): (NodeId, u32),
        target: NodeId,
        out: &mut Vec<Output>,
    ) {
        if target == self.own.node() {
            return self.send(origin, &Body::Ack { sequence: origin_sequence }, out);
        }
        let nack_at = self.config.lifeguard.nack.then(|| now + nack_after(self.config.probe_timeout));
        let relay = Relay { origin, origin_sequence, target, nack_at, end: now + self.config.probe_period };
        match self.probes.relay(relay) {
            Some(sequence) => self.send(target, &Body::Ping { sequence }, out),
            None => self.aside.dropped.relays += 1,
        }
    }
}
