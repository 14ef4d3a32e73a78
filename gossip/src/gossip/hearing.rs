//! What claims do to the list.
//!
//! Shape: whatever is said of somebody, by whomever and on whatever way, goes through `hear`. Source: SWIM §4.2.
//! Invariants: nothing counts that the precedence of claims does not let count; a member that comes up has the description
//! it has then; "down", heard when whole lists are compared, is a reason to probe and not a verdict, because after a partition
//! every side says it of the other.

use shoal_protocol::id::NodeId;
use shoal_protocol::time::Instant;

use super::Gossip;
use crate::claim::Claim;
use crate::member::Liveness;
use crate::message::{Body, Description, Told};
use crate::output::Output;
use crate::own::Echo;
use crate::suspicion::Suspicion;

/// How a claim came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The member itself said it.
    Direct,
    /// It is news that travels.
    Rumour,
    /// It stands in somebody's whole list.
    Exchange,
}

impl From<Claim> for Told {
    fn from(claim: Claim) -> Self {
        Self { claim, description: None }
    }
}

impl Gossip {
    pub(super) fn hear(&mut self, now: Instant, told: Told, way: Way, out: &mut Vec<Output>) {
        let claim = told.claim;
        if claim.node == self.own.node() {
            return self.hear_of_own(now, &claim, out);
        }
        let Some(record) = self.roster.find(claim.node) else { return self.hear_of_stranger(now, told, out) };
        let believed = record.claim;
        let is_described = record.describes(claim.version);
        let description = if is_described { None } else { self.description(&told) };
        let lacks = !is_described && description.is_none();
        if claim.overrides(&believed) {
            let rises = claim.state.is_live() && !believed.state.is_live();
            if way == Way::Exchange && claim.state == Liveness::Down && believed.state.is_live() {
                self.probes.hurry(claim.node);
            } else if !(lacks && rises) {
                self.believe(now, claim, description, out);
            }
        } else if claim.version == believed.version {
            if let Some(description) = description {
                self.take_description(claim.node, description, out);
            }
            if let Some(by) = claim.suspected_by {
                self.confirm(claim.node, by);
            }
        }
        let is_current = claim.overrides(&believed) || claim.version == believed.version;
        if lacks && is_current && claim.state.is_live() {
            self.wanted.add(now, claim.node, self.config.probe_timeout);
        }
        let is_stale = !claim.overrides(&believed) && believed.state == Liveness::Down;
        if is_stale && way == Way::Exchange && claim.state.is_live() {
            // It may live on the other side of a partition that is over. The ping tells it first that it is down here.
            let sequence = self.probes.next_sequence();
            self.send(claim.node, &Body::Ping { sequence }, out);
        }
        if way == Way::Direct
            && let Some(record) = self.roster.find_mut(claim.node)
        {
            record.is_outdated = record.claim.version != claim.version;
        }
    }

    /// Takes a claim that counts.
    fn believe(&mut self, now: Instant, claim: Claim, description: Option<Description>, out: &mut Vec<Output>) {
        let is_new = description.is_some_and(|description| self.take_description(claim.node, description, out));
        if let Some(record) = self.roster.find_mut(claim.node) {
            let before = record.claim.state;
            record.claim = claim;
            self.settle(now, before, &claim, out);
            self.broadcasts.add(claim.node, is_new);
        }
    }

    /// What follows from a member's new state, which was `before`.
    fn settle(&mut self, now: Instant, before: Liveness, claim: &Claim, out: &mut Vec<Output>) {
        match claim.suspected_by {
            Some(by) => {
                let suspicion = Suspicion::new(&self.config, self.members_count(), now, by);
                self.suspicions.insert(claim.node, suspicion);
            }
            None => {
                self.suspicions.remove(&claim.node);
            }
        }
        if before != claim.state {
            out.push(match claim.state {
                Liveness::Alive => Output::Up(claim.node),
                Liveness::Suspect => Output::Suspect(claim.node),
                Liveness::Down => Output::Down(claim.node),
                Liveness::Left => Output::Left(claim.node),
            });
        }
    }

    fn hear_of_own(&mut self, now: Instant, claim: &Claim, out: &mut Vec<Output>) {
        let own = self.own.node();
        match self.own.hear(claim) {
            Echo::Known => {}
            Echo::Refuted => self.broadcasts.add(own, true),
            Echo::Doubted => {
                self.health.worsen(1);
                self.broadcasts.add(own, false);
                if claim.state == Liveness::Down {
                    // It was cut off, so its list is old, and what it believes of others may be as wrong.
                    self.timers.compare = self.timers.compare.min(now + self.config.probe_timeout);
                }
            }
            Echo::Cloned { boot_nonce } => {
                self.broadcasts.add(own, true);
                out.push(Output::Cloned { boot_nonce });
            }
        }
    }

    fn hear_of_stranger(&mut self, now: Instant, told: Told, out: &mut Vec<Output>) {
        if self.roster.is_echo(&told.claim) {
            return;
        }
        match self.description(&told) {
            Some(description) => self.add(now, told.claim, description, out),
            None => self.wanted.add(now, told.claim.node, self.config.probe_timeout),
        }
    }

    /// A member is new.
    pub(super) fn add(&mut self, now: Instant, claim: Claim, description: Description, out: &mut Vec<Output>) {
        if !self.roster.insert(claim, description) {
            self.aside.dropped.members += 1;
            return;
        }
        self.wanted.remove(claim.node);
        self.probes.join(&mut self.aside.rng, claim.node);
        out.push(Output::Changed(claim.node));
        // To whoever asks, a member that is not in the list is down.
        self.settle(now, Liveness::Down, &claim, out);
        self.broadcasts.add(claim.node, true);
    }

    /// The description that a claim names, if it came along and is good, or is the one of an earlier life.
    fn description(&mut self, told: &Told) -> Option<Description> {
        let claim = &told.claim;
        if let Some(record) = self.roster.find(claim.node)
            && record.description.digest() == claim.version.digest
        {
            let mut member = record.member.clone();
            member.boot_nonce = claim.version.boot_nonce;
            return Some(Description { member, bytes: record.description.clone() });
        }
        match Description::decode(claim.node, claim.version, told.description.as_ref()?) {
            Ok(description) => Some(description),
            Err(why) => {
                self.count_malformed(why);
                None
            }
        }
    }

    /// Takes a description of a member in the list; whether it says something new.
    fn take_description(&mut self, node: NodeId, description: Description, out: &mut Vec<Output>) -> bool {
        self.wanted.remove(node);
        let is_new = self.roster.find_mut(node).is_some_and(|record| record.take(description));
        if is_new {
            out.push(Output::Changed(node));
        }
        is_new
    }

    /// Another member suspects a suspect; the first few are worth passing on.
    fn confirm(&mut self, node: NodeId, by: NodeId) {
        if let Some(suspicion) = self.suspicions.get_mut(&node)
            && suspicion.confirm(by)
            && let Some(record) = self.roster.find_mut(node)
        {
            record.claim.suspected_by = Some(by);
            self.broadcasts.add(node, false);
        }
    }

    /// This node found that a member does not answer.
    pub(super) fn suspect(&mut self, now: Instant, node: NodeId, out: &mut Vec<Output>) {
        if let Some(record) = self.roster.find(node).filter(|record| record.claim.state.is_live()) {
            let claim = Claim::suspect(node, record.claim.version, self.own.node());
            self.hear(now, claim.into(), Way::Rumour, out);
        }
    }

    /// Suspects that did not refute in time are down.
    pub(super) fn end_suspicions(&mut self, now: Instant, out: &mut Vec<Output>) {
        let over = self.suspicions.iter().filter(|(_, suspicion)| suspicion.deadline() <= now);
        let over: Vec<_> = over.map(|(node, _)| *node).collect();
        for node in over {
            if let Some(record) = self.roster.find(node) {
                let claim = Claim::new(node, Liveness::Down, record.claim.version);
                self.believe(now, claim, None, out);
            }
        }
    }

    /// The member was removed from every layout.
    pub(super) fn forget(&mut self, node: NodeId, out: &mut Vec<Output>) {
        if self.roster.forget(node) {
            self.broadcasts.remove(node);
            self.probes.forget(node);
            self.wanted.remove(node);
            out.push(Output::Forgotten(node));
        }
    }
}
